"""Claims about the store: what it takes it has, and twice is once.

A crash is made by hand here: the files are put into the state between two steps.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import resource
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from isal import isal_zlib

from postfix_archive.archive_transport import copy_plan
from postfix_archive.errors import ArchiveError, RecordDamaged, StoreFailed
from postfix_archive.message import archive_copy, envelope, smtp_data
from postfix_archive.message.envelope import Envelope, Recipient, Request
from postfix_archive.store import (
    copy_file,
    journal,
    journal_event,
    outcome,
    record_reader,
)
from postfix_archive.store.archive import Archive
from postfix_archive.store.record import Record

import journal_lines
from unit import examples
from unit.examples import (
    ARCHIVE_ID,
    KEYS,
    LEGAL,
    MESSAGE,
    NOW,
    envelope_values,
    make_envelope,
    make_request,
    unseal_capsule,
)
from unit.store.test_outcome_summary import make_outcome

TIME = "2026-11-22T11:53:00Z"
LIMIT = 1 << 30  # bytes: larger than any copy here
NAME = f"2026/11/22/{ARCHIVE_ID}.eml.gz"
BOB, EVE = b"bob@example.com", b"eve@example.com"
FROM = b"postfix-archive@mail.example.com"


class Capture:
    """One capsule as it comes to the archive transport."""

    def __init__(
        self,
        *addresses: bytes,
        message: bytes = MESSAGE,
        received: bytes | None = None,
        request: Request | None = None,
        archive_id: str = ARCHIVE_ID,
        arrival: int = NOW,
    ) -> None:
        self.received = message if received is None else received
        self.request = request or make_request()
        recipients = tuple(map(Recipient, addresses or (BOB,)))
        self.envelope: Envelope = make_envelope(
            message,
            archive_id=archive_id,
            recipients=recipients,
            requests=(self.request,),
            arrival=arrival,
        )
        self.capsule = unseal_capsule(self.envelope)
        self.digest = examples.sha256(self.received).hex()

    @property
    def capture(self) -> copy_file.Capture:
        return copy_file.Capture(
            record_id=copy_plan.record_id(self.capsule, self.request),
            capsule_id=self.capsule.capsule_id,
            envelope_fields=self.capsule.fields,
            sha256=self.digest,
            size=len(self.received),
            verdict=self.request.verdict,
            lines_above=copy_plan.header_above_stamp(self.received, self.request),
        )

    @property
    def copy(self) -> bytes:
        shape = examples.content_properties(self.received)
        report = copy_plan.build_report(
            self.capsule,
            self.request,
            self.received,
            shape,
            sha256=self.digest,
            size=len(self.received),
        )
        boundary = archive_copy.make_boundary(self.capture.record_id, self.digest, KEYS)
        copy_parts = archive_copy.build(
            report, "hybrid", sender=FROM, boundary=boundary
        )
        return copy_parts.preamble + self.received + copy_parts.trailer

    def store_in(self, directory: Path) -> set[str]:
        archive = Archive(str(directory), LEGAL)
        return archive.store_copy(self.capture, [self.copy], TIME)


def journal_path(directory: Path) -> Path:
    return journal_lines.segment(directory / LEGAL)


def events(directory: Path) -> list[dict[str, Any]]:
    """The lines of the journal that can be read, but those that begin segments."""
    parsed = []
    for path in journal_lines.segments(directory / LEGAL):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                parsed.append(journal_lines.parse(line))
    return [each for each in parsed if each["event"] != journal.SEGMENT]


def kinds(directory: Path) -> list[str]:
    return [each["event"] for each in events(directory)]


def record(directory: Path, archive_id: str = ARCHIVE_ID) -> Record:
    return record_reader.find_record(str(directory), archive_id, None)


def finals(merged: Record) -> set[bytes]:
    return {each.final for one in merged.passes for each in one.recipients.values()}


def original(directory: Path) -> bytes:
    return b"".join(record_reader.original(str(directory), record(directory)))


def archived_files(directory: Path) -> list[str]:
    top = directory / LEGAL
    return sorted(str(each.relative_to(top)) for each in top.rglob("*.eml.gz"))


def drafts(directory: Path) -> list[Path]:
    return list((directory / LEGAL / "drafts").iterdir())


def assert_committed(directory: Path, name: str = NAME) -> None:
    """The file is read-only, and one whole line of the journal names it, truly."""
    path = directory / LEGAL / name
    assert path.stat().st_mode & 0o777 == 0o400
    (line,) = [each for each in events(directory) if each.get("file") == name]
    assert line["event"] == "archived"
    assert line["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archived_copy_can_be_read_with_gzip_alone(tmp_path: Path) -> None:
    capture = Capture()
    assert capture.store_in(tmp_path) == {"archived"}
    assert gzip.decompress((tmp_path / LEGAL / NAME).read_bytes()) == capture.copy
    assert_committed(tmp_path)
    assert drafts(tmp_path) == []


def test_the_line_in_the_journal_holds_the_envelope(tmp_path: Path) -> None:
    capture = Capture(BOB, EVE)
    capture.store_in(tmp_path)
    (line,) = events(tmp_path)
    assert line["id"] == ARCHIVE_ID
    assert line["capsule"] == capture.capsule.capsule_id
    assert line["sha256"] == hashlib.sha256(MESSAGE).hexdigest()
    assert line["size"] == len(MESSAGE)
    assert line["stamp"] == "absent"
    read_envelope = envelope.parse(line["envelope"].encode())
    assert envelope_values(read_envelope) == envelope_values(capture.envelope)


def test_the_original_comes_back_byte_for_byte(tmp_path: Path) -> None:
    message = MESSAGE + b"\0\xff\r\n" + b"x" * 5000 + b"\r\n--\r\n"
    Capture(message=message).store_in(tmp_path)
    assert original(tmp_path) == message


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_copy_is_plain_gzip_whatever_library_compresses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    monkeypatch.setattr(copy_file, "_library", zlib)  # is set back afterwards
    monkeypatch.setattr(copy_file, "_level", copy_file.GZIP_LEVEL)
    if not is_installed:
        monkeypatch.setitem(sys.modules, "isal", None)
    copy_file.select_compression()
    assert (copy_file._library is isal_zlib) == is_installed
    message = MESSAGE + 3 * os.urandom(copy_file.BLOCK_SIZE)
    capture = Capture(message=message)
    capture.store_in(tmp_path)
    content = (tmp_path / LEGAL / NAME).read_bytes()
    assert content[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # no name, no time
    assert gzip.decompress(content) == capture.copy
    assert original(tmp_path) == message


def test_an_empty_original_comes_back(tmp_path: Path) -> None:
    Capture(message=b"").store_in(tmp_path)
    assert original(tmp_path) == b""


def test_a_copy_in_many_pieces_is_one_file(tmp_path: Path) -> None:
    capture = Capture(message=MESSAGE + os.urandom(300000).hex().encode() + b"\r\n")
    copy = capture.copy
    pieces = (copy[offset : offset + 999] for offset in range(0, len(copy), 999))
    archive = Archive(str(tmp_path), LEGAL)
    archive.store_copy(capture.capture, pieces, TIME)
    assert b"".join(copy_file.decompress(archive.path(NAME), LIMIT)) == copy
    assert_committed(tmp_path)


def test_a_used_store_that_is_empty_is_not_begun_anew_but_one_elsewhere_is(
    tmp_path: Path,
) -> None:
    markers = tmp_path / "markers"
    markers.mkdir()
    capture = Capture()

    def store_in(name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        archive = Archive(str(tmp_path / name), LEGAL, marker_directory=str(markers))
        archive.store_copy(capture.capture, [capture.copy], TIME)

    store_in("first")
    (tmp_path / "first").rename(tmp_path / "not mounted")
    with pytest.raises(StoreFailed, match="first is empty but was in use"):
        store_in("first")
    store_in("moved")
    (tmp_path / "moved").rename(tmp_path / "not mounted either")
    with pytest.raises(StoreFailed, match="moved is empty but was in use"):
        store_in("moved")
    (markers / "store-seen").write_text("")  # as earlier versions wrote it
    with pytest.raises(StoreFailed, match="is empty but was in use"):
        store_in("third")


def test_keeping_twice_is_keeping_once(tmp_path: Path) -> None:
    for _ in range(3):
        assert Capture().store_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived"]
    assert archived_files(tmp_path) == [NAME]
    assert drafts(tmp_path) == []


def test_a_second_piece_adds_its_recipients_to_the_record(tmp_path: Path) -> None:
    assert Capture(BOB).store_in(tmp_path) == {"archived"}
    assert Capture(EVE).store_in(tmp_path) == {"supplement"}
    assert Capture(EVE).store_in(tmp_path) == {"supplement"}
    assert Capture(BOB).store_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived", "supplement"]
    assert archived_files(tmp_path) == [NAME]
    assert finals(record(tmp_path)) == {BOB, EVE}


def test_26_pieces_are_one_record(tmp_path: Path) -> None:
    addresses = [b"r%02d@example.com" % number for number in range(26)]
    for each in addresses:
        Capture(each).store_in(tmp_path)
    assert len(list(record_reader.records(str(tmp_path), LEGAL))) == 1
    assert finals(record(tmp_path)) == set(addresses)


def test_another_message_is_another_record(tmp_path: Path) -> None:
    other = "20261123-" + "b2" * 20
    Capture().store_in(tmp_path)
    Capture(message=b"other\r\n", archive_id=other).store_in(tmp_path)
    stored_records = record_reader.records(str(tmp_path), LEGAL)
    assert [each.archive_id for each in stored_records] == [ARCHIVE_ID, other]
    assert archived_files(tmp_path) == [NAME, f"2026/11/23/{other}.eml.gz"]


def test_a_second_original_of_one_id_stands_beside_the_first(tmp_path: Path) -> None:
    relayed = b"X-Above: y\r\n" + MESSAGE
    first = make_request(
        verdict="valid", stamp_id=ARCHIVE_ID, offset=len(b"X-Above: y\r\n")
    )
    other = "20261123-" + "b2" * 20
    Capture(EVE, message=relayed, request=first, archive_id=other).store_in(tmp_path)
    for _ in range(2):
        Capture(BOB).store_in(tmp_path)
    variant = hashlib.sha256(MESSAGE).hexdigest()[:12]
    second_name = f"2026/11/22/{ARCHIVE_ID}.{variant}.eml.gz"
    assert archived_files(tmp_path) == sorted([NAME, second_name])
    assert_committed(tmp_path)
    assert_committed(tmp_path, second_name)
    assert record(tmp_path).files == [NAME, second_name]
    assert finals(record(tmp_path)) == {BOB, EVE}


def test_a_stamped_message_that_comes_back_adds_what_stands_above(
    tmp_path: Path,
) -> None:
    Capture(BOB).store_in(tmp_path)
    above = b"Received: from a list\r\nX-Hidden: gr\xfcn\r\n"
    stamped_request = make_request(
        verdict="valid", stamp_id=ARCHIVE_ID, offset=len(above)
    )
    later = Capture(
        EVE,
        message=above + MESSAGE,
        request=stamped_request,
        archive_id="20261123-" + "b2" * 20,
    )
    archive = Archive(str(tmp_path), LEGAL)
    for _ in range(2):
        archive.add_supplement(later.capture, TIME)
    assert kinds(tmp_path) == ["archived", "supplement"]
    line = events(tmp_path)[1]
    assert line["above"].encode("utf-8", "surrogateescape") == above
    assert (line["id"], line["stamp"]) == (ARCHIVE_ID, "valid")
    assert finals(record(tmp_path)) == {BOB, EVE}


def test_a_copy_costs_three_fsyncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its bytes, its name and its line: docs/store-format.md says why."""
    synced: list[str] = []
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        plain(descriptor)

    Capture(BOB, archive_id="20261122-" + 40 * "1").store_in(tmp_path)  # mkdir
    monkeypatch.setattr("posix.fsync", fsync)
    assert Capture(BOB).store_in(tmp_path) == {"archived"}
    directory = f"{tmp_path}/{LEGAL}"
    draft, day, line = synced
    assert draft.startswith(f"{directory}/drafts/")
    assert (day, line) == (f"{directory}/2026/11/22", f"{directory}/journal/2026-11")


