"""The event in a journal line: its keys, its parser, and what makes it valid.

Used by journal_reader, record, tally and whatever reads events. docs/store-format.md
specifies the keys; the names of the events are in journal.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, TypedDict, cast

from postfix_archive.message import address, envelope, received_header
from postfix_archive.store import bypass_period, journal, journal_format, outcome
from postfix_archive.store.outcome import Outcome

if TYPE_CHECKING:
    from postfix_archive.message.envelope import Envelope

# Surrogates except those of surrogateescape (PEP 383), which stand for bytes.
LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


PERMANENT = "permanent"  # as the last day of a period: none
OPTIONAL_OUTCOME_KEYS = "original status remote reply expanded_to parent".split()


class Event(TypedDict, total=False):
    """A valid journal event; which keys it has depends on ``event``."""

    seq: int
    time: str
    event: str
    format: int
    id: str
    capsule: str
    file: str
    file_sha256: str
    details_size: int
    details_sha256: str
    archive: str
    host: str
    segment: str
    sha256: str
    size: int
    stamp: str
    envelope: str
    above: str
    name: str
    query: str
    ids: str
    archives: str
    set: str
    user: str
    uid: int
    login: str
    sudo_user: str
    web_user: str
    person: str
    person_uid: int
    requested_by: str
    requested: str
    approved_by: str
    started: str
    started_by: str
    reason: str
    ended: str
    ended_by: str
    queued_as: str
    covers: str
    recipient: str
    original: str
    outcome: str
    status: str
    remote: str
    reply: str
    at: str
    tries: int
    of: str
    queue_id: str
    expanded_to: str
    parent: str
    copy: str
    local_sha256: str
    bucket: str
    rule: str
    period: str
    until: str
    by: str
    seal: str
    seal_sha256: str
    authorities: str
    prev: str


def parse(line: bytes) -> Event | None:
    """Return the event in a journal line, None for a line torn by a crash.

    A torn line was never acknowledged. An event whose details are struck out has only
    the keys of the first part. Raises ValueError for any other damage.
    """
    line = line.removesuffix(b"\n")
    if not journal_format.is_complete(line):
        if line.startswith(journal_format.LINE_START) or not line.strip():
            return None
        raise ValueError("not a journal line")
    chained, _, details = line.partition(journal_format.TAB)
    is_struck_out = journal_format.is_struck_out(line)
    # As one object both parts cost half as much. The chained one's keys count.
    text = chained if is_struck_out else details[:-1] + b"," + chained[1:]
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not a journal line") from None
    if not isinstance(event, dict) or not (is_struck_out or details.endswith(b"}")):
        raise ValueError("not a journal line")
    event.pop("salt", None)
    is_known = _is_valid_base(event) if is_struck_out else is_valid(event)
    if not is_known or not _is_chained(event):
        raise ValueError("not a journal line")
    return cast(Event, event)


def is_valid(event: object) -> bool:
    """Return whether a JSON value is a valid journal event.

    Unknown events of later versions are valid. Known ones need all their keys.
    """
    if not isinstance(event, dict) or not _is_valid_base(event):
        return False
    if event["event"] in journal.BYPASS_EVENTS and not _is_valid_bypass(event):
        return False
    if event["event"] == journal.OUTCOME and not is_valid_outcome(event):
        return False
    if event["event"] in journal.REPORT_EVENTS and not _is_valid_report(event):
        return False
    if event["event"] == journal.RETENTION and not _is_valid_retention(event):
        return False
    if event["event"] == journal.MOVED and not _is_valid_move(event):
        return False
    if event["event"] in journal.HOLD_EVENTS and not _is_valid_hold(event):
        return False
    if event["event"] in journal.REQUEST_EVENTS and not _is_valid_request(event):
        return False
    has_envelope = event["event"] in journal.CAPTURE_EVENTS or "envelope" in event
    return not has_envelope or _is_valid_capture(event)


def _is_valid_base(event: dict[str, object]) -> bool:
    """Return whether the keys that every event has are valid."""
    return (
        _are_strings(event, "event", "time")
        and isinstance(event.get("id", ""), str)
        and bypass_period.is_timestamp(str(event["time"]))
    )


def _is_chained(event: dict[str, object]) -> bool:
    strings = event.get("prev"), event.get("details_sha256")
    return isinstance(event.get("seq"), int) and all(
        isinstance(each, str) for each in strings
    )


def _is_valid_capture(event: dict[str, object]) -> bool:
    fields = {"above": "", **event}
    if not _are_strings(fields, "id", "sha256", "stamp", "envelope", "above"):
        return False
    size = event.get("size")
    has_size = type(size) is int and size >= 0
    has_valid_file = (
        "file" not in event
        or _are_strings(event, "file")
        and is_file_name(str(event["file"]))
    )
    return (
        has_size and has_valid_file and received_header.is_archive_id(str(event["id"]))
    )


def _is_valid_bypass(event: dict[str, object]) -> bool:
    try:
        bypass_period.parse(event)
    except ValueError:
        return False
    return True


def is_file_name(name: str) -> bool:
    """Return whether this relative path stays within the archive's directory."""
    return "\0" not in name and not {"", ".", ".."} & {*name.split("/")}


