"""The command verify as a program runs it: exit codes, JSON, an output that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.cli import main

from unit.examples import ARCHIVE_ID, LEGAL
from unit.store.test_archive import NAME, Capture

RUN = "import sys; from postfix_archive.cli.main import main; sys.argv[0] = 'x'; main()"
OTHER = "b" * 64


@pytest.fixture
def config_directory(tmp_path: Path) -> Path:
    """An instance with one archived message in its store."""
    store, config = tmp_path / "store", tmp_path / "etc"
    config.mkdir()
    fallback = tmp_path / "fallback"
    fallback.mkdir()
    (config / "archive.cf").write_text(
        f"archive_store_directory = {store}\narchive_fallback_directory = {fallback}\n"
    )
    Capture().store_in(store)
    return config


def run(
    config: Path, *arguments: str, stdout: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, "-c", str(config), *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def remove_file(config: Path) -> None:
    (config.parent / "store" / LEGAL / NAME).unlink()


def test_verify_exits_as_a_monitoring_plugin(config_directory: Path) -> None:
    process = run(config_directory, "verify")
    assert (process.returncode, process.stderr) == (0, "")
    [line] = process.stdout.splitlines()  # no progress in a file
    assert line.startswith(f"{LEGAL}: 1 files, 2 lines")
    assert run(config_directory, "verify", "--archive", "x@y").returncode == 3
    remove_file(config_directory)
    assert run(config_directory, "verify").returncode == 2


def test_verify_json_has_every_finding(config_directory: Path) -> None:
    result = json.loads(run(config_directory, "verify", "--json").stdout)
    [archive] = result["archives"]
    assert (result["status"], archive["archive"]) == ("OK", LEGAL)
    assert (archive["files"], archive["lines"], archive["errors"]) == (1, 2, 0)
    assert (archive["unnamed_files"], archive["access_lines"]) == (0, 0)
    assert run(config_directory, "list").returncode == 0
    (config_directory.parent / "store" / LEGAL / "2026").mkdir(exist_ok=True)
    (config_directory.parent / "store" / LEGAL / "2026" / "other").touch()
    other = json.loads(run(config_directory, "verify", "--json").stdout)["archives"][0]
    assert (other["unnamed_files"], other["access_lines"]) == (1, 2)
    (config_directory.parent / "store" / LEGAL / "2026" / "other").unlink()
    sealed = ("verify", "--json", "--sealed", archive["last_sha256"])
    assert run(config_directory, *sealed).returncode == 0
    process = run(config_directory, *sealed, "--sealed", OTHER)
    [finding] = json.loads(process.stdout)["findings"]
    assert process.returncode == 2 and OTHER in finding["problem"]
    remove_file(config_directory)
    process = run(config_directory, "verify", "--json")
    result = json.loads(process.stdout)
    [finding] = result["archives"][0]["findings"]
    assert (process.returncode, result["status"]) == (2, "CRITICAL")
    assert finding["severity"] == "ERROR" and finding["place"].endswith(NAME)
    process = run(config_directory, "verify", "--json", "--archive", "x@y")
    assert json.loads(process.stdout)["status"] == "UNKNOWN"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("list",),
        ("list", "--json"),
        ("show", ARCHIVE_ID),
        ("show", "--raw", ARCHIVE_ID),
        ("verify",),
        ("verify", "--json"),
        ("verify", "--archive", "x@y"),
        ("tables",),
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_named(
    config_directory: Path, arguments: tuple[str, ...]
) -> None:
    with open("/dev/full", "w") as full:
        process = run(config_directory, *arguments, stdout=full)
    expected = "postfix-archive: standard output: No space left on device\n"
    assert (process.returncode, process.stderr) == (3, expected)


def cut_file(config: Path) -> None:
    path = config.parent / "store" / LEGAL / NAME
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:200])


def replace_by_fifo(config: Path) -> None:
    remove_file(config)
    os.mkfifo(config.parent / "store" / LEGAL / NAME)


@pytest.mark.parametrize("damage", [remove_file, cut_file, replace_by_fifo])
def test_a_damaged_copy_does_not_end_list_and_show(
    config_directory: Path, damage: Callable[[Path], None]
) -> None:
    later_id = ARCHIVE_ID[:-1] + "f"
    Capture(message=b"Subject: later\r\n\r\n", archive_id=later_id).store_in(
        config_directory.parent / "store"
    )
    damage(config_directory)
    process = run(config_directory, "list")
    damaged_line, line = process.stdout.splitlines()
    assert process.returncode == 1
    assert damaged_line.startswith(ARCHIVE_ID) and "missing or damaged" in damaged_line
    assert line.startswith(later_id) and line.endswith("later")
    [error] = process.stderr.splitlines()
    assert NAME in error
    process = run(config_directory, "show", ARCHIVE_ID)
    assert process.returncode == 1
    assert "missing or damaged" in process.stdout
    assert "Recipients:  1" in process.stdout and "History:" in process.stdout
    assert NAME in process.stderr and len(process.stderr.splitlines()) == 1
    process = run(config_directory, "list", "--json")
    assert (process.returncode, len(process.stdout.splitlines())) == (0, 2)


def test_a_reader_that_ends_early_gets_no_traceback(config_directory: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    process = run(config_directory, "show", "--raw", ARCHIVE_ID, stdout=writes)
    os.close(writes)
    assert (process.returncode, process.stderr) == (1, "")


def test_the_group_is_the_one_that_the_program_runs() -> None:
    assert isinstance(main.main, main.CommandGroup)
