"""The record of one archived message, merged from its journal events.

Used by reader, the commands, outcomes and reconcile. A record has the union of all
recipients: 26 captures of one message, or a second one after a mailing list, are one
record.
"""

from __future__ import annotations

from postfix_archive.message import envelope
from postfix_archive.store import journal, journal_event
from postfix_archive.store.outcome_summary import OutcomeSummary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.message.envelope import Envelope, Recipient, Request
    from postfix_archive.store.journal_event import Event


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
        self.events: list[Event] = []
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

    def add(self, event: Event, event_envelope: Envelope | None) -> None:
        """Add a journal event, with the envelope parsed from it, if it has one."""
        self.events.append(event)
        kind = event["event"]
        if kind == journal.OUTCOME:
            self.results.add(journal_event.parse_outcome(event))
        elif kind == journal.OUTCOME_REPORT:
            self.reports[event["file"]] = event.get("covers", "")
        elif kind == journal.OUTCOME_MAILED:
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

    def _is_returned_copy(self, event: Event, event_envelope: Envelope) -> bool:
        """Return whether this capture is an archive copy that came back.

        Its recipients did not receive the message itself.
        """
        requests = [
            each for each in event_envelope.requests if each.address == self.archive
        ]
        return event["event"] == journal.SUPPLEMENT and any(
            each.generation for each in requests
        )


def merge(archive: str, events: Iterable[Event]) -> dict[str, Record]:
    """Return the records of a journal by archive id, in the order of their capture."""
    records: dict[str, Record] = {}
    for event in events:
        event_envelope = None
        if "envelope" in event:
            event_envelope = journal_event.parse_envelope(event)
        record = records.get(event.get("id", ""))
        if record is None and event_envelope is not None:
            record = records[event["id"]] = Record(archive, event_envelope)
        if record is not None:
            record.add(event, event_envelope)
    return records
