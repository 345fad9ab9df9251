"""Claims about what is known of a store from outside: nothing is begun anew unseen."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from postfix_archive.cli import main
from postfix_archive.config import archive_cf
from postfix_archive.doctor import check_store, inspection
from postfix_archive.errors import StoreFailed
from postfix_archive.status import collect
from postfix_archive.store import journal, journal_format, known_end, verifier
from postfix_archive.store.archive import Archive

import journal_lines
from unit.doctor.test_checks import STOCK
from unit.examples import HR, LEGAL
from unit.store.test_archive import TIME, Capture

OTHER = "other@example.com"


class Host:
    """A store with two archives, and what was known of them at the last look."""

    def __init__(self, directory: Path) -> None:
        self.store, self.fallback = directory / "store", directory / "fallback"
        self.config = directory / "etc"
        self.config.mkdir()
        self.fallback.mkdir()
        (self.config / "archive.cf").write_text(
            f"archive_store_directory = {self.store}\n"
            f"archive_fallback_directory = {self.fallback}\n"
        )
        self.settings = archive_cf.load(str(self.config))
        for address in (LEGAL, HR):
            for number in range(3):
                self.add(address, number)
        self.look()

    def add(self, address: str, number: int) -> None:
        """Store a message as the archive transport does."""
        capture = Capture(
            message=b"Subject: %d\r\n\r\n%s\r\n" % (number, address.encode()),
            archive_id=f"2026112{number}-" + f"{number}" * 40,
        )
        Archive(
            str(self.store), address, marker_directory=str(self.fallback)
        ).store_copy(capture.capture, [capture.copy], TIME)

    def look(self) -> dict[str, str]:
        """Look as status does; return what is lost."""
        return collect._tallies(self.settings)[2]

    def verify(self, *arguments: str) -> tuple[int, list[str]]:
        """Return verify's exit code, and the places that it names."""
        result = CliRunner().invoke(
            main.main, ["-c", str(self.config), "verify", "--json", *arguments]
        )
        return result.exit_code, [
            each["place"] for each in json.loads(result.stdout)["findings"]
        ]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def cut_tail(host: Host) -> None:
    """Remove the last message without a trace within the store."""
    directory = host.store / LEGAL
    lines = journal_lines.segment(directory).read_bytes().splitlines(keepends=True)
    journal_lines.segment(directory).write_bytes(b"".join(lines[:-1]))
    (directory / "journal.last").unlink()
    sorted(directory.rglob("*.eml.gz"))[-1].unlink()


def cut_and_continue(host: Host) -> None:
    cut_tail(host)
    with journal.Journal(str(host.store / LEGAL)) as journal_file:
        journal_file.append("other", TIME, id="x" * 10_000)


def delete(host: Host) -> None:
    shutil.rmtree(host.store / LEGAL)


def rename(host: Host) -> None:
    (host.store / LEGAL).rename(host.store / OTHER)


def delete_journal(host: Host) -> None:
    delete(host)
    (host.store / LEGAL / "drafts").mkdir(parents=True)


def begin_anew(host: Host) -> None:
    """What lies below a mount point: the probe of make install, for example."""
    delete(host)
    Capture(message=b"probe\r\n").store_in(host.store)


def replace(host: Host) -> None:
    delete(host)
    shutil.copytree(host.store / HR, host.store / LEGAL)


LOSSES = (
    cut_tail,
    cut_and_continue,
    delete,
    rename,
    delete_journal,
    begin_anew,
    replace,
)


@pytest.mark.parametrize("lose", LOSSES)
def test_what_a_store_has_lost_is_reported_until_somebody_says_it_is_right(
    lose: Callable[[Host], None], host: Host
) -> None:
    assert host.verify() == (0, [])
    assert host.look() == {}
    lose(host)
    for _ in range(2):  # looking does not forget
        assert list(host.look()) == [LEGAL]
        exit_code, places = host.verify()
        assert exit_code == 2 and any(LEGAL in each for each in places)
        assert host.verify("--archive", HR) == (0, [])
        losses = inspection._journal_losses(host.settings)
        found = STOCK.__class__(STOCK.config, host.settings, journal_losses=losses)
        [finding] = check_store.check_journals(found)
        assert finding.place == f"{host.store}/{LEGAL}"
        assert str(host.fallback / known_end.FILE_NAME) in finding.fix
    (host.fallback / known_end.FILE_NAME).unlink()
    assert host.look() == {}


