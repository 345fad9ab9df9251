"""A store that has grown: archives of many messages, kept by the store's own code.

    fill_store.py STORE 100000 1000000

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
from postfix_archive.store import copy_file, journal_format, journal_reader
from postfix_archive.store.archive import Archive

import load
from private_postfix import GROUP, USER

MAX_PER_DAY = 10_000  # messages, at most
TODAY_DIVISOR = 10  # the part of all messages that are of today
SECONDS_PER_DAY = 24 * 60 * 60  # seconds
HOST = b"mail.example.com"
KEYS = Keyring((Key("grown", bytes(range(32))),))
PROGRESS_INTERVAL = 50_000  # messages between two lines of progress
CHECKED_LINES = 1000  # messages of an archive that are looked at


def archive_address(count: int) -> str:
    """Return the archive address of so many messages."""
    return f"grown-{count}@example.com"


def make_store_directory(directory: Path) -> None:
    """Make the directory of a store, for the archive's user alone."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.chown(directory, USER, GROUP)
    directory.chmod(0o700)


def fill(directory: Path, counts: list[int]) -> None:
    """Fill the archives of a store, in a process of its own; return when it is done."""
    command = [sys.executable, __file__, str(directory), *map(str, counts)]
    path = os.pathsep.join(sys.path)
    if subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode:
        raise SystemExit(f"{directory} could not be filled")


def archive_contents(directory: Path, count: int) -> dict[str, int]:
    """Return what an archive has: messages, those of today, bytes of its journal."""
    archive = Archive(str(directory), archive_address(count))
    today = int(time.time()) // SECONDS_PER_DAY
    size = journal_reader.end_offset(archive.path(journal_format.NAME)) if count else 0
    return {
        "messages": message_count(archive),
        "today": len(_names_of_day(archive, today)),
        "journal": size,
    }


