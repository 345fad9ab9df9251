"""Changes main.cf and master.cf: edits copies, then replaces each file atomically.

Used by install, uninstall and the undo record. postconf(1) edits the copies, so all
contents that the files can have during an installation are known in advance; a crash
or power failure leaves one of them. A symlink stays one: the file that it names is
replaced. Raises InstallFailed if a file changes meanwhile.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from postfix_archive.config import archive_cf
from postfix_archive.errors import InstallFailed, InstallRefused
from postfix_archive.install.filter_routes import Change
from postfix_archive.postfix import postfix_command
from postfix_archive.system import files, path_access

FILES = ("master.cf", "main.cf")  # services first: main.cf refers to them
Contents = dict[str, bytes]


def read(directory: Path | str) -> Contents:
    """Return the contents of both files."""
    return {name: Path(directory, name).read_bytes() for name in FILES}


def digests(contents: Contents) -> dict[str, str]:
    """Return the SHA-256 of each file, in hexadecimal."""
    return {name: hashlib.sha256(text).hexdigest() for name, text in contents.items()}


def apply_changes(before: Contents, changes: Iterable[Change]) -> Contents:
    """Return both files with the changes applied, edited in a private directory."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in before.items():
            Path(directory, name).write_bytes(content)
        for change in changes:
            apply_change(directory, change)
        return read(directory)


def replace_files(directory: Path | str, after: Contents, before: Contents) -> None:
    """Replace both files durably; raises InstallFailed if they differ from before."""
    current = read(directory)
    for name in FILES:
        if current[name] != before[name]:
            raise InstallFailed(
                f"{directory}/{name}: changed by another process during this run; run"
                " it again"
            )
    for name in FILES:
        replace_content(Path(directory, name), after[name])


def copy_file(source: Path, target: Path) -> None:
    """Copy a file over another, atomically and durably, with mode, owner and times."""
    stat = source.stat()
    content = source.read_bytes()
    path = os.path.realpath(target)
    files.replace(path, content, like=str(source), failure=InstallFailed)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def apply_change(directory: str, change: Change) -> None:
    """Apply one change with postconf(1)."""
    if change.kind == "main":
        if change.after is None:
            postfix_command.remove_main(directory, change.name)
        else:
            postfix_command.set_main(directory, change.name, change.after)
    elif change.kind == "service":
        if change.after is None:
            postfix_command.remove_service(directory, change.name)
        else:
            postfix_command.set_service(directory, change.name, change.after)
    else:
        key, _, option = change.name.rpartition("/")
        if change.after is None:
            postfix_command.remove_option(directory, key, option)
        else:
            postfix_command.set_option(directory, key, option, change.after)


def remove_drafts(directory: Path | str) -> None:
    """Remove the drafts that a killed installer has left."""
    for name in (*FILES, archive_cf.FILE_NAME):
        parent, _, target = os.path.realpath(Path(directory, name)).rpartition("/")
        files.remove_drafts(parent, math.inf, target)


def replace_content(path: Path, content: bytes) -> None:
    """Replace a file's content durably; mode, owner and extended attributes stay.

    A new file gets mode 0644.
    """
    if not path.exists() or path.read_bytes() != content:
        name = os.path.realpath(path)
        files.replace(name, content, 0o644, like=name, failure=InstallFailed)


def check_replaceable(directory: Path | str) -> None:
    """Raise InstallRefused unless both files can be replaced by rename(2)."""
    for name in FILES:
        path = Path(directory, name)
        target = os.path.realpath(path)
        file = str(path) if target == str(path) else f"{path} (symlink to {target})"
        if path_access.is_mount_point(target):
            raise InstallRefused(
                f"{file} is a mount point, and cannot be replaced atomically; mount"
                " its directory instead, or copy the file and unmount it"
            )
        parent = os.path.dirname(target)
        if not path_access.is_writable_directory(parent):
            raise InstallRefused(
                f"{parent} is not writable; mount it writable or name another"
                " configuration directory with CONFIG_DIRECTORY="
            )
