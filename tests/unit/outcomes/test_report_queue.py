"""Claims about settling: one report for each state that is final, mailed once.

A run that is killed is made by an error between two steps. The port is a small server.
"""

from __future__ import annotations

import email
import gzip
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.config.settings import Settings
from postfix_archive.errors import PostfixUnreachable, StoreFailed
from postfix_archive.message import stamp
from postfix_archive.outcomes import report_queue
from postfix_archive.postfix import smtp_client
from postfix_archive.store import copy_file, journal, record_reader, verifier
from postfix_archive.store.archive import Archive
from postfix_archive.system import files

from unit import examples
from unit.examples import ARCHIVE_ID, KEYS, LEGAL, NOW, asked, set_up
from unit.store.test_archive import (
    NAME,
    REPORT_NAME,
    SECOND_NAME,
    Capture,
    kinds,
    record,
)
from unit.store.test_outcome_summary import became

TIME = "2026-11-22T11:55:00Z"
BOB = "bob@example.com"


class Port(socketserver.TCPServer):
    """An internal port of Postfix that takes every message and keeps its bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.taken: list[bytes] = []
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
                self.server.taken.append(content)
                self.wfile.write(b"250 2.0.0 Ok: queued as 4Zmail\r\n")
                continue
            self.wfile.write(b"250 8BITMIME\r\n")


@pytest.fixture
def port() -> Iterator[Port]:
    """Such a port, in a thread of its own."""
    with Port() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


class Place:
    """A store with one message, and the settings of its host."""

    def __init__(self, folder: Path, port: Port | None, **known: Any) -> None:
        self.folder = folder
        Capture(**known).kept_in(folder)
        self.archive = Archive(str(folder), LEGAL)
        text = f"archive_store_directory = {folder}\n"
        if port:
            text += f"archive_copy_address = 127.0.0.1:{port.number}\n"
            text += "archive_outcome_mail = yes\n"
        self.settings: Settings = set_up(text)

    def became(self, *told: Any, archive_id: str = ARCHIVE_ID) -> None:
        """Append outcomes."""
        self.archive.record_outcomes([(archive_id, each) for each in told], TIME)

    def settle(self) -> str:
        """Settle the record as the journal has it."""
        kept = record(self.folder)
        return report_queue.store_and_mail(self.settings, KEYS, LEGAL, kept, NOW)

    @property
    def reports(self) -> list[str]:
        """The files of outcome reports."""
        found = (self.folder / LEGAL).rglob("*.outcome*.eml.gz")
        return sorted(str(each.relative_to(self.folder / LEGAL)) for each in found)

    @property
    def is_sound(self) -> bool:
        """What verify says."""
        return not verifier.verify_archive(str(self.folder / LEGAL)).findings


def test_nothing_is_reported_before_all_is_settled(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    assert place.settle() == ""
    place.became(became(BOB, "waiting"))
    assert place.settle() == ""
    assert place.reports == []


def test_the_report_is_kept_once_all_is_settled(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    place.became(became(BOB))
    assert place.settle() == f"{ARCHIVE_ID}: outcome report stored"
    assert place.settle() == ""
    assert place.reports == [REPORT_NAME]
    assert kinds(tmp_path) == ["archived", "outcome", "outcome-report"]
    kept = record(tmp_path)
    content = b"".join(record_reader.outcome_report(str(tmp_path), kept))
    told = email.message_from_bytes(content)
    assert told["Subject"] == "Outcome: the contract"
    assert told["Archive-Outcomes"] is None
    assert kept.reports == {REPORT_NAME: kept.results.sha256}
    assert place.is_sound


def test_what_changes_later_is_a_report_of_its_own(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    place.became(became(BOB))
    place.settle()
    capture = Capture(
        b"eve@example.com", request=asked(verdict="valid", stamp_id=ARCHIVE_ID)
    )
    place.archive.add_supplement(capture.piece, TIME)
    assert place.settle() == ""
    place.became(became("eve@example.com", "failed"))
    assert "stored" in place.settle()
    assert place.reports == [SECOND_NAME, REPORT_NAME]
    latest = b"".join(record_reader.outcome_report(str(tmp_path), record(tmp_path)))
    assert b"\r\nAction: failed\r\n" in latest
    assert place.is_sound


def test_the_report_is_mailed_once_with_the_stamp_of_a_copy(
    tmp_path: Path, port: Port
) -> None:
    place = Place(tmp_path, port)
    place.became(became(BOB))
    assert place.settle().endswith("report stored; mailed, queued as 4Zmail")
    assert place.settle() == ""
    assert kinds(tmp_path)[-2:] == ["outcome-report", "outcome-mailed"]
    [mail] = port.taken
    assert port.senders[0].startswith(b"MAIL FROM:<>")
    stored = gzip.decompress((tmp_path / LEGAL / REPORT_NAME).read_bytes())
    assert mail.endswith(stored)
    found = stamp.find(mail, KEYS)
    digests = examples.digests(mail, found.content_offsets)
    verdict = stamp.verify(found, LEGAL, digests, KEYS)
    assert (verdict.result, verdict.generation) == (stamp.VALID, 1)
    assert verdict.stamp and verdict.stamp.archive_id == ARCHIVE_ID
    assert place.is_sound


def test_a_report_stored_before_is_mailed_when_the_port_answers(
    tmp_path: Path, port: Port
) -> None:
    place = Place(tmp_path, port)
    place.became(became(BOB))
    answers = place.settings.archive_copy_address
    place.settings.archive_copy_address = ("127.0.0.1", 1)
    with pytest.raises(PostfixUnreachable):
        place.settle()
    assert place.reports == [REPORT_NAME]
    place.settings.archive_copy_address = answers
    assert "already stored; mailed" in place.settle()
    assert place.settle() == ""
    assert len(port.taken) == 1
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


@pytest.mark.parametrize(("where", "what", "done"), STEPS)
def test_a_run_that_is_killed_anywhere_is_made_good_by_the_next(
    tmp_path: Path,
    port: Port,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    what: str,
    done: int,
) -> None:
    """Killed before (0) or behind (1) each step."""
    place = Place(tmp_path, port)
    place.became(became(BOB))
    step = getattr(where, what)

    def killed(*words: Any, **more: Any) -> None:
        if done:
            step(*words, **more)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(where, what, killed)
        with pytest.raises(Killed):
            place.settle()
    place.settle()
    assert place.settle() == ""
    assert place.reports == [REPORT_NAME]
    assert kinds(tmp_path)[2:] == ["outcome-report", "outcome-mailed"]
    assert place.is_sound
    twice = (what, done) in (("submit", 1), ("record_report_mailed", 0))
    assert len(port.taken) == 1 + twice
    ids = {email.message_from_bytes(each)["Message-Id"] for each in port.taken}
    assert len(ids) == 1


def test_two_that_settle_at_once_keep_one_report(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    place.became(became(BOB))
    kept = record(tmp_path)
    for _ in range(2):
        report_queue.store_and_mail(place.settings, KEYS, LEGAL, kept, NOW)
    assert place.reports == [REPORT_NAME]
    assert kinds(tmp_path).count("outcome-report") == 1


def test_the_record_of_an_archive_copy_sends_no_report(
    tmp_path: Path, port: Port
) -> None:
    """A copy that came back altered is kept in full: it must not start a loop."""
    place = Place(tmp_path, port, request=asked(verdict="altered", copy=1))
    place.became(became(BOB))
    assert place.settle() == f"{ARCHIVE_ID}: outcome report stored"
    assert port.taken == []


def test_a_long_header_is_in_the_report_as_a_whole(tmp_path: Path) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 900) for n in range(200))
    place = Place(tmp_path, None, message=b"Subject: x\r\n" + lines + b"\r\nbody\r\n")
    place.became(became(BOB))
    place.settle()
    content = b"".join(record_reader.outcome_report(str(tmp_path), record(tmp_path)))
    assert lines in content
    assert b"body" not in content.rpartition(b"X-199")[2]


def test_a_lost_copy_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    place.became(became(BOB))
    (tmp_path / LEGAL / NAME).unlink()
    with pytest.raises(StoreFailed, match="No such file"):
        place.settle()