def test_a_mailed_copy_is_recorded_with_its_queue_id(tmp_path: Path) -> None:
    capture = Capture()
    capture.store_in(tmp_path)
    Archive(str(tmp_path), LEGAL).record_mailed(capture.capture, TIME, "4Zx 4Zy")
    assert events(tmp_path)[1]["queued_as"] == "4Zx 4Zy"
    assert capture.store_in(tmp_path) == {"archived", "mailed"}


@pytest.mark.parametrize("is_piece", [False, True])
@pytest.mark.parametrize("size", [1, 100, 5000, 20_000])
def test_a_copy_that_comes_again_after_days_is_neither_recorded_nor_mailed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, is_piece: bool
) -> None:
    """The other archive of its capsule was away; the journal has grown meanwhile."""
    archive = Archive(str(tmp_path), LEGAL)
    capture = Capture()
    if is_piece:
        capture.store_in(tmp_path)
        capture = Capture(EVE)
    events_of_capsule = capture.store_in(tmp_path)
    archive.record_mailed(capture.capture, TIME, "4Zx")
    for number in range(20):
        Capture(archive_id=f"20261123-{number:040x}").store_in(tmp_path)
    count = len(events(tmp_path))
    monkeypatch.setattr(journal, "RECENT_SIZE", size)
    assert capture.store_in(tmp_path) == {*events_of_capsule, "mailed"}
    assert len(events(tmp_path)) == count


