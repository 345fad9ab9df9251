"""What the archive knows of one message: its copy and all that was added later.

Used by the commands. Merges the events of a journal by union of recipients: 26 pieces
of one message, or its second pass through a mailing list, are one record.
"""

from __future__ import annotations

from postfix_archive.core import address, envelope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from postfix_archive.core.envelope import Envelope, Recipient


class Record:
    """One archived message: the envelope of the first piece, everybody's addresses.

    ``events`` are the journal's lines about it, oldest first; ``files`` the names of
    its copies in the store, one unless a second original bears the same id.
    """

    __slots__ = ("archive", "envelope", "events", "files", "recipients")

    def __init__(self, archive: str, first: Envelope) -> None:
        self.archive = archive
        self.envelope = first
        self.events: list[dict[str, Any]] = []
        self.files: list[str] = []
        self.recipients: dict[tuple[bytes, bytes], Recipient] = {}

    @property
    def archive_id(self) -> str:
        """The id under which the archive keeps it."""
        return str(self.events[0]["id"])

    def add(self, event: dict[str, Any], told: Envelope | None) -> None:
        """Add one event of the journal and the envelope in it, if it has one."""
        self.events.append(event)
        if "file" in event:
            self.files.append(event["file"])
        for each in told.recipients if told else ():
            self.recipients.setdefault((each.final, each.original), each)


def merged(archive: str, events: Iterable[dict[str, Any]]) -> dict[str, Record]:
    """Return the records of a journal by archive id, in the order of their capture."""
    records: dict[str, Record] = {}
    for event in events:
        told = None
        if "envelope" in event:
            told = envelope.parse(event["envelope"].encode("utf-8", "surrogateescape"))
        record = records.get(event.get("id", ""))
        if record is None and told is not None:
            record = records[event["id"]] = Record(archive, told)
        if record is not None:
            record.add(event, told)
    return records


def shown(value: bytes) -> str:
    """Return bytes of an envelope as text that is safe on a terminal."""
    text = address.one_line(value).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
