"""Claims about verify: what is cut, flipped, dropped, inserted or moved is named."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.back import journal, verifying

from unit.examples import LEGAL, MESSAGE
from unit.test_store import Capture

SCRIPT = Path(__file__).resolve().parent.parent.parent / "contrib" / "verify_archive.py"
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
    found = verifying.verify(str(folder)).findings
    return [str(each) for each in found if not each.is_note]


def notes(folder: Path) -> list[str]:
    found = verifying.verify(str(folder)).findings
    return [str(each) for each in found if each.is_note]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.eml.gz"))


def lines(folder: Path) -> list[bytes]:
    return (folder / journal.NAME).read_bytes().splitlines(keepends=True)


def rewrite(folder: Path, kept: list[bytes]) -> None:
    (folder / journal.NAME).write_bytes(b"".join(kept))


def harmed(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)


def test_a_sound_archive_has_nothing_wrong(folder: Path) -> None:
    told = verifying.verify(str(folder))
    assert not told.findings
    assert (len(told.files), told.lines) == (COUNT, COUNT)


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
    path = folder / journal.NAME
    content = path.read_bytes()
    for at in range(len(content)):
        other = bytearray(content)
        other[at] ^= 1 << at % 7
        path.write_bytes(bytes(other))
        assert wrong(folder), at


def test_a_journal_cut_at_any_byte_is_named_and_the_next_write_goes_on(
    folder: Path,
) -> None:
    path = folder / journal.NAME
    content = path.read_bytes()
    last = (folder / journal.LAST).read_bytes()
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
        (folder / journal.LAST).write_bytes(last)
    # The line end of the last line alone says nothing that could be lost.
    assert [each for each in missed if abs(each) != len(content) - 1] == []


def test_an_empty_or_missing_journal_is_named(folder: Path) -> None:
    path = folder / journal.NAME
    path.write_bytes(b"")
    assert wrong(folder)
    path.unlink()
    assert any("there is no journal" in each for each in wrong(folder))


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
    assert any("the journal has it, the store has not" in each for each in found)
    assert any("the store has it, the journal has not" in each for each in found)
    assert len(found) == 2
    lost.with_name(f"x{lost.name}").rename(lost)
    other.rename(other.with_suffix(".away"))
    other.symlink_to(other.with_suffix(".away"))
    assert any("no regular file" in each for each in wrong(folder))


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
    with open(folder / journal.NAME, "ab") as opened:
        opened.write(b'{"seq":5,"time":"2026')
    assert wrong(folder) == []
    assert len(notes(folder)) == 3
    with journal.Journal(str(folder)) as events:
        events.append("after", "2026-11-24T12:00:00Z")
    assert wrong(folder) == []


def test_a_damaged_note_of_the_last_line_is_named(folder: Path) -> None:
    path = folder / journal.LAST
    content = path.read_bytes()
    for at in range(len(content)):
        other = bytearray(content)
        other[at] ^= 1
        path.write_bytes(bytes(other))
        assert wrong(folder), at


def test_others_may_not_read_a_file(folder: Path) -> None:
    files(folder)[0].chmod(0o404)
    assert any("others may read it" in each for each in wrong(folder))


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
