"""Names that Postfix has completed with its own domain."""

from __future__ import annotations

import posix
from pathlib import Path

import pytest

from postfix_archive.stamp_filter import transaction


@pytest.mark.parametrize("is_in_file", [False, True])
def test_a_name_is_completed_with_myorigin_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_file: bool
) -> None:
    """As a value or as the name of a file, Debian's default (postconf(5))."""
    file = tmp_path / "mailname"
    file.write_text("host.example.com\n")
    value = str(file) if is_in_file else "host.example.com"
    monkeypatch.setitem(posix.environ, b"MYORIGIN", value.encode())
    assert transaction.is_completed(b"root", b"root@host.example.com")
    assert not transaction.is_completed(b"root", b"root@other.example.com")
    assert not transaction.is_completed(b"root", b"admin@host.example.com")


def test_without_myorigin_nothing_is_known_to_be_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(posix.environ, b"MYORIGIN", raising=False)
    assert not transaction.is_completed(b"root", b"root@host.example.com")
    assert not transaction.is_completed(b"root", b"root@")
    monkeypatch.setitem(posix.environ, b"MYORIGIN", b"/nowhere/mailname")
    assert not transaction.is_completed(b"root", b"root@/nowhere/mailname")
