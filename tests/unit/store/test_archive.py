"""Claims about the store: what it takes it has, and twice is once.

A crash is made by hand here: the files are put into the state between two steps.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.archive_transport import copy_plan
from postfix_archive.errors import ArchiveError, RecordDamaged, StoreFailed
from postfix_archive.message import archive_copy, envelope, smtp_data
from postfix_archive.message.envelope import Envelope, Recipient, Request
from postfix_archive.store import (
    copy_file,
    journal_event,
    outcome,
    record_reader,
)
from postfix_archive.store.archive import Archive
from postfix_archive.store.record import Record

from unit import examples
from unit.examples import (
    ARCHIVE_ID,
    KEYS,
    LEGAL,
    MESSAGE,
    asked,
    envelope_of,
    facts,
    opened,
)
from unit.store.test_outcome_summary import became

TIME = "2026-11-22T11:53:00Z"
NAME = f"2026/11/22/{ARCHIVE_ID}.eml.gz"
BOB, EVE = b"bob@example.com", b"eve@example.com"
FROM = b"postfix-archive@mail.example.com"


class Capture:
    """One capsule as it comes to the archive transport."""

    def __init__(
        self,
        *people: bytes,
        message: bytes = MESSAGE,
        came: bytes | None = None,
        request: Request | None = None,
        archive_id: str = ARCHIVE_ID,
    ) -> None:
        self.came = message if came is None else came
        self.request = request or asked()
        everybody = tuple(map(Recipient, people or (BOB,)))
        self.sealed: Envelope = envelope_of(
            message,
            archive_id=archive_id,
            recipients=everybody,
            requests=(self.request,),
        )
        self.opened = opened(self.sealed)
        self.digest = examples.sha256(self.came).hex()

    @property
    def piece(self) -> copy_file.Capture:
        return copy_file.Capture(
            record_id=copy_plan.record_id(self.opened, self.request),
            capsule_id=self.opened.capsule_id,
            envelope_fields=self.opened.fields,
            sha256=self.digest,
            size=len(self.came),
            verdict=self.request.verdict,
            lines_above=copy_plan.header_above_stamp(self.came, self.request),
        )

    @property
    def copy(self) -> bytes:
        shape = examples.shape(self.came)
        found = copy_plan.build_report(
            self.opened,
            self.request,
            self.came,
            shape,
            sha256=self.digest,
            size=len(self.came),
        )
        boundary = archive_copy.make_boundary(self.piece.record_id, self.digest, KEYS)
        around = archive_copy.build(found, "hybrid", sender=FROM, boundary=boundary)
        return around.preamble + self.came + around.trailer

    def kept_in(self, folder: Path) -> set[str]:
        archive = Archive(str(folder), LEGAL)
        return archive.store_copy(self.piece, [self.copy], TIME)


def journal(folder: Path) -> Path:
    return folder / LEGAL / "journal"


def events(folder: Path) -> list[dict[str, Any]]:
    """The lines of the journal that can be read."""
    found = []
    for line in journal(folder).read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def kinds(folder: Path) -> list[str]:
    return [each["event"] for each in events(folder)]


def record(folder: Path, archive_id: str = ARCHIVE_ID) -> Record:
    return record_reader.find_record(str(folder), archive_id, None)


def finals(found: Record) -> set[bytes]:
    return {each.final for each in found.recipients.values()}


def original(folder: Path) -> bytes:
    return b"".join(record_reader.original(str(folder), record(folder)))


def kept_files(folder: Path) -> list[str]:
    top = folder / LEGAL
    return sorted(str(each.relative_to(top)) for each in top.rglob("*.eml.gz"))


def drafts(folder: Path) -> list[Path]:
    return list((folder / LEGAL / "drafts").iterdir())


def assert_committed(folder: Path, name: str = NAME) -> None:
    """The file is read-only, and one whole line of the journal names it, truly."""
    path = folder / LEGAL / name
    assert path.stat().st_mode & 0o777 == 0o400
    (line,) = [each for each in events(folder) if each.get("file") == name]
    assert line["event"] == "archived"
    assert line["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_kept_can_be_read_with_gzip_alone(tmp_path: Path) -> None:
    capture = Capture()
    assert capture.kept_in(tmp_path) == {"archived"}
    assert gzip.decompress((tmp_path / LEGAL / NAME).read_bytes()) == capture.copy
    assert_committed(tmp_path)
    assert drafts(tmp_path) == []


def test_the_line_in_the_journal_holds_the_envelope(tmp_path: Path) -> None:
    capture = Capture(BOB, EVE)
    capture.kept_in(tmp_path)
    (line,) = events(tmp_path)
    assert line["id"] == ARCHIVE_ID
    assert line["capsule"] == capture.opened.capsule_id
    assert line["sha256"] == hashlib.sha256(MESSAGE).hexdigest()
    assert line["size"] == len(MESSAGE)
    assert line["stamp"] == "absent"
    told = envelope.parse(line["envelope"].encode())
    assert facts(told) == facts(capture.sealed)


def test_the_original_comes_back_byte_for_byte(tmp_path: Path) -> None:
    message = MESSAGE + b"\0\xff\r\n" + b"x" * 5000 + b"\r\n--\r\n"
    Capture(message=message).kept_in(tmp_path)
    assert original(tmp_path) == message


def test_an_empty_original_comes_back(tmp_path: Path) -> None:
    Capture(message=b"").kept_in(tmp_path)
    assert original(tmp_path) == b""


def test_a_copy_in_many_pieces_is_kept_as_one(tmp_path: Path) -> None:
    capture = Capture(message=MESSAGE + os.urandom(300000).hex().encode() + b"\r\n")
    copy = capture.copy
    pieces = (copy[at : at + 999] for at in range(0, len(copy), 999))
    archive = Archive(str(tmp_path), LEGAL)
    archive.store_copy(capture.piece, pieces, TIME)
    assert b"".join(copy_file.decompress(archive.path(NAME))) == copy
    assert_committed(tmp_path)


def test_keeping_twice_is_keeping_once(tmp_path: Path) -> None:
    for _ in range(3):
        assert Capture().kept_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived"]
    assert kept_files(tmp_path) == [NAME]
    assert drafts(tmp_path) == []


def test_a_second_piece_adds_its_recipients_to_the_record(tmp_path: Path) -> None:
    assert Capture(BOB).kept_in(tmp_path) == {"archived"}
    assert Capture(EVE).kept_in(tmp_path) == {"supplement"}
    assert Capture(EVE).kept_in(tmp_path) == {"supplement"}
    assert Capture(BOB).kept_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived", "supplement"]
    assert kept_files(tmp_path) == [NAME]
    assert finals(record(tmp_path)) == {BOB, EVE}


def test_26_pieces_are_one_record(tmp_path: Path) -> None:
    people = [b"r%02d@example.com" % number for number in range(26)]
    for each in people:
        Capture(each).kept_in(tmp_path)
    assert len(list(record_reader.records(str(tmp_path), LEGAL))) == 1
    assert finals(record(tmp_path)) == set(people)


def test_another_message_is_another_record(tmp_path: Path) -> None:
    other = "20261123-" + "b2" * 20
    Capture().kept_in(tmp_path)
    Capture(message=b"other\r\n", archive_id=other).kept_in(tmp_path)
    found = record_reader.records(str(tmp_path), LEGAL)
    assert [each.archive_id for each in found] == [ARCHIVE_ID, other]
    assert kept_files(tmp_path) == [NAME, f"2026/11/23/{other}.eml.gz"]


def test_a_second_original_of_one_id_stands_beside_the_first(tmp_path: Path) -> None:
    relayed = b"X-Above: y\r\n" + MESSAGE
    first = asked(verdict="valid", stamp_id=ARCHIVE_ID, above=len(b"X-Above: y\r\n"))
    other = "20261123-" + "b2" * 20
    Capture(EVE, message=relayed, request=first, archive_id=other).kept_in(tmp_path)
    for _ in range(2):
        Capture(BOB).kept_in(tmp_path)
    variant = hashlib.sha256(MESSAGE).hexdigest()[:12]
    beside = f"2026/11/22/{ARCHIVE_ID}.{variant}.eml.gz"
    assert kept_files(tmp_path) == sorted([NAME, beside])
    assert_committed(tmp_path)
    assert_committed(tmp_path, beside)
    assert record(tmp_path).files == [NAME, beside]
    assert finals(record(tmp_path)) == {BOB, EVE}


def test_a_stamped_message_that_comes_back_adds_what_stands_above(
    tmp_path: Path,
) -> None:
    Capture(BOB).kept_in(tmp_path)
    above = b"Received: from a list\r\nX-Hidden: gr\xfcn\r\n"
    again = asked(verdict="valid", stamp_id=ARCHIVE_ID, above=len(above))
    later = Capture(
        EVE,
        message=above + MESSAGE,
        request=again,
        archive_id="20261123-" + "b2" * 20,
    )
    archive = Archive(str(tmp_path), LEGAL)
    for _ in range(2):
        archive.add_supplement(later.piece, TIME)
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

    Capture(BOB, archive_id="20261122-" + 40 * "1").kept_in(tmp_path)  # makes folders
    monkeypatch.setattr("posix.fsync", fsync)
    assert Capture(BOB).kept_in(tmp_path) == {"archived"}
    folder = f"{tmp_path}/{LEGAL}"
    draft, day, line = synced
    assert draft.startswith(f"{folder}/drafts/")
    assert (day, line) == (f"{folder}/2026/11/22", f"{folder}/journal")


def test_a_mailed_copy_is_recorded_with_its_queue_id(tmp_path: Path) -> None:
    capture = Capture()
    capture.kept_in(tmp_path)
    Archive(str(tmp_path), LEGAL).record_mailed(capture.piece, TIME, "4Zx 4Zy")
    assert events(tmp_path)[1]["queued_as"] == "4Zx 4Zy"
    assert capture.kept_in(tmp_path) == {"archived", "mailed"}


def test_the_store_knows_what_it_has(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), LEGAL)
    assert not archive.has_copy(ARCHIVE_ID)
    Capture().kept_in(tmp_path)
    assert archive.has_copy(ARCHIVE_ID)
    assert not archive.has_copy("20261123-" + "b2" * 20)


def test_two_archives_do_not_touch_each_other(tmp_path: Path) -> None:
    Capture().kept_in(tmp_path)
    Archive(str(tmp_path), examples.HR).store_copy(Capture().piece, [b"x"], TIME)
    assert record_reader.archives(str(tmp_path)) == [examples.HR, LEGAL]
    assert kinds(tmp_path) == ["archived"]


def test_an_undated_record_has_a_folder_of_its_own(tmp_path: Path) -> None:
    undated = "00000000-" + "c3" * 20
    Capture(archive_id=undated).kept_in(tmp_path)
    assert kept_files(tmp_path) == [f"undated/{undated}.eml.gz"]


# Crashes ---------------------------------------------------------------------------


def crash_before_the_line(folder: Path, journal_before: bytes) -> None:
    """As after a crash between the link of the file and its line in the journal."""
    journal(folder).write_bytes(journal_before)
    (folder / LEGAL / NAME).chmod(0o600)


def test_a_file_without_its_line_gets_it_from_the_retry(tmp_path: Path) -> None:
    capture = Capture(BOB, EVE)
    capture.kept_in(tmp_path)
    (before,) = events(tmp_path)
    crash_before_the_line(tmp_path, b"")
    assert capture.kept_in(tmp_path) == {"archived"}
    (after,) = events(tmp_path)
    for word in ("id", "capsule", "file", "file_sha256", "sha256", "size", "envelope"):
        assert after[word] == before[word]
    assert_committed(tmp_path)
    assert original(tmp_path) == MESSAGE


def test_a_file_without_its_line_gets_it_from_another_piece(tmp_path: Path) -> None:
    Capture(BOB).kept_in(tmp_path)
    crash_before_the_line(tmp_path, b"")
    assert Capture(EVE).kept_in(tmp_path) == {"supplement"}
    assert_committed(tmp_path)
    assert kinds(tmp_path) == ["archived", "supplement"]
    assert finals(record(tmp_path)) == {BOB, EVE}
    assert Capture(BOB).kept_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived", "supplement"]


def test_a_file_without_its_line_gets_it_from_a_later_pass(tmp_path: Path) -> None:
    Capture(BOB).kept_in(tmp_path)
    crash_before_the_line(tmp_path, b"")
    again = asked(verdict="valid", stamp_id=ARCHIVE_ID, above=0)
    later = Capture(EVE, request=again, archive_id="20261123-" + "b2" * 20)
    Archive(str(tmp_path), LEGAL).add_supplement(later.piece, TIME)
    assert_committed(tmp_path)
    assert finals(record(tmp_path)) == {BOB, EVE}


def test_a_recovered_line_tells_what_the_stamp_said(tmp_path: Path) -> None:
    capture = Capture(request=asked(verdict="forged"))
    capture.kept_in(tmp_path)
    crash_before_the_line(tmp_path, b"")
    capture.kept_in(tmp_path)
    assert events(tmp_path)[0]["stamp"] == "forged"


def test_an_original_altered_in_the_queue_survives_a_crash_whole(
    tmp_path: Path,
) -> None:
    capture = Capture(came=MESSAGE + b"altered in the queue\r\n")
    capture.kept_in(tmp_path)
    (before,) = events(tmp_path)
    assert original(tmp_path) == capture.came
    crash_before_the_line(tmp_path, b"")
    capture.kept_in(tmp_path)
    (after,) = events(tmp_path)
    assert (after["sha256"], after["size"]) == (before["sha256"], before["size"])
    assert original(tmp_path) == capture.came


def test_a_line_without_the_commit_of_its_file_is_committed(tmp_path: Path) -> None:
    capture = Capture()
    capture.kept_in(tmp_path)
    (tmp_path / LEGAL / NAME).chmod(0o600)
    assert capture.kept_in(tmp_path) == {"archived"}
    assert kinds(tmp_path) == ["archived"]
    assert_committed(tmp_path)


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_what_a_dead_run_wrote_is_synced_before_it_counts(
    tmp_path: Path, synced: list[str], mode: int
) -> None:
    """It may have died between write and fsync; the retry says that all is kept."""
    capture = Capture()
    capture.kept_in(tmp_path)
    (tmp_path / LEGAL / NAME).chmod(mode)
    synced.clear()
    assert capture.kept_in(tmp_path) == {"archived"}
    assert f"{tmp_path}/{LEGAL}/journal" in synced
    if mode == 0o600:
        assert str((tmp_path / LEGAL / NAME).parent) in synced


def test_a_torn_line_of_a_copy_is_written_again_by_the_retry(tmp_path: Path) -> None:
    """A line that a crash tore at any byte was promised to nobody: it is no line."""
    first = Capture(archive_id="20261121-" + "d4" * 20, message=b"first\r\n")
    capture = Capture(BOB, EVE)
    first.kept_in(tmp_path)
    before = journal(tmp_path).read_bytes()
    capture.kept_in(tmp_path)
    line = journal(tmp_path).read_bytes()[len(before) :]
    failures = []
    for cut in range(0, len(line) - 1, 7):
        crash_before_the_line(tmp_path, before + line[:cut])
        try:
            capture.kept_in(tmp_path)
            assert_committed(tmp_path)
            assert finals(record(tmp_path)) == {BOB, EVE}
        except (AssertionError, ArchiveError, ValueError) as problem:
            failures.append((cut, repr(problem)[:60]))
    assert not failures


def test_a_torn_supplement_is_written_again_by_the_retry(tmp_path: Path) -> None:
    Capture(BOB).kept_in(tmp_path)
    before = journal(tmp_path).read_bytes()
    Capture(EVE).kept_in(tmp_path)
    line = journal(tmp_path).read_bytes()[len(before) :]
    failures = []
    for cut in range(0, len(line) - 1, 7):
        journal(tmp_path).write_bytes(before + line[:cut])
        Capture(EVE).kept_in(tmp_path)
        if finals(record(tmp_path)) != {BOB, EVE}:
            failures.append(cut)
    assert not failures


def test_a_draft_that_a_crash_left_disturbs_nothing(tmp_path: Path) -> None:
    Capture().kept_in(tmp_path)
    left = tmp_path / LEGAL / "drafts" / "1-0000"
    left.write_bytes(b"half a co")
    Capture(EVE).kept_in(tmp_path)
    assert kinds(tmp_path) == ["archived", "supplement"]
    assert left.exists()


def test_a_crash_while_the_copy_is_read_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield b"first half"
        raise StoreFailed("the message has lost its end")

    archive = Archive(str(tmp_path), LEGAL)
    with pytest.raises(StoreFailed):
        archive.store_copy(Capture().piece, broken(), TIME)
    assert drafts(tmp_path) == []
    assert kept_files(tmp_path) == []
    assert Capture().kept_in(tmp_path) == {"archived"}


def test_a_full_disk_leaves_nothing_and_a_retry_keeps_the_copy(tmp_path: Path) -> None:
    capture = Capture(message=MESSAGE + os.urandom(50000).hex().encode() + b"\r\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, hard))
    try:
        with pytest.raises(StoreFailed, match="check its file system"):
            capture.kept_in(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert drafts(tmp_path) == []
    assert kept_files(tmp_path) == []
    assert capture.kept_in(tmp_path) == {"archived"}
    assert_committed(tmp_path)


def test_a_store_that_is_no_folder_defers(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    archive = Archive(f"{tmp_path}/store", LEGAL)
    with pytest.raises(StoreFailed):
        archive.store_copy(Capture().piece, [b"x"], TIME)


# Damage ----------------------------------------------------------------------------


def damaged(folder: Path, content: bytes) -> str:
    path = folder / LEGAL / NAME
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)
    return str(path)


def test_a_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    Capture().kept_in(tmp_path)
    whole = (tmp_path / LEGAL / NAME).read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path = damaged(tmp_path, whole[:length])
        with pytest.raises(RecordDamaged, match="gzip -t"):
            list(copy_file.decompress(path))


def test_a_file_with_a_wrong_byte_is_damaged(tmp_path: Path) -> None:
    Capture().kept_in(tmp_path)
    whole = bytearray((tmp_path / LEGAL / NAME).read_bytes())
    whole[len(whole) // 2] ^= 0x55
    path = damaged(tmp_path, bytes(whole))
    with pytest.raises(RecordDamaged, match="gzip -t"):
        list(copy_file.decompress(path))


def test_a_file_that_is_gone_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="check its file system"):
        list(copy_file.decompress(f"{tmp_path}/none.eml.gz"))


def test_a_large_copy_is_unpacked_in_small_blocks(tmp_path: Path) -> None:
    """64 MB of zeroes must not stand in memory, whatever gzip makes of them."""
    path = tmp_path / "zeroes.eml.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    blocks = [len(each) for each in copy_file.decompress(str(path))]
    assert sum(blocks) == 64 << 20
    assert max(blocks) <= 1 << 20


def test_a_damaged_file_makes_mail_in_flight_wait(tmp_path: Path) -> None:
    """keep() looks into the file that is there: what it raises must mean wait."""
    Capture(BOB).kept_in(tmp_path)
    damaged(tmp_path, b"no gzip")
    with pytest.raises(ArchiveError) as caught:
        Capture(EVE).kept_in(tmp_path)
    assert caught.value.exit_code == 75
    assert caught.value.dsn.startswith("4.")


def test_a_stored_copy_says_of_itself_what_the_store_was_told(tmp_path: Path) -> None:
    wild = [
        b'"a;b"@x.example',
        "grün@x.example".encode(),
        b"l\xfc@x.example",
        b"a\r\nb@x",
    ]
    capture = Capture(*wild)
    capture.kept_in(tmp_path)
    again = copy_file.read_capture(str(tmp_path / LEGAL / NAME), LEGAL)
    told = capture.piece
    assert (again.record_id, again.capsule_id, again.envelope_fields) == (
        told.record_id,
        told.capsule_id,
        told.envelope_fields,
    )
    assert (again.sha256, again.size) == (told.sha256, told.size)


@pytest.mark.parametrize(
    ("archive_id", "variant", "name"),
    [
        (ARCHIVE_ID, "", NAME),
        (ARCHIVE_ID, "abc", f"2026/11/22/{ARCHIVE_ID}.abc.eml.gz"),
        ("00000000-00", "", "undated/00000000-00.eml.gz"),
    ],
)
def test_the_place_of_a_record_follows_from_its_id(
    archive_id: str, variant: str, name: str
) -> None:
    assert copy_file.copy_name(archive_id, variant) == name


def test_wire_and_store_agree_on_the_bytes(tmp_path: Path) -> None:
    with_lf = b"Subject: x\n\n.dot\nlast line without its end"
    message = b"".join(smtp_data.to_canonical([with_lf]))
    Capture(message=message).kept_in(tmp_path)
    assert original(tmp_path) == message


# --- outcomes, and their reports -----------------------------------------------------

COVERS = "cd" * 32
REPORT_NAME = NAME.replace(".eml.gz", ".outcome.eml.gz")
SECOND_NAME = NAME.replace(".eml.gz", ".outcome-2.eml.gz")


def kept_once(folder: Path) -> Archive:
    Capture().kept_in(folder)
    return Archive(str(folder), LEGAL)


def report_on(covers: str = COVERS) -> bytes:
    """As much of an outcome report as the store reads."""
    return (
        b"Content-Type: multipart/report; boundary=x\r\n\r\n"
        b"\r\n--=_archive_x\r\nContent-Type: message/delivery-status\r\n\r\n"
        b"Archive-Id: x\r\nArchive-Outcomes: %s\r\n\r\n--=_archive_x--\r\n"
        % covers.encode()
    )


def reported(folder: Path, covers: str = COVERS) -> str:
    archive = Archive(str(folder), LEGAL)
    return archive.store_outcome_report(ARCHIVE_ID, [report_on(covers)], covers, TIME)


def of_it(told: list[outcome.Outcome]) -> list[tuple[str, outcome.Outcome]]:
    return [(ARCHIVE_ID, each) for each in told]


def test_outcomes_are_recorded_once_and_with_one_fsync(
    tmp_path: Path, synced: list[str]
) -> None:
    archive = kept_once(tmp_path)
    told = [became(f"r{number}@example.com") for number in range(50)]
    synced.clear()
    assert archive.record_outcomes(of_it(told), TIME) == 50
    assert synced.count(str(journal(tmp_path))) == 1
    assert archive.record_outcomes(of_it(told[:20]), TIME) == 0
    again = [told[3], became("r3@example.com", "failed"), became("x@example.com")]
    assert archive.record_outcomes(of_it(again), "2027-01-01T00:00:00Z") == 2
    assert kinds(tmp_path) == ["archived"] + ["outcome"] * 52
    assert record(tmp_path).results.counts_by_kind == {"unknown": 1}  # Bob's


def test_an_outcome_reads_back_as_it_was_recorded(tmp_path: Path) -> None:
    odd = became("b\udcfcb", "failed", reply='550 "no" \\ \x07', tries=4, parent="a b")
    kept_once(tmp_path).record_outcomes(of_it([odd]), TIME)
    assert journal_event.parse_outcome(record(tmp_path).events[1]) == odd


def test_outcomes_of_many_records_go_in_one_batch(tmp_path: Path) -> None:
    other = "20261123-" + "b2" * 20
    archive = kept_once(tmp_path)
    Capture(message=MESSAGE + b"x\r\n", archive_id=other).kept_in(tmp_path)
    told = [(ARCHIVE_ID, became(BOB.decode())), (other, became(BOB.decode(), "failed"))]
    assert archive.record_outcomes(told, TIME) == 2
    found = list(record_reader.records(str(tmp_path), LEGAL))
    assert [each.results.overall_kind for each in found] == [
        "delivered",
        "failed",
    ]
    some = record_reader.find_record(str(tmp_path), other, LEGAL)
    assert some.archive_id == other
    assert some.events == found[1].events


def test_a_report_stands_beside_the_copy(tmp_path: Path, synced: list[str]) -> None:
    kept_once(tmp_path)
    synced.clear()
    assert reported(tmp_path) == REPORT_NAME
    path = tmp_path / LEGAL / REPORT_NAME
    assert gzip.decompress(path.read_bytes()) == report_on()
    assert path.stat().st_mode & 0o777 == 0o400
    event = events(tmp_path)[-1]
    assert event["event"] == "outcome-report"
    assert (event["id"], event["file"]) == (ARCHIVE_ID, REPORT_NAME)
    assert event["covers"] == COVERS
    assert event["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path.parent) in synced
    assert not list((tmp_path / LEGAL / "drafts").iterdir())
    assert record(tmp_path).reports == {REPORT_NAME: COVERS}
    assert record(tmp_path).files == [NAME]


def test_the_same_report_is_kept_once_and_another_beside_it(tmp_path: Path) -> None:
    kept_once(tmp_path)
    assert reported(tmp_path) == reported(tmp_path) == REPORT_NAME
    assert reported(tmp_path, "ef" * 32) == SECOND_NAME
    assert reported(tmp_path) == REPORT_NAME
    assert reported(tmp_path, "ef" * 32) == SECOND_NAME
    assert kinds(tmp_path) == ["archived", "outcome-report", "outcome-report"]
    third = reported(tmp_path, "01" * 32)
    assert third == NAME.replace(".eml.gz", ".outcome-3.eml.gz")


@pytest.mark.parametrize("covers", [COVERS, "ef" * 32])
def test_a_report_without_its_line_gets_it(tmp_path: Path, covers: str) -> None:
    """A crash between file and line: the next run adds the line, also another's."""
    kept_once(tmp_path)
    before = journal(tmp_path).read_bytes()
    reported(tmp_path)
    path = tmp_path / LEGAL / REPORT_NAME
    journal(tmp_path).write_bytes(before)
    path.chmod(0o600)
    name = reported(tmp_path, covers)
    assert name == (REPORT_NAME if covers == COVERS else SECOND_NAME)
    first = events(tmp_path)[1]
    assert (first["event"], first["covers"]) == ("outcome-report", COVERS)
    assert first["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o400
    assert kinds(tmp_path).count("outcome-report") == (1 if covers == COVERS else 2)


def test_a_report_with_its_line_and_the_mode_of_a_new_one_gets_no_second_line(
    tmp_path: Path,
) -> None:
    kept_once(tmp_path)
    reported(tmp_path)
    path = tmp_path / LEGAL / REPORT_NAME
    path.chmod(0o600)
    assert reported(tmp_path) == REPORT_NAME
    assert kinds(tmp_path) == ["archived", "outcome-report"]
    assert path.stat().st_mode & 0o777 == 0o400


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    kept_once(tmp_path)
    reported(tmp_path)
    path = tmp_path / LEGAL / REPORT_NAME
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreFailed, match="truncated gzip file"):
        reported(tmp_path)


def test_the_mail_of_a_report_is_recorded(tmp_path: Path) -> None:
    kept_once(tmp_path).record_report_mailed(ARCHIVE_ID, REPORT_NAME, TIME, "4Zmail")
    event = events(tmp_path)[-1]
    assert (event["event"], event["queued_as"]) == ("outcome-mailed", "4Zmail")
    assert record(tmp_path).mailed == {REPORT_NAME}
