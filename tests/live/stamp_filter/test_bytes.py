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
    ALL_MODES,
    GROUP,
    USER,
    Client,
    Delivery,
    PrivatePostfix,
    free_ports,
)

pytestmark = pytest.mark.live

ARCHIVE = "legal@example.com"
MIN_REAL_MESSAGES = 300  # real messages: the number that was asked for

# Postfix completes and rewrites the headers of local clients' mail only: some mail
# comes from 192.0.2.1 (RFC 5737), which this instance takes for no host of its own.
MAIN_CF = {
    "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
    "smtpd_relay_restrictions": "permit_mynetworks,reject_unauth_destination",
    "relay_domains": "example.net",
    "relay_transport": "sink:",
}

# XCLIENT does not make smtpd forget that it speaks with its own host: a service of
# its own for them.
REMOTE_ENTRY = """
127.0.0.1:{port} inet n - n - - smtpd
  -o local_header_rewrite_clients=
"""

# Put in front of the stamp filter; pipe(8) says: --nexthop NAME --queue-id ID ...
RECORDER = """#!/bin/sh
record={directory}/$4
cat >"$record.draft" && mv "$record.draft" "$record" || exit 75
exec {program}/archive-stamp "$@" <"$record"
"""

# The same in front of the worker of the lmtp mode: it keeps the whole session.
TEE = """#!/bin/sh
tee {directory}/$$ | {program}/archive-lmtp "$@"
"""

CAPTURE_RECIPIENT = re.compile(r'"capture\.\w+\.\w+\.(.*)"@archive-request\.invalid')
# What hand-back puts on top: one Received: field of the internal hop, then stamps.
REINJECTION_HEADER = re.compile(
    rb"Received: from [^\n]*\n(?:[ \t][^\n]*\n)*"
    rb"(?:Archive-Stamp: [^\n]*\n(?:\t[^\n]*\n)*)+"
)


@dataclass(frozen=True)
class PassedMessage:
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
        return corpora.read_copy(self.store / ARCHIVE / name)


@dataclass(frozen=True)
class AllPassed:
    """All messages of this module after they have passed, and what was sent."""

    passed: list[PassedMessage]
    real: list[Mail]
    awkward: list[Mail]
    is_reinjected: bool

    def assert_none(self, names: Iterator[str]) -> None:
        """Fail with the names of the messages for which a claim does not hold."""
        failures = list(names)
        assert not failures, f"{len(failures)} of {len(self.passed)}: {failures}"


def with_recorder(master: str) -> str:
    """Put the recorder in front of the stamp filter in master.cf."""
    program, launcher = re.findall(
        r"argv=(\S+)/(archive-stamp|archive-lmtp)\b", master
    )[0]
    directory = Path(program).parent / "recorded"
    directory.mkdir()
    shutil.chown(directory, USER, GROUP)
    recorder = directory.parent / "recorder"
    text = TEE if launcher == "archive-lmtp" else RECORDER
    recorder.write_text(text.format(directory=directory, program=program))
    recorder.chmod(0o755)
    return master.replace(f"argv={program}/{launcher}", f"argv={recorder}")


def recorded_contents(postfix: PrivatePostfix) -> dict[str, bytes]:
    """Return what the filter was handed for each recipient, with LF line ends."""
    directory = postfix.directory / "recorded"
    relayed = r" (\w+): to=<([^>]+)>, relay=archive-stamp, .* status=sent"
    content_by_recipient = {
        to: (directory / queue_id).read_bytes()
        for queue_id, to in re.findall(relayed, postfix.log())
    }
    for path in directory.iterdir() if not content_by_recipient else ():
        content_by_recipient |= contents_by_recipient(path.read_bytes())
    return content_by_recipient


