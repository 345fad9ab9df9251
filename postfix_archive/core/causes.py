"""Why a message is not in the archive: by a rule, or around it, and which way.

Used by reckoning. Judges by what the log says of the message and by Postfix's
configuration as it is now; where that leaves a choice the cause begins with "probably"
and names what could have been.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from postfix_archive.core import accepted, gates, ways
from postfix_archive.core.accepted import Message
from postfix_archive.core.configuration import Configuration, Service

ARCHIVED = "archived"
WAITING = "waiting"
RESCUED = "rescued"
NOT_REQUESTED = "not_requested"
MISSING = "missing"
KINDS = (ARCHIVED, WAITING, RESCUED, NOT_REQUESTED, MISSING)

# Lasting names of the ways, for monitoring.
FILTER = "filter-action"
REDIRECT = "redirect-action"
SERVICE = "service-around"
REINJECTED = "hand-made-reinjection"
GAP = "gate-open"
DELETED = "deleted"
EXPIRED = "expired"
CAPSULE_GONE = "capsule-gone"
UNEXPLAINED = "unexplained"
DISCARDED = "discard-rule"
UNASKED = "archive-empty"
NO_TABLE = "no-table-asked"
KEPT = "kept-by-filter"

HOUR = 3600.0  # an smtpd process serves one service, and lives less (max_use, max_idle)
BY_TABLE = re.compile(r"(?:filter|redirect): (header|body) ")
TARGET = re.compile(r".*triggers (?:FILTER|REDIRECT) ([^;]+)", re.DOTALL)
PROBABLY = "probably "
CLIENTS = ("smtpd", "pickup", "qmqpd")


@dataclass(frozen=True)
class Verdict:
    """What the archive has of a message, and for people and for monitoring why."""

    kind: str  # one of KINDS
    way: str  # a lasting name, or nothing
    cause: str


@dataclass(frozen=True)
class Gap:
    """While this was open mail went on unarchived; seconds since 1970."""

    opened: float
    closed: float
    why: str


class Judge:
    """Says why a message that no archive has is not there."""

    def __init__(
        self,
        found: Configuration,
        gaps: tuple[Gap, ...],
        led: Mapping[tuple[str, str, str], float],
    ) -> None:
        """Begin; led are the processes that led mail to a stamp filter, and when."""
        self._found = found
        self._gaps = gaps
        self._led = led
        self._services = [
            each
            for each in found.services
            if each.program in CLIENTS and not ways.is_ours(each)
        ]

    def unarchived(self, message: Message) -> Verdict:
        """Return why a message was never given to an archive."""
        if message.discarded:
            return Verdict(NOT_REQUESTED, DISCARDED, _rule(message.discarded))
        if message.of_port:
            return _reinjected(message)
        if message.stamped:
            cause = "archive is empty, and no table has asked for it"
            return Verdict(NOT_REQUESTED, NO_TABLE, cause)
        if _is_of(message, message.action):
            return _acted_on(message)
        if message.ended and not message.went:
            return _ended(message)
        return self._by_service(message)

    def is_led(self, message: Message) -> bool:
        """Tell whether its service leads to a stamp filter, as master.cf is now."""
        return any(self._leads(each) for each in self._named(message))

    def _by_service(self, message: Message) -> Verdict:
        key = (message.service, message.daemon, message.pid)
        led = abs(self._led.get(key, -HOUR) - message.time) < HOUR
        named = self._named(message)
        around = [each for each in named if not self._leads(each)]
        asked = [each for each in around if self._found.value("archive", each)]
        gap = self._gap(message)
        if gap is not None and (asked or not around):
            return Verdict(MISSING, GAP, f"the gate was open (bypass): {gap.why}")
        if led or not around:
            return _unexplained(message, led=led, known=bool(named))
        if message.filtered and self._is_behind():
            cause = f"{message.went}, before which nothing is archived, kept it"
            return Verdict(NOT_REQUESTED, KEPT, cause)
        probably = PROBABLY if len(asked or around) < len(named) else ""
        if asked:
            return self._around(message, asked, probably)
        return self._unasked(around, probably)

    def _is_behind(self) -> bool:
        """Tell whether the archive stands where a content filter gives mail back."""
        return any(
            self._leads(each) and each.name.startswith(ways.LOOPBACK)
            for each in self._services
        )

    def _gap(self, message: Message) -> Gap | None:
        for each in self._gaps:
            if each.opened <= message.sent_on <= each.closed and not message.tried:
                return each
        return None

    def _around(self, message: Message, asked: list[Service], probably: str) -> Verdict:
        leads = [self._found.value("content_filter", each) or "empty" for each in asked]
        places = ", ".join(
            f"{each.key} has content_filter {to}" for each, to in zip(asked, leads)
        )
        return Verdict(
            MISSING, SERVICE, f"{probably}{places}; it went to {_went(message)}"
        )

    def _unasked(self, around: list[Service], probably: str) -> Verdict:
        if not any("archive" in each.options for each in around):
            return Verdict(
                NOT_REQUESTED, UNASKED, f"{probably}main.cf: archive is empty"
            )
        places = ", ".join(f"{each.key} -o archive=" for each in around)
        return Verdict(NOT_REQUESTED, UNASKED, f"{probably}{places}")

    def _named(self, message: Message) -> list[Service]:
        """Return the services that may have taken it: by daemon and syslog_name."""
        return [
            each
            for each in self._services
            if each.program == message.daemon
            and self._found.value("syslog_name", each) == message.service
        ]

    def _leads(self, service: Service) -> bool:
        return self._found.value("content_filter", service).startswith(gates.STAMP)


def capsule_gone(archive_id: str, end: tuple[str, str] | None) -> Verdict:
    """Return why a message that was captured is in no archive."""
    if end is None:
        cause = f"captured as {archive_id}, but no journal, queue or fallback has it"
    else:
        cause = f"captured as {archive_id}, but its capsule {end[1]} was {end[0]}"
    return Verdict(MISSING, CAPSULE_GONE, cause)


def said_too_long(message: Message) -> Verdict:
    """Return what is to be said where the log cut off as what it is archived."""
    cause = "the stamp filter's line is cut off, and no journal has its queue id"
    return Verdict(MISSING, UNEXPLAINED, f"{cause} {message.queue_id}")


def _rule(text: str) -> str:
    """Return which rule has thrown a message away, without what its sender chose."""
    word, _, rest = text.partition(": ")
    place = rest.partition(" ")[0]
    if word.startswith("milter"):
        return "DISCARD by a milter"
    if place in ("header", "body"):
        return f"DISCARD by {place}_checks"
    return f"DISCARD by an access table or policy server ({place})"


def _is_of(message: Message, action: str) -> bool:
    """Tell whether an action that smtpd(8) told was for this message's sender."""
    if not action:
        return False
    return "; from=<" not in action or f"; from=<{message.sender}> " in action


