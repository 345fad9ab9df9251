"""Read the lookup tables that the doctor's checks need.

Used by doctor/inspection. Changes nothing. What cannot be read is left out.
"""

from __future__ import annotations

import contextlib

from postfix_archive.config.settings import Settings
from postfix_archive.doctor import lookup_queries
from postfix_archive.errors import ArchiveError
from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.system import privileges

TEXT_TYPES = ("pcre", "regexp", "cidr", "texthash")
DATABASE_TYPES = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm")
INLINE_TYPES = ("inline", "static")


def table_texts(postfix_config: Configuration) -> dict[str, str]:
    """Return type:name -> text of the tables with actions and the bcc maps."""
    texts_by_table = {}
    for table in lookup_queries.tables_to_read(postfix_config):
        with contextlib.suppress(ArchiveError, OSError):
            texts_by_table[table] = _read_table(postfix_config.directory, table)
    return texts_by_table


def look_up_keys(
    postfix_config: Configuration, settings: Settings | None
) -> dict[tuple[str, str], str]:
    """Return (table, key) -> result of the doctor's lookups that find something."""
    results = {}
    for table, key in lookup_queries.table_keys(postfix_config, settings):
        value = postfix_command.look_up(postfix_config.directory, table, key)
        if value:
            results[table, key] = value
    return results


def _read_table(directory: str, table: str) -> str:
    table_type, _, name = table.partition(":")
    if table_type in TEXT_TYPES:
        return privileges.read_file(name).decode("utf-8", "surrogateescape")
    if table_type in DATABASE_TYPES:
        return _read_database(directory, table, name)
    return name if table_type in INLINE_TYPES else ""


def _read_database(directory: str, table: str, name: str) -> str:
    """Return the content of the database, or of the text file if there is none.

    Postfix reads the database, which can differ from the text file.
    """
    try:
        return postfix_command.run(directory, "postmap", "-s", table)
    except ArchiveError:
        return privileges.read_file(name).decode("utf-8", "surrogateescape")
