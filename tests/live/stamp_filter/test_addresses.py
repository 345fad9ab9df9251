"""Addresses that try to be paths, commands, options or fields.

By SMTP and by sendmail(1), as sender and as recipient, and as the archive's own: the
envelope that was delivered is the one that is recorded, and nothing else comes of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

import corpora
from mails import (
    LEGAL,
    archives_of,
    is_named,
    mail,
    one_delivery,
    original_of,
    received_content,
    recipients_of,
    record_of,
)
from private_postfix import ALL_MODES, MODES_AND_CAPSULE, PrivatePostfix, free_ports

pytestmark = pytest.mark.live

ERIN = "erin@example.net"
MANY_ARCHIVE = "crowd@example.com"
# Archives that somebody has misspelt, or worse; a service of its own for each.
NO_ARCHIVES = ("../../etc/x@y", "x@../../etc", "a/b@example.com", "..@example.com")
# In the lmtp mode a path is the name of a socket that is not there.
NO_SOCKET = r"\[local\]: No such file"
NOT_AN_ARCHIVE = "error=RequestInvalid .*is not an archive address"
LOG_LINE = re.compile(r"\w{3} [ \d]\d \d\d:\d\d:\d\d mail postfix[\w/-]*\[\d+\]: ")
IN_THE_STORE = re.compile(
    r"journal|journal/20\d\d-\d\d|journal\.(last|lock)|drafts|20\d\d(/\d\d){0,2}"
    r"|20\d\d/\d\d/\d\d/\d{8}-[0-9a-f]{40}\.eml\.gz"
)

LOCAL_PARTS = {
    "options": '"a> NOTIFY=NEVER ORCPT=x"',
    "end of a command": '"a>"',
    "begin of a command": '"<a"',
    "fields": '"x: y; rfc822; z"',
    "path": '"../../etc/x"',
    "hidden path": '"a/../../../b"',
    "shell": "\"$(touch /tmp/x) `id` | sh; & 'x' > /etc/passwd\"",
    "quotes": '"a\\"b\\\\c\\""',
    "macros": '"${nexthop} $archive {x} %s %n"',
    "NUL in words": '"\\\\0 %00 =00"',
    "control characters": '"\x01\x07\x1b[2J\x7f"',
    "comma": '"a, b@example.net"',
    "long": "x" * 1900,
    "long in xtext": "=" * 1350,
    "long quoted": '"' + '\\"' * 900 + '"',
}
# What sendmail(1) makes of these is its own affair; a line end is white space to it.
ARGUMENTS = {
    "newline": "a\nb@example.net",
    "command on a new line": "a\nRCPT TO:<evil@example.net>\nDATA\n@example.net",
    "carriage return": "a\rb@example.net",
    "options": "a@example.net> NOTIFY=NEVER ORCPT=rfc822;x",
    "quoted newline": '"a\nb"@example.net',
    "path": "../../etc/x@example.net",
    "absolute path": "/etc/passwd@example.net",
    "shell": "$(id)`id`|x@example.net",
    "macros": "${nexthop}@example.net",
    "control characters": "\x01\x07@example.net",
    "next line in Unicode": "\x85\u2028@example.net",
    "open quote": '"a@example.net',
    "open bracket": "<a@example.net",
    "domain": "a@b.example>c.example",
    "long": "x" * 1900 + "@example.net",
    "long quoted": '"' + '\\"' * 1900 + '"@example.net',
}


@dataclass
class AddressHost:
    """The instance, and its services for a crowd and for what is no archive."""

    postfix: PrivatePostfix
    many_port: int
    no_archive_ports: list[int]


@pytest.fixture(scope="module", params=ALL_MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """All modes, and copies that go as capsules, one after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def address_host(mode: str) -> Iterator[AddressHost]:
    """Mail from and to each of these addresses, on an instance of its own."""
    many_port, *other_ports = free_ports(1 + len(NO_ARCHIVES))
    archive_by_port = {many_port: MANY_ARCHIVE}
    if mode != "native":  # there is no table for them
        archive_by_port |= dict(zip(other_ports, NO_ARCHIVES))
    with PrivatePostfix(
        mode=mode,
        archive_cf={"archive_delivery": "store"},
        master="".join(
            f"127.0.0.1:{port} inet n - n - - smtpd\n  -o archive={archive}\n"
            for port, archive in archive_by_port.items()
        ),
    ) as postfix:
        for name, local in LOCAL_PARTS.items():
            odd = f"{local}@example.net"
            postfix.send(mail(f"smtp to {name}"), to=[odd, ERIN])
            postfix.send(mail(f"smtp from {name}"), sender=odd, to=[ERIN])
        for name, odd in ARGUMENTS.items():
            send_by_sendmail(
                postfix, f"sent to {name}", "alice@example.org", [odd, ERIN]
            )
            send_by_sendmail(postfix, f"sent from {name}", odd, [ERIN])
        postfix.wait(
            lambda: len(postfix.delivered_to(ERIN))
            >= 2 * (len(LOCAL_PARTS) + len(ARGUMENTS)),
            "all are delivered",
        )
        postfix.wait_for_empty_queue()
        yield AddressHost(postfix, many_port, other_ports)