def _acted_on(message: Message) -> Verdict:
    """Return which action it was; sender and recipient can stand in the text, too."""
    text = message.action
    word, _, rest = text.partition(": ")
    way = FILTER if word == "filter" else REDIRECT
    table = BY_TABLE.match(text)
    if table is not None:
        target = text.rpartition(": ")[2]
        place = f"{table.group(1)}_checks"
    else:
        found = TARGET.fullmatch(text.partition(f"; from=<{message.sender}> ")[0])
        target = found.group(1) if found else "?"
        place = "an access table or policy server"
    return Verdict(MISSING, way, f"{word.upper()} {target} by {place}")


def _reinjected(message: Message) -> Verdict:
    name = message.service.rpartition("/")[2]
    cause = f"handed in by the port {name}, and not by the stamp filter"
    if message.origin:
        cause += f"; or twice, by a run for {message.origin} that was killed"
    return Verdict(MISSING, REINJECTED, cause)


def _ended(message: Message) -> Verdict:
    if message.ended == accepted.DELETED:
        cause = "deleted by postsuper -d before it was archived"
        return Verdict(MISSING, DELETED, cause)
    return Verdict(MISSING, EXPIRED, "expired in the queue before it was archived")


def _unexplained(message: Message, *, led: bool, known: bool) -> Verdict:
    service = f"{message.service}/{message.daemon}"
    if led:
        why = f"the same process of {service} led other mail to the archive"
    elif known:
        why = f"{service} leads to the archive, as master.cf is now"
    else:
        why = f"master.cf has no service {service} now"
    cause = f"it went to {_went(message)}: {why}; was main.cf or master.cf changed?"
    return Verdict(MISSING, UNEXPLAINED, cause)


def _went(message: Message) -> str:
    return message.went or "nobody"
