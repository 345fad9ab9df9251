"""Checks of what keeps waiting mail from dying: the fallback directory, the rescues.

Used by core/checkup.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.core.finding import ADVICE, CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

HOUR = 3600
DAY = 24 * HOUR


def fallback(host: Observed) -> Iterator[Finding]:
    """The fallback directory is there, its user's alone, on a disk of its own."""
    if host.settings is None:
        return
    path = host.settings.archive_fallback_directory
    there = host.files[path]
    user = host.user()
    where = shlex.quote(path)
    if not there.is_folder:
        harm = "there is none: what the store cannot take waits in the queue"
        cure = f"install -d -m 700 -o {user} {where}"
        yield Finding("fallback-missing", CRITICAL, path, harm, cure)
    elif there.owner != user:
        harm = f"it belongs to {there.owner}: {user} cannot put copies there"
        cure = f"chown {user} {where}"
        yield Finding("fallback-owner", CRITICAL, path, harm, cure, is_safe=True)
    elif there.mode & 0o077:
        harm = "others than the archive's user can read copies that wait there"
        cure = f"chmod 700 {where}"
        yield Finding("fallback-mode", CRITICAL, path, harm, cure, is_safe=True)
    elif host.settings.stores:
        store = host.files.get(host.settings.archive_store_directory)
        if store is not None and store.device and store.device == there.device:
            yield Finding(
                "fallback-same-disk",
                ADVICE,
                path,
                "it is on the store's file system: when that is full or away, copies"
                " wait in Postfix's queue instead",
                "set archive_fallback_directory in archive.cf to another file system",
            )


def copies_in_fallback(host: Observed) -> Iterator[Finding]:
    """No copies wait in the fallback directory."""
    if host.fallback and host.settings is not None:
        yield Finding(
            "fallback-waits",
            CRITICAL if host.fallback_age > DAY else WARNING,
            host.settings.archive_fallback_directory,
            f"{host.fallback} copies are not in the store yet, the oldest for"
            f" {host.fallback_age // 60} minutes: {host.fallback_why[:200]}",
            "cure the reason, then postfix-archive return",
        )


def held(host: Observed) -> Iterator[Finding]:
    """No mail is on hold because the stamp filter does not work."""
    if host.held:
        yield Finding(
            "mail-held",
            CRITICAL,
            f"{host.found.directory}/archive.held",
            f"{host.held} messages were put on hold before they would expire at the"
            " stamp filter",
            "cure the reason (postfix-archive status), then postfix-archive rescue",
        )


def rescues(host: Observed) -> Iterator[Finding]:
    """Somebody runs postfix-archive rescue again and again."""
    if host.settings is None or not host.is_running:
        return
    if host.rescued_age is None or host.rescued_age > HOUR:
        since = "for over an hour" if host.rescued_age else "ever"
        yield Finding(
            "rescue-late",
            WARNING,
            "postfix-archive rescue",
            f"it has not run {since}: copies that wait will expire unseen",
            "make install sets up a timer; or run rescue and return every five minutes",
        )


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    fallback,
    copies_in_fallback,
    held,
    rescues,
)
