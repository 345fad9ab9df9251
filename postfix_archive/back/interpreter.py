"""The Python that runs the program: which it is, and whether it is the right one.

Used by program, front/install and back/observing.
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
LONGEST = 120  # bytes of a #! line that every kernel takes, less "#!" and " -IS"


def named(word: str) -> str:
    """Return the absolute path of the Python that is to run the program.

    word is a path or a name in PATH, "" for the usual one. Raises InstallRefused.
    """
    found = shutil.which(word or USUAL)
    if found is None:
        raise InstallRefused(
            f"PYTHON={word or USUAL}: there is no such program: give the path of"
            " a Python 3.11 or later"
        )
    path = os.path.abspath(found)
    if len(path) > LONGEST or path.split() != [path]:
        raise InstallRefused(
            f"PYTHON={path}: the first line of a script cannot name this path: give a"
            " shorter one, without white space"
        )
    if not _is_new_enough(path):
        raise InstallRefused(
            f"PYTHON={path}: that is no Python 3.11 or later: give the path of one"
        )
    return path


def _is_new_enough(python: str) -> bool:
    asks = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    try:
        return run([python, "-I", "-c", asks]).returncode == 0
    except OSError:  # a file that the kernel cannot run
        return False


def version(python: str) -> str:
    """Return what .pyc files of that Python begin with, in hexadecimal digits.

    It stands for the version: bundles and environments of another are not for it. ""
    where that program does not run.
    """
    asks = "import importlib.util as u; print(u.MAGIC_NUMBER.hex())"
    try:
        return run([python, "-I", "-c", asks]).stdout.strip()
    except OSError:
        return ""


def other(launcher: str) -> str:
    """Return the interpreter of a door whose release another version was to run.

    "" where they fit, and where that cannot be told.
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
    """Run a command without what the environment says to Python."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        command, env=clean, capture_output=True, text=True, check=False
    )
