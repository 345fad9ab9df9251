"""Read lookup tables and look up keys in them with postmap(1), for the doctor.

A table that cannot be read is left out.
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
    """Return type:name -> text of the tables with actions and the bcc maps."""
    texts_by_table = {}
    for table in questions.tables(found):
        with contextlib.suppress(ArchiveError, OSError):
            texts_by_table[table] = _text(found.directory, table)
    return texts_by_table


def answers(
    found: Configuration, settings: Settings | None
) -> dict[tuple[str, str], str]:
    """Return (table, key) -> result of the doctor's lookups that find something."""
    results = {}
    for table, key in questions.keys(found, settings):
        value = postconf.lookup(found.directory, table, key)
        if value:
            results[table, key] = value
    return results


def _text(directory: str, table: str) -> str:
    kind, _, name = table.partition(":")
    if kind in TEXT:
        return Path(name).read_text("utf-8", "surrogateescape")
    if kind in INDEXED:
        return _indexed(directory, table, name)
    return name if kind in IN_PLACE else ""


def _indexed(directory: str, table: str, name: str) -> str:
    """Return the content of the database, or of the text file if there is none.

    Postfix reads the database, which can differ from the text file.
    """
    try:
        return postconf.run(directory, "postmap", "-s", table)
    except ArchiveError:
        return Path(name).read_text("utf-8", "surrogateescape")
