"""Bytes are bytes: real and awkward mail passes the archive and stays what it was.

"As received" is what Postfix hands the filter; a recorder in front of the stamp filter
keeps that, so that nothing of ours is asked what it was. One instance for each way
takes all the mail; the tests look at what has come of it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from postfix_archive.store import record_reader
from postfix_archive.store.journal_event import Event
from postfix_archive.store.record import Record

import corpora
from corpora import Mail
from private_postfix import (
    GROUP,
    USER,
    WAYS,
    Client,
    Delivery,
    PrivatePostfix,
    free_ports,
)

pytestmark = pytest.mark.live

ARCHIVE = "legal@example.com"
FEWEST = 300  # real messages: the number that was asked for

# Postfix completes and rewrites the headers of local clients' mail only: some mail
# comes from 192.0.2.1 (RFC 5737), which this instance takes for no host of its own.
WORLD = {
    "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
    "smtpd_relay_restrictions": "permit_mynetworks,reject_unauth_destination",
    "relay_domains": "example.net",
    "relay_transport": "sink:",
}

# XCLIENT does not make smtpd forget that it speaks with its own host: a service of
# its own for them.
FAR_AWAY = """
127.0.0.1:{port} inet n - n - - smtpd
  -o local_header_rewrite_clients=
"""

# Put in front of the stamp filter; pipe(8) says: --nexthop NAME --queue-id ID ...
RECORDER = """#!/bin/sh
record={folder}/$4
cat >"$record.draft" && mv "$record.draft" "$record" || exit 75
exec {program}/archive-stamp "$@" <"$record"
"""

# The same in front of the worker of the lmtp door: it keeps the whole session.
TEE = """#!/bin/sh
tee {folder}/$$ | {program}/archive-lmtp "$@"
"""

# What hand-back puts on top: one Received: field of the internal hop, then stamps.
ON_TOP = re.compile(
    rb"Received: from [^\n]*\n(?:[ \t][^\n]*\n)*"
    rb"(?:Archive-Stamp: [^\n]*\n(?:\t[^\n]*\n)*)+"
)


@dataclass(frozen=True)
class Passed:
    """One message that has passed: what was recorded, delivered and stored of it."""

    name: str
    received: bytes
    deliveries: list[Delivery]
    events: list[Event]
    record: Record
    store: Path

    @property
    def canonical(self) -> bytes:
        """What was received, with the line ends of the wire."""
        return self.received.replace(b"\n", b"\r\n")

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was received."""
        return hashlib.sha256(self.canonical).hexdigest()

    @cached_property
    def copy(self) -> bytes:
        """The archive copy in the store."""
        [name] = self.record.files
        return corpora.unpacked(self.store / ARCHIVE / name)


@dataclass(frozen=True)
class Passage:
    """All messages of this module after they have passed, and what was sent."""

    passed: list[Passed]
    real: list[Mail]
    awkward: list[Mail]

    def wrong(self, names: Iterator[str]) -> None:
        """Fail with the names of the messages for which a claim does not hold."""
        found = list(names)
        assert not found, f"{len(found)} of {len(self.passed)}: {found}"


def record_stdin(master: str) -> str:
    """Put the recorder in front of the stamp filter in master.cf."""
    program, door = re.findall(r"argv=(\S+)/(archive-stamp|archive-lmtp)\b", master)[0]
    folder = Path(program).parent / "recorded"
    folder.mkdir()
    shutil.chown(folder, USER, GROUP)
    recorder = folder.parent / "recorder"
    text = TEE if door == "archive-lmtp" else RECORDER
    recorder.write_text(text.format(folder=folder, program=program))
    recorder.chmod(0o755)
    return master.replace(f"argv={program}/{door}", f"argv={recorder}")


def recorded(postfix: PrivatePostfix) -> dict[str, bytes]:
    """Return what the filter was handed for each recipient, with LF line ends."""
    folder = postfix.folder / "recorded"
    relayed = r" (\w+): to=<([^>]+)>, relay=archive-stamp, .* status=sent"
    found = {
        to: (folder / queue_id).read_bytes()
        for queue_id, to in re.findall(relayed, postfix.log())
    }
    for path in folder.iterdir() if not found else ():
        found |= contents(path.read_bytes())
    return found


def contents(session: bytes) -> dict[str, bytes]:
    """Return what an LMTP client has sent, by the letter of RFC 5321 4.5.2."""
    found = {}
    lines = iter(session.split(b"\r\n"))
    for line in lines:
        if line.startswith(b"RCPT TO:<"):
            recipient = line[9:].partition(b">")[0].decode()
        elif line == b"DATA":
            message = iter(lambda: next(lines), b".")
            plain = (each[1:] if each[:1] == b"." else each for each in message)
            found[recipient] = b"".join(each + b"\n" for each in plain)
    return found


@pytest.fixture(scope="module", params=WAYS)
def passage(request: pytest.FixtureRequest) -> Iterator[Passage]:
    """Every message, sent from far away and from this host, the awkward thrice."""
    cache = request.config.cache
    assert cache, "the corpora need pytest's cache"
    real = corpora.real(cache.mkdir("corpora"))
    awkward = corpora.awkward()
    [port] = free_ports(1)
    with PrivatePostfix(
        main=WORLD,
        archive_cf={"archive_delivery": "store"},
        master=FAR_AWAY.format(port=port),
        edit_master=record_stdin,
        door=request.param,
    ) as postfix:
        names: dict[str, str] = {}
        with Client(postfix.smtp_port) as client:
            names |= sent(client, [*real, *awkward], "from this host")
        with Client(port) as client:
            client.must("XCLIENT NAME=mx.example.org ADDR=192.0.2.1", 220)
            client.smtp.ehlo()
            names |= sent(client, [*real, *awkward], "from far away")
        names |= given(postfix, awkward)
        postfix.settle()
        yield Passage(collected(postfix, names), real, awkward)


