"""Claims about verify: what is cut, flipped, dropped, inserted or moved is named."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.store import journal, journal_end, verifier

from unit.examples import LEGAL, MESSAGE
from unit.outcomes.test_report_queue import Place
from unit.store.test_archive import Capture
from unit.store.test_outcome_summary import became

SCRIPT = Path(__file__).resolve().parents[3] / "contrib" / "verify_archive.py"
COUNT = 4


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a few messages."""
    store = tmp_path_factory.mktemp("store")
    for number in range(COUNT):
        archive_id = f"2026112{number}-" + f"{number}" * 40
        text = MESSAGE + b"%d\r\n" % number
        Capture(message=text, archive_id=archive_id).kept_in(store)
    return store


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy of that archive, to be harmed."""
    shutil.copytree(pristine / LEGAL, tmp_path / LEGAL)
    return tmp_path / LEGAL


def wrong(folder: Path) -> list[str]:
    found = verifier.verify_archive(str(folder)).findings
    return [str(each) for each in found if not each.is_note]


def notes(folder: Path) -> list[str]:
    found = verifier.verify_archive(str(folder)).findings
    return [str(each) for each in found if each.is_note]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.eml.gz"))


def lines(folder: Path) -> list[bytes]:
    return (folder / journal.FILE_NAME).read_bytes().splitlines(keepends=True)


def rewrite(folder: Path, kept: list[bytes]) -> None:
    (folder / journal.FILE_NAME).write_bytes(b"".join(kept))


def harmed(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)


def test_a_sound_archive_has_nothing_wrong(folder: Path) -> None:
    told = verifier.verify_archive(str(folder))
    assert not told.findings
    assert (len(told.files), told.line_count) == (COUNT, COUNT)


def test_a_file_cut_at_any_byte_is_named(folder: Path) -> None:
    path = files(folder)[1]
    content = path.read_bytes()
    for size in range(len(content)):
        harmed(path, content[:size])
        found = wrong(folder)
        assert found and all(path.name in each for each in found), size


def test_a_flipped_byte_of_a_file_is_named_wherever_it_is(folder: Path) -> None:
    path = files(folder)[2]
    content = path.read_bytes()
    for at in range(len(content)):
        other = bytearray(content)
        other[at] ^= 1 << at % 8
        harmed(path, bytes(other))
        found = wrong(folder)
        assert found and all(path.name in each for each in found), at


def test_a_flipped_byte_of_the_journal_is_named_wherever_it_is(folder: Path) -> None:
    path = folder / journal.FILE_NAME
    content = path.read_bytes()
    for at in range(len(content)):
        other = bytearray(content)
        other[at] ^= 1 << at % 7
        path.write_bytes(bytes(other))
        assert wrong(folder), at


def test_a_journal_cut_at_any_byte_is_named_and_the_next_write_goes_on(
    folder: Path,
) -> None:
    path = folder / journal.FILE_NAME
    content = path.read_bytes()
    last = (folder / journal_end.FILE_NAME).read_bytes()
    missed = []
    for size in range(1, len(content)):
        path.write_bytes(content[:size])
        if not wrong(folder):
            missed.append(size)
        with journal.Journal(str(folder)) as events:
            events.append("after", "2026-11-24T12:00:00Z")
        assert path.read_bytes().startswith(content[:size])
        if not wrong(folder):
            missed.append(-size)  # the next line must not hide what is lost
        (folder / journal_end.FILE_NAME).write_bytes(last)
    # The line end of the last line alone says nothing that could be lost.
    assert [each for each in missed if abs(each) != len(content) - 1] == []


def test_an_empty_or_missing_journal_is_named(folder: Path) -> None:
    path = folder / journal.FILE_NAME
    path.write_bytes(b"")
    assert wrong(folder)
    path.unlink()
    assert any("the journal is missing" in each for each in wrong(folder))


@pytest.mark.parametrize("at", range(COUNT))
def test_a_dropped_line_is_named(folder: Path, at: int) -> None:
    held = lines(folder)
    rewrite(folder, held[:at] + held[at + 1 :])
    assert wrong(folder)


@pytest.mark.parametrize("at", range(COUNT + 1))
def test_an_inserted_line_is_named(folder: Path, at: int) -> None:
    held = lines(folder)
    for line in (held[0], held[-1], held[1].replace(b'"seq":2', b'"seq":9')):
        rewrite(folder, held[:at] + [line] + held[at:])
        assert wrong(folder)


def test_any_other_order_is_named(folder: Path) -> None:
    held = lines(folder)
    chance = random.Random(1)
    for _ in range(30):
        other = list(held)
        chance.shuffle(other)
        rewrite(folder, other)
        assert bool(wrong(folder)) == (other != held)


def test_a_lost_or_added_file_is_named(folder: Path) -> None:
    lost, other, *_ = files(folder)
    lost.rename(lost.with_name(f"x{lost.name}"))
    found = wrong(folder)
    assert any("in the journal, but the file is missing" in each for each in found)
    assert any("the file is not in the journal" in each for each in found)
    assert len(found) == 2
    lost.with_name(f"x{lost.name}").rename(lost)
    other.rename(other.with_suffix(".away"))
    other.symlink_to(other.with_suffix(".away"))
    assert any("not a regular file" in each for each in wrong(folder))


def test_two_files_that_changed_places_are_named(folder: Path) -> None:
    one, two, *_ = files(folder)
    content = one.read_bytes()
    harmed(one, two.read_bytes())
    harmed(two, content)
    assert len(wrong(folder)) == 4  # the file's digest and the original's, of both


def test_what_a_crash_leaves_is_a_note(folder: Path) -> None:
    fresh = files(folder)[0].with_name("20261124-" + "0" * 40 + ".eml.gz")
    fresh.write_bytes(b"x")
    fresh.chmod(0o600)
    (folder / "drafts" / "1-ab").write_bytes(b"half")
    with open(folder / journal.FILE_NAME, "ab") as opened:
        opened.write(b'{"seq":5,"time":"2026')
    assert wrong(folder) == []
    assert len(notes(folder)) == 3
    with journal.Journal(str(folder)) as events:
        events.append("after", "2026-11-24T12:00:00Z")
    assert wrong(folder) == []


def test_a_damaged_note_of_the_last_line_is_named(folder: Path) -> None:
    path = folder / journal_end.FILE_NAME
    content = path.read_bytes()
    for at in range(len(content)):
        other = bytearray(content)
        other[at] ^= 1
        path.write_bytes(bytes(other))
        assert wrong(folder), at


def test_others_may_not_read_a_file(folder: Path) -> None:
    files(folder)[0].chmod(0o404)
    assert any("accessible to other users" in each for each in wrong(folder))


def alone(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the auditor's script as it is, without anything of ours to import."""
    return subprocess.run(
        ["/usr/bin/python3", "-I", str(SCRIPT), *words],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def stores(folder: Path) -> Iterator[str]:
    yield str(folder)
    yield str(folder.parent)


def test_the_auditor_sees_the_same_with_nothing_of_ours(folder: Path) -> None:
    for each in stores(folder):
        done = alone(each)
        assert (done.returncode, done.stderr) == (0, "")
        assert "4 files, 4 lines" in done.stdout
    files(folder)[0].unlink()
    for each in stores(folder):
        done = alone(each)
        assert done.returncode == 1
        assert done.stdout.splitlines()[0] == wrong(folder)[0]


def test_the_auditor_is_told_where_there_is_nothing_to_see(tmp_path: Path) -> None:
    assert alone(str(tmp_path)).returncode == 3
    done = alone(str(tmp_path / "none"))
    assert done.returncode == 3
    assert "No such file" in done.stderr and "Traceback" not in done.stderr


def relinked(folder: Path, at: int, old: bytes, new: bytes) -> None:
    """Change a line of the journal and make the chain behind it good again."""
    last = b"0" * 64
    made = []
    for number, line in enumerate(lines(folder)):
        changed = line.replace(old, new, 1) if number == at else line
        made.append(changed[: changed.rindex(b',"prev":"') + 9] + last + b'"}\n')
        last = hashlib.sha256(made[-1][:-1]).hexdigest().encode()
    rewrite(folder, made)


@pytest.mark.parametrize("number", [b"9" * 4300, b"-" + b"9" * 4299, b"1" + b"0" * 18])
def test_a_number_beyond_all_measure_is_named(folder: Path, number: bytes) -> None:
    relinked(folder, 1, b'"seq":2', b'"seq":' + number)
    assert wrong(folder)


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000, "-1", "1_0"])
def test_a_well_made_note_of_no_number_is_named(folder: Path, number: str) -> None:
    said = f"{number} {'0' * 64}".encode("latin-1")
    proof = hashlib.sha256(said).hexdigest().encode()
    (folder / journal_end.FILE_NAME).write_bytes(said + b" " + proof + b"\n")
    assert any(": damaged" in each for each in wrong(folder))


