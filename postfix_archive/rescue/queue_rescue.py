"""Save queued mail before Postfix expires it: move capsules out, hold originals.

Used by ``postfix-archive queue rescue``, status and doctor. A rescue puts a capsule on
hold, writes it to the fallback directory, and only then deletes it from the queue;
after a crash between two steps it is on hold, where the next rescue finds it. In native
mode the message itself is such a capsule, once only the archive waits for it. The file
archive.held beside main.cf records the originals that a rescue put on hold; only these
are released. Raises PostfixCommandFailed and StoreFailed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    CapsuleBroken,
    PostfixCommandFailed,
)
from postfix_archive.postfix import (
    archive_services,
    mail_queue,
    postfix_command,
    queue_file_size,
)
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.rescue import rescue_plan
from postfix_archive.rescue.rescue_plan import Lifetimes, RescuePlan
from postfix_archive.store import fallback
from postfix_archive.system import failure_log, files, privileges, spool
from postfix_archive.system.spool import Spool

# stamp_filter/queued_capture: from a message, the attributes of its queue file and its
# content, the capsule; None if no archive is asked for.
MakeCapsule = Callable[[QueuedMessage, dict[str, str], Spool], Spool | None]
HOLD_FILE = "archive.held"
LAST_RUN_FILE = (  # in the fallback directory; its mtime is the last rescue's time
    "rescued"
)
CHECK_MESSAGE = "Subject: check\n\n"  # to no recipient
PORT_SETTINGS = ("archive_handback_address", "archive_capsule_address")


def lifetimes(config: Configuration, settings: Settings) -> Lifetimes:
    """Return how long Postfix keeps queued mail and a rescue leaves capsules."""
    return Lifetimes(
        maximal=config.queue_lifetime("maximal_queue_lifetime"),
        bounce=config.queue_lifetime("bounce_queue_lifetime"),
        rescue_after=settings.archive_rescue_after,
    )


def lock(directory: str) -> int:
    """Lock this queue for one rescue at a time: return the descriptor, -1 if locked.

    The lock is on the queue directory hold, which root and mail_owner alone can open.
    """
    [queue_directory] = postfix_command.run(
        directory, "postconf", "-xh", "queue_directory"
    ).splitlines()
    return privileges.try_lock_directory(f"{queue_directory}/hold")


def make_plan(directory: str, settings: Settings) -> RescuePlan:
    """Return what a rescue has to do now, and the messages that wait too long."""
    config = postfix_command.read_configuration(directory)
    messages = mail_queue.list_messages(directory)
    return rescue_plan.plan_rescue(
        messages,
        lifetimes(config, settings),
        read_hold_times(directory),
        can_filter_run=filter_error(config, settings) == "",
    )


def filter_error(config: Configuration, settings: Settings) -> str:
    """Return why the stamp filter cannot run now, "" if it can.

    Starts each launcher as its user for a message without recipients, which the filter
    accepts and drops, and connects to its SMTP ports.
    """
    for service in config.services:
        if (
            archive_services.is_worker_service(service)
            or archive_services.is_pipe_service(service)
            and service.name != "archive"
        ):
            launcher = str(
                Path(service.argument("argv")).with_name(
                    archive_services.STAMP_TRANSPORT
                )
            )
            error = _launcher_error(launcher, service.argument("user"), settings)
            if error:
                return error
    for name in PORT_SETTINGS:
        host, port = getattr(settings, name)
        if not postfix_command.is_listening(host, port):
            return (
                f"connect to {host}:{port}: no answer; check {name} in archive.cf and"
                " master.cf"
            )
    return ""


def move_capsules(
    directory: str,
    settings: Settings,
    capsules: Iterable[QueuedMessage],
    make_capsule: MakeCapsule,
) -> list[str]:
    """Move capsules from the queue to the fallback directory; return their queue ids.

    make_capsule makes those of native mode. Raises StoreFailed if that directory does
    not take one; this capsule and those after it stay in the queue then. Those that
    expire soon stay on hold, where the next rescue finds them: Postfix would delete
    them at the next failure. The others are released.
    """
    ids = (each.queue_id for each in capsules)
    mail_queue.change(directory, mail_queue.HOLD, ids)
    # Postfix can reuse a short queue id once the message has left the queue. A message
    # on hold does not leave: its id is safe to delete.
    on_hold = [
        each
        for each in mail_queue.list_messages(directory)
        if each.queue == "hold" and rescue_plan.is_movable(each)
    ]
    saved: list[str] = []
    try:
        for capsule in on_hold:
            _save(directory, settings, capsule, make_capsule)
            saved.append(capsule.queue_id)
    finally:
        mail_queue.change(directory, mail_queue.DELETE, saved, "hold")
        if left := on_hold[len(saved) :]:
            config = postfix_command.read_configuration(directory)
            is_expiring = lifetimes(config, settings).is_expiring
            ids = (each.queue_id for each in left if not is_expiring(each))
            mail_queue.change(directory, mail_queue.RELEASE, ids, "hold")
    return saved


def save_captures(
    directory: str,
    settings: Settings,
    captures: Iterable[QueuedMessage],
    make_capsule: MakeCapsule,
) -> list[str]:
    """Write the capsules of messages that stay in the queue; return their queue ids.

    A later rescue writes the same capsules again, to the same files. Raises StoreFailed
    and PostfixCommandFailed.
    """
    saved = []
    for each in captures:
        _save(directory, settings, each, make_capsule)
        saved.append(each.queue_id)
    return saved


def hold(directory: str, originals: Iterable[QueuedMessage], now: str) -> None:
    """Put originals on hold and record that; now is in the form of RFC 3339."""
    ids = [each.queue_id for each in originals]
    hold_times = read_hold_times(directory) | dict.fromkeys(ids, now)
    _write_hold_times(directory, hold_times)
    mail_queue.change(directory, mail_queue.HOLD, ids)


def release(directory: str, originals: Iterable[QueuedMessage]) -> None:
    """Release originals that a rescue put on hold."""
    hold_times = read_hold_times(directory)
    recorded_ids = rescue_plan.match_held(originals, hold_times)
    mail_queue.change(directory, mail_queue.RELEASE, recorded_ids)
    for recorded in recorded_ids.values():
        hold_times.pop(recorded, None)
    _write_hold_times(directory, hold_times)


def forget(directory: str, queue_ids: Iterable[str]) -> None:
    """Remove queue ids from the record: an admin released or deleted these messages."""
    forgotten = set(queue_ids)
    hold_times = read_hold_times(directory)
    _write_hold_times(
        directory, {k: v for k, v in hold_times.items() if k not in forgotten}
    )


def requeue(directory: str, copies: Iterable[QueuedMessage]) -> None:
    """Requeue mailed copies: postsuper -r resets their age."""
    ids = (each.queue_id for each in copies)
    mail_queue.change(directory, mail_queue.REQUEUE, ids)


def record_run(settings: Settings) -> None:
    """Record the time of this rescue in the fallback directory; ignores errors."""
    privileges.touch(settings.archive_fallback_directory, LAST_RUN_FILE)


def last_run_age(settings: Settings, now: float) -> float | None:
    """Return the seconds between now and the last rescue, None if there was none.

    A last rescue in the future, after the clock was set back, counts by its distance.
    """
    path = f"{settings.archive_fallback_directory}/{LAST_RUN_FILE}"
    last = files.modified_time(path)
    return None if last is None else abs(now - last)


def read_hold_times(directory: str) -> dict[str, str]:
    """Return queue id -> time of the hold (RFC 3339) of originals held by a rescue."""
    try:
        hold_times = json.loads(Path(directory, HOLD_FILE).read_text())
        if not isinstance(hold_times, dict) or not {
            *map(type, hold_times.values())
        } <= {str}:
            raise ValueError("not a JSON object of queue ids and times")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise PostfixCommandFailed(
            f"read {directory}/{HOLD_FILE}: {error}; the file lists messages that a"
            " rescue put on hold: release them with postsuper -H, then delete the file"
        ) from error
    return hold_times


def _save(
    directory: str,
    settings: Settings,
    message: QueuedMessage,
    make_capsule: MakeCapsule,
) -> None:
    """Write a capsule, or that of a capture, to the fallback directory, durably."""
    spool_directory = settings.archive_spool_directory
    content = _read_content(directory, message.queue_id, spool_directory)
    if rescue_plan.is_capture(message):
        attributes = mail_queue.attributes(directory, message.queue_id)
        packed = make_capsule(message, attributes, content)
        content.close()
        if packed is None:  # its capture recipients are forged: there is no request
            return
        content = packed
    else:
        with contextlib.suppress(CapsuleBroken):  # an altered capsule is kept as it is
            content = spool.unpack(content, spool_directory)
    fallback_directory = settings.archive_fallback_directory
    with privileges.as_owner(fallback_directory):
        last_failure = failure_log.last(
            directory, spool_directory, owner_of=settings.own_paths
        )
        reason = failure_log.explain(message.delay_reason, last_failure)
        fallback.put(fallback_directory, content, reason)
    content.close()


def _read_content(directory: str, queue_id: str, spool_directory: str) -> Spool:
    command = [
        postfix_command.find_command("postcat"),
        "-c",
        directory,
        "-bhq",
        queue_id,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        content = spool.read(process.stdout.fileno(), spool_directory)
    if process.returncode or not content.size:
        raise PostfixCommandFailed(
            f"postcat -q {queue_id} failed (exit code {process.returncode},"
            f" {content.size} bytes); see Postfix's log"
        )
    return content


def _launcher_error(launcher: str, user: str, settings: Settings) -> str:
    """Run a launcher for a message without recipients; return its error, "" if none."""
    directory = settings.config_directory
    canonical = CHECK_MESSAGE.replace("\n", "\r\n")
    size = queue_file_size.content_size([canonical.encode()])[0]
    arguments = ["--config-directory", directory, "--nexthop", "on-request"]
    arguments += ["--queue-id", "CHECK", "--size", str(size), "--sender", "", "--"]
    try:
        process = privileges.run_as(
            user,
            [launcher, *arguments],
            postfix_command.COMMAND_TIMEOUT,
            text=CHECK_MESSAGE,
        )
    except (OSError, ValueError, KeyError) as error:
        return f"{launcher}: {error}"
    if process.returncode:
        output = " ".join((process.stdout or process.stderr).split())[:300]
        last_failure = failure_log.last(
            directory,
            settings.archive_spool_directory,
            owner_of=settings.own_paths,
        )
        output = failure_log.explain(output, last_failure)
        return output or f"{launcher}: exit code {process.returncode}"
    return ""


def _write_hold_times(directory: str, hold_times: dict[str, str]) -> None:
    path = f"{directory}/{HOLD_FILE}"
    if hold_times:
        text = json.dumps(hold_times, indent=1) + "\n"
        files.replace(path, text.encode(), 0o644)
        return
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise files.store_error(path, error) from error
