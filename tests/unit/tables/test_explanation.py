"""Claims about what explain makes of a message's own bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from postfix_archive.cli import main
from postfix_archive.doctor import inspection
from postfix_archive.errors import TableInvalid
from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.lookup_tables import Lookup
from postfix_archive.tables import explanation
from postfix_archive.tables.explain_plan import TableQuery

from unit.examples import LEGAL

LINE = "/x/ ARCHIVE legal@example.com\n"


def explain(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *lines: str
) -> list[explanation.Reason]:
    """What is made of the lines that postmap prints for a message."""
    monkeypatch.setattr(
        postfix_command,
        "run_postmap",
        lambda *_: "".join(each + "\n" for each in lines),
    )
    (directory / "x.in").write_text(LINE)
    sources = explanation.CompiledSources("/etc/postfix", directory)
    sources.add("pcre", f"{directory}/x.in")
    lookup = Lookup(f"pcre:{directory}/x", "header_checks", "", None)
    return list(sources.find_matches(TableQuery(lookup, postmap_flags="h"), b""))


def test_a_header_line_with_an_odd_line_end_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "Subject: a\u2028b\x85c\tARCHIVE-IN-LINE 1"
    (answer,) = explain(tmp_path, monkeypatch, line)
    assert answer.matched_text == "header_checks: Subject: a\u2028b\x85c"
    assert answer.archives == (LEGAL,)


def test_a_header_line_cannot_make_up_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "X: a\tARCHIVE-IN-LINE 1\u2028b\tOK \udcff"
    assert explain(tmp_path, monkeypatch, line) == []


def test_bytes_that_are_no_utf8_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def observed(_: str) -> None:
        raise TableInvalid("/x: line \udcff")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(inspection, "inspect_host", observed)
    result = CliRunner().invoke(main.main, ["-c", "/nowhere", "doctor"])
    assert result.output == "UNKNOWN: /x: line \\udcff\n"