def check(archive: Path, count: int) -> None:
    """Look whether an archive's last lines are chained and their files are there."""
    path = archive / journal_format.NAME
    lines = _last_lines(max(path.iterdir()), CHECKED_LINES)
    events = [json.loads(line.partition(b"\t")[0]) for line in lines]
    hashes = [journal_format.line_sha256(line) for line in lines]
    assert [each["prev"] for each in events[1:]] == hashes[:-1]
    assert events[-1]["seq"] >= count
    assert journal_format.read_last_number(str(path)) == events[-1]["seq"]
    events = [each for each in events if "file" in each]
    for event in random.Random(count).sample(events, min(100, len(events))):
        content = (archive / event["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == event["file_sha256"]


def _last_lines(path: Path, count: int) -> list[bytes]:
    """Return the last lines of a segment, without their ends."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count * 4096))
        content = file.read()
    return content.splitlines()[-count + 1 :]


def drop_privileges() -> None:
    """Become the archive's user."""
    os.setgroups([])
    os.setgid(grp.getgrnam(GROUP).gr_gid)
    os.setuid(pwd.getpwnam(USER).pw_uid)


def disable_fsync() -> None:
    """Let fsync do nothing: this process must only fill."""
    for module in (os, posix):
        for name in ("fsync", "fdatasync"):
            vars(module)[name] = lambda _: None


def _fill(directory: Path, count: int) -> None:
    """Make an archive up to so many messages, a tenth of them of today."""
    archive = Archive(str(directory), archive_address(count))
    today = int(time.time()) // SECONDS_PER_DAY
    first_number = message_count(archive)
    for number in range(first_number, count):
        _store_message(archive, number, today - _days_ago(number, count))
    today_count = len(_names_of_day(archive, today))
    first_number = max(first_number, count)
    for number in range(
        first_number, first_number + count // TODAY_DIVISOR - today_count
    ):
        _store_message(archive, number, today)


def message_count(archive: Archive) -> int:
    """Return how many lines an archive's journal has, but those that begin segments."""
    path = archive.path(journal_format.NAME)
    segments = len(os.listdir(path)) if os.path.isdir(path) else 0
    return journal_format.read_last_number(path) - segments


def _days_ago(number: int, count: int) -> int:
    """Return how long ago the message of that number came, in days; the last: 0."""
    remaining = count - count // TODAY_DIVISOR - number
    return max(0, -(-remaining // max(1, min(MAX_PER_DAY, count // TODAY_DIVISOR))))


def _names_of_day(archive: Archive, day: int) -> list[str]:
    """Return the names in the directory of a day, counted from 1970."""
    directory = os.path.dirname(
        archive.path(copy_file.copy_name(_record_id(archive, 0, day)))
    )
    return os.listdir(directory) if os.path.isdir(directory) else []


def _record_id(archive: Archive, number: int, day: int) -> str:
    sha1 = hashlib.sha1(f"{archive.address} {number}".encode()).hexdigest()
    return f"{dates.format_rfc3339(day * SECONDS_PER_DAY)[:10].replace('-', '')}-{sha1}"


def _store_message(archive: Archive, number: int, day: int) -> None:
    arrival = day * SECONDS_PER_DAY
    original = _original(number, arrival)
    store_message(archive, _envelope(archive, number, arrival, original), original)
    if number % PROGRESS_INTERVAL == PROGRESS_INTERVAL - 1:
        print(f"{archive.address}: {number + 1:,}", file=sys.stderr, flush=True)


def store_message(
    archive: Archive, message_envelope: Envelope, original: bytes
) -> None:
    """Keep a message as the archive transport would have kept it when it arrived."""
    properties = smtp_data.ContentProperties()
    properties.update(original)
    fields = envelope.serialise(message_envelope)
    capture = copy_file.Capture(
        record_id=message_envelope.archive_id,
        capsule_id=digest.sha256_hex(fields),
        envelope_fields=fields,
        sha256=message_envelope.sha256,
        size=message_envelope.size,
        verdict="absent",
    )
    report = EnvelopeReport(message_envelope, archive.address, original, properties)
    boundary = archive_copy.make_boundary(
        message_envelope.archive_id, message_envelope.sha256, KEYS
    )
    sender = b"archive@" + HOST
    copy = archive_copy.build(report, "hybrid", sender=sender, boundary=boundary)
    chunks = (copy.preamble, original, copy.trailer)
    arrived = dates.format_rfc3339(message_envelope.arrival or 0)
    archive.store_copy(capture, chunks, arrived)


def _original(number: int, arrival: int) -> bytes:
    """Return a message as smtpd(8) has received it, each another."""
    received = (
        b"Received: from client.example.org (client.example.org [192.0.2.7])\r\n"
        b"\tby mail.example.com (Postfix) with ESMTP id 4Z%010d\r\n"
        b"\tfor <bob@example.net>; %s\r\n" % (number, dates.format_rfc5322(arrival))
    )
    message_id = b"Message-Id: <%d@example.org>\r\n" % number
    return received + message_id + MESSAGE


def _envelope(archive: Archive, number: int, arrival: int, original: bytes) -> Envelope:
    return Envelope(
        archive_id=_record_id(archive, number, arrival // SECONDS_PER_DAY),
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
        arrival=arrival,
        sha256=digest.sha256_hex(original),
        size=len(original),
    )


MESSAGE = load.make_message(load.SMALL_SIZE).replace(b"\n", b"\r\n")


def main(arguments: list[str]) -> None:
    """Fill archives of a store, each up to its number of messages."""
    directory = Path(arguments[0])
    make_store_directory(directory)
    drop_privileges()
    disable_fsync()
    for count in map(int, arguments[1:]):
        print(f"filling {archive_address(count)}", file=sys.stderr, flush=True)
        _fill(directory, count)
        os.sync()  # now, and not while something is measured
        if count:
            check(directory / archive_address(count), count)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ArchiveError as error:
        sys.exit(str(error))
