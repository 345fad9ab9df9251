"""How large an index is, and what Chinese and Japanese cost of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

from postfix_archive.search import index_entry, index_schema
from postfix_archive.search.extraction import extract

import search_corpus
import search_queries

SAMPLE = 1000  # messages with each kind of script
TEXT_TABLE = "message_text"


def of_directory(directory: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(
        os.path.getsize(os.path.join(parent, name))
        for parent, _, names in os.walk(directory)
        for name in names
    )


def of_scripts() -> dict[str, dict[str, int]]:
    """Return bytes of text, and of its words in the index, by kind of script.

    Each is of SAMPLE messages of the corpus, in a full-text table of its own, merged.
    """
    entries: dict[str, list[tuple[str, ...]]] = {"alphabets": [], "cjk": []}
    sizes = {"alphabets": 0, "cjk": 0}
    number = 0
    while min(map(len, entries.values())) < SAMPLE:
        message = search_corpus.message(number)
        number += 1
        kind = "cjk" if ord(message.text[0]) >= 0x4E00 else "alphabets"
        if len(entries[kind]) < SAMPLE:
            content = index_entry.from_content(extract(message.original))
            entries[kind].append(content.texts)
            sizes[kind] += len(search_queries.document(message).raw.encode())
    return {
        kind: {"text": sizes[kind], "index": _table_size(entries[kind])}
        for kind in entries
    }


def _table_size(entries: list[tuple[str, ...]]) -> int:
    [statement] = [
        each
        for each in index_schema.TABLES.split(";\n")
        if f"CREATE VIRTUAL TABLE {TEXT_TABLE} " in each
    ]
    columns = ("rowid", *index_schema.TEXT_COLUMNS)
    insert = f"INSERT INTO {TEXT_TABLE} ({', '.join(columns)}) VALUES "
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.closing(sqlite3.connect(f"{directory}/db")) as db,
    ):
        db.execute(statement)
        rows = [(number, *each) for number, each in enumerate(entries, 1)]
        db.executemany(f"{insert} ({', '.join('?' * len(columns))})", rows)
        db.execute(f"INSERT INTO {TEXT_TABLE} ({TEXT_TABLE}) VALUES ('optimize')")
        db.commit()
        db.execute("VACUUM")
        return os.path.getsize(f"{directory}/db")
