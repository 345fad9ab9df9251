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

TEXT_TYPES = ("pcre", "regexp", "cidr", "texthash")
DATABASE_TYPES = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm")
INLINE_TYPES = ("inline", "static")


def table_texts(postfix_config: Configuration) -> dict[str, str]:
    """Return type:name -> text of the tables with actions and the bcc maps."""
    texts_by_table = {}
    for table in questions.tables_to_read(postfix_config):
        with contextlib.suppress(ArchiveError, OSError):
            texts_by_table[table] = _read_table(postfix_config.directory, table)
    return texts_by_table


def look_up_keys(
    postfix_config: Configuration, settings: Settings | None
) -> dict[tuple[str, str], str]:
    """Return (table, key) -> result of the doctor's lookups that find something."""
    results = {}
    for table, key in questions.table_keys(postfix_config, settings):
        value = postconf.look_up(postfix_config.directory, table, key)
        if value:
            results[table, key] = value
    return results


def _read_table(directory: str, table: str) -> str:
    table_type, _, name = table.partition(":")
    if table_type in TEXT_TYPES:
        return Path(name).read_text("utf-8", "surrogateescape")
    if table_type in DATABASE_TYPES:
        return _read_database(directory, table, name)
    return name if table_type in INLINE_TYPES else ""


def _read_database(directory: str, table: str, name: str) -> str:
    """Return the content of the database, or of the text file if there is none.

    Postfix reads the database, which can differ from the text file.
    """
    try:
        return postconf.run(directory, "postmap", "-s", table)
    except ArchiveError:
        return Path(name).read_text("utf-8", "surrogateescape")
