"""What an installation needs of the host besides Postfix: user, folders, ports, queue.

Used by front/install. Foreign errors leave as InstallRefused or InstallFailed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from postfix_archive.back import postconf
from postfix_archive.core.errors import InstallFailed, InstallRefused

PATIENCE = 120.0  # seconds until a condition that should come counts as never coming
TRANSPORTS = ("archive-stamp", "archive:")
PROBE_DOMAIN = "archive-probe.invalid"


def user_made(name: str, home: str) -> bool:
    """Make the system user of the archive services; False if there is one already."""
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        return False
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", home, "--shell", "/usr/sbin/nologin", name]
    if shutil.which("useradd") is None:
        raise InstallRefused(
            f"there is no useradd here: make the system user {name} yourself, with a"
            " group of its own, not in group postdrop"
        )
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


def refuse_taken(ports: Iterable[int], ours: Iterable[int]) -> None:
    """Raise InstallRefused for a port on which somebody else listens."""
    known = set(ours)
    wanted = list(ports)
    for port in wanted:
        if port not in known and not _is_free(port):
            offer = wanted[0] + 100
            while not all(_is_free(offer + each) for each in range(len(wanted))):
                offer += 100
            raise InstallRefused(
                f"port {port} of 127.0.0.1 is in use: choose another first port,"
                f" PORT={offer} (all {len(wanted)} from there are free)"
            )


def wait_for_ports(ports: range) -> None:
    """Return when Postfix answers on all of these; raises InstallFailed."""
    wait(lambda: all(map(_answers, ports)), f"Postfix answers on 127.0.0.1: {ports}")


def waiting(directory: str) -> list[str]:
    """Return the ids of queue files that go to a transport of ours."""
    found = []
    for line in postconf.run(directory, "postqueue", "-j").splitlines():
        queue_id = str(json.loads(line)["queue_id"])
        try:
            told = postconf.run(directory, "postcat", "-e", "-q", queue_id)
        except Exception:  # noqa: B902 - it has left the queue meanwhile
            continue
        filters = [w for w in told.splitlines() if w.startswith("content_filter:")]
        ours = any(w.split(":", 1)[1].strip().startswith(TRANSPORTS) for w in filters)
        if ours or "@archive-request.invalid" in told:
            found.append(queue_id)
    return found


def drain(directory: str) -> list[str]:
    """Flush the queue until nothing in it needs us; return what still does."""
    left = waiting(directory)
    end = time.monotonic() + PATIENCE
    while left and time.monotonic() < end:
        postconf.run(directory, "postqueue", "-f")
        time.sleep(0.5)
        left = waiting(directory)
    return left


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


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False
