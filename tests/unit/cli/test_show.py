"""The command show: the message in a record, its parts, its integrity."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from postfix_archive.cli import main
from postfix_archive.search.extraction_process import Extractor

from unit.examples import ARCHIVE_ID, FROM_SMTP, LEGAL
from unit.search import documents
from unit.store.test_archive import NAME, Capture

RUN = "import sys; from postfix_archive.cli.main import main; sys.argv[0] = 'x'; main()"
# Moves the cursor, turns the text round, ends a line: ESC, CSI (C1), RLO, BEL.
HOSTILE = "a\x1b[2Jb\x9bc\u202ed\x07e"
SAFE = "a\\x1B[2Jb?c?d\\x07e"
HTML = '<p title="Grüße">Grüße <b>aus</b> Köln</p>'


def message() -> bytes:
    mail = EmailMessage()
    mail["From"] = "Jürgen Groß <j@example.org>"
    mail["To"] = "bob@example.com"
    mail["Subject"] = "Der Vertrag"
    mail["Date"] = "Sun, 22 Nov 2026 12:52:00 +0100"
    mail["Message-ID"] = "<1@example.org>"
    mail.set_content(f"the text {HOSTILE}\n")
    mail.add_alternative(HTML, subtype="html", charset="iso-8859-1")
    mail.add_attachment(
        documents.pdf(), maintype="application", subtype="pdf", filename=f"ü{HOSTILE}"
    )
    return FROM_SMTP + mail.as_bytes().replace(b"\n", b"\r\n")


@pytest.fixture
def config_directory(tmp_path: Path) -> Path:
    """An instance with this message in its store."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "archive.cf").write_text(
        f"archive_store_directory = {tmp_path}/store\n"
    )
    Capture(message=message()).store_in(tmp_path / "store")
    return tmp_path / "etc"


def show(config: Path, *options: str, exit_code: int = 0) -> Result:
    arguments = ["-c", str(config), "show", *options, ARCHIVE_ID[:20]]
    result = CliRunner().invoke(main.main, arguments)
    assert result.exit_code == exit_code, result.output
    return result


def test_show_prints_header_parts_and_text(config_directory: Path) -> None:
    output = show(config_directory).output
    size = len(documents.pdf())
    for line in (
        "Recipients:  1",
        "  From:        Jürgen Groß <j@example.org>",
        "  Date:        2026-11-22T11:52:00Z",
        "Message-ID:  <1@example.org>",
        "    1  text/plain  26 bytes",
        "    2  text/html  44 bytes",
        f"    3  application/pdf  {size} bytes  ü{SAFE}",
        f"  the text {SAFE}",
        "  Grüße aus Köln",
        f"  {documents.LATIN_WORDS}",
        "Integrity:   journal lines, files and original have the SHA-256 that the"
        " journal names",
    ):
        assert line in output.splitlines(), output
    for char in "\x1b\x9b\u202e\x07":
        assert char not in output


def test_show_as_json_is_one_object(config_directory: Path) -> None:
    found = json.loads(show(config_directory, "--json").stdout)
    assert (found["id"], found["archive"]) == (ARCHIVE_ID, LEGAL)
    assert found["header"]["from"] == ["Jürgen Groß <j@example.org>"]
    assert found["integrity_problems"] == found["not_read"] == []
    assert [each["media_type"] for each in found["parts"]] == [
        "text/plain",
        "text/html",
        "application/pdf",
    ]
    assert documents.LATIN_WORDS in found["text"]


def test_a_part_is_written_as_it_was_attached(config_directory: Path) -> None:
    found = show(config_directory, "--part", "3").stdout_bytes
    assert found == documents.pdf()
    assert show(config_directory, "--part", "1").stdout_bytes.startswith(b"the text")
    error = show(config_directory, "--part", "4", exit_code=1).stderr
    assert f"{ARCHIVE_ID} has no part 4; it has 3" in error
    show(config_directory, "--part", "0", exit_code=2)


