"""The commands postfix-archive rescue and return: nothing that waits may expire.

A timer runs both (make install sets it up). They say nothing when there is nothing to
say. Decide nothing themselves: core/rescuing plans, back/rescue and the archive
transport do it. Exit codes are those of monitoring plugins.
"""

from __future__ import annotations

import fcntl
import os
import time

import click

from postfix_archive.back import (
    acting,
    config,
    fallback,
    files,
    postconf,
    reading,
    rescue,
    spool,
)
from postfix_archive.core import finding, trace
from postfix_archive.core.errors import ArchiveError, NotRoot
from postfix_archive.core.keyring import Keyring
from postfix_archive.core.settings import Settings
from postfix_archive.front import archive_transport
from postfix_archive.front.archive_transport import Case

LOG = "postfix/archive-rescue"
PATIENCE = 10  # failures in a row after which a return gives up for this time
DRAFT_AGE = 86400  # seconds: no run lives that long (archive_time_limit)


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
    settings = config.load(ctx.obj)
    folder = settings.archive_fallback_directory
    if not os.path.isdir(folder):
        return
    keys = config.keys(settings)
    with acting.as_owner(folder):
        lock = _locked(folder)
        if lock < 0:
            click.echo("Another return is at work.")
            return
        try:
            done, why = _returned(settings, keys)
            _sweep(settings)
        finally:
            os.close(lock)
        left = len(fallback.waiting(folder))
    if done:
        click.echo(f"Archived from {folder}: {done}.")
    if left:
        click.echo(f"Still waiting in {folder}: {left}. {why}", err=True)
    ctx.exit(finding.WARNING if left else finding.OK)


def _returned(settings: Settings, keys: Keyring) -> tuple[int, str]:
    """Archive what waits, oldest first; return how many were, and the last trouble."""
    done = failed = 0
    why = ""
    for _, path in fallback.waiting(settings.archive_fallback_directory):
        try:
            _archive(settings, keys, path)
            done, failed = done + 1, 0
        except ArchiveError as error:
            why = f"{os.path.basename(path)[:12]}: {error}"
            failed += 1
            if failed == PATIENCE:
                break
    return done, why


def _archive(settings: Settings, keys: Keyring, path: str) -> None:
    """Archive one capsule, then take its file away."""
    descriptor = fallback.opened(path)
    try:
        folder = settings.archive_spool_directory
        message = spool.read(descriptor, folder, canonical=True)
    finally:
        os.close(descriptor)
    case = Case(message, settings, keys, int(time.time()))
    try:
        archive_transport.archived(case)
    finally:
        message.close()
    fallback.done(path)


def _sweep(settings: Settings) -> None:
    """Take away drafts that crashed runs have left; they never counted."""
    before = time.time() - DRAFT_AGE
    folders = [settings.archive_fallback_directory]
    if settings.stores:
        store = settings.archive_store_directory
        try:
            folders += [f"{store}/{each}" for each in reading.archives(store)]
        except ArchiveError:
            pass  # a store that is away has said so above
    for each in folders:
        files.sweep(f"{each}/drafts", before)


def _locked(folder: str) -> int:
    """Return the descriptor of the lock, -1 if another process has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(f"{folder}/lock", flags, files.DRAFT_MODE)
    except OSError as problem:
        raise files.failed(f"{folder}/lock", problem) from problem
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor
