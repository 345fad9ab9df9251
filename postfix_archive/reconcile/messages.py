"""The messages that Postfix accepted, as groups of queue files in the mail log.

Used by reconcile/log_scan and classified by reconcile/causes. One message can have
several queue files, one after the other: the one in which it arrived, the one that the
stamp filter reinjected, the one that another content filter reinjected, and the one
after postsuper -r. maillog.queue_model has their links; this module adds what only
reconcile assumes: a content filter that says nothing reinjects the mail of this host
with the same Message-ID, and a reinjection that no stamp filter reports is a message of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postfix_archive.maillog import delivery, queue_file
from postfix_archive.maillog.queue_file import QueueFile
from postfix_archive.maillog.queue_model import QueueModel

DELETED = "deleted"  # by postsuper -d
EXPIRED = "expired"
# Messages with one Message-ID that a content filter may have reinjected.
MAX_SAME_MESSAGE_ID = 50
Group = dict[str, QueueFile]  # the queue files of one message by key, the first first


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message, identified by the queue file in which it arrived.

    ``time`` is when it arrived and ``queued_time`` when it entered the queue last
    (postsuper -r requeues it), both in seconds since 1970. ``service`` (syslog_name),
    ``daemon`` and ``pid`` are those of the process that received it. ``archive_ids``
    are those that the stamp filter reported.
    """

    queue_id: str
    time: float
    service: str
    daemon: str
    pid: str
    client: str = ""  # IP address, or uid=N for sendmail(1)
    queued_time: float = 0.0
    sender: str = ""
    recipient_count: int = 0
    is_accepted: bool = False  # qmgr(8) has seen it, or a DISCARD rule matched
    is_reinjected: bool = False  # it arrived at a reinjection service
    is_second_reinjection: bool = False  # of a message that was captured afterwards
    orig_queue_id: str = ""  # orig_queue_id= as the client gave it (XFORWARD IDENT)
    archive_ids: tuple[str, ...] = ()
    is_stamped: bool = False  # a stamp filter has reinjected it
    has_failed_capture: bool = False  # a delivery to the stamp filter failed
    is_content_filtered: bool = False  # sent to another content filter
    action_text: str = ""  # log text of a FILTER or REDIRECT action
    discard_text: str = ""  # log text of a DISCARD action
    end: str = ""  # DELETED or EXPIRED, before it was archived
    relay: str = ""  # relay= of its first delivery other than to a stamp filter
    has_left_queue: bool = False  # no queue file holds it any more
    current_queue_id: str = ""  # of the queue file that holds it


def group_of(model: QueueModel, file: QueueFile) -> Group:
    """Return the queue files of the message that a queue file belongs to."""
    group = _linked_files(model, file)
    if not file.message_id:
        return group
    if any(each.is_content_filtered for each in group.values()):
        return _with_same_message_id(model, group)
    same = model.queue_files.find_by_message_id(file.message_id)
    if not _can_be_reinjected(model, same, next(iter(group.values()))):
        return group
    for other in same:
        if other.is_content_filtered and other.key not in group:
            candidate = _with_same_message_id(model, _linked_files(model, other))
            if file.key in candidate:
                return candidate
    return group


def is_claim_pending(model: QueueModel, group: Group) -> bool:
    """Return whether a stamp filter may still log that it reinjected this message."""
    first = _first(group)
    if not model.can_be_reported(first):
        return False
    original = model.queue_files.current(first.orig_queue_id)
    if original is None or not is_message(original):
        return False
    return not has_left_queue(model, _linked_files(model, original))


def has_left_queue(model: QueueModel, group: Group) -> bool:
    """Return whether no queue file holds a message any more."""
    return all(_has_ended(model, each) for each in group.values())


def is_message(file: QueueFile) -> bool:
    """Return whether a queue file belongs to mail that Postfix received."""
    return file.daemon != queue_file.CLEANUP and not file.is_archive_mail


def is_from_before(model: QueueModel, group: Group) -> bool:
    """Return whether a message was queued before the log begins."""
    first = _first(group)
    is_requeued = first.daemon == queue_file.PICKUP and first.orig_queue_id != ""
    return not first.is_received or is_requeued or first.is_reported


def to_message(model: QueueModel, group: Group) -> Message:
    """Return what the queue files of a message say about it."""
    files = list(group.values())
    first = files[0]
    requeued = [each for each in files[1:] if each.daemon == queue_file.PICKUP]
    is_stamped = any(each.is_captured for each in files)
    ids = (archive_id for each in files for archive_id in each.archive_ids)
    held = [each.queue_id for each in files if not _has_ended(model, each)]
    return Message(
        queue_id=first.first_queue_id,
        time=first.begun,
        service=first.service,
        daemon=first.daemon,
        pid=first.pid,
        client=first.client,
        queued_time=requeued[-1].begun if requeued else first.begun,
        sender=first.sender,
        recipient_count=first.count,
        is_accepted=any(map(_is_accepted, files))
        and not any(each.is_probe for each in files),
        is_reinjected=first.is_reinjected,
        is_second_reinjection=_is_second_reinjection(model, first),
        orig_queue_id=first.orig_queue_id,
        archive_ids=tuple(dict.fromkeys(ids)),
        is_stamped=is_stamped,
        has_failed_capture=any(
            each.has_failed_capture and each.end != queue_file.REQUEUED
            for each in files
        ),
        is_content_filtered=any(each.is_content_filtered for each in files),
        action_text=next((e.action_text for e in files if e.action_text), ""),
        discard_text=first.discard_text,
        end="" if is_stamped else _end_of(files),
        relay=_relay_of(files),
        has_left_queue=not held,
        current_queue_id=held[-1] if held else "",
    )


