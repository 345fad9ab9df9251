"""The envelope of a message and what became of it, as its page shows them.

Used by message_page, for users who may see all of a message. Pure. Texts are safe to
show on one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from postfix_archive.message import dates
from postfix_archive.message.printable import safe_text
from postfix_archive.store import journal, outcome
from postfix_archive.store.journal_event import Event
from postfix_archive.store.outcome import Outcome
from postfix_archive.store.outcome_summary import RecipientResult
from postfix_archive.store.record import Pass, Record
from postfix_archive.web.language import gettext as _

RECIPIENT_LIMIT = 1000  # recipients of a pass on a page
EVENT_LIMIT = 1000  # lines of the timeline on a page


class RecipientRow(NamedTuple):
    """A recipient. ``depth`` is above 0 for those that another was expanded to.

    ``original`` is the address as the client said it, "" if it is the same;
    ``is_blind`` tells whether no To: or Cc: names it, None if that is not known.
    """

    address: str
    original: str
    depth: int
    is_blind: bool | None
    outcome: Outcome | None
    kind: str


class PassView(NamedTuple):
    """One pass of the message through Postfix.

    ``facts`` are pairs of label and value; ``hidden_count`` recipients are not listed.
    """

    is_returned_copy: bool
    time: str
    facts: list[tuple[str, str]]
    recipients: list[RecipientRow]
    hidden_count: int
    lines_above: list[str]


class TimelineEntry(NamedTuple):
    """Something that happened to the message; ``time`` is RFC 3339."""

    time: str
    text: str


def passes(
    record: Record, named: set[tuple[bytes, bytes]] | None
) -> Iterator[PassView]:
    """Yield the passes; named are the recipients in To: and Cc:, None if unknown."""
    for one in record.passes:
        results = record.results_of(one).recipient_results()
        blind = _blind_addresses(one, named)
        yield PassView(
            one.is_returned_copy,
            one.time,
            list(_facts(one)),
            [_row(each, blind) for each in results[:RECIPIENT_LIMIT]],
            max(0, len(results) - RECIPIENT_LIMIT),
            [safe_text(each) for each in one.lines_above.splitlines()],
        )


def _blind_addresses(
    one: Pass, named: set[tuple[bytes, bytes]] | None
) -> set[str] | None:
    if named is None:
        return None
    return {
        safe_text(each.final)
        for each in one.recipients.values()
        if (each.final, each.original or each.final) not in named
    }


def _row(result: RecipientResult, blind: set[str] | None) -> RecipientRow:
    address, original = safe_text(result.recipient), safe_text(result.original)
    is_blind = None if blind is None else address in blind
    return RecipientRow(
        address,
        original if original != address else "",
        result.depth,
        None if result.depth else is_blind,
        result.outcome,
        result.kind,
    )


def _facts(one: Pass) -> Iterator[tuple[str, str]]:
    envelope, client = one.envelope, one.envelope.client
    yield _("Sender"), safe_text(one.sender) or _("<> (the null sender)")
    if envelope.arrival is not None:
        yield _("Received"), dates.format_rfc3339(envelope.arrival)
    yield _("Archived"), one.time
    yield _("Host"), safe_text(envelope.host)
    yield _("Queue id"), safe_text(envelope.queue_id)
    if envelope.imported:
        yield _("Imported"), safe_text(envelope.imported)
    if client.address:
        name = safe_text(client.hostname) or "unknown"
        yield _("Client"), f"{name} [{safe_text(client.address)}]"
    for label, value in (
        (_("HELO"), client.helo),
        (_("Protocol"), client.protocol),
        (_("SASL user"), client.sasl_username),
        (_("SASL method"), client.sasl_method),
        (_("Envelope id"), envelope.envid),
    ):
        if value:
            yield label, safe_text(value)


def timeline(record: Record) -> list[TimelineEntry]:
    """Return what happened to the message, oldest first."""
    entries = [
        TimelineEntry(
            dates.format_rfc3339(one.envelope.arrival),
            _("received by Postfix, queue id") + f" {safe_text(one.envelope.queue_id)}",
        )
        for one in record.passes
        if one.envelope.arrival is not None
    ]
    for event in record.events[:EVENT_LIMIT]:
        is_outcome = event["event"] == journal.OUTCOME
        time = str(event.get("at") if is_outcome else event.get("time"))
        entries.append(TimelineEntry(safe_text(time), _event_text(event)))
    return sorted(entries, key=lambda each: each.time)


def _event_text(event: Event) -> str:
    kind = event["event"]
    if kind == journal.OUTCOME:
        return _outcome_text(event)
    texts = {
        journal.ARCHIVED: _("archived"),
        journal.SUPPLEMENT: _("passed again, or further recipients"),
        journal.OUTCOME_REPORT: _("outcome report stored"),
        journal.OUTCOME_MAILED: _("outcome report mailed"),
        journal.RETENTION: _("retention noted, until") + f" {event.get('until', '')}",
    }
    person = f", {event['person']}" if event.get("person") else ""
    return safe_text(texts.get(kind, f"{kind}{person}"))


def _outcome_text(event: Event) -> str:
    text = f"{event['recipient']}: {_(event['outcome'])}"
    text += f" ({event['status']})" if event.get("status") else ""
    text += f", {_('by')} {event['remote']}" if event.get("remote") else ""
    text += f", {_('queue id')} {event['queue_id']}"
    if event["outcome"] == outcome.EXPANDED:
        addresses = event.get("expanded_to", "").split(outcome.SEPARATOR)
        text += f", {_('to')} {', '.join(addresses)}"
    return safe_text(text + (f": {event['reply']}" if event.get("reply") else ""))
