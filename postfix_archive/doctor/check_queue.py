"""Check Postfix's queue: mail that waits for the archive, and queue lifetimes.

Used by doctor.checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import ADVICE, Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.rescue import rescue_plan
from postfix_archive.system import failure_log

HOUR = 3600
DAY = 24 * HOUR


def check_queued_copies(host: Host) -> Iterator[Finding]:
    """Report archive copies that wait long in Postfix's queue."""
    capsules = [each for each in host.queued_messages if rescue_plan.is_capsule(each)]
    oldest = max(capsules, key=lambda each: each.age, default=None)
    limit = host.number("bounce_queue_lifetime") or 5 * DAY
    if oldest is not None and oldest.age > min(HOUR, limit // 2):
        yield Finding(
            "oldest-copy",
            CRITICAL if oldest.age > limit // 2 else WARNING,
            f"queue id {oldest.queue_id}",
            f"{len(capsules)} archive copies are queued, the oldest for"
            f" {oldest.age // 60} minutes; Postfix deletes them after"
            f" {limit // HOUR} hours: {_reason(host, oldest)}",
            "remove the cause, then " + host.postfix_command("postqueue", "-f"),
        )


def check_queued_originals(host: Host) -> Iterator[Finding]:
    """Report mail that waits long for the stamp filter."""
    overdue = [
        each
        for each in host.queued_messages
        if rescue_plan.is_waiting_for_filter(each) and each.age > rescue_plan.ALARM_AGE
    ]
    if overdue:
        oldest = max(overdue, key=lambda each: each.age)
        yield Finding(
            "filter-waits",
            CRITICAL,
            f"queue id {oldest.queue_id}",
            f"{len(overdue)} messages wait for the stamp filter, the oldest for"
            f" {oldest.age // 60} minutes: {_reason(host, oldest)}",
            "remove the cause, then "
            + host.postfix_command("postqueue", "-f")
            + "; if that takes long: postfix-archive bypass on --reason TEXT",
        )


def _reason(host: Host, message: QueuedMessage) -> str:
    return failure_log.explain(message.delay_reason[:200], host.last_failure)


def check_refused_copies(host: Host) -> Iterator[Finding]:
    """Report an archive address that defers or refuses mailed copies."""
    archives = set(archive_services.configured_archives(host.config))
    for message in host.queued_messages:
        refused = [
            (address, reason)
            for address, reason in zip(message.recipients, message.delay_reasons)
            if address.lower() in archives and reason
        ]
        if refused and not message.content_filter.startswith(
            archive_services.STAMP_TRANSPORT
        ):
            address, reason = refused[0]
            yield Finding(
                "copies-refused",
                WARNING,
                address,
                f"mailed copies are not delivered: {reason[:200]}",
                "remove the cause, then " + host.postfix_command("postqueue", "-f"),
            )
            return


def check_queue_lifetimes(host: Host) -> Iterator[Finding]:
    """Report queue lifetimes under a day."""
    for name in ("bounce_queue_lifetime", "maximal_queue_lifetime"):
        limit = host.number(name)
        if limit is not None and limit < DAY:
            yield Finding(
                "queue-lifetime",
                CRITICAL if limit < HOUR else WARNING,
                f"main.cf: {name}",
                f"mail that waits for the archive is deleted or bounced after {limit}"
                " seconds, before an admin can act",
                host.parameter_command(name, "5d"),
            )


def check_queue_ids(host: Host) -> Iterator[Finding]:
    """Advise long queue ids."""
    if host.config.value("enable_long_queue_ids") != "yes":
        yield Finding(
            "short-ids",
            ADVICE,
            "main.cf: enable_long_queue_ids",
            "short queue ids are reused within days: log lines of different messages"
            " cannot be distinguished later",
            host.parameter_command("enable_long_queue_ids", "yes"),
            is_safe=True,
        )


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_queued_originals,
    check_queued_copies,
    check_refused_copies,
    check_queue_lifetimes,
    check_queue_ids,
)
