"""Check that outcomes of recipients are followed in Postfix's log.

Used by doctor.checks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.core.finding import WARNING, Finding
from postfix_archive.core.observed import Observed

LATE = 600  # seconds; cron runs postfix-archive outcomes every minute
USUAL = "/var/log/postfix.log"  # MAILLOG_README


def log(host: Observed) -> Iterator[Finding]:
    """Report a log that does not exist or cannot be read."""
    if host.settings is None or not host.settings.follows or not host.log_trouble:
        return
    set_file = host.setting("maillog_file", USUAL)
    reload = host.command("postfix", "reload")
    yield Finding(
        "log-unreadable",
        WARNING,
        "Postfix's log",
        f"{host.log_trouble}: outcomes of recipients are not recorded",
        f"correct that, or run {set_file}; {reload}; then make install",
    )


def follower(host: Observed) -> Iterator[Finding]:
    """Report that postfix-archive outcomes does not keep up with the log."""
    if host.settings is None or not host.settings.follows or host.log_trouble:
        return
    age = host.followed_age
    if host.is_running and (age is None or age > LATE):
        since = "ever" if age is None else f"for {age / 60:.0f} minutes"
        yield Finding(
            "outcomes-late",
            WARNING,
            host.follower or "postfix-archive outcomes",
            f"it has not reached the end of Postfix's log {since}: outcomes of"
            " recipients are missing in the journals",
            _restart(host),
        )


def _restart(host: Observed) -> str:
    name = host.follower.rpartition("/")[2]
    if name.endswith(".service"):
        return f"systemctl restart {shlex.quote(name)}; see journalctl -u {name}"
    by_hand = f"{host.ours('outcomes')} --once"
    if name:
        return f"check that cron runs; by hand: {by_hand}"
    return f"make install sets up its service; or run {by_hand} every minute"


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (log, follower)
