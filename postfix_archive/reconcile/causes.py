"""Why a message is not in the archive: which rule, service or event is the cause.

Used by reconcile/totals. Decides by what the log says about the message and by
Postfix's current configuration. Where several services are possible, the
explanation begins with "probably" and names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from postfix_archive.message import replay_ident
from postfix_archive.message.keyring import Keyring
from postfix_archive.postfix import archive_services, capture_maps
from postfix_archive.postfix.configuration import Configuration, Service
from postfix_archive.reconcile import messages
from postfix_archive.reconcile.messages import Message
from postfix_archive.store.bypass_period import BypassPeriod

ARCHIVED = "archived"
WAITING = "waiting"
RESCUED = "rescued"
NOT_REQUESTED = "not_requested"
MISSING = "missing"
ACCEPTED = "accepted_missing"  # missing, and an admin accepts it: see acceptances
KINDS = (ARCHIVED, WAITING, RESCUED, NOT_REQUESTED, ACCEPTED, MISSING)

# Names of causes, for monitoring: they stay the same in every release.
FILTER_ACTION = "filter-action"
REDIRECT_ACTION = "redirect-action"
OTHER_CONTENT_FILTER = "other-content-filter"
FOREIGN_REINJECTION = "foreign-reinjection"
BYPASS_ON = "bypass-on"
DELETED = "deleted"
EXPIRED = "expired"
CAPSULE_MISSING = "capsule-missing"
UNEXPLAINED = "unexplained"
DISCARD_RULE = "discard-rule"
ARCHIVE_EMPTY = "archive-empty"
NO_TABLE_MATCH = "no-table-match"
KEPT_BY_FILTER = "kept-by-filter"
SECOND_REINJECTION = "second-reinjection"
REPLAYED = "replayed"

# Seconds: longer than an smtpd(8) process lives (max_use, max_idle). It serves one
# service.
MAX_PROCESS_LIFE = 3600.0
HEADER_OR_BODY_CHECK = re.compile(r"(?:filter|redirect): (header|body) ")
ACTION_TARGET = re.compile(r".*triggers (?:FILTER|REDIRECT) ([^;]+)", re.DOTALL)
PROBABLY = "probably "
RECEIVING_PROGRAMS = ("smtpd", "pickup", "qmqpd")


@dataclass(frozen=True)
class Verdict:
    """Whether a message is archived, and why not."""

    kind: str  # one of KINDS
    cause: str  # for monitoring: one of the names above, or ""
    explanation: str  # for people


class Classifier:
    """Finds out why messages are not archived, on one host."""

    def __init__(
        self,
        config: Configuration,
        bypass_periods: tuple[BypassPeriod, ...],
        archiving_processes: Mapping[tuple[str, str, str], float],
        keys: Keyring | None = None,
    ) -> None:
        """Initialise.

        keys are the site's, None if they cannot be read: a replay then counts as mail
        that somebody else has sent to the reinjection port.
        archiving_processes maps service, daemon and pid of each process whose mail went
        to a stamp filter to the time of the last such mail.
        """
        self._config = config
        self._bypass_periods = bypass_periods
        self._archiving_processes = archiving_processes
        self._replays = replay_ident.Idents(keys)
        self._services = [
            each
            for each in config.services
            if each.program in RECEIVING_PROGRAMS and not archive_services.is_ours(each)
        ]

    def classify_unarchived(self, message: Message) -> Verdict:
        """Return why a message was never captured."""
        if message.discard_text:
            return Verdict(
                NOT_REQUESTED, DISCARD_RULE, _discard_rule(message.discard_text)
            )
        if message.is_second_reinjection:
            explanation = (
                "reinjected again, before the last capture of the same message"
            )
            return Verdict(NOT_REQUESTED, SECOND_REINJECTION, explanation)
        if message.is_reinjected and self._replays.take(message.orig_queue_id):
            explanation = "sent by postfix-archive replay, from the archive"
            return Verdict(NOT_REQUESTED, REPLAYED, explanation)
        if message.is_reinjected:
            return _foreign_reinjection(message)
        if message.is_stamped:
            explanation = "archive is empty and no ARCHIVE table action matched"
            return Verdict(NOT_REQUESTED, NO_TABLE_MATCH, explanation)
        if _is_action_for_sender(message, message.action_text):
            return _action(message)
        if message.end and not message.relay:
            return _deleted_or_expired(message)
        return self._by_service(message)

    def has_stamp_filter(self, message: Message) -> bool:
        """Return whether its service has a stamp filter, in the current master.cf."""
        return any(
            self._leads_to_stamp_filter(each)
            for each in self._possible_services(message)
        )

    def _by_service(self, message: Message) -> Verdict:
        is_archiving_process = self._is_archiving_process(message)
        services = self._possible_services(message)
        without_stamp_filter = [
            each for each in services if not self._leads_to_stamp_filter(each)
        ]
        with_archive = [
            each for each in without_stamp_filter if self._config.value("archive", each)
        ]
        period = self._bypass_period(message)
        if period is not None and (with_archive or not without_stamp_filter):
            explanation = f"bypass from {period.interval}: {period.reason}"
            return Verdict(MISSING, BYPASS_ON, explanation)
        if message.is_content_filtered and self._is_native(message):
            return _kept_by_filter(message)
        if is_archiving_process or not without_stamp_filter:
            return _unexplained(
                message,
                is_archiving_process=is_archiving_process,
                is_service_known=bool(services),
            )
        if message.is_content_filtered and self._is_behind_content_filter():
            return _kept_by_filter(message)
        probably = (
            PROBABLY
            if len(with_archive or without_stamp_filter) < len(services)
            else ""
        )
        if with_archive:
            return self._other_content_filter(message, with_archive, probably)
        return self._archive_empty(without_stamp_filter, probably)

    def _is_archiving_process(self, message: Message) -> bool:
        """Return whether its smtpd(8) process sent other mail to a stamp filter."""
        process = (message.service, message.daemon, message.pid)
        last_time = self._archiving_processes.get(process, -MAX_PROCESS_LIFE)
        return abs(last_time - message.time) < MAX_PROCESS_LIFE

    def _is_behind_content_filter(self) -> bool:
        """Return whether the stamp filter is behind another content filter."""
        return any(
            self._leads_to_stamp_filter(each)
            and each.name.startswith(archive_services.LOOPBACK_PREFIXES)
            for each in self._services
        )

    def _is_native(self, message: Message) -> bool:
        """Return whether its service is in native mode.

        Capture recipients pass a content filter with the others: what it keeps, the
        archive never sees.
        """
        services = self._possible_services(message)
        return any(capture_maps.map_of(self._config, each) for each in services)

    def _bypass_period(self, message: Message) -> BypassPeriod | None:
        for period in self._bypass_periods:
            if period.contains(message.queued_time) and not message.has_failed_capture:
                return period
        return None

    def _other_content_filter(
        self, message: Message, services: list[Service], probably: str
    ) -> Verdict:
        filters = [
            self._config.value("content_filter", each) or "empty" for each in services
        ]
        description = " or ".join(
            f"{each.key} (content_filter is {to})"
            for each, to in zip(services, filters)
        )
        explanation = f"{probably}accepted by {description}; {_delivery(message)}"
        return Verdict(MISSING, OTHER_CONTENT_FILTER, explanation)

    def _archive_empty(self, services: list[Service], probably: str) -> Verdict:
        if not any("archive" in each.options for each in services):
            return Verdict(
                NOT_REQUESTED, ARCHIVE_EMPTY, f"{probably}main.cf: archive is empty"
            )
        description = ", ".join(f"{each.key} -o archive=" for each in services)
        return Verdict(NOT_REQUESTED, ARCHIVE_EMPTY, f"{probably}{description}")

    def _possible_services(self, message: Message) -> list[Service]:
        """Return the services that may have accepted it, by daemon and syslog_name."""
        return [
            each
            for each in self._services
            if each.program == message.daemon
            and self._config.value("syslog_name", each) == message.service
        ]

    def _leads_to_stamp_filter(self, service: Service) -> bool:
        """Return whether the mail of a service is captured, in any mode."""
        content_filter = self._config.value("content_filter", service)
        is_filtered = content_filter.startswith(archive_services.STAMP_TRANSPORT)
        return is_filtered or bool(capture_maps.map_of(self._config, service))


def capsule_missing(archive_id: str, capsule_end: tuple[str, str] | None) -> Verdict:
    """Return why a captured message is not in the archive.

    capsule_end is the reason and the queue id of its capsule, as in Capsules.ends.
    """
    if capsule_end is None:
        reason = "neither journal, queue nor fallback directory has it"
    else:
        reason = f"its capsule {capsule_end[1]} was {capsule_end[0]}"
    explanation = f"captured as {archive_id}, but {reason}"
    return Verdict(MISSING, CAPSULE_MISSING, explanation)


def _kept_by_filter(message: Message) -> Verdict:
    explanation = f"kept by {message.relay}, a filter before the archive"
    return Verdict(NOT_REQUESTED, KEPT_BY_FILTER, explanation)


def _discard_rule(text: str) -> str:
    """Return which rule discarded a message, without any text of the sender's."""
    word, _, rest = text.partition(": ")
    place = rest.partition(" ")[0]
    if word.startswith("milter"):
        return "DISCARD by a milter"
    if place in ("header", "body"):
        return f"DISCARD by {place}_checks"
    return f"DISCARD by an access table or policy server ({place})"


