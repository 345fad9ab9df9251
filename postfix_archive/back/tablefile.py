"""Compile the sources that archive_tables names to tables beside them, all or none.

Used by ``postfix-archive tables``, tables.explain and doctor. A compiled table and its
database replace the old ones by rename(2), so Postfix never reads half a table. A file
that postfix-archive did not make is not replaced. Raises TableWrong,
PostfixCommandFailed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from postfix_archive.back import files, postconf
from postfix_archive.core import tables
from postfix_archive.core.errors import TableWrong
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.tables import Compiled

SOURCE = ".in"
# Table types with a database that postmap(1) makes, and its suffix.
DATABASES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}
MODE = 0o644  # of a new table: smtpd(8) reads access(5) tables as mail_owner


@dataclass(frozen=True)
class Table:
    """A compiled source; needs_write: the table on disk is missing or differs."""

    kind: str
    source: str
    compiled: Compiled
    is_new: bool

    @property
    def native(self) -> str:
        """The path of the compiled table, which main.cf names."""
        return self.source.removesuffix(SOURCE)

    @property
    def needs_reload(self) -> bool:
        """True for types that Postfix's processes read only when they start."""
        return self.kind not in DATABASES


def compiled(sources: tuple[tuple[str, str], ...], keys: Keyring) -> list[Table]:
    """Read and compile the sources, each a (type, path); write nothing.

    Raises TableWrong for the first wrong one.
    """
    return [_compiled(kind, source, keys) for kind, source in sources]


def write(found: list[Table], config_directory: str) -> list[str]:
    """Write the tables that are new; return the warnings of postmap(1).

    Tables and databases are durable on return. Raises TableWrong, PostfixCommandFailed:
    no table has changed then, except after a rename(2) that failed midway; another call
    repairs that.
    """
    drafts: list[tuple[str, str]] = []
    warnings: list[str] = []
    try:
        for table in found:
            if table.is_new:
                warnings += _prepare(table, drafts, config_directory)
        while drafts:
            _publish(*drafts[0])
            del drafts[0]
    finally:
        for draft, _ in drafts:
            with contextlib.suppress(OSError):
                os.unlink(draft)
    return warnings


def _compiled(kind: str, source: str, keys: Keyring) -> Table:
    native = source.removesuffix(SOURCE)
    before = _content(native)
    content = _content(source)
    if before is not None and not before.startswith(tables.MARKER):
        raise TableWrong(_not_ours(native, both=content is not None))
    if content is None:
        raise TableWrong(
            f"{source} is missing: create it, or remove it from archive_tables"
        )
    made = tables.compiled(content, kind=kind, place=source, keys=keys)
    is_whole = kind not in DATABASES or os.path.exists(native + DATABASES[kind])
    return Table(kind, source, made, before != made.native or not is_whole)


def _not_ours(native: str, *, both: bool) -> str:
    if both:
        return (
            f"{native} was not made by postfix-archive: copy the lines that you need to"
            f" {native}{SOURCE}, mv {native} {native}.before-archive, and run again"
        )
    return (
        f"{native} was not made by postfix-archive: mv {native} {native}{SOURCE}, add"
        " your ARCHIVE lines there, and run again"
    )


def _content(path: str) -> bytes | None:
    """Return the bytes of a file, None if it does not exist."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise _failed(path, problem) from problem


def _prepare(
    table: Table, drafts: list[tuple[str, str]], config_directory: str
) -> list[str]:
    """Write table and database to draft files; add the (draft, path) to rename.

    The database is renamed first: if the second rename fails, the table still differs
    from its source, and the next call does both again. Returns postmap's warnings.
    """
    directory, name = os.path.split(table.native)
    draft = f"{directory}/.{name}.{os.urandom(4).hex()}.draft"
    database = DATABASES.get(table.kind, "")
    if database:
        drafts.append((draft + database, table.native + database))
    drafts.append((draft, table.native))
    try:
        former = _former(table.native)
        _put(draft, table.compiled.native, former.st_mode & 0o777 if former else MODE)
        warnings = []
        if database:
            warnings = postconf.index(config_directory, f"{table.kind}:{draft}")
        for path in {draft, draft + database}:
            _settle(path, former)
    except OSError as problem:
        raise _failed(table.native, problem) from problem
    return [each.replace(draft, table.native) for each in warnings]


def _former(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _put(path: str, content: bytes, mode: int) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        files.write_all(descriptor, content)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _settle(path: str, former: os.stat_result | None) -> None:
    """Give a draft the owner of the table that it replaces, and fsync it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if former is not None:
            os.fchown(descriptor, former.st_uid, former.st_gid)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(draft: str, path: str) -> None:
    try:
        os.rename(draft, path)
    except OSError as problem:
        raise _failed(path, problem) from problem
    files.sync_folder(os.path.dirname(path))


def _failed(path: str, problem: OSError) -> TableWrong:
    return TableWrong(
        f"{path}: {problem.strerror}; run as root, and check permissions and free space"
    )
