"""Claims about the one way an envelope is written down."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import CapsuleBroken
from postfix_archive.message import address, envelope, stamp
from postfix_archive.message.envelope import Client, Recipient

from unit import examples
from unit.examples import (
    ADDRESSES,
    PRINTABLE,
    envelope_values,
    make_envelope,
    make_request,
)

TEXT = b"""\
Reporting-MTA: dns; mail.example.com
Original-Envelope-Id: QQ314159
X-Postfix-Queue-ID: 4Zx1Yk2Pp7z9Qw
X-Postfix-Sender: rfc822; ann@example.org
Arrival-Date: Sun, 22 Nov 2026 11:53:00 +0000
Archive-Format: 1
Archive-Id: 20261122-a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1
Archive-Client-Address: 192.0.2.7
Archive-SASL-Username: ann
Archive-Request: rfc822; legal@example.com; source=nexthop; stamp=absent
Archive-Original-SHA256: 00ff
Archive-Original-Size: 7
Archive-DSN-Ret: HDRS

Final-Recipient: rfc822; bob@example.com
Original-Recipient: rfc822; sales@example.com
Archive-DSN-Notify: SUCCESS,DELAY
Archive-DSN-Orcpt: rfc822;sales+2Bx@example.org

Final-Recipient: utf-8; gr\xc3\xbcn@example.com
""".replace(b"\n", b"\r\n")
requests = st.builds(
    make_request,
    st.sampled_from(["legal@example.com", "hr+x@example.com"]),
    verdict=st.sampled_from(stamp.VERDICTS),
    stamp_id=st.sampled_from(["", examples.ARCHIVE_ID]),
    offset=st.none() | st.integers(0, 1 << 20),
    generation=st.integers(0, 2),
    is_stamp_trusted=st.booleans(),
)
recipients = st.builds(
    Recipient,
    ADDRESSES,
    st.just(b"") | ADDRESSES,
    notify=st.sampled_from([b"", b"NEVER", b"success,delay"]),
    orcpt=st.just(b"") | PRINTABLE,
)
clients = st.fixed_dictionaries(
    {}, optional={name: PRINTABLE for name in Client.__slots__}
).map(lambda known: Client(**known))


def as_written(value: bytes) -> bytes:
    """The form that a value has in a field: on one line."""
    return address.escape_controls(value).strip()


def test_the_lines_are_those_of_the_public_format() -> None:
    written = make_envelope(
        envid=b"QQ314159",
        client=Client(address=b"192.0.2.7", sasl_username=b"ann"),
        recipients=(
            Recipient(
                b"bob@example.com",
                b"sales@example.com",
                notify=b"SUCCESS,DELAY",
                orcpt=b"rfc822;sales+2Bx@example.org",
            ),
            Recipient("grün@example.com".encode()),
        ),
        ret=b"HDRS",
        sha256="00ff",
        size=7,
    )
    assert envelope.serialise(written) == TEXT


def test_an_unknown_value_is_left_out() -> None:
    bare = envelope.Envelope(
        archive_id=examples.ARCHIVE_ID,
        host=b"h",
        queue_id=b"",
        sender=b"",
        recipients=(),
    )
    lines = envelope.serialise(bare).split(b"\r\n")
    assert {line.partition(b":")[0] for line in lines[:-1]} == {
        b"Reporting-MTA",
        b"Archive-Format",
        b"Archive-Id",
        b"Archive-Original-Size",
    }


@given(
    ADDRESSES | st.just(b""),
    st.lists(recipients, max_size=5).map(tuple),
    st.lists(requests, max_size=3).map(tuple),
    clients,
    st.none() | st.integers(0, 4102444800),
    st.just(b"") | PRINTABLE,
    st.booleans(),
)
def test_what_is_written_reads_the_same(
    sender: bytes,
    everybody: tuple[Recipient, ...],
    wanted: tuple[envelope.Request, ...],
    client: Client,
    arrival: int | None,
    envid: bytes,
    incomplete: bool,
) -> None:
    written = make_envelope(
        sender=sender,
        recipients=everybody,
        requests=wanted,
        client=client,
        arrival=arrival,
        envid=envid,
        is_incomplete=incomplete,
    )
    values = envelope_values(written)
    values["sender"] = as_written(sender)
    values["recipients"] = [
        (
            as_written(recipient.final),
            as_written(recipient.original),
            recipient.notify,
            as_written(recipient.orcpt),
        )
        for recipient in everybody
    ]
    text = envelope.serialise(written)
    read_back = envelope.parse(text)
    assert envelope_values(read_back) == values
    assert envelope.serialise(read_back) == text


@given(st.binary(min_size=1, max_size=60))
def test_no_value_makes_an_extra_line(noise: bytes) -> None:
    plain = make_envelope(
        sender=b"s",
        envid=b"e",
        recipients=(Recipient(b"f", b"o"),),
        client=Client(**{name: b"c" for name in Client.__slots__}),
    )
    hostile = make_envelope(
        sender=noise,
        envid=noise,
        recipients=(Recipient(noise, noise),),
        client=Client(**{name: noise for name in Client.__slots__}),
    )
    counts = [
        [len(re.findall(end, envelope.serialise(each))) for end in (rb"\r", rb"\n")]
        for each in (plain, hostile)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "hostile_address",
    [
        b"a@b\r\nArchive-Id: 20200101-" + b"0" * 40,
        b"a@b\r\n\r\nFinal-Recipient: rfc822; mallory@example.net",
        b"a@b\nArchive-Original-Size: 1",
        b"a@b\rArchive-Envelope: incomplete",
    ],
)
def test_an_address_cannot_write_a_field(hostile_address: bytes) -> None:
    written = make_envelope(
        sender=hostile_address,
        recipients=(Recipient(hostile_address, hostile_address),),
    )
    read_back = envelope.parse(envelope.serialise(written))
    assert read_back.archive_id == written.archive_id
    assert (read_back.size, read_back.is_incomplete) == (written.size, False)
    assert len(read_back.recipients) == 1


def test_lines_that_are_not_of_the_envelope_are_passed_over() -> None:
    report = TEXT.replace(b"\r\n\r\n", b"\r\nX-Other: y\r\nAction: delayed\r\n\r\n")
    assert envelope_values(envelope.parse(report)) == envelope_values(
        envelope.parse(TEXT)
    )


def test_the_first_of_two_lines_counts() -> None:
    text = TEXT.replace(b"Archive-Format", b"Archive-Id: 20200101-00\r\nArchive-Format")
    assert envelope.parse(text).archive_id == "20200101-00"


@pytest.mark.parametrize(
    "name",
    [
        b"Archive-Id",
        b"Reporting-MTA",
        b"Archive-Original-SHA256",
        b"Archive-Original-Size",
    ],
)
def test_an_envelope_without_its_main_fields_is_refused(name: bytes) -> None:
    with pytest.raises(CapsuleBroken):
        envelope.parse(TEXT.replace(name, b"X-Gone"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Size: 7", b"Size: seven"),
        (b"; source=nexthop; stamp=absent", b""),
        (b"; stamp=absent", b"; stamp"),
        (b"; stamp=absent", b"; stamp=absent; above=x"),
        (b"legal@", b"l\xfcgal@"),
        (b"Archive-Id: 2", b"Archive-Id: \xff2"),
    ],
)
def test_an_envelope_that_cannot_be_read_is_refused(
    before: bytes, after: bytes
) -> None:
    with pytest.raises(CapsuleBroken):
        envelope.parse(TEXT.replace(before, after))


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(CapsuleBroken):
        envelope.parse(noise)


def test_a_recipient_is_expanded_when_this_host_changed_it() -> None:
    assert Recipient(b"bob@example.com", b"sales@example.com").is_mapped
    assert not Recipient(b"bob@example.com", b"bob@example.com").is_mapped
    assert not Recipient(b"bob@example.com").is_mapped