@pytest.mark.parametrize("has_written", [False, True])
@pytest.mark.parametrize("lose", LOSSES)
def test_nothing_is_written_into_a_store_that_has_lost_lines(
    lose: Callable[[Host], None], host: Host, has_written: bool
) -> None:
    """Nor by a process that has found it whole before."""
    if has_written:
        host.look()
        host.add(LEGAL, 2)  # again
    lose(host)
    before = sorted(map(str, host.store.rglob("*")))
    with pytest.raises(StoreFailed, match="line|journal is missing"):
        host.add(LEGAL, 5)
    after = sorted(map(str, host.store.rglob("*")))
    assert [each for each in after if "drafts" not in each] == [
        each for each in before if "drafts" not in each
    ]
    host.add(HR, 5)


def test_two_archives_that_changed_places_are_both_reported(host: Host) -> None:
    host.add(HR, 4)
    host.look()
    (host.store / LEGAL).rename(host.store / "x")
    (host.store / HR).rename(host.store / LEGAL)
    (host.store / "x").rename(host.store / HR)
    assert sorted(host.look()) == sorted([LEGAL, HR])
    exit_code, places = host.verify()
    assert exit_code == 2 and len(places) == 2


def test_what_is_known_grows_with_the_journal(host: Host) -> None:
    host.add(LEGAL, 4)
    host.look()
    lines = journal_lines.segment(host.store / LEGAL).read_bytes().splitlines()
    end = known_end.read(str(host.fallback), str(host.store))[LEGAL]
    assert (end.number, end.sha256) == (5, journal_lines.line_sha256(lines[-1]))
    assert (host.fallback / known_end.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_the_timer_looks_without_a_file_for_prometheus(host: Host) -> None:
    host.add(LEGAL, 4)
    arguments = ["-c", str(host.config), "status", "--write"]
    assert CliRunner().invoke(main.main, arguments).exit_code == 0
    assert known_end.read(str(host.fallback), str(host.store))[LEGAL].number == 5


def test_a_line_that_may_still_be_taken_back_is_not_known(host: Host) -> None:
    """Of a writer that has the lock, and whose fsync may fail."""
    host.add(LEGAL, 4)
    directory = os.open(host.store / LEGAL / "journal.lock", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    assert host.look() == {}
    assert known_end.read(str(host.fallback), str(host.store))[LEGAL].number == 4
    os.close(directory)
    host.look()
    assert known_end.read(str(host.fallback), str(host.store))[LEGAL].number == 5


def test_a_damaged_last_line_is_not_known(host: Host) -> None:
    """Whoever removes it repairs the journal."""
    path = journal_lines.segment(host.store / LEGAL)
    content = path.read_bytes()
    path.write_bytes(content + b"[]\n")
    assert host.look() == {}
    path.write_bytes(content)
    assert host.look() == {}


def test_stores_that_share_the_directory_do_not_mix(host: Host, tmp_path: Path) -> None:
    other = tmp_path / "other store"
    shutil.copytree(host.store, other)
    (host.config / "archive.cf").write_text(
        f"archive_store_directory = {other}\n"
        f"archive_fallback_directory = {host.fallback}\n"
    )
    settings = archive_cf.load(str(host.config))
    assert collect._tallies(settings)[2] == {}
    delete(host)
    assert collect._tallies(settings)[2] == {}
    assert list(host.look()) == [LEGAL]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\n",
        b"1 2 3\n",
        b"-1 2 3 x a@b /s\n",
        b"\xb2 2 3 x a@b /s\n",
        b" " * 99,
    ],
)
def test_a_damaged_file_is_no_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / known_end.FILE_NAME).write_bytes(content)
    assert known_end.read(str(tmp_path), "/s") == {}


def test_the_file_names_agree() -> None:
    assert journal_format.NAME == verifier.JOURNAL
