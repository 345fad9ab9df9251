"""Finds the Python interpreter that runs the program, and checks its version.

Used by install/program, install/main and doctor/inspection. Raises InstallRefused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from postfix_archive.back import bundle
from postfix_archive.core.errors import InstallRefused

USUAL = "/usr/bin/python3"
OLDEST = "(3, 11)"
LONGEST = 120  # bytes: Linux truncates #! lines at 127 (execve(2)), less "#!", " -IS"


def named(word: str) -> str:
    """Return the absolute path of the Python interpreter to use.

    name is a path or a name in PATH, "" for DEFAULT_INTERPRETER. Raises InstallRefused.
    """
    found = shutil.which(word or USUAL)
    if found is None:
        raise InstallRefused(
            f"PYTHON={word or USUAL}: no such program; give the path of Python 3.11"
            " or later"
        )
    path = os.path.abspath(found)
    if len(path) > LONGEST or path.split() != [path]:
        raise InstallRefused(
            f"PYTHON={path}: too long, or has white space, for the first line of a"
            " script (#!); give another path"
        )
    if not _is_new_enough(path):
        raise InstallRefused(
            f"PYTHON={path}: not Python 3.11 or later; give the path of one"
        )
    return path


def _is_new_enough(python: str) -> bool:
    asks = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    try:
        return run([python, "-I", "-c", asks]).returncode == 0
    except OSError:  # a file that the kernel cannot run
        return False


def version(python: str) -> str:
    """Return the magic number of that Python's .pyc files, in hexadecimal digits.

    Import bundles and environments fit only one magic number. "" if the interpreter
    cannot be run.
    """
    asks = "import importlib.util as u; print(u.MAGIC_NUMBER.hex())"
    try:
        return run([python, "-I", "-c", asks]).stdout.strip()
    except OSError:
        return ""


def other(launcher: str) -> str:
    """Return a launcher's interpreter if it does not fit the bundles of the release.

    "" if it does, or if that cannot be determined.
    """
    folder = Path(launcher).parent
    release = folder / "current" if (folder / "current").is_symlink() else folder
    try:
        with open(launcher, "rb") as opened:
            first = opened.readline(LONGEST + 8)
        with open(release / bundle.FOLDER / "archive-stamp", "rb") as opened:
            made_by = opened.read(len(MAGIC_NUMBER)).hex()
    except OSError:
        return ""
    python = os.fsdecode(first[2:].split()[0]) if first.startswith(b"#!/") else ""
    is_fit = not python or version(python) in ("", made_by)
    return "" if is_fit else python


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command without the PYTHON* variables of the environment."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        command, env=clean, capture_output=True, text=True, check=False
    )
