"""Checks of what tells the journals what became of each recipient.

Used by core/checkup.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.core.finding import WARNING, Finding
from postfix_archive.core.observed import Observed

LATE = 600  # seconds; cron runs it every minute
USUAL = "/var/log/postfix.log"  # MAILLOG_README


def log(host: Observed) -> Iterator[Finding]:
    """Postfix's log can be found and read."""
    if host.settings is None or not host.settings.follows or not host.log_trouble:
        return
    named = host.setting("maillog_file", USUAL)
    again = host.command("postfix", "reload")
    yield Finding(
        "log-unreadable",
        WARNING,
        "Postfix's log",
        f"{host.log_trouble}: what became of recipients stays unknown",
        f"mend that, or: {named}; {again}; then make install",
    )


def follower(host: Observed) -> Iterator[Finding]:
    """Somebody reads the log to its end, again and again."""
    if host.settings is None or not host.settings.follows or host.log_trouble:
        return
    age = host.followed_age
    if host.is_running and (age is None or age > LATE):
        since = "ever" if age is None else f"for {age / 60:.0f} minutes"
        yield Finding(
            "outcomes-late",
            WARNING,
            host.follower or "postfix-archive outcomes",
            f"it has not read Postfix's log to its end {since}: what became of"
            " recipients is not in the journals yet",
            _restart(host),
        )


def _restart(host: Observed) -> str:
    name = host.follower.rpartition("/")[2]
    if name.endswith(".service"):
        return f"systemctl restart {shlex.quote(name)}; journalctl -u {name} says more"
    by_hand = f"{host.ours('outcomes')} --once"
    if name:
        return f"see whether cron runs; by hand: {by_hand}"
    return f"make install sets up its service; or run {by_hand} every minute"


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (log, follower)
