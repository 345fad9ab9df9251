"""Claims about verify: what is cut, flipped, dropped, inserted or moved is named."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.store import journal, verifier

import journal_lines
from unit.examples import LEGAL, MESSAGE
from unit.outcomes.test_report_queue import StoreWithMessage
from unit.store.test_archive import Capture
from unit.store.test_outcome_summary import make_outcome

SCRIPT = Path(__file__).resolve().parents[3] / "contrib" / "verify_archive.py"
COUNT = 4


@pytest.fixture(scope="module")
def pristine_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a few messages."""
    store = tmp_path_factory.mktemp("store")
    for number in range(COUNT):
        archive_id = f"2026112{number}-" + f"{number}" * 40
        text = MESSAGE + b"%d\r\n" % number
        Capture(message=text, archive_id=archive_id).store_in(store)
    return store


@pytest.fixture
def archive_directory(pristine_store: Path, tmp_path: Path) -> Path:
    """A copy of that archive, to be harmed."""
    shutil.copytree(pristine_store / LEGAL, tmp_path / LEGAL)
    return tmp_path / LEGAL


def problems(directory: Path) -> list[str]:
    findings = verifier.verify_archive(str(directory)).findings
    return [str(each) for each in findings if not each.is_note]


def notes(directory: Path) -> list[str]:
    findings = verifier.verify_archive(str(directory)).findings
    return [str(each) for each in findings if each.is_note]


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.eml.gz"))


def lines(directory: Path) -> list[bytes]:
    return journal_lines.segment(directory).read_bytes().splitlines(keepends=True)


def rewrite(directory: Path, all_lines: list[bytes]) -> None:
    journal_lines.segment(directory).write_bytes(b"".join(all_lines))


def overwrite(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)


def test_a_sound_archive_has_nothing_wrong(archive_directory: Path) -> None:
    result = verifier.verify_archive(str(archive_directory))
    assert not result.findings
    assert (len(result.files), result.line_count) == (COUNT, COUNT + 1)


def test_a_file_cut_at_any_byte_is_named(archive_directory: Path) -> None:
    path = files(archive_directory)[1]
    content = path.read_bytes()
    for size in range(len(content)):
        overwrite(path, content[:size])
        named_problems = problems(archive_directory)
        assert named_problems and all(
            path.name in each for each in named_problems
        ), size


def test_a_flipped_byte_of_a_file_is_named_wherever_it_is(
    archive_directory: Path,
) -> None:
    path = files(archive_directory)[2]
    content = path.read_bytes()
    for offset in range(len(content)):
        other = bytearray(content)
        other[offset] ^= 1 << offset % 8
        overwrite(path, bytes(other))
        named_problems = problems(archive_directory)
        assert named_problems and all(
            path.name in each for each in named_problems
        ), offset


def test_a_flipped_byte_of_the_journal_is_named_wherever_it_is(
    archive_directory: Path,
) -> None:
    path = journal_lines.segment(archive_directory)
    content = path.read_bytes()
    for offset in range(len(content)):
        other = bytearray(content)
        other[offset] ^= 1 << offset % 7
        path.write_bytes(bytes(other))
        assert problems(archive_directory), offset


def test_a_journal_cut_at_any_byte_is_named_and_the_next_write_succeeds(
    archive_directory: Path,
) -> None:
    path = journal_lines.segment(archive_directory)
    content = path.read_bytes()
    last = (archive_directory / "journal.last").read_bytes()
    missed = []
    for size in range(1, len(content)):
        path.write_bytes(content[:size])
        if not problems(archive_directory):
            missed.append(size)
        with journal.Journal(str(archive_directory)) as events:
            events.append("after", "2026-11-24T12:00:00Z")
        assert path.read_bytes().startswith(content[:size])
        if not problems(archive_directory):
            missed.append(-size)  # the next line must not hide what is lost
        (archive_directory / "journal.last").write_bytes(last)
    # The line end of the last line alone says nothing that could be lost.
    assert [each for each in missed if abs(each) != len(content) - 1] == []


def test_an_empty_or_missing_journal_is_named(archive_directory: Path) -> None:
    path = journal_lines.segment(archive_directory)
    path.write_bytes(b"")
    assert problems(archive_directory)
    path.unlink()
    assert problems(archive_directory)
    path.parent.rmdir()
    assert any("the journal is missing" in each for each in problems(archive_directory))


@pytest.mark.parametrize("index", range(COUNT + 1))
def test_a_dropped_line_is_named(archive_directory: Path, index: int) -> None:
    all_lines = lines(archive_directory)
    rewrite(archive_directory, all_lines[:index] + all_lines[index + 1 :])
    assert problems(archive_directory)


