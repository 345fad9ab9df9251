"""Save queued mail before Postfix expires it: move capsules out, hold originals.

Used by ``postfix-archive rescue``, status and doctor. A rescue puts a capsule on hold,
writes it to the fallback directory, and only then deletes it from the queue; after a
crash between two steps it is on hold, where the next rescue finds it. The file
archive.held beside main.cf records the originals that a rescue put on hold; only these
are released. Raises PostfixCommandFailed and StoreFailed.
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
RESCUED = "rescued"  # in the fallback directory; its mtime is the last rescue's time
PORTS = ("archive_handback_address", "archive_capsule_address")


def lifetimes(found: Configuration, settings: Settings) -> Lifetimes:
    """Return how long Postfix keeps queued mail and a rescue leaves capsules."""
    return Lifetimes(
        maximal=found.seconds("maximal_queue_lifetime", plain=DAY) or 5 * DAY,
        bounce=found.seconds("bounce_queue_lifetime", plain=DAY) or 5 * DAY,
        rescue_after=settings.archive_rescue_after,
    )


def planned(directory: str, settings: Settings) -> Plan:
    """Return what a rescue has to do now, and the messages that wait too long."""
    found = postconf.read(directory)
    waiting = mailq.queued(directory)
    return rescuing.plan(
        waiting,
        lifetimes(found, settings),
        held(directory),
        works=trouble(found, settings) == "",
    )


def trouble(found: Configuration, settings: Settings) -> str:
    """Return why the stamp filter cannot run now, "" if it can.

    Starts each launcher as its user for a message without recipients, which the filter
    accepts and drops, and connects to its SMTP ports.
    """
    for each in found.services:
        if doors.is_worker(each) or doors.is_door(each) and each.name != "archive":
            launcher = str(Path(each.argument("argv")).with_name(ways.STAMP))
            error = _tried(launcher, each.argument("user"), found.directory)
            if error:
                return error
    for name in PORTS:
        host, port = getattr(settings, name)
        if not postconf.answers(host, port):
            return (
                f"connect to {host}:{port}: no answer; check {name} in archive.cf and"
                " master.cf"
            )
    return ""


def take(directory: str, settings: Settings, wanted: Iterable[Waiting]) -> list[str]:
    """Move capsules from the queue to the fallback directory; return their queue ids.

    Raises StoreFailed if that directory does not take one; the capsule is released and
    stays in the queue then.
    """
    for queue_id in dict.fromkeys(each.queue_id for each in wanted):
        postconf.run(directory, "postsuper", "-h", queue_id)
    saved = []
    for one in mailq.queued(directory):
        # Postfix can reuse a short queue id once the message has left the queue. A
        # message on hold does not leave: its id is safe to delete.
        if one.queue != "hold" or not rescuing.is_capsule(one):
            continue
        try:
            _keep(directory, settings, one)
        except ArchiveError:
            postconf.run(directory, "postsuper", "-H", one.queue_id, "hold")
            raise
        postconf.run(directory, "postsuper", "-d", one.queue_id, "hold")
        saved.append(one.queue_id)
    return saved


def hold(directory: str, wanted: Iterable[Waiting], now: str) -> None:
    """Put originals on hold and record that; now is in the form of RFC 3339."""
    noted = {**held(directory), **{each.queue_id: now for each in wanted}}
    _write(directory, noted)
    for message in wanted:
        postconf.run(directory, "postsuper", "-h", message.queue_id)


def release(directory: str, wanted: Iterable[Waiting]) -> None:
    """Release originals that a rescue put on hold."""
    noted = held(directory)
    for queue_id, recorded in rescuing.noted_as(wanted, noted).items():
        postconf.run(directory, "postsuper", "-H", queue_id)
        noted.pop(recorded, None)
    _write(directory, noted)


def forget(directory: str, gone: Iterable[str]) -> None:
    """Remove queue ids from the record: an admin released or deleted these messages."""
    noted = held(directory)
    _write(directory, {k: v for k, v in noted.items() if k not in gone})


def renew(directory: str, wanted: Iterable[Waiting]) -> None:
    """Requeue mailed copies: postsuper -r resets their age."""
    for each in wanted:
        postconf.run(directory, "postsuper", "-r", each.queue_id)


def note(settings: Settings) -> None:
    """Record the time of this rescue in the fallback directory; ignores errors."""
    acting.note(settings.archive_fallback_directory, RESCUED)


def age(settings: Settings, now: float) -> float | None:
    """Return the seconds between now and the last rescue, None if there was none.

    A last rescue in the future, after the clock was set back, counts by its distance.
    """
    try:
        path = f"{settings.archive_fallback_directory}/{RESCUED}"
        last = os.lstat(path).st_mtime
    except OSError:
        return None
    return abs(now - last)


def held(directory: str) -> dict[str, str]:
    """Return queue id -> time of the hold (RFC 3339) of originals held by a rescue."""
    try:
        times = json.loads(Path(directory, NAME).read_text())
        if not isinstance(times, dict) or not {*map(type, times.values())} <= {str}:
            raise ValueError("not a JSON object of queue ids and times")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as problem:
        raise PostfixCommandFailed(
            f"read {directory}/{NAME}: {problem}; the file lists messages that a rescue"
            " put on hold: release them with postsuper -H, then delete the file"
        ) from problem
    return times


def _keep(directory: str, settings: Settings, one: Waiting) -> None:
    """Write a capsule that is on hold to the fallback directory, durably."""
    command = [postconf.program("postcat"), "-c", directory, "-bhq", one.queue_id]
    spool_directory = settings.archive_spool_directory
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        message = spool.read(process.stdout.fileno(), spool_directory)
    if process.returncode or not message.size:
        raise PostfixCommandFailed(
            f"postcat -q {one.queue_id} failed (exit code {process.returncode},"
            f" {message.size} bytes); see Postfix's log"
        )
    with contextlib.suppress(CapsuleBroken):  # an altered capsule is kept as it is
        message = spool.unpacked(message, spool_directory)
    folder = settings.archive_fallback_directory
    with acting.as_owner(folder):
        fallback.put(folder, message, one.reason)
    message.close()


def _tried(launcher: str, user: str, directory: str) -> str:
    """Run a launcher for a message without recipients; return its error, "" if none."""
    name, _, group = user.partition(":")
    arguments = ["--config-directory", directory, "--nexthop", "on-request"]
    arguments += ["--queue-id", "CHECK", "--sender", "", "--"]
    try:
        process = subprocess.run(
            [launcher, *arguments],
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
    if process.returncode:
        output = " ".join((process.stdout or process.stderr).split())[:300]
        return output or f"{launcher}: exit code {process.returncode}"
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
        raise StoreFailed(f"write {path}: {problem.strerror}") from problem