def test_the_store_knows_what_it_has(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), LEGAL)
    assert not archive.has_copy(ARCHIVE_ID)
    Capture().store_in(tmp_path)
    assert archive.has_copy(ARCHIVE_ID)
    assert not archive.has_copy("20261123-" + "b2" * 20)


def test_two_archives_do_not_touch_each_other(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    Archive(str(tmp_path), examples.HR).store_copy(Capture().capture, [b"x"], TIME)
    assert record_reader.archives(str(tmp_path)) == [examples.HR, LEGAL]
    assert kinds(tmp_path) == ["archived"]


# Crashes ---------------------------------------------------------------------------


def crash_before_the_journal_line(directory: Path, journal_before: bytes) -> None:
    """As after a crash between the link of the file and its line in the journal."""
    journal_path(directory).write_bytes(journal_before)
    (directory / LEGAL / NAME).chmod(0o600)


def test_a_file_without_its_line_gets_it_from_the_retry(tmp_path: Path) -> None:
    capture = Capture(BOB, EVE)
    capture.store_in(tmp_path)
    (before,) = events(tmp_path)
    crash_before_the_journal_line(tmp_path, b"")
    assert capture.store_in(tmp_path) == {"archived"}
    (after,) = events(tmp_path)
    for key in ("id", "capsule", "file", "file_sha256", "sha256", "size", "envelope"):
        assert after[key] == before[key]
    assert_committed(tmp_path)
    assert original(tmp_path) == MESSAGE


def test_a_file_without_its_line_gets_it_from_another_piece(tmp_path: Path) -> None:
    Capture(BOB).store_in(tmp_path)
    crash_before_the_journal_line(tmp_path, b"")
    assert Capture(EVE).store_in(tmp_path) == {"supplement"}
    assert_committed(tmp_path)
    assert kinds(tmp_path) == ["archived", "supplement"]
    assert finals(record(tmp_path)) == {BOB, EVE}
    assert Capture(BOB).store_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived", "supplement"]


def test_a_file_without_its_line_gets_it_from_a_later_pass(tmp_path: Path) -> None:
    Capture(BOB).store_in(tmp_path)
    crash_before_the_journal_line(tmp_path, b"")
    stamped_request = make_request(verdict="valid", stamp_id=ARCHIVE_ID, offset=0)
    later = Capture(EVE, request=stamped_request, archive_id="20261123-" + "b2" * 20)
    Archive(str(tmp_path), LEGAL).add_supplement(later.capture, TIME)
    assert_committed(tmp_path)
    assert finals(record(tmp_path)) == {BOB, EVE}


def test_a_recovered_line_has_the_verdict_on_the_stamp(tmp_path: Path) -> None:
    capture = Capture(request=make_request(verdict="forged"))
    capture.store_in(tmp_path)
    crash_before_the_journal_line(tmp_path, b"")
    capture.store_in(tmp_path)
    assert events(tmp_path)[0]["stamp"] == "forged"


def test_an_original_altered_in_the_queue_survives_a_crash_unchanged(
    tmp_path: Path,
) -> None:
    capture = Capture(received=MESSAGE + b"altered in the queue\r\n")
    capture.store_in(tmp_path)
    (before,) = events(tmp_path)
    assert original(tmp_path) == capture.received
    crash_before_the_journal_line(tmp_path, b"")
    capture.store_in(tmp_path)
    (after,) = events(tmp_path)
    assert (after["sha256"], after["size"]) == (before["sha256"], before["size"])
    assert original(tmp_path) == capture.received


def test_a_line_without_the_commit_of_its_file_is_committed(tmp_path: Path) -> None:
    capture = Capture()
    capture.store_in(tmp_path)
    (tmp_path / LEGAL / NAME).chmod(0o600)
    assert capture.store_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived"]
    assert_committed(tmp_path)


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_what_a_dead_run_wrote_is_synced_before_it_counts(
    tmp_path: Path, synced_paths: list[str], mode: int
) -> None:
    """It may have died between write and fsync; the retry says that all is kept."""
    capture = Capture()
    capture.store_in(tmp_path)
    (tmp_path / LEGAL / NAME).chmod(mode)
    synced_paths.clear()
    assert capture.store_in(tmp_path) == {"archived"}
    assert f"{tmp_path}/{LEGAL}/journal/2026-11" in synced_paths
    if mode == 0o600:
        assert str((tmp_path / LEGAL / NAME).parent) in synced_paths


def test_a_torn_line_of_a_copy_is_written_again_by_the_retry(tmp_path: Path) -> None:
    """A line that a crash tore at any byte was promised to nobody: it is no line."""
    first = Capture(archive_id="20261121-" + "d4" * 20, message=b"first\r\n")
    capture = Capture(BOB, EVE)
    first.store_in(tmp_path)
    before = journal_path(tmp_path).read_bytes()
    capture.store_in(tmp_path)
    line = journal_path(tmp_path).read_bytes()[len(before) :]
    failures = []
    for length in range(0, len(line) - 1, 7):
        crash_before_the_journal_line(tmp_path, before + line[:length])
        try:
            capture.store_in(tmp_path)
            assert_committed(tmp_path)
            assert finals(record(tmp_path)) == {BOB, EVE}
        except (AssertionError, ArchiveError, ValueError) as problem:
            failures.append((length, repr(problem)[:60]))
    assert not failures


def test_a_torn_supplement_is_written_again_by_the_retry(tmp_path: Path) -> None:
    Capture(BOB).store_in(tmp_path)
    before = journal_path(tmp_path).read_bytes()
    Capture(EVE).store_in(tmp_path)
    line = journal_path(tmp_path).read_bytes()[len(before) :]
    failures = []
    for length in range(0, len(line) - 1, 7):
        journal_path(tmp_path).write_bytes(before + line[:length])
        Capture(EVE).store_in(tmp_path)
        if finals(record(tmp_path)) != {BOB, EVE}:
            failures.append(length)
    assert not failures


def test_a_draft_that_a_crash_left_disturbs_nothing(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    draft = tmp_path / LEGAL / "drafts" / "1-0000"
    draft.write_bytes(b"half a co")
    Capture(EVE).store_in(tmp_path)
    assert kinds(tmp_path) == ["archived", "supplement"]
    assert draft.exists()


def test_a_crash_while_the_copy_is_read_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield b"first half"
        raise StoreFailed("the message has lost its end")

    archive = Archive(str(tmp_path), LEGAL)
    with pytest.raises(StoreFailed):
        archive.store_copy(Capture().capture, broken(), TIME)
    assert drafts(tmp_path) == []
    assert archived_files(tmp_path) == []
    assert Capture().store_in(tmp_path) == {"archived"}


def test_a_full_disk_leaves_nothing_and_a_retry_keeps_the_copy(tmp_path: Path) -> None:
    capture = Capture(message=MESSAGE + os.urandom(50000).hex().encode() + b"\r\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, hard))
    try:
        with pytest.raises(StoreFailed, match="check its file system"):
            capture.store_in(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert drafts(tmp_path) == []
    assert archived_files(tmp_path) == []
    assert capture.store_in(tmp_path) == {"archived"}
    assert_committed(tmp_path)


def test_a_store_that_is_no_directory_defers(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    archive = Archive(f"{tmp_path}/store", LEGAL)
    with pytest.raises(StoreFailed):
        archive.store_copy(Capture().capture, [b"x"], TIME)


# Damage ----------------------------------------------------------------------------


def damage_file(directory: Path, content: bytes) -> str:
    path = directory / LEGAL / NAME
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)
    return str(path)


def test_a_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    complete = (tmp_path / LEGAL / NAME).read_bytes()
    for length in (0, 1, 10, len(complete) // 2, len(complete) - 1):
        path = damage_file(tmp_path, complete[:length])
        with pytest.raises(RecordDamaged, match="gzip -t"):
            list(copy_file.decompress(path, LIMIT))


def test_a_file_with_a_wrong_byte_is_damaged(tmp_path: Path) -> None:
    Capture().store_in(tmp_path)
    content = bytearray((tmp_path / LEGAL / NAME).read_bytes())
    content[len(content) // 2] ^= 0x55
    path = damage_file(tmp_path, bytes(content))
    with pytest.raises(RecordDamaged, match="gzip -t"):
        list(copy_file.decompress(path, LIMIT))


def test_a_file_that_cannot_be_looked_at_is_a_failure_of_the_store(
    tmp_path: Path,
) -> None:
    """For which the fallback directory is tried, as for every other one."""
    for name in ("none.eml.gz", "file/x.eml.gz"):
        (tmp_path / "file").touch()
        with pytest.raises(StoreFailed, match="check its file system"):
            copy_file.is_committed(str(tmp_path / name))


def test_a_missing_file_is_named_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="check its file system"):
        list(copy_file.decompress(f"{tmp_path}/none.eml.gz", LIMIT))


def test_a_large_copy_is_unpacked_in_small_blocks(tmp_path: Path) -> None:
    """64 MB of zeroes must not stand in memory, whatever gzip makes of them."""
    path = tmp_path / "zeroes.eml.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    blocks = [len(each) for each in copy_file.decompress(str(path), LIMIT)]
    assert sum(blocks) == 64 << 20
    assert max(blocks) <= 1 << 20
    blocks.clear()
    with pytest.raises(RecordDamaged, match="more than its record"):
        for each in copy_file.decompress(str(path), 32 << 20):
            blocks.append(len(each))
    assert sum(blocks) <= 32 << 20


def test_a_damaged_file_makes_mail_in_flight_wait(tmp_path: Path) -> None:
    """keep() looks into the file that is there: what it raises must mean wait."""
    Capture(BOB).store_in(tmp_path)
    damage_file(tmp_path, b"no gzip")
    with pytest.raises(ArchiveError) as excinfo:
        Capture(EVE).store_in(tmp_path)
    assert excinfo.value.dsn.startswith("4.")


def test_a_stored_copy_contains_what_the_store_was_given(tmp_path: Path) -> None:
    odd_addresses = [
        b'"a;b"@x.example',
        "grün@x.example".encode(),
        b"l\xfc@x.example",
        b"a\r\nb@x",
    ]
    capture = Capture(*odd_addresses)
    capture.store_in(tmp_path)
    read_capture = copy_file.read_capture(str(tmp_path / LEGAL / NAME), LEGAL)
    given_capture = capture.capture
    assert (
        read_capture.record_id,
        read_capture.capsule_id,
        read_capture.envelope_fields,
    ) == (
        given_capture.record_id,
        given_capture.capsule_id,
        given_capture.envelope_fields,
    )
    assert (read_capture.sha256, read_capture.size) == (
        given_capture.sha256,
        given_capture.size,
    )


@pytest.mark.parametrize(
    ("archive_id", "variant", "name"),
    [
        (ARCHIVE_ID, "", NAME),
        (ARCHIVE_ID, "abc", f"2026/11/22/{ARCHIVE_ID}.abc.eml.gz"),
    ],
)
def test_the_path_of_a_record_follows_from_its_id(
    archive_id: str, variant: str, name: str
) -> None:
    assert copy_file.copy_name(archive_id, variant) == name


def test_wire_and_store_agree_on_the_bytes(tmp_path: Path) -> None:
    with_lf = b"Subject: x\n\n.dot\nlast line without its end"
    message = b"".join(smtp_data.to_canonical([with_lf]))
    Capture(message=message).store_in(tmp_path)
    assert original(tmp_path) == message


# --- outcomes, and their reports -----------------------------------------------------

COVERED_DIGEST = "cd" * 32
REPORT_NAME = NAME.replace(".eml.gz", ".outcome.eml.gz")
SECOND_NAME = NAME.replace(".eml.gz", ".outcome-2.eml.gz")


def store_once(directory: Path) -> Archive:
    Capture().store_in(directory)
    return Archive(str(directory), LEGAL)


def build_report(covered: str = COVERED_DIGEST) -> bytes:
    """As much of an outcome report as the store reads."""
    return (
        b"Content-Type: multipart/report; boundary=x\r\n\r\n"
        b"\r\n--=_archive_x\r\nContent-Type: message/delivery-status\r\n\r\n"
        b"Archive-Id: x\r\nArchive-Outcomes: %s\r\n\r\n--=_archive_x--\r\n"
        % covered.encode()
    )


def store_report(directory: Path, covered: str = COVERED_DIGEST) -> str:
    archive = Archive(str(directory), LEGAL)
    return archive.store_outcome_report(
        ARCHIVE_ID, [build_report(covered)], covered, TIME
    )


def for_record(outcomes: list[outcome.Outcome]) -> list[tuple[str, outcome.Outcome]]:
    return [(ARCHIVE_ID, each) for each in outcomes]


def test_outcomes_are_recorded_once_and_with_one_fsync(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    archive = store_once(tmp_path)
    outcomes = [make_outcome(f"r{number}@example.com") for number in range(50)]
    synced_paths.clear()
    assert archive.record_outcomes(for_record(outcomes), TIME) == 50
    assert synced_paths.count(str(journal_path(tmp_path))) == 1
    assert archive.record_outcomes(for_record(outcomes[:20]), TIME) == 0
    repeated = [
        outcomes[3],
        make_outcome("r3@example.com", "failed"),
        make_outcome("x@example.com"),
    ]
    assert archive.record_outcomes(for_record(repeated), "2027-01-01T00:00:00Z") == 2
    assert kinds(tmp_path) == ["archived"] + ["outcome"] * 52
    assert record(tmp_path).results.counts_by_kind == {"unknown": 1}  # Bob's


def test_an_outcome_reads_back_as_it_was_recorded(tmp_path: Path) -> None:
    odd = make_outcome(
        "b\udcfcb", "failed", reply='550 "no" \\ \x07', tries=4, parent="a b"
    )
    store_once(tmp_path).record_outcomes(for_record([odd]), TIME)
    assert journal_event.parse_outcome(record(tmp_path).events[1]) == odd


def test_outcomes_of_many_records_go_in_one_batch(tmp_path: Path) -> None:
    other = "20261123-" + "b2" * 20
    archive = store_once(tmp_path)
    Capture(message=MESSAGE + b"x\r\n", archive_id=other).store_in(tmp_path)
    pairs = [
        (ARCHIVE_ID, make_outcome(BOB.decode())),
        (other, make_outcome(BOB.decode(), "failed")),
    ]
    assert archive.record_outcomes(pairs, TIME) == 2
    all_records = list(record_reader.records(str(tmp_path), LEGAL))
    assert [each.results.overall_kind for each in all_records] == [
        "delivered",
        "failed",
    ]
    selected = record_reader.find_record(str(tmp_path), other, LEGAL)
    assert selected.archive_id == other
    assert selected.events == all_records[1].events


def test_a_report_stands_beside_the_copy(
    tmp_path: Path, synced_paths: list[str]
) -> None:
    store_once(tmp_path)
    synced_paths.clear()
    assert store_report(tmp_path) == REPORT_NAME
    path = tmp_path / LEGAL / REPORT_NAME
    assert gzip.decompress(path.read_bytes()) == build_report()
    assert path.stat().st_mode & 0o777 == 0o400
    event = events(tmp_path)[-1]
    assert event["event"] == "outcome-report"
    assert (event["id"], event["file"]) == (ARCHIVE_ID, REPORT_NAME)
    assert event["covers"] == COVERED_DIGEST
    assert event["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path.parent) in synced_paths
    assert not list((tmp_path / LEGAL / "drafts").iterdir())
    assert record(tmp_path).reports == {REPORT_NAME: COVERED_DIGEST}
    assert record(tmp_path).files == [NAME]


def test_the_same_report_is_stored_once_and_another_beside_it(tmp_path: Path) -> None:
    store_once(tmp_path)
    assert store_report(tmp_path) == store_report(tmp_path) == REPORT_NAME
    assert store_report(tmp_path, "ef" * 32) == SECOND_NAME
    assert store_report(tmp_path) == REPORT_NAME
    assert store_report(tmp_path, "ef" * 32) == SECOND_NAME
    assert kinds(tmp_path) == ["archived", "outcome-report", "outcome-report"]
    third = store_report(tmp_path, "01" * 32)
    assert third == NAME.replace(".eml.gz", ".outcome-3.eml.gz")


@pytest.mark.parametrize("covered_digest", [COVERED_DIGEST, "ef" * 32])
def test_a_report_without_its_line_gets_it(tmp_path: Path, covered_digest: str) -> None:
    """A crash between file and line: the next run adds the line, also another's."""
    store_once(tmp_path)
    before = journal_path(tmp_path).read_bytes()
    store_report(tmp_path)
    path = tmp_path / LEGAL / REPORT_NAME
    journal_path(tmp_path).write_bytes(before)
    path.chmod(0o600)
    name = store_report(tmp_path, covered_digest)
    assert name == (REPORT_NAME if covered_digest == COVERED_DIGEST else SECOND_NAME)
    first = events(tmp_path)[1]
    assert (first["event"], first["covers"]) == ("outcome-report", COVERED_DIGEST)
    assert first["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o400
    assert kinds(tmp_path).count("outcome-report") == (
        1 if covered_digest == COVERED_DIGEST else 2
    )


def test_a_report_with_its_line_and_the_mode_of_a_new_one_gets_no_second_line(
    tmp_path: Path,
) -> None:
    store_once(tmp_path)
    store_report(tmp_path)
    path = tmp_path / LEGAL / REPORT_NAME
    path.chmod(0o600)
    assert store_report(tmp_path) == REPORT_NAME
    assert kinds(tmp_path) == ["archived", "outcome-report"]
    assert path.stat().st_mode & 0o777 == 0o400


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    store_once(tmp_path)
    store_report(tmp_path)
    path = tmp_path / LEGAL / REPORT_NAME
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreFailed, match="truncated gzip file"):
        store_report(tmp_path)


def test_the_mail_of_a_report_is_recorded(tmp_path: Path) -> None:
    store_once(tmp_path).record_report_mailed(ARCHIVE_ID, REPORT_NAME, TIME, "4Zmail")
    event = events(tmp_path)[-1]
    assert (event["event"], event["queued_as"]) == ("outcome-mailed", "4Zmail")
    assert record(tmp_path).mailed == {REPORT_NAME}