@pytest.mark.parametrize("index", range(COUNT + 2))
def test_an_inserted_line_is_named(archive_directory: Path, index: int) -> None:
    all_lines = lines(archive_directory)
    for line in (
        all_lines[0],
        all_lines[-1],
        all_lines[1].replace(b'"seq":2', b'"seq":9'),
    ):
        rewrite(archive_directory, all_lines[:index] + [line] + all_lines[index:])
        assert problems(archive_directory)


def test_any_other_order_is_named(archive_directory: Path) -> None:
    all_lines = lines(archive_directory)
    generator = random.Random(1)
    for _ in range(30):
        other = list(all_lines)
        generator.shuffle(other)
        rewrite(archive_directory, other)
        assert bool(problems(archive_directory)) == (other != all_lines)


def test_a_lost_or_added_file_is_named(archive_directory: Path) -> None:
    removed, other, *_ = files(archive_directory)
    removed.rename(removed.with_name(f"x{removed.name}"))
    named_problems = problems(archive_directory)
    assert any(
        "in the journal, but the file is missing" in each for each in named_problems
    )
    assert any("the file is not in the journal" in each for each in named_problems)
    assert len(named_problems) == 2
    removed.with_name(f"x{removed.name}").rename(removed)
    other.rename(other.with_suffix(".away"))
    other.symlink_to(other.with_suffix(".away"))
    assert any("not a regular file" in each for each in problems(archive_directory))


def test_two_files_that_changed_places_are_named(archive_directory: Path) -> None:
    one, two, *_ = files(archive_directory)
    content = one.read_bytes()
    overwrite(one, two.read_bytes())
    overwrite(two, content)
    assert (
        len(problems(archive_directory)) == 4
    )  # the file's digest and the original's, of both


def test_what_a_crash_leaves_is_a_note(archive_directory: Path) -> None:
    fresh = files(archive_directory)[0].with_name("20261124-" + "0" * 40 + ".eml.gz")
    fresh.write_bytes(b"x")
    fresh.chmod(0o600)
    (archive_directory / "drafts" / "1-ab").write_bytes(b"half")
    with open(journal_lines.segment(archive_directory), "ab") as file:
        file.write(b'{"seq":6,"time":"2026')
    assert problems(archive_directory) == []
    assert len(notes(archive_directory)) == 3
    with journal.Journal(str(archive_directory)) as events:
        events.append("after", "2026-11-24T12:00:00Z")
    assert problems(archive_directory) == []


def test_a_damaged_note_of_the_last_line_is_named(archive_directory: Path) -> None:
    path = archive_directory / "journal.last"
    content = path.read_bytes()
    for offset in range(len(content)):
        other = bytearray(content)
        other[offset] ^= 1
        path.write_bytes(bytes(other))
        assert problems(archive_directory), offset


