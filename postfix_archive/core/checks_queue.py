"""Check Postfix's queue: mail that waits for the archive, and queue lifetimes.

Used by doctor.checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import gates, rescuing
from postfix_archive.core.finding import ADVICE, CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

HOUR = 3600
DAY = 24 * HOUR


def copies_wait(host: Observed) -> Iterator[Finding]:
    """Report archive copies that wait long in Postfix's queue."""
    waiting = [each for each in host.waiting if rescuing.is_capsule(each)]
    oldest = max(waiting, key=lambda each: each.age, default=None)
    limit = host.number("bounce_queue_lifetime") or 5 * DAY
    if oldest is not None and oldest.age > min(HOUR, limit // 2):
        yield Finding(
            "oldest-copy",
            CRITICAL if oldest.age > limit // 2 else WARNING,
            f"queue id {oldest.queue_id}",
            f"{len(waiting)} archive copies are queued, the oldest for"
            f" {oldest.age // 60} minutes; Postfix deletes them after"
            f" {limit // HOUR} hours: {oldest.reason[:200]}",
            "remove the cause, then " + host.command("postqueue", "-f"),
        )


def mail_waits(host: Observed) -> Iterator[Finding]:
    """Report mail that waits long for the stamp filter."""
    stuck = [
        each
        for each in host.waiting
        if rescuing.is_at_filter(each) and each.age > rescuing.NOTICED
    ]
    if stuck:
        oldest = max(stuck, key=lambda each: each.age)
        yield Finding(
            "filter-waits",
            CRITICAL,
            f"queue id {oldest.queue_id}",
            f"{len(stuck)} messages wait for the stamp filter, the oldest for"
            f" {oldest.age // 60} minutes: {oldest.reason[:200]}",
            "remove the cause, then "
            + host.command("postqueue", "-f")
            + "; if that takes long: postfix-archive bypass on --reason TEXT",
        )


def copies_refused(host: Observed) -> Iterator[Finding]:
    """Report an archive address that defers or refuses mailed copies."""
    archives = set(gates.archives(host.found))
    for message in host.waiting:
        refused = [
            (address, reason)
            for address, reason in zip(message.recipients, message.reasons)
            if address.lower() in archives and reason
        ]
        if refused and not message.content_filter.startswith(gates.STAMP):
            address, reason = refused[0]
            yield Finding(
                "copies-refused",
                WARNING,
                address,
                f"mailed copies are not delivered: {reason[:200]}",
                "remove the cause, then " + host.command("postqueue", "-f"),
            )
            return


def lifetime(host: Observed) -> Iterator[Finding]:
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
                host.setting(name, "5d"),
            )


def short_ids(host: Observed) -> Iterator[Finding]:
    """Advise long queue ids."""
    if host.found.value("enable_long_queue_ids") != "yes":
        yield Finding(
            "short-ids",
            ADVICE,
            "main.cf: enable_long_queue_ids",
            "short queue ids are reused within days: log lines of different messages"
            " cannot be distinguished later",
            host.setting("enable_long_queue_ids", "yes"),
            is_safe=True,
        )


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    mail_waits,
    copies_wait,
    copies_refused,
    lifetime,
    short_ids,
)
