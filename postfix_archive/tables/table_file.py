"""Compile the sources that archive_tables names to tables beside them, all or none.

Used by ``postfix-archive tables``, tables.explain and doctor. A compiled table and its
database replace the old ones by rename(2), so Postfix never reads half a table. A file
that postfix-archive did not make is not replaced. Raises TableInvalid,
PostfixCommandFailed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from postfix_archive.errors import TableInvalid
from postfix_archive.message.keyring import Keyring
from postfix_archive.postfix import postfix_command
from postfix_archive.system import files, privileges
from postfix_archive.tables import table_source
from postfix_archive.tables.table_source import CompiledTable

SOURCE_SUFFIX = ".in"
# Table types with a database that postmap(1) makes, and its suffix.
DATABASE_SUFFIXES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}
NEW_TABLE_MODE = 0o644  # of a new table: smtpd(8) reads access(5) tables as mail_owner


@dataclass(frozen=True)
class Table:
    """A compiled source; needs_write: the table on disk is missing or differs."""

    table_type: str
    source_path: str
    compiled: CompiledTable
    needs_write: bool

    @property
    def path(self) -> str:
        """The path of the compiled table, which main.cf names."""
        return self.source_path.removesuffix(SOURCE_SUFFIX)

    @property
    def needs_reload(self) -> bool:
        """True for types that Postfix's processes read only when they start."""
        return self.table_type not in DATABASE_SUFFIXES


def compile_all(sources: tuple[tuple[str, str], ...], keys: Keyring) -> list[Table]:
    """Read and compile the sources, each a (type, path); write nothing.

    Raises TableInvalid for the first wrong one.
    """
    return [_compile(kind, source, keys) for kind, source in sources]


def write_all(compiled_tables: list[Table], config_directory: str) -> list[str]:
    """Write the tables that are new; return the warnings of postmap(1).

    Tables and databases are durable on return. Raises TableInvalid and
    PostfixCommandFailed: no table has changed then, except after a rename(2) that
    failed midway; another call repairs that.
    """
    drafts: list[tuple[str, str]] = []
    warnings: list[str] = []
    _require_own_directories([each.path for each in compiled_tables])
    try:
        for table in compiled_tables:
            if table.needs_write:
                warnings += _write_drafts(table, drafts, config_directory)
        while drafts:
            _rename(*drafts[0])
            del drafts[0]
    finally:
        for draft, _ in drafts:
            with contextlib.suppress(OSError):
                os.unlink(draft)
    return warnings


def _require_own_directories(paths: list[str]) -> None:
    """Raise TableInvalid for a table in a directory of another user.

    Who can replace a draft there decides which file postmap(1) writes as root.
    """
    for path in paths:
        directory = os.path.dirname(path)
        try:
            is_foreign = privileges.can_others_write(directory)
        except OSError as error:
            raise _error(directory, error) from error
        if is_foreign:
            raise TableInvalid(
                f"{path}: a user other than root can change files in {directory}; move"
                " the table and its source to a directory of root's"
            )


def _compile(table_type: str, source_path: str, keys: Keyring) -> Table:
    path = source_path.removesuffix(SOURCE_SUFFIX)
    old_content = _read(path)
    content = _read(source_path)
    if old_content is not None and not old_content.startswith(table_source.MARKER):
        raise TableInvalid(_foreign_table_text(path, has_source=content is not None))
    if content is None:
        raise TableInvalid(
            f"{source_path} is missing: create it, or remove it from archive_tables"
        )
    new_table = table_source.compile_table(
        content, table_type=table_type, path=source_path, keys=keys
    )
    has_database = table_type not in DATABASE_SUFFIXES or os.path.exists(
        path + DATABASE_SUFFIXES[table_type]
    )
    return Table(
        table_type,
        source_path,
        new_table,
        old_content != new_table.content or not has_database,
    )


def _foreign_table_text(path: str, *, has_source: bool) -> str:
    if has_source:
        return (
            f"{path} was not made by postfix-archive: copy the lines that you need to"
            f" {path}{SOURCE_SUFFIX}, mv {path} {path}.before-archive, and run again"
        )
    return (
        f"{path} was not made by postfix-archive: mv {path} {path}{SOURCE_SUFFIX}, add"
        " your ARCHIVE lines there, and run again"
    )


def _read(path: str) -> bytes | None:
    """Return the bytes of a file, None if it does not exist."""
    try:
        return privileges.read_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _error(path, error) from error


def _write_drafts(
    table: Table, drafts: list[tuple[str, str]], config_directory: str
) -> list[str]:
    """Write table and database to draft files; add the (draft, path) to rename.

    The database is renamed first: if the second rename fails, the table still differs
    from its source, and the next call does both again. Returns postmap's warnings.
    """
    database = DATABASE_SUFFIXES.get(table.table_type, "")
    warnings = []
    try:
        draft = files.write_draft(
            table.path, table.compiled.content, NEW_TABLE_MODE, like=table.path
        )
        drafts.append((draft, table.path))
        if database:
            drafts.insert(-1, (draft + database, table.path + database))
            warnings = postfix_command.build_table(
                config_directory, f"{table.table_type}:{draft}"
            )
            _sync_database(draft + database, table.path)
    except OSError as error:
        raise _error(table.path, error) from error
    return [each.replace(draft, table.path) for each in warnings]


def _sync_database(path: str, table_path: str) -> None:
    """Give a new database owner and mode of the table that it is for, and fsync it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        files.copy_attributes(table_path, descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(draft: str, path: str) -> None:
    try:
        os.rename(draft, path)
    except OSError as error:
        raise _error(path, error) from error
    files.sync_directory(os.path.dirname(path), TableInvalid)


def _error(path: str, error: OSError) -> TableInvalid:
    return TableInvalid(
        f"{path}: {error.strerror}; run as root, and check permissions and free space"
    )