def test_others_may_not_read_a_file(archive_directory: Path) -> None:
    files(archive_directory)[0].chmod(0o404)
    assert any(
        "accessible to other users" in each for each in problems(archive_directory)
    )


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the auditor's script as it is, without anything of ours to import."""
    return subprocess.run(
        ["/usr/bin/python3", "-I", str(SCRIPT), *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def archive_directories(directory: Path) -> Iterator[str]:
    yield str(directory)
    yield str(directory.parent)


def test_the_stand_alone_script_finds_the_same(archive_directory: Path) -> None:
    for directory in archive_directories(archive_directory):
        process = run_script(directory)
        assert (process.returncode, process.stderr) == (0, "")
        assert "4 files, 5 lines" in process.stdout
    files(archive_directory)[0].unlink()
    for directory in archive_directories(archive_directory):
        process = run_script(directory)
        assert process.returncode == 2
        assert process.stdout.splitlines()[0] == problems(archive_directory)[0]


def test_the_script_reports_a_missing_archive(tmp_path: Path) -> None:
    assert run_script(str(tmp_path)).returncode == 3
    process = run_script(str(tmp_path / "none"))
    assert process.returncode == 3
    assert "No such file" in process.stderr and "Traceback" not in process.stderr


def test_the_script_blames_not_the_store_for_a_full_disk_of_its_output(
    archive_directory: Path,
) -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            ["/usr/bin/python3", "-I", str(SCRIPT), str(archive_directory)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 3
    assert process.stderr == "standard output: No space left on device\n"


def test_a_seal_shows_that_a_journal_was_cut_with_its_files(
    archive_directory: Path,
) -> None:
    seal = journal_lines.line_sha256(lines(archive_directory)[-1])
    middle = journal_lines.line_sha256(lines(archive_directory)[1])
    for directory in archive_directories(archive_directory):
        process = run_script(directory, "--sealed", seal, "--sealed", middle)
        assert (process.returncode, process.stderr) == (0, "")
        assert seal in process.stdout
    rewrite(archive_directory, lines(archive_directory)[:-1])
    files(archive_directory)[-1].unlink()
    (archive_directory / "journal.last").unlink()
    with journal.Journal(str(archive_directory)) as events:
        events.append("after", "2026-11-24T12:00:00Z")
    assert problems(archive_directory) == []
    for directory in archive_directories(archive_directory):
        process = run_script(directory, "--sealed", seal, "--sealed", middle)
        assert process.returncode == 2
        [error] = [e for e in process.stdout.splitlines() if e.startswith("ERROR")]
        assert seal in error


def test_others_can_lock_the_journal_while_files_and_lines_are_verified(
    archive_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail waits for that lock; what is stored meanwhile is no error."""
    line_counts = []
    check_chain = verifier._check_chain

    def lock_then_check(*arguments: Any) -> None:
        run_locking_process(archive_directory)
        check_chain(*arguments)

    monkeypatch.setattr(verifier, "_check_chain", lock_then_check)

    def append(done: int, total: int) -> None:
        run_locking_process(archive_directory)
        capture = Capture(message=b"%d\r\n" % done, archive_id=f"20261125-{done:040d}")
        capture.store_in(archive_directory.parent)
        line_counts.append(len(lines(archive_directory)))

    result = verifier.verify_archive(str(archive_directory), append)
    assert line_counts == [COUNT + 2, COUNT + 3, COUNT + 4, COUNT + 5]
    assert (result.findings, result.line_count) == ([], COUNT + 1)


def test_what_is_stored_between_the_listing_and_the_lines_is_no_error(
    archive_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_files = verifier._list_files

    def list_then_store(directory: str) -> Iterator[tuple[str, os.stat_result]]:
        yield from list_files(directory)
        run_locking_process(archive_directory)
        Capture(archive_id="20261125-" + "5" * 40).store_in(archive_directory.parent)

    monkeypatch.setattr(verifier, "_list_files", list_then_store)
    result = verifier.verify_archive(str(archive_directory))
    assert (result.findings, len(result.files)) == ([], COUNT + 1)


def test_verify_waits_for_nobody_who_writes(archive_directory: Path) -> None:
    """A line of which a part is there is a note, as after a crash."""
    directory = os.open(archive_directory / "journal.lock", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with open(journal_lines.segment(archive_directory), "ab") as file:
        file.write(b'{"seq":7,"time":"')
    result = verifier.verify_archive(str(archive_directory))
    os.close(directory)
    assert result.error_count == 0
    assert ["truncated" in each.problem for each in result.findings].count(True) == 1


def run_locking_process(directory: Path) -> None:
    """Lock the journal in another process, which must not wait."""
    subprocess.run(
        ["flock", "--exclusive", "--nonblock", str(directory / "journal.lock"), "true"],
        check=True,
    )


def make_bomb(size: int) -> bytes:
    """Return a gzip file of a few megabytes that decompresses to size bytes."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(16 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + block * (size >> 24)


def test_a_bomb_costs_no_more_than_a_copy_can_have(archive_directory: Path) -> None:
    path = files(archive_directory)[0]
    overwrite(path, make_bomb(1 << 33))
    named_problems = problems(archive_directory)
    assert any("decompresses to more" in each for each in named_problems)
    limit = verifier.HEAD_LIMIT
    chunks = verifier._GzipFile(str(path)).decompress(limit)
    assert sum(map(len, chunks)) <= limit + verifier.BLOCK_SIZE
    path.chmod(0o600)
    os.truncate(path, 1 << 42)  # a sparse file, which would be read for hours
    path.chmod(0o400)
    [problem] = problems(archive_directory)
    assert "larger than what the journal names" in problem


def rechain(directory: Path, index: int, old: bytes, new: bytes) -> None:
    """Change a line of the journal and make the chain behind it good again."""
    last = b"0" * 64
    rechained = []
    for number, line in enumerate(lines(directory)):
        changed = line.replace(old, new, 1) if number == index else line
        chained, _, details = changed.partition(b"\t")
        chained = chained[: chained.rindex(b',"prev":"') + 9] + last + b'"}'
        last = journal_lines.line_sha256(chained).encode()
        rechained.append(chained + b"\t" + details)
    rewrite(directory, rechained)


@pytest.mark.parametrize("number", [b"9" * 4300, b"-" + b"9" * 4299, b"1" + b"0" * 18])
def test_a_number_beyond_all_measure_is_named(
    archive_directory: Path, number: bytes
) -> None:
    rechain(archive_directory, 1, b'"seq":2', b'"seq":' + number)
    assert problems(archive_directory)


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000, "-1", "1_0"])
def test_a_well_made_note_of_no_number_is_named(
    archive_directory: Path, number: str
) -> None:
    marker_content = f"{number} {'0' * 64}".encode("latin-1")
    proof = hashlib.sha256(marker_content).hexdigest().encode()
    (archive_directory / "journal.last").write_bytes(
        marker_content + b" " + proof + b"\n"
    )
    assert any(": damaged" in each for each in problems(archive_directory))


def test_deeply_nested_directories_are_checked(archive_directory: Path) -> None:
    deep = archive_directory
    for _ in range(1200):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x").write_bytes(b"")
    named_problems = problems(archive_directory)
    (deep / "x").unlink()
    while deep != archive_directory:  # shutil.rmtree() would not get down there
        deep.rmdir()
        deep = deep.parent
    assert [each.rpartition(": ")[2] for each in named_problems] == [
        "the file is not in the journal"
    ]


@pytest.mark.parametrize("name", ["journal/2026-11", "journal.last"])
def test_a_fifo_keeps_nobody_waiting(archive_directory: Path, name: str) -> None:
    (archive_directory / name).unlink()
    os.mkfifo(archive_directory / name)
    assert problems(archive_directory)


def test_what_stands_behind_the_end_of_a_file_is_named(archive_directory: Path) -> None:
    path = files(archive_directory)[0]
    for behind in (b"x", b"x" * 200_000, path.read_bytes()):
        content = path.read_bytes()
        overwrite(path, content + behind)
        assert any(
            "data after the end of the gzip stream" in each
            for each in problems(archive_directory)
        )
        overwrite(path, content)


def test_a_copy_without_an_original_is_named(archive_directory: Path) -> None:
    path = files(archive_directory)[0]
    for copy in (
        b"",
        b"x" * 100,
        b"x" * (verifier.HEAD_LIMIT + 5 * verifier.BLOCK_SIZE),
    ):
        overwrite(path, gzip.compress(copy, 1))
        assert any(
            "no original in this file" in each or "decompresses to more" in each
            for each in problems(archive_directory)
        )


@pytest.mark.parametrize(
    "subject", [b'boundary="x"', b'Content-Type: x; boundary="', b"=?utf-8?q?x?= --x"]
)
def test_a_subject_that_names_a_boundary_harms_nothing(
    tmp_path: Path, subject: bytes
) -> None:
    Capture(message=b"Subject: " + subject + b"\r\n\r\nx\r\n").store_in(tmp_path)
    assert problems(tmp_path / LEGAL) == []


# --- outcome reports -----------------------------------------------------------------


@pytest.fixture
def archive_with_report(tmp_path: Path) -> Path:
    """An archive with one copy and the report of what became of it."""
    store = StoreWithMessage(tmp_path, None)
    store.record_outcomes(make_outcome("bob@example.com"))
    store.store_and_mail()
    return tmp_path / LEGAL


def report_in(directory: Path) -> Path:
    [path] = directory.rglob("*.outcome.eml.gz")
    return path


def test_an_outcome_report_is_a_file_of_the_journal(archive_with_report: Path) -> None:
    result = verifier.verify_archive(str(archive_with_report))
    assert not result.findings
    assert (len(result.files), result.line_count) == (2, 4)
    assert "2 files, 4 lines" in run_script(str(archive_with_report)).stdout


def test_an_outcome_report_cut_or_changed_at_any_byte_is_named(
    archive_with_report: Path,
) -> None:
    path = report_in(archive_with_report)
    content = path.read_bytes()
    for offset in range(len(content)):
        for other in (
            content[:offset],
            content[:offset] + b"~" + content[offset + 1 :],
        ):
            if other != content:
                overwrite(path, other)
                named_problems = problems(archive_with_report)
                assert named_problems and all(
                    path.name in each for each in named_problems
                ), offset


def test_a_lost_or_added_outcome_report_is_named(archive_with_report: Path) -> None:
    path = report_in(archive_with_report)
    other = path.with_name(path.name.replace(".outcome.", ".outcome-2."))
    shutil.copy2(path, other)
    [problem] = problems(archive_with_report)
    assert other.name in problem and "the file is not in the journal" in problem
    path.rename(path.with_suffix(".away"))
    path.with_suffix(".away").replace(archive_with_report.parent / "away")
    assert any(
        path.name in each and "the file is missing" in each
        for each in problems(archive_with_report)
    )


def test_an_outcome_report_that_a_crash_left_is_a_note(
    archive_with_report: Path,
) -> None:
    path = report_in(archive_with_report)
    other = path.with_name(path.name.replace(".outcome.", ".outcome-2."))
    shutil.copy2(path, other)
    other.chmod(0o600)
    assert problems(archive_with_report) == []
    [note] = notes(archive_with_report)
    assert other.name in note


def test_a_copy_that_calls_itself_a_report_is_named(archive_with_report: Path) -> None:
    """Of a report no original is asked for: nobody may get rid of one like that."""
    copy = files(archive_with_report)[0].with_name("20261122-" + "a1" * 20 + ".eml.gz")
    assert copy.exists()
    rechain(archive_with_report, 1, b'"event":"archived"', b'"event":"outcome-report"')
    assert problems(archive_with_report)