def _is_action_for_sender(message: Message, action: str) -> bool:
    """Return whether the action that smtpd(8) logged was for this message's sender."""
    if not action:
        return False
    return "; from=<" not in action or f"; from=<{message.sender}> " in action


def _action(message: Message) -> Verdict:
    """Return which action it was; the log text also holds the sender's own words."""
    text = message.action_text
    word, _, rest = text.partition(": ")
    cause = FILTER_ACTION if word == "filter" else REDIRECT_ACTION
    match = HEADER_OR_BODY_CHECK.match(text)
    if match is not None:
        target = text.rpartition(": ")[2]
        place = f"{match.group(1)}_checks"
    else:
        target_match = ACTION_TARGET.fullmatch(
            text.partition(f"; from=<{message.sender}> ")[0]
        )
        target = target_match.group(1) if target_match else "?"
        place = "an access table or policy server"
    return Verdict(MISSING, cause, f"{word.upper()} {target} by {place}")


def _foreign_reinjection(message: Message) -> Verdict:
    name = message.service.rpartition("/")[2]
    explanation = f"sent to the reinjection service {name}, not by the stamp filter"
    if message.orig_queue_id:
        original = f"{message.orig_queue_id}, whose stamp filter process was killed"
        explanation += f"; or a duplicate of {original}"
    return Verdict(MISSING, FOREIGN_REINJECTION, explanation)


def _deleted_or_expired(message: Message) -> Verdict:
    if message.end == messages.DELETED:
        explanation = "deleted by postsuper -d before it was archived"
        return Verdict(MISSING, DELETED, explanation)
    return Verdict(MISSING, EXPIRED, "expired in the queue before it was archived")


def _unexplained(
    message: Message, *, is_archiving_process: bool, is_service_known: bool
) -> Verdict:
    service = f"{message.service}/{message.daemon}"
    if is_archiving_process:
        reason = f"{service}[{message.pid}] sent other mail to the stamp filter"
    elif is_service_known:
        reason = f"the content_filter of {service} is the stamp filter now"
    else:
        reason = f"master.cf has no service {service} now"
    explanation = f"{_delivery(message)}; {reason}; was main.cf or master.cf changed?"
    return Verdict(MISSING, UNEXPLAINED, explanation)


def _delivery(message: Message) -> str:
    return f"sent to {message.relay}" if message.relay else "no delivery logged"
