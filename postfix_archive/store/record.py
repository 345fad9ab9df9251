"""The record of one archived message, merged from its journal events.

Used by reader, the commands, outcomes and reconcile. A record has all captures of one
message. The pieces of one delivery are one pass: 26 captures can be. A message that
comes back with its stamp, after a mailing list or from whoever sends it again, is a
further pass, with its own sender, client, recipients and outcomes.
"""

from __future__ import annotations

from postfix_archive.message import address, envelope
from postfix_archive.store import journal, journal_event
from postfix_archive.store.outcome_summary import OutcomeSummary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.message.envelope import Envelope, Recipient, Request
    from postfix_archive.store.journal_event import Event


class Pass:
    """One pass of a message through the stamp filter: the captures of its pieces.

    ``envelope`` is that of the first piece, ``time`` (RFC 3339) when it was archived,
    ``recipients`` are those of all pieces. ``lines_above`` are the header lines above
    a valid stamp, empty in the first pass of a message. ``is_returned_copy`` is true
    for an archive copy that came back: nobody received the message itself.
    """

    __slots__ = (
        "_senders",
        "envelope",
        "is_returned_copy",
        "lines_above",
        "recipients",
        "time",
    )

    def __init__(
        self,
        envelope: Envelope,
        time: str,
        lines_above: bytes,
        *,
        is_returned_copy: bool,
    ) -> None:
        self.envelope = envelope
        self.time = time
        self.lines_above = lines_above
        self.is_returned_copy = is_returned_copy
        self.recipients: dict[tuple[bytes, bytes], Recipient] = {}
        self._senders: set[bytes] = set()

    def add(self, piece: Envelope) -> None:
        """Add sender and recipients of a piece."""
        self._senders.add(piece.sender)
        for each in piece.recipients:
            self.recipients.setdefault((each.final, each.original), each)

    @property
    def has_verp(self) -> bool:
        """True if Postfix made a sender for each recipient (XVERP).

        One queue file has one sender, unless Postfix makes more of it.
        """
        return len(self._senders) > 1

    @property
    def sender(self) -> bytes:
        """The sender that the client gave."""
        return self.envelope.verp_sender if self.has_verp else self.envelope.sender


class Record:
    """One archived message.

    ``passes`` are its passes through the stamp filter, oldest first; ``envelope`` and
    ``recipients`` are those of the first one. ``events`` are the journal events of the
    record, oldest first. ``files`` are the names of its copies: one, unless a second
    original has the same archive id. ``reports`` maps the file name of an outcome
    report to its ``covers``; ``mailed`` has the names of the reports that were mailed.
    ``results`` has the outcomes of all passes. ``retention`` is the last
    event that says how long it is kept.
    """

    __slots__ = (
        "_passes",
        "archive",
        "envelope",
        "events",
        "files",
        "mailed",
        "reports",
        "results",
        "retention",
    )

    def __init__(self, archive: str, first_envelope: Envelope) -> None:
        self.archive = archive
        self.envelope = first_envelope
        self.events: list[Event] = []
        self.files: list[str] = []
        # By archive id and queue id of the capture.
        self._passes: dict[tuple[str, bytes], Pass] = {}
        self.reports: dict[str, str] = {}
        self.mailed: set[str] = set()
        self.results = OutcomeSummary()
        self.retention: Event | None = None

    @property
    def passes(self) -> list[Pass]:
        """The passes of the message through the stamp filter, oldest first."""
        return list(self._passes.values())

    @property
    def recipients(self) -> dict[tuple[bytes, bytes], Recipient]:
        """The recipients of the first pass."""
        return self.passes[0].recipients

    def results_of(self, one: Pass) -> OutcomeSummary:
        """Return the outcomes of one pass."""
        return self.results.of_capture(address.as_text(one.envelope.queue_id))

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
        elif kind == journal.RETENTION:
            self.retention = event
        elif "file" in event:
            self.files.append(event["file"])
        if event_envelope:
            self._add_capture(event, event_envelope)

    def _add_capture(self, event: Event, event_envelope: Envelope) -> None:
        is_returned_copy = self._is_returned_copy(event, event_envelope)
        one = self._passes.setdefault(
            (event_envelope.archive_id, event_envelope.queue_id),
            Pass(
                event_envelope,
                event.get("time", ""),
                address.as_bytes(event.get("above", "")),
                is_returned_copy=is_returned_copy,
            ),
        )
        one.add(event_envelope)
        self.results.add_capture(event_envelope, is_counted=not is_returned_copy)

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
        if event["event"] in journal.REMOVAL_EVENTS:
            records.pop(event.get("id", ""), None)
            continue
        event_envelope = None
        if "envelope" in event:
            event_envelope = journal_event.parse_envelope(event)
        record = records.get(event.get("id", ""))
        if record is None and event_envelope is not None:
            record = records[event["id"]] = Record(archive, event_envelope)
        if record is not None:
            record.add(event, event_envelope)
    return records
