"""Deletes from the bucket what was removed from the store, as soon as its lock allows.

Used by replicator. Raises ObjectStoreFailed and StoreFailed.
"""

from __future__ import annotations

import time

from postfix_archive.errors import StoreFailed
from postfix_archive.message import dates
from postfix_archive.replicate import layout
from postfix_archive.replicate.bucket import Bucket, Lock, Version
from postfix_archive.replicate.replication_state import ArchiveState, Removed
from postfix_archive.store import copy_file


def remove(bucket: Bucket, directory: str, archive: str, state: ArchiveState) -> bool:
    """Delete the objects of removed records; return whether the state has changed.

    What the server must still keep is tried again when it says. directory is the
    archive's: the objects of a record whose marked copy is still there stay, because
    the index may have to read them yet, see retention/removal.
    """
    now = dates.format_rfc3339(time.time())
    due = [
        archive_id
        for archive_id, each in state.removed.items()
        if each.until <= now
        and not _is_marked(f"{directory}/{copy_file.copy_name(archive_id)}")
    ]
    for archive_id in due:
        removed = state.removed[archive_id]
        until = _remove(bucket, layout.record_prefix(archive, archive_id), removed)
        if until:
            state.removed[archive_id] = Removed(removed.offset, until)
        else:
            del state.removed[archive_id]
    return bool(due)


def _is_marked(path: str) -> bool:
    try:
        return not copy_file.is_committed(path)
    except StoreFailed as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return False
        raise


def _remove(bucket: Bucket, prefix: str, removed: Removed) -> str:
    """Delete what is of before a removal; return until when some of it must stay."""
    until = ""
    for version in list(bucket.versions(prefix)):
        if not _is_before(bucket, version, removed.offset):
            continue
        if bucket.delete(version):
            continue
        stored = bucket.stored(version.key, version.version_id)
        if stored is None:
            continue
        if stored.lock.is_held:  # what was removed is not held any more
            bucket.extend(version.key, version.version_id, Lock())
            if bucket.delete(version):
                continue
        if stored.lock.until is not None:
            until = max(until, dates.format_rfc3339(stored.lock.until.timestamp()))
    return until


def _is_before(bucket: Bucket, version: Version, offset: int) -> bool:
    """Return whether an object is of before a position in the journal."""
    if version.is_marker:
        return True
    stored = bucket.stored(version.key, version.version_id)
    return stored is not None and stored.offset < offset
