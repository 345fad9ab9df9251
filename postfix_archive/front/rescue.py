"""The commands postfix-archive rescue and return: nothing that waits may expire.

A timer runs both (make install sets it up). They say nothing when there is nothing to
say. Decide nothing themselves: core/rescuing plans, back/rescue and the archive
transport do it. Exit codes are those of monitoring plugins.
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
    """Take copies that wait too long out of Postfix's queue; sound the alarm.

    Copies go into archive_fallback_directory. Mail that waits at a broken stamp filter
    is put on hold before it would bounce, and released when the filter works.
    """
    if os.geteuid():
        raise NotRoot("Postfix's queue belongs to root: sudo postfix-archive rescue")
    if not postconf.is_running(ctx.obj):
        click.echo("Postfix does not run: nothing expires, nothing to rescue.")
        return
    settings = config.load(ctx.obj)
    plan = rescue.planned(ctx.obj, settings)
    said: list[str] = []
    try:
        if plan.rescue:
            done = rescue.take(ctx.obj, settings, plan.rescue)
            said.append(
                f"{len(done)} copies were taken out of the queue into"
                f" {settings.archive_fallback_directory}: {plan.rescue[0].reason}"
            )
    except ArchiveError as error:
        said.append(f"{len(plan.rescue)} copies wait in the queue: {error}")
    if plan.gone:
        rescue.forget(ctx.obj, plan.gone)
    if plan.hold:
        rescue.hold(ctx.obj, plan.hold, trace.timestamp(time.time()))
        said.append(f"{len(plan.hold)} messages were put on HOLD before they expire")
    if plan.release:
        rescue.release(ctx.obj, plan.release)
        click.echo(f"The stamp filter works: {len(plan.release)} messages released.")
    if plan.renew:
        rescue.renew(ctx.obj, plan.renew)
        said.append(f"{len(plan.renew)} mailed copies are not taken: requeued")
    stuck = [each for each in plan.stuck if each not in plan.release]
    if stuck:
        oldest = max(stuck, key=lambda each: each.age)
        said.append(
            f"{len(stuck)} messages wait for the stamp filter, queue id"
            f" {oldest.queue_id} for {oldest.age // 60} minutes: {oldest.reason[:200]}"
        )
    rescue.note(settings)
    for each in said:
        click.echo(each)
        acting.log(ctx.obj, LOG, each)
    critical = finding.CRITICAL if stuck else finding.WARNING
    ctx.exit(critical if said else finding.OK)


@click.command("return")
@click.pass_context
def return_(ctx: click.Context) -> None:
    """Bring what waits in archive_fallback_directory into the store."""
    folder = config.load(ctx.obj).archive_fallback_directory
    done, left, why = returning.bring_back(ctx.obj)
    if done:
        click.echo(f"Archived from {folder}: {done}.")
    if left:
        click.echo(f"Still waiting in {folder}: {left}. {why}", err=True)
    ctx.exit(finding.WARNING if left else finding.OK)
