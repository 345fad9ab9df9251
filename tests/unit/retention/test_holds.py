"""Claims about legal holds: what they cover, and what happens when nobody can know.

On a real store with a real index; every command is the one that people run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.access import access_entry, access_journal
from postfix_archive.access.access_entry import Entry
from postfix_archive.errors import (
    HoldRefused,
    IndexDamaged,
    IndexFailed,
    IndexMissing,
    JournalFailed,
)
from postfix_archive.message import dates
from postfix_archive.retention import holds, removal
from postfix_archive.search import archive_index, look_up, query_syntax
from postfix_archive.search.match import Matcher
from postfix_archive.store import journal, verifier
from postfix_archive.store.outcome import Outcome

import journal_lines
from sample_store import ARRIVAL, LEGAL, SampleStore
from unit.kills import is_killed_at
from unit.retention.stores import CONTRACT, LUNCH, index

HR = "hr@example.com"


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    """A store with an archive and no mail, and with an index."""
    return SampleStore(tmp_path / "instance")


def add(store: SampleStore, *arguments: str, exit_code: int = 0) -> str:
    result = store.run("hold", "add", *arguments, "--reason=suit", exit_code=exit_code)
    return result.output


def covering(store: SampleStore, *ids: str, archive: str = LEGAL) -> list[str]:
    """The names of the holds of each message, with a space between."""
    found = holds.covering(store.settings, archive, ids)
    return [" ".join(found[each]) for each in ids]


def test_a_query_covers_what_it_finds_and_nothing_else(store: SampleStore) -> None:
    contract, lunch = store.add(CONTRACT), store.add(LUNCH)
    index(store)
    output = add(store, "suit-7", "--query=subject:contract")
    assert f"suit-7 is set in {LEGAL}" in output
    assert "covers now: 1." in output
    assert covering(store, contract, lunch) == ["suit-7", ""]
    assert covering(store) == []


def test_a_query_covers_mail_and_archives_that_come_later(store: SampleStore) -> None:
    store.add(LUNCH)
    index(store)
    assert "covers no message now" in add(store, "suit", "--query=subject:contract")
    later = store.add(CONTRACT)
    elsewhere = store.add(CONTRACT, archive=HR)
    index(store)
    assert covering(store, later) == ["suit"]
    assert covering(store, elsewhere, archive=HR) == ["suit"]


def test_a_hold_of_one_archive_covers_no_other(store: SampleStore) -> None:
    ids = [store.add(CONTRACT, archive=each) for each in (LEGAL, HR)]
    index(store)
    add(store, "hr-only", "--query=contract", f"--archive={HR}")
    assert covering(store, ids[0]) == [""]
    assert covering(store, ids[1], archive=HR) == ["hr-only"]
    events = journal_lines.events(store.path / LEGAL)
    assert journal.HOLD_SET not in {each["event"] for each in events}


def test_ids_may_be_prefixes_and_need_no_index(store: SampleStore) -> None:
    contract, lunch = store.add(CONTRACT), store.add(LUNCH)
    add(store, "two", f"--ids={contract[:20]}, {lunch}")
    add(store, "one", "--ids", lunch)
    assert covering(store, contract, lunch) == ["two", "one two"]


def test_a_message_in_two_archives_is_held_in_both(store: SampleStore) -> None:
    first = store.add(CONTRACT)
    shutil.copytree(store.path / LEGAL, store.path / HR)
    add(store, "both", "--ids", first)
    for archive in (LEGAL, HR):
        assert covering(store, first, archive=archive) == ["both"]


def test_overlapping_holds_are_all_named_and_released_one_by_one(
    store: SampleStore,
) -> None:
    contract = store.add(CONTRACT)
    index(store)
    add(store, "a", "--query=contract")
    add(store, "b", "--query=from:anna")
    assert covering(store, contract) == ["a b"]
    for name, left in (("a", "b"), ("b", "")):
        store.run("hold", "release", name, "--reason=settled")
        assert covering(store, contract) == [left]
        index(store)
        assert covering(store, contract) == [left]


def test_a_name_can_be_used_again_after_its_release(store: SampleStore) -> None:
    contract, lunch = store.add(CONTRACT), store.add(LUNCH)
    add(store, "x", "--ids", contract)
    assert "there is a hold x since" in add(store, "x", "--ids", lunch, exit_code=1)
    store.run("hold", "release", "x", "--reason=settled")
    output = store.run("hold", "release", "x", "--reason=again", exit_code=1).output
    assert "the hold x was released" in output
    add(store, "x", "--ids", lunch)
    assert covering(store, contract, lunch) == ["", "x"]


def test_ages_are_those_of_the_day_on_which_it_was_set(store: SampleStore) -> None:
    old = store.add(CONTRACT, arrival=ARRIVAL - 400 * dates.DAY_SECONDS)
    young = store.add(LUNCH, arrival=ARRIVAL)
    index(store)
    set_at = "2026-11-23T00:00:00Z"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("postfix_archive.retention.decisions.now", lambda: set_at)
        add(store, "recent", "--query=newer_than:30d")
        add(store, "ancient", "--query=older_than:1y")
    assert covering(store, old, young) == ["ancient", "recent"]


def test_an_outcome_counts_as_soon_as_the_index_has_it(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    index(store)
    add(store, "bounced", "--query=outcome:failed")
    assert covering(store, contract) == [""]
    failed = Outcome(
        recipient="bob@example.net",
        kind="failed",
        capture_queue_id="4Z0000000001",
        queue_id="4Z0000000002",
        time="2026-11-22T11:54:00Z",
    )
    store.add_outcome(contract, failed)
    with pytest.raises(IndexFailed, match="index --once"):
        covering(store, contract)
    index(store)
    assert covering(store, contract) == ["bounced"]


def test_without_a_current_index_a_query_gives_an_error_and_never_not_held(
    store: SampleStore,
) -> None:
    contract = store.add(CONTRACT)
    with pytest.raises(IndexMissing):
        add(store, "x", "--query=lunch")
        covering(store, contract)
    index(store)
    assert covering(store, contract) == [""]
    new = store.add(LUNCH)
    assert covering(store, contract) == [""]  # the index has all of this one
    with pytest.raises(IndexFailed, match=f"lacks {new}"):
        covering(store, contract, new)
    with pytest.raises(IndexFailed, match="lacks 20261122-0"):
        covering(store, "20261122-" + "0" * 40)
    index(store)
    assert covering(store, contract, new) == ["", "x"]
    [database] = (store.directory / "index" / LEGAL).glob("????.db")
    database.unlink()
    with pytest.raises(IndexFailed, match="missing"):
        covering(store, contract)


@pytest.mark.parametrize("is_indexed", [False, True])
def test_what_was_removed_is_not_held(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch, is_indexed: bool
) -> None:
    contract = store.add(CONTRACT)
    if is_indexed:
        index(store)
    places = look_up.find_all(store.settings, contract)
    store.note_retention(contract)
    removal.remove(store.settings, LEGAL, contract, journal.PURGED, {"rule": "x"})
    # As if it was removed after it was looked up.
    monkeypatch.setattr(look_up, "find_all", lambda *_: places)
    assert "was purged" in add(store, "x", f"--ids={contract}", exit_code=1)
    assert holds.read(store.settings) == []


def test_an_index_state_that_vanishes_hides_nothing(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    index(store)
    matcher = Matcher(store.settings, LEGAL, [contract])
    directory = store.directory / "index" / LEGAL
    (directory / "state.json").unlink()
    assert matcher.matching("subject:contract", ARRIVAL) == {contract}
    archive_index.remove_files(str(directory))
    with pytest.raises(IndexDamaged, match="missing"):
        matcher.matching("subject:contract", ARRIVAL)


def test_an_older_copy_of_a_database_gives_an_error(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    index(store)
    [database] = (store.directory / "index" / LEGAL).glob("????.db")
    shutil.copy(database, store.directory / "old")
    add(store, "x", "--query=queue:4Z0000000009")
    bounced = Outcome(
        recipient="bob@example.net",
        kind="failed",
        capture_queue_id="4Z0000000001",
        queue_id="4Z0000000009",
        time="2026-11-22T11:54:00Z",
    )
    store.add_outcome(contract, bounced)
    index(store)
    assert covering(store, contract) == ["x"]
    for each in database.parent.glob("*.db-*"):
        each.unlink()
    shutil.copy(store.directory / "old", database)
    with pytest.raises(IndexFailed, match="incomplete"):
        covering(store, contract)


@pytest.mark.parametrize("damage", ["struck out", "changed"])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_hold_that_cannot_be_read_gives_an_error(
    store: SampleStore, damage: str, is_indexed: bool
) -> None:
    contract = store.add(CONTRACT)
    add(store, "x", "--ids", contract)
    if is_indexed:
        index(store)
    segment = journal_lines.segment(store.path / LEGAL)
    content = segment.read_bytes()
    if damage == "struck out":
        number = len(content.splitlines()) - 1
        journal_lines.strike_out(segment, number)
    else:
        segment.write_bytes(content.replace(b'"name":"x"', b'"nome":"x"'))
    with pytest.raises(JournalFailed, match="verify"):
        covering(store, contract)


def test_verify_accepts_holds(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    add(store, "x", "--ids", contract)
    add(store, "y", "--query=contract")
    store.run("hold", "release", "x", "--reason=settled")
    result = verifier.verify_archive(f"{store.path}/{LEGAL}")
    assert not result.findings


def test_the_index_built_again_knows_the_holds(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    add(store, "x", "--query=contract")
    store.add(LUNCH)
    index(store)
    shutil.rmtree(store.directory / "index")
    index(store)
    assert covering(store, contract) == ["x"]
    state = store.directory / "index" / LEGAL / "state.json"
    assert len(json.loads(state.read_text())["decisions"]) == 1


@pytest.mark.parametrize("what", ["query", "ids"])
def test_killed_anywhere_it_is_complete_after_the_second_call(
    store: SampleStore, what: str
) -> None:
    first = store.add(CONTRACT)
    second = store.add(CONTRACT, archive=HR)
    index(store)
    states = set()
    for action in (add_hold, release_hold):
        original = store.directory.with_name(f"before {action.__name__}")
        shutil.copytree(store.directory, original)
        values = {"query": "contract"} if what == "query" else {"ids": [first, second]}
        call = functools.partial(action, store, values)
        step = 1
        while is_killed_at(step, call, only_changes=True):
            states.add((action.__name__, held_in_both(store, first, second)))
            with contextlib.suppress(HoldRefused):  # it was complete
                call()
            assert held_in_both(store, first, second) == EXPECTED[action.__name__]
            for archive in (LEGAL, HR):
                assert not verifier.verify_archive(
                    f"{store.path}/{archive}"
                ).error_count
                kinds = [e["event"] for e in journal_lines.events(store.path / archive)]
                assert kinds.count("hold-set") == 1
            step += 1
            shutil.rmtree(store.directory)
            shutil.copytree(original, store.directory)
    # A query holds all at once; ids are in force journal by journal.
    half = "x" if what == "query" else ""
    assert states >= {("add_hold", ("", "")), ("add_hold", (half, "x"))}
    assert ("release_hold", ("x", "x")) in states
    assert ("release_hold", ("x", "")) not in states


def held_in_both(store: SampleStore, first: str, second: str) -> tuple[str, str]:
    [one] = covering(store, first)
    [other] = covering(store, second, archive=HR)
    return one, other


def add_hold(store: SampleStore, what: Mapping[str, Any]) -> None:
    holds.add(store.settings, "x", reason="suit", **what)


def release_hold(store: SampleStore, _: object) -> None:
    entry = Entry(access_entry.current_user(), "hold", "release x", "settled", ())
    access_journal.append(str(store.path), {LEGAL: [], HR: []}, entry)
    holds.release(store.settings, "x", "settled")


EXPECTED = {"add_hold": ("x", "x"), "release_hold": ("", "")}


BAD_INPUT = [
    (["x", "--query=subject:(contract"], 2, "ends too early"),
    (["x", "--query=nosuch:word"], 2, "there is no field nosuch"),
    (["x"], 2, "give --query QUERY, or --ids"),
    (["x", "--query=a", "--ids=b"], 2, "give --query QUERY, or --ids"),
    (["x", "--ids= "], 2, "give --query QUERY, or --ids"),
    (["../x", "--query=a"], 1, "cannot be the name of a hold"),
    (["x" * 65, "--query=a"], 1, "cannot be the name of a hold"),
    (["a b", "--query=a"], 1, "cannot be the name of a hold"),
    (["x", "--query=a", "--archive=none@example.com"], 1, "no archive none@"),
    (["x", "--ids=20990101"], 1, "no record 20990101"),
    (["x", "--ids=2026"], 1, "2026 matches 2 records"),
]


@pytest.mark.parametrize(("arguments", "exit_code", "text"), BAD_INPUT)
def test_bad_input_is_one_clear_error_and_sets_nothing(
    store: SampleStore, arguments: list[str], exit_code: int, text: str
) -> None:
    store.add(CONTRACT)
    store.add(LUNCH)
    assert text in add(store, *arguments, exit_code=exit_code)
    assert holds.read(store.settings) == []


def test_the_place_of_an_error_in_the_query_is_marked(store: SampleStore) -> None:
    store.add(CONTRACT)
    output = add(store, "x", "--query=contract nosuch:a", exit_code=2)
    [query, mark] = output.splitlines()[-2:]
    assert mark.index("^") == query.index("nosuch")


def test_an_empty_reason_and_an_unknown_name_are_refused(store: SampleStore) -> None:
    store.add(CONTRACT)
    command = ["hold", "add", "x", "--query=a", "--reason= "]
    assert "must not be empty" in store.run(*command, exit_code=2).output
    for command in (["hold", "show", "y"], ["hold", "release", "y", "--reason=r"]):
        assert (
            "there is no hold y; there are none"
            in store.run(*command, exit_code=1).output
        )


def test_another_user_sets_no_hold() -> None:
    code = (
        "import os; from postfix_archive.retention import decisions\n"
        "os.setuid(65534)\n"
        "try: decisions.require_writer('/', 'hold add x')\n"
        "except decisions.NotRoot as error: print(error)"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "sudo postfix-archive hold add x" in output.stdout, output.stderr


def test_list_and_show_say_what_is_held_why_and_by_whom(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    index(store)
    assert "There are no holds." in store.run("hold", "list").output
    add(store, "x", "--query=contract")
    add(store, "y", "--ids", contract)
    store.run("hold", "release", "y", "--reason=settled")
    [line] = store.run("hold", "list").output.splitlines()
    assert line.startswith("x  since 20")
    assert "by root" in line and "query='contract'" in line and "reason='suit'" in line
    lines = store.run("hold", "list", "--all").output.splitlines()
    assert "released 20" in lines[1] and "reason='settled'" in lines[1]
    page = store.run("hold", "show", "x").output
    assert "Query:       contract" in page and "Covers:      1 messages" in page
    page = store.run("hold", "show", "y").output
    assert f"Message:     {contract} ({LEGAL})" in page and "Released:" in page
    [fields] = map(json.loads, store.run("hold", "list", "--json").output.splitlines())
    assert (fields["name"], fields["query"], fields["is_open"]) == (
        "x",
        "contract",
        True,
    )
    assert json.loads(store.run("hold", "show", "x", "--json").output)["count"] == 1


def test_show_list_and_search_name_the_holds_of_a_record(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    index(store)
    assert "Held by" not in store.run("show", contract).output
    add(store, "x", "--query=contract")
    add(store, "y", "--ids", contract)
    assert "Held by:     x, y" in store.run("show", contract).output
    assert "(held by x, y)" in store.run("list", "--long").output
    for command in (["show", contract], ["list"], ["search", "contract"]):
        fields = json.loads(store.run(*command[:1], "--json", *command[1:]).output)
        assert fields["holds"] == ["x", "y"], command


def test_who_asks_what_a_hold_covers_is_recorded(store: SampleStore) -> None:
    contract = store.add(CONTRACT)
    index(store)
    add(store, "x", "--query=contract")
    add(store, "y", "--ids", contract)
    store.run("hold", "show", "x", "--reason=audit")
    lines = store.run("history", "--json").output.splitlines()
    entries = [
        (each["action"], each["query"], each["reason"], each["ids"])
        for each in map(json.loads, lines)
    ]
    assert entries == [
        ("hold", "contract", "suit", []),
        ("hold", "y", "suit", [contract]),
        ("hold", "contract", "audit", []),
    ]


def test_a_query_that_an_update_no_longer_reads_gives_an_error(
    store: SampleStore,
) -> None:
    contract = store.add(CONTRACT)
    index(store)
    add(store, "x", "--query=contract")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("postfix_archive.search.query_syntax.LENGTH_LIMIT", 3)
        query_syntax.parse.cache_clear()
        with pytest.raises(HoldRefused, match="the hold x is no query any more"):
            covering(store, contract)
