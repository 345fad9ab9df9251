"""Host resources of an installation: lock, system user, directories, ports.

Used by install. Raises InstallRefused before, and InstallFailed after the first change.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from postfix_archive.errors import InstallFailed, InstallRefused
from postfix_archive.postfix import mail_queue, postfix_command
from postfix_archive.system import path_access, privileges

PROGRAM_SIZE = 128 << 20  # bytes; 90 MiB with Python 3.11, compiled
HIGHEST_PORT = 65535  # port number


def lock_directory(directory: str) -> None:
    """Lock a configuration directory until this process ends.

    Raises InstallRefused if another make install or make uninstall holds the lock.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the reader of main.cf reports it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstallRefused(
            f"{directory}: another make install or make uninstall is running; try"
            " again when it has finished"
        ) from None


def has_user(name: str) -> bool:
    """Tell whether this user exists."""
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def check_user(name: str) -> None:
    """Raise InstallRefused if the user does not exist and useradd is missing."""
    if not has_user(name) and shutil.which("useradd") is None:
        raise InstallRefused(
            f"useradd: command not found; create the system user {name} by hand, with"
            " a group of its own and not in group postdrop"
        )


def create_user(name: str, home: str) -> bool:
    """Create the system user of our services; False if it exists already."""
    if has_user(name):
        return False
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", home, "--shell", "/usr/sbin/nologin", name]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise InstallFailed(f"useradd {name}: {' '.join(process.stderr.split())}")
    return True


def create_private_directory(path: str, user: str) -> None:
    """Create a directory for the user alone (mode 0700) unless it exists."""
    account = pwd.getpwnam(user)
    if not os.path.isdir(path):
        os.makedirs(path, mode=0o755)
        # By descriptor: the path can lead through a directory of another user.
        descriptor = privileges.open_path(path, os.O_RDONLY | os.O_DIRECTORY)
        os.fchown(descriptor, account.pw_uid, account.pw_gid)
        os.fchmod(descriptor, 0o700)
        os.close(descriptor)


def check_search_permission(option: str, path: str, user: str) -> None:
    """Raise InstallRefused if the user cannot search a parent directory of path.

    option: the option that the path comes from, such as ``PREFIX=/root/x``.
    """
    directory = path_access.first_blocked_directory(path, user)
    if directory:
        raise InstallRefused(
            f"{option}: user {user} has no search permission on {directory}, so all"
            " mail would be deferred; choose another directory or run: chmod a+x"
            f" {shlex.quote(directory)}"
        )


def check_directory(option: str, path: str) -> None:
    """Raise InstallRefused unless path is, or can become, a writable directory."""
    if privileges.has_foreign_link(path):
        raise InstallRefused(
            f"{option}: it leads through a symlink that another user can change;"
            " choose another directory"
        )
    existing = _existing_parent(path)
    if not existing.is_dir():
        raise InstallRefused(
            f"{option}: {existing} is not a directory; choose another directory"
        )
    if not os.access(existing, os.W_OK):
        raise InstallRefused(
            f"{option}: {existing} is not writable; choose another directory or mount"
            " it writable"
        )


def check_executable(option: str, path: str) -> None:
    """Raise InstallRefused if programs below path could not be executed."""
    existing = _existing_parent(path)
    if path_access.is_mounted_noexec(str(existing)):
        raise InstallRefused(
            f"{option}: the file system of {existing} is mounted noexec, so all mail"
            " would be deferred; choose another directory"
        )


def check_space(option: str, path: str) -> None:
    """Raise InstallRefused if the program does not fit on the file system of path."""
    existing = _existing_parent(path)
    free = shutil.disk_usage(existing).free
    if free < PROGRAM_SIZE:
        raise InstallRefused(
            f"{option}: {free >> 20} MiB free on the file system of {existing}, and the"
            f" program needs {PROGRAM_SIZE >> 20}; free some, or choose another"
            " directory"
        )


def _existing_parent(path: str) -> Path:
    """Return path, or its first parent that exists."""
    existing = Path(path)
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    return existing


def check_ports(ports: Iterable[int], own_ports: Iterable[int]) -> None:
    """Raise InstallRefused if a program other than ours listens on one of the ports.

    own_ports: ports of installed services, which are not checked.
    """
    ignored = set(own_ports)
    required = list(ports)
    if required[-1] > HIGHEST_PORT:
        raise InstallRefused(
            f"PORT={required[0]}: {len(required)} consecutive ports are needed and"
            f" {HIGHEST_PORT} is the highest; choose another first port,"
            f" PORT={_first_free_port(1024, len(required))}"
        )
    for port in required:
        if port not in ignored and not _is_port_free(port):
            raise InstallRefused(
                f"127.0.0.1:{port} is in use; choose another first port,"
                f" PORT={_first_free_port(required[0], len(required))} ({len(required)}"
                " consecutive ports are free there)"
            )


def wait_for_ports(ports: range) -> None:
    """Return when all ports accept connections; raises InstallFailed on timeout."""

    def is_listening() -> bool:
        return all(postfix_command.is_listening("127.0.0.1", port) for port in ports)

    wait_until(
        is_listening, f"Postfix listening on 127.0.0.1, ports {ports[0]} to {ports[-1]}"
    )


def wait_until(
    condition: Callable[[], bool],
    description: str,
    *,
    timeout: float = mail_queue.WAIT_TIMEOUT,
) -> None:
    """Return when the condition is true; raises InstallFailed on timeout (seconds)."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise InstallFailed(
                f"timeout after {timeout:.0f} s: {description}; see" " Postfix's log"
            )
        time.sleep(0.1)


def _first_free_port(used_port: int, count: int) -> int:
    """Return the first of count free ports, in steps of 100 above used_port."""
    highest = HIGHEST_PORT - count
    for port in chain(range(used_port + 100, highest, 100), range(1126, highest, 100)):
        if all(_is_port_free(port + each) for each in range(count)):
            return port
    raise InstallRefused(f"127.0.0.1 has no {count} consecutive free ports")


def _is_port_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