def test_html_is_written_in_utf8_with_its_mark(config_directory: Path) -> None:
    found = show(config_directory, "--html").stdout_bytes
    assert found.decode("utf-8-sig").strip() == HTML
    assert found.startswith(b"\xef\xbb\xbf")


def test_a_message_without_html_says_so(tmp_path: Path, config_directory: Path) -> None:
    later_id = ARCHIVE_ID[:-1] + "f"
    Capture(message=b"Subject: x\r\n\r\n", archive_id=later_id).store_in(
        tmp_path / "store"
    )
    arguments = ["-c", str(config_directory), "show", "--html", later_id]
    result = CliRunner().invoke(main.main, arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{later_id} has no HTML part" in result.stderr


@pytest.mark.parametrize(
    "options",
    [("--raw", "--original"), ("--part", "1", "--json"), ("--html", "--outcome")],
)
def test_two_outputs_at_once_are_refused(
    config_directory: Path, options: tuple[str, ...]
) -> None:
    assert "not two" in show(config_directory, *options, exit_code=2).stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_file_that_differs_from_the_journal_is_named(
    tmp_path: Path, config_directory: Path, options: tuple[str, ...]
) -> None:
    path = tmp_path / "store" / LEGAL / NAME
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[9] ^= 1  # the operating system in the header of gzip: same content
    path.write_bytes(content)
    result = show(config_directory, *options, exit_code=1)
    expected = f"{path}: SHA-256 differs from the journal"
    assert expected in result.stdout
    assert result.stderr == f"postfix-archive: RecordDamaged: {expected}\n"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b'"stamp":"absent"', b'"stamp":"forged"', "details differ from their SHA-256"),
        (b'"time":"2026-11-22', b'"time":"2026-11-23', "next line names another hash"),
    ],
)
def test_a_changed_journal_line_is_named(
    tmp_path: Path, config_directory: Path, old: bytes, new: bytes, problem: str
) -> None:
    later_id = ARCHIVE_ID[:-1] + "f"
    Capture(message=b"Subject: x\r\n\r\n", archive_id=later_id).store_in(
        tmp_path / "store"
    )
    [segment] = (tmp_path / "store" / LEGAL / "journal").iterdir()
    first_line, second, *others = segment.read_bytes().splitlines(keepends=True)
    assert old in second
    segment.write_bytes(first_line + second.replace(old, new, 1) + b"".join(others))
    arguments = ["-c", str(config_directory), "show", ARCHIVE_ID]
    result = CliRunner().invoke(main.main, arguments)
    assert result.exit_code == 1
    assert problem in result.stdout and problem in result.stderr


@pytest.mark.parametrize("option", ["--original", "--raw", "--part=1", "--html"])
def test_a_terminal_gets_safe_text(config_directory: Path, option: str) -> None:
    master, terminal = pty.openpty()
    command = [sys.executable, "-c", RUN, "-c", str(config_directory)]
    with subprocess.Popen(
        [*command, "show", option, ARCHIVE_ID], stdout=terminal
    ) as process:
        os.close(terminal)
        output = read_all(master)
    os.close(master)
    assert process.returncode == 0
    for unsafe in (b"\x1b", b"\xc2\x9b", b"\xe2\x80\xae", b"\x07"):
        assert unsafe not in output
    assert (b"Gr" if option == "--html" else b"the text") in output


def read_all(terminal: int) -> bytes:
    """Read until the other side is closed, which a terminal tells by EIO."""
    chunks = []
    try:
        while chunk := os.read(terminal, 1 << 16):
            chunks.append(chunk)
    except OSError:
        pass
    return b"".join(chunks)


def test_a_text_that_cannot_be_extracted_is_named(
    monkeypatch: pytest.MonkeyPatch, config_directory: Path
) -> None:
    monkeypatch.setattr(
        "postfix_archive.search.extraction_process.PROGRAM", "raise SystemExit(7)"
    )
    output = show(config_directory).output
    assert "Not read:    extraction: process failed (exit code 7)" in output
    assert "  From:        Jürgen Groß" in output and "Text:" not in output
    assert Extractor().pid == 0
