"""Claims about how the events of a journal make records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import envelope
from postfix_archive.message.envelope import Recipient
from postfix_archive.store import record
from postfix_archive.store.journal_event import Event
from postfix_archive.store.outcome import Outcome

from unit.examples import ADDRESSES, ARCHIVE_ID, LEGAL, QUEUE_ID, make_envelope

OTHER_ID = "20261123-" + "b2" * 20


def make_event(kind: str, archive_id: str, *recipients: bytes, **fields: Any) -> Any:
    """A line of the journal; with people it has an envelope."""
    values: dict[str, Any] = {"event": kind, "id": archive_id, **fields}
    if recipients:
        sealed_envelope = make_envelope(recipients=tuple(map(Recipient, recipients)))
        text = envelope.serialise(sealed_envelope)
        values["envelope"] = text.decode("utf-8", "surrogateescape")
    return values


def finals(merged: record.Record) -> list[bytes]:
    return [each.final for each in merged.recipients.values()]


def test_the_pieces_of_a_message_are_one_record() -> None:
    events = [
        make_event(
            "archived", ARCHIVE_ID, b"a@x.example", b"b@x.example", file="1.eml.gz"
        ),
        make_event("supplement", ARCHIVE_ID, b"b@x.example", b"c@x.example"),
        make_event("mailed", ARCHIVE_ID),
    ]
    (merged,) = record.merge(LEGAL, events).values()
    assert finals(merged) == [b"a@x.example", b"b@x.example", b"c@x.example"]
    assert merged.files == ["1.eml.gz"]
    assert merged.events == events
    assert (merged.archive, merged.archive_id) == (LEGAL, ARCHIVE_ID)


def test_records_come_in_the_order_of_their_capture() -> None:
    events = [
        make_event("archived", OTHER_ID, b"a@x.example"),
        make_event("archived", ARCHIVE_ID, b"b@x.example"),
        make_event("supplement", OTHER_ID, b"c@x.example"),
    ]
    assert list(record.merge(LEGAL, events)) == [OTHER_ID, ARCHIVE_ID]


def test_a_second_original_is_a_second_file_of_the_record() -> None:
    events = [
        make_event("archived", ARCHIVE_ID, b"a@x.example", file="1.eml.gz"),
        make_event("archived", ARCHIVE_ID, b"a@x.example", file="1.2.eml.gz"),
    ]
    assert record.merge(LEGAL, events)[ARCHIVE_ID].files == ["1.eml.gz", "1.2.eml.gz"]


def test_two_aliases_of_one_mailbox_are_two_recipients() -> None:
    sealed_envelope = make_envelope(
        recipients=(Recipient(b"a@x", b"sales@x"), Recipient(b"a@x", b"info@x"))
    )
    text = envelope.serialise(sealed_envelope).decode()
    events: list[Event]
    events = [{"event": "archived", "id": ARCHIVE_ID, "envelope": text}]
    assert len(record.merge(LEGAL, events)[ARCHIVE_ID].recipients) == 2


def test_the_first_envelope_stands_for_the_record() -> None:
    first = make_event("archived", ARCHIVE_ID, b"a@x.example")
    second = make_event("supplement", ARCHIVE_ID, b"b@x.example")
    second["envelope"] = second["envelope"].replace("ann@", "list@")
    merged = record.merge(LEGAL, [first, second])[ARCHIVE_ID]
    assert merged.envelope.sender == b"ann@example.org"


def test_each_pass_keeps_its_sender_recipients_and_outcomes() -> None:
    first = make_event("archived", ARCHIVE_ID, b"a@x.example", time="1")
    again = make_event("supplement", ARCHIVE_ID, b"b@x.example", time="2")
    again["envelope"] = again["envelope"].replace("ann@", "eve@")
    again["envelope"] = again["envelope"].replace(ARCHIVE_ID, OTHER_ID)
    again["envelope"] = again["envelope"].replace(QUEUE_ID.decode(), "4Zother")
    again["above"] = "Subject: new\r\n"
    piece = {**again, "envelope": again["envelope"].replace("b@x", "c@x"), "time": "3"}
    gone = Outcome("b@x.example", "failed", "4Zother", "4Z", "2026-11-22T11:54:00Z")
    outcome_event = {"event": "outcome", "id": ARCHIVE_ID, **gone.event_fields()}
    events: list[Any] = [first, again, piece, outcome_event]
    merged = record.merge(LEGAL, events)[ARCHIVE_ID]
    assert finals(merged) == [b"a@x.example"]
    one, other = merged.passes
    assert (one.envelope.sender, one.time, one.lines_above) == (
        b"ann@example.org",
        "1",
        b"",
    )
    assert (other.envelope.sender, other.time, other.lines_above) == (
        b"eve@example.org",
        "2",
        b"Subject: new\r\n",
    )
    assert [e.final for e in other.recipients.values()] == [
        b"b@x.example",
        b"c@x.example",
    ]
    assert merged.results_of(one).counts_by_kind == {"unknown": 1}
    assert merged.results_of(other).counts_by_kind == {"failed": 1, "unknown": 1}


@pytest.mark.parametrize(
    "orphan_event", [{"event": "opened"}, make_event("mailed", OTHER_ID)]
)
def test_an_event_of_no_record_makes_none(orphan_event: Event) -> None:
    assert record.merge(LEGAL, [orphan_event]) == {}


@given(st.lists(st.lists(ADDRESSES, max_size=4), min_size=1, max_size=5))
def test_the_union_does_not_depend_on_the_order_of_the_pieces(
    pieces: list[list[bytes]],
) -> None:
    events = [make_event("archived", ARCHIVE_ID, b"first@x.example")]
    events += [make_event("supplement", ARCHIVE_ID, *each) for each in pieces]
    forward = record.merge(LEGAL, events)[ARCHIVE_ID]
    backward = record.merge(LEGAL, [events[0], *reversed(events[1:])])[ARCHIVE_ID]
    assert set(forward.recipients) == set(backward.recipients)
