"""Why a message is not in the archive: which rule, service or event is the cause.

Used by reconcile/totals. Decides by what the log says about the message and by
Postfix's current configuration. Where several services are possible, the cause begins
with "probably" and names them.
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

# Codes for monitoring: they stay the same in every release.
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

# Seconds: longer than an smtpd(8) process lives (max_use, max_idle). It serves one
# service.
HOUR = 3600.0
BY_TABLE = re.compile(r"(?:filter|redirect): (header|body) ")
TARGET = re.compile(r".*triggers (?:FILTER|REDIRECT) ([^;]+)", re.DOTALL)
PROBABLY = "probably "
CLIENTS = ("smtpd", "pickup", "qmqpd")


@dataclass(frozen=True)
class Verdict:
    """Whether a message is archived, and why not."""

    kind: str  # one of KINDS
    way: str  # for monitoring: one of the codes above, or ""
    cause: str  # for people


@dataclass(frozen=True)
class Gap:
    """A period in which mail was not archived; times in seconds since 1970."""

    opened: float
    closed: float
    why: str


class Judge:
    """Finds out why messages are not archived, on one host."""

    def __init__(
        self,
        found: Configuration,
        gaps: tuple[Gap, ...],
        led: Mapping[tuple[str, str, str], float],
    ) -> None:
        """Initialise.

        archiving_processes maps service, daemon and pid of each process whose mail went
        to a stamp filter to the time of the last such mail.
        """
        self._found = found
        self._gaps = gaps
        self._led = led
        self._services = [
            each
            for each in found.services
            if each.program in CLIENTS and not ways.is_ours(each)
        ]

    def unarchived(self, message: Message) -> Verdict:
        """Return why a message was never captured."""
        if message.discarded:
            return Verdict(NOT_REQUESTED, DISCARDED, _rule(message.discarded))
        if message.of_port:
            return _reinjected(message)
        if message.stamped:
            cause = "archive is empty and no ARCHIVE table action matched"
            return Verdict(NOT_REQUESTED, NO_TABLE, cause)
        if _is_of(message, message.action):
            return _acted_on(message)
        if message.ended and not message.went:
            return _ended(message)
        return self._by_service(message)

    def is_led(self, message: Message) -> bool:
        """Return whether its service has a stamp filter, in the current master.cf."""
        return any(self._leads(each) for each in self._named(message))

    def _by_service(self, message: Message) -> Verdict:
        led = self._is_archiving_process(message)
        named = self._named(message)
        around = [each for each in named if not self._leads(each)]
        asked = [each for each in around if self._found.value("archive", each)]
        gap = self._gap(message)
        if gap is not None and (asked or not around):
            return Verdict(MISSING, GAP, f"bypass {gap.why}")
        if led or not around:
            return _unexplained(message, led=led, known=bool(named))
        if message.filtered and self._is_behind():
            cause = f"kept by {message.went}, a filter before the stamp filter"
            return Verdict(NOT_REQUESTED, KEPT, cause)
        probably = PROBABLY if len(asked or around) < len(named) else ""
        if asked:
            return self._around(message, asked, probably)
        return self._unasked(around, probably)

    def _is_archiving_process(self, message: Message) -> bool:
        """Return whether its smtpd(8) process sent other mail to a stamp filter."""
        process = (message.service, message.daemon, message.pid)
        last_time = self._led.get(process, -HOUR)
        return abs(last_time - message.time) < HOUR

    def _is_behind(self) -> bool:
        """Return whether the stamp filter is behind another content filter."""
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
        places = " or ".join(
            f"{each.key} (content_filter is {to})" for each, to in zip(asked, leads)
        )
        cause = f"{probably}accepted by {places}; {_went(message)}"
        return Verdict(MISSING, SERVICE, cause)

    def _unasked(self, around: list[Service], probably: str) -> Verdict:
        if not any("archive" in each.options for each in around):
            return Verdict(
                NOT_REQUESTED, UNASKED, f"{probably}main.cf: archive is empty"
            )
        places = ", ".join(f"{each.key} -o archive=" for each in around)
        return Verdict(NOT_REQUESTED, UNASKED, f"{probably}{places}")

    def _named(self, message: Message) -> list[Service]:
        """Return the services that may have accepted it, by daemon and syslog_name."""
        return [
            each
            for each in self._services
            if each.program == message.daemon
            and self._found.value("syslog_name", each) == message.service
        ]

    def _leads(self, service: Service) -> bool:
        return self._found.value("content_filter", service).startswith(gates.STAMP)


def capsule_gone(archive_id: str, end: tuple[str, str] | None) -> Verdict:
    """Return why a captured message is not in the archive.

    capsule_end is the reason and the queue id of its capsule, as in Capsules.ends.
    """
    if end is None:
        reason = "neither journal, queue nor fallback directory has it"
    else:
        reason = f"its capsule {end[1]} was {end[0]}"
    cause = f"captured as {archive_id}, but {reason}"
    return Verdict(MISSING, CAPSULE_GONE, cause)


def said_too_long(message: Message) -> Verdict:
    """Return the verdict for a message whose archive id the log does not hold."""
    cause = "the stamp filter's log line is truncated, and no journal has queue id"
    return Verdict(MISSING, UNEXPLAINED, f"{cause} {message.queue_id}")


def _rule(text: str) -> str:
    """Return which rule discarded a message, without any text of the sender's."""
    word, _, rest = text.partition(": ")
    place = rest.partition(" ")[0]
    if word.startswith("milter"):
        return "DISCARD by a milter"
    if place in ("header", "body"):
        return f"DISCARD by {place}_checks"
    return f"DISCARD by an access table or policy server ({place})"


def _is_of(message: Message, action: str) -> bool:
    """Return whether the action that smtpd(8) logged was for this message's sender."""
    if not action:
        return False
    return "; from=<" not in action or f"; from=<{message.sender}> " in action


def _acted_on(message: Message) -> Verdict:
    """Return which action it was; the log text also holds the sender's own words."""
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
    cause = f"sent to the reinjection service {name}, not by the stamp filter"
    if message.origin:
        killed = f"{message.origin}, whose stamp filter process was killed"
        cause += f"; or a duplicate of {killed}"
    return Verdict(MISSING, REINJECTED, cause)


def _ended(message: Message) -> Verdict:
    if message.ended == accepted.DELETED:
        cause = "deleted by postsuper -d before it was archived"
        return Verdict(MISSING, DELETED, cause)
    return Verdict(MISSING, EXPIRED, "expired in the queue before it was archived")


def _unexplained(message: Message, *, led: bool, known: bool) -> Verdict:
    service = f"{message.service}/{message.daemon}"
    if led:
        why = f"{service}[{message.pid}] sent other mail to the stamp filter"
    elif known:
        why = f"the content_filter of {service} is the stamp filter now"
    else:
        why = f"master.cf has no service {service} now"
    cause = f"{_went(message)}; {why}; was main.cf or master.cf changed?"
    return Verdict(MISSING, UNEXPLAINED, cause)


def _went(message: Message) -> str:
    return f"sent to {message.went}" if message.went else "no delivery logged"
