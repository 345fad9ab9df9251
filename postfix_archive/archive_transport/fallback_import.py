"""Imports the capsules of the fallback directory into the store, as its owner.

Used by ``postfix-archive fallback import`` and by install/uninstall (so without click).
Each capsule is archived as by the archive transport, then its file is removed. A
capsule that fails stays for the next import.
"""

from __future__ import annotations

import os
import time

from postfix_archive.archive_transport import transport
from postfix_archive.archive_transport.archive_job import ArchiveJob
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, CapsuleBroken, SealInvalid
from postfix_archive.message.keyring import Keyring
from postfix_archive.store import fallback, record_reader
from postfix_archive.system import files, privileges, spool

FAILURE_LIMIT = 10  # consecutive failures after which the import stops
CAPSULE_ERRORS = (CapsuleBroken, SealInvalid)  # faults of one capsule, not of the store
DRAFT_MAX_AGE = 86400  # seconds: no process writes for so long (archive_time_limit)


def import_capsules(config_directory: str) -> tuple[int, int, str]:
    """Import all capsules; return how many were archived, how many remain, and why.

    Raises StoreFailed, KeyMissing, and the errors of config/archive_cf.
    """
    settings = archive_cf.load(config_directory)
    fallback_directory = settings.archive_fallback_directory
    if not os.path.isdir(fallback_directory):
        return 0, 0, ""
    with privileges.as_owner(fallback_directory):
        if not fallback.waiting_capsules(fallback_directory):
            _remove_old_drafts(settings)
            return 0, 0, ""
        keys = archive_cf.load_keys(settings)
        lock_descriptor = privileges.try_lock(f"{fallback_directory}/lock")
        if lock_descriptor < 0:
            return (
                0,
                len(fallback.waiting_capsules(fallback_directory)),
                "another fallback import is running",
            )
        try:
            archived_count, reason = _import_waiting(settings, keys)
            _remove_old_drafts(settings)
        finally:
            os.close(lock_descriptor)
        return (
            archived_count,
            len(fallback.waiting_capsules(fallback_directory)),
            reason,
        )


def _import_waiting(settings: Settings, keys: Keyring) -> tuple[int, str]:
    """Archive the capsules, oldest first; return how many, and the last error."""
    archived_count = failure_count = 0
    reason = ""
    for _, path in fallback.waiting_capsules(settings.archive_fallback_directory):
        try:
            _archive_capsule(settings, keys, path)
            archived_count, failure_count = archived_count + 1, 0
        except ArchiveError as error:
            reason = f"{os.path.basename(path)[:12]}: {error}"
            failure_count += not isinstance(error, CAPSULE_ERRORS)
            if failure_count == FAILURE_LIMIT:
                break
    return archived_count, reason


def _archive_capsule(settings: Settings, keys: Keyring, path: str) -> None:
    """Archive one capsule, then remove its file."""
    descriptor = fallback.open_capsule(path)
    try:
        spool_directory = settings.archive_spool_directory
        message = spool.read(descriptor, spool_directory, canonical=True)
    finally:
        os.close(descriptor)
    try:
        message = spool.unpack(message, spool_directory)
        transport.archive_message(ArchiveJob(message, settings, keys, int(time.time())))
    finally:
        message.close()
    fallback.remove(path)


def _remove_old_drafts(settings: Settings) -> None:
    """Remove drafts of processes that have crashed."""
    cutoff = time.time() - DRAFT_MAX_AGE
    directories = [settings.archive_fallback_directory]
    if settings.has_store:
        store_directory = settings.archive_store_directory
        try:
            directories += [
                f"{store_directory}/{each}"
                for each in record_reader.archives(store_directory)
            ]
        except ArchiveError:
            pass  # if the store is unavailable, the import has reported it
    for each in directories:
        files.remove_drafts(f"{each}/drafts", cutoff)
