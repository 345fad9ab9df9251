"""Count the events of a journal, line by line.

Used by tally_cache, which saves a tally so that no line is read twice, and by status.
An invalid line counts as damaged. A line torn by a crash counts as a line only; one
whose details are struck out as a line, and as a message if it archived one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postfix_archive.message import digest, stamp
from postfix_archive.store import (
    bypass_period,
    journal,
    journal_event,
    journal_format,
    outcome,
)
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.journal_event import Event

VERSION = 5  # change it with the fields: a cached tally of another is discarded
# Keys of an outcome event that name the recipient of a capture (store-format.md).
OUTCOME_KEYS = ("id", "of", "recipient", "original", "parent")
# Hexadecimal digits: 64 bits suffice for millions of recipients.
RECIPIENT_HASH_DIGITS = 16
DAYS_KEPT = 400  # for charts of a year
COUNTERS = (
    "start",
    "offset",
    "lines",
    "damaged",
    "first_damaged",
    "messages",
    "removed",
    "supplements",
    "mailed",
    "received_bytes",
    "copy_bytes",
)


class Tally:
    """Counts over the first ``offset`` bytes of a journal.

    ``messages`` counts records, those that were removed too, ``removed`` these alone;
    ``stamps`` the verdicts on all captures, supplements
    included, ``outcomes`` the settled outcomes by kind. ``waiting`` has a hash of each
    recipient whose last outcome is ``waiting``; a settled outcome removes it, so the
    follower must not record ``waiting`` after that. ``bypasses`` has each bypass period
    by its start. ``days`` has messages and bytes of the last DAYS_KEPT days, by date
    (UTC). ``received_bytes`` is the size of the originals, ``copy_bytes`` that
    of the files in the store, which the caller adds.
    """

    __slots__ = (*COUNTERS, "_last_line", "bypasses", "last_archived", "outcomes") + (
        "_last_sha256",
        "days",
        "stamps",
        "waiting",
    )

    def __init__(self) -> None:
        self.start = self.offset = 0  # bytes: start and end of the last line
        self.lines = self.damaged = self.first_damaged = 0
        self.messages = self.removed = self.supplements = self.mailed = 0
        self.received_bytes = self.copy_bytes = 0
        self.last_archived = ""  # RFC 3339; "" for never
        self.stamps = dict.fromkeys(stamp.VERDICTS, 0)
        self.outcomes = dict.fromkeys(outcome.SETTLED, 0)
        self.waiting: set[str] = set()
        self.bypasses: dict[str, BypassPeriod] = {}
        self.days: dict[str, list[int]] = {}
        self._last_line = b""
        self._last_sha256 = ""

    @property
    def last_sha256(self) -> str:
        """The hash of the last line; "" before the first."""
        return (
            journal_format.line_sha256(self._last_line)
            if self._last_line
            else self._last_sha256
        )

    def is_last_line(self, line: bytes) -> bool:
        """Return whether this line, with its line end, is the last that was counted."""
        return (
            line.endswith(b"\n")
            and journal_format.line_sha256(line) == self.last_sha256
        )

    def add_line(self, line: bytes) -> str:
        """Count a line, with its line end; return the file name in it, or ""."""
        self.start = self.offset
        self.offset += len(line)
        self.lines += 1
        self._last_line = line
        try:
            event = journal_event.parse(line)
        except ValueError:
            self.damaged += 1
            self.first_damaged = self.first_damaged or self.lines
            return ""
        if event is None:
            return ""
        if journal_format.is_struck_out(line):
            self._count_message(event)
            return ""
        return self._count(event)

    def _count(self, event: Event) -> str:
        kind = event["event"]
        if kind in journal.CAPTURE_EVENTS:
            self._count_capture(event)
        elif kind in journal.REMOVAL_EVENTS:
            self.removed += 1
        elif kind == journal.MAILED:
            self.mailed += 1
        elif kind == journal.OUTCOME:
            self._count_outcome(event)
        elif kind in journal.BYPASS_EVENTS:
            self.bypasses[event["started"]] = bypass_period.parse(event)
        return event.get("file", "")

    def _count_capture(self, event: Event) -> None:
        if event["stamp"] in self.stamps:
            self.stamps[event["stamp"]] += 1
        if event["event"] == journal.SUPPLEMENT:
            self.supplements += 1
            return
        self._count_message(event)
        self.received_bytes += event["size"]

    def _count_message(self, event: Event) -> None:
        if event["event"] != journal.ARCHIVED:
            return
        # A second original with the same archive id has a longer file name.
        file_name = event.get("file", "").rpartition("/")[2]
        is_first = file_name in ("", f"{event['id']}.eml.gz")
        self.messages += is_first
        self.last_archived = max(self.last_archived, event["time"])
        day = self.days.setdefault(event["time"][:10], [0, 0])
        day[0] += is_first
        day[1] += event.get("size", 0)
        if len(self.days) > DAYS_KEPT:
            del self.days[min(self.days)]

    def _count_outcome(self, event: Event) -> None:
        key = "\0".join(str(event.get(each, "")) for each in OUTCOME_KEYS)
        recipient_hash = digest.sha256_hex(key.encode("utf-8", "surrogatepass"))[
            :RECIPIENT_HASH_DIGITS
        ]
        if event["outcome"] == outcome.WAITING:
            self.waiting.add(recipient_hash)
        else:
            self.waiting.discard(recipient_hash)
            self.outcomes[event["outcome"]] += 1

    def to_json(self) -> dict[str, Any]:
        """Return the tally as a JSON object."""
        return {
            **{name: getattr(self, name) for name in COUNTERS},
            "last": self.last_sha256,
            "last_archived": self.last_archived,
            "stamps": self.stamps,
            "outcomes": self.outcomes,
            "waiting": sorted(self.waiting),
            "days": self.days,
            "bypasses": [each.to_json() for each in self.bypasses.values()],
        }


def from_json(data: Any) -> Tally:
    """Return the tally from a JSON object. Raises ValueError for an invalid one."""
    tally = Tally()
    if not isinstance(data, dict) or data.keys() != tally.to_json().keys():
        raise ValueError("not a tally")
    for name in COUNTERS:
        setattr(tally, name, _parse_count(data[name]))
    tally._last_sha256, tally.last_archived = map(
        _parse_string, (data["last"], data["last_archived"])
    )
    tally.stamps = _parse_counts(data["stamps"], stamp.VERDICTS)
    tally.outcomes = _parse_counts(data["outcomes"], outcome.SETTLED)
    tally.days = _parse_days(data["days"])
    if not isinstance(data["waiting"], list) or not isinstance(data["bypasses"], list):
        raise ValueError("not a tally")
    tally.waiting = {*map(_parse_string, data["waiting"])}
    if not all(isinstance(each, dict) for each in data["bypasses"]):
        raise ValueError("not a bypass period")
    periods = map(bypass_period.parse, data["bypasses"])
    tally.bypasses = {each.started: each for each in periods}
    return tally


def _parse_days(value: Any) -> dict[str, list[int]]:
    if not isinstance(value, Mapping):
        raise ValueError("not a table of days")
    days = {}
    for day, counts in value.items():
        if not isinstance(counts, list) or len(counts) != 2:
            raise ValueError("not messages and bytes")
        days[_parse_string(day)] = [*map(_parse_count, counts)]
    return days


def _parse_count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count")
    return value


def _parse_string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


def _parse_counts(value: Any, names: tuple[str, ...]) -> dict[str, int]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise ValueError("not a table of counts")
    return {name: _parse_count(value[name]) for name in names}
