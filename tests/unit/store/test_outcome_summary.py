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

from unit.examples import ARCHIVE_ID, LEGAL, QUEUE_ID, asked, envelope_of

AT = "2026-11-22T11:54:00Z"
OF = QUEUE_ID.decode()
BOB, EVE, TEAM = "bob@example.com", "eve@example.com", "team@example.com"


def became(recipient: str, kind: str = outcome.DELIVERED, **more: Any) -> Outcome:
    known = {
        "capture_queue_id": OF,
        "queue_id": "4Zother",
        "time": AT,
        "status": "2.0.0",
        **more,
    }
    return Outcome(recipient=recipient, kind=kind, **known)


def captured(*people: str, **known: Any) -> Any:
    """An event that brings these recipients."""
    told = envelope_of(
        recipients=tuple(
            Recipient(e.encode("utf-8", "surrogateescape")) for e in people
        ),
        **known,
    )
    lines = envelope.serialise(told).decode("utf-8", "surrogateescape")
    return {"event": "archived", "id": ARCHIVE_ID, "envelope": lines}


def passed_on(*people: str, copy: int = 0, queue_id: bytes = b"4Zlater") -> Any:
    """The event of a later pass, of the message or of an archive copy of it."""
    request = asked(verdict="valid", stamp_id=ARCHIVE_ID, above=0, copy=copy)
    event = captured(*people, queue_id=queue_id, requests=(request,))
    return {**event, "event": "supplement"}


def event(found: Outcome) -> Any:
    return {"event": journal.OUTCOME, "id": ARCHIVE_ID, **found.event_fields()}


def record_of(*told: Any) -> Record:
    events = [event(each) if isinstance(each, Outcome) else each for each in told]
    return record.merge(LEGAL, events)[ARCHIVE_ID]


