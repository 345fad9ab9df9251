"""Where figures come from: the program that was measured, the machine, the day."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import postfix_archive

import resource_usage
from private_postfix import ROOT

CHANGES_COMMAND = [
    "git",
    "status",
    "--porcelain",
    "--untracked-files=no",
    "--",
    ".",
    ":!docs",
]


def describe_run(group: resource_usage.ControlGroup) -> dict[str, object]:
    """Return what the figures of this run depend on; ask before it begins."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "version": postfix_archive.__version__,
        "commit": commit(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postfix": _output_of("postconf", "-dh", "mail_version"),
        "kernel": platform.release().partition("-")[0],
        "cpu_from": group.source,
        "load_before": os.getloadavg()[0],
    }


def commit() -> str:
    """Return the commit that is measured, and whether it was changed; else nothing."""
    commit_id = _output_of("git", "rev-parse", "--short=9", "HEAD")
    return (
        f"{commit_id}, changed"
        if commit_id and _output_of(*CHANGES_COMMAND)
        else commit_id
    )


def print_progress(text: str) -> None:
    """Print a line at once, beside the table."""
    print(text, file=sys.stderr, flush=True)


def _output_of(*command: str) -> str:
    """Return what a command says, nothing where it cannot be asked."""
    try:
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return "" if process.returncode else process.stdout.strip()
