"""The journal of a store, read and written without the program's own code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SEGMENT = "2026-11"  # the month of the unit tests
FIRST_PREV = "0" * 64
CHAINED_KEYS = "seq time event format id capsule file file_sha256".split()
SALT = "5a" * 16


def segments(archive_directory: Path) -> list[Path]:
    """Return the segments of a journal, oldest first; none if it is missing."""
    return sorted((archive_directory / "journal").glob("????-??"))


def segment(archive_directory: Path) -> Path:
    """Return the newest segment of a journal, or the one that comes first."""
    default = archive_directory / "journal" / SEGMENT
    return max(segments(archive_directory), default=default)


def parse(line: bytes) -> dict[str, Any]:
    """Return the event in a complete line, without its salt. Raises ValueError."""
    chained, _, details = line.removesuffix(b"\n").partition(b"\t")
    event = json.loads(chained)
    if event["details_size"] != len(details):
        raise ValueError("torn")
    if details.strip(b" "):
        event = json.loads(details) | event
        del event["salt"]
    return dict(event)


def line_sha256(line: bytes) -> str:
    """Return the hash of a line: that of its first part."""
    return hashlib.sha256(line.removesuffix(b"\n").partition(b"\t")[0]).hexdigest()


def make_line(event: Mapping[str, Any], prev: str = FIRST_PREV) -> bytes:
    """Return the line of an event, given the hash of the line before."""
    details = {"salt": SALT, **event}
    for key in (*CHAINED_KEYS, "details_size", "details_sha256", "prev"):
        details.pop(key, None)
    text = json.dumps(details, separators=(",", ":")).encode()
    chained = {key: event[key] for key in CHAINED_KEYS if key in event}
    chained["details_size"] = len(text)
    chained["details_sha256"] = hashlib.sha256(text).hexdigest()
    chained["prev"] = prev
    return json.dumps(chained, separators=(",", ":")).encode() + b"\t" + text + b"\n"


def make_lines(events: Iterable[Mapping[str, Any]], prev: str = FIRST_PREV) -> bytes:
    """Return the chained lines of events."""
    lines = []
    for event in events:
        lines.append(make_line(event, prev))
        prev = line_sha256(lines[-1])
    return b"".join(lines)


def segment_event(archive: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    """Return the event that begins a segment."""
    event = {"seq": number, "time": f"{SEGMENT}-22T11:53:00Z", "event": "segment"}
    return event | {
        "format": 2,
        "archive": archive,
        "host": "mail.example.com",
        "segment": SEGMENT,
        **fields,
    }


def events(archive_directory: Path) -> list[dict[str, Any]]:
    """Return the events of a journal but those that begin its segments."""
    content = b"".join(each.read_bytes() for each in segments(archive_directory))
    parsed = map(parse, content.splitlines())
    return [each for each in parsed if each["event"] != "segment"]


def strike_out(path: Path, number: int) -> None:
    """Overwrite the details of a line of a segment, the first is 0, with spaces."""
    lines = path.read_bytes().splitlines(keepends=True)
    chained, _, details = lines[number].partition(b"\t")
    lines[number] = chained + b"\t" + b" " * (len(details) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
