"""What the archive knows of one message: its copy and all that was added later.

Used by the commands. Merges the events of a journal by union of recipients: 26 pieces
of one message, or its second pass through a mailing list, are one record.
"""

from __future__ import annotations

import datetime
import json
import re

from postfix_archive.core import address, envelope, outcome, trace
from postfix_archive.core.results import Results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from postfix_archive.core.envelope import Envelope, Recipient, Request

# Halves of surrogate pairs, but for those that stand for bytes which are no UTF-8.
HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
CAPTURES = ("archived", "supplement")  # events that a message came with
GAPS = ("gap-opened", "gap-closed")  # events: mail went unarchived
REPORTS = OUTCOME_REPORT, OUTCOME_MAILED = "outcome-report", "outcome-mailed"


class Record:
    """One archived message: the envelope of the first piece, everybody's addresses.

    ``events`` are the journal's lines about it, oldest first; ``files`` the names of
    its copies in the store, one unless a second original bears the same id;
    ``reports`` are its outcome reports, by file name, with what they cover, and
    ``mailed`` the names of those that left as mail. ``results`` is what became of the
    recipients.
    """

    __slots__ = (
        "archive",
        "envelope",
        "events",
        "files",
        "mailed",
        "recipients",
        "reports",
        "results",
    )

    def __init__(self, archive: str, first: Envelope) -> None:
        self.archive = archive
        self.envelope = first
        self.events: list[dict[str, Any]] = []
        self.files: list[str] = []
        self.recipients: dict[tuple[bytes, bytes], Recipient] = {}
        self.reports: dict[str, str] = {}
        self.mailed: set[str] = set()
        self.results = Results()

    @property
    def archive_id(self) -> str:
        """The id under which the archive keeps it."""
        return str(self.events[0]["id"])

    @property
    def request(self) -> Request:
        """The request that its first capture was archived for."""
        asked = [e for e in self.envelope.requests if e.address == self.archive]
        return asked[0] if asked else envelope.Request(self.archive, "nexthop")

    def add(self, event: dict[str, Any], told: Envelope | None) -> None:
        """Add one event of the journal and the envelope in it, if it has one."""
        self.events.append(event)
        kind = event["event"]
        if kind == outcome.EVENT:
            self.results.became(outcome.from_event(event))
        elif kind == OUTCOME_REPORT:
            self.reports[event["file"]] = event.get("covers", "")
        elif kind == OUTCOME_MAILED:
            self.mailed.add(event["file"])
        elif "file" in event:
            self.files.append(event["file"])
        for each in told.recipients if told else ():
            self.recipients.setdefault((each.final, each.original), each)
        if told:
            self.results.capture(told, counts=not self._is_copy(event, told))

    def _is_copy(self, event: dict[str, Any], told: Envelope) -> bool:
        """Tell whether an archive copy came back: its people had no message."""
        asked = [each for each in told.requests if each.address == self.archive]
        return event["event"] == "supplement" and any(each.copy for each in asked)


def read(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line of a journal, None in one that a crash has torn.

    Nobody was promised a torn line; all else is damage, and raises ValueError.
    """
    try:
        event: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        if line.startswith(b'{"seq":') or not line.strip():
            return None
        raise ValueError("no line of a journal") from None
    if not is_event(event):
        raise ValueError("no line of a journal")
    return event


def is_event(found: object) -> bool:
    """Tell whether this, out of JSON, is a line of a journal as the store writes it.

    Events may be of kinds that later versions have, but what says something of a
    message says all.
    """
    if not isinstance(found, dict) or not _are_texts(found, "event", "time"):
        return False
    if not _is_time(found["time"]) or not isinstance(found.get("id", ""), str):
        return False
    if found["event"] in GAPS and not _are_texts(found, "opened", "by", "why"):
        return False
    if found["event"] == outcome.EVENT and not _is_outcome(found):
        return False
    if found["event"] in REPORTS and not _is_report(found):
        return False
    of_message = found["event"] in CAPTURES or "envelope" in found
    return not of_message or _is_message(found)


def _is_message(found: dict[str, Any]) -> bool:
    texts = {"above": "", **found}
    if not _are_texts(texts, "id", "sha256", "stamp", "envelope", "above"):
        return False
    counted = type(found.get("size")) is int and found["size"] >= 0
    kept = "file" not in found or _are_texts(found, "file") and _is_file(found["file"])
    return counted and kept and trace.is_archive_id(found["id"])


def _is_time(text: str) -> bool:
    try:
        seconds = datetime.datetime.fromisoformat(text).timestamp()
        return trace.timestamp(seconds) == text
    except (ValueError, OverflowError):
        return False


def _is_file(name: str) -> bool:
    """Tell whether this can be the name of a copy in the store, and nothing outside."""
    return "\0" not in name and not {"", ".", ".."} & {*name.split("/")}


def _are_texts(found: dict[str, Any], *names: str) -> bool:
    """Tell whether these are texts that can be written down as bytes."""
    texts = [found.get(each) for each in names]
    return all(isinstance(each, str) and not HALVES.search(each) for each in texts)


def _is_outcome(found: dict[str, Any]) -> bool:
    texts = [name for name, value in found.items() if isinstance(value, str)]
    told = outcome.is_event(found) and _are_texts(found, *texts)
    return told and trace.is_archive_id(found["id"])


def _is_report(found: dict[str, Any]) -> bool:
    texts = {"covers": "", **found}
    return _are_texts(texts, "id", "file", "covers") and _is_file(found["file"])


def sealed(event: dict[str, Any]) -> Envelope:
    """Return the envelope in an event that has one; see is_event."""
    return envelope.parse(address.as_bytes(event["envelope"]))


def merged(archive: str, events: Iterable[dict[str, Any]]) -> dict[str, Record]:
    """Return the records of a journal by archive id, in the order of their capture."""
    records: dict[str, Record] = {}
    for event in events:
        told = None
        if "envelope" in event:
            told = sealed(event)
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
