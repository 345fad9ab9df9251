"""Claims about compiled tables on disk: ours alone, whole, and all or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postfix_archive.errors import PostfixCommandFailed, TableInvalid
from postfix_archive.postfix import postfix_command
from postfix_archive.tables import table_file, table_source
from postfix_archive.tables.table_file import Table

from unit.examples import KEYS

LINE = b"/x/ ARCHIVE legal@example.com\n"


def compile_tables(directory: Path, *tables: str) -> list[Table]:
    """Compile the sources given as type:name."""
    type_and_name = [word.split(":") for word in tables]
    sources = tuple((kind, f"{directory}/{name}.in") for kind, name in type_and_name)
    return table_file.compile_all(sources, KEYS)


def write_tables(directory: Path, *tables: str) -> list[str]:
    return table_file.write_all(compile_tables(directory, *tables), str(directory))


def names_in(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_a_native_table_is_written_beside_its_source(tmp_path: Path) -> None:
    (tmp_path / "a.in").write_bytes(LINE)
    assert write_tables(tmp_path, "regexp:a") == []
    assert names_in(tmp_path) == ["a", "a.in"]
    assert (tmp_path / "a").read_bytes().startswith(table_source.MARKER)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_an_unchanged_table_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "a.in").write_bytes(LINE)
    write_tables(tmp_path, "regexp:a")
    before = (tmp_path / "a").stat()
    [table] = compile_tables(tmp_path, "regexp:a")
    assert not table.needs_write
    table_file.write_all([table], str(tmp_path))
    after = (tmp_path / "a").stat()  # reading it may change the access time
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_mode_of_the_table_before_stays(tmp_path: Path) -> None:
    (tmp_path / "a.in").write_bytes(LINE)
    write_tables(tmp_path, "regexp:a")
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "a.in").write_bytes(LINE + LINE)
    write_tables(tmp_path, "regexp:a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "a").read_bytes().count(b"BCC") == 2


def test_one_wrong_source_leaves_all_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.in").write_bytes(LINE)
    (tmp_path / "b.in").write_bytes(b"/x/ ARCHIVE\n")
    with pytest.raises(TableInvalid, match="b.in, line 1"):
        write_tables(tmp_path, "regexp:a", "regexp:b")
    assert names_in(tmp_path) == ["a.in", "b.in"]


def test_a_postmap_that_fails_leaves_all_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> list[str]:
        raise PostfixCommandFailed("postmap: no")

    monkeypatch.setattr(postfix_command, "build_table", fail)
    for name in ("a", "b"):
        (tmp_path / f"{name}.in").write_bytes(LINE)
    with pytest.raises(PostfixCommandFailed):
        write_tables(tmp_path, "regexp:a", "hash:b")
    assert names_in(tmp_path) == ["a.in", "b.in"]


def test_the_database_gets_its_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def index(_: str, table: str) -> list[str]:
        path = table.partition(":")[2]
        Path(f"{path}.db").write_bytes(b"database")
        return [f"warning: {path}.db: duplicate"]

    renamed = []
    rename = os.rename

    def recording_rename(old: str, new: str) -> None:
        renamed.append(os.path.basename(new))
        rename(old, new)

    monkeypatch.setattr(postfix_command, "build_table", index)
    monkeypatch.setattr(os, "rename", recording_rename)
    (tmp_path / "a.in").write_bytes(b"x ARCHIVE legal@example.com\n")
    assert write_tables(tmp_path, "hash:a") == [f"warning: {tmp_path}/a.db: duplicate"]
    assert renamed == ["a.db", "a"]
    assert names_in(tmp_path) == ["a", "a.db", "a.in"]
    (tmp_path / "a.db").unlink()
    assert compile_tables(tmp_path, "hash:a")[0].needs_write


def test_a_table_that_we_did_not_make_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"/y/ REJECT\n")
    with pytest.raises(TableInvalid, match=f"mv {tmp_path}/a {tmp_path}/a.in, add"):
        write_tables(tmp_path, "regexp:a")
    (tmp_path / "a.in").write_bytes(LINE)
    with pytest.raises(TableInvalid, match=f"mv {tmp_path}/a {tmp_path}/a.before"):
        write_tables(tmp_path, "regexp:a")
    assert (tmp_path / "a").read_bytes() == b"/y/ REJECT\n"
    assert (tmp_path / "a.in").read_bytes() == LINE


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableInvalid, match="a.in is missing"):
        compile_tables(tmp_path, "regexp:a")


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.in").mkdir()
    with pytest.raises(TableInvalid, match="a.in: not a regular file"):
        compile_tables(tmp_path, "regexp:a")


def test_a_disk_that_fails_leaves_no_drafts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.in").write_bytes(LINE)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(TableInvalid, match="/a: No space left"):
        write_tables(tmp_path, "regexp:a")
    assert names_in(tmp_path) == ["a.in"]


@pytest.mark.parametrize(
    ("kind", "needs_reload"),
    [("hash", False), ("cdb", False), ("cidr", True), ("pcre", True)],
)
def test_tables_without_a_database_need_a_reload(kind: str, needs_reload: bool) -> None:
    table = table_source.CompiledTable(b"", (), 0)
    assert Table(kind, "/a.in", table, True).needs_reload is needs_reload
