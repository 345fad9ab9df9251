"""Tests of the access journal: entries, chunks, requests to the service, history."""

from __future__ import annotations

import grp
import gzip
import json
import os
import pwd
import re
import socket
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.access import (
    access_entry,
    access_journal,
    access_recorder,
    access_service,
    reader_group,
)
from postfix_archive.access.access_entry import Entry, User
from postfix_archive.access.access_service import AccessService
from postfix_archive.cli.main import main
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import AccessNotRecorded, JournalFailed, ReasonMissing
from postfix_archive.search.look_up import Place
from postfix_archive.store import copy_file, verifier
from postfix_archive.system import files

ARCHIVE = "legal@example.com"
IDS = [f"20261130-{number:040x}" for number in range(1201)]
ALICE = User("alice", 1001, "alice")
ENTRY = Entry(ALICE, "show", "", "audit", ())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a store in tmp_path that has one archive."""
    (tmp_path / "store" / ARCHIVE).mkdir(parents=True)
    (tmp_path / "archive.cf").write_text(
        f"archive_store_directory = {tmp_path}/store\n"
        f"archive_access_socket = {tmp_path}/access\n"
        "myhostname = host.example.com\n"
    )
    return archive_cf.load(str(tmp_path))


def test_entries_come_back_in_chunks(settings: Settings) -> None:
    """Long lists of ids are split, none is lost, and verify accepts the lines."""
    store = settings.archive_store_directory
    access_journal.append(store, {ARCHIVE: IDS}, ENTRY)
    found = list(access_journal.entries(store, ARCHIVE))
    assert [len(each.ids) for each in found] == [500, 500, 201]
    assert [one for each in found for one in each.ids] == IDS
    assert {each.user for each in found} == {ALICE}
    assert not verifier.verify_archive(f"{store}/{ARCHIVE}").error_count


def test_search_in_vain_is_recorded(settings: Settings) -> None:
    """An access without ids has an entry too."""
    store = settings.archive_store_directory
    access_journal.append(store, {ARCHIVE: []}, ENTRY._replace(query="secret"))
    [found] = access_journal.entries(store, ARCHIVE)
    assert (found.query, found.ids) == ("secret", ())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(texts, texts, texts, st.integers(0, 2**31))
def test_fields_round_trip(name: str, query: str, reason: str, uid: int) -> None:
    """Whatever a user types is found again."""
    entry = Entry(User(name, uid), "search", query, reason, tuple(IDS[:2]))
    assert access_entry.from_fields(entry.to_fields()) == entry


def test_reason_is_demanded(settings: Settings) -> None:
    """Nothing is read without one, if so configured."""
    settings.archive_require_reason = True
    with pytest.raises(ReasonMissing, match="--reason"):
        access_recorder.AccessRecorder(settings, "show", reason=" ", warn=print)
    access_recorder.AccessRecorder(settings, "show", reason="audit", warn=print)
    for action in access_entry.WITHOUT_REASON:
        access_recorder.AccessRecorder(settings, action, web_user="anna", warn=print)


def test_nothing_is_shown_that_neither_store_nor_log_records(
    settings: Settings, tmp_path: Path
) -> None:
    """A file stands where the journal should be, and there is no main.cf."""
    (tmp_path / "store" / ARCHIVE / "access").write_text("no journal\n")
    recorder = access_recorder.AccessRecorder(settings, "show", warn=print)
    with pytest.raises(AccessNotRecorded, match="neither the store nor"):
        recorder.record({ARCHIVE: IDS[:1]})


def test_each_archive_that_is_searched_has_an_entry(
    settings: Settings, tmp_path: Path
) -> None:
    """One with what was found, the other without; history names the right one."""
    (tmp_path / "store" / "other@example.com").mkdir()
    recorder = access_recorder.AccessRecorder(settings, "search", warn=print)
    hits = [Place(ARCHIVE, each, ()) for each in IDS[:3]]
    found = recorder.before(hits, [ARCHIVE, "other@example.com"])
    assert list(found) == hits
    command = ["-c", str(tmp_path), "history", "--json"]
    lines = CliRunner().invoke(main, command).output.splitlines()
    ids = {each["archive"]: each["ids"] for each in map(json.loads, lines)}
    assert ids == {ARCHIVE: IDS[:3], "other@example.com": []}


def test_an_idle_client_holds_up_nobody(service: Settings) -> None:
    """Others are answered while it says nothing."""
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(service.archive_access_socket)
        access_service.request(service, {ARCHIVE: IDS[:1]}, ENTRY)
    assert list(access_journal.entries(service.archive_store_directory, ARCHIVE))


@pytest.fixture
def service(settings: Settings) -> Iterator[Settings]:
    """A service that appends to the store as this user."""
    settings.archive_reader_group = grp.getgrgid(os.getgid()).gr_name

    def append(ids: Mapping[str, Sequence[str]], entry: Entry) -> None:
        access_journal.append(settings.archive_store_directory, ids, entry)

    def fetch(path: str, _: str) -> Iterator[bytes]:
        yield path.encode()

    with AccessService(lambda: settings, append, lambda *_: "", fetch) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield settings
        finally:
            server.shutdown()
            thread.join()


def test_service_knows_the_client(service: Settings) -> None:
    """The user is the one whom the kernel names, not the one in the request."""
    access_service.request(service, {ARCHIVE: IDS[:1]}, ENTRY)
    [found] = access_journal.entries(service.archive_store_directory, ARCHIVE)
    assert found.user.uid == os.getuid()
    assert found.user.name != "alice" or os.getuid() == ALICE.uid
    assert (found.action, found.reason, found.ids) == ("show", "audit", (IDS[0],))


def test_client_is_told_why_nothing_could_be_recorded(
    service: Settings, tmp_path: Path
) -> None:
    """A file stands where the journal should be; the service goes on."""
    path = tmp_path / "store" / ARCHIVE / "access"
    path.write_text("no journal\n")
    with pytest.raises(AccessNotRecorded, match="access: a journal of store format 1"):
        access_service.request(service, {ARCHIVE: IDS[:1]}, ENTRY)
    path.unlink()
    access_service.request(service, {ARCHIVE: IDS[:1]}, ENTRY)


INVALID = {
    "another archive": {"action": "show", "ids": {"other@example.com": []}},
    "a path": {"action": "show", "ids": {"../x": []}},
    "not an id": {"action": "show", "ids": {ARCHIVE: ["../../etc"]}},
    "no list": {"action": "show", "ids": {ARCHIVE: "x"}},
    "no action": {"ids": {}},
    "a number": {"action": 1, "ids": {}},
    "a copy, by another than archive_web_user": {"copy": f"{ARCHIVE}/x"},
}


@pytest.mark.parametrize("request_fields", INVALID.values(), ids=INVALID)
def test_service_refuses(service: Settings, request_fields: object) -> None:
    """An invalid request is answered and leaves no entry; the service goes on."""
    line = json.dumps(request_fields).encode() + b"\n"
    assert "invalid request" in _ask(service, line)["error"]
    assert not list(access_journal.entries(service.archive_store_directory, ARCHIVE))


COPIES = {
    f"{ARCHIVE}/moved": "",
    f"{ARCHIVE}/whole": "not in the object storage alone",
    f"{ARCHIVE}/removed": "No such file or directory",
    f"{ARCHIVE}/../moved": "must be the name of a file",
    "other@example.com/moved": "no such archive",
    "moved": "no such archive",
    "\ud800": "invalid request",
}


@pytest.mark.parametrize("name", COPIES)
def test_service_gives_only_copies_that_are_in_the_object_storage_alone(
    service: Settings, tmp_path: Path, name: str
) -> None:
    """Not what was removed, of which the bucket may still have an object."""
    service.archive_web_user = access_entry.current_user().name
    directory = tmp_path / "store" / ARCHIVE
    (directory / "moved").write_bytes(copy_file.MOVED_START + b"ab\0")
    (directory / "whole").write_bytes(gzip.compress(b"whole"))
    answer = _ask(service, json.dumps({"copy": name}).encode() + b"\n")
    assert COPIES[name] in answer.get("error", "") and bool(COPIES[name]) == bool(
        answer
    )


@given(st.binary(max_size=200))
def test_service_survives_any_bytes(junk: bytes) -> None:
    """Whatever is not a request is refused by the parser with ValueError."""
    with pytest.raises((ValueError, RecursionError)):
        access_service.parse(junk, ALICE, archive_cf.load("/nonexistent"))


def test_client_names_a_service_that_does_not_run(settings: Settings) -> None:
    """One line with the socket and what to do."""
    with pytest.raises(AccessNotRecorded, match="access-service"):
        access_service.request(settings, {ARCHIVE: []}, ENTRY)


WEB_USERS = [
    ("", "", ""),
    ("no-such-user", "games", "there is no such user"),
    ("root", "root", "it can write the store"),
    (pwd.getpwuid(os.getuid()).pw_name, "games", "it can write the store"),
    ("daemon", "", "archive_reader_group is empty"),
    ("daemon", "games", r"it is not in archive_reader_group \(games\)"),
    ("games", "games", ""),  # of Debian, as all of these
]


@pytest.mark.parametrize(("name", "group", "problem"), WEB_USERS)
def test_the_user_of_the_web_page_must_read_and_not_write(
    settings: Settings, name: str, group: str, problem: str
) -> None:
    settings.archive_web_user, settings.archive_reader_group = name, group
    found = reader_group.web_user_problem(settings)
    assert re.match(problem, found) if problem else not found


def test_history_names_the_candidates_of_an_ambiguous_id(
    settings: Settings, tmp_path: Path
) -> None:
    store = settings.archive_store_directory
    (tmp_path / "store" / "other@example.com").mkdir()
    ids = ["20260101-aa01", "20260101-aa02"]
    access_journal.append(store, {ARCHIVE: ids}, ENTRY)
    access_journal.append(store, {"other@example.com": [ids[0]]}, ENTRY)

    def history(text: str) -> Result:
        return CliRunner().invoke(main, ["-c", str(tmp_path), "history", text])

    error = history("20260101-aa").output
    assert "matches 2 records" in error and ids[0] in error and ids[1] in error
    assert len(history("20260101-aa01").output.splitlines()) == 2  # in both archives


def test_sharing_that_was_stopped_is_not_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made meanwhile can be read by the group."""
    store, group = settings.archive_store_directory, grp.getgrgid(os.getgid()).gr_name
    os.chmod(store, 0o700)

    def stop(*_: object) -> None:
        files.make_directory(f"{store}/new")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reader_group.Sharing, "_change_entries", stop)
        reader_group.share(store, group)
    assert not reader_group.is_shared(store, group)
    assert reader_group.is_shared(f"{store}/new", group)
    assert reader_group.share(store, group) == 1
    assert reader_group.is_shared(store, group)
    assert reader_group.is_shared(f"{store}/{ARCHIVE}", group)


