"""Counts what a journal tells, line by line, and says where it stands.

Used by back/tallying, which keeps a tally so that nobody reads a journal twice, and by
everything that shows numbers. A line that the store would not write is counted as
damaged; what a crash has torn counts for nothing, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postfix_archive.core import digest, outcome, record, stamp

VERSION = 1  # of what is counted: a tally of another is counted anew
STAMPS = (stamp.ABSENT, stamp.VALID, stamp.ALTERED, stamp.FORGED)
# Names of one capture's recipient, in an outcome event: see store-format.md.
NAMES = ("id", "of", "recipient", "original", "parent")
NAME_DIGITS = 16  # of SHA-256: 64 bits tell millions of recipients apart
NUMBERS = (
    "start",
    "offset",
    "lines",
    "damaged",
    "first_damaged",
    "messages",
    "supplements",
    "mailed",
    "received_bytes",
    "copy_bytes",
)


class Tally:
    """What the first ``offset`` bytes of a journal tell.

    ``messages`` are records; ``stamps`` the verdicts on all that came, supplements
    included; ``outcomes`` the settled ones by kind, and ``waiting`` names those whose
    last outcome is that they wait: a settled one takes its name away, so that the
    follower must say of nobody who is settled that he waits. ``gaps`` are the latest
    event of each. ``received_bytes`` are those of the originals, ``copy_bytes`` those
    of the files in the store, which only back can see.
    """

    __slots__ = (*NUMBERS, "_line", "gaps", "last_archived", "outcomes") + (
        "_last",
        "stamps",
        "waiting",
    )

    def __init__(self) -> None:
        self.start = self.offset = 0  # of the last line, in bytes
        self.lines = self.damaged = self.first_damaged = 0
        self.messages = self.supplements = self.mailed = 0
        self.received_bytes = self.copy_bytes = 0
        self.last_archived = ""  # RFC 3339, "" if never
        self.stamps = dict.fromkeys(STAMPS, 0)
        self.outcomes = dict.fromkeys(outcome.SETTLED, 0)
        self.waiting: set[str] = set()
        self.gaps: dict[str, dict[str, Any]] = {}
        self._line = b""
        self._last = ""

    @property
    def last(self) -> str:
        """The SHA-256 of the last line, without its line end; "" before the first."""
        return digest.hex_of(self._line[:-1]) if self._line else self._last

    def fits(self, line: bytes) -> bool:
        """Tell whether this is the line, with its end, that stands where ours stood."""
        return line.endswith(b"\n") and digest.hex_of(line[:-1]) == self.last

    def take(self, line: bytes) -> str:
        """Count a line with its end; return the file of the store it names, or ""."""
        self.start = self.offset
        self.offset += len(line)
        self.lines += 1
        self._line = line
        try:
            event = record.read(line)
        except ValueError:
            self.damaged += 1
            self.first_damaged = self.first_damaged or self.lines
            return ""
        return self._count(event) if event else ""

    def _count(self, event: dict[str, Any]) -> str:
        kind = event["event"]
        if kind in ("archived", "supplement"):
            self._captured(event)
        elif kind == "mailed":
            self.mailed += 1
        elif kind == outcome.EVENT:
            self._became(event)
        elif kind in record.GAPS:
            self.gaps[event["opened"]] = event
        name = event.get("file", "")
        return name if isinstance(name, str) else ""

    def _captured(self, event: dict[str, Any]) -> None:
        if event["stamp"] in self.stamps:
            self.stamps[event["stamp"]] += 1
        if event["event"] == "supplement":
            self.supplements += 1
            return
        # A second original under the same id has a longer name: see store-format.md.
        name = event.get("file", "").rpartition("/")[2]
        self.messages += name in ("", f"{event['id']}.eml.gz")
        self.received_bytes += event["size"]
        self.last_archived = max(self.last_archived, event["time"])

    def _became(self, event: dict[str, Any]) -> None:
        if not outcome.is_event(event):
            return
        named = "\0".join(event.get(each, "") for each in NAMES)
        name = digest.hex_of(named.encode("utf-8", "surrogatepass"))[:NAME_DIGITS]
        if event["outcome"] == outcome.WAITING:
            self.waiting.add(name)
        else:
            self.waiting.discard(name)
            self.outcomes[event["outcome"]] += 1

    def words(self) -> dict[str, Any]:
        """Return all of it as values that JSON has."""
        return {
            **{name: getattr(self, name) for name in NUMBERS},
            "last": self.last,
            "last_archived": self.last_archived,
            "stamps": self.stamps,
            "outcomes": self.outcomes,
            "waiting": sorted(self.waiting),
            "gaps": self.gaps,
        }


def from_words(words: Any) -> Tally:
    """Return the tally that has these words; raises ValueError for any others."""
    tally = Tally()
    if not isinstance(words, dict) or words.keys() != tally.words().keys():
        raise ValueError("no tally")
    for name in NUMBERS:
        setattr(tally, name, _number(words[name]))
    tally._last, tally.last_archived = map(
        _text, (words["last"], words["last_archived"])
    )
    tally.stamps = _counts(words["stamps"], STAMPS)
    tally.outcomes = _counts(words["outcomes"], outcome.SETTLED)
    if not isinstance(words["waiting"], list) or not isinstance(words["gaps"], dict):
        raise ValueError("no tally")
    tally.waiting = {*map(_text, words["waiting"])}
    if not all(map(_is_gap, words["gaps"].values())):
        raise ValueError("no gaps")
    tally.gaps = words["gaps"]
    return tally


def _is_gap(event: object) -> bool:
    return (
        record.is_event(event)
        and isinstance(event, dict)
        and (event["event"] in record.GAPS)
    )


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _counts(found: Any, names: tuple[str, ...]) -> dict[str, int]:
    if not isinstance(found, Mapping) or set(found) != set(names):
        raise ValueError("no counts")
    return {name: _number(found[name]) for name in names}
