"""The command postfix-archive doctor: check the installation and print fixes.

doctor.inspection reads the host, doctor.checks finds mistakes. Exit codes are those of
monitoring plugins: 0 OK, 1 warning, 2 critical, 3 the inspection failed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess

import click

from postfix_archive import monitoring
from postfix_archive.doctor import checks, inspection
from postfix_archive.doctor.finding import Finding, worst_severity
from postfix_archive.doctor.host import Host
from postfix_archive.errors import ArchiveError, NotRoot
from postfix_archive.postfix import postfix_command
from postfix_archive.system import privileges


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--fix", is_flag=True, help="Run the safe fixes, then check again.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, fix: bool) -> None:
    """Check Postfix, our files and the queue; print fixes.

    Exit codes are those of monitoring plugins: 0 OK (advice counts as OK), 1 warning,
    2 critical, 3 the inspection failed.
    """
    try:
        if os.geteuid():
            raise NotRoot(
                "only root may read store and queue: sudo postfix-archive doctor"
            )
        host = _inspect(ctx.obj)
        findings = checks.run(host)
        if fix and apply_fixes(host, findings):
            host = _inspect(ctx.obj)
            findings = checks.run(host)
    except (ArchiveError, OSError) as error:
        unknown = {"status": "UNKNOWN", "reason": str(error), "findings": []}
        click.echo(json.dumps(unknown) if as_json else f"UNKNOWN: {error}")
        ctx.exit(monitoring.UNKNOWN)
    click.echo(_as_json(findings) if as_json else checks.format_report(host, findings))
    ctx.exit(worst_severity(findings))


def _inspect(directory: str) -> Host:
    """Inspect the host, and the retention rules, for which libraries are needed."""
    host = inspection.inspect_host(directory)
    if host.settings is None or not host.has_retention:
        return host
    from postfix_archive.retention import rules

    try:
        rules.load(host.settings)
    except ArchiveError as error:
        return dataclasses.replace(host, retention_error=str(error))
    return host


def apply_fixes(host: Host, findings: list[Finding]) -> bool:
    """Run the safe fixes, then reload Postfix; tell whether there were any."""
    safe_findings = [each for each in findings if each.is_safe]
    for item in safe_findings:
        click.echo(f"{item.check}: {item.fix}", err=True)
        error = _run_fix(shlex.split(item.fix))
        if error:
            click.echo(f"  failed: {error}", err=True)
    if safe_findings and host.is_running:
        postfix_command.reload(host.config.directory)
    return bool(safe_findings)


def _run_fix(command: list[str]) -> str:
    """Run the command of a fix; return its error, "" if there was none.

    Changes owners and modes itself: chown(1) and chmod(1) follow symlinks, also those
    that a user has made since the inspection.
    """
    try:
        if command[0] == "chown":
            privileges.change_owner(command[2], command[1])
            return ""
        if command[0] == "chmod":
            privileges.change_mode(command[2], int(command[1], 8))
            return ""
        path = postfix_command.find_command(command[0])
        process = subprocess.run([path, *command[1:]], capture_output=True, text=True)
    except (OSError, KeyError) as error:
        return str(error)
    return " ".join(process.stderr.split()) if process.returncode else ""


def _as_json(findings: list[Finding]) -> str:
    status = monitoring.STATUS_NAMES[worst_severity(findings)]
    items = [
        {**dataclasses.asdict(each), "severity": each.severity_name}
        for each in findings
    ]
    return json.dumps({"status": status, "findings": items})
