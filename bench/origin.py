"""Where figures come from: the program that was measured, the machine, the day."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import postfix_archive

import usage
from private_postfix import ROOT

CHANGED = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"]


def known(group: usage.Group) -> dict[str, object]:
    """Return what the figures of this run depend on; ask before it begins."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "version": postfix_archive.__version__,
        "commit": commit(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postfix": _said("postconf", "-dh", "mail_version"),
        "kernel": platform.release().partition("-")[0],
        "cpu_from": group.source,
        "load_before": os.getloadavg()[0],
    }


def commit() -> str:
    """Return the commit that is measured, and whether it was changed; else nothing."""
    found = _said("git", "rev-parse", "--short=9", "HEAD")
    return f"{found}, changed" if found and _said(*CHANGED) else found


def say(text: str) -> None:
    """Print a line at once, beside the table."""
    print(text, file=sys.stderr, flush=True)


def _said(*command: str) -> str:
    """Return what a command says, nothing where it cannot be asked."""
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return "" if run.returncode else run.stdout.strip()
