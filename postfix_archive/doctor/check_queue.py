"""Check what waits: Postfix's queue, the fallback directory, unread log lines.

Used by doctor.checks. Also checks the timer and the follower, which process these.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import ADVICE, Finding, attribute_finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.replicate.bucket import NO_LOCK
from postfix_archive.rescue import rescue_plan
from postfix_archive.system import failure_log

HOUR = 3600
DAY = 24 * HOUR
FOLLOWER_LATE_AGE = 600  # seconds; cron runs postfix-archive outcomes every minute
DEFAULT_LOG = "/var/log/postfix.log"  # MAILLOG_README


def check_queued_copies(host: Host) -> Iterator[Finding]:
    """Report archive copies that wait long in Postfix's queue."""
    copies = [each for each in host.queued_messages if rescue_plan.is_copy(each)]
    oldest = max(copies, key=lambda each: each.age, default=None)
    limit = host.config.queue_lifetime("bounce_queue_lifetime")
    if oldest is not None and oldest.age > min(HOUR, limit // 2):
        yield Finding(
            "queue-backlog",
            CRITICAL if oldest.age > limit // 2 else WARNING,
            f"queue id {oldest.queue_id}",
            f"{len(copies)} archive copies are queued, the oldest for"
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
            "filter-backlog",
            CRITICAL,
            f"queue id {oldest.queue_id}",
            f"{len(overdue)} messages wait to be archived, the oldest for"
            f" {oldest.age // 60} minutes: {_reason(host, oldest)}",
            "remove the cause, then "
            + host.postfix_command("postqueue", "-f")
            + "; if that takes long: "
            + host.archive_command("bypass", "on", "--reason", "TEXT"),
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
            "short-queue-ids",
            ADVICE,
            "main.cf: enable_long_queue_ids",
            "short queue ids are reused within days: log lines of different messages"
            " cannot be distinguished later",
            host.parameter_command("enable_long_queue_ids", "yes"),
            is_safe=True,
        )


def check_fallback_directory(host: Host) -> Iterator[Finding]:
    """Report a fallback directory that is missing, not private or on the wrong disk."""
    if host.settings is None:
        return
    path = host.settings.archive_fallback_directory
    file = host.files[path]
    user = host.archive_user()
    if not file.is_directory:
        harm = "no such directory: copies that the store refuses wait in the queue"
        fix = f"install -d -m 700 -o {user} {shlex.quote(path)}"
        yield Finding("fallback-missing", CRITICAL, path, harm, fix)
    elif file.owner != user:
        harm = f"{file.owner} owns it and {user} cannot write copies there"
        yield attribute_finding("fallback-owner", file, harm, "chown", user)
    elif file.mode & 0o077:
        harm = f"users other than {user} can read the copies in it"
        yield attribute_finding("fallback-mode", file, harm, "chmod", "700")
    elif host.settings.has_store:
        store = host.files.get(host.settings.archive_store_directory)
        if store is not None and store.device and store.device == file.device:
            yield Finding(
                "fallback-same-disk",
                ADVICE,
                path,
                "it is on the store's file system: when that is full or unavailable,"
                " copies wait in Postfix's queue instead",
                "in archive.cf set archive_fallback_directory to a directory on another"
                " file system",
            )


def check_fallback_copies(host: Host) -> Iterator[Finding]:
    """Report copies in the fallback directory."""
    if host.fallback_count and host.settings is not None:
        yield Finding(
            "fallback-backlog",
            CRITICAL if host.fallback_age > DAY else WARNING,
            host.settings.archive_fallback_directory,
            f"{host.fallback_count} copies wait for the store, the oldest for"
            f" {host.fallback_age // 60} minutes: {host.fallback_reason[:200]}",
            "remove the cause, then " + host.archive_command("fallback", "import"),
        )


def check_held_mail(host: Host) -> Iterator[Finding]:
    """Report mail that a rescue put on hold because the stamp filter does not work."""
    if host.held_count:
        yield Finding(
            "mail-on-hold",
            CRITICAL,
            f"{host.config.directory}/archive.held",
            f"{host.held_count} messages are on hold: the stamp filter fails and they"
            " were about to expire",
            f"remove the cause, see {host.archive_command('status')}; then "
            + host.archive_command("queue", "rescue"),
        )


def check_rescue_runs(host: Host) -> Iterator[Finding]:
    """Report that postfix-archive queue rescue does not run regularly."""
    if host.settings is None or not host.is_running:
        return
    if host.last_rescue_age is None or host.last_rescue_age > HOUR:
        since = "for over an hour" if host.last_rescue_age else "yet"
        yield Finding(
            "rescue-late",
            WARNING,
            "postfix-archive queue rescue",
            f"it has not run {since}: queued copies expire without an alarm",
            f"{host.install_command()} sets up a timer; or run queue rescue and"
            " fallback import every five minutes",
        )


def check_log(host: Host) -> Iterator[Finding]:
    """Report a log that does not exist or cannot be read."""
    if host.settings is None or not host.settings.needs_follower or not host.log_error:
        return
    yield Finding(
        "log-unreadable",
        WARNING,
        "Postfix's log",
        f"{host.log_error}: outcomes of recipients are not recorded",
        f"correct that, or run {set_log_commands(host)}",
    )


def set_log_commands(host: Host) -> str:
    """Return the commands that let Postfix log into a file that the archive reads."""
    set_file = host.parameter_command("maillog_file", DEFAULT_LOG)
    reload = host.postfix_command("postfix", "reload")
    return f"{set_file}; {reload}; then {host.install_command()}"


def check_follower(host: Host) -> Iterator[Finding]:
    """Report that postfix-archive outcomes does not keep up with the log."""
    if host.settings is None or not host.settings.needs_follower or host.log_error:
        return
    if host.is_running:
        yield from _late_service(
            host,
            "outcomes",
            host.follower_file,
            host.log_read_age,
            "has not reached the end of Postfix's log",
            "outcomes of recipients are missing in the journals",
        )


def check_indexer(host: Host) -> Iterator[Finding]:
    """Report that postfix-archive index does not keep up with the journals."""
    if host.settings is None or not host.settings.has_store:
        return
    yield from _late_service(
        host,
        "index",
        host.indexer_file,
        host.index_age,
        "has not reached the ends of the journals",
        "search does not find the newest mail",
    )


def check_replicator(host: Host) -> Iterator[Finding]:
    """Report that postfix-archive replicate does not keep up, or why it cannot."""
    if host.settings is None or not host.settings.archive_object_store:
        return
    yield from _late_service(
        host,
        "replicate",
        host.replicator_file,
        host.replication_age,
        "has not brought the bucket up to date",
        "a loss of this host would lose the newest mail in the archive",
    )
    if host.object_store_error:
        yield Finding(
            "object-store",
            WARNING,
            host.settings.archive_object_store,
            f"{host.object_store_error}: nothing is uploaded",
            f"correct that; then {host.archive_command('replicate')} --once",
        )


def check_local_days(host: Host) -> Iterator[Finding]:
    """Report that archive_local_days has no effect, and why."""
    if host.settings is None or not host.settings.archive_local_days:
        return
    if not host.settings.archive_object_store:
        problem = "archive_object_store is not set"
        fix = "set it (docs/object-storage.md)"
    elif host.settings.archive_object_lock == NO_LOCK:
        problem = "archive_object_lock = none, and the only copy must be locked"
        fix = "set it to governance or compliance (docs/object-storage.md)"
    else:
        return
    yield Finding(
        "local-days",
        WARNING,
        f"archive_local_days = {host.settings.archive_local_days}",
        f"{problem}: all copies stay in the store",
        f"{fix}, or archive_local_days = 0",
    )


def _late_service(
    host: Host, command: str, file: str, age: float | None, lag: str, harm: str
) -> Iterator[Finding]:
    """Report a service that last did its work age seconds ago, or never."""
    if age is None or age > FOLLOWER_LATE_AGE:
        since = "ever" if age is None else f"for {age / 60:.0f} minutes"
        yield Finding(
            f"{command}-late",
            WARNING,
            file or f"postfix-archive {command}",
            f"it {lag} {since}: {harm}",
            _service_fix(host, file, command),
        )


def _service_fix(host: Host, file: str, command: str) -> str:
    name = file.rpartition("/")[2]
    if name.endswith(".service"):
        return f"systemctl restart {shlex.quote(name)}; see journalctl -u {name}"
    by_hand = f"{host.archive_command(command)} --once"
    if name:
        return f"check that cron runs; by hand: {by_hand}"
    return (
        f"{host.install_command()} sets up its service; or run {by_hand} every minute"
    )


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_queued_originals,
    check_queued_copies,
    check_refused_copies,
    check_queue_lifetimes,
    check_queue_ids,
    check_fallback_directory,
    check_fallback_copies,
    check_held_mail,
    check_rescue_runs,
    check_log,
    check_follower,
    check_indexer,
    check_replicator,
    check_local_days,
)
