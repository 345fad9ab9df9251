"""Check the fallback directory, and that rescues run.

Used by doctor.checks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import ADVICE, Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING

HOUR = 3600
DAY = 24 * HOUR


def check_fallback_directory(host: Host) -> Iterator[Finding]:
    """Report a fallback directory that is missing, not private or on the wrong disk."""
    if host.settings is None:
        return
    path = host.settings.archive_fallback_directory
    file = host.files[path]
    user = host.archive_user()
    quoted = shlex.quote(path)
    if not file.is_directory:
        harm = "no such directory: copies that the store refuses wait in the queue"
        fix = f"install -d -m 700 -o {user} {quoted}"
        yield Finding("fallback-missing", CRITICAL, path, harm, fix)
    elif file.owner != user:
        harm = f"{file.owner} owns it and {user} cannot write copies there"
        fix = f"chown {user} {quoted}"
        yield Finding("fallback-owner", CRITICAL, path, harm, fix, is_safe=True)
    elif file.mode & 0o077:
        harm = f"users other than {user} can read the copies in it"
        fix = f"chmod 700 {quoted}"
        yield Finding("fallback-mode", CRITICAL, path, harm, fix, is_safe=True)
    elif host.settings.has_store:
        store = host.files.get(host.settings.archive_store_directory)
        if store is not None and store.device and store.device == file.device:
            yield Finding(
                "fallback-same-disk",
                ADVICE,
                path,
                "it is on the store's file system: when that is full or unavailable,"
                " copies wait in Postfix's queue instead",
                "in archive.cf set archive_fallback_directory to a directory on another"
                " file system",
            )


def check_fallback_copies(host: Host) -> Iterator[Finding]:
    """Report copies in the fallback directory."""
    if host.fallback_count and host.settings is not None:
        yield Finding(
            "fallback-backlog",
            CRITICAL if host.fallback_age > DAY else WARNING,
            host.settings.archive_fallback_directory,
            f"{host.fallback_count} copies wait for the store, the oldest for"
            f" {host.fallback_age // 60} minutes: {host.fallback_reason[:200]}",
            "remove the cause, then postfix-archive return",
        )


def check_held_mail(host: Host) -> Iterator[Finding]:
    """Report mail that a rescue put on hold because the stamp filter does not work."""
    if host.held_count:
        yield Finding(
            "mail-on-hold",
            CRITICAL,
            f"{host.config.directory}/archive.held",
            f"{host.held_count} messages are on hold: the stamp filter fails and they"
            " were about to expire",
            "remove the cause (postfix-archive status), then postfix-archive rescue",
        )


def check_rescue_runs(host: Host) -> Iterator[Finding]:
    """Report that postfix-archive rescue does not run regularly."""
    if host.settings is None or not host.is_running:
        return
    if host.last_rescue_age is None or host.last_rescue_age > HOUR:
        since = "for over an hour" if host.last_rescue_age else "yet"
        yield Finding(
            "rescue-late",
            WARNING,
            "postfix-archive rescue",
            f"it has not run {since}: queued copies expire without an alarm",
            "make install sets up a timer; or run rescue and return every five minutes",
        )


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_fallback_directory,
    check_fallback_copies,
    check_held_mail,
    check_rescue_runs,
)