def kinds(found: Record) -> list[tuple[int, str, str]]:
    return [
        (each.depth, each.recipient, each.kind)
        for each in found.results.recipient_results()
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
    found = became(
        BOB,
        outcome.EXPANDED,
        expanded_to=tuple(others),
        reply=reply,
        tries=tries,
        remote="mx.example.net[192.0.2.1]:25",
        original='"b o, b"@example.com',
        parent=TEAM,
    )
    assert journal_event.parse_outcome(json.loads(json.dumps(event(found)))) == found
    assert journal_event.is_valid_outcome(event(found))


def test_an_outcome_without_a_queue_id_can_still_be_read_back() -> None:
    bare = Outcome("", "failed", capture_queue_id="", queue_id="", time="")
    assert journal_event.is_valid_outcome(event(bare))
    assert journal_event.parse_outcome(event(bare)) == bare


def test_an_outcome_is_one_line_for_people() -> None:
    assert became(BOB).describe() == f"delivered (2.0.0), {AT}"
    long = became(
        BOB, "failed", status="5.1.1", remote="mx[::1]:25", reply="no", tries=3
    )
    assert long.describe() == f"failed (5.1.1) by mx[::1]:25, {AT}, 3 tries: no"


def test_before_any_outcome_all_is_unknown() -> None:
    found = record_of(captured(BOB, EVE))
    assert kinds(found) == [(0, BOB, "unknown"), (0, EVE, "unknown")]
    assert not found.results.is_settled
    assert found.results.overall_kind == "unknown"
    assert found.results.counts_by_kind == {"unknown": 2}


def test_a_record_is_settled_with_its_last_recipient() -> None:
    first = record_of(captured(BOB, EVE), became(BOB))
    assert (first.results.is_settled, first.results.overall_kind) == (False, "waiting")
    both = record_of(captured(BOB, EVE), became(BOB), became(EVE, "relayed"))
    assert (both.results.is_settled, both.results.overall_kind) == (True, "delivered")
    assert both.results.counts_by_kind == {"delivered": 1, "relayed": 1}


def test_what_waited_is_settled_later_and_never_waits_again() -> None:
    waiting = became(BOB, "waiting", status="4.4.1")
    assert record_of(captured(BOB), waiting).results.overall_kind == "waiting"
    for order in ((waiting, became(BOB)), (became(BOB), waiting)):
        found = record_of(captured(BOB), *order)
        assert kinds(found) == [(0, BOB, "delivered")]
        assert found.results.is_settled


@pytest.mark.parametrize(
    ("one", "two", "word"),
    [
        ("delivered", "relayed", "delivered"),
        ("failed", "expired", "failed"),
        ("discarded", "deleted", "failed"),
        ("failed", "delivered", "mixed"),
        ("delivered", "waiting", "waiting"),
        ("expanded", "failed", "failed"),
        ("expanded", "delivered", "delivered"),
    ],
)
def test_one_word_tells_what_became_of_a_message(one: str, two: str, word: str) -> None:
    found = record_of(captured(BOB, EVE), became(BOB, one), became(EVE, two))
    assert found.results.overall_kind == word


def test_an_expanded_recipient_is_settled_with_all_that_took_its_place() -> None:
    team = became(TEAM, "expanded", expanded_to=(BOB, EVE))
    child = became(BOB, parent=TEAM, original=TEAM)
    half = record_of(captured(TEAM), team, child)
    assert kinds(half) == [
        (0, TEAM, "expanded"),
        (1, BOB, "delivered"),
        (1, EVE, "unknown"),
    ]
    assert not half.results.is_settled
    waits = record_of(captured(TEAM), team, child, became(EVE, "waiting", parent=TEAM))
    assert not waits.results.is_settled
    done = record_of(captured(TEAM), team, child, became(EVE, "failed", parent=TEAM))
    assert done.results.is_settled
    assert done.results.overall_kind == "mixed"


def test_expansions_of_expansions_are_followed_to_their_end() -> None:
    deep = 3000
    names = [f"list{number}@example.com" for number in range(deep)]
    told: list[Outcome] = []
    for above, name in zip(["", *names], names):
        below = names[names.index(name) + 1 :][:1]
        told.append(became(name, "expanded", parent=above, expanded_to=tuple(below)))
    found = record_of(captured(names[0]), *told)
    assert found.results.is_settled
    assert len(found.results.recipient_results()) == deep
    assert not record_of(captured(names[0]), *told[:-1]).results.is_settled


def test_an_alias_that_names_itself_or_one_above_has_an_end() -> None:
    found = record_of(
        captured(TEAM),
        became(TEAM, "expanded", expanded_to=(TEAM, BOB)),
        became(TEAM, parent=TEAM),
        became(BOB, "expanded", parent=TEAM, expanded_to=(TEAM,)),
        became(TEAM, parent=BOB),
    )
    assert found.results.is_settled
    assert [depth for depth, _, _ in kinds(found)] == [0, 1, 1, 2]


def test_a_quoted_recipient_with_space_and_comma_is_one_recipient() -> None:
    odd = '"a b, c"@example.com'
    found = record_of(
        captured(TEAM),
        became(TEAM, "expanded", expanded_to=(odd, BOB)),
        became(odd, parent=TEAM),
        became(BOB, parent=TEAM),
    )
    assert found.results.is_settled


def test_bytes_that_are_no_utf8_find_their_outcome() -> None:
    odd = "latin\udcfc@example.com"
    found = record_of(captured(odd), became(odd))
    assert found.results.is_settled


def test_two_aliases_of_one_mailbox_have_an_outcome_each() -> None:
    people = (Recipient(b"a@x", b"sales@x"), Recipient(b"a@x", b"info@x"))
    both = captured()
    both["envelope"] = envelope.serialise(envelope_of(recipients=people)).decode()
    one = record_of(both, became("a@x", original="sales@x"))
    assert [e.kind for e in one.results.recipient_results()] == ["delivered", "unknown"]
    two = record_of(
        both,
        became("a@x", original="sales@x"),
        became("a@x", "failed", original="info@x"),
    )
    assert two.results.overall_kind == "mixed"


def test_a_later_pass_brings_recipients_to_be_settled() -> None:
    first = (captured(BOB), became(BOB))
    assert record_of(*first).results.is_settled
    more = record_of(*first, passed_on(BOB, EVE))
    assert kinds(more)[0] == (0, BOB, "delivered")
    assert more.results.counts_by_kind == {"delivered": 1, "unknown": 2}
    done = record_of(
        *first,
        passed_on(BOB, EVE),
        became(BOB, capture_queue_id="4Zlater"),
        became(EVE, capture_queue_id="4Zlater"),
    )
    assert done.results.is_settled
    assert done.results.sha256 != record_of(*first).results.sha256


def test_those_who_got_an_archive_copy_do_not_count() -> None:
    """Or a mailed outcome report that is forwarded back would make another one."""
    first = (captured(BOB), became(BOB))
    back = (passed_on(EVE, copy=1), became(EVE, capture_queue_id="4Zlater"))
    assert record_of(*first, *back[:1]).results.is_settled
    found = record_of(*first, *back)
    assert found.results.sha256 == record_of(*first).results.sha256
    assert found.results.counts_by_kind == {"delivered": 1}
    assert kinds(found) == [(0, BOB, "delivered"), (0, EVE, "delivered")]
    assert not record_of(passed_on(EVE, copy=1), *back[1:]).results.is_settled


def test_an_outcome_under_another_queue_id_is_not_lost() -> None:
    """A queue file that was requeued before its capture has two ids."""
    found = record_of(
        captured(BOB), became(BOB, capture_queue_id="4Zrequeued", original="b@x")
    )
    assert kinds(found) == [(0, BOB, "delivered")]
    other = record_of(captured(BOB), passed_on(EVE), became(EVE, capture_queue_id=OF))
    assert other.results.counts_by_kind == {"unknown": 2}


def test_what_is_covered_does_not_depend_on_the_order_of_events() -> None:
    told = [became(BOB), became(EVE, "failed")]
    forth = record_of(captured(BOB, EVE), *told)
    back = record_of(captured(BOB, EVE), *reversed(told))
    assert forth.results.sha256 == back.results.sha256
    again = record_of(captured(BOB, EVE), *told, *told)
    assert again.results.sha256 == forth.results.sha256
    other = record_of(captured(BOB, EVE), told[0], became(EVE, "failed", tries=2))
    assert other.results.sha256 != forth.results.sha256


TIMED = {"time": AT}
REPORT = {
    **TIMED,
    "event": "outcome-report",
    "id": ARCHIVE_ID,
    "file": "a",
    "covers": "",
}


@pytest.mark.parametrize(
    ("said", "sound"),
    [
        ({**TIMED, **event(became(BOB))}, True),
        ({**TIMED, **event(became(BOB)), "recipient": "a\udcfc"}, True),
        ({**TIMED, **event(became(BOB)), "recipient": "a\ud800"}, False),
        ({**TIMED, **event(became(BOB)), "outcome": "lost"}, False),
        ({**TIMED, **event(became(BOB)), "of": 5}, False),
        ({**TIMED, **event(became(BOB)), "tries": True}, False),
        ({**TIMED, **event(became(BOB)), "expanded_to": [BOB]}, False),
        ({**TIMED, **event(became(BOB)), "id": "../x"}, False),
        ({**TIMED, **event(became(BOB)), "envelope": 5}, False),
        (REPORT, True),
        ({**REPORT, "file": "../../etc/shadow"}, False),
        ({**REPORT, "file": None}, False),
        ({**REPORT, "covers": 5}, False),
        ({**REPORT, "event": "outcome-mailed"}, True),
        ({**REPORT, "event": "outcome-mailed", "file": "/etc/shadow"}, False),
    ],
)
def test_only_a_line_as_the_store_writes_it_is_an_event(
    said: dict[str, Any], sound: bool
) -> None:
    assert journal_event.is_valid(said) is sound


def test_reports_and_their_mails_are_known_by_file() -> None:
    report = {**REPORT, "file": "r.outcome.eml.gz", "covers": "ab"}
    mailed = {**report, "event": "outcome-mailed"}
    copy = {**captured(BOB), "file": "r.eml.gz"}
    found = record_of(copy, report, mailed)
    assert found.files == ["r.eml.gz"]
    assert found.reports == {"r.outcome.eml.gz": "ab"}
    assert found.mailed == {"r.outcome.eml.gz"}
