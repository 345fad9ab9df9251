"""The record of one archived message, merged from its journal events.

Used by reader, the commands, outcomes and reconcile. A record has the union of all
recipients: 26 captures of one message, or a second one after a mailing list, are one
record. Also validates journal events.
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

# Surrogates except those of surrogateescape (PEP 383), which stand for bytes.
HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
CAPTURES = ("archived", "supplement")  # events with an envelope
GAPS = ("gap-opened", "gap-closed")  # events of a bypass: mail passed unarchived
REPORTS = OUTCOME_REPORT, OUTCOME_MAILED = "outcome-report", "outcome-mailed"


class Record:
    """One archived message.

    ``envelope`` is that of the first capture, ``recipients`` has those of all captures.
    ``events`` are the journal events of the record, oldest first. ``files`` are the
    names of its copies: one, unless a second original has the same archive id.
    ``reports`` maps the file name of an outcome report to its ``covers``; ``mailed``
    has the names of the reports that were mailed. ``results`` has the outcomes.
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
        """The archive id."""
        return str(self.events[0]["id"])

    @property
    def request(self) -> Request:
        """The request of the first capture for this archive."""
        asked = [e for e in self.envelope.requests if e.address == self.archive]
        return asked[0] if asked else envelope.Request(self.archive, "nexthop")

    def add(self, event: dict[str, Any], told: Envelope | None) -> None:
        """Add a journal event, with the envelope parsed from it, if it has one."""
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
        """Return whether this capture is an archive copy that came back.

        Its recipients did not receive the message itself.
        """
        asked = [each for each in told.requests if each.address == self.archive]
        return event["event"] == "supplement" and any(each.copy for each in asked)


def read(line: bytes) -> dict[str, Any] | None:
    """Return the event in a journal line, None for a line torn by a crash.

    A torn line was never acknowledged. Raises ValueError for any other damage.
    """
    try:
        event: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        if line.startswith(b'{"seq":') or not line.strip():
            return None
        raise ValueError("not a journal line") from None
    if not is_event(event):
        raise ValueError("not a journal line")
    return event


def is_event(found: object) -> bool:
    """Return whether a JSON value is a valid journal event.

    Unknown events of later versions are valid. Known ones need all their keys.
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
    """Return whether this relative path stays within the archive's directory."""
    return "\0" not in name and not {"", ".", ".."} & {*name.split("/")}


def _are_texts(found: dict[str, Any], *names: str) -> bool:
    """Return whether these values are strings that can be encoded as bytes."""
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
    """Parse the envelope in an event; the event must be valid and have one."""
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
    """Return bytes as one line of text that is safe on a terminal."""
    text = address.one_line(value).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
