"""A store that has grown: archives of many messages, kept by the store's own code.

    filling.py STORE 100000 1000000

fills STORE/grown-100000@example.com and so on; what is there already stays and is made
up to the number. Started as root, it goes on as the archive's user, and its own fsync
does nothing: what a power cut would take is filled again. A tenth of the messages are
of today, where new mail goes; the others are of the days before, at most 10,000 a day.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import posix
import pwd
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from postfix_archive.errors import ArchiveError
from postfix_archive.message import archive_copy, dates, digest, envelope, smtp_data
from postfix_archive.message.archive_copy import EnvelopeReport
from postfix_archive.message.envelope import Client, Envelope, Recipient, Request
from postfix_archive.message.keyring import Key, Keyring
from postfix_archive.store import copy_file, journal, journal_end
from postfix_archive.store.archive import Archive

import load
from private_postfix import GROUP, USER

A_DAY = 10_000  # messages, at most
TODAY = 10  # the part of all messages that are of today
DAY = 24 * 60 * 60  # seconds
HOST = b"mail.example.com"
KEYS = Keyring((Key("grown", bytes(range(32))),))
TOLD = 50_000  # messages between two lines of progress
LOOKED_AT = 1000  # messages of an archive that are looked at


def address(count: int) -> str:
    """Return the archive address of so many messages."""
    return f"grown-{count}@example.com"


def prepare(folder: Path) -> None:
    """Make the folder of a store, for the archive's user alone."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.chown(folder, USER, GROUP)
    folder.chmod(0o700)


def fill(folder: Path, counts: list[int]) -> None:
    """Fill the archives of a store, in a process of its own; return when it is done."""
    words = [sys.executable, __file__, str(folder), *map(str, counts)]
    path = os.pathsep.join(sys.path)
    if subprocess.run(words, env={**os.environ, "PYTHONPATH": path}).returncode:
        raise SystemExit(f"{folder} could not be filled")


def held(folder: Path, count: int) -> dict[str, int]:
    """Return what an archive has: messages, those of today, bytes of its journal."""
    archive = Archive(str(folder), address(count))
    today = int(time.time()) // DAY
    size = os.stat(archive.path(journal.FILE_NAME)).st_size if count else 0
    return {
        "messages": journal_end.read_number(archive.directory),
        "today": len(_of_day(archive, today)),
        "journal": size,
    }


def check(archive: Path, count: int) -> None:
    """Look whether an archive's last lines are chained and their files are there."""
    lines = _last_lines(archive / journal.FILE_NAME, LOOKED_AT)
    events = [json.loads(line) for line in lines]
    hashes = [digest.sha256_hex(line) for line in lines]
    assert [each["prev"] for each in events[1:]] == hashes[:-1]
    assert events[-1]["seq"] >= count
    assert journal_end.read_number(str(archive)) == events[-1]["seq"]
    for event in random.Random(count).sample(events, min(100, len(events))):
        kept = (archive / event["file"]).read_bytes()
        assert hashlib.sha256(kept).hexdigest() == event["file_sha256"]


def _last_lines(path: Path, most: int) -> list[bytes]:
    """Return the last lines of a journal, without their ends."""
    with path.open("rb") as opened:
        opened.seek(max(0, path.stat().st_size - most * 4096))
        held = opened.read()
    return held.splitlines()[-most + 1 :]


def _go_on_as_user() -> None:
    """Become the archive's user, without fsync: this process must only fill."""
    os.setgroups([])
    os.setgid(grp.getgrnam(GROUP).gr_gid)
    os.setuid(pwd.getpwnam(USER).pw_uid)
    for each in (os, posix):
        for name in ("fsync", "fdatasync"):
            vars(each)[name] = lambda _: None