@pytest.fixture
def host(address_host: AddressHost) -> PrivatePostfix:
    return address_host.postfix


def send_by_sendmail(
    postfix: PrivatePostfix, name: str, sender: str, to: list[str]
) -> None:
    process = postfix.sendmail(mail(name), sender=sender, to=to)
    assert process.returncode == 0, process.stderr


def printed(address: str) -> str:
    """An address as the record has it: control characters in letters."""
    return re.sub(r"[\0-\x08\n-\x1f\x7f]", lambda c: f"\\x{ord(c[0]):02X}", address)


def assert_envelope(postfix: PrivatePostfix, name: str) -> Record:
    """The record is what was delivered; no address has made a field of the report."""
    record = assert_record(postfix, name)
    assert_no_field_more(postfix, record)
    return record


def assert_record(postfix: PrivatePostfix, name: str, archive: str = LEGAL) -> Record:
    """The record has the envelope that was delivered, all of it and no more.

    And the message, byte for byte.
    """
    record = record_of(postfix, name, archive)
    own_deliveries = [
        each for each in postfix.deliveries() if is_named(each.content, name)
    ]
    delivered_recipients = sorted(
        printed(each) for one in own_deliveries for each in one.recipients
    )
    archived_recipients = [
        os.fsdecode(each.final) for each in record.recipients.values()
    ]
    assert sorted(archived_recipients) == delivered_recipients
    senders = {printed(each.sender) for each in own_deliveries}
    assert senders == {os.fsdecode(record.envelope.sender)}
    originals = {original_of(postfix, record)}
    is_reinjected = "archive-handback" in postfix.log()
    assert originals == {
        received_content(each.content, is_reinjected=is_reinjected)
        for each in own_deliveries
    }
    return record


def assert_no_field_more(postfix: PrivatePostfix, record: Record) -> None:
    copy = corpora.read_copy(postfix.store / record.archive / record.files[0])
    groups = corpora.status_part(copy).removesuffix("\r\n").split("\r\n\r\n")
    message_fields, *recipient_fields = [
        re.findall(r"(?m)^([^:]*): ", group) for group in groups
    ]
    lines = [len(group.split("\r\n")) for group in groups]
    assert lines == [len(each) for each in (message_fields, *recipient_fields)]
    expected = ["Final-Recipient", "Original-Recipient"]
    expected += ["Action", "Status", "Diagnostic-Code"]
    if "archive-capture" in postfix.log():  # the recipient is the client's
        expected.remove("Original-Recipient")
    assert recipient_fields == [expected] * len(record.recipients)
    assert len(message_fields) == len(set(message_fields))


@pytest.mark.parametrize("name", LOCAL_PARTS)
@pytest.mark.parametrize("direction", ["to", "from"])
def test_an_odd_address_by_smtp_is_recorded_and_delivered_as_it_is(
    host: PrivatePostfix, direction: str, name: str
) -> None:
    record = assert_envelope(host, f"smtp {direction} {name}")
    odd = printed(f"{LOCAL_PARTS[name]}@example.net")
    assert set(recipients_of(record)) == ({ERIN, odd} if direction == "to" else {ERIN})
    sender = odd if direction == "from" else "alice@example.org"
    assert os.fsdecode(record.envelope.sender) == sender


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("direction", ["to", "from"])
def test_an_odd_address_by_sendmail_is_recorded_as_it_is_delivered(
    host: PrivatePostfix, direction: str, name: str
) -> None:
    record = assert_envelope(host, f"sent {direction} {name}")
    assert ERIN in recipients_of(record)