def contents_by_recipient(session: bytes) -> dict[str, bytes]:
    """Return what an LMTP client has sent, by the letter of RFC 5321 4.5.2."""
    content_by_recipient = {}
    lines = iter(session.split(b"\r\n"))
    for line in lines:
        if line.startswith(b"RCPT TO:<"):
            recipient = line[9:].partition(b">")[0].decode()
            if capture := CAPTURE_RECIPIENT.fullmatch(recipient):
                recipient = capture[1]
        elif line == b"DATA":
            message = iter(lambda: next(lines), b".")
            plain = (each[1:] if each[:1] == b"." else each for each in message)
            content_by_recipient[recipient] = b"".join(each + b"\n" for each in plain)
    return content_by_recipient


@pytest.fixture(scope="module", params=ALL_MODES)
def all_passed(request: pytest.FixtureRequest) -> Iterator[AllPassed]:
    """Every message, sent from far away and from this host, the awkward thrice."""
    cache = request.config.cache
    assert cache, "the corpora need pytest's cache"
    real = corpora.real_messages(cache.mkdir("corpora"))
    awkward = corpora.awkward_messages()
    [port] = free_ports(1)
    with PrivatePostfix(
        main=MAIN_CF,
        archive_cf={"archive_delivery": "store"},
        master=REMOTE_ENTRY.format(port=port),
        edit_master=with_recorder,
        mode=request.param,
    ) as postfix:
        names: dict[str, str] = {}
        with Client(postfix.smtp_port) as client:
            names |= send_by_smtp(client, [*real, *awkward], "from this host")
        with Client(port) as client:
            client.command("XCLIENT NAME=mx.example.org ADDR=192.0.2.1", 220)
            client.smtp.ehlo()
            names |= send_by_smtp(client, [*real, *awkward], "from far away")
        names |= send_by_sendmail(postfix, awkward)
        postfix.wait_for_empty_queue()
        passed = collect_passed(postfix, names)
        yield AllPassed(passed, real, awkward, request.param != "native")


def send_by_smtp(client: Client, mails: list[Mail], source: str) -> dict[str, str]:
    """Send messages by SMTP, each to a recipient of its own; names by recipient."""
    names = {}
    for number, mail in enumerate(mails):
        address = f"{source.replace(' ', '.')}.{number}@example.net"
        client.send(mail.content, to=[address])
        names[address] = f"{mail.name} ({source})"
    return names


def send_by_sendmail(postfix: PrivatePostfix, mails: list[Mail]) -> dict[str, str]:
    """Give messages to sendmail(1), each to a recipient of its own; names likewise."""
    names = {}
    for number, mail in enumerate(mails):
        address = f"sendmail.{number}@example.net"
        process = postfix.sendmail(
            mail.content, sender="alice@example.org", to=[address]
        )
        assert process.returncode == 0, f"{mail.name}: {process.stderr!r}"
        names[address] = f"{mail.name} (sendmail)"
    return names


def collect_passed(
    postfix: PrivatePostfix, names: dict[str, str]
) -> list[PassedMessage]:
    """What has come of each message; names are by recipient."""
    received = recorded_contents(postfix)
    delivered: dict[str, list[Delivery]] = {name: [] for name in names}
    for delivery in postfix.deliveries():
        delivered[delivery.recipients[0]].append(delivery)
    records = {
        next(iter(delivery.recipients))[0].decode(): delivery
        for delivery in record_reader.records(str(postfix.store), ARCHIVE)
    }
    return [
        PassedMessage(
            name,
            received[address],
            delivered[address],
            records[address].events,
            records[address],
            postfix.store,
        )
        for address, name in names.items()
    ]


def test_enough_real_messages_were_used(all_passed: AllPassed) -> None:
    different = {mail.content.replace(b"\r\n", b"\n") for mail in all_passed.real}
    assert len(different) >= MIN_REAL_MESSAGES
    assert len(all_passed.passed) == 2 * len(all_passed.real) + 3 * len(
        all_passed.awkward
    )


def test_every_message_is_reinjected_once(all_passed: AllPassed) -> None:
    all_passed.assert_none(
        each.name for each in all_passed.passed if len(each.deliveries) != 1
    )


