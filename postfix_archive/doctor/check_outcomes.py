"""Check that outcomes of recipients are followed in Postfix's log.

Used by doctor.checks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import WARNING

FOLLOWER_LATE_AGE = 600  # seconds; cron runs postfix-archive outcomes every minute
DEFAULT_LOG = "/var/log/postfix.log"  # MAILLOG_README


def check_log(host: Host) -> Iterator[Finding]:
    """Report a log that does not exist or cannot be read."""
    if host.settings is None or not host.settings.needs_follower or not host.log_error:
        return
    set_file = host.parameter_command("maillog_file", DEFAULT_LOG)
    reload = host.postfix_command("postfix", "reload")
    yield Finding(
        "log-unreadable",
        WARNING,
        "Postfix's log",
        f"{host.log_error}: outcomes of recipients are not recorded",
        f"correct that, or run {set_file}; {reload}; then make install",
    )


def check_follower(host: Host) -> Iterator[Finding]:
    """Report that postfix-archive outcomes does not keep up with the log."""
    if host.settings is None or not host.settings.needs_follower or host.log_error:
        return
    age = host.log_read_age
    if host.is_running and (age is None or age > FOLLOWER_LATE_AGE):
        since = "ever" if age is None else f"for {age / 60:.0f} minutes"
        yield Finding(
            "outcomes-late",
            WARNING,
            host.follower_file or "postfix-archive outcomes",
            f"it has not reached the end of Postfix's log {since}: outcomes of"
            " recipients are missing in the journals",
            _follower_fix(host),
        )


def _follower_fix(host: Host) -> str:
    name = host.follower_file.rpartition("/")[2]
    if name.endswith(".service"):
        return f"systemctl restart {shlex.quote(name)}; see journalctl -u {name}"
    by_hand = f"{host.archive_command('outcomes')} --once"
    if name:
        return f"check that cron runs; by hand: {by_hand}"
    return f"make install sets up its service; or run {by_hand} every minute"


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (check_log, check_follower)
