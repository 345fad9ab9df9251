"""Finds the Python interpreter that runs the program, and checks its version.

Used by install/program, install/main and doctor/inspection. Raises InstallRefused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from postfix_archive.errors import InstallRefused
from postfix_archive.system import import_bundle

DEFAULT_INTERPRETER = "/usr/bin/python3"
OLDEST_VERSION = "(3, 11)"
# Bytes: Linux truncates #! lines at 127 (execve(2)), less "#!", " -IS".
PATH_LENGTH_LIMIT = 120


def find_interpreter(name: str) -> str:
    """Return the absolute path of the Python interpreter to use.

    name is a path or a name in PATH, "" for DEFAULT_INTERPRETER. Raises InstallRefused.
    """
    executable = shutil.which(name or DEFAULT_INTERPRETER)
    if executable is None:
        raise InstallRefused(
            f"PYTHON={name or DEFAULT_INTERPRETER}: no such program; give the path of"
            " Python 3.11 or later"
        )
    path = os.path.abspath(executable)
    if len(path) > PATH_LENGTH_LIMIT or path.split() != [path]:
        raise InstallRefused(
            f"PYTHON={path}: too long, or has white space, for the first line of a"
            " script (#!); give another path"
        )
    if not _is_supported(path):
        raise InstallRefused(
            f"PYTHON={path}: not Python 3.11 or later; give the path of one"
        )
    return path


def _is_supported(python: str) -> bool:
    code = f"import sys; sys.exit(sys.version_info < {OLDEST_VERSION})"
    try:
        return run_isolated([python, "-I", "-c", code]).returncode == 0
    except OSError:  # a file that the kernel cannot run
        return False


def magic_number(python: str) -> str:
    """Return the magic number of that Python's .pyc files, in hexadecimal digits.

    Import bundles and environments fit only one magic number. "" if the interpreter
    cannot be run.
    """
    code = "import importlib.util as u; print(u.MAGIC_NUMBER.hex())"
    try:
        return run_isolated([python, "-I", "-c", code]).stdout.strip()
    except OSError:
        return ""


def mismatched_interpreter(launcher: str) -> str:
    """Return a launcher's interpreter if it does not fit the bundles of the release.

    "" if it does, or if that cannot be determined.
    """
    directory = Path(launcher).parent
    release = (
        directory / "current" if (directory / "current").is_symlink() else directory
    )
    try:
        with open(launcher, "rb") as file:
            first_line = file.readline(PATH_LENGTH_LIMIT + 8)
        with open(release / import_bundle.DIRECTORY / "archive-stamp", "rb") as file:
            magic = file.read(len(MAGIC_NUMBER)).hex()
    except OSError:
        return ""
    python = (
        os.fsdecode(first_line[2:].split()[0]) if first_line.startswith(b"#!/") else ""
    )
    is_compatible = not python or magic_number(python) in ("", magic)
    return "" if is_compatible else python


def run_isolated(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command without the PYTHON* variables of the environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
