"""Installs the program files: releases side by side, a symlink to the current one.

Used by install/main. Raises InstallRefused and InstallFailed.

    <prefix>/lib/postfix-archive/archive-stamp, …   launchers (LAUNCHERS)
    <prefix>/lib/postfix-archive/delivery-status-filter                 for Postfix
    <prefix>/lib/postfix-archive/current -> releases/<id>   replaced by rename(2)
    <prefix>/lib/postfix-archive/releases/<id>/             package, bundles, commands
    <prefix>/sbin/postfix-archive                           runs current/commands

A launcher resolves ``current`` once, so an upgrade under load never mixes two releases.
The previous release stays until the next upgrade.

Parts are extras of setup.cfg, each with Python packages of its own, in
requirements-<part>.txt (make requirements). A release has those that were asked for,
and those of the release before it; without any, requirements.txt alone.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterable
from pathlib import Path

from postfix_archive.errors import InstallFailed, InstallRefused
from postfix_archive.message import digest
from postfix_archive.postfix import reference
from postfix_archive.postfix.archive_services import STATUS_FILTER
from postfix_archive.system import files, python_version

LAUNCHERS = ("archive-stamp", "archive-capture", "archive", "archive-lmtp")
COMPLETE_MARKER = "complete"
PARTS_FILE = "parts"  # in a release: one name a line
RELEASE_FILES = (
    "**/*.py",
    "py.typed",
    "master.cf.d/*",
    "man/*.[15]",
    "install/requirements*.txt",
    "install/archive-web.cf",
    "procedure/*.j2",
    "web/openapi.json",
    "web/templates/*",
    "web/static/*",
    "web/translations/*/*/*",
)  # in the package
DEFAULT_PREFIX = "/usr/local"
ERROR_LENGTH = 800  # characters at the end of a program's output, as of pip
# pip runs as root: only these versions, only wheels (which run no code), only if the
# digests match.
PIP_OPTIONS = ("--require-hashes", "--no-deps", "--only-binary=:all:")
COMMAND_SCRIPT = """#!/bin/sh
# Runs the command postfix-archive in its own virtual environment.
exec {lib}/current/commands/bin/python -I \
  {lib}/current/postfix_archive/cli/start.py "$@"
