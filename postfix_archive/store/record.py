"""The record of one archived message, merged from its journal events.

Used by reader, the commands, outcomes and reconcile. A record has the union of all
recipients: 26 captures of one message, or a second one after a mailing list, are one
record. Also validates journal events.
"""

from __future__ import annotations

import datetime
import json
import re

from postfix_archive.message import address, dates, envelope, received_header
from postfix_archive.store import bypass_period, outcome
from postfix_archive.store.outcome_summary import OutcomeSummary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from postfix_archive.message.envelope import Envelope, Recipient, Request

# Surrogates except those of surrogateescape (PEP 383), which stand for bytes.
LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
CAPTURE_EVENTS = ("archived", "supplement")  # events with an envelope
REPORT_EVENTS = OUTCOME_REPORT, OUTCOME_MAILED = "outcome-report", "outcome-mailed"


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

    def __init__(self, archive: str, first_envelope: Envelope) -> None:
        self.archive = archive
        self.envelope = first_envelope
        self.events: list[dict[str, Any]] = []
        self.files: list[str] = []
        self.recipients: dict[tuple[bytes, bytes], Recipient] = {}
        self.reports: dict[str, str] = {}
        self.mailed: set[str] = set()
        self.results = OutcomeSummary()

    @property
    def archive_id(self) -> str:
        """The archive id."""
        return str(self.events[0]["id"])

    @property
    def request(self) -> Request:
        """The request of the first capture for this archive."""
        requests = [e for e in self.envelope.requests if e.address == self.archive]
        return requests[0] if requests else envelope.Request(self.archive, "nexthop")

    def add(self, event: dict[str, Any], event_envelope: Envelope | None) -> None:
        """Add a journal event, with the envelope parsed from it, if it has one."""
        self.events.append(event)
        kind = event["event"]
        if kind == outcome.EVENT:
            self.results.add(outcome.from_event(event))
        elif kind == OUTCOME_REPORT:
            self.reports[event["file"]] = event.get("covers", "")
        elif kind == OUTCOME_MAILED:
            self.mailed.add(event["file"])
        elif "file" in event:
            self.files.append(event["file"])
        for recipient in event_envelope.recipients if event_envelope else ():
            self.recipients.setdefault((recipient.final, recipient.original), recipient)
        if event_envelope:
            self.results.add_capture(
                event_envelope,
                is_counted=not self._is_returned_copy(event, event_envelope),
            )

    def _is_returned_copy(
        self, event: dict[str, Any], event_envelope: Envelope
    ) -> bool:
        """Return whether this capture is an archive copy that came back.

        Its recipients did not receive the message itself.
        """
        requests = [
            each for each in event_envelope.requests if each.address == self.archive
        ]
        return event["event"] == "supplement" and any(
            each.generation for each in requests
        )


def parse_event(line: bytes) -> dict[str, Any] | None:
    """Return the event in a journal line, None for a line torn by a crash.

    A torn line was never acknowledged. Raises ValueError for any other damage.
    """
    try:
        event: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        if line.startswith(b'{"seq":') or not line.strip():
            return None
        raise ValueError("not a journal line") from None
    if not is_valid_event(event):
        raise ValueError("not a journal line")
    return event


def is_valid_event(event: object) -> bool:
    """Return whether a JSON value is a valid journal event.

    Unknown events of later versions are valid. Known ones need all their keys.
    """
    if not isinstance(event, dict) or not _are_strings(event, "event", "time"):
        return False
    if not _is_timestamp(event["time"]) or not isinstance(event.get("id", ""), str):
        return False
    if event["event"] in bypass_period.EVENTS and not _is_valid_bypass(event):
        return False
    if event["event"] == outcome.EVENT and not _is_valid_outcome(event):
        return False
    if event["event"] in REPORT_EVENTS and not _is_valid_report(event):
        return False
    has_envelope = event["event"] in CAPTURE_EVENTS or "envelope" in event
    return not has_envelope or _is_valid_capture(event)


def _is_valid_capture(event: dict[str, Any]) -> bool:
    fields = {"above": "", **event}
    if not _are_strings(fields, "id", "sha256", "stamp", "envelope", "above"):
        return False
    has_size = type(event.get("size")) is int and event["size"] >= 0
    has_valid_file = (
        "file" not in event
        or _are_strings(event, "file")
        and _is_file_name(event["file"])
    )
    return has_size and has_valid_file and received_header.is_archive_id(event["id"])


def _is_valid_bypass(event: dict[str, Any]) -> bool:
    try:
        bypass_period.parse(event)
    except ValueError:
        return False
    return True


def _is_timestamp(text: str) -> bool:
    try:
        seconds = datetime.datetime.fromisoformat(text).timestamp()
        return dates.format_rfc3339(seconds) == text
    except (ValueError, OverflowError):
        return False


def _is_file_name(name: str) -> bool:
    """Return whether this relative path stays within the archive's directory."""
    return "\0" not in name and not {"", ".", ".."} & {*name.split("/")}


def _are_strings(event: dict[str, Any], *names: str) -> bool:
    """Return whether these values are strings that can be encoded as bytes."""
    values = [event.get(each) for each in names]
    return all(
        isinstance(each, str) and not LONE_SURROGATES.search(each) for each in values
    )


def _is_valid_outcome(event: dict[str, Any]) -> bool:
    string_keys = [name for name, value in event.items() if isinstance(value, str)]
    is_valid = outcome.is_event(event) and _are_strings(event, *string_keys)
    return is_valid and received_header.is_archive_id(event["id"])


def _is_valid_report(event: dict[str, Any]) -> bool:
    fields = {"covers": "", **event}
    return _are_strings(fields, "id", "file", "covers") and _is_file_name(event["file"])


def parse_envelope(event: dict[str, Any]) -> Envelope:
    """Parse the envelope in an event; the event must be valid and have one."""
    return envelope.parse(address.as_bytes(event["envelope"]))


def merge(archive: str, events: Iterable[dict[str, Any]]) -> dict[str, Record]:
    """Return the records of a journal by archive id, in the order of their capture."""
    records: dict[str, Record] = {}
    for event in events:
        event_envelope = None
        if "envelope" in event:
            event_envelope = parse_envelope(event)
        record = records.get(event.get("id", ""))
        if record is None and event_envelope is not None:
            record = records[event["id"]] = Record(archive, event_envelope)
        if record is not None:
            record.add(event, event_envelope)
    return records
