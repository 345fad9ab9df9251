"""What an installation needs of the host besides Postfix: user, folders, ports.

Used by front/install. Foreign errors leave as InstallRefused or InstallFailed.
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

PATIENCE = 120.0  # seconds until a condition that should come counts as never coming
PROBE_DOMAIN = "archive-probe.invalid"
HIGHEST = 65535  # of a port number


def hold_alone(directory: str) -> None:
    """Hold a configuration directory, until this process ends, against its like.

    Raises InstallRefused when another installation is at work there.
    """
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # what reads main.cf there names it
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstallRefused(
            f"another make install or make uninstall is at work in {directory}: let it"
            " end, then try again"
        ) from None


def is_user(name: str) -> bool:
    """Tell whether there is a user of this name."""
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def refuse_userless(name: str) -> None:
    """Raise InstallRefused if the user is not there and cannot be made."""
    if not is_user(name) and shutil.which("useradd") is None:
        raise InstallRefused(
            f"there is no useradd here: make the system user {name} yourself, with a"
            " group of its own, not in group postdrop"
        )


def user_made(name: str, home: str) -> bool:
    """Make the system user of the archive services; False if there is one already."""
    if is_user(name):
        return False
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", home, "--shell", "/usr/sbin/nologin", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallFailed(f"useradd {name}: {' '.join(done.stderr.split())}")
    return True


def make_store(path: str, user: str) -> None:
    """Make the store, for its user alone, unless it is there."""
    entry = pwd.getpwnam(user)
    if not os.path.isdir(path):
        os.makedirs(path, mode=0o755)
        os.chown(path, entry.pw_uid, entry.pw_gid)
        os.chmod(path, 0o700)


def refuse_closed(word: str, path: str, user: str) -> None:
    """Raise InstallRefused if the user cannot pass the folders on the way to path.

    word is what the path comes from, such as ``PREFIX=/root/x``.
    """
    folder = passing.closed(path, user)
    if folder:
        raise InstallRefused(
            f"{word}: {user} cannot pass {folder}, so all mail would wait: choose"
            f" another place, or open this one: chmod a+x {shlex.quote(folder)}"
        )


def refuse_no_folder(word: str, path: str) -> None:
    """Raise InstallRefused if no folder is here and none can be made."""
    there = Path(path)
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InstallRefused(f"{word}: {there} is no folder: choose another place")
    if not os.access(there, os.W_OK):
        raise InstallRefused(
            f"{word}: {there} cannot be written to: choose another place, or mount it"
            " writable"
        )


def refuse_taken(ports: Iterable[int], ours: Iterable[int]) -> None:
    """Raise InstallRefused for a port on which somebody else listens."""
    known = set(ours)
    wanted = list(ports)
    if wanted[-1] > HIGHEST:
        raise InstallRefused(
            f"PORT={wanted[0]}: {len(wanted)} ports are needed from there, and"
            f" {HIGHEST} is the last: choose another first port,"
            f" PORT={_offer(1024, len(wanted))}"
        )
    for port in wanted:
        if port not in known and not _is_free(port):
            raise InstallRefused(
                f"port {port} of 127.0.0.1 is in use: choose another first port,"
                f" PORT={_offer(wanted[0], len(wanted))} (all {len(wanted)} from there"
                " are free)"
            )


def wait_for_ports(ports: range) -> None:
    """Return when Postfix answers on all of these; raises InstallFailed."""

    def up() -> bool:
        return all(postconf.answers("127.0.0.1", port) for port in ports)

    wait(up, f"Postfix answers on 127.0.0.1: {ports}")


def probe(directory: str, store: str) -> bool:
    """Send a message to nobody through Postfix; tell whether it reached the store.

    It is addressed to a domain that cannot exist (RFC 2606) and that transport_maps
    sends to discard(8).
    """
    name = f"probe-{secrets.token_hex(8)}"
    text = (
        f"From: <{name}@{PROBE_DOMAIN}>\nTo: <{name}@{PROBE_DOMAIN}>\n"
        "Subject: postfix_archive: the probe of an installation\n\n"
        "This message was sent to see whether the archive works. It goes to nobody.\n"
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
        wait(arrived, "the probe in the store")
    except InstallFailed:
        return False
    return True


def wait(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition is true; raise InstallFailed if it never is."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise InstallFailed(f"never came: {what}; see Postfix's log")
        time.sleep(0.1)


def _offer(taken: int, count: int) -> int:
    """Return the first of so many free ports, in steps of a hundred from taken on."""
    last = HIGHEST - count
    for offer in chain(range(taken + 100, last, 100), range(1126, last, 100)):
        if all(_is_free(offer + each) for each in range(count)):
            return offer
    raise InstallRefused(f"there are no {count} free ports in a row on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