def has_unreported_reinjection(model: QueueModel, group: Group) -> bool:
    """Return whether a reinjection that no stamp filter reports names this message."""
    keys = [key for file in group.values() for key in file.children]
    return any(
        child.is_reinjected and not child.is_reported
        for child in model.queue_files.find_by_keys(keys)
    )


def _is_second_reinjection(model: QueueModel, file: QueueFile) -> bool:
    """Return whether a stamp filter reinjected a message that it captured later.

    The filter process was killed, or postsuper -r requeued the message meanwhile, and
    only the last run is reported. The log tells it from mail that a local user sends
    under another's queue id by the time, envelope and Message-ID.
    """
    origin = model.queue_files.by_key.get(file.parent)
    if not file.is_reinjected or file.is_reported:
        return False
    if origin is None or origin.is_reinjected:
        return False
    is_same = (file.sender, file.message_id) == (origin.sender, origin.message_id)
    return (
        is_same
        and file.count == origin.count
        and file.begun <= _captured_at(model, origin)
    )


def _captured_at(model: QueueModel, file: QueueFile) -> float:
    """Return when a stamp filter last reported the capture of a message, 0 if never."""
    reports = [
        entry.at
        for each in _linked_files(model, file).values()
        for entry in each.entries.values()
        if entry.status == "sent" and delivery.is_stamp_filter(entry.relay)
    ]
    return max(reports, default=0.0)


def _first(group: Group) -> QueueFile:
    return next(iter(group.values()))


def _linked_files(model: QueueModel, file: QueueFile) -> Group:
    """Return the queue files that the log's own links connect, the first first."""
    first, seen = file, {file.key}
    while (parent := _continued_file(model, first)) and parent.key not in seen:
        first = parent
        seen.add(first.key)
    group = {first.key: first}
    pending = [first]
    while pending:
        for other in _next_files(model, pending.pop()):
            if other.key not in group:
                group[other.key] = other
                pending.append(other)
    if len(group) > 2:
        return {each.key: each for each in sorted(group.values(), key=_serial)}
    return group


def _continued_file(model: QueueModel, file: QueueFile) -> QueueFile | None:
    """Return the queue file that this one continues, None if it is the first."""
    if not file.parent or file.is_reinjected and not file.is_reported:
        return None
    parent = model.queue_files.by_key.get(file.parent)
    return parent if parent is not None and is_message(parent) else None


def _next_files(model: QueueModel, file: QueueFile) -> Iterator[QueueFile]:
    keys = [*file.children]
    for entry in file.entries.values():
        keys += entry.links
    for other in model.queue_files.find_by_keys(keys):
        is_unreported = other.is_reinjected and not other.is_reported
        if is_message(other) and not is_unreported:
            yield other


def _with_same_message_id(model: QueueModel, group: Group) -> Group:
    """Add the messages that a content filter may have reinjected.

    Some mailers give one Message-ID to all messages that they send: of two that are
    both archived neither is the other.
    """
    group = dict(group)
    is_stamped = any(each.is_captured for each in group.values())
    for message_id in {each.message_id: None for each in group.values()}:
        same = model.queue_files.find_by_message_id(message_id)
        for other in same[: MAX_SAME_MESSAGE_ID + 1]:
            if other.key in group or not _can_be_reinjected(model, same, other):
                continue
            added = _linked_files(model, other)
            is_added_stamped = any(each.is_captured for each in added.values())
            if not (is_stamped and is_added_stamped):
                group |= added
                is_stamped |= is_added_stamped
    return group


def _can_be_reinjected(
    model: QueueModel, same: list[QueueFile], file: QueueFile
) -> bool:
    """Return whether a silent content filter may have reinjected a queue file.

    same are those with its Message-ID.
    """
    is_later = file is not next(filter(is_message, same), None)
    is_from_host = file.is_local and file.is_received and not file.is_reinjected
    return is_later and is_from_host and _continued_file(model, file) is None


def _has_ended(model: QueueModel, file: QueueFile) -> bool:
    """Return whether a queue file is gone, or another one continues it."""
    if file.end != queue_file.REQUEUED:
        return file.end != ""
    children = model.queue_files.find_by_keys(file.children)
    return any(each.daemon == queue_file.PICKUP for each in children)


def _is_accepted(file: QueueFile) -> bool:
    return file.is_queued or file.end == queue_file.DISCARDED


def _end_of(files: list[QueueFile]) -> str:
    for file in files:
        if file.end == queue_file.DELETED:
            return DELETED
        if file.expired:
            return EXPIRED
    return ""


def _relay_of(files: list[QueueFile]) -> str:
    """Return the first relay of a message before it was captured."""
    for file in files:
        if file.relay or file.is_captured:
            return file.relay
    return ""


def _serial(file: QueueFile) -> int:
    return file.serial
