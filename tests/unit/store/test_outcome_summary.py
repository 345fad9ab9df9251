"""Claims about outcomes: what a record says became of its recipients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import envelope
from postfix_archive.message.envelope import Recipient
from postfix_archive.store import journal, journal_event, outcome, record
from postfix_archive.store.outcome import Outcome
from postfix_archive.store.record import Record

from unit.examples import ARCHIVE_ID, LEGAL, QUEUE_ID, make_envelope, make_request

TIME = "2026-11-22T11:54:00Z"
CAPTURE_QUEUE_ID = QUEUE_ID.decode()
BOB, EVE, TEAM = "bob@example.com", "eve@example.com", "team@example.com"


def make_outcome(
    recipient: str, kind: str = outcome.DELIVERED, **fields: Any
) -> Outcome:
    defaults = {
        "capture_queue_id": CAPTURE_QUEUE_ID,
        "queue_id": "4Zother",
        "time": TIME,
        "status": "2.0.0",
        **fields,
    }
    return Outcome(recipient=recipient, kind=kind, **defaults)


def archived_event(*recipients: str, **overrides: Any) -> Any:
    """An event that brings these recipients."""
    sealed_envelope = make_envelope(
        recipients=tuple(
            Recipient(e.encode("utf-8", "surrogateescape")) for e in recipients
        ),
        **overrides,
    )
    lines = envelope.serialise(sealed_envelope).decode("utf-8", "surrogateescape")
    return {"event": "archived", "id": ARCHIVE_ID, "envelope": lines}


def supplement_event(
    *recipients: str, copy: int = 0, queue_id: bytes = b"4Zlater"
) -> Any:
    """The event of a later pass, of the message or of an archive copy of it."""
    request = make_request(
        verdict="valid", stamp_id=ARCHIVE_ID, offset=0, generation=copy
    )
    event = archived_event(*recipients, queue_id=queue_id, requests=(request,))
    return {**event, "event": "supplement"}


def event_of(given: Outcome) -> Any:
    return {"event": journal.OUTCOME, "id": ARCHIVE_ID, **given.event_fields()}


def record_of(*outcomes_or_events: Any) -> Record:
    events = [
        event_of(each) if isinstance(each, Outcome) else each
        for each in outcomes_or_events
    ]
    return record.merge(LEGAL, events)[ARCHIVE_ID]


def result_kinds(merged: Record) -> list[tuple[int, str, str]]:
    return [
        (each.depth, each.recipient, each.kind)
        for each in merged.results.recipient_results()
    ]


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=4),
    st.text(max_size=20),
    st.integers(1, 99),
)
def test_an_outcome_reads_back_from_its_event(
    others: list[str], reply: str, tries: int
) -> None:
    others = [each for each in others if outcome.SEPARATOR not in each]
    found = make_outcome(
        BOB,
        outcome.EXPANDED,
        expanded_to=tuple(others),
        reply=reply,
        tries=tries,
        remote="mx.example.net[192.0.2.1]:25",
        original='"b o, b"@example.com',
        parent=TEAM,
    )
    assert journal_event.parse_outcome(json.loads(json.dumps(event_of(found)))) == found
    assert journal_event.is_valid_outcome(event_of(found))


def test_an_outcome_without_a_queue_id_can_still_be_read_back() -> None:
    bare = Outcome("", "failed", capture_queue_id="", queue_id="", time="")
    assert journal_event.is_valid_outcome(event_of(bare))
    assert journal_event.parse_outcome(event_of(bare)) == bare


def test_an_outcome_is_shown_on_one_line() -> None:
    assert make_outcome(BOB).describe() == f"delivered (2.0.0), {TIME}"
    long = make_outcome(
        BOB, "failed", status="5.1.1", remote="mx[::1]:25", reply="no", tries=3
    )
    assert long.describe() == f"failed (5.1.1) by mx[::1]:25, {TIME}, 3 tries: no"


def test_before_any_outcome_all_is_unknown() -> None:
    merged = record_of(archived_event(BOB, EVE))
    assert result_kinds(merged) == [(0, BOB, "unknown"), (0, EVE, "unknown")]
    assert not merged.results.is_settled
    assert merged.results.overall_kind == "unknown"
    assert merged.results.counts_by_kind == {"unknown": 2}


def test_a_record_is_settled_with_its_last_recipient() -> None:
    first = record_of(archived_event(BOB, EVE), make_outcome(BOB))
    assert (first.results.is_settled, first.results.overall_kind) == (False, "waiting")
    settled_record = record_of(
        archived_event(BOB, EVE), make_outcome(BOB), make_outcome(EVE, "relayed")
    )
    assert (settled_record.results.is_settled, settled_record.results.overall_kind) == (
        True,
        "delivered",
    )
    assert settled_record.results.counts_by_kind == {"delivered": 1, "relayed": 1}


def test_what_waited_is_settled_later_and_never_waits_again() -> None:
    waiting = make_outcome(BOB, "waiting", status="4.4.1")
    assert record_of(archived_event(BOB), waiting).results.overall_kind == "waiting"
    for order in ((waiting, make_outcome(BOB)), (make_outcome(BOB), waiting)):
        merged = record_of(archived_event(BOB), *order)
        assert result_kinds(merged) == [(0, BOB, "delivered")]
        assert merged.results.is_settled


@pytest.mark.parametrize(
    ("first_kind", "second_kind", "overall_kind"),
    [
        ("delivered", "relayed", "delivered"),
        ("failed", "expired", "failed"),
        ("discarded", "deleted", "failed"),
        ("discarded", "discarded", "discarded"),
        ("expired", "expanded", "expired"),
        ("failed", "delivered", "mixed"),
        ("delivered", "waiting", "waiting"),
        ("expanded", "failed", "failed"),
        ("expanded", "delivered", "delivered"),
    ],
)
def test_one_kind_summarises_the_outcome_of_a_message(
    first_kind: str, second_kind: str, overall_kind: str
) -> None:
    merged = record_of(
        archived_event(BOB, EVE),
        make_outcome(BOB, first_kind),
        make_outcome(EVE, second_kind),
    )
    assert merged.results.overall_kind == overall_kind


def test_an_expanded_recipient_is_settled_with_all_its_children() -> None:
    team = make_outcome(TEAM, "expanded", expanded_to=(BOB, EVE))
    child = make_outcome(BOB, parent=TEAM, original=TEAM)
    half = record_of(archived_event(TEAM), team, child)
    assert result_kinds(half) == [
        (0, TEAM, "expanded"),
        (1, BOB, "delivered"),
        (1, EVE, "unknown"),
    ]
    assert not half.results.is_settled
    waits = record_of(
        archived_event(TEAM), team, child, make_outcome(EVE, "waiting", parent=TEAM)
    )
    assert not waits.results.is_settled
    settled_record = record_of(
        archived_event(TEAM), team, child, make_outcome(EVE, "failed", parent=TEAM)
    )
    assert settled_record.results.is_settled
    assert settled_record.results.overall_kind == "mixed"


@pytest.mark.parametrize(
    "kind", sorted({*outcome.SETTLED} - {outcome.EXPANDED, outcome.RELAYED})
)
def test_a_recipient_mapped_to_one_address_has_the_outcome_of_that_one(
    kind: str,
) -> None:
    merged = record_of(
        archived_event(TEAM), make_outcome(TEAM, kind, expanded_to=(BOB,))
    )
    assert result_kinds(merged) == [(0, TEAM, kind)]
    assert merged.results.is_settled
    assert merged.results.overall_kind == kind
    assert merged.results.counts_by_kind == {kind: 1}


def test_expansions_of_expansions_are_followed_to_their_end() -> None:
    deep = 3000
    names = [f"list{number}@example.com" for number in range(deep)]
    outcomes: list[Outcome] = []
    for parent, name in zip(["", *names], names):
        below = names[names.index(name) + 1 :][:1]
        outcomes.append(
            make_outcome(name, "expanded", parent=parent, expanded_to=tuple(below))
        )
    merged = record_of(archived_event(names[0]), *outcomes)
    assert merged.results.is_settled
    assert len(merged.results.recipient_results()) == deep
    assert not record_of(archived_event(names[0]), *outcomes[:-1]).results.is_settled


def test_an_alias_that_names_itself_or_one_above_has_an_end() -> None:
    merged = record_of(
        archived_event(TEAM),
        make_outcome(TEAM, "expanded", expanded_to=(TEAM, BOB)),
        make_outcome(TEAM, parent=TEAM),
        make_outcome(BOB, "expanded", parent=TEAM, expanded_to=(TEAM,)),
        make_outcome(TEAM, parent=BOB),
    )
    assert merged.results.is_settled
    assert [depth for depth, _, _ in result_kinds(merged)] == [0, 1, 1, 2]


def test_a_quoted_recipient_with_space_and_comma_is_one_recipient() -> None:
    odd = '"a b, c"@example.com'
    merged = record_of(
        archived_event(TEAM),
        make_outcome(TEAM, "expanded", expanded_to=(odd, BOB)),
        make_outcome(odd, parent=TEAM),
        make_outcome(BOB, parent=TEAM),
    )
    assert merged.results.is_settled


def test_bytes_that_are_no_utf8_find_their_outcome() -> None:
    odd = "latin\udcfc@example.com"
    merged = record_of(archived_event(odd), make_outcome(odd))
    assert merged.results.is_settled


def test_two_aliases_of_one_mailbox_have_an_outcome_each() -> None:
    recipients = (Recipient(b"a@x", b"sales@x"), Recipient(b"a@x", b"info@x"))
    archived = archived_event()
    archived["envelope"] = envelope.serialise(
        make_envelope(recipients=recipients)
    ).decode()
    first_settled = record_of(archived, make_outcome("a@x", original="sales@x"))
    assert [e.kind for e in first_settled.results.recipient_results()] == [
        "delivered",
        "unknown",
    ]
    both_settled = record_of(
        archived,
        make_outcome("a@x", original="sales@x"),
        make_outcome("a@x", "failed", original="info@x"),
    )
    assert both_settled.results.overall_kind == "mixed"


def test_a_later_pass_brings_recipients_to_be_settled() -> None:
    first = (archived_event(BOB), make_outcome(BOB))
    assert record_of(*first).results.is_settled
    unsettled = record_of(*first, supplement_event(BOB, EVE))
    assert result_kinds(unsettled)[0] == (0, BOB, "delivered")
    assert unsettled.results.counts_by_kind == {"delivered": 1, "unknown": 2}
    settled_record = record_of(
        *first,
        supplement_event(BOB, EVE),
        make_outcome(BOB, capture_queue_id="4Zlater"),
        make_outcome(EVE, capture_queue_id="4Zlater"),
    )
    assert settled_record.results.is_settled
    assert settled_record.results.sha256 != record_of(*first).results.sha256


def test_those_who_got_an_archive_copy_do_not_count() -> None:
    """Or a mailed outcome report that is forwarded back would make another one."""
    first = (archived_event(BOB), make_outcome(BOB))
    copy_events = (
        supplement_event(EVE, copy=1),
        make_outcome(EVE, capture_queue_id="4Zlater"),
    )
    assert record_of(*first, *copy_events[:1]).results.is_settled
    merged = record_of(*first, *copy_events)
    assert merged.results.sha256 == record_of(*first).results.sha256
    assert merged.results.counts_by_kind == {"delivered": 1}
    assert result_kinds(merged) == [(0, BOB, "delivered"), (0, EVE, "delivered")]
    assert not record_of(
        supplement_event(EVE, copy=1), *copy_events[1:]
    ).results.is_settled


def test_an_outcome_under_another_queue_id_is_not_lost() -> None:
    """A queue file that was requeued before its capture has two ids."""
    merged = record_of(
        archived_event(BOB),
        make_outcome(BOB, capture_queue_id="4Zrequeued", original="b@x"),
    )
    assert result_kinds(merged) == [(0, BOB, "delivered")]
    other = record_of(
        archived_event(BOB),
        supplement_event(EVE),
        make_outcome(EVE, capture_queue_id=CAPTURE_QUEUE_ID),
    )
    assert other.results.counts_by_kind == {"unknown": 2}


def test_what_is_covered_does_not_depend_on_the_order_of_events() -> None:
    outcomes = [make_outcome(BOB), make_outcome(EVE, "failed")]
    forward = record_of(archived_event(BOB, EVE), *outcomes)
    backward = record_of(archived_event(BOB, EVE), *reversed(outcomes))
    assert forward.results.sha256 == backward.results.sha256
    repeated = record_of(archived_event(BOB, EVE), *outcomes, *outcomes)
    assert repeated.results.sha256 == forward.results.sha256
    other = record_of(
        archived_event(BOB, EVE), outcomes[0], make_outcome(EVE, "failed", tries=2)
    )
    assert other.results.sha256 != forward.results.sha256


TIME_FIELD = {"time": TIME}
REPORT = {
    **TIME_FIELD,
    "event": "outcome-report",
    "id": ARCHIVE_ID,
    "file": "a",
    "covers": "",
}


@pytest.mark.parametrize(
    ("fields", "is_event"),
    [
        ({**TIME_FIELD, **event_of(make_outcome(BOB))}, True),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "recipient": "a\udcfc"}, True),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "recipient": "a\ud800"}, False),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "outcome": "lost"}, False),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "of": 5}, False),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "tries": True}, False),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "expanded_to": [BOB]}, False),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "id": "../x"}, False),
        ({**TIME_FIELD, **event_of(make_outcome(BOB)), "envelope": 5}, False),
        (REPORT, True),
        ({**REPORT, "file": "../../etc/shadow"}, False),
        ({**REPORT, "file": None}, False),
        ({**REPORT, "covers": 5}, False),
        ({**REPORT, "event": "outcome-mailed"}, True),
        ({**REPORT, "event": "outcome-mailed", "file": "/etc/shadow"}, False),
    ],
)
def test_only_a_line_as_the_store_writes_it_is_an_event(
    fields: dict[str, Any], is_event: bool
) -> None:
    assert journal_event.is_valid(fields) is is_event


def test_reports_and_their_mails_are_known_by_file() -> None:
    report = {**REPORT, "file": "r.outcome.eml.gz", "covers": "ab"}
    mailed = {**report, "event": "outcome-mailed"}
    copy = {**archived_event(BOB), "file": "r.eml.gz"}
    merged = record_of(copy, report, mailed)
    assert merged.files == ["r.eml.gz"]
    assert merged.reports == {"r.outcome.eml.gz": "ab"}
    assert merged.mailed == {"r.outcome.eml.gz"}