def test_folders_in_folders_without_end_are_looked_through(folder: Path) -> None:
    deep = folder
    for _ in range(1200):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x").write_bytes(b"")
    found = wrong(folder)
    (deep / "x").unlink()
    while deep != folder:  # shutil.rmtree() would not get down there
        deep.rmdir()
        deep = deep.parent
    assert [each.rpartition(": ")[2] for each in found] == [
        "the file is not in the journal"
    ]


@pytest.mark.parametrize("name", [journal.FILE_NAME, journal_end.FILE_NAME])
def test_a_fifo_keeps_nobody_waiting(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert wrong(folder)


def test_what_stands_behind_the_end_of_a_file_is_named(folder: Path) -> None:
    path = files(folder)[0]
    for behind in (b"x", b"x" * 200_000, path.read_bytes()):
        content = path.read_bytes()
        harmed(path, content + behind)
        assert any(
            "data after the end of the gzip stream" in each for each in wrong(folder)
        )
        harmed(path, content)


def test_a_copy_without_an_original_is_named(folder: Path) -> None:
    path = files(folder)[0]
    for copy in (
        b"",
        b"x" * 100,
        b"x" * (verifier.HEAD_LIMIT + 5 * verifier.BLOCK_SIZE),
    ):
        harmed(path, gzip.compress(copy, 1))
        assert any("no original in this file" in each for each in wrong(folder))


@pytest.mark.parametrize(
    "subject", [b'boundary="x"', b'Content-Type: x; boundary="', b"=?utf-8?q?x?= --x"]
)
def test_a_subject_that_names_a_boundary_harms_nothing(
    tmp_path: Path, subject: bytes
) -> None:
    Capture(message=b"Subject: " + subject + b"\r\n\r\nx\r\n").kept_in(tmp_path)
    assert wrong(tmp_path / LEGAL) == []


# --- outcome reports -----------------------------------------------------------------


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """An archive with one copy and the report of what became of it."""
    place = Place(tmp_path, None)
    place.became(became("bob@example.com"))
    place.settle()
    return tmp_path / LEGAL


def report_in(folder: Path) -> Path:
    [found] = folder.rglob("*.outcome.eml.gz")
    return found


def test_an_outcome_report_is_a_file_of_the_journal(settled: Path) -> None:
    told = verifier.verify_archive(str(settled))
    assert not told.findings
    assert (len(told.files), told.line_count) == (2, 3)
    assert "2 files, 3 lines" in alone(str(settled)).stdout


def test_an_outcome_report_cut_or_changed_at_any_byte_is_named(settled: Path) -> None:
    path = report_in(settled)
    content = path.read_bytes()
    for at in range(len(content)):
        for other in (content[:at], content[:at] + b"~" + content[at + 1 :]):
            if other != content:
                harmed(path, other)
                found = wrong(settled)
                assert found and all(path.name in each for each in found), at


def test_a_lost_or_added_outcome_report_is_named(settled: Path) -> None:
    path = report_in(settled)
    other = path.with_name(path.name.replace(".outcome.", ".outcome-2."))
    shutil.copy2(path, other)
    [found] = wrong(settled)
    assert other.name in found and "the file is not in the journal" in found
    path.rename(path.with_suffix(".away"))
    path.with_suffix(".away").replace(settled.parent / "away")
    assert any(
        path.name in each and "the file is missing" in each for each in wrong(settled)
    )


def test_an_outcome_report_that_a_crash_left_is_a_note(settled: Path) -> None:
    path = report_in(settled)
    other = path.with_name(path.name.replace(".outcome.", ".outcome-2."))
    shutil.copy2(path, other)
    other.chmod(0o600)
    assert wrong(settled) == []
    [found] = notes(settled)
    assert other.name in found


def test_a_copy_that_calls_itself_a_report_is_named(settled: Path) -> None:
    """Of a report no original is asked for: nobody may get rid of one like that."""
    copy = files(settled)[0].with_name("20261122-" + "a1" * 20 + ".eml.gz")
    assert copy.exists()
    relinked(settled, 0, b'"event":"archived"', b'"event":"outcome-report"')
    assert wrong(settled)