def _fill(folder: Path, count: int) -> None:
    """Make an archive up to so many messages, a tenth of them of today."""
    archive = Archive(str(folder), address(count))
    today = int(time.time()) // DAY
    done = journal_end.read_number(archive.directory)
    for number in range(done, count):
        _keep(archive, number, today - _days_ago(number, count))
    held = len(_of_day(archive, today))
    done = max(done, count)
    for number in range(done, done + count // TODAY - held):
        _keep(archive, number, today)


def _days_ago(number: int, count: int) -> int:
    """Return how long ago the message of that number came, in days; the last: 0."""
    left = count - count // TODAY - number
    return max(0, -(-left // max(1, min(A_DAY, count // TODAY))))


def _of_day(archive: Archive, day: int) -> list[str]:
    """Return the names in the folder of a day, counted from 1970."""
    folder = os.path.dirname(
        archive.path(copy_file.copy_name(_record_id(archive, 0, day)))
    )
    return os.listdir(folder) if os.path.isdir(folder) else []


def _record_id(archive: Archive, number: int, day: int) -> str:
    word = hashlib.sha1(f"{archive.address} {number}".encode()).hexdigest()
    return f"{dates.format_rfc3339(day * DAY)[:10].replace('-', '')}-{word}"


def _keep(archive: Archive, number: int, day: int) -> None:
    """Keep a message as the archive transport would have kept it that day."""
    arrived = day * DAY
    original = _original(number, arrived)
    sealed = _envelope(archive, number, arrived, original)
    shape = smtp_data.ContentProperties()
    shape.update(original)
    fields = envelope.serialise(sealed)
    piece = copy_file.Capture(
        record_id=sealed.archive_id,
        capsule_id=digest.sha256_hex(fields),
        envelope_fields=fields,
        sha256=sealed.sha256,
        size=sealed.size,
        verdict="absent",
    )
    told = EnvelopeReport(sealed, archive.address, original, shape)
    boundary = archive_copy.make_boundary(sealed.archive_id, sealed.sha256, KEYS)
    sender = b"archive@" + HOST
    copy = archive_copy.build(told, "hybrid", sender=sender, boundary=boundary)
    pieces = (copy.preamble, original, copy.trailer)
    archive.store_copy(piece, pieces, dates.format_rfc3339(arrived))
    if number % TOLD == TOLD - 1:
        print(f"{archive.address}: {number + 1:,}", file=sys.stderr, flush=True)


def _original(number: int, arrived: int) -> bytes:
    """Return a message as smtpd(8) has received it, each another."""
    received = (
        b"Received: from client.example.org (client.example.org [192.0.2.7])\r\n"
        b"\tby mail.example.com (Postfix) with ESMTP id 4Z%010d\r\n"
        b"\tfor <bob@example.net>; %s\r\n" % (number, dates.format_rfc5322(arrived))
    )
    named = b"Message-Id: <%d@example.org>\r\n" % number
    return received + named + LETTER


def _envelope(archive: Archive, number: int, arrived: int, original: bytes) -> Envelope:
    return Envelope(
        archive_id=_record_id(archive, number, arrived // DAY),
        host=HOST,
        queue_id=b"4Z%010d" % number,
        sender=b"alice@example.org",
        recipients=(Recipient(b"bob@example.net", b"bob@example.net"),),
        requests=(Request(archive.address, "nexthop"),),
        client=Client(
            address=b"192.0.2.7",
            hostname=b"client.example.org",
            port=b"34567",
            protocol=b"ESMTP",
            helo=b"client.example.org",
        ),
        arrival=arrived,
        sha256=digest.sha256_hex(original),
        size=len(original),
    )


LETTER = load.letter(load.SMALL).replace(b"\n", b"\r\n")


def main(words: list[str]) -> None:
    """Fill archives of a store, each up to its number of messages."""
    folder = Path(words[0])
    prepare(folder)
    _go_on_as_user()
    for count in map(int, words[1:]):
        print(f"filling {address(count)}", file=sys.stderr, flush=True)
        _fill(folder, count)
        os.sync()  # now, and not while something is measured
        if count:
            check(folder / address(count), count)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ArchiveError as error:
        sys.exit(str(error))
