"""The commands postfix-archive rescue and return: save mail before it expires.

A timer that make install sets up runs both every five minutes. They print nothing when
there is nothing to do. rescue.plan decides, rescue.queue_rescue and
archive_transport.fallback_import act. Exit codes are those of monitoring plugins.
"""

from __future__ import annotations

import os
import time

import click

from postfix_archive.back import acting, config, postconf, rescue
from postfix_archive.core import finding, trace
from postfix_archive.core.errors import ArchiveError, NotRoot
from postfix_archive.front import returning

LOG = "postfix/archive-rescue"


@click.command("rescue")
@click.pass_context
def rescue_(ctx: click.Context) -> None:
    """Save queued archive copies and mail before Postfix expires them.

    Moves copies that wait too long to archive_fallback_directory. Puts mail that a
    broken stamp filter delays on hold before it bounces, and releases it when the
    filter works again. Logs an alarm for each.
    """
    if os.geteuid():
        raise NotRoot(
            "only root may change Postfix's queue: sudo postfix-archive rescue"
        )
    if not postconf.is_running(ctx.obj):
        click.echo("Postfix is not running: no queued mail expires, nothing to do.")
        return
    settings = config.load(ctx.obj)
    plan = rescue.planned(ctx.obj, settings)
    alarms: list[str] = []
    try:
        if plan.rescue:
            saved = rescue.take(ctx.obj, settings, plan.rescue)
            alarms.append(
                f"{len(saved)} archive copies moved from the queue to"
                f" {settings.archive_fallback_directory}: {plan.rescue[0].reason}"
            )
    except ArchiveError as error:
        alarms.append(
            f"{len(plan.rescue)} archive copies stay in the queue and will expire:"
            f" {error}"
        )
    if plan.gone:
        rescue.forget(ctx.obj, plan.gone)
    if plan.hold:
        rescue.hold(ctx.obj, plan.hold, trace.timestamp(time.time()))
        alarms.append(f"{len(plan.hold)} messages put on hold before they expire")
    if plan.release:
        rescue.release(ctx.obj, plan.release)
        click.echo(
            f"The stamp filter works again: {len(plan.release)} messages released."
        )
    if plan.renew:
        rescue.renew(ctx.obj, plan.renew)
        alarms.append(
            f"{len(plan.renew)} mailed copies cannot be delivered: requeued before they"
            " expire"
        )
    stuck = [each for each in plan.stuck if each not in plan.release]
    if stuck:
        oldest = max(stuck, key=lambda each: each.age)
        alarms.append(
            f"{len(stuck)} messages wait for the stamp filter, queue id"
            f" {oldest.queue_id} for {oldest.age // 60} minutes: {oldest.reason[:200]}"
        )
    rescue.note(settings)
    for alarm in alarms:
        click.echo(alarm)
        acting.log(ctx.obj, LOG, alarm)
    severity = finding.CRITICAL if stuck else finding.WARNING
    ctx.exit(severity if alarms else finding.OK)


@click.command("return")
@click.pass_context
def return_(ctx: click.Context) -> None:
    """Archive the messages in archive_fallback_directory."""
    directory = config.load(ctx.obj).archive_fallback_directory
    archived, left, reason = returning.bring_back(ctx.obj)
    if archived:
        click.echo(f"Messages archived from {directory}: {archived}.")
    if left:
        click.echo(f"Messages left in {directory}: {left}. {reason}", err=True)
    ctx.exit(finding.WARNING if left else finding.OK)