def test_readers_leaves_a_store_of_format_1_alone(
    settings: Settings, tmp_path: Path
) -> None:
    archive = tmp_path / "store" / ARCHIVE
    (archive / "journal").write_text('{"seq":1}\n')
    archive.chmod(0o755)
    result = CliRunner().invoke(main, ["-c", str(tmp_path), "readers"])
    assert result.exit_code == 1 and "store format 1" in result.output
    assert stat.S_IMODE(archive.stat().st_mode) == 0o755
    with pytest.raises(JournalFailed, match="store format 1"):
        next(access_journal.entries(settings.archive_store_directory, ARCHIVE))


def test_history_filters(settings: Settings, tmp_path: Path) -> None:
    """By id, user and time; as lines and as JSON."""
    store = settings.archive_store_directory
    bob = ENTRY._replace(user=User("root", 0, "bob", "bob"), query="from:x")
    access_journal.append(store, {ARCHIVE: IDS[:5]}, ENTRY)
    access_journal.append(store, {ARCHIVE: IDS[4:6]}, bob)

    def lines(*arguments: str) -> list[str]:
        command = ["-c", str(tmp_path), "history", *arguments]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    assert len(lines()) == 2
    assert "and 2 more" in lines(IDS[0])[0]
    assert len(lines(IDS[4])) == 2
    assert "bob as root" in lines("--user", "bob")[0]
    assert json.loads(lines("--json", IDS[5])[0])["query"] == "from:x"
    assert lines("--until", "2001-01-01") == ["No accesses are recorded."]


def _ask(settings: Settings, line: bytes) -> dict[str, str]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(settings.archive_access_socket)
        connection.sendall(line)
        with connection.makefile("rb") as answers:
            answer: dict[str, str] = json.loads(answers.readline())
            return answer