"""


def available_parts() -> tuple[str, ...]:
    """Return the names of the parts that can be added to a release, sorted."""
    prefix = "requirements-"
    paths = (reference.PACKAGE / "install").glob(f"{prefix}*.txt")
    return tuple(sorted(path.stem.removeprefix(prefix) for path in paths))


class ProgramFiles:
    """The program files below one prefix; destdir is prepended when packaging.

    ``parts`` are those given and those of the current release.
    """

    def __init__(
        self,
        prefix: str,
        destdir: str = "",
        python: str = "",
        parts: Iterable[str] = (),
    ) -> None:
        self.directory = f"{prefix}/lib/postfix-archive"
        self.python = python or python_version.DEFAULT_INTERPRETER
        self._staged_directory = Path(destdir + self.directory)
        self._command_path = Path(f"{destdir}{prefix}/sbin/postfix-archive")
        self._man_directory = Path(f"{destdir}{prefix}/share/man")
        all_parts = {*parts, *self._current_parts()}
        self.parts = tuple(each for each in available_parts() if each in all_parts)

    @property
    def is_installed(self) -> bool:
        """Tell whether any release is installed."""
        return (self._staged_directory / "current").exists()

    def _current_parts(self) -> list[str]:
        """Return the parts of the current release."""
        try:
            return (self._staged_directory / "current" / PARTS_FILE).read_text().split()
        except OSError:  # no release, or one from before there were parts
            return []

    @property
    def command_path(self) -> Path:
        """The path of the command postfix-archive."""
        return self._command_path

    @functools.cached_property
    def _environment_identity(self) -> str:
        """Path and version of the Python that runs the release, and its parts."""
        version = python_version.magic_number(self.python)
        return " ".join((self.python, version, *self.parts))

    @property
    def release_id(self) -> str:
        """The id of the release in PACKAGE for this Python, with these parts."""
        return _release_id(reference.PACKAGE, self._environment_identity)

    @property
    def is_current(self) -> bool:
        """Tell whether the release in PACKAGE is installed and the current one."""
        current = self._staged_directory / "current"
        is_complete = (
            self._staged_directory / "releases" / self.release_id / COMPLETE_MARKER
        ).exists()
        return is_complete and current.resolve().name == self.release_id

    def install(self, wheels: str = "") -> None:
        """Install the release in PACKAGE and make it the current one, atomically.

        PACKAGE may itself be part of an installed release. wheels: a directory with the
        required Python packages, for hosts without access to a package index.
        """
        release_id = self.release_id  # read once: the checkout may change meanwhile
        directory = self._staged_directory / "releases" / release_id
        if not (directory / COMPLETE_MARKER).exists():
            shutil.rmtree(directory, ignore_errors=True)
            try:
                self._build(directory, wheels)
            except (OSError, InstallRefused, InstallFailed):
                shutil.rmtree(directory, ignore_errors=True)
                with contextlib.suppress(OSError):  # other releases exist
                    directory.parent.rmdir()
                    self._staged_directory.rmdir()
                raise
        for path in (self._staged_directory, directory.parent, directory):
            path.chmod(0o755)  # an earlier umask may have removed these
        previous = (self._staged_directory / "current").resolve().name
        self._activate(directory)
        for path in (self._staged_directory / "releases").iterdir():
            if path.name not in (release_id, previous):
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the program files, the command and the manual pages."""
        self._command_path.unlink(missing_ok=True)
        for page in (reference.PACKAGE / "man").glob("*.[15]"):
            section = f"man{page.suffix[1:]}"
            path = self._man_directory / section / page.name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other pages are in it
                path.parent.rmdir()
        shutil.rmtree(self._staged_directory, ignore_errors=True)

    def _build(self, directory: Path, wheels: str) -> None:
        package = directory / "postfix_archive"
        for path in _release_files(reference.PACKAGE):
            target = package / path.relative_to(reference.PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if _release_id(package, self._environment_identity) != directory.name:
            raise InstallFailed(
                f"{reference.PACKAGE} was changed while it was copied; run make install"
                " again when it no longer changes (Postfix is unchanged)"
            )
        _run_or_fail([self.python, "-I", "-m", "compileall", "-q", str(directory)])
        bundler = str(package / "system" / "import_bundle.py")
        final_directory = f"{self.directory}/releases/{directory.name}"
        _run_or_fail([self.python, "-I", bundler, str(directory), final_directory])
        self._create_environment(directory, wheels)
        _write(directory / PARTS_FILE, "".join(f"{e}\n" for e in self.parts), 0o644)
        _write(directory / COMPLETE_MARKER, "", 0o644)

    def _create_environment(self, directory: Path, wheels: str) -> None:
        """Create the virtual environment of the commands."""
        environment = directory / "commands"
        process = python_version.run_isolated(
            [self.python, "-I", "-m", "venv", str(environment)]
        )
        if process.returncode:
            raise InstallRefused(
                f"{self.python} -m venv failed; install the venv module (Debian:"
                " apt-get install python3-venv)"
            )
        python = str(environment / "bin" / "python")
        index_options = ["--no-index", "--find-links", wheels] if wheels else []
        pip = [python, "-I", "-m", "pip", "install", "--quiet"]
        quiet_options = ["--disable-pip-version-check", "--no-warn-script-location"]
        command = [*pip, *quiet_options, *index_options, *PIP_OPTIONS]
        files_directory = directory / "postfix_archive" / "install"
        for suffix in ("", *(f"-{each}" for each in self.parts)):
            command.append(f"--requirement={files_directory}/requirements{suffix}.txt")
        _run_or_fail(command)

    def _activate(self, directory: Path) -> None:
        """Make a release the current one: launchers, link, command, manual pages."""
        launcher = (
            directory / "postfix_archive" / "intake" / "launcher.py"
        ).read_text()
        shebang, _, body = launcher.partition("\n")
        status_filter = directory / "postfix_archive" / "master.cf.d" / STATUS_FILTER
        _write(self._staged_directory / STATUS_FILTER, status_filter.read_text(), 0o644)
        for name in LAUNCHERS:
            _write(self._staged_directory / name, f"#!{self.python} -IS\n{body}", 0o755)
        files.replace_symlink(
            f"{self._staged_directory}/current",
            f"releases/{directory.name}",
            failure=InstallFailed,
        )
        _write(self._command_path, COMMAND_SCRIPT.format(lib=self.directory), 0o755)
        for page in (directory / "postfix_archive" / "man").glob("*.[15]"):
            section = self._man_directory / f"man{page.suffix[1:]}"
            _write(section / page.name, page.read_text(), 0o644)


def _release_files(package: Path) -> list[Path]:
    """Return the paths of all files of a release, sorted."""
    return sorted(path for pattern in RELEASE_FILES for path in package.glob(pattern))


def _release_id(package: Path, environment: str) -> str:
    """Return the id of a release: a digest of its files and of its environment.

    After an upgrade of Python, make install therefore installs a new release.
    """
    sha256 = digest.sha256(environment.encode())
    for path in _release_files(package):
        sha256.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return str(sha256.hexdigest()[:16])


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(str(path), text.encode(), mode, failure=InstallFailed)


def _run_or_fail(command: list[str]) -> None:
    process = python_version.run_isolated(command)
    if process.returncode:
        output = " ".join((process.stderr or process.stdout).split())
        output = output[-ERROR_LENGTH:]
        raise InstallFailed(
            f"{' '.join(command[:6])}: {output}; without a package index, name a"
            " directory with the Python packages (docs/installing.md says how to make"
            " it): WHEELS=DIR (Postfix is unchanged)"
        )
