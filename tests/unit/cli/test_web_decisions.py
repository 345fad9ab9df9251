"""What users of the web page decide: over a real socket, on a real store."""

from __future__ import annotations

import grp
import inspect
import json
import os
import pwd
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from smtp_peer import Peer

from postfix_archive import errors
from postfix_archive.access import access_recorder, access_service, decision, person
from postfix_archive.access.access_entry import Entry, User
from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.access.access_service import AccessService
from postfix_archive.access.decision import Decision
from postfix_archive.access.person import Person
from postfix_archive.cli import web_decisions
from postfix_archive.config.settings import WEB_DECISIONS, Settings
from postfix_archive.errors import (
    AccessNotRecorded,
    AccessServiceFailed,
    ArchiveError,
    DecisionRefused,
    EraseRefused,
    HoldRefused,
    PersonUnknown,
    QueryInvalid,
    RecordHeld,
    RecordNotFound,
    ReplayFailed,
)
from postfix_archive.retention import decision_requests, erasure, holds
from postfix_archive.search import index_service, look_up
from postfix_archive.store import copy_file, journal, verifier

import journal_lines
from sample_store import LEGAL, SampleStore
from unit.retention.stores import CONTRACT, LUNCH, InlineExtractor, index

REASON = "Zoe asked for it"
ALLOWED = "auditor@example.com"
TIMEOUT = 60.0  # seconds, for what takes milliseconds
UNKNOWN_ID = "20990101-" + "0" * 40


class Page(SampleStore):
    """A store, and an access service for which this process is the web page."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.contract = self.add(CONTRACT, recipients=(b"zoe@example.net",))
        self.lunch = self.add(LUNCH)
        index(self)
        self.is_decided = threading.Event()
        self.socket = f"{directory}/access"
        self.set(
            archive_access_socket=self.socket,
            archive_reader_group=grp.getgrgid(os.getgid()).gr_name,
            archive_web_user=pwd.getpwuid(os.getuid()).pw_name,
            archive_web_decisions=" ".join(WEB_DECISIONS),
        )

    def set(self, **values: str) -> None:
        """Append settings to archive.cf; the last ones count."""
        with (self.directory / "archive.cf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in values.items())

    def entries(self) -> list[tuple[str, str, str, list[str]]]:
        """Who did what, why and with which messages, by the access journal."""
        lines = self.run("history", "--json").output.splitlines()
        keys = ("web_user", "action", "reason", "ids")
        return [tuple(each[key] for key in keys) for each in map(json.loads, lines)]

    def ask(self, content: bytes) -> dict[str, str]:
        """Send a request as it is; return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.socket)
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answers:
                answer: dict[str, str] = json.loads(answers.readline())
                return answer

    def events(self) -> list[str]:
        """The decisions in the journal."""
        names = [each["event"] for each in journal_lines.events(self.path / LEGAL)]
        return [each for each in names if each in journal.DECISION_EVENTS]

    def problems(self) -> list[str]:
        """All that verify finds, notes included."""
        return [*map(str, verifier.verify_archive(str(self.path / LEGAL)).findings)]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """The page, with the service running; the page may have all decided."""
    monkeypatch.setattr(index_service, "Extractor", InlineExtractor)
    made = Page(tmp_path / "instance")

    def append(ids: Mapping[str, Sequence[str]], entry: Entry) -> None:
        access_recorder.append_or_log(made.settings, ids, entry, pytest.fail)

    def decide(settings: Settings, one: Decision) -> str:
        try:
            return web_decisions.carry_out(settings, one, pytest.fail)
        finally:
            made.is_decided.set()

    fetch = copy_file.fetch_moved
    with AccessService(lambda: made.settings, append, decide, fetch) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            service.shutdown()
            thread.join()


def test_a_hold_has_the_name_of_who_set_it_on_the_page(page: Page) -> None:
    add_hold(page, "anna", "smith", query="contract", reason="suit")
    decision_requests.release_hold(page.settings, "bert", "smith", reason="settled")
    hold = holds.find(page.settings, "smith")
    assert (hold.query, hold.reason, hold.user.web_user) == ("contract", "suit", "anna")
    assert (hold.user.uid, str(hold.user)) == (os.getuid(), "anna on the web page")
    assert hold.released_by == "bert on the web page"
    assert hold.release_reason == "settled"
    assert page.entries() == [
        ("anna", "hold", "suit", []),
        ("bert", "hold", "settled", []),
    ]
    assert "by anna on the web page" in page.run("hold", "list", "--all").output
    shown = json.loads(page.run("hold", "show", "smith", "--json").output)
    assert shown["web_user"] == "anna"
    assert page.problems() == []


