"""Stores and mails the outcome report of a record whose recipients are all settled.

Used by everything that appends outcomes to a journal. First the store, then the mail,
then the journal event that it was mailed: a process that is killed between two steps
and repeats them stores one report, and mails it at most twice, with the same
Message-Id.
"""

from __future__ import annotations

from postfix_archive.back import handback, reading, store, stored
from postfix_archive.core import archiving, digest, outcome_report, report, trace, wire
from postfix_archive.core.envelope import Recipient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.record import Record
    from postfix_archive.core.settings import Settings


def settle(
    settings: Settings, keys: Keyring, archive: str, kept: Record, now: int
) -> str:
    """Store the outcome report of a record; mail it if archive_outcome_mail is yes.

    record is the record as the journal has it now; now is Unix time. Returns one line
    about what was done, "" if there is nothing to do: a recipient is not settled yet,
    or this report was stored, and mailed if so configured. Durable on return. Raises
    StoreFailed, JournalFailed, RecordDamaged, HandBackUnreachable and HandBackRefused;
    call it again then.
    """
    if not kept.results.is_settled:
        return ""
    folder = settings.archive_store_directory
    place = store.Archive(folder, archive)
    covers = kept.results.covers
    names = [name for name, covered in kept.reports.items() if covered == covers]
    done = "" if names else f"{kept.archive_id}: outcome report stored"
    name = names[0] if names else _kept(settings, keys, place, kept, now)
    if not _is_mailed(settings, kept) or name in kept.mailed:
        return done
    queue_id = _sent(settings, keys, kept, place.path(name), now)
    place.outcome_mailed(kept.archive_id, name, trace.timestamp(now), queue_id)
    done = done or f"{kept.archive_id}: outcome report already stored"
    return f"{done}; mailed, queued as {queue_id}"


def _is_mailed(settings: Settings, kept: Record) -> bool:
    if not settings.archive_outcome_mail:
        return False
    return not archiving.could_loop(kept.envelope, kept.request, settings)


def _kept(
    settings: Settings, keys: Keyring, place: store.Archive, kept: Record, now: int
) -> str:
    """Store the report; return its file name."""
    covers = kept.results.covers
    content = outcome_report.written(
        kept,
        reading.original_head(settings.archive_store_directory, kept),
        sender=settings.archive_from,
        edge=report.boundary(kept.archive_id, covers, keys),
        now=now,
    )
    time = trace.timestamp(now)
    return place.outcome_report(kept.archive_id, (content,), covers, time)


def _sent(settings: Settings, keys: Keyring, kept: Record, path: str, now: int) -> str:
    """Mail a stored report to the archive address; return Postfix's queue id.

    It has the stamp of an archive copy: a report that is forwarded back to this host
    only adds a supplement to its record.
    """
    content = b"".join(stored.unpacked(path))
    proof = digest.of((content,)).digest()
    mark = archiving.copy_stamp(kept.archive_id, kept.request, proof, keys, now=now)
    return handback.submit(
        settings.copy_port,
        settings.archive_sender,
        (Recipient(kept.archive.encode()),),
        wire.chained((mark,), (content,)),
        eightbit=not content.isascii(),
    )
