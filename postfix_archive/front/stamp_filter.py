"""The stamp filter (transport archive-stamp): captures a message and reinjects it.

Called by intake/pipe and intake/lmtp_worker, as the first content filter. The order of
the steps keeps mail safe: first Postfix accepts the envelope on the reinjection port;
then the store gets the archive copy (stamp_filter/write_through), or Postfix's queue
the capsule; last Postfix gets the original with its stamps. Any failure defers, and a
retry repeats the steps that are not done.
"""

from __future__ import annotations

from postfix_archive.back import config, handback
from postfix_archive.core import capsule, filtering, packing, request, wire
from postfix_archive.core.envelope import Recipient
from postfix_archive.core.errors import (
    HandBackRefused,
    HandBackUnreachable,
    NotAtOnce,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.core.filtering import Plan, Reading, Task
    from postfix_archive.front.pipe import Run


def door(run: Run) -> str:
    """Capture one message and reinject it; return the line for Postfix's log."""
    if request.is_capsule(run.recipients):
        return _send_on(run)
    head = run.message.head()
    task = _task(run)
    owner = config.user_id
    reading = filtering.Reading(head, task, run.settings, run.keys, owner=owner)
    digests = run.message.digests(reading.offsets)
    if filtering.is_own_copy(task, reading, digests, run.keys):
        return _copy_sent_on(run, task)
    plan = filtering.plan(
        task,
        reading,
        digests,
        run.message.size,
        run.settings,
        run.keys,
        now=run.now,
    )
    if not task.people:
        return _line(filtering.remarks(task), _captured(run, plan))
    back = _asked(run, task, reading, head)
    captured = _captured(run, plan)
    queued = _handed_back(back, run, task, plan)
    return _line(filtering.remarks(task), captured, f"queued as {queued}")


def _task(run: Run) -> Task:
    return filtering.Task(
        nexthop=run.macros[b"nexthop"].decode("utf-8", "replace"),
        queue_id=run.macros[b"queue-id"],
        sender=run.macros[b"sender"],
        recipients=run.recipients,
        client=run.client,
        envid=run.macros[b"envid"],
        keys=run.keys,
        ret=run.ret,
        smtputf8=run.smtputf8,
        local=run.local,
    )


def _asked(
    run: Run, task: Task, reading: Reading, head: bytes
) -> handback.Session | None:
    """Send MAIL and every RCPT; return the session, None if SMTP cannot carry them.

    In that case the session is closed: it would occupy a cleanup(8) process that QMQP
    may need.
    """
    port = run.port(b"handback-address")
    back = run.line.take(port)
    try:
        possible = _is_possible(back, run, task, reading, head)
    except (HandBackUnreachable, HandBackRefused):
        back.close()
        if back.is_fresh:
            raise
        back = handback.Session(port)  # Postfix has just closed the cached connection
        possible = _is_possible(back, run, task, reading, head)
    if possible:
        return back
    back.close()
    return None


def _is_possible(
    back: handback.Session, run: Run, task: Task, reading: Reading, head: bytes
) -> bool:
    local = task.local
    if local is None:
        local = filtering.is_local(task.client, run.settings.archive_local_clients)
    back.forward(task.client, task.queue_id, local=local)
    return back.ask(
        task.sender,
        task.people,
        smtputf8=filtering.needs_smtputf8(task, reading, head),
        eightbit=filtering.came_as_eightbit(task, run.message.shape()),
        envid=task.envid,
        ret=task.ret,
    )


def _captured(run: Run, plan: Plan) -> str:
    """Store the archive copy, or queue the capsule, if there are requests.

    Durable on return. Returns the result for the log line, "" without requests.
    """
    if plan.envelope is None:
        return ""
    named = f"archived as {plan.envelope.archive_id}"
    if run.settings.writes_through:
        try:
            return _line(run.through.archived(run, plan.envelope), f"{named}, stored")
        except NotAtOnce as reason:
            named = f"{named}, queued: {reason}"
    preamble = capsule.preamble(
        plan.envelope, run.keys, sender=run.settings.archive_from, now=run.now
    )
    _submit(run, packing.packed(preamble, run.message.pieces()))
    return named


def _handed_back(
    back: handback.Session | None, run: Run, task: Task, plan: Plan
) -> str:
    """Reinject the original with its stamps; return the new queue id."""

    def stamped() -> Iterable[bytes]:
        return wire.chained((plan.stamps,), run.message.pieces())

    if back is not None:
        queue_id = back.give(stamped())
        run.line.done(back)
        return queue_id
    from postfix_archive.back import qmqp  # rarely needed

    port = run.port(b"refused-address")
    return qmqp.give(port, task.sender, task.people, stamped)


def _send_on(run: Run) -> str:
    """Queue a capsule again for the archive transport, after postsuper -r."""
    head = run.message.head(limit=2 * capsule.FIELDS_LIMIT)
    plain = b"".join(packing.unpacked((head,))) if packing.is_packed(head) else head
    archive_id = capsule.opened(plain, run.keys).envelope.archive_id
    queued = _submit(run, run.message.pieces())
    return f"capsule of {archive_id}, requeued; queued as {queued}"


def _copy_sent_on(run: Run, task: Task) -> str:
    """Send an archive copy to its archive address again, after postsuper -r."""
    queue_id = handback.submit(
        run.settings.copy_port,
        task.sender,
        task.people,
        run.message.pieces(),
        eightbit=not run.message.shape().ascii,
    )
    return f"archive copy, requeued; queued as {queue_id}"


def _submit(run: Run, content: Iterable[bytes]) -> str:
    """Queue a capsule for the archive transport; return the queue id."""
    port = run.settings.archive_capsule_address
    to = (Recipient(request.CAPSULE),)
    return handback.submit(port, b"", to, content, eightbit=True, notify=b"NEVER")


def _line(*said: str) -> str:
    """Join the parts of a log line, alarms first: pipe(8) logs 100 characters."""
    return "; ".join(each for each in said if each)
