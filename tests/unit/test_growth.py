"""Claims about size: four times as much takes four times the work, not sixteen.

Python's own work is counted: calls, or the bytes that a function is given to look
through. What C copies is in no such count, so the CPU time that this process spends on
a message and on a quarter of it are compared besides: 4 is linear, 16 is quadratic, and
one round of ten below 7 is enough, since a busy machine adds to some of them.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.archive_transport import archive_job, transport
from postfix_archive.cli import record_view
from postfix_archive.message import archive_copy, capsule, header, smtp_data, stamp
from postfix_archive.message.envelope import Envelope, Recipient
from postfix_archive.postfix import mail_queue, postfix_command, smtp_client
from postfix_archive.stamp_filter import capture_plan
from postfix_archive.store import (
    copy_file,
    journal,
    journal_format,
    record_reader,
    verifier,
)
from postfix_archive.system import spool
from postfix_archive.tables import table_source

import journal_lines
from unit import examples
from unit.examples import ARCHIVE_ID, KEYS, LEGAL, MESSAGE, NOW

TIME = "2026-11-22T11:53:00Z"
ROUNDS = 10
MAX_FACTOR = 7  # times the CPU time
TIME_TOLERANCE = 0.03  # seconds that the machine itself may add

TAG = stamp.archive_tag(LEGAL, KEYS.current)
STAMP = stamp.make(ARCHIVE_ID, TAG, examples.sha256(MESSAGE), NOW, KEYS.current)
PART = b"--b\nContent-Type: text/plain\n\nhello\n"
# How often what is repeated, and what comes behind it.
LARGE = {
    "a header of 50 MB": (500_000, b"X-Line: " + b"x" * 91 + b"\n", MESSAGE),
    "a field of 50 MB": (500_000, b" folded" + b"x" * 92 + b"\n", MESSAGE),
    "100,000 MIME parts": (100_000, PART, b"--b--\n"),
    "10,000 Received lines": (10_000, examples.REQUEUED, MESSAGE),
    "1,000,000 lines of one dot": (1_000_000, b".\n", b""),
    "one line of 50 MB": (50_000_000, b"x", b"\n"),
    "100,000 stamps": (100_000, STAMP, MESSAGE),
}
BEFORE = {"a field of 50 MB": b"Subject: x\n", "100,000 MIME parts": b"X: y\n\n"}


def message(name: str, count: int) -> bytes:
    """A message with LF line ends, as pipe(8) hands it over."""
    _, unit, behind = LARGE[name]
    content = BEFORE.get(name, b"") + unit * count + behind
    return content.replace(b"\r\n", b"\n")


def count_calls(work: Callable[[], object]) -> int:
    """How many calls the work makes, of Python's functions and of C's."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def seconds(work: Callable[[], object]) -> float:
    """The CPU time of the work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def assert_linear(make: Callable[[int], Callable[[], object]], full: int) -> None:
    quarter_work, full_work = make(full // 4), make(full)
    assert count_calls(full_work) < 5 * count_calls(quarter_work)
    rounds = ((seconds(quarter_work), seconds(full_work)) for _ in range(ROUNDS))
    assert any(
        longer < MAX_FACTOR * shorter + TIME_TOLERANCE for shorter, longer in rounds
    )


def filter_file(path: Path) -> capture_plan.Plan:
    """Read a message as the stamp filter does; send it nowhere."""
    header.fields(b"")  # forget the head of the message before
    with open(path, "rb") as file:
        message = spool.read(file.fileno(), str(path.parent))
    head = message.head()
    task = examples.delivery_request(b"bob@example.com")
    header_scan = capture_plan.HeaderScan(
        head, task, examples.make_settings(), KEYS, user_id=examples.mail_owner
    )
    digests = message.digests(header_scan.offsets)
    assert not capture_plan.is_requeued_copy(task, header_scan, digests, KEYS)
    assert not capture_plan.needs_smtputf8(task, header_scan, head)
    plan = capture_plan.make(
        task,
        header_scan,
        digests,
        message.size,
        examples.make_settings(),
        KEYS,
        now=NOW,
    )
    assert message.shape().is_ascii
    stuffed_size = sum(
        map(len, smtp_data.join_blocks(smtp_data.dot_stuff(message.chunks())))
    )
    assert stuffed_size >= message.size
    message.close()
    return plan


@pytest.mark.parametrize("name", LARGE)
def test_the_stamp_filter_reads_a_large_message_in_its_time(
    tmp_path: Path, name: str
) -> None:
    def make(count: int) -> Callable[[], object]:
        path = tmp_path / str(count)
        path.write_bytes(message(name, count))
        return lambda: filter_file(path)

    assert_linear(make, LARGE[name][0])


def test_the_origin_is_found_under_10_000_requeues() -> None:
    def make(count: int) -> Callable[[], object]:
        head = examples.REQUEUED * count + MESSAGE
        return lambda: examples.find_origin(head, queue_id=b"4Zz9Requeued00")

    assert_linear(make, 10_000)


def fake_submit(_: object, __: bytes, ___: object, content: Any, **____: object) -> str:
    return f"4Z{sum(map(len, content))}"


def archive_file(path: Path, store: Path) -> None:
    """Archive a capsule, verify the store, list and show what is in it."""
    shutil.rmtree(store, ignore_errors=True)
    text = f"archive_store_directory = {store}\n"
    text += f"archive_fallback_directory = {store}\n"
    settings = examples.make_settings(text)
    with open(path, "rb") as file:
        message = spool.read(file.fileno(), str(path.parent), canonical=True)
    case = archive_job.ArchiveJob(message, settings, KEYS, NOW)
    assert "result=stored+mailed" in transport.archive_message(case)
    message.close()
    assert not verifier.verify_archive(f"{store}/{LEGAL}").findings
    (record,) = record_reader.records(str(store), LEGAL)
    assert list(record_view.summary_lines(settings, record, [])) and list(
        record_view.lines(settings, record, [])
    )
    size = sum(map(len, record_reader.original(str(store), record)))
    assert size == record.events[0]["size"]


def write_capsule(path: Path, original: bytes, envelope: Envelope) -> None:
    preamble = capsule.make_preamble(envelope, KEYS, sender=b"a@example.com", now=NOW)
    path.write_bytes(preamble + original)


@pytest.mark.parametrize("name", LARGE)
def test_the_archive_transport_and_its_readers_take_a_large_message_in_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(smtp_client, "submit", fake_submit)

    def make(count: int) -> Callable[[], object]:
        original = b"".join(smtp_data.to_canonical([message(name, count)]))
        path = tmp_path / str(count)
        write_capsule(path, original, examples.make_envelope(original))
        return lambda: archive_file(path, tmp_path / "store")

    assert_linear(make, LARGE[name][0] // 5)


def many_recipients(count: int) -> tuple[Recipient, ...]:
    """As many recipients, each of 254 bytes before and after address mapping."""
    names = (b"%08d" % number for number in range(count))
    return tuple(
        Recipient(name + b"f" * 240 + b"@x.com", name + b"o" * 240 + b"@x.com")
        for name in names
    )


def test_3500_recipients_of_254_bytes_take_their_time_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_client, "submit", fake_submit)

    def make(count: int) -> Callable[[], object]:
        path = tmp_path / str(count)
        write_capsule(
            path, MESSAGE, examples.make_envelope(recipients=many_recipients(count))
        )
        return lambda: archive_file(path, tmp_path / "store")

    assert_linear(make, 3500)


@pytest.mark.parametrize("form", ["hybrid", "dsn", "journal", "message"])
def test_a_report_of_14_000_recipients_is_written_in_its_time(form: str) -> None:
    def make(count: int) -> Callable[[], object]:
        envelope = examples.make_envelope(recipients=many_recipients(count))
        report = archive_copy.EnvelopeReport(
            envelope, LEGAL, MESSAGE, examples.content_properties(MESSAGE)
        )
        return lambda: archive_copy.build(report, form, sender=b"a@b.c", boundary=b"b")

    assert_linear(make, 14_000)


# --- bytes that are looked through ------------------------------------------------


def record_call_sizes(patch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """The length of each first argument that a function gets from now on."""
    sizes: list[int] = []
    original_function = getattr(module, name)

    def noting(text: bytes, *arguments: Any, **keywords: Any) -> Any:
        sizes.append(len(text))
        return original_function(text, *arguments, **keywords)

    patch.setattr(module, name, noting)
    return sizes


def test_the_end_of_a_journal_is_found_behind_a_torn_line_of_20_mb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal.Journal(str(tmp_path)) as events:
        events.append("archived", TIME, envelope="x" * 20_000_000)
    path = journal_lines.segment(tmp_path)
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(b'{"seq":3,"envelope":"' + b"x" * 20_000_000)
    sizes = record_call_sizes(monkeypatch, journal_format, "last_number")
    with journal.Journal(str(tmp_path)) as events:
        events.append("after", TIME)
    assert sum(sizes) < 3 * 2 * size
    assert journal_lines.parse(path.read_bytes().splitlines()[-1])["seq"] == 3


@pytest.mark.parametrize(
    ("module", "name"),
    [(archive_copy, "original_offset"), (verifier, "_original_start")],
)
def test_the_original_is_found_behind_a_long_report(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    sizes = record_call_sizes(monkeypatch, module, name)
    copy = b"x" * (10 << 20)
    pieces = (copy[offset : offset + 65536] for offset in range(0, len(copy), 65536))
    read_head = copy_file.read_head if module is archive_copy else verifier._read_head
    assert read_head(pieces) == (copy, -1)
    assert len(copy) < sum(sizes) < 4 * len(copy)


def test_a_copy_without_an_original_is_given_up() -> None:
    endless = iter(lambda: b"x" * 65536, b"")
    for read_head in (copy_file.read_head, verifier._read_head):
        head, start = read_head(endless)
        assert start == -1 and len(head) <= 2 * copy_file.PREAMBLE_LIMIT


# --- what the host says -----------------------------------------------------------

SCANNED_LINES = {
    "10,000 lines": b"user%d@example.com ARCHIVE legal@example.com\n",
    "100,000 native lines": b"user%d@example.com OK\n",
    "100,000 remarks": b"# %d\n",
    "100,000 empty lines": b"\n",
    "a line over 100,000 lines": b"  %d\n",
}


@pytest.mark.parametrize("name", SCANNED_LINES)
def test_a_large_table_is_compiled_in_its_time(name: str) -> None:
    def make(count: int) -> Callable[[], object]:
        unit = SCANNED_LINES[name]
        repeated = (unit % n if b"%d" in unit else unit for n in range(count))
        source = b"a OK\n" + b"".join(repeated)
        return lambda: table_source.compile_table(
            source, table_type="hash", path="/x.in", keys=KEYS
        )

    assert_linear(make, 10_000 if name == "10,000 lines" else 100_000)


def test_a_setting_over_20_000_lines_is_read_in_its_time() -> None:
    def make(count: int) -> Callable[[], object]:
        text = "archive_local_clients = ::1\n" + "  192.0.2.0/24,\n" * count
        return lambda: examples.make_settings(text)

    assert_linear(make, 20_000)


def test_a_queue_of_10_000_messages_is_read_in_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = {"queue_name": "deferred", "arrival_time": 1795348380, "sender": "a@x"}
    to = [{"address": "bob@example.com", "delay_reason": "no route"}]

    def make(count: int) -> Callable[[], object]:
        lines = (
            json.dumps({**entry, "queue_id": str(n), "recipients": to})
            for n in range(count)
        )
        listing = "\n".join(lines)

        def work() -> None:
            monkeypatch.setattr(postfix_command, "run", lambda *words: listing)
            monkeypatch.setattr(
                postfix_command, "read_envelopes", lambda *words: ("", True)
            )
            assert len(mail_queue.list_messages("/etc/postfix")) == count

        return work

    assert_linear(make, 10_000)