def test_the_recorder_saw_a_message_of_lines(all_passed: AllPassed) -> None:
    all_passed.assert_none(
        each.name
        for each in all_passed.passed
        if not each.received.endswith(b"\n") or b"\r\n" in each.received
    )


def test_a_reinjected_message_is_the_received_one_below_stamp_and_hop(
    all_passed: AllPassed,
) -> None:
    def failures() -> Iterator[str]:
        for message in all_passed.passed:
            delivered = message.deliveries[0]
            top = delivered.content[: -len(message.received)]
            below = delivered.content[len(top) :]
            is_unchanged = hashlib.sha256(below).digest() == _sha256(message.received)
            has_queue_id = b"id " + delivered.queue_id.encode() in top
            if all_passed.is_reinjected:
                is_header = bool(has_queue_id and REINJECTION_HEADER.fullmatch(top))
            else:
                is_header = not top
            if not (is_unchanged and is_header):
                yield message.name

    all_passed.assert_none(failures())


def test_mail_from_far_away_gets_no_headers_added(all_passed: AllPassed) -> None:
    [from_remote] = [
        m for m in all_passed.passed if m.name == "awkward/no header (from far away)"
    ]
    [from_here] = [
        m for m in all_passed.passed if m.name == "awkward/no header (sendmail)"
    ]
    assert b"\nMessage-Id:" in from_here.received
    assert b"\nMessage-Id:" not in from_remote.deliveries[0].content


def test_a_reinjected_message_has_one_stamp_that_names_the_record(
    all_passed: AllPassed,
) -> None:
    all_passed.assert_none(
        each.name
        for each in all_passed.passed
        if all_passed.is_reinjected
        and (
            (top := each.deliveries[0].content[: -len(each.received)]).count(b"\nArch")
            != 1
            or f"; id={each.record.archive_id};".encode() not in top
        )
    )


def test_the_original_in_the_store_is_what_was_received(all_passed: AllPassed) -> None:
    all_passed.assert_none(
        each.name
        for each in all_passed.passed
        if _sha256(corpora.extract_original(each.copy)) != _sha256(each.canonical)
    )


def test_our_own_reading_gives_what_was_received(all_passed: AllPassed) -> None:
    all_passed.assert_none(
        each.name
        for each in all_passed.passed
        if _sha256(b"".join(record_reader.original(str(each.store), each.record)))
        != _sha256(each.canonical)
    )


def test_the_journal_has_digest_and_size_of_what_was_received(
    all_passed: AllPassed,
) -> None:
    all_passed.assert_none(
        each.name
        for each in all_passed.passed
        if [(event["sha256"], event["size"]) for event in each.events]
        != [(each.sha256, len(each.canonical))]
    )


def test_the_report_has_digest_and_size_of_what_was_received(
    all_passed: AllPassed,
) -> None:
    def failures() -> Iterator[str]:
        for message in all_passed.passed:
            lines = corpora.status_part(message.copy).split("\r\n")
            digest_line = f"Archive-Original-SHA256: {message.sha256}"
            size = f"Archive-Original-Size: {len(message.canonical)}"
            if digest_line not in lines or size not in lines:
                yield message.name

    all_passed.assert_none(failures())


def test_every_copy_is_read_without_a_defect(all_passed: AllPassed) -> None:
    """The outer message, the text and the fields are whole, whatever the original."""

    def failures() -> Iterator[str]:
        for passed_message in all_passed.passed:
            for message in corpora.parse(passed_message.copy):
                defects = corpora.defects(message)
                parts = corpora.parts_of(message)
                if len(parts) != 3:
                    yield f"{passed_message.name}: {len(parts)} parts"
                for part in parts[:2]:
                    defects += corpora.defects(part)
                if defects:
                    yield f"{passed_message.name}: {defects}"

    all_passed.assert_none(failures())


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
