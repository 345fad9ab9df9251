"""One index database: what one archive got in one year. SQLite with FTS5.

Used by archive_index, which writes, and by search, which reads. A transaction has the
messages and the position in the journal up to which they are in, so a killed writer
loses nothing and adds nothing twice. Raises IndexFailed, and IndexDamaged for a file
that must be built again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, count

from postfix_archive.errors import IndexDamaged
from postfix_archive.search import cjk, index_file, index_schema
from postfix_archive.search.index_engine import NewMessage
from postfix_archive.search.index_entry import ContentEntry, RecordEntry, key_hash
from postfix_archive.search.index_schema import BCC, CC, RECIPIENT, SENDER, TO


class IndexDatabase:
    """The database of one year, open for its one writer; see IndexWriter."""

    def __init__(self, path: str) -> None:
        """Open a database, or create it. Raises IndexDamaged and IndexFailed."""
        self.path = path
        self._db = index_file.open_for_writing(path)
        with index_file.translated(path):
            self._db.execute("BEGIN IMMEDIATE")
            self._next_number = self._value("next_number", 1)
            self._archived = self._value("archived", 0)
            self.position = self._value("position", 0)
            self._has_removed = bool(self._value("has_removed", 0))

    def _value(self, name: str, default: int) -> int:
        query = "SELECT value FROM state WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        return int(row[0]) if row else default

    def close(self) -> None:
        """Close it, without the changes since the last commit()."""
        with contextlib.suppress(sqlite3.Error):
            self._db.rollback()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def commit(self, position: int) -> None:
        """Make the changes durable, together with the position in the journal."""
        with index_file.translated(self.path):
            values = {
                "next_number": self._next_number,
                "archived": self._archived,
                "position": position,
                "has_removed": self._has_removed,
            }
            self._db.executemany(
                "INSERT OR REPLACE INTO state VALUES (?, ?)", values.items()
            )
            self._db.execute("COMMIT")
            self._db.execute("BEGIN IMMEDIATE")
            self.position = position

    def offsets(self, archive_id: str) -> Sequence[int] | None:
        """Return the offsets of the lines of a message, None if it is not in here."""
        with index_file.translated(self.path):
            query = "SELECT offsets FROM message WHERE archive_id = ?"
            row = self._db.execute(query, (archive_id,)).fetchone()
            return None if row is None else unpack_offsets(row[0])

    def add(self, messages: Sequence[NewMessage]) -> None:
        """Add messages: first the texts of all, which is faster."""
        with index_file.translated(self.path):
            self._add_texts(each.content for each in messages)
            for each in messages:
                self._add(*each)

    def _add(
        self, record: RecordEntry, content: ContentEntry, offsets: Sequence[int]
    ) -> None:
        number = self._next_number
        self._next_number += 1
        self._archived = max(self._archived, record.archived)
        self._db.execute(
            f"INSERT INTO message VALUES ({', '.join('?' * 15)})",
            (
                number,
                record.archive_id,
                self._archived,
                record.arrived,
                content.sent,
                record.size,
                record.sha256,
                self._address(record.senders[0]),
                record.recipient_count,
                content.attachment_count,
                record.outcomes,
                content.text_hash,
                record.keep_until,
                content.subject,
                pack_offsets(offsets),
            ),
        )
        self._add_addresses(number, content.roles, record)
        self._add_labels(number, record.labels | content.labels)
        self._add_keys(number, record.keys | content.keys)

    def update(self, record: RecordEntry, offsets: Sequence[int]) -> None:
        """Replace what the record says about a message that is in here."""
        with index_file.translated(self.path):
            number = self._number(record.archive_id)
            self._db.execute(
                "UPDATE message SET outcomes = ?, keep_until = ?, offsets = ?"
                " WHERE number = ?",
                (record.outcomes, record.keep_until, pack_offsets(offsets), number),
            )
            self._add_addresses(number, self._known_roles(number, record), record)
            self._add_labels(number, record.labels)
            self._add_keys(number, record.keys)

    def remove(
        self, archive_ids: Sequence[str], content_of: Callable[[str], ContentEntry]
    ) -> None:
        """Remove messages; content_of returns what was added for an archive id.

        Raises IndexDamaged if the text is not the same: FTS5 would keep words.
        """
        with index_file.translated(self.path):
            self._db.execute(
                "CREATE TEMP TABLE IF NOT EXISTS removed (number INTEGER PRIMARY KEY)"
            )
            for archive_id in archive_ids:
                content = content_of(archive_id)
                query = "SELECT number, text_hash FROM message WHERE archive_id = ?"
                number, text_hash = self._db.execute(query, (archive_id,)).fetchone()
                if text_hash != content.text_hash:
                    raise IndexDamaged(self.path, f"{archive_id} has another text")
                self._remove_text(number, content)
                self._db.execute("INSERT INTO removed VALUES (?)", (number,))
            for table, column in index_schema.MESSAGE_COLUMNS:
                self._db.execute(
                    f"DELETE FROM {table} WHERE {column} IN (SELECT * FROM removed)"
                )
            self._db.execute("DELETE FROM removed")
            self._remove_unused()
            self._has_removed = True

    def tidy(self) -> None:
        """Leave no word of removed messages in the files; see commit().

        FTS5 has only noted the removal, and SQLite leaves what was deleted in its
        pages. This writes all of them anew.
        """
        if not self._has_removed:
            return
        with index_file.translated(self.path):
            for table in ("message_text", "address_text"):
                self._db.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")
            self._db.execute("COMMIT")
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.execute("BEGIN IMMEDIATE")
        self._has_removed = False
        self.commit(self.position)

    def _remove_unused(self) -> None:
        """Remove addresses and labels that no message has any more."""
        self._db.execute(
            "DELETE FROM label WHERE number NOT IN (SELECT label FROM label_use)"
        )
        query = (
            "SELECT number, name FROM address"
            " WHERE number NOT IN (SELECT address FROM address_use)"
        )
        for number, name in self._db.execute(query).fetchall():
            self._db.execute("DELETE FROM address WHERE number = ?", (number,))
            self._db.execute(
                "INSERT INTO address_text (address_text, rowid, name)"
                " VALUES ('delete', ?, ?)",
                (number, cjk.to_terms(name)),
            )

    def _number(self, archive_id: str) -> int:
        query = "SELECT number FROM message WHERE archive_id = ?"
        return int(self._db.execute(query, (archive_id,)).fetchone()[0])

    def _add_texts(self, contents: Iterable[ContentEntry]) -> None:
        columns = index_schema.TEXT_COLUMNS
        numbers = count(self._next_number)
        self._db.executemany(
            f"INSERT INTO message_text (rowid, {', '.join(columns)})"
            f" VALUES ({', '.join('?' * (len(columns) + 1))})",
            ((number, *each.texts) for number, each in zip(numbers, contents)),
        )

    def _remove_text(self, number: int, content: ContentEntry) -> None:
        """Delete from FTS5, which needs the old text again (contentless tables)."""
        columns = index_schema.TEXT_COLUMNS
        self._db.execute(
            f"INSERT INTO message_text (message_text, rowid, {', '.join(columns)})"
            f" VALUES ('delete', {', '.join('?' * (len(columns) + 1))})",
            (number, *content.texts),
        )

    def _known_roles(self, number: int, record: RecordEntry) -> dict[str, int]:
        """Return the roles in the header of the record's recipients."""
        query = (
            "SELECT roles FROM address_use JOIN address ON address.number = address"
            " WHERE name = ? AND message = ?"
        )
        roles = {}
        for name in {*chain(*record.recipients)}:
            row = self._db.execute(query, (name, number)).fetchone()
            roles[name] = row[0] if row else 0
        return roles

    def _add_addresses(
        self, number: int, header_roles: dict[str, int], record: RecordEntry
    ) -> None:
        """Add the addresses of header and envelope, each with all its roles."""
        roles = dict(header_roles)
        for sender in record.senders:
            roles[sender] = roles.get(sender, 0) | SENDER
        for names in record.recipients:
            is_named = any(header_roles.get(each, 0) & (TO | CC) for each in names)
            for name in names:
                role = RECIPIENT if is_named else RECIPIENT | BCC
                roles[name] = roles.get(name, 0) | role
        self._db.executemany(
            "INSERT INTO address_use VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET roles = roles | excluded.roles",
            [(self._address(name), number, bits) for name, bits in roles.items()],
        )

    def _address(self, name: str) -> int:
        query = "SELECT number FROM address WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        if row:
            return int(row[0])
        cursor = self._db.execute(
            "INSERT INTO address (name, domain) VALUES (?, ?)",
            (name, name.rpartition("@")[2]),
        )
        self._db.execute(
            "INSERT INTO address_text (rowid, name) VALUES (?, ?)",
            (cursor.lastrowid, cjk.to_terms(name)),
        )
        return int(cursor.lastrowid or 0)

    def _add_labels(self, number: int, labels: frozenset[tuple[str, str]]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO label_use VALUES (?, ?)",
            [(self._label(each), number) for each in labels],
        )

    def _label(self, label: tuple[str, str]) -> int:
        kind, name = index_schema.LABELS.index(label[0]), label[1]
        query = "SELECT number FROM label WHERE kind = ? AND name = ?"
        row = self._db.execute(query, (kind, name)).fetchone()
        if row:
            return int(row[0])
        insert = "INSERT INTO label (kind, name) VALUES (?, ?)"
        return int(self._db.execute(insert, (kind, name)).lastrowid or 0)

    def _add_keys(self, number: int, keys: frozenset[tuple[str, str]]) -> None:
        self._db.executemany(
            "INSERT OR IGNORE INTO message_key VALUES (?, ?)",
            [(key_hash(each), number) for each in keys],
        )


def pack_offsets(offsets: Sequence[int]) -> bytes:
    """Return offsets in the form of message.offsets."""
    return struct.pack(f"<{len(offsets)}Q", *offsets)


def unpack_offsets(content: bytes) -> Sequence[int]:
    """Return the offsets in a value of message.offsets."""
    return struct.unpack(f"<{len(content) // 8}Q", content)
