"""A store with the corpus of search_corpus, one archive, kept by the store's own code.

    search_fill.py STORE 30000        fills it up to so many messages, without fsync
    search_fill.py STORE 1000 50      adds 1000 messages, 50 a second, with fsync

What is there stays. The second prints for each message when it was in the journal (the
monotonic clock, seconds) and where the journal then ended (bytes).
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
from pathlib import Path

from postfix_archive.message import dates, digest
from postfix_archive.message.envelope import Client, Envelope, Recipient, Request
from postfix_archive.store import journal_format, journal_reader
from postfix_archive.store.archive import Archive

import fill_store
import search_corpus
from search_corpus import Message

ARCHIVE = "corpus@example.com"
CHUNK_SIZE = 64  # messages that a process makes at once
GROUP_SIZE = 2000  # messages that may wait in memory: they are made faster than stored


def archive_of(store: Path) -> Archive:
    """Return the archive of the corpus in a store."""
    return Archive(str(store), ARCHIVE)


def archive_id(number: int) -> str:
    """Return the archive id of a message."""
    arrival = search_corpus.FIRST_DAY + number * search_corpus.SECONDS_BETWEEN
    day = dates.format_rfc3339(arrival)[:10].replace("-", "")
    return f"{day}-{hashlib.sha1(b'corpus %d' % number).hexdigest()}"


def _store(archive: Archive, number: int, message: Message) -> None:
    message_envelope = Envelope(
        archive_id=archive_id(number),
        host=fill_store.HOST,
        queue_id=b"4Z%010d" % number,
        sender=message.sender.encode(),
        recipients=tuple(
            Recipient(each.encode(), each.encode()) for each in message.recipients
        ),
        requests=(Request(ARCHIVE, "nexthop"),),
        client=Client(
            address=b"192.0.2.7",
            hostname=message.sender.partition("@")[2].encode(),
            port=b"34567",
            protocol=b"ESMTP",
            helo=b"client.example.org",
        ),
        arrival=message.arrival,
        sha256=digest.sha256_hex(message.original),
        size=len(message.original),
    )
    fill_store.store_message(archive, message_envelope, message.original)


def _fill(archive: Archive, count: int) -> None:
    """Make the archive up to so many messages; another process makes the messages."""
    first = fill_store.message_count(archive)
    with multiprocessing.Pool(1) as pool:
        for start in range(first, count, GROUP_SIZE):
            numbers = range(start, min(start + GROUP_SIZE, count))
            messages = pool.imap(search_corpus.message, numbers, CHUNK_SIZE)
            for number, message in zip(numbers, messages, strict=True):
                _store(archive, number, message)


def _add(archive: Archive, count: int, rate: float) -> None:
    """Add so many messages, at a rate; print when each was in the journal."""
    first = fill_store.message_count(archive)
    messages = [search_corpus.message(first + each) for each in range(count)]
    path = archive.path(journal_format.NAME)
    begin = time.monotonic()
    for place, message in enumerate(messages):
        time.sleep(max(0.0, begin + place / rate - time.monotonic()))
        _store(archive, first + place, message)
        print(time.monotonic(), journal_reader.end_offset(path), flush=True)


def main(arguments: list[str]) -> None:
    """Fill a store, or add messages at a rate."""
    store = Path(arguments[0])
    fill_store.make_store_directory(store)
    fill_store.drop_privileges()
    if len(arguments) > 2:
        _add(archive_of(store), int(arguments[1]), float(arguments[2]))
        return
    fill_store.disable_fsync()
    _fill(archive_of(store), int(arguments[1]))
    os.sync()  # now, and not while something is measured


if __name__ == "__main__":
    main(sys.argv[1:])
