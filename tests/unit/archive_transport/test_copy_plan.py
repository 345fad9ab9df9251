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
    asked,
    envelope_of,
    opened,
    set_up,
)

EARLIER = "20261101-" + "b2" * 20


def told(
    request: Request, message: bytes = MESSAGE, came: bytes = b"", **known: object
) -> EnvelopeReport:
    """What the report tells of a message that came out of its capsule as came."""
    came = came or message
    sealed = opened(envelope_of(message, requests=(request,), **known))
    digest = examples.sha256(came).hex()
    return copy_plan.build_report(
        sealed,
        request,
        came,
        examples.shape(came),
        sha256=digest,
        size=len(came),
    )


@pytest.mark.parametrize("verdict", ["absent", "altered", "forged"])
def test_a_message_without_a_valid_stamp_is_a_capture_of_its_own(verdict: str) -> None:
    request = asked(verdict=verdict, stamp_id=EARLIER)
    assert copy_plan.record_id(opened(envelope_of()), request) == ARCHIVE_ID


def test_a_validly_stamped_message_belongs_to_the_record_that_its_stamp_names() -> None:
    request = asked(verdict="valid", stamp_id=EARLIER, above=0)
    assert copy_plan.record_id(opened(envelope_of()), request) == EARLIER


def test_the_lines_above_a_valid_stamp_are_kept_verbatim() -> None:
    above = b"Received: x\r\n"
    request = asked(verdict="valid", stamp_id=EARLIER, above=len(above))
    assert copy_plan.header_above_stamp(above + MESSAGE, request) == above
    assert copy_plan.header_above_stamp(above + MESSAGE, asked()) == b""


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
    settings = set_up(f"archive_delivery = {delivery}\n")
    assert copy_plan.is_mailed(envelope_of(), asked(copy=copy), settings) == mailed


@pytest.mark.parametrize("delivery", ["store, mail", "mail"])
def test_a_bounce_to_archive_sender_sends_no_copy(delivery: str) -> None:
    keeper = "archive_sender = keeper@example.com\n"
    settings = set_up(f"archive_delivery = {delivery}\n{keeper}")
    to_keeper = (Recipient(b"keeper@example.com"),)
    bounce = envelope_of(sender=b"", recipients=to_keeper)
    assert not copy_plan.is_mailed(bounce, asked(), settings)
    letter = envelope_of(sender=b"alice@example.org", recipients=to_keeper)
    assert copy_plan.is_mailed(letter, asked(), settings)
    others = envelope_of(sender=b"", recipients=(*to_keeper, Recipient(b"bob@x.y")))
    assert copy_plan.is_mailed(others, asked(), settings)


def test_an_ordinary_message_needs_no_remark() -> None:
    assert told(asked()).remarks == []


@pytest.mark.parametrize("verdict", ["altered", "forged", "valid"])
def test_the_report_says_what_the_stamp_said(verdict: str) -> None:
    (remark,) = told(asked(verdict=verdict, stamp_id=EARLIER)).remarks
    assert "stamp" in remark


def test_the_report_says_that_the_envelope_is_incomplete() -> None:
    (remark,) = told(asked(), is_incomplete=True).remarks
    assert "incomplete" in remark


def test_the_report_says_that_the_message_was_altered_in_the_queue() -> None:
    found = told(asked(), came=MESSAGE + b"altered\r\n")
    assert any("ALTERED" in remark for remark in found.remarks)
    digest = examples.sha256(MESSAGE + b"altered\r\n").hex().encode()
    assert (b"Archive-Altered-SHA256", digest) in found.extra_fields


def test_the_report_says_what_smtp_cannot_carry() -> None:
    message = MESSAGE + b"x" * 999 + b"\r\n"
    (remark,) = told(asked(), message).remarks
    assert "SHA-256" in remark


def test_the_report_names_its_record_and_its_capsule() -> None:
    sealed = opened(envelope_of())
    extra = dict(told(asked()).extra_fields)
    assert extra[b"Archive-Record-Id"] == ARCHIVE_ID.encode()
    assert extra[b"Archive-Capsule"] == sealed.capsule_id.encode()


@given(st.integers(0, 25), st.integers(0, 30))
def test_recipients_are_dealt_out_in_order_and_none_is_lost(
    number: int, count: int
) -> None:
    everybody = tuple(Recipient(b"r%d@example.com" % n) for n in range(number))
    found = told(asked(), recipients=everybody)
    hands = [each.recipients for each in copy_plan.split_report(found, count)]
    dealt = [recipient.final for hand in hands for recipient in hand]
    assert dealt == [each.final for each in everybody]
    assert max(map(len, hands)) <= (count or number)
    assert len(hands) == max(1, -(-number // count) if count else 1)


def test_no_recipients_still_give_one_copy() -> None:
    found = told(asked(), recipients=())
    for count in (0, 1, 100):
        assert len(list(copy_plan.split_report(found, count))) == 1


def test_a_copy_that_leaves_is_stamped_as_a_copy() -> None:
    line = stamp.make_copy_stamp(
        ARCHIVE_ID, asked(), examples.sha256(MESSAGE), ROTATED, now=NOW
    )
    found = stamp.find(line + MESSAGE, ROTATED)
    digests = examples.digests(line + MESSAGE, found.content_offsets)
    verdict = stamp.verify(found, LEGAL, digests, ROTATED)
    assert verdict.result == stamp.VALID
    assert verdict.stamp is not None
    assert verdict.stamp.archive_id == ARCHIVE_ID
    assert verdict.generation == 1
    assert stamp.verify(found, HR, digests, ROTATED).result == stamp.ABSENT
    assert stamp.find(line + MESSAGE, KEYS).has_foreign
