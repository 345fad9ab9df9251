"""Installs the program files: releases side by side, a symlink to the current one.

Used by install/main. Raises InstallRefused and InstallFailed.

    <prefix>/lib/postfix-archive/archive-stamp, archive, archive-lmtp   launchers
    <prefix>/lib/postfix-archive/current -> releases/<id>   replaced by rename(2)
    <prefix>/lib/postfix-archive/releases/<id>/          package, bundles, master.cf.d
    <prefix>/sbin/postfix-archive                           runs current/commands

A launcher resolves ``current`` once, so an upgrade under load never mixes two releases.
The previous release stays until the next upgrade.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import os
import shutil
from pathlib import Path

from postfix_archive.back import interpreter
from postfix_archive.core import digest, gates
from postfix_archive.core.errors import InstallFailed, InstallRefused

PACKAGE = Path(__file__).resolve().parent.parent
SOURCE = PACKAGE.parent  # a checkout or an installed release
DOORS = ("archive-stamp", "archive", "archive-lmtp")
OTHER = {
    gates.PIPE: "40-",
    gates.LMTP: "10-",
}  # of master.cf.d: prefix of the file for the other mode
COMPLETE = "complete"
USUAL_PREFIX = "/usr/local"
COMMAND = """#!/bin/sh
# Runs the command postfix-archive in its own virtual environment.
exec {lib}/current/commands/bin/python -I \
  {lib}/current/postfix_archive/front/start.py "$@"
