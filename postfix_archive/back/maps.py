"""Reads lookup tables as Postfix does: their lines, and what they say for a key.

Used by back/observing, by postmap(1). A table that cannot be read or asked is left out.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from postfix_archive.back import postconf
from postfix_archive.core import questions
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import ArchiveError
from postfix_archive.core.settings import Settings

TEXT = ("pcre", "regexp", "cidr", "texthash")
INDEXED = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm")
IN_PLACE = ("inline", "static")


def texts(found: Configuration) -> dict[str, str]:
    """Return the lines of every local table with actions, by type:name."""
    told = {}
    for table in questions.tables(found):
        with contextlib.suppress(ArchiveError, OSError):
            told[table] = _text(found.directory, table)
    return told


def answers(
    found: Configuration, settings: Settings | None
) -> dict[tuple[str, str], str]:
    """Return what tables say for the doctor's keys, where they say something."""
    told = {}
    for table, key in questions.keys(found, settings):
        value = postconf.lookup(found.directory, table, key)
        if value:
            told[table, key] = value
    return told


def _text(directory: str, table: str) -> str:
    kind, _, name = table.partition(":")
    if kind in TEXT:
        return Path(name).read_text("utf-8", "surrogateescape")
    if kind in INDEXED:
        return _indexed(directory, table, name)
    return name if kind in IN_PLACE else ""


def _indexed(directory: str, table: str, name: str) -> str:
    """Return what the index has, which is what counts, else the source's lines."""
    try:
        return postconf.run(directory, "postmap", "-s", table)
    except ArchiveError:
        return Path(name).read_text("utf-8", "surrogateescape")
