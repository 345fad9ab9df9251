"""The follower over a real log file and a real store, batch by batch."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from postfix_archive.message import dates
from postfix_archive.message import envelope as envelope_format
from postfix_archive.outcomes import capture_reader, follower, follower_state
from postfix_archive.outcomes.follower import Follower
from postfix_archive.store.journal import Journal

import journal_lines
from unit.examples import (
    ARCHIVE_ID,
    LEGAL,
    QUEUE_ID,
    make_envelope,
    make_request,
    make_settings,
)
from unit.store.test_archive import Capture, events

BOB = "bob@example.com"
CAPTURED_ID = QUEUE_ID.decode()


class FollowedHost:
    """A store, a log that may not exist yet, and a follower that is restarted."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log" / "mail.log"
        self.store = directory / "store"
        self.fallback = directory / "fallback"
        for each in (self.log.parent, self.store, self.fallback):
            each.mkdir()
        self.settings = make_settings(
            f"archive_store_directory = {self.store}\n"
            f"archive_fallback_directory = {self.fallback}\n"
        )
        self.arrival = int(time.time())

    def write(self, *lines: str, at: float | None = None) -> None:
        """Append lines to the log: process, queue id, text."""
        with self.log.open("a") as log:
            for line in lines:
                process, rest = line.split(" ", 1)
                log.write(
                    f"{at or self.arrival:.6f} mail postfix/{process}[7]: {rest}\n"
                )

    def write_delivered(
        self,
        archive_id: str = ARCHIVE_ID,
        queue_id: str = CAPTURED_ID,
        reinjected_id: str = "4jZFG74yqtzK5dh",
        at: float | None = None,
    ) -> None:
        """Write the log lines of a message that was archived and delivered."""
        self.write(
            f"smtpd {queue_id}: client=a[192.0.2.7]",
            f"qmgr {queue_id}: from=<a@example.org>, size=9, nrcpt=1 (queue active)",
            f"archive-handback/smtpd {reinjected_id}: client=localhost[127.0.0.1]",
            f"pipe {queue_id}: to=<{BOB}>, relay=archive-stamp, delay=1,"
            " delays=0/0/0/1, dsn=2.0.0, status=sent (delivered via archive-stamp"
            f" service (id={archive_id} as={reinjected_id} result=done))",
            f"qmgr {queue_id}: removed",
            f"smtp {reinjected_id}: to=<{BOB}>, relay=mx[192.0.2.1]:25, delay=1,"
            " delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)",
            f"qmgr {reinjected_id}: removed",
            at=at,
        )

    def add_message(self, number: int, at: float | None = None) -> None:
        """Archive and deliver one more message."""
        archive_id = f"20261125-{number:040x}"
        Capture(BOB.encode(), arrival=self.arrival, archive_id=archive_id).store_in(
            self.store
        )
        queue_ids = (f"4jZF{number:08d}zB", f"4jZG{number:08d}zB")
        self.write_delivered(archive_id, *queue_ids, at=at)

    def rows(self, table: str) -> int:
        """The number of rows in a table of the state."""
        path = self.fallback / follower_state.DATABASE_NAME
        with closing(sqlite3.connect(path)) as database:
            [count] = database.execute(f"SELECT count(*) FROM {table}").fetchone()
            return int(count)

    def follow(self) -> None:
        """Read what the log has now with a new follower."""
        with closing(Follower(self.settings, str(self.log), ())) as follower:
            follower.process_batch(follower.read_batch())

    @property
    def outcomes(self) -> list[str]:
        """The outcomes in the journal."""
        return [e["outcome"] for e in events(self.store) if e["event"] == "outcome"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FollowedHost]:
    """A host whose store has one message, which has just arrived."""
    host = FollowedHost(tmp_path)
    Capture(BOB.encode(), arrival=host.arrival).store_in(host.store)
    yield host


@pytest.mark.parametrize("log", ["absent", "empty", "without a time"])
def test_a_capture_waits_for_a_log_that_has_not_begun(
    host: FollowedHost, log: str
) -> None:
    if log != "absent":
        host.log.write_text("" if log == "empty" else "-- Journal begins --\n")
    for _ in range(2):
        host.follow()
    assert host.outcomes == []
    host.write_delivered()
    host.follow()
    assert host.outcomes == ["relayed"]


def test_a_capture_from_before_the_log_is_given_up(host: FollowedHost) -> None:
    host.write("qmgr 4zzzzzzzzzzzz0: removed", at=host.arrival + 3600)
    host.follow()
    host.write_delivered()
    host.follow()
    assert host.outcomes == []


def test_nothing_is_kept_of_what_is_settled(host: FollowedHost) -> None:
    host.write_delivered()
    host.follow()
    host.follow()
    assert host.outcomes == ["relayed"]
    assert (host.rows("capture"), host.rows("said")) == (0, 0)
    later = host.arrival + follower.KEEP_SETTLED + 1
    with closing(Follower(host.settings, str(host.log), ())) as running:
        for number in range(1, 5):
            host.add_message(number, at=later * 1.0 + 100 * number)
            running.process_batch(running.read_batch())
            assert len(running._queue_files.by_key) <= 4
    assert host.outcomes == ["relayed"] * 5


def test_a_backlog_is_read_in_pages_and_each_outcome_recorded_once(
    host: FollowedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_reader, "MAX_CAPSULES", 3)
    monkeypatch.setattr(follower, "CAPTURES_PER_STEP", 2)
    monkeypatch.setattr(follower_state, "PAGE_ROWS", 2)
    host.write_delivered()
    for number in range(1, 11):
        host.add_message(number)
    host.follow()
    assert host.outcomes == ["relayed"] * 11
    assert (host.rows("capture"), host.rows("due")) == (0, 11)
    (host.fallback / follower_state.DATABASE_NAME).unlink()
    host.follow()
    assert host.outcomes == ["relayed"] * 11
    assert (host.rows("capture"), host.rows("due")) == (0, 11)


def test_a_second_archive_may_have_a_message_minutes_later(host: FollowedHost) -> None:
    requests = (make_request(), make_request("second@example.com"))
    archive_id = "20261125-" + "7" * 40
    envelope = make_envelope(
        archive_id=archive_id,
        queue_id=b"4jZF00000077zB",
        requests=requests,
        arrival=host.arrival,
    )
    text = envelope_format.serialise(envelope).decode()

    def archive_in(archive: str, capsule: str) -> None:
        (host.store / archive).mkdir(exist_ok=True)
        fields: dict[str, str | int] = {"id": archive_id, "sha256": "0" * 64}
        fields |= {"size": 5, "stamp": "absent", "envelope": text, "capsule": capsule}
        with Journal(str(host.store / archive)) as journal:
            journal.append("archived", dates.format_rfc3339(host.arrival), **fields)

    with closing(Follower(host.settings, str(host.log), ())) as running:
        archive_in(LEGAL, "a" * 64)
        host.write_delivered(archive_id, "4jZF00000077zB", "4jZF00000078zB")
        running.process_batch(running.read_batch())
        for number in range(1, 4):
            host.add_message(number, at=host.arrival + 100.0 * number)
            running.process_batch(running.read_batch())
        archive_in("second@example.com", "b" * 64)
        running.process_batch(running.read_batch())
    events = journal_lines.events(host.store / "second@example.com")
    [outcome] = [each for each in events if each["event"] == "outcome"]
    assert (outcome["id"], outcome["outcome"]) == (archive_id, "relayed")
