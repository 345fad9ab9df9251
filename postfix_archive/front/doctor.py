"""The command postfix-archive doctor: looks the set-up over, says what mends it.

Decides nothing itself: back/observing looks, core/checkup judges. Exit codes are those
of monitoring plugins: 0 sound, 1 warning, 2 critical, 3 it could not look.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess

import click

from postfix_archive.back import observing, postconf
from postfix_archive.core import checkup, finding
from postfix_archive.core.errors import ArchiveError, NotRoot
from postfix_archive.core.finding import Finding
from postfix_archive.core.observed import Observed


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on all of it.")
@click.option("--fix", is_flag=True, help="Run those cures that are safe, look again.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, fix: bool) -> None:
    """Check Postfix, the archive's files and the queue; say what mends each trap.

    Exit codes as monitoring plugins have them: 0 sound (advice counts as sound),
    1 warning, 2 critical, 3 not able to look.
    """
    try:
        if os.geteuid():
            raise NotRoot("store and queue can be looked at by root alone: use sudo")
        host = observing.observe(ctx.obj)
        found = checkup.examine(host)
        if fix and mended(host, found):
            host = observing.observe(ctx.obj)
            found = checkup.examine(host)
    except (ArchiveError, OSError) as problem:
        told = {"status": "UNKNOWN", "why": str(problem), "findings": []}
        click.echo(json.dumps(told) if as_json else f"UNKNOWN: {problem}")
        ctx.exit(finding.UNKNOWN)
    click.echo(_as_json(found) if as_json else checkup.report(host, found))
    ctx.exit(finding.worst(found))


def mended(host: Observed, found: list[Finding]) -> bool:
    """Run the safe cures, then reload; tell whether there were any."""
    safe = [each for each in found if each.is_safe]
    for each in safe:
        click.echo(f"{each.check}: {each.cure}", err=True)
        command = shlex.split(each.cure)
        path = postconf.program(command[0])
        done = subprocess.run([path, *command[1:]], capture_output=True, text=True)
        if done.returncode:
            click.echo(f"  it failed: {' '.join(done.stderr.split())}", err=True)
    if safe and host.is_running:
        postconf.reload(host.found.directory)
    return bool(safe)


def _as_json(found: list[Finding]) -> str:
    told = [
        {**dataclasses.asdict(each), "severity": each.severity_name} for each in found
    ]
    return json.dumps({"status": finding.NAMES[finding.worst(found)], "findings": told})
