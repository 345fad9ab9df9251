"""Keeps mail from dying in Postfix's queue: takes capsules out, holds originals.

Used by the command ``postfix-archive rescue``. A capsule is put on hold, written into
the fallback directory, and only then deleted from the queue; a crash between two steps
leaves it on hold, where the next rescue finds it. Which originals were put on hold
stands in archive.held beside main.cf: nobody else's are ever released.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from postfix_archive.back import (
    acting,
    fallback,
    mailq,
    postconf,
    program,
    spool,
)
from postfix_archive.core import doors, rescuing, ways
from postfix_archive.core.configuration import DAY, Configuration
from postfix_archive.core.errors import (
    ArchiveError,
    CapsuleBroken,
    PostfixCommandFailed,
    StoreFailed,
)
from postfix_archive.core.observed import Waiting
from postfix_archive.core.rescuing import Lifetimes, Plan
from postfix_archive.core.settings import Settings

NAME = "archive.held"
RESCUED = "rescued"  # in the fallback directory: when the last one was
PORTS = ("archive_handback_address", "archive_capsule_address")


def lifetimes(found: Configuration, settings: Settings) -> Lifetimes:
    """Return how long Postfix keeps what waits for us."""
    return Lifetimes(
        maximal=found.seconds("maximal_queue_lifetime", plain=DAY) or 5 * DAY,
        bounce=found.seconds("bounce_queue_lifetime", plain=DAY) or 5 * DAY,
        rescue_after=settings.archive_rescue_after,
    )


def planned(directory: str, settings: Settings) -> Plan:
    """Return what a rescue would do now, and what waits too long."""
    found = postconf.read(directory)
    waiting = mailq.queued(directory)
    return rescuing.plan(
        waiting,
        lifetimes(found, settings),
        held(directory),
        works=trouble(found, settings) == "",
    )


def trouble(found: Configuration, settings: Settings) -> str:
    """Return why the stamp filter could not run just now, "" if it could.

    Runs it as its user on a message to nobody, for which it does nothing.
    """
    for each in found.services:
        if doors.is_worker(each) or doors.is_door(each) and each.name != "archive":
            launcher = str(Path(each.argument("argv")).with_name(ways.STAMP))
            said = _tried(launcher, each.argument("user"), found.directory)
            if said:
                return said
    for name in PORTS:
        host, port = getattr(settings, name)
        if not postconf.answers(host, port):
            return f"nobody answers on {host}:{port}"
    return ""


def take(directory: str, settings: Settings, wanted: Iterable[Waiting]) -> list[str]:
    """Take capsules out of the queue; return the ids of those that are safe now.

    Raises StoreFailed if the fallback directory cannot take them: they are given back
    to the queue, where they wait on.
    """
    asked = {each.queue_id: each for each in wanted}
    for each in asked:
        postconf.run(directory, "postsuper", "-h", each)
    done = []
    for one in mailq.queued(directory):
        # What hold has now has no other's id: only so may it be deleted by id.
        if one.queue != "hold" or not rescuing.is_capsule(one):
            continue
        try:
            _keep(directory, settings, one)
        except ArchiveError:
            postconf.run(directory, "postsuper", "-H", one.queue_id, "hold")
            raise
        postconf.run(directory, "postsuper", "-d", one.queue_id, "hold")
        done.append(one.queue_id)
    return done


def hold(directory: str, wanted: Iterable[Waiting], now: str) -> None:
    """Put originals on hold, and note that it was us; now as RFC 3339 writes it."""
    noted = {**held(directory), **{each.queue_id: now for each in wanted}}
    _write(directory, noted)
    for each in wanted:
        postconf.run(directory, "postsuper", "-h", each.queue_id)


def release(directory: str, wanted: Iterable[Waiting]) -> None:
    """Give originals that a rescue has held back to the queue."""
    noted = held(directory)
    for queue_id, name in rescuing.noted_as(wanted, noted).items():
        postconf.run(directory, "postsuper", "-H", queue_id)
        noted.pop(name, None)
    _write(directory, noted)


def forget(directory: str, gone: Iterable[str]) -> None:
    """Forget that a rescue has held these: somebody else has released them."""
    noted = held(directory)
    _write(directory, {k: v for k, v in noted.items() if k not in gone})


def renew(directory: str, wanted: Iterable[Waiting]) -> None:
    """Requeue mailed copies, so that their lifetime begins anew."""
    for each in wanted:
        postconf.run(directory, "postsuper", "-r", each.queue_id)


def note(settings: Settings) -> None:
    """Note in the fallback directory that a rescue has been; failing is no failure."""
    acting.note(settings.archive_fallback_directory, RESCUED)


def age(settings: Settings, now: float) -> float | None:
    """Return how many seconds ago (or ahead) the last rescue was, None if never."""
    try:
        path = f"{settings.archive_fallback_directory}/{RESCUED}"
        noted = os.lstat(path).st_mtime
    except OSError:
        return None
    return abs(now - noted)


def held(directory: str) -> dict[str, str]:
    """Return the originals that a rescue has put on hold, and since when."""
    try:
        found = json.loads(Path(directory, NAME).read_text())
        if not isinstance(found, dict) or not {*map(type, found.values())} <= {str}:
            raise ValueError("not a time for each queue id")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as problem:
        raise PostfixCommandFailed(
            f"{directory}/{NAME} cannot be read: {problem}; it says which messages a"
            " rescue has put on hold: release those with postsuper -H, then remove it"
        ) from problem
    return found


def _keep(directory: str, settings: Settings, one: Waiting) -> None:
    """Write a capsule that is on hold into the fallback directory."""
    words = [postconf.program("postcat"), "-c", directory, "-bhq", one.queue_id]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        place = settings.archive_spool_directory
        message = spool.read(running.stdout.fileno(), place)
    if running.returncode or not message.size:
        raise PostfixCommandFailed(f"postcat could not read queue id {one.queue_id}")
    with contextlib.suppress(CapsuleBroken):  # one that was altered is kept as it is
        message = spool.unpacked(message, place)
    folder = settings.archive_fallback_directory
    with acting.as_owner(folder):
        fallback.put(folder, message, one.reason)
    message.close()


def _tried(launcher: str, user: str, directory: str) -> str:
    name, _, group = user.partition(":")
    nobody = ["--config-directory", directory, "--nexthop", "on-request"]
    nobody += ["--queue-id", "CHECK", "--sender", "", "--"]
    try:
        done = subprocess.run(
            [launcher, *nobody],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            user=name if not os.geteuid() else None,
            group=(group or _group_of(name)) if not os.geteuid() else None,
            extra_groups=[] if not os.geteuid() else None,
            timeout=postconf.SECONDS,
            check=False,
        )
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as problem:
        return f"{launcher}: {problem}"
    if done.returncode:
        said = " ".join((done.stdout or done.stderr).split())[:300]
        return said or f"{launcher}: exit code {done.returncode}"
    return ""


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _write(directory: str, noted: dict[str, str]) -> None:
    path = Path(directory, NAME)
    try:
        if noted:
            program.replace(path, json.dumps(noted, indent=1) + "\n", 0o644)
        else:
            path.unlink(missing_ok=True)
    except OSError as problem:
        raise StoreFailed(f"{path}: {problem.strerror}") from problem
