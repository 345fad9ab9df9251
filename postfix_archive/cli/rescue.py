"""The commands queue rescue and fallback import: save mail before it expires.

A timer that make install sets up runs both every five minutes. They print nothing when
there is nothing to do. rescue.rescue_plan decides, rescue.queue_rescue and
archive_transport.fallback_import act. Exit codes are those of monitoring plugins.
"""

from __future__ import annotations

import copy
import functools
import os
import time

import click

from postfix_archive import monitoring
from postfix_archive.archive_transport import fallback_import
from postfix_archive.config import archive_cf
from postfix_archive.errors import ArchiveError, NotRoot
from postfix_archive.message import dates
from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.rescue import queue_rescue
from postfix_archive.stamp_filter import queued_capture
from postfix_archive.system import failure_log
from postfix_archive.system.spool import Spool

LOG_TAG = "postfix/archive-rescue"


@click.group()
def queue() -> None:
    """Save queued mail before Postfix expires it."""


@queue.command()
@click.pass_context
def rescue(ctx: click.Context) -> None:
    """Save queued archive copies and mail before Postfix expires them.

    Moves copies that wait too long to archive_fallback_directory. Puts mail that a
    broken stamp filter delays on hold before it bounces, and releases it when the
    filter works again. In native mode nobody's mail waits: the copy of a message whose
    other recipients wait too is written there. Logs an alarm for each.
    """
    if os.geteuid():
        raise NotRoot(
            "only root may change Postfix's queue: sudo postfix-archive queue rescue"
        )
    if not postfix_command.is_running(ctx.obj):
        click.echo("Postfix is not running: no queued mail expires, nothing to do.")
        return
    settings = archive_cf.load(ctx.obj)
    if queue_rescue.lock(ctx.obj) < 0:  # until this process ends
        click.echo("Another queue rescue is running: nothing is done.", err=True)
        ctx.exit(monitoring.WARNING)
    plan = queue_rescue.make_plan(ctx.obj, settings)
    # Reads the keys when the first message needs them, and once.
    maker = functools.cache(lambda: queued_capture.CapsuleMaker(settings))

    def make_capsule(
        message: QueuedMessage, attributes: dict[str, str], content: Spool
    ) -> Spool | None:
        return maker().make(message, attributes, content)

    alarms: list[dict[str, str]] = []
    last_failure = failure_log.last(
        ctx.obj,
        settings.archive_spool_directory,
        owner_of=settings.own_paths,
    )
    try:
        if plan.to_rescue:
            saved = queue_rescue.move_capsules(
                ctx.obj, settings, plan.to_rescue, make_capsule
            )
            reason = failure_log.explain(plan.to_rescue[0].delay_reason, last_failure)
            alarms.append(
                _alarm(
                    "copies-moved",
                    len(saved),
                    f"archive copies moved from the queue to"
                    f" {settings.archive_fallback_directory}: {reason}",
                )
            )
        if plan.to_save:
            queue_rescue.save_captures(ctx.obj, settings, plan.to_save, make_capsule)
            text = (
                "messages copied from the queue to"
                f" {settings.archive_fallback_directory} before they expire unarchived"
            )
            alarms.append(_alarm("copies-saved", len(plan.to_save), text))
    except ArchiveError as error:
        text = (
            "archive copies stay in the queue, on hold if they would expire soon:"
            f" {error}"
        )
        count = len(plan.to_rescue) + len(plan.to_save)
        alarms.append(_alarm("copies-left", count, text))
    if plan.released_elsewhere:
        queue_rescue.forget(ctx.obj, plan.released_elsewhere)
    if plan.to_hold:
        queue_rescue.hold(ctx.obj, plan.to_hold, dates.format_rfc3339(time.time()))
        text = "messages put on hold before they expire"
        alarms.append(_alarm("mail-held", len(plan.to_hold), text))
    if plan.to_release:
        queue_rescue.release(ctx.obj, plan.to_release)
        click.echo(
            f"The stamp filter works again: {len(plan.to_release)} messages released."
        )
    if plan.to_requeue:
        queue_rescue.requeue(ctx.obj, plan.to_requeue)
        text = "mailed copies cannot be delivered: requeued before they expire"
        alarms.append(_alarm("copies-requeued", len(plan.to_requeue), text))
    overdue = [each for each in plan.overdue if each not in plan.to_release]
    if overdue:
        oldest = max(overdue, key=lambda each: each.age)
        reason = failure_log.explain(oldest.delay_reason[:200], last_failure)
        text = (
            f"messages wait to be archived, queue id {oldest.queue_id} for"
            f" {oldest.age // 60} minutes: {reason}"
        )
        alarms.append(_alarm("filter-waits", len(overdue), text))
    queue_rescue.record_run(settings)
    for alarm in alarms:
        click.echo(f"{alarm['count']} {alarm['reason']}")
        postfix_command.log_alarm(ctx.obj, LOG_TAG, alarm)
    severity = monitoring.CRITICAL if overdue else monitoring.WARNING
    ctx.exit(severity if alarms else monitoring.OK)


def _alarm(code: str, count: int, reason: str) -> dict[str, str]:
    """Return the fields of an alarm for Postfix's log (docs/log-format.md)."""
    return {"alarm": code, "count": str(count), "reason": reason}


@click.group()
def fallback() -> None:
    """Archive the messages that wait in the fallback directory."""


@fallback.command("import")
@click.pass_context
def import_command(ctx: click.Context) -> None:
    """Archive the messages in archive_fallback_directory."""
    directory = archive_cf.load(ctx.obj).archive_fallback_directory
    archived, left, reason = fallback_import.import_capsules(ctx.obj)
    if archived:
        click.echo(f"Messages archived from {directory}: {archived}.")
    if left:
        click.echo(f"Messages left in {directory}: {left}. {reason}", err=True)
    ctx.exit(monitoring.WARNING if left else monitoring.OK)


def former_name(name: str, command: click.Command) -> click.Command:
    """Return a command under the name that timers of earlier releases run."""
    alias = copy.copy(command)
    alias.name, alias.hidden = name, True
    return alias


former_rescue = former_name("rescue", rescue)
former_return = former_name("return", import_command)