def _are_strings(event: dict[str, object], *names: str) -> bool:
    """Return whether these values are strings that can be encoded as bytes."""
    values = [event.get(each) for each in names]
    return all(
        isinstance(each, str) and not LONE_SURROGATES.search(each) for each in values
    )


def is_valid_outcome(event: dict[str, object]) -> bool:
    """Return whether an outcome event has all its keys, with valid values."""
    string_keys = [name for name, value in event.items() if isinstance(value, str)]
    fields = {**dict.fromkeys(OPTIONAL_OUTCOME_KEYS, ""), **event}
    return (
        _are_strings(fields, "id", *outcome.REQUIRED_FIELDS, *OPTIONAL_OUTCOME_KEYS)
        and _are_strings(event, *string_keys)
        and event["outcome"] in outcome.KINDS
        and type(event.get("tries", 1)) is int
        and received_header.is_archive_id(str(event["id"]))
    )


def _is_valid_hold(event: dict[str, object]) -> bool:
    """Return whether a hold says what it holds, and who set it, since when and why."""
    optional = ("query", "ids", "archives", "login", "sudo_user", "web_user")
    what = dict.fromkeys(optional, "")
    return (
        _are_strings({**what, **event}, "name", "reason", "set", "user", *what)
        and type(event.get("uid")) is int
        and bypass_period.is_timestamp(str(event["set"]))
        and (
            event["event"] == journal.HOLD_RELEASED
            or bool(event.get("query")) != bool(event.get("ids"))
        )
    )


def _is_valid_request(event: dict[str, object]) -> bool:
    """Return whether a request for erasure says of what, by whom and why."""
    fields = {"reason": "", **event}
    return (
        _are_strings(fields, "id", "person", "reason")
        and type(event.get("person_uid")) is int
        and received_header.is_archive_id(str(event["id"]))
    )


def _is_valid_report(event: dict[str, object]) -> bool:
    fields = {"covers": "", **event}
    return _are_strings(fields, "id", "file", "covers") and is_file_name(
        str(event["file"])
    )


def _is_valid_move(event: dict[str, object]) -> bool:
    return _are_strings(event, "id", "copy", "local_sha256", "bucket") and (
        is_file_name(str(event["copy"]))
    )


def _is_valid_retention(event: dict[str, object]) -> bool:
    if not _are_strings(event, "id", "rule", "period", "until", "by"):
        return False
    until = str(event["until"])
    return until == PERMANENT or (
        bypass_period.is_timestamp(f"{until}T00:00:00Z")
        and received_header.is_archive_id(str(event["id"]))
    )


def parse_envelope(event: Event) -> Envelope:
    """Parse the envelope in an event; the event must be valid and have one."""
    return envelope.parse(address.as_bytes(event["envelope"]))


def parse_outcome(event: Event) -> Outcome:
    """Return the outcome in an event; the event must be valid and have one."""
    return Outcome(
        recipient=event["recipient"],
        kind=event["outcome"],
        capture_queue_id=event["of"],
        queue_id=event["queue_id"],
        time=event["at"],
        original=event.get("original", ""),
        status=event.get("status", ""),
        remote=event.get("remote", ""),
        reply=event.get("reply", ""),
        tries=event.get("tries", 1),
        expanded_to=tuple(
            filter(None, event.get("expanded_to", "").split(outcome.SEPARATOR))
        ),
        parent=event.get("parent", ""),
    )