def add_hold(page: Page, web_user: str, name: str, **values: str) -> None:
    decision_requests.add_hold(
        page.settings, web_user, name, query=values["query"], reason=values["reason"]
    )


def test_a_hold_of_ids_covers_these_messages(page: Page) -> None:
    decision_requests.add_hold(
        page.settings, "anna", "two", ids=[page.lunch], archives=[LEGAL], reason="suit"
    )
    ids = [page.contract, page.lunch]
    covering = holds.covering(page.settings, LEGAL, ids)
    assert covering == {page.contract: (), page.lunch: ("two",)}
    assert page.entries() == [("anna", "hold", "suit", [page.lunch])]


def request(page: Page, web_user: str, archive_id: str = "") -> None:
    decision_requests.request_erasure(
        page.settings, web_user, LEGAL, archive_id or page.contract, reason=REASON
    )


def approve(page: Page, web_user: str) -> None:
    decision_requests.approve_erasure(page.settings, web_user, LEGAL, page.contract)


def test_two_people_on_the_page_erase_a_message(page: Page) -> None:
    request(page, "anna")
    [one] = erasure.read(page.settings)
    assert (one.requester, one.reason) == (Person("anna", -1), REASON)
    assert page.problems() == []
    approve(page, "bert")
    assert not page.copy_path(page.contract).exists()
    [event] = [
        e for e in journal_lines.events(page.path / LEGAL) if e["event"] == "erased"
    ]
    assert (event["requested_by"], event["approved_by"]) == ("anna", "bert")
    assert page.problems() == []
    assert page.entries() == [
        ("anna", "erase", "erase request", [page.contract]),
        ("bert", "erase", "erase approve", [page.contract]),
    ]


def test_a_request_is_withdrawn_on_the_page(page: Page) -> None:
    request(page, "anna")
    decision_requests.withdraw_erasure(page.settings, "bert", LEGAL, page.contract)
    assert erasure.read(page.settings) == []
    assert page.events() == ["erase-requested", "erase-withdrawn"]
    assert page.problems() == []


ONE_PERSON = [
    (Person("anna", -1), "anna"),
    (Person("anna", -1), "Anna"),
    (Person("anna", 1001), "anna"),  # by ssh and on the page
    (Person("another-name-of-daemon", 1), "daemon"),
]


@pytest.mark.parametrize(("requester", "approver"), ONE_PERSON)
def test_one_person_cannot_do_both(
    page: Page, requester: Person, approver: str
) -> None:
    place = look_up.find(page.settings, page.contract)
    erasure.request(page.settings, place, REASON, requester, pytest.fail)
    with pytest.raises(EraseRefused, match="another one must approve"):
        approve(page, approver)
    assert page.copy_path(page.contract).exists()


