"""Seal a store: the ends of all journals, witnessed from outside.

Used by ``postfix-archive seal``. The order of the steps:

1. what an interrupted run has left undone: delivery and events of the last seal;
2. the heads of all journals; nothing new since the last seal: no seal;
3. a time stamp of each authority (archive_tsa_url); one must be valid;
4. replies and certificates, then the seal itself, durable in <store>/seals;
5. delivery (archive_seal_to, archive_seal_file);
6. an event ``sealed`` in each journal, so that the seal is chained in;
7. its number and SHA-256 outside the store (journal-ends).

Killed between any two steps it is completed by the next run. Raises ArchiveError;
then nothing is recorded as sealed that is not.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, SealFailed, TimeStampFailed
from postfix_archive.message import address, dates
from postfix_archive.seal import delivery, heads, seal_file, time_stamp
from postfix_archive.seal.heads import Heads
from postfix_archive.seal.time_stamp import Stamp
from postfix_archive.store import (
    journal,
    journal_reader,
    known_end,
    record_reader,
    tally_cache,
    verifier,
)
from postfix_archive.store.verifier import Seal
from postfix_archive.system import files, privileges

KEY_PURPOSE = b"seal"
LOCK_TIMEOUT = 30.0  # seconds to wait for a journal that another process writes
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Sealing:
    """What a run has done: the last seal, whether it is new, its authorities' times.

    ``losses`` says what journals have lost since the seal before, one line each.
    """

    seal: Seal
    is_new: bool
    times: dict[str, str]  # RFC 3339, by URL
    losses: tuple[str, ...] = ()


def run(settings: Settings, warn: Warn) -> Sealing:
    """Seal the store, unless nothing is new; warn of what fails besides."""
    store = settings.archive_store_directory
    lost_seals = _lost_seals(settings)
    with _locked(store):
        seals = seal_file.read_all(store)
        last = seals[-1] if seals else None
        number, previous = _place(settings, last)
        seal_file.remove_unfinished(store, number)
        if last:
            _finish(settings, last, warn)
        current = heads.read(store, record_reader.archives(store), last)
        if lost_seals:
            losses = (*lost_seals, *current.losses)
            current = current._replace(is_new=True, losses=losses)
        has_all = last is not None and last.authorities == settings.archive_tsa_url
        if last and has_all and not current.is_new:
            sealing = Sealing(last, False, {})
        else:
            sealing = _seal(settings, number, previous, current, warn)
        tally_cache.save_ends(store, {}, settings.archive_fallback_directory)
    return sealing


def _lost_seals(settings: Settings) -> tuple[str, ...]:
    """Return how the store has lost its last seal, () if it has not.

    Raises SealFailed if it has lost all archives too: it may not be mounted, and
    nothing must be written.
    """
    store = settings.archive_store_directory
    directory = settings.archive_fallback_directory
    losses = known_end.losses(known_end.read(directory, store), store)
    if losses and not record_reader.archives(store):
        name, loss = min(losses.items())
        raise SealFailed(f"{store}/{name}: {loss}; {known_end.advice(directory)}")
    loss = losses.get(known_end.SEALS, "")
    return (f"{store}/{known_end.SEALS}: {loss}",) if loss else ()


@contextlib.contextmanager
def _locked(store: str) -> Iterator[None]:
    """Make the directory of the seals, and hold its lock. Raises SealFailed."""
    directory = f"{store}/{verifier.SEALS}"
    files.make_directory(directory)
    lock = privileges.try_lock(f"{directory}/{seal_file.LOCK_NAME}")
    if lock < 0:
        raise SealFailed(f"{directory}: another postfix-archive seal is running")
    try:
        yield
    finally:
        os.close(lock)


def _seal(
    settings: Settings, number: int, previous: str, current: Heads, warn: Warn
) -> Sealing:
    """Make, deliver and record a seal."""
    store = settings.archive_store_directory
    seal, content = seal_file.make(
        number,
        previous,
        current.heads,
        dates.format_rfc3339(time.time()),
        host=address.as_text(settings.myhostname),
        authorities=settings.archive_tsa_url,
        keys=key_digests(settings),
    )
    stamps = _request_stamps(settings, content, warn)
    for authority, stamp in stamps.items():
        _write_stamp(store, seal, authority, stamp)
    seal_file.write(seal_file.path_of(store, seal), content)
    queued_as = _deliver(settings, seal, content, warn)
    _record(settings, seal, _archives_of(seal), queued_as, warn)
    times = {
        settings.archive_tsa_url[authority - 1]: _format(stamp)
        for authority, stamp in stamps.items()
    }
    return Sealing(seal, True, times, current.losses)


def _place(settings: Settings, last: Seal | None) -> tuple[int, str]:
    """Return the number of the next seal, and the SHA-256 of the one before.

    The one before may be lost in the store: the chain shows that.
    """
    number, sha256 = (last.number, last.sha256) if last else (0, verifier.FIRST_PREV)
    known = known_end.read(
        settings.archive_fallback_directory, settings.archive_store_directory
    ).get(known_end.SEALS)
    if known and known.number > number:
        number, sha256 = known.number, known.sha256
    return number + 1, sha256


def key_digests(settings: Settings) -> dict[str, str]:
    """Return a digest of each site key by its id, {} if they cannot be read."""
    try:
        keys = archive_cf.load_keys(settings).keys
    except ArchiveError:
        return {}
    return {each.key_id: each.mac(KEY_PURPOSE, b"").hex() for each in keys}


def _request_stamps(settings: Settings, content: bytes, warn: Warn) -> dict[int, Stamp]:
    """Return the stamps by the number of their authority, from 1 on.

    Raises TimeStampFailed if there are authorities and none gives a valid one.
    """
    if not settings.archive_tsa_url:
        return {}
    roots = time_stamp.load_roots(settings.archive_tsa_certificates)
    stamps: dict[int, Stamp] = {}
    failures = []
    for number, url in enumerate(settings.archive_tsa_url, 1):
        try:
            stamps[number] = time_stamp.request(url, content, roots)
        except TimeStampFailed as error:
            failures.append(str(error))
    if not stamps:
        raise TimeStampFailed(
            f"{'; '.join(failures)}; nothing is sealed, the next run tries again"
        )
    for failure in failures:
        warn(failure)
    return stamps


def _write_stamp(store: str, seal: Seal, authority: int, stamp: Stamp) -> None:
    for suffix, content in (
        (seal_file.CERTIFICATES_SUFFIX, stamp.certificates),
        (seal_file.REPLY_SUFFIX, stamp.reply),
    ):
        seal_file.write(seal_file.path_of(store, seal, authority, suffix), content)


def _finish(settings: Settings, seal: Seal, warn: Warn) -> None:
    """Deliver the last seal and record it, where an interrupted run has not."""
    store = settings.archive_store_directory
    existing = {*record_reader.archives(store)} & _archives_of(seal)
    missing = {each for each in existing if not _is_recorded(store, each, seal)}
    queued_as = ""
    if missing and missing == existing:  # delivery comes before the first event
        content = seal_file.read_content(store, seal)
        queued_as = _deliver(settings, seal, content, warn)
    _record(settings, seal, missing, queued_as, warn)


def _deliver(settings: Settings, seal: Seal, content: bytes, warn: Warn) -> str:
    """Deliver a seal; return the queue id if it was mailed, else "".

    One that is time-stamped has a witness already: then an error is a warning, and does
    not keep the next ones from being made.
    """
    try:
        return delivery.deliver(settings, seal, content)
    except ArchiveError as error:
        if not seal.authorities:
            raise
        warn(f"{seal.name} is time-stamped, but not delivered: {error}")
        return ""


def _archives_of(seal: Seal) -> set[str]:
    return {each.archive for each in seal.heads}


def _is_recorded(store: str, archive: str, seal: Seal) -> bool:
    """Return whether a journal has the event of a seal."""
    position = max(
        each.end
        for each in seal.heads
        if (each.archive, each.journal) == (archive, verifier.JOURNAL)
    )
    for line in journal_reader.lines(journal_reader.path_of(store, archive), position):
        if line.kind == journal.SEALED:
            event = journal_reader.valid_event(line)
            if event and event.get("seal_sha256") == seal.sha256:
                return True
    return False


def _record(
    settings: Settings, seal: Seal, archives: set[str], queued_as: str, warn: Warn
) -> None:
    """Append the event ``sealed`` to journals; what fails the next run repeats."""
    store = settings.archive_store_directory
    fields: dict[str, str | int] = {
        "seal": seal.name,
        "seal_sha256": seal.sha256,
        "authorities": " ".join(seal.authorities),
    }
    if queued_as:
        fields["queued_as"] = queued_as
    for archive in sorted(archives):
        try:
            known_end.require(settings.archive_fallback_directory, store, archive)
            with journal.Journal(
                f"{store}/{archive}",
                host=address.as_text(settings.myhostname),
                lock_timeout=LOCK_TIMEOUT,
            ) as journal_file:
                now = dates.format_rfc3339(time.time())
                journal_file.append(journal.SEALED, now, **fields)
        except ArchiveError as error:
            warn(f"{seal.name} is not recorded in the journal: {error}")


def _format(stamp: Stamp) -> str:
    return dates.format_rfc3339(stamp.time.timestamp())
