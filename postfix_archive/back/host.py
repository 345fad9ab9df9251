"""Host resources of an installation: lock, system user, directories, ports, probe.

Used by install. Raises InstallRefused before, and InstallFailed after the first change.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from postfix_archive.back import passing, postconf
from postfix_archive.core.errors import InstallFailed, InstallRefused

PATIENCE = 120.0  # seconds to wait for ports, the probe and the queue
PROBE_DOMAIN = "archive-probe.invalid"
HIGHEST = 65535  # port number


def hold_alone(directory: str) -> None:
    """Lock a configuration directory until this process ends.

    Raises InstallRefused if another make install or make uninstall holds the lock.
    """
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the reader of main.cf reports it
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstallRefused(
            f"{directory}: another make install or make uninstall is running; try"
            " again when it has finished"
        ) from None


def is_user(name: str) -> bool:
    """Tell whether this user exists."""
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def refuse_userless(name: str) -> None:
    """Raise InstallRefused if the user does not exist and useradd is missing."""
    if not is_user(name) and shutil.which("useradd") is None:
        raise InstallRefused(
            f"useradd: command not found; create the system user {name} by hand, with"
            " a group of its own and not in group postdrop"
        )


def user_made(name: str, home: str) -> bool:
    """Create the system user of our services; False if it exists already."""
    if is_user(name):
        return False
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", home, "--shell", "/usr/sbin/nologin", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallFailed(f"useradd {name}: {' '.join(done.stderr.split())}")
    return True


def make_store(path: str, user: str) -> None:
    """Create a directory for the user alone (mode 0700) unless it exists."""
    entry = pwd.getpwnam(user)
    if not os.path.isdir(path):
        os.makedirs(path, mode=0o755)
        os.chown(path, entry.pw_uid, entry.pw_gid)
        os.chmod(path, 0o700)


def refuse_closed(word: str, path: str, user: str) -> None:
    """Raise InstallRefused if the user cannot search a parent directory of path.

    option: the option that the path comes from, such as ``PREFIX=/root/x``.
    """
    folder = passing.closed(path, user)
    if folder:
        raise InstallRefused(
            f"{word}: user {user} has no search permission on {folder}, so all mail"
            " would be deferred; choose another directory or run:"
            f" chmod a+x {shlex.quote(folder)}"
        )


def refuse_no_folder(word: str, path: str) -> None:
    """Raise InstallRefused unless path is, or can become, a writable directory."""
    there = Path(path)
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InstallRefused(
            f"{word}: {there} is not a directory; choose another directory"
        )
    if not os.access(there, os.W_OK):
        raise InstallRefused(
            f"{word}: {there} is not writable; choose another directory or mount it"
            " writable"
        )


def refuse_taken(ports: Iterable[int], ours: Iterable[int]) -> None:
    """Raise InstallRefused if a program other than ours listens on one of the ports.

    own_ports: ports of installed services, which are not checked.
    """
    known = set(ours)
    wanted = list(ports)
    if wanted[-1] > HIGHEST:
        raise InstallRefused(
            f"PORT={wanted[0]}: {len(wanted)} consecutive ports are needed and"
            f" {HIGHEST} is the highest; choose another first port,"
            f" PORT={_offer(1024, len(wanted))}"
        )
    for port in wanted:
        if port not in known and not _is_free(port):
            raise InstallRefused(
                f"127.0.0.1:{port} is in use; choose another first port,"
                f" PORT={_offer(wanted[0], len(wanted))} ({len(wanted)} consecutive"
                " ports are free there)"
            )


def wait_for_ports(ports: range) -> None:
    """Return when all ports accept connections; raises InstallFailed on timeout."""

    def up() -> bool:
        return all(postconf.answers("127.0.0.1", port) for port in ports)

    wait(up, f"Postfix listening on 127.0.0.1, ports {ports[0]} to {ports[-1]}")


def probe(directory: str, store: str) -> bool:
    """Send a probe message through Postfix; tell whether it reached the store.

    Its recipient is in a domain that cannot exist (RFC 2606) and that transport_maps
    routes to discard(8).
    """
    name = f"probe-{secrets.token_hex(8)}"
    text = (
        f"From: <{name}@{PROBE_DOMAIN}>\nTo: <{name}@{PROBE_DOMAIN}>\n"
        "Subject: postfix_archive: installation probe\n\n"
        "make install sent this message to test the archive. Postfix discards it.\n"
    )
    subprocess.run(
        [postconf.program("sendmail"), "-i", "-f", "<>", f"{name}@{PROBE_DOMAIN}"],
        input=text.encode(),
        env={**os.environ, "MAIL_CONFIG": directory},
        check=True,
    )

    def arrived() -> bool:
        journals = Path(store).glob("*@*/journal")
        return any(name.encode() in each.read_bytes() for each in journals)

    try:
        wait(arrived, "the probe message in the store")
    except InstallFailed:
        return False
    return True


def wait(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition is true; raises InstallFailed on timeout."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise InstallFailed(
                f"timeout after {PATIENCE:.0f} s: {what}; see Postfix's log"
            )
        time.sleep(0.1)


def _offer(taken: int, count: int) -> int:
    """Return the first of count free ports, in steps of 100 above used_port."""
    last = HIGHEST - count
    for offer in chain(range(taken + 100, last, 100), range(1126, last, 100)):
        if all(_is_free(offer + each) for each in range(count)):
            return offer
    raise InstallRefused(f"127.0.0.1 has no {count} consecutive free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