@pytest.mark.parametrize("char", ["x", "=", "\x01"])
def test_a_client_that_calls_itself_at_length_is_recorded_and_delays_nothing(
    host: PrivatePostfix, char: str
) -> None:
    """XFORWARD carries 255 bytes of it, the record has all."""
    name = f"helo {ord(char)}"
    host.send(mail(name), to=[ERIN], helo=char * 1900)
    host.wait_for_empty_queue()
    client = assert_envelope(host, name).envelope.client
    assert client.helo.decode() == printed(char * 1900).replace("\\x01", "?")


def test_a_long_sender_of_an_8_bit_message_delays_nothing(host: PrivatePostfix) -> None:
    """MAIL FROM with BODY=8BITMIME is longer than what smtpd(8) reads."""
    sender = "x" * 2010 + "@example.net"
    host.send(mail("wide") + "Grüße\n".encode(), sender=sender, to=[ERIN])
    host.wait_for_empty_queue()
    assert assert_envelope(host, "wide").envelope.sender.decode() == sender


def test_a_crowd_of_control_characters_is_archived(address_host: AddressHost) -> None:
    """Written as \\xNN they are four times as long, and a capsule holds them all."""
    host = address_host.postfix
    recipients = [f'"{chr(1) * 1400}{number}"@example.net' for number in range(600)]
    host.send(mail("crowd"), to=recipients, port=address_host.many_port)
    host.wait_for_empty_queue()
    [record] = record_reader.records(str(host.store), MANY_ARCHIVE)
    assert recipients_of(record) == sorted(map(printed, recipients))
    assert_record(host, "crowd", MANY_ARCHIVE)


def paths_with_addresses(host: PrivatePostfix) -> list[str]:
    """The paths with an address in them; Postfix names its sockets so, in the queue."""
    paths = host.directory.rglob("*@*")
    return sorted(
        str(each) for each in paths if host.queue_directory not in each.parents
    )


@pytest.mark.parametrize("mode", MODES_AND_CAPSULE, indirect=True, scope="module")
@pytest.mark.parametrize("number", range(len(NO_ARCHIVES)))
def test_what_is_no_archive_address_defers_and_makes_no_path(
    address_host: AddressHost, number: int
) -> None:
    host, port = address_host.postfix, address_host.no_archive_ports[number]
    before = paths_with_addresses(host)
    queue_id = host.send(mail(f"nowhere{number}"), to=[ERIN], port=port)
    host.wait_for_log(f"{queue_id}: to=.*(?:{NO_SOCKET}|temporary failure)")
    if not re.search(f"{queue_id}: to=.*{NO_SOCKET}", host.log()):
        host.wait_for_failure(f"queue_id={queue_id} {NOT_AN_ARCHIVE}")
    assert [each["queue_id"] for each in host.mailq()] == [queue_id]
    host.delete_messages([queue_id])
    host.wait_for_empty_queue()
    assert paths_with_addresses(host) == before
    assert archives_of(host, f"nowhere{number}") == []


def test_no_address_has_made_a_path_or_a_log_line(host: PrivatePostfix) -> None:
    one_delivery(host, "smtp to path", ERIN)
    for path in (host.store / LEGAL).rglob("*"):
        assert IN_THE_STORE.fullmatch(str(path.relative_to(host.store / LEGAL)))
    assert {each.name for each in host.store.iterdir()} <= {LEGAL, MANY_ARCHIVE}
    lines = host.log().removesuffix("\n").split("\n")
    assert [each for each in lines if not LOG_LINE.match(each)] == []
    kinds = [each["event"] for each in host.events()]
    assert set(kinds) == {"archived"}
    assert len(kinds) == len(host.stored_files(LEGAL))
    assert host.run_command("verify").returncode == 0
