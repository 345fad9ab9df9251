"""Claims about the plan of the archive transport."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.archive_transport import copy_plan
from postfix_archive.message import stamp
from postfix_archive.message.archive_copy import EnvelopeReport
from postfix_archive.message.envelope import Recipient, Request

from unit import examples
from unit.examples import (
    ARCHIVE_ID,
    HR,
    KEYS,
    LEGAL,
    MESSAGE,
    NOW,
    ROTATED,
    make_envelope,
    make_request,
    make_settings,
    unseal_capsule,
)

EARLIER = "20261101-" + "b2" * 20


def make_report(
    request: Request,
    message: bytes = MESSAGE,
    received: bytes = b"",
    **overrides: object,
) -> EnvelopeReport:
    """What the report tells of a message that came out of its capsule as came."""
    received = received or message
    envelope = unseal_capsule(make_envelope(message, requests=(request,), **overrides))
    digest = examples.sha256(received).hex()
    return copy_plan.build_report(
        envelope,
        request,
        received,
        examples.content_properties(received),
        sha256=digest,
        size=len(received),
    )


@pytest.mark.parametrize("verdict", ["absent", "altered", "forged", "content"])
def test_a_message_without_a_valid_stamp_is_a_capture_of_its_own(verdict: str) -> None:
    request = make_request(verdict=verdict, stamp_id=EARLIER)
    assert copy_plan.record_id(unseal_capsule(make_envelope()), request) == ARCHIVE_ID


def test_a_validly_stamped_message_belongs_to_the_record_that_its_stamp_names() -> None:
    request = make_request(verdict="valid", stamp_id=EARLIER, offset=0)
    assert copy_plan.record_id(unseal_capsule(make_envelope()), request) == EARLIER


def test_a_copy_of_another_store_is_no_record_of_what_it_encloses() -> None:
    request = make_request(verdict="valid", stamp_id=EARLIER, offset=0, generation=1)
    assert copy_plan.record_id(unseal_capsule(make_envelope()), request) == ARCHIVE_ID


def test_lines_above_a_valid_stamp_are_recorded_verbatim() -> None:
    above = b"Received: x\r\n"
    request = make_request(verdict="valid", stamp_id=EARLIER, offset=len(above))
    assert copy_plan.header_above_stamp(above + MESSAGE, request) == above
    assert copy_plan.header_above_stamp(above + MESSAGE, make_request()) == b""


@pytest.mark.parametrize(
    ("delivery", "copy", "mailed"),
    [
        ("store, mail", 0, True),
        ("store, mail", 1, False),
        ("store", 0, False),
        ("store", 1, False),
        ("mail", 0, True),
        ("mail", 1, True),
        ("mail", 2, False),
    ],
)
def test_what_leaves_as_mail(delivery: str, copy: int, mailed: bool) -> None:
    settings = make_settings(f"archive_delivery = {delivery}\n")
    assert (
        copy_plan.is_mailed(
            make_envelope(), make_request(generation=copy), MESSAGE, settings
        )
        == mailed
    )


@pytest.mark.parametrize("delivery", ["store, mail", "mail"])
def test_a_bounce_to_archive_sender_sends_no_copy(delivery: str) -> None:
    settings_line = "archive_sender = keeper@example.com\n"
    settings = make_settings(f"archive_delivery = {delivery}\n{settings_line}")
    to_keeper = (Recipient(b"keeper@example.com"),)
    bounce = make_envelope(sender=b"", recipients=to_keeper)
    assert not copy_plan.is_mailed(bounce, make_request(), MESSAGE, settings)
    letter = make_envelope(sender=b"alice@example.org", recipients=to_keeper)
    assert copy_plan.is_mailed(letter, make_request(), MESSAGE, settings)
    bounce_to_others = make_envelope(
        sender=b"", recipients=(*to_keeper, Recipient(b"bob@x.y"))
    )
    assert copy_plan.is_mailed(bounce_to_others, make_request(), MESSAGE, settings)


COPY_ID = f"<{ARCHIVE_ID}.0123456789abcdef@mail.example.com>".encode()
REPORT_ID = f"<{ARCHIVE_ID}.outcome.01234567@mail.example.com>".encode()


@pytest.mark.parametrize("delivery", ["store, mail", "mail"])
@pytest.mark.parametrize(
    ("line", "recipients", "is_mailed"),
    [
        (b"In-Reply-To: " + COPY_ID, [b"robot@example.com"], False),
        (b"References: <x@y> " + COPY_ID, [b"Robot@example.com"], False),
        (b"References: <x@y>\r\n\t" + REPORT_ID, [b"robot@example.com"], False),
        (b"In-Reply-To: <x@y>", [b"robot@example.com"], True),
        (b"X-Other: " + COPY_ID, [b"robot@example.com"], True),
        (b"In-Reply-To: " + COPY_ID, [b"bob@example.com"], True),
        (b"In-Reply-To: " + COPY_ID, [b"robot@example.com", b"bob@x.example"], True),
    ],
)
def test_a_reply_to_a_copy_sends_no_copy(
    delivery: str, line: bytes, recipients: list[bytes], is_mailed: bool
) -> None:
    """A responder on the archive mailbox would answer that one too, for ever."""
    settings = make_settings(
        f"archive_delivery = {delivery}\narchive_from = robot@example.com\n"
    )
    reply = make_envelope(recipients=tuple(map(Recipient, recipients)))
    head = line + b"\r\n" + MESSAGE
    assert copy_plan.is_mailed(reply, make_request(), head, settings) == is_mailed


def test_an_ordinary_message_needs_no_remark() -> None:
    assert make_report(make_request()).remarks == []


@pytest.mark.parametrize("verdict", ["altered", "forged", "valid"])
def test_the_report_gives_the_verdict_on_the_stamp(verdict: str) -> None:
    (remark,) = make_report(make_request(verdict=verdict, stamp_id=EARLIER)).remarks
    assert "stamp" in remark


def test_the_report_names_the_message_whose_content_it_is() -> None:
    (remark,) = make_report(make_request(verdict="content", stamp_id=EARLIER)).remarks
    assert EARLIER in remark and "stamp" not in remark


def test_the_report_states_that_the_envelope_is_incomplete() -> None:
    (remark,) = make_report(make_request(), is_incomplete=True).remarks
    assert "incomplete" in remark


def test_the_report_states_that_the_message_was_altered_in_the_queue() -> None:
    report = make_report(make_request(), received=MESSAGE + b"altered\r\n")
    assert any("ALTERED" in remark for remark in report.remarks)
    digest = examples.sha256(MESSAGE + b"altered\r\n").hex().encode()
    assert (b"Archive-Altered-SHA256", digest) in report.extra_fields


def test_the_report_names_what_smtp_cannot_carry() -> None:
    message = MESSAGE + b"x" * 999 + b"\r\n"
    (remark,) = make_report(make_request(), message).remarks
    assert "SHA-256" in remark


def test_the_report_names_its_record_and_its_capsule() -> None:
    envelope = unseal_capsule(make_envelope())
    extra = dict(make_report(make_request()).extra_fields)
    assert extra[b"Archive-Record-Id"] == ARCHIVE_ID.encode()
    assert extra[b"Archive-Capsule"] == envelope.capsule_id.encode()


@given(st.integers(0, 25), st.integers(0, 30))
def test_recipients_are_distributed_in_order_and_none_is_lost(
    number: int, count: int
) -> None:
    recipients = tuple(Recipient(b"r%d@example.com" % n) for n in range(number))
    report = make_report(make_request(), recipients=recipients)
    groups = [each.recipients for each in copy_plan.split_report(report, count)]
    final_recipients = [recipient.final for group in groups for recipient in group]
    assert final_recipients == [each.final for each in recipients]
    assert max(map(len, groups)) <= (count or number)
    assert len(groups) == max(1, -(-number // count) if count else 1)


def test_no_recipients_still_give_one_copy() -> None:
    report = make_report(make_request(), recipients=())
    for count in (0, 1, 100):
        assert len(list(copy_plan.split_report(report, count))) == 1


def test_a_copy_that_leaves_is_stamped_as_a_copy() -> None:
    line = stamp.make_copy_stamp(
        ARCHIVE_ID, make_request(), examples.sha256(MESSAGE), ROTATED, now=NOW
    )
    stamps = stamp.find(line + MESSAGE, ROTATED)
    digests = examples.digests(line + MESSAGE, stamps.content_offsets)
    verdict = stamp.verify(stamps, LEGAL, digests, ROTATED)
    assert verdict.result == stamp.VALID
    assert verdict.stamp is not None
    assert verdict.stamp.archive_id == ARCHIVE_ID
    assert verdict.generation == 1
    assert stamp.verify(stamps, HR, digests, ROTATED).result == stamp.ABSENT
    assert stamp.find(line + MESSAGE, KEYS).has_foreign
