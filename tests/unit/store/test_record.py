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

from unit.examples import ADDRESSES, ARCHIVE_ID, LEGAL, envelope_of

OTHER_ID = "20261123-" + "b2" * 20


def event(kind: str, archive_id: str, *people: bytes, **more: Any) -> Any:
    """A line of the journal; with people it has an envelope."""
    said: dict[str, Any] = {"event": kind, "id": archive_id, **more}
    if people:
        told = envelope_of(recipients=tuple(map(Recipient, people)))
        text = envelope.serialise(told)
        said["envelope"] = text.decode("utf-8", "surrogateescape")
    return said


def finals(found: record.Record) -> list[bytes]:
    return [each.final for each in found.recipients.values()]


def test_the_pieces_of_a_message_are_one_record() -> None:
    events = [
        event("archived", ARCHIVE_ID, b"a@x.example", b"b@x.example", file="1.eml.gz"),
        event("supplement", ARCHIVE_ID, b"b@x.example", b"c@x.example"),
        event("mailed", ARCHIVE_ID),
    ]
    (found,) = record.merge(LEGAL, events).values()
    assert finals(found) == [b"a@x.example", b"b@x.example", b"c@x.example"]
    assert found.files == ["1.eml.gz"]
    assert found.events == events
    assert (found.archive, found.archive_id) == (LEGAL, ARCHIVE_ID)


def test_records_come_in_the_order_of_their_capture() -> None:
    events = [
        event("archived", OTHER_ID, b"a@x.example"),
        event("archived", ARCHIVE_ID, b"b@x.example"),
        event("supplement", OTHER_ID, b"c@x.example"),
    ]
    assert list(record.merge(LEGAL, events)) == [OTHER_ID, ARCHIVE_ID]


def test_a_second_original_is_a_second_file_of_the_record() -> None:
    events = [
        event("archived", ARCHIVE_ID, b"a@x.example", file="1.eml.gz"),
        event("archived", ARCHIVE_ID, b"a@x.example", file="1.2.eml.gz"),
    ]
    assert record.merge(LEGAL, events)[ARCHIVE_ID].files == ["1.eml.gz", "1.2.eml.gz"]


def test_two_aliases_of_one_mailbox_are_two_recipients() -> None:
    told = envelope_of(
        recipients=(Recipient(b"a@x", b"sales@x"), Recipient(b"a@x", b"info@x"))
    )
    text = envelope.serialise(told).decode()
    events: list[Event]
    events = [{"event": "archived", "id": ARCHIVE_ID, "envelope": text}]
    assert len(record.merge(LEGAL, events)[ARCHIVE_ID].recipients) == 2


def test_the_first_envelope_stands_for_the_record() -> None:
    first = event("archived", ARCHIVE_ID, b"a@x.example")
    second = event("supplement", ARCHIVE_ID, b"b@x.example")
    second["envelope"] = second["envelope"].replace("ann@", "list@")
    found = record.merge(LEGAL, [first, second])[ARCHIVE_ID]
    assert found.envelope.sender == b"ann@example.org"


@pytest.mark.parametrize("lost", [{"event": "opened"}, event("mailed", OTHER_ID)])
def test_an_event_of_no_record_makes_none(lost: Event) -> None:
    assert record.merge(LEGAL, [lost]) == {}


@given(st.lists(st.lists(ADDRESSES, max_size=4), min_size=1, max_size=5))
def test_the_union_does_not_depend_on_the_order_of_the_pieces(
    pieces: list[list[bytes]],
) -> None:
    events = [event("archived", ARCHIVE_ID, b"first@x.example")]
    events += [event("supplement", ARCHIVE_ID, *each) for each in pieces]
    forth = record.merge(LEGAL, events)[ARCHIVE_ID]
    back = record.merge(LEGAL, [events[0], *reversed(events[1:])])[ARCHIVE_ID]
    assert set(forth.recipients) == set(back.recipients)
