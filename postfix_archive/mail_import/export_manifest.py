"""The manifests of our own exports: envelopes by the SHA-256 of what was exported.

Used by mail_import/sources and run. In a temporary database: memory stays flat. Lines
that are not those of a manifest are ignored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from postfix_archive.mail_import.source_message import SourceMessage
from postfix_archive.message import address
from postfix_archive.message.envelope import Recipient

FILE_NAME = "manifest.jsonl"
# Other files of an export, which are no mail.
OTHER_FILES = ("export.json", "manifest.csv", "edrm.xml", FILE_NAME)


class ExportManifests:
    """The manifests that were read; close() deletes them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute(
            "CREATE TABLE entry (sha256 TEXT PRIMARY KEY, line TEXT)"
        )

    def read(self, lines: Iterable[bytes]) -> None:
        """Add the entries of a manifest.jsonl."""
        for line in lines:
            try:
                entry = json.loads(line)
                sha256 = entry.get("exported_sha256") or entry["sha256"]
            except (ValueError, KeyError, AttributeError, RecursionError):
                continue
            self._database.execute(
                "INSERT OR IGNORE INTO entry VALUES (?, ?)",
                (str(sha256), line.decode("utf-8", "replace")),
            )

    def complete(self, message: SourceMessage, sha256: str) -> SourceMessage:
        """Return the message with the envelope of its entry, if there is one."""
        row = self._database.execute(
            "SELECT line FROM entry WHERE sha256 = ?", (sha256,)
        ).fetchone()
        if row is None:
            return message
        try:
            entry = json.loads(row[0])
            arrival = entry["arrival"]
            return replace(
                message,
                how=f"export {entry['id']} in {message.how}",
                sender=_as_bytes(entry["sender"]),
                recipients=tuple(
                    Recipient(
                        _as_bytes(each["recipient"]),
                        _as_bytes(each.get("original", "")),
                    )
                    for each in entry["recipients"]
                    if not each.get("parent")
                ),
                arrival=(
                    int(datetime.fromisoformat(arrival).timestamp())
                    if arrival
                    else None
                ),
                queue_id=_as_bytes(entry["queue_id"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return message

    def close(self) -> None:
        """Delete the database."""
        self._database.close()


def _as_bytes(text: str) -> bytes:
    return address.as_bytes(text).replace(b"\r", b"").replace(b"\n", b"")