def sent(client: Client, mails: list[Mail], whence: str) -> dict[str, str]:
    """Send messages by SMTP, each to a recipient of its own; names by recipient."""
    names = {}
    for number, mail in enumerate(mails):
        address = f"{whence.replace(' ', '.')}.{number}@example.net"
        client.send(mail.content, to=[address])
        names[address] = f"{mail.name} ({whence})"
    return names


def given(postfix: PrivatePostfix, mails: list[Mail]) -> dict[str, str]:
    """Give messages to sendmail(1), each to a recipient of its own; names likewise."""
    names = {}
    for number, mail in enumerate(mails):
        address = f"sendmail.{number}@example.net"
        run = postfix.sendmail(mail.content, sender="alice@example.org", to=[address])
        assert run.returncode == 0, f"{mail.name}: {run.stderr!r}"
        names[address] = f"{mail.name} (sendmail)"
    return names


def collected(postfix: PrivatePostfix, names: dict[str, str]) -> list[Passed]:
    """What has come of each message; names are by recipient."""
    received = recorded(postfix)
    delivered: dict[str, list[Delivery]] = {name: [] for name in names}
    for each in postfix.deliveries():
        delivered[each.recipients[0]].append(each)
    records = {
        next(iter(each.recipients))[0].decode(): each
        for each in record_reader.records(str(postfix.store), ARCHIVE)
    }
    return [
        Passed(
            name,
            received[address],
            delivered[address],
            records[address].events,
            records[address],
            postfix.store,
        )
        for address, name in names.items()
    ]


def test_enough_real_messages_were_used(passage: Passage) -> None:
    different = {mail.content.replace(b"\r\n", b"\n") for mail in passage.real}
    assert len(different) >= FEWEST
    assert len(passage.passed) == 2 * len(passage.real) + 3 * len(passage.awkward)


def test_every_message_is_handed_back_once(passage: Passage) -> None:
    passage.wrong(each.name for each in passage.passed if len(each.deliveries) != 1)


def test_the_recorder_saw_a_message_of_lines(passage: Passage) -> None:
    passage.wrong(
        each.name
        for each in passage.passed
        if not each.received.endswith(b"\n") or b"\r\n" in each.received
    )


def test_handed_back_is_received_below_stamp_and_hop(passage: Passage) -> None:
    def wrong() -> Iterator[str]:
        for each in passage.passed:
            delivered = each.deliveries[0]
            top = delivered.content[: -len(each.received)]
            below = delivered.content[len(top) :]
            same = hashlib.sha256(below).digest() == _sha256(each.received)
            own = b"id " + delivered.queue_id.encode() in top
            if not (same and own and ON_TOP.fullmatch(top)):
                yield each.name

    passage.wrong(wrong())


def test_mail_from_far_away_gets_no_headers_added(passage: Passage) -> None:
    [far] = [m for m in passage.passed if m.name == "awkward/no header (from far away)"]
    [near] = [m for m in passage.passed if m.name == "awkward/no header (sendmail)"]
    assert b"\nMessage-Id:" in near.received
    assert b"\nMessage-Id:" not in far.deliveries[0].content


def test_handed_back_has_one_stamp_that_names_the_record(passage: Passage) -> None:
    passage.wrong(
        each.name
        for each in passage.passed
        if (top := each.deliveries[0].content[: -len(each.received)]).count(b"\nArch")
        != 1
        or f"; id={each.record.archive_id};".encode() not in top
    )


def test_the_original_in_the_store_is_what_was_received(passage: Passage) -> None:
    passage.wrong(
        each.name
        for each in passage.passed
        if _sha256(corpora.original_in(each.copy)) != _sha256(each.canonical)
    )


def test_our_own_reading_gives_what_was_received(passage: Passage) -> None:
    passage.wrong(
        each.name
        for each in passage.passed
        if _sha256(b"".join(record_reader.original(str(each.store), each.record)))
        != _sha256(each.canonical)
    )


def test_the_journal_has_digest_and_size_of_what_was_received(
    passage: Passage,
) -> None:
    passage.wrong(
        each.name
        for each in passage.passed
        if [(event["sha256"], event["size"]) for event in each.events]
        != [(each.sha256, len(each.canonical))]
    )


def test_the_report_has_digest_and_size_of_what_was_received(passage: Passage) -> None:
    def wrong() -> Iterator[str]:
        for each in passage.passed:
            lines = corpora.status_of(each.copy).split("\r\n")
            said = f"Archive-Original-SHA256: {each.sha256}"
            size = f"Archive-Original-Size: {len(each.canonical)}"
            if said not in lines or size not in lines:
                yield each.name

    passage.wrong(wrong())


def test_every_copy_is_read_without_a_defect(passage: Passage) -> None:
    """The outer message, the text and the fields are whole, whatever the original."""

    def wrong() -> Iterator[str]:
        for each in passage.passed:
            for message in corpora.parsed(each.copy):
                found = corpora.defects(message)
                parts = corpora.parts_of(message)
                if len(parts) != 3:
                    yield f"{each.name}: {len(parts)} parts"
                for part in parts[:2]:
                    found += corpora.defects(part)
                if found:
                    yield f"{each.name}: {found}"

    passage.wrong(wrong())


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
