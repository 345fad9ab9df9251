"""Imports the capsules of the fallback directory into the store, as its owner.

Used by ``postfix-archive fallback import`` and by install/uninstall (so without click).
Each capsule is archived as by the archive transport, then its file is removed. A
capsule that fails stays for the next import.
"""

from __future__ import annotations

import os
import time

from postfix_archive.back import acting, config, fallback, files, reading, spool
from postfix_archive.core.errors import ArchiveError, CapsuleBroken, SealWrong
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.settings import Settings
from postfix_archive.front import archive_transport
from postfix_archive.front.archive_transport import Case

PATIENCE = 10  # consecutive failures after which the import stops
OF_ITS_OWN = (CapsuleBroken, SealWrong)  # faults of one capsule, not of the store
DRAFT_AGE = 86400  # seconds: no process writes for so long (archive_time_limit)


def bring_back(directory: str) -> tuple[int, int, str]:
    """Import all capsules; return how many were archived, how many remain, and why.

    Raises StoreFailed, KeyMissing, and the errors of config/archive_cf.
    """
    settings = config.load(directory)
    folder = settings.archive_fallback_directory
    if not os.path.isdir(folder):
        return 0, 0, ""
    with acting.as_owner(folder):
        if not fallback.waiting(folder):
            _sweep(settings)
            return 0, 0, ""
        keys = config.keys(settings)
        lock = acting.lock(f"{folder}/lock")
        if lock < 0:
            return (
                0,
                len(fallback.waiting(folder)),
                "another fallback import is running",
            )
        try:
            done, why = _returned(settings, keys)
            _sweep(settings)
        finally:
            os.close(lock)
        return done, len(fallback.waiting(folder)), why


def _returned(settings: Settings, keys: Keyring) -> tuple[int, str]:
    """Archive the capsules, oldest first; return how many, and the last error."""
    done = failed = 0
    why = ""
    for _, path in fallback.waiting(settings.archive_fallback_directory):
        try:
            _archive(settings, keys, path)
            done, failed = done + 1, 0
        except ArchiveError as error:
            why = f"{os.path.basename(path)[:12]}: {error}"
            failed += not isinstance(error, OF_ITS_OWN)
            if failed == PATIENCE:
                break
    return done, why


def _archive(settings: Settings, keys: Keyring, path: str) -> None:
    """Archive one capsule, then remove its file."""
    descriptor = fallback.opened(path)
    try:
        folder = settings.archive_spool_directory
        message = spool.read(descriptor, folder, canonical=True)
    finally:
        os.close(descriptor)
    try:
        message = spool.unpacked(message, folder)
        archive_transport.archived(Case(message, settings, keys, int(time.time())))
    finally:
        message.close()
    fallback.done(path)


def _sweep(settings: Settings) -> None:
    """Remove drafts of processes that have crashed."""
    before = time.time() - DRAFT_AGE
    folders = [settings.archive_fallback_directory]
    if settings.stores:
        store = settings.archive_store_directory
        try:
            folders += [f"{store}/{each}" for each in reading.archives(store)]
        except ArchiveError:
            pass  # if the store is unavailable, the import has reported it
    for each in folders:
        files.sweep(f"{each}/drafts", before)
