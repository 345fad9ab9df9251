"""Claims about settling: one report for each state that is final, mailed once.

A run that is killed is made by an error between two steps. The port is a small server.
"""

from __future__ import annotations

import email
import gzip
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.config.settings import Settings
from postfix_archive.errors import PostfixUnreachable, StoreFailed
from postfix_archive.message import stamp
from postfix_archive.outcomes import report_queue
from postfix_archive.outcomes.follower_state import FollowerState
from postfix_archive.outcomes.report_queue import ReportQueue
from postfix_archive.postfix import smtp_client
from postfix_archive.store import copy_file, journal, record_reader, verifier
from postfix_archive.store.archive import Archive
from postfix_archive.system import files

from unit import examples
from unit.examples import ARCHIVE_ID, KEYS, LEGAL, NOW, make_request, make_settings
from unit.store.test_archive import (
    NAME,
    REPORT_NAME,
    SECOND_NAME,
    Capture,
    kinds,
    record,
)
from unit.store.test_outcome_summary import make_outcome

TIME = "2026-11-22T11:55:00Z"
BOB = "bob@example.com"
OTHER_ID = "20261122-" + "0" * 40


class Port(socketserver.TCPServer):
    """An internal port of Postfix that takes every message and keeps its bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.messages: list[bytes] = []
        self.senders: list[bytes] = []

    @property
    def number(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


class Session(socketserver.StreamRequestHandler):
    """One SMTP session on it."""

    server: Port

    def handle(self) -> None:
        """Say yes to everything."""
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            if line.startswith(b"QUIT"):
                return
            if line.startswith(b"MAIL"):
                self.server.senders.append(line)
            if line.startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.messages.append(content)
                self.wfile.write(b"250 2.0.0 Ok: queued as 4Zmail\r\n")
                continue
            self.wfile.write(b"250 8BITMIME\r\n")


@pytest.fixture
def port() -> Iterator[Port]:
    """Such a port, in a thread of its own."""
    with Port() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class StoreWithMessage:
    """A store with one message, and the settings of its host."""

    def __init__(self, directory: Path, port: Port | None, **overrides: Any) -> None:
        self.directory = directory
        Capture(**overrides).store_in(directory)
        self.archive = Archive(str(directory), LEGAL)
        text = f"archive_store_directory = {directory}\n"
        if port:
            text += f"archive_copy_address = 127.0.0.1:{port.number}\n"
            text += "archive_outcome_mail = yes\n"
        self.settings: Settings = make_settings(text)

    def record_outcomes(self, *outcomes: Any, archive_id: str = ARCHIVE_ID) -> None:
        """Append outcomes."""
        self.archive.record_outcomes([(archive_id, each) for each in outcomes], TIME)

    def store_and_mail(self) -> str:
        """Settle the record as the journal has it."""
        store_record = record(self.directory)
        return report_queue.store_and_mail(
            self.settings, KEYS, LEGAL, store_record, NOW
        )

    @property
    def reports(self) -> list[str]:
        """The files of outcome reports."""
        paths = (self.directory / LEGAL).rglob("*.outcome*.eml.gz")
        return sorted(str(each.relative_to(self.directory / LEGAL)) for each in paths)

    @property
    def is_sound(self) -> bool:
        """What verify says."""
        return not verifier.verify_archive(str(self.directory / LEGAL)).findings


def test_nothing_is_reported_before_all_is_settled(tmp_path: Path) -> None:
    store = StoreWithMessage(tmp_path, None)
    assert store.store_and_mail() == ""
    store.record_outcomes(make_outcome(BOB, "waiting"))
    assert store.store_and_mail() == ""
    assert store.reports == []


def test_the_report_is_stored_once_all_is_settled(tmp_path: Path) -> None:
    store = StoreWithMessage(tmp_path, None)
    store.record_outcomes(make_outcome(BOB))
    assert store.store_and_mail() == f"{ARCHIVE_ID}: outcome report stored"
    assert store.store_and_mail() == ""
    assert store.reports == [REPORT_NAME]
    assert kinds(tmp_path) == ["archived", "outcome", "outcome-report"]
    store_record = record(tmp_path)
    content = b"".join(record_reader.outcome_report(str(tmp_path), store_record))
    report = email.message_from_bytes(content)
    assert report["Subject"] == "Outcome: the contract"
    assert report["Archive-Outcomes"] is None
    assert store_record.reports == {REPORT_NAME: store_record.results.sha256}
    assert store.is_sound


def test_what_changes_later_is_a_report_of_its_own(tmp_path: Path) -> None:
    store = StoreWithMessage(tmp_path, None)
    store.record_outcomes(make_outcome(BOB))
    store.store_and_mail()
    capture = Capture(
        b"eve@example.com", request=make_request(verdict="valid", stamp_id=ARCHIVE_ID)
    )
    store.archive.add_supplement(capture.capture, TIME)
    assert store.store_and_mail() == ""
    store.record_outcomes(make_outcome("eve@example.com", "failed"))
    assert "stored" in store.store_and_mail()
    assert store.reports == [SECOND_NAME, REPORT_NAME]
    latest = b"".join(record_reader.outcome_report(str(tmp_path), record(tmp_path)))
    assert b"\r\nAction: failed\r\n" in latest
    assert store.is_sound


def test_the_report_is_mailed_once_with_the_stamp_of_a_copy(
    tmp_path: Path, port: Port
) -> None:
    store = StoreWithMessage(tmp_path, port)
    store.record_outcomes(make_outcome(BOB))
    assert store.store_and_mail().endswith("report stored; mailed, queued as 4Zmail")
    assert store.store_and_mail() == ""
    assert kinds(tmp_path)[-2:] == ["outcome-report", "outcome-mailed"]
    [mail] = port.messages
    assert port.senders[0].startswith(b"MAIL FROM:<>")
    stored = gzip.decompress((tmp_path / LEGAL / REPORT_NAME).read_bytes())
    assert mail.endswith(stored)
    stamps = stamp.find(mail, KEYS)
    digests = examples.digests(mail, stamps.content_offsets)
    verdict = stamp.verify(stamps, LEGAL, digests, KEYS)
    assert (verdict.result, verdict.generation) == (stamp.VALID, 1)
    assert verdict.stamp and verdict.stamp.archive_id == ARCHIVE_ID
    assert store.is_sound


def test_a_report_stored_before_is_mailed_when_the_port_answers(
    tmp_path: Path, port: Port
) -> None:
    store = StoreWithMessage(tmp_path, port)
    store.record_outcomes(make_outcome(BOB))
    answers = store.settings.archive_copy_address
    store.settings.archive_copy_address = ("127.0.0.1", 1)
    with pytest.raises(PostfixUnreachable):
        store.store_and_mail()
    assert store.reports == [REPORT_NAME]
    store.settings.archive_copy_address = answers
    assert "already stored; mailed" in store.store_and_mail()
    assert store.store_and_mail() == ""
    assert len(port.messages) == 1
    assert kinds(tmp_path).count("outcome-report") == 1


class Killed(BaseException):
    """A run of which nothing is left but the files."""


STEPS = [
    (files.Draft, "publish", 0),
    (files.Draft, "publish", 1),
    (journal.Journal, "extend", 0),
    (journal.Journal, "extend", 1),
    (copy_file, "mark_committed", 0),
    (copy_file, "mark_committed", 1),
    (smtp_client, "submit", 0),
    (smtp_client, "submit", 1),
    (Archive, "record_report_mailed", 0),
    (Archive, "record_report_mailed", 1),
]


@pytest.mark.parametrize(("module", "function_name", "calls_before"), STEPS)
def test_a_run_that_is_killed_anywhere_is_made_good_by_the_next(
    tmp_path: Path,
    port: Port,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    function_name: str,
    calls_before: int,
) -> None:
    """Killed before (0) or behind (1) each step."""
    store = StoreWithMessage(tmp_path, port)
    store.record_outcomes(make_outcome(BOB))
    step = getattr(module, function_name)

    def killed(*arguments: Any, **keywords: Any) -> None:
        if calls_before:
            step(*arguments, **keywords)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, function_name, killed)
        with pytest.raises(Killed):
            store.store_and_mail()
    store.store_and_mail()
    assert store.store_and_mail() == ""
    assert store.reports == [REPORT_NAME]
    assert kinds(tmp_path)[2:] == ["outcome-report", "outcome-mailed"]
    assert store.is_sound
    is_mailed_twice = (function_name, calls_before) in (
        ("submit", 1),
        ("record_report_mailed", 0),
    )
    assert len(port.messages) == 1 + is_mailed_twice
    ids = {email.message_from_bytes(each)["Message-Id"] for each in port.messages}
    assert len(ids) == 1


def test_two_that_settle_at_once_keep_one_report(tmp_path: Path) -> None:
    store = StoreWithMessage(tmp_path, None)
    store.record_outcomes(make_outcome(BOB))
    store_record = record(tmp_path)
    for _ in range(2):
        report_queue.store_and_mail(store.settings, KEYS, LEGAL, store_record, NOW)
    assert store.reports == [REPORT_NAME]
    assert kinds(tmp_path).count("outcome-report") == 1


def test_the_record_of_an_archive_copy_sends_no_report(
    tmp_path: Path, port: Port
) -> None:
    """A copy that came back altered is kept in full: it must not start a loop."""
    store = StoreWithMessage(
        tmp_path, port, request=make_request(verdict="altered", generation=1)
    )
    store.record_outcomes(make_outcome(BOB))
    assert store.store_and_mail() == f"{ARCHIVE_ID}: outcome report stored"
    assert port.messages == []


def test_a_long_header_is_in_the_report_completely(tmp_path: Path) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 900) for n in range(200))
    store = StoreWithMessage(
        tmp_path, None, message=b"Subject: x\r\n" + lines + b"\r\nbody\r\n"
    )
    store.record_outcomes(make_outcome(BOB))
    store.store_and_mail()
    content = b"".join(record_reader.outcome_report(str(tmp_path), record(tmp_path)))
    assert lines in content
    assert b"body" not in content.rpartition(b"X-199")[2]


def key_file(directory: Path) -> str:
    path = directory / "archive.key"
    path.touch(0o600)
    path.write_text(f"k2026 {bytes(range(32)).hex()}\n")
    return str(path)


def damage(path: Path, text: bytes, byte: bytes) -> None:
    """Replace the byte behind a text in a file."""
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    position = content.index(text) + len(text)
    content[position : position + 1] = byte
    path.write_bytes(content)


DAMAGED = {
    "the first line": ("journal/2026-11", b'"envelope":"', b"\0"),
    "the envelope in it": ("journal/2026-11", b'"envelope":"Repor', b"x"),
    "the line of an outcome": ("journal/2026-11", b'"recipient":"', b"\0"),
    "the copy": (NAME, b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\xff"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_the_report_of_a_damaged_record_is_stored_after_its_repair(
    tmp_path: Path, name: str
) -> None:
    """It delays no other."""
    store = StoreWithMessage(tmp_path / "store", None)
    store.record_outcomes(make_outcome(BOB))
    Capture(archive_id=OTHER_ID).store_in(store.directory)
    store.record_outcomes(make_outcome(BOB), archive_id=OTHER_ID)
    settings, (path, *place) = store.settings, DAMAGED[name]
    settings.archive_key_file = key_file(tmp_path)
    file = store.directory / LEGAL / path
    whole = file.read_bytes()
    with closing(FollowerState(str(tmp_path))) as state:
        for archive_id in (ARCHIVE_ID, OTHER_ID):
            state._execute("INSERT INTO due VALUES (?, ?)", LEGAL, archive_id)
        damage(file, *place)
        queue = ReportQueue(settings, state)
        for now in (NOW, NOW + 60, NOW + 3600):
            queue.process(now)
            [warning] = queue.damage_warnings
            assert warning.startswith("outcome report delayed: ")
            assert [*state.due_reports()] == [(LEGAL, ARCHIVE_ID)]
        [report] = store.reports
        assert OTHER_ID in report
        file.write_bytes(whole)
        queue.process(NOW + 7200)
        assert not state.has_due_reports()
    assert len(store.reports) == 2


def test_a_report_without_a_record_is_named(tmp_path: Path) -> None:
    store = StoreWithMessage(tmp_path / "store", None)
    store.settings.archive_key_file = key_file(tmp_path)
    with closing(FollowerState(str(tmp_path))) as state:
        state._execute("INSERT INTO due VALUES (?, ?)", LEGAL, OTHER_ID)
        queue = ReportQueue(store.settings, state)
        queue.process(NOW)
        [warning] = queue.damage_warnings
        assert warning.startswith(f"no outcome report: no record {OTHER_ID}")
        assert not state.has_due_reports()


def test_a_lost_copy_is_named(tmp_path: Path) -> None:
    store = StoreWithMessage(tmp_path, None)
    store.record_outcomes(make_outcome(BOB))
    (tmp_path / LEGAL / NAME).unlink()
    with pytest.raises(StoreFailed, match="No such file"):
        store.store_and_mail()