"""


class Program:
    """The program files below one prefix; destdir is prepended when packaging."""

    def __init__(self, prefix: str, destdir: str = "", python: str = "") -> None:
        self.lib = f"{prefix}/lib/postfix-archive"
        self.python = python or interpreter.USUAL
        self._lib = Path(destdir + self.lib)
        self._command = Path(f"{destdir}{prefix}/sbin/postfix-archive")
        self._manual = Path(f"{destdir}{prefix}/share/man")

    @property
    def is_there(self) -> bool:
        """Tell whether any release is installed."""
        return (self._lib / "current").exists()

    @property
    def command(self) -> Path:
        """The path of the command postfix-archive."""
        return self._command

    @functools.cached_property
    def _python(self) -> str:
        """Path and version of the Python that runs the release."""
        return f"{self.python} {interpreter.version(self.python)}"

    @property
    def release(self) -> str:
        """The id of the release in SOURCE for this Python."""
        return _release(SOURCE, self._python)

    @property
    def is_current(self) -> bool:
        """Tell whether the release in SOURCE is installed and the current one."""
        current = self._lib / "current"
        done = (self._lib / "releases" / self.release / COMPLETE).exists()
        return done and current.resolve().name == self.release

    def lay_down(self, wheels: str = "") -> None:
        """Install the release in SOURCE and make it the current one, atomically.

        wheels: a directory with the required Python packages, for hosts without access
        to a package index.
        """
        if SOURCE.parent == self._lib / "releases":
            return  # runs from an installed release
        release = self.release  # read once: the checkout may change meanwhile
        folder = self._lib / "releases" / release
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                self._fill(folder, wheels)
            except (OSError, InstallRefused, InstallFailed):
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # other releases exist
                    folder.parent.rmdir()
                    self._lib.rmdir()
                raise
        for each in (self._lib, folder.parent, folder):
            each.chmod(0o755)  # an earlier umask may have removed these
        before = (self._lib / "current").resolve().name
        self._use(folder)
        for each in (self._lib / "releases").iterdir():
            if each.name not in (release, before):
                shutil.rmtree(each, ignore_errors=True)

    def remove(self) -> None:
        """Remove the program files, the command and the manual pages."""
        self._command.unlink(missing_ok=True)
        for page in (SOURCE / "docs" / "man").glob("*.[15]"):
            section = f"man{page.suffix[1:]}"
            (self._manual / section / page.name).unlink(missing_ok=True)
        shutil.rmtree(self._lib, ignore_errors=True)

    def _fill(self, folder: Path, wheels: str) -> None:
        for path in _files(SOURCE):
            target = folder / path.relative_to(SOURCE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if _release(folder, self._python) != folder.name:
            raise InstallFailed(
                f"{SOURCE} was changed while it was copied; run make install again when"
                " it no longer changes (Postfix is unchanged)"
            )
        _must([self.python, "-I", "-m", "compileall", "-q", str(folder)])
        maker = str(folder / "postfix_archive" / "back" / "bundle.py")
        final = f"{self.lib}/releases/{folder.name}"
        _must([self.python, "-I", maker, str(folder), final])
        self._environment(folder, wheels)
        (folder / COMPLETE).touch()
        sync(folder)

    def _environment(self, folder: Path, wheels: str) -> None:
        """Create the virtual environment of the commands."""
        commands = folder / "commands"
        done = interpreter.run([self.python, "-I", "-m", "venv", str(commands)])
        if done.returncode:
            raise InstallRefused(
                f"{self.python} -m venv failed; install the venv module (Debian:"
                " apt-get install python3-venv)"
            )
        python = str(commands / "bin" / "python")
        where = ["--no-index", "--find-links", wheels] if wheels else []
        pip = [python, "-I", "-m", "pip", "install", "--quiet"]
        quietly = ["--disable-pip-version-check", "--no-warn-script-location"]
        _must([*pip, *quietly, *where, *_requirements()])

    def _use(self, folder: Path) -> None:
        """Make a release the current one: launchers, link, command, manual pages."""
        launcher = (folder / "postfix_archive" / "front" / "launcher.py").read_text()
        first, _, rest = launcher.partition("\n")
        for door in DOORS:
            replace(self._lib / door, f"#!{self.python} -IS\n{rest}", 0o755)
        draft = self._lib / f"current.{os.getpid()}"
        draft.unlink(missing_ok=True)
        draft.symlink_to(f"releases/{folder.name}")
        draft.replace(self._lib / "current")
        sync(self._lib)
        replace(self._command, COMMAND.format(lib=self.lib), 0o755)
        for page in (folder / "docs" / "man").glob("*.[15]"):
            section = self._manual / f"man{page.suffix[1:]}"
            replace(section / page.name, page.read_text(), 0o644)


def service_texts(mode: str = gates.PIPE) -> list[str]:
    """Return the texts of master.cf.d with the services of one mode, in order."""
    other = OTHER[mode]
    paths = sorted((SOURCE / "master.cf.d").glob("[1-4]*.cf"))
    return [path.read_text() for path in paths if not path.name.startswith(other)]


def replace(path: Path, text: str, mode: int) -> None:
    """Replace a file atomically and durably; equal text is not written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_text() == text:
        path.chmod(mode)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8") as opened:
        os.fchmod(opened.fileno(), mode)
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(path)
    sync(path.parent)


def _files(source: Path) -> list[Path]:
    """Return the paths of all files of a release, sorted."""
    found = [source / "setup.cfg"]
    for pattern in ("postfix_archive/**/*.py", "master.cf.d/*.cf", "docs/man/*.[15]"):
        found += source.glob(pattern)
    return sorted(found)


def _release(source: Path, python: str) -> str:
    """Return the id of a release: a digest of its files and of the Python version.

    After an upgrade of Python, make install therefore installs a new release.
    """
    total = digest.sha256(python.encode())
    for path in _files(source):
        total.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes())
    return str(total.hexdigest()[:16])


def _requirements() -> list[str]:
    """Return the Python packages that the commands require, from setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(SOURCE / "setup.cfg", encoding="utf-8")
    wanted = parser["options"]["install_requires"].splitlines()
    return [each.strip() for each in wanted if each.strip()]


def _must(command: list[str]) -> None:
    done = interpreter.run(command)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise InstallFailed(
            f"{' '.join(command[:6])}: {said}; without a package index, name a"
            " directory with the Python packages: WHEELS=DIR (Postfix is unchanged)"
        )


def sync(path: Path) -> None:
    """Call fsync(2) on a file, or on a directory for the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