def test_somebody_at_the_host_approves_what_the_page_has_requested(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.set(archive_web_decisions="erase-request")
    request(page, "anna")
    with pytest.raises(DecisionRefused, match="does not have erase-approve"):
        approve(page, "bert")
    bert = Person("bert", 1002)
    monkeypatch.setattr(person, "current", lambda _: bert)
    page.run("erase", "approve", page.contract, "--yes")
    assert page.problems() == []
    assert not page.copy_path(page.contract).exists()


def test_an_erasure_is_not_approved_on_the_page_by_default(tmp_path: Path) -> None:
    allowed = SampleStore(tmp_path).settings.archive_web_decisions
    assert {*WEB_DECISIONS} - {*allowed} == {"erase-approve"}


def test_a_name_that_several_people_use_decides_no_erasure(page: Page) -> None:
    with pytest.raises(PersonUnknown, match="root can be anybody: log in with a name"):
        request(page, "root")
    assert page.events() == []


def test_a_message_goes_to_an_address_that_is_allowed(page: Page) -> None:
    page.set(archive_replay_to=f"other@example.com, {ALLOWED}")
    with Peer(
        lambda *_: "250 2.0.0 Ok: queued as 4ZREPLAY",
        extensions=("8BITMIME", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"),
    ) as peer:
        page.set(archive_handback_address=f"127.0.0.1:{peer.port}")
        queue_id = replay(page, ALLOWED.upper())
    [message] = peer.accepted
    assert (queue_id, message.recipients) == ("4ZREPLAY", [ALLOWED])
    assert message.content.endswith(CONTRACT)
    assert page.entries() == [("anna", "replay", REASON, [page.contract])]


def replay(page: Page, to: str) -> str:
    return decision_requests.replay(
        page.settings, "anna", LEGAL, page.contract, to=to, reason=REASON
    )


@pytest.mark.parametrize("allowed", ["", ALLOWED])
def test_a_message_goes_to_no_other_address(page: Page, allowed: str) -> None:
    page.set(archive_replay_to=allowed)
    with pytest.raises(ReplayFailed, match="archive_replay_to .* does not have"):
        replay(page, "thief@example.net")
    assert page.entries() == []


FAILURES: list[tuple[type[ArchiveError], Callable[[Page], object], str]] = [
    (
        QueryInvalid,
        lambda page: add_hold(page, "a", "x", query="(", reason="r"),
        "query",
    ),
    (
        HoldRefused,
        lambda page: add_hold(page, "a", "x y", query="*", reason="r"),
        "name",
    ),
    (HoldRefused, lambda page: add_hold(page, "a", "x", query=" ", reason="r"), "ids"),
    (RecordNotFound, lambda page: request(page, "anna", UNKNOWN_ID), UNKNOWN_ID),
    (EraseRefused, lambda page: approve(page, "bert"), "nobody has requested"),
]


@pytest.mark.parametrize(("error_class", "decide", "text"), FAILURES)
def test_an_error_is_that_of_the_command(
    page: Page,
    error_class: type[ArchiveError],
    decide: Callable[[Page], object],
    text: str,
) -> None:
    with pytest.raises(error_class, match=text):
        decide(page)
    assert page.events() == []


def test_a_held_message_is_not_erased(page: Page) -> None:
    add_hold(page, "anna", "smith", query="contract", reason="suit")
    with pytest.raises(RecordHeld, match="is held by smith"):
        request(page, "anna")


def test_the_place_of_an_error_in_a_query_comes_back(page: Page) -> None:
    query = "subject:x AND \udce9 date:never"
    with pytest.raises(QueryInvalid) as local:
        holds.add(page.settings, "x", query=query, reason="r")
    with pytest.raises(QueryInvalid) as remote:
        add_hold(page, "anna", "x", query=query, reason="r")
    assert remote.value.args == local.value.args
    assert remote.value.position == local.value.position > 0


def test_every_error_comes_back_as_what_it_is() -> None:
    for error_class in vars(errors).values():
        if isinstance(error_class, type) and issubclass(error_class, ArchiveError):
            arguments: list[str | int] = ["what"]
            if error_class.__init__ is not Exception.__init__:
                names = inspect.signature(error_class).parameters
                arguments = [7 if each == "position" else each for each in names]
            error = error_class(*arguments)
            answer = json.loads(json.dumps(decision.error_fields(error)))
            with pytest.raises(error_class) as raised:
                decision.raise_error(answer)
            assert type(raised.value) is error_class
            assert str(raised.value) == str(error)


@pytest.mark.parametrize("name", ["SystemExit", "dsn", "", "annotations"])
def test_an_answer_makes_no_other_class(name: str) -> None:
    with pytest.raises(AccessServiceFailed, match="what"):
        decision.raise_error({"error": "what", "class": name, "arguments": []})


# --- what the service refuses ---------------------------------------------------------

HOLD = {"decision": "hold-add", "web_user": "anna", "reason": "r", "name": "x"}
ERASE = {"decision": "erase-request", "web_user": "anna", "reason": "r"}
INVALID: dict[str, dict[str, object]] = {
    "nobody at the page": {**HOLD, "query": "*", "web_user": ""},
    "a control character": {**HOLD, "query": "*", "web_user": "anna\n"},
    "a space at the end": {**HOLD, "query": "*", "web_user": "anna "},
    "a long name": {**HOLD, "query": "*", "web_user": "a" * 256},
    "a surrogate": {**HOLD, "query": "*", "web_user": "\udce9"},
    "no text": {**HOLD, "query": "*", "web_user": ["anna"]},
    "no reason": {**HOLD, "query": "*", "reason": " "},
    "a long reason": {**HOLD, "query": "*", "reason": "r" * (64 << 10) + "r"},
    "a long query": {**HOLD, "query": "x" * (64 << 10) + "x"},
    "an unknown decision": {**HOLD, "query": "*", "decision": "purge"},
    "a list as decision": {**HOLD, "query": "*", "decision": ["hold-add"]},
    "the beginning of an id": {**HOLD, "ids": ["2026"]},
    "a path as id": {**HOLD, "ids": ["../../etc/passwd"]},
    "many ids": {**HOLD, "ids": [UNKNOWN_ID] * 10_001},
    "ids as text": {**HOLD, "ids": UNKNOWN_ID},
    "a number as id": {**HOLD, "ids": [1]},
    "another archive": {**HOLD, "query": "*", "archives": ["other@example.com"]},
    "a path as archive": {**HOLD, "query": "*", "archives": ["../store"]},
    "no archive": {**ERASE, "ids": [UNKNOWN_ID]},
    "two messages": {**ERASE, "ids": [UNKNOWN_ID] * 2, "archives": [LEGAL]},
}


def test_an_invalid_decision_is_refused(page: Page) -> None:
    answers = {
        name: page.ask(json.dumps(fields).encode() + b"\n")
        for name, fields in INVALID.items()
    }
    assert [
        name
        for name, answer in answers.items()
        if not answer.get("error", "").startswith("invalid request: ")
    ] == []
    assert page.events() == []
    assert page.entries() == []


def test_a_request_that_was_cut_off_does_nothing(page: Page) -> None:
    whole = json.dumps({**HOLD, "query": "*"}).encode()
    for content in (b"", whole[:-1], whole):
        assert "invalid request" in page.ask(content)["error"]
    assert page.events() == []


@pytest.mark.parametrize("web_user", ["", "daemon", "no-such-user"])
def test_only_the_user_of_the_page_says_who_is_there(page: Page, web_user: str) -> None:
    """Neither for an entry nor for a decision is anybody else believed."""
    page.set(archive_web_user=web_user)
    with pytest.raises(AccessServiceFailed, match="only archive_web_user may say"):
        add_hold(page, "anna", "smith", query="*", reason="suit")
    entry = Entry(User("x", 1, web_user="anna"), "show", "", "", ())
    with pytest.raises(AccessNotRecorded, match="only archive_web_user may say"):
        access_service.request(page.settings, {LEGAL: []}, entry)
    assert page.events() == []
    assert page.entries() == []


def test_an_unknown_name_is_nobodys_account(page: Page) -> None:
    """The page may say so of whoever has no account at the host."""
    entry = Entry(User("x", 1), "status", "", "", ())
    access_service.request(page.settings, {LEGAL: []}, entry)
    for action in ("login", "login-refused"):
        named = Entry(User("x", 1, web_user="Ünal Ö."), action, "", "", ())
        access_service.request(page.settings, {LEGAL: []}, named)
    assert page.entries() == [
        ("", "status", "", []),
        ("Ünal Ö.", "login", "", []),
        ("Ünal Ö.", "login-refused", "", []),
    ]
    lines = page.run("history", "--user", "Ünal Ö.").output.splitlines()
    assert len(lines) == 2
    assert "Ünal Ö. on the web page  login  legal@example.com  no message" in lines[0]


# --- clients and threads --------------------------------------------------------------


def test_a_decision_is_carried_out_for_a_client_that_has_gone(page: Page) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(page.socket)
        fields = {**HOLD, "query": "contract"}
        connection.sendall(json.dumps(fields).encode() + b"\n")
    assert page.is_decided.wait(TIMEOUT)
    assert holds.find(page.settings, "x").is_open
    assert page.problems() == []


def test_a_decision_that_waits_holds_up_nobody(page: Page) -> None:
    """Not the entries of others; it is carried out as soon as the journal is free."""
    with journal.Journal(str(page.path / LEGAL)):
        thread = threading.Thread(
            target=add_hold,
            args=(page, "anna", "smith"),
            kwargs={"query": "*", "reason": "suit"},
        )
        thread.start()
        entry = Entry(User("x", 1, web_user="bert"), "login", "", "", ())
        access_service.request(page.settings, {LEGAL: []}, entry)
        assert page.entries() == [("bert", "login", "", [])]
        assert page.events() == []
    thread.join()
    assert page.events() == ["hold-set"]


def test_several_threads_record(page: Page) -> None:
    """Through one recorder and the service; no entry is lost, the chain is whole."""
    shared = AccessRecorder(page.settings, "show", web_user="shared", warn=pytest.fail)

    def record(number: int) -> None:
        for _ in range(5):
            entry = Entry(User("x", 1, web_user=f"user{number}"), "show", "", "", ())
            access_service.request(page.settings, {LEGAL: [page.lunch]}, entry)
            shared.record({LEGAL: [page.lunch]})

    threads = [threading.Thread(target=record, args=(each,)) for each in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    names = [each[0] for each in page.entries()]
    expected = {"shared": 40} | {f"user{number}": 5 for number in range(8)}
    assert {name: names.count(name) for name in names} == expected
    assert page.problems() == []


def test_a_service_that_does_not_run_is_named(tmp_path: Path) -> None:
    store = Page(tmp_path / "instance")
    with pytest.raises(AccessServiceFailed, match="hold-add was not carried out"):
        add_hold(store, "anna", "smith", query="*", reason="suit")


def test_no_answer_is_no_success(tmp_path: Path) -> None:
    """Such as from a service that is killed meanwhile."""
    store = Page(tmp_path / "instance")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(store.socket)
        listener.listen()

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as requests:
                requests.readline()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(AccessServiceFailed, match="not known whether hold-add"):
            add_hold(store, "anna", "smith", query="*", reason="suit")
        thread.join()
