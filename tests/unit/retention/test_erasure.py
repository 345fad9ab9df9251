"""Claims about erasure: two people, nothing left but digests, times and their names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Container
from pathlib import Path

import pytest

from postfix_archive.access import access_entry, access_journal, person
from postfix_archive.access.access_entry import Entry, User
from postfix_archive.access.person import Person
from postfix_archive.errors import (
    EraseRefused,
    PersonUnknown,
    RecordHeld,
    RecordRemoved,
)
from postfix_archive.retention import erasure, holds, removal
from postfix_archive.search import index_service, look_up
from postfix_archive.search.search import Search
from postfix_archive.store import journal, journal_format, journal_reader, verifier

import journal_lines
from sample_store import LEGAL, SampleStore
from unit.kills import is_killed_at
from unit.retention.stores import CONTRACT, LUNCH, InlineExtractor, index

ANNA, BERT = Person("anna", 1001), Person("bert", 1002)
REASON = "Zoe asked for it"
HR = "hr@example.com"
BUCKET = "s3://mail-archive/mx1?endpoint=https://s3.example.com"


@pytest.fixture(autouse=True)
def extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_service, "Extractor", InlineExtractor)


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    """A store with two messages, the index of which is up to date."""
    made = SampleStore(tmp_path / "instance")
    made.add(CONTRACT, recipients=(b"zoe@example.net",))
    made.add(LUNCH)
    index(made)
    return made


@pytest.fixture
def as_person(monkeypatch: pytest.MonkeyPatch) -> Callable[[Person], None]:
    """What makes the commands that follow those of a person."""

    def become(who: Person) -> None:
        monkeypatch.setattr(person, "current", lambda _: who)

    return become


def ids(store: SampleStore) -> list[str]:
    events = journal_lines.events(store.path / LEGAL)
    return [each["id"] for each in events if each["event"] == "archived"]


def kinds(store: SampleStore, archive: str = LEGAL) -> list[str]:
    return [each["event"] for each in journal_lines.events(store.path / archive)]


def request(store: SampleStore, archive_id: str, who: Person = ANNA) -> None:
    place = look_up.find(store.settings, archive_id)
    record_access(store, place.archive_id, "erase request")
    erasure.request(store.settings, place, REASON, who, pytest.fail)


def approve(store: SampleStore, archive_id: str, who: Person = BERT) -> None:
    one = erasure.find(store.settings, archive_id)
    record_access(store, one.archive_id, "erase approve")
    erasure.approve(store.settings, one, who, pytest.fail)


def record_access(store: SampleStore, archive_id: str, step: str) -> None:
    """Do what the command does before."""
    entry = Entry(access_entry.current_user(), "erase", archive_id, step, ())
    access_journal.append(str(store.path), {LEGAL: [archive_id]}, entry)


def record_release(store: SampleStore, name: str) -> None:
    """The same for hold release."""
    entry = Entry(access_entry.current_user(), "hold", f"release {name}", "x", ())
    access_journal.append(str(store.path), {LEGAL: []}, entry)


def problems(store: SampleStore) -> list[str]:
    """All that verify finds, notes included."""
    findings = verifier.verify_archive(str(store.path / LEGAL)).findings
    return [str(each) for each in findings]


def found(store: SampleStore, query: str) -> list[str]:
    return [each.archive_id for each in Search(store.settings, query).hits()]


def journal_text(store: SampleStore) -> bytes:
    segments = journal_lines.segments(store.path / LEGAL)
    return b"".join(each.read_bytes() for each in segments)


def assert_erased(store: SampleStore, archive_id: str) -> None:
    assert not list((store.path / LEGAL).rglob(f"{archive_id}*"))
    assert kinds(store).count("erased") == 1
    [event] = [e for e in journal_lines.events(store.path / LEGAL) if "requested" in e]
    assert (event["id"], event["event"]) == (archive_id, "erased")
    assert (event["requested_by"], event["requested_uid"]) == ("anna", "1001")
    assert (event["approved_by"], event["approved_uid"]) == ("bert", "1002")
    for text in (b"zoe@example.net", REASON.encode()):
        assert text not in journal_text(store)
    assert problems(store) == []
    assert found(store, "contract") == []
    assert erasure.read(store.settings) == []


def test_two_people_erase_a_message(store: SampleStore) -> None:
    contract, lunch = ids(store)
    request(store, contract)
    assert problems(store) == []
    assert found(store, "contract") == [contract]
    [one] = erasure.read(store.settings)
    assert (one.requester, one.reason) == (ANNA, REASON)
    approve(store, contract)
    assert_erased(store, contract)
    assert found(store, "*") == [lunch]
    [one] = erasure.read(store.settings, has_all=True)
    assert (one.requester.name, one.approver, one.reason) == ("anna", "bert", "")


@pytest.mark.parametrize("name", ["anna", "another-name-of-anna"])
def test_one_person_cannot_do_both(store: SampleStore, name: str) -> None:
    contract, _ = ids(store)
    request(store, contract)
    with pytest.raises(EraseRefused, match="another one must approve"):
        approve(store, contract, Person(name, ANNA.uid))
    assert found(store, "contract") == [contract]


IDENTITIES: list[tuple[int, int | None, str, int | None]] = [
    # user id, that of the login, SUDO_UID, the person's
    (0, 1001, "", 1001),
    (0, 1001, "1002", 1001),  # the kernel knows better
    (0, None, "1001", 1001),
    (1001, None, "", 1001),
    (1001, None, "1002", 1001),  # anyone can set a variable
    (89, 1001, "1002", 1001),
    (0, None, "", None),
    (0, 0, "1001", None),  # logged in as root
    (0, None, "0", None),
    (0, None, "anna", None),
    (0, None, "-1", None),
    (0, None, "٣", None),
    (89, None, "1001", None),  # the archive's user
    (0, 89, "", None),
]


@pytest.mark.parametrize(("uid", "login_uid", "sudo_uid", "expected"), IDENTITIES)
def test_who_is_a_person(
    uid: int, login_uid: int | None, sudo_uid: str, expected: int | None
) -> None:
    if expected is None:
        with pytest.raises(PersonUnknown, match="log in with an account of your own"):
            person.identify(uid, login_uid, sudo_uid, {89})
    else:
        assert person.identify(uid, login_uid, sudo_uid, {89}).uid == expected


@pytest.mark.parametrize("what", ["--query=contract", "--ids"])
def test_a_held_message_can_neither_be_requested_nor_approved(
    store: SampleStore, what: str
) -> None:
    contract, _ = ids(store)
    arguments = [what] if "=" in what else [what, contract]
    request(store, contract)
    for name in ("smith", "jones"):
        store.run("hold", "add", name, *arguments, "--reason=suit")
    before = journal_text(store)
    with pytest.raises(RecordHeld, match="jones, smith"):
        approve(store, contract)
    one = erasure.find(store.settings, contract)
    erasure.withdraw(store.settings, one, ANNA)
    with pytest.raises(RecordHeld, match="jones, smith"):
        request(store, contract)
    assert journal_text(store).startswith(before)
    for name in ("smith", "jones"):
        store.run("hold", "release", name, "--reason=settled")
    request(store, contract)
    approve(store, contract)
    assert_erased(store, contract)


def test_a_request_is_made_once_and_can_be_withdrawn(store: SampleStore) -> None:
    contract, lunch = ids(store)
    request(store, contract)
    with pytest.raises(EraseRefused, match="was requested .* by anna"):
        request(store, contract, BERT)
    request(store, lunch)
    assert len(erasure.read(store.settings)) == 2
    one = erasure.find(store.settings, contract)
    erasure.withdraw(store.settings, one, BERT)
    with pytest.raises(EraseRefused, match="nobody has requested"):
        approve(store, contract)
    with pytest.raises(EraseRefused, match="not open any more"):
        erasure.approve(store.settings, one, BERT, pytest.fail)
    assert problems(store) == []
    assert found(store, "contract") == [contract]


def test_a_request_that_is_withdrawn_at_the_last_moment_removes_nothing(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract, _ = ids(store)
    request(store, contract)
    one = erasure.find(store.settings, contract)
    read_lines = removal._read_lines

    def withdrawn_meanwhile(path: str, ids: Container[str]) -> removal.LinesById:
        erasure.withdraw(store.settings, one, ANNA)
        return read_lines(path, ids)

    monkeypatch.setattr(removal, "_read_lines", withdrawn_meanwhile)
    with pytest.raises(EraseRefused, match="not open any more"):
        erasure.approve(store.settings, one, BERT, pytest.fail)
    assert "erased" not in kinds(store)
    assert problems(store) == []
    assert found(store, "contract") == [contract]


def test_what_was_removed_since_it_was_looked_up_is_not_requested(
    store: SampleStore,
) -> None:
    contract, _ = ids(store)
    place = look_up.find(store.settings, contract)
    store.note_retention(contract)
    removal.remove(store.settings, LEGAL, contract, journal.PURGED, {"rule": "x"})
    with pytest.raises(RecordRemoved, match="was purged"):
        erasure.request(store.settings, place, REASON, ANNA, pytest.fail)
    assert erasure.read(store.settings) == []
    assert problems(store) == []


def test_any_id_of_a_message_finds_its_request(store: SampleStore) -> None:
    contract, _ = ids(store)
    request(store, "4Z0000000001")
    for text in ("4Z0000000001", contract, contract[:20]):
        assert erasure.find(store.settings, text).archive_id == contract
    approve(store, "4Z0000000001")
    assert_erased(store, contract)
    assert not erasure.find(store.settings, contract[:20]).is_open


def test_a_message_that_is_archived_again_needs_a_request_of_its_own(
    store: SampleStore,
) -> None:
    contract, _ = ids(store)
    kept = store.path.parent / "kept"
    shutil.copytree(store.path, kept)
    request(store, contract)
    approve(store, contract)
    again = SampleStore(store.directory)
    assert again.add(CONTRACT, recipients=(b"zoe@example.net",)) == contract
    index(store)
    approve(store, contract)  # what a crash may have left of the first one
    assert found(store, "contract") == [contract]
    assert problems(store) == []


def test_a_purge_takes_the_request_with_it(store: SampleStore) -> None:
    contract, _ = ids(store)
    request(store, contract)
    store.note_retention(contract)
    store.note_retention(contract)
    removal.remove(store.settings, LEGAL, contract, journal.PURGED, {"rule": "x"})
    assert erasure.read(store.settings) == []
    assert REASON.encode() not in journal_text(store)
    assert problems(store) == []


@pytest.mark.parametrize("is_indexed", [True, False])
def test_killed_anywhere_it_ends_the_same_when_repeated(
    store: SampleStore, is_indexed: bool
) -> None:
    contract, lunch = ids(store)
    request(store, contract)
    if not is_indexed:
        shutil.rmtree(store.directory / "index")
    original = store.directory.with_name("original")
    shutil.copytree(store.directory, original, symlinks=True)
    step = 1
    while is_killed_at(step, lambda: approve(store, contract), only_changes=True):
        approve(store, contract)
        index(store)
        assert_erased(store, contract)
        assert found(store, "*") == [lunch]
        step += 1
        shutil.rmtree(store.directory)
        shutil.copytree(original, store.directory, symlinks=True)
    assert step > 10


def test_the_commands_say_what_goes_and_what_cannot_be_reached(
    store: SampleStore, as_person: Callable[[Person], None]
) -> None:
    contract, _ = ids(store)
    shutil.copytree(store.path / LEGAL, store.path / HR)
    with journal.Journal(str(store.path / LEGAL)) as journal_file:
        fields = {"id": contract, "capsule": "c" * 64, "queued_as": "4ZMAILED"}
        journal_file.append(journal.MAILED, "2026-11-30T00:00:00Z", **fields)
    for action, name in (("export", "carol"), ("replay", "dan"), ("show", "eve")):
        entry = Entry(User(name, 1003), action, "", "", ())
        access_journal.append(str(store.path), {LEGAL: [contract]}, entry)
    as_person(ANNA)
    command = ["erase", "request", contract[:20], f"--archive={LEGAL}"]
    output = store.run(*command, f"--reason={REASON}").output
    assert f"anna requests that {contract} is erased from {LEGAL}" in output
    output = store.run("erase", "approve", contract, "--yes", exit_code=1).output
    assert "anna has requested this" in output
    assert f"by anna  reason={REASON!r}" in store.run("erase", "list").output
    as_person(BERT)
    with (store.directory / "archive.cf").open("a") as file:
        file.write(f"archive_object_store = {BUCKET}\n")
    ask = store.run("erase", "approve", contract, exit_code=1)
    assert "Erase it?" in ask.output and "Aborted" in ask.output
    output = store.run("erase", "approve", contract, "--yes").output
    for text in (
        f"by anna, reason: {REASON}",
        "export 20",
        "by carol",
        "replay 20",
        "by dan",
        f"mailed to {LEGAL}, queue ids 4ZMAILED",
        f"{HR} has it too",
        "backups of the store",
        f"{BUCKET}: the copy goes as soon as its lock (governance)",
        f"{contract} is erased from {LEGAL}.",
    ):
        assert text in output
    assert "eve" not in output
    assert "There are no requests." in store.run("erase", "list").output
    line = store.run("erase", "list", "--all").output
    assert "by anna  erased 20" in line and "by bert" in line
    [fields] = [json.loads(store.run("erase", "list", "--all", "--json").output)]
    assert (fields["requested_by"], fields["approved_by"]) == ("anna", "bert")
    assert_erased(store, contract)
    for command in (["show", contract], ["erase", "request", contract, "--reason=x"]):
        text = store.run(*command, f"--archive={LEGAL}", exit_code=1).output
        assert f"{contract} was erased" in text


def test_the_reason_is_in_no_access_journal(
    store: SampleStore, as_person: Callable[[Person], None]
) -> None:
    contract, _ = ids(store)
    as_person(ANNA)
    store.run("erase", "request", contract, f"--reason={REASON}")
    as_person(BERT)
    store.run("erase", "approve", contract, "--yes")
    output = store.run("erase", "approve", contract, "--yes").output
    assert "nothing of it is left" in output
    lines = store.run("history", "--json").output.splitlines()
    entries = [(e["action"], e["reason"], e["ids"]) for e in map(json.loads, lines)]
    assert entries == [
        ("erase", "erase request", [contract]),
        ("erase", "erase approve", [contract]),
    ]


BAD_INPUT = [
    (["request", "2099", "--reason=x"], 1, "no record 2099"),
    (["request", "2026", "--reason=x"], 1, "2026 matches 2 records"),
    (["request", "2026", "--reason= "], 2, "must not be empty"),
    (["approve", "2099"], 1, "no record 2099"),
    (["approve", "2026"], 1, "2026 matches 2 records"),
    (["withdraw", "2099"], 1, "no record 2099"),
]


@pytest.mark.parametrize(("arguments", "exit_code", "text"), BAD_INPUT)
def test_bad_input_is_one_clear_error_and_changes_nothing(
    store: SampleStore,
    as_person: Callable[[Person], None],
    arguments: list[str],
    exit_code: int,
    text: str,
) -> None:
    as_person(ANNA)
    before = journal_text(store)
    assert text in store.run("erase", *arguments, exit_code=exit_code).output
    assert journal_text(store) == before


def test_an_index_that_is_built_again_in_part_tells_the_same(
    store: SampleStore,
) -> None:
    contract, lunch = ids(store)
    request(store, contract)
    approve(store, contract)
    request(store, lunch)
    store.run("hold", "add", "x", "--ids", lunch, "--reason=suit")
    index(store)
    expected = erasure.read(store.settings, has_all=True), holds.read(store.settings)
    assert [len(each) for each in expected] == [2, 1]
    path = store.directory / "index" / LEGAL / "state.json"
    state = json.loads(path.read_text())
    assert len(state["decisions"]) == 4
    for line in journal_reader.lines(f"{store.path}/{LEGAL}/journal"):
        state["position"], state["line_start"] = line.end, line.offset
        state["line_sha256"] = journal_format.line_sha256(line.content)
        path.write_text(json.dumps(state))
        found_again = erasure.read(store.settings, has_all=True)
        assert (found_again, holds.read(store.settings)) == expected


def test_show_names_the_request(store: SampleStore) -> None:
    contract, _ = ids(store)
    request(store, contract)
    assert "erase-requested by anna" in store.run("show", contract).output


# --- what verify finds ----------------------------------------------------------------

TWO = {
    "requested_by": "anna",
    "requested_uid": "1001",
    "requested": "2026-11-30T00:00:00Z",
    "approved_by": "bert",
    "approved_uid": "1002",
}
ONE = TWO | {"approved_by": "anna", "approved_uid": "1001"}
FORGED = [
    ([], TWO, "which no earlier line requests"),
    (["request"], TWO | {"approved_by": ""}, "two people are not named"),
    (["request"], ONE, "requested and approved by anna"),
    (["request"], TWO | {"approved_uid": "1001"}, "requested and approved by bert"),
    (["request"], TWO | {"requested_uid": "7"}, "by another request than that of seq"),
    (["request"], TWO | {"request": "2"}, "by another request than that of seq"),
    (["request", "withdraw"], TWO, "which no earlier line requests"),
    (["hold", "request"], TWO, "which smith holds"),
    (["withdraw", "request"], TWO, "withdraws a request"),
    (["release", "request"], TWO, "releases the hold smith, which is not set"),
]


@pytest.mark.parametrize(("steps", "details", "problem"), FORGED)
def test_verify_finds_an_erasure_that_two_people_did_not_decide(
    store: SampleStore, steps: list[str], details: dict[str, str], problem: str
) -> None:
    contract, _ = ids(store)
    time = "2026-11-30T00:00:00Z"
    why: dict[str, str | int] = {"name": "smith", "set": time, "reason": "suit"}
    who: dict[str, str | int] = {"person": "anna", "person_uid": 1001}
    known: dict[str, tuple[str, dict[str, str | int]]] = {
        "request": (journal.ERASE_REQUESTED, {"id": contract, "reason": "x", **who}),
        "withdraw": (journal.ERASE_WITHDRAWN, {"id": contract, **who}),
        "hold": (journal.HOLD_SET, {**why, "ids": contract, "user": "root", "uid": 0}),
        "release": (journal.HOLD_RELEASED, {**why, "user": "root", "uid": 0}),
    }
    with journal.Journal(str(store.path / LEGAL)) as journal_file:
        journal_file.extend(time, [known[each] for each in steps])
        number = len(journal_lines.events(store.path / LEGAL)) + 1  # with "segment"
        fields = {"id": contract, "request": str(number), **details}
        journal_file.append(journal.ERASED, time, **fields)
    record_access(store, contract, "erase request")
    record_access(store, contract, "erase approve")
    record_release(store, "smith")
    found_errors = [each for each in problems(store) if each.startswith("ERROR")]
    assert len(found_errors) == 1, found_errors
    assert problem in found_errors[0]


def test_verify_finds_decisions_that_the_access_journal_does_not_have(
    store: SampleStore,
) -> None:
    """Each one of its own: earlier ones of the same message and hold are recorded."""
    contract, lunch = ids(store)
    request(store, contract)
    assert problems(store) == []
    time = "2026-11-30T00:00:00Z"
    hold = {"name": "smith", "set": time, "reason": "suit", "ids": lunch}
    release = {"name": "smith", "set": time, "reason": "settled"}
    number = str(erasure.find(store.settings, contract).number)
    with journal.Journal(str(store.path / LEGAL)) as journal_file:
        for _ in range(2):
            journal_file.append(journal.HOLD_SET, time, **hold)
            journal_file.append(journal.HOLD_RELEASED, time, **release)
    record_release(store, "smith")
    [error] = problems(store)
    assert "release smith: the access journal does not have who" in error
    with journal.Journal(str(store.path / LEGAL)) as journal_file:
        fields = {"id": contract, "request": number, **TWO}
        journal_file.append(journal.ERASED, time, **fields)
    errors = [each for each in problems(store) if each.startswith("ERROR")]
    assert f"erase approve {contract}: the access journal" in errors[-1]
    assert len(errors) == 2
    record_access(store, lunch, "erase approve")
    record_release(store, "jones")
    assert len([e for e in problems(store) if e.startswith("ERROR")]) == 2
