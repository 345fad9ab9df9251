"""Claims about mail that comes back without a stamp, over a real store."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.archive_transport import recent_captures, transport
from postfix_archive.archive_transport.archive_job import ArchiveJob, CapturedMessage
from postfix_archive.archive_transport.recent_captures import RecentCaptures
from postfix_archive.install import uninstall
from postfix_archive.message import capsule
from postfix_archive.retention import removal
from postfix_archive.stamp_filter import capture_plan
from postfix_archive.store import record_reader
from postfix_archive.system import spool

import journal_lines
from sample_store import KEYS, LEGAL, SampleStore
from unit import examples
from unit.examples import HR, MESSAGE, NOW, QUEUE_ID
from unit.retention.stores import index

OWN_HOP = (
    b"Received: from list.example.net (list.example.net [198.51.100.9])\r\n"
    b"\tby mail.example.com (Postfix) with ESMTPS id 4Zx1Yk3Qq8b0Rv\r\n"
    b"\tfor <bob@example.com>; Sun, 22 Nov 2026 12:54:00 +0100 (CET)\r\n"
)
OTHER_HOP = (
    b"Received: from mail.example.com (mail.example.com [203.0.113.5])\r\n"
    b"\tby list.example.net (8.17/8.17) with ESMTP id 9AB;\r\n"
    b"\tSun, 22 Nov 2026 11:53:30 GMT\r\n"
)
NEW_QUEUE_ID = b"4Zx1Yk3Qq8b0Rv"
SPF = b"Received-SPF: pass (example.org) client-ip=192.0.2.7\r\n"
WAYS_BACK = {
    "relayed": OWN_HOP + OTHER_HOP,
    "forwarded by Postfix": OWN_HOP + OTHER_HOP + b"Delivered-To: bob@example.com\r\n",
    "by a mailbox": OWN_HOP
    + b"Return-Path: <ann@example.org>\r\nX-Original-To: bob@example.com\r\n"
    + b"X-Sieve: CMU Sieve 2.4\r\n"
    + OTHER_HOP,
    "with lines between": OWN_HOP + b"X-Spam: no\r\n" + OTHER_HOP + b"X-List: 1\r\n",
}
RETURNED = OWN_HOP + OTHER_HOP + MESSAGE
DAY = 86400


def make_store(directory: Path) -> SampleStore:
    """A store that mails no copies."""
    made = SampleStore(directory)
    with open(directory / "archive.cf", "a") as file:
        file.write("archive_delivery = store\n")
    return made


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return make_store(tmp_path)


class Worker:
    """Captures messages as a worker does where mail gets no stamp."""

    def __init__(self, store: SampleStore, now: int = NOW) -> None:
        self.settings = store.settings
        self.now = now
        self.recent_captures = RecentCaptures(self.settings)

    def capture(
        self, message: bytes, *, nexthop: str = LEGAL, queue_id: bytes = QUEUE_ID
    ) -> set[str]:
        """Archive a message; return what was done."""
        delivery = examples.delivery_request(b"bob@example.com", nexthop=nexthop)
        delivery.queue_id = queue_id
        content = spool.Spool()
        content.add(message, self.settings.archive_spool_directory)
        scan = capture_plan.HeaderScan(
            message, delivery, self.settings, KEYS, user_id=examples.mail_owner
        )
        archives = list(delivery.request_sources)
        plan = capture_plan.make(
            delivery,
            scan,
            content.digests(scan.offsets),
            len(message),
            self.settings,
            KEYS,
            now=self.now,
            returned=self.recent_captures.find(content, message, archives, self.now),
            is_reinjected=False,
        )
        assert plan.envelope is not None
        job = ArchiveJob(content, self.settings, KEYS, self.now)
        job.recent_captures = self.recent_captures
        captured = CapturedMessage(
            job,
            capsule.from_envelope(plan.envelope),
            plan.envelope.sha256,
            content.shape(),
        )
        result = transport.archive_captured(captured)
        content.close()
        return result.actions


@pytest.fixture
def worker(store: SampleStore) -> Iterator[Worker]:
    made = Worker(store)
    yield made
    made.recent_captures.close()


def verdicts(store: SampleStore, archive: str = LEGAL) -> list[str]:
    """The events of an archive, each with its verdict."""
    events = journal_lines.events(store.path / archive)
    return [f"{each['event']} {each['stamp']}" for each in events if "stamp" in each]


def database(store: SampleStore) -> Path:
    (path,) = store.directory.glob(".postfix-archive-*.captures")
    return path


FULL, AGAIN = "archived absent", "supplement content"


@pytest.mark.parametrize("lines", WAYS_BACK.values(), ids=WAYS_BACK)
def test_mail_that_comes_back_is_a_supplement_with_the_lines_above(
    store: SampleStore, worker: Worker, lines: bytes
) -> None:
    assert worker.capture(MESSAGE) == {"stored"}
    assert worker.capture(lines + MESSAGE, queue_id=NEW_QUEUE_ID) == {"supplement"}
    assert verdicts(store) == [FULL, AGAIN]
    (record,) = record_reader.records(str(store.path), LEGAL)
    supplement = record.events[1]
    assert supplement["above"].encode() == lines
    assert supplement["sha256"] == examples.sha256(lines + MESSAGE).hex()
    assert [each.envelope.queue_id for each in record.passes] == [
        QUEUE_ID,
        NEW_QUEUE_ID,
    ]
    count = lines.count(b"\n")
    shown = store.run("show", record.archive_id).output
    assert (
        f"supplement to the envelope, {count} header lines above the content" in shown
    )
    store.run("verify")
    index(store)
    found = store.run("search", "--ids", "subject:contract").output
    assert found.split() == [record.archive_id]
    assert store.run("search", "--count", "stamp:content").output.strip() == "1"


def test_mail_that_comes_back_twice_adds_two_passes(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    worker.capture(RETURNED, queue_id=NEW_QUEUE_ID)
    third = OWN_HOP.replace(b"Rv\r\n", b"Rw\r\n") + OTHER_HOP + RETURNED
    assert worker.capture(third, queue_id=b"4Zx1Yk3Qq8b0Rw") == {"supplement"}
    (record,) = record_reader.records(str(store.path), LEGAL)
    assert len(record.passes) == 3
    assert record.events[2]["above"].encode() + MESSAGE == third


def test_a_retry_of_a_pass_is_recorded_once(store: SampleStore, worker: Worker) -> None:
    for _ in range(2):
        worker.capture(MESSAGE)
        worker.capture(RETURNED, queue_id=NEW_QUEUE_ID)
    assert verdicts(store) == [FULL, AGAIN]


def test_a_requeued_message_is_no_second_record_and_no_second_pass(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    requeued = examples.REQUEUED + MESSAGE
    assert worker.capture(requeued, queue_id=b"4Zz9Requeued00") == {"supplement"}
    (record,) = record_reader.records(str(store.path), LEGAL)
    assert len(record.passes) == 1 and len(record.files) == 1


@pytest.mark.parametrize("count", [1, 2, 29, 30])
def test_up_to_thirty_received_lines_above_are_examined(
    store: SampleStore, worker: Worker, count: int
) -> None:
    worker.capture(MESSAGE)
    assert worker.capture(OTHER_HOP * count + MESSAGE) == {"supplement"}


def test_below_more_than_thirty_received_lines_nothing_is_recognised(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    assert worker.capture(OTHER_HOP * 31 + MESSAGE) == {"stored"}
    assert verdicts(store) == [FULL, FULL]


@pytest.mark.parametrize(
    "top", [SPF, b"X-Policy: 1\r\n", b""], ids=["SPF", "policy", "no Received"]
)
def test_a_line_above_the_own_received_line_is_part_of_the_message(
    store: SampleStore, worker: Worker, top: bytes
) -> None:
    message = top + MESSAGE if top else MESSAGE.removeprefix(examples.FROM_SMTP)
    worker.capture(message)
    assert worker.capture(OTHER_HOP + message) == {"supplement"}
    forwarded = OTHER_HOP + b"Delivered-To: bob@example.com\r\n" + message
    assert worker.capture(forwarded) == {"supplement"}


@pytest.mark.parametrize("position", range(0, len(MESSAGE), 37))
def test_mail_that_differs_by_one_byte_is_stored_in_full(
    store: SampleStore, worker: Worker, position: int
) -> None:
    worker.capture(MESSAGE)
    changed = bytearray(MESSAGE)
    changed[position] ^= 1
    assert worker.capture(OWN_HOP + OTHER_HOP + changed) == {"stored"}
    assert verdicts(store) == [FULL, FULL]
    assert len(list(record_reader.records(str(store.path), LEGAL))) == 2


def test_mail_with_a_footer_is_stored_in_full(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    assert worker.capture(RETURNED + b"-- \r\nthe list\r\n") == {"stored"}


def test_an_archive_that_has_not_got_the_message_stores_it_in_full(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    worker.capture(RETURNED, nexthop=f"{LEGAL},{HR}")
    assert verdicts(store) == [FULL, AGAIN]
    assert verdicts(store, HR) == [FULL]
    (record,) = record_reader.records(str(store.path), HR)
    assert b"".join(record_reader.original(str(store.path), record)) == RETURNED


def test_mail_whose_record_was_removed_is_stored_in_full(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    (record,) = record_reader.records(str(store.path), LEGAL)
    store.note_retention(record.archive_id)
    removal.remove(
        store.settings,
        LEGAL,
        record.archive_id,
        "purged",
        {"rule": "archive_retention"},
    )
    for known in (examples.sha256(MESSAGE), record.archive_id.encode()):
        assert known not in database(store).read_bytes()
    assert worker.capture(RETURNED) == {"stored"}
    assert verdicts(store) == [FULL]
    # What was stored then is known when it comes back.
    assert worker.capture(OTHER_HOP + RETURNED) == {"supplement"}
    store.run("verify")


def test_a_removal_makes_no_database_and_survives_a_damaged_one(
    store: SampleStore, worker: Worker
) -> None:
    for content in (None, b"damaged"):
        worker.capture(MESSAGE)
        *_, record = record_reader.records(str(store.path), LEGAL)
        worker.recent_captures.close()
        database(store).unlink()
        if content:
            Path(worker.recent_captures.path).write_bytes(content)
        store.note_retention(record.archive_id)
        removal.remove(
            store.settings, LEGAL, record.archive_id, "purged", {"rule": "x"}
        )
        assert not list(store.directory.glob("*.captures")) or content
    assert worker.capture(RETURNED) == {"stored"}


def test_uninstall_removes_the_database_and_not_the_store(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    path = database(store)
    uninstall._describe_remains(str(store.directory), "sample")
    assert not path.exists()
    assert len(list(record_reader.records(str(store.path), LEGAL))) == 1


def test_mail_whose_copy_goes_between_look_up_and_store_is_stored_in_full(
    store: SampleStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.capture(MESSAGE)
    find = RecentCaptures.find

    def find_then_remove(*arguments: Any) -> object:
        found = find(*arguments)
        (record,) = record_reader.records(str(store.path), LEGAL)
        store.copy_path(record.archive_id).unlink()
        return found

    monkeypatch.setattr(RecentCaptures, "find", find_then_remove)
    assert worker.capture(RETURNED) == {"stored"}
    assert verdicts(store) == [FULL, "archived content"]
    record = list(record_reader.records(str(store.path), LEGAL))[1]
    assert b"".join(record_reader.original(str(store.path), record)) == RETURNED
    shown = store.run("show", record.archive_id).output
    assert "content of another message, whose copy is not in this store" in shown


def test_an_entry_that_names_another_message_hides_nothing(
    store: SampleStore, worker: Worker
) -> None:
    other = MESSAGE.replace(b"sign", b"sing")
    worker.capture(MESSAGE)
    worker.capture(other, queue_id=b"4Zx1Yk2Pp7z9Qx")
    with contextlib.closing(sqlite3.connect(database(store))) as connection:
        connection.execute(
            "UPDATE captures SET id = (SELECT id FROM captures WHERE sha256 = ?)",
            (examples.sha256(other),),
        )
        connection.commit()
    assert worker.capture(RETURNED) == {"stored"}


def test_a_damaged_copy_keeps_no_mail_waiting(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    (record,) = record_reader.records(str(store.path), LEGAL)
    path = store.copy_path(record.archive_id)
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    path.chmod(0o400)
    assert worker.capture(RETURNED) == {"stored"}


def test_a_copy_in_the_object_storage_is_known(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    (record,) = record_reader.records(str(store.path), LEGAL)
    store.move(record.archive_id)
    assert worker.capture(RETURNED) == {"supplement"}


DAMAGE = {
    "no SQLite": b"x" * 10000,
    "cut short": b"SQLite format 3\0" + bytes(200),
    "empty": b"",
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_made_anew_from_the_journal(
    store: SampleStore, worker: Worker, content: bytes
) -> None:
    worker.capture(MESSAGE)
    worker.recent_captures.close()
    database(store).write_bytes(content)
    assert worker.capture(RETURNED) == {"supplement"}


def test_a_database_of_another_version_is_made_anew(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    worker.recent_captures.close()
    with contextlib.closing(sqlite3.connect(database(store))) as connection:
        connection.execute("DROP TABLE captures")
        connection.execute("CREATE TABLE captures (other)")
        connection.execute("PRAGMA user_version = 999")
    assert worker.capture(RETURNED) == {"supplement"}


def test_a_database_that_is_damaged_in_use_is_made_anew_later(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    path = database(store)
    content = path.read_bytes()
    page = 4096
    path.write_bytes(content[:page] + b"\xff" * (len(content) - page))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        # Another process has changed it: so the pages are read again.
        connection.execute("PRAGMA user_version = 1")
    assert worker.capture(RETURNED) == {"stored"}
    (failure,) = store.directory.glob("*.last-error")
    assert "mail that comes back is stored in full meanwhile" in failure.read_text()
    for each in store.directory.glob("*.captures-failed"):
        each.unlink()  # as if the pause were over
    assert worker.capture(OTHER_HOP + MESSAGE) == {"supplement"}


def test_after_a_failure_the_database_is_left_alone_for_a_while(
    store: SampleStore, worker: Worker
) -> None:
    worker.now = int(store.directory.stat().st_mtime)
    database_path = Path(worker.recent_captures.path)
    database_path.mkdir()
    assert worker.capture(MESSAGE) == {"stored"}
    database_path.rmdir()
    assert worker.capture(RETURNED) == {"stored"}
    worker.now += recent_captures.FAILURE_PAUSE + DAY
    assert worker.capture(OTHER_HOP + MESSAGE) == {"supplement"}


def test_a_locked_database_delays_no_mail(store: SampleStore, worker: Worker) -> None:
    worker.capture(MESSAGE)
    with contextlib.closing(sqlite3.connect(database(store))) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert worker.capture(RETURNED) == {"stored"}
        connection.rollback()
    assert worker.capture(OTHER_HOP + MESSAGE) == {"supplement"}


def test_an_absent_database_has_the_messages_of_the_last_thirty_days(
    store: SampleStore,
) -> None:
    recent = MESSAGE.replace(b"sign", b"sing")
    first, second = Worker(store, NOW - 31 * DAY), Worker(store, NOW - 29 * DAY)
    first.capture(MESSAGE)
    second.capture(recent)
    database(store).unlink()
    worker = Worker(store)
    assert worker.capture(OTHER_HOP + recent) == {"supplement"}
    assert worker.capture(OTHER_HOP + MESSAGE) == {"stored"}
    for each in (first, second, worker):
        each.recent_captures.close()


def test_messages_are_forgotten_after_thirty_days(
    store: SampleStore, worker: Worker
) -> None:
    worker.capture(MESSAGE)
    worker.now += 31 * DAY
    worker.capture(MESSAGE.replace(b"sign", b"sing"), queue_id=b"4Zx1Yk2Pp7z9Qx")
    assert worker.capture(RETURNED) == {"stored"}


def test_nobody_else_can_read_the_database(store: SampleStore, worker: Worker) -> None:
    worker.capture(MESSAGE)
    assert database(store).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_left_alone(
    store: SampleStore, worker: Worker
) -> None:
    path = Path(worker.recent_captures.path)
    path.write_bytes(b"")
    os.chown(path, 12345, 12345)
    worker.capture(MESSAGE)
    assert path.read_bytes() == b""
    assert worker.capture(RETURNED) == {"supplement"}


WORKER_PROGRAM = """
import sys
from pathlib import Path
from unit.archive_transport.test_recent_captures import *
worker = Worker(make_store(Path(sys.argv[1])))
for number in range(10):
    message = MESSAGE + b"%s %d\\r\\n" % (sys.argv[2].encode(), number)
    assert worker.capture(message) == {"stored"}, number
    assert worker.capture(OTHER_HOP + message) == {"supplement"}, number
"""


def test_workers_share_the_database(store: SampleStore) -> None:
    paths = [str(Path(__file__).parents[2]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER_PROGRAM, str(store.directory), name],
            env=environment,
        )
        for name in ("first", "second")
    ]
    assert [each.wait() for each in workers] == [0, 0]
    assert verdicts(store).count(FULL) == verdicts(store).count(AGAIN) == 20
    store.run("verify")


def test_ordinary_mail_costs_no_digest(
    store: SampleStore, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.capture(MESSAGE)
    content = spool.Spool()
    message = OWN_HOP + OTHER_HOP + b"From: a@example.org\r\n\r\nnew\r\n"
    content.add(message, str(store.directory))
    monkeypatch.setattr(spool.Spool, "digests", pytest.fail)
    assert worker.recent_captures.find(content, message, [LEGAL], NOW) == {}
