"""Count the events of a journal, line by line.

Used by tally_cache, which saves a tally so that no line is read twice, and by status.
An invalid line counts as damaged. A line torn by a crash counts as a line only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postfix_archive.core import digest, outcome, record, stamp

VERSION = 1  # change it with the fields: a cached tally of another is discarded
STAMPS = (stamp.ABSENT, stamp.VALID, stamp.ALTERED, stamp.FORGED)
# Keys of an outcome event that name the recipient of a capture (store-format.md).
NAMES = ("id", "of", "recipient", "original", "parent")
NAME_DIGITS = 16  # hexadecimal digits: 64 bits suffice for millions of recipients
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
    """Counts over the first ``offset`` bytes of a journal.

    ``messages`` counts records, ``stamps`` the verdicts on all captures, supplements
    included, ``outcomes`` the settled outcomes by kind. ``waiting`` has a hash of each
    recipient whose last outcome is ``waiting``; a settled outcome removes it, so the
    follower must not record ``waiting`` after that. ``bypasses`` has the latest event
    of each bypass. ``received_bytes`` is the size of the originals, ``copy_bytes`` that
    of the files in the store, which the caller adds.
    """

    __slots__ = (*NUMBERS, "_line", "gaps", "last_archived", "outcomes") + (
        "_last",
        "stamps",
        "waiting",
    )

    def __init__(self) -> None:
        self.start = self.offset = 0  # bytes: start and end of the last line
        self.lines = self.damaged = self.first_damaged = 0
        self.messages = self.supplements = self.mailed = 0
        self.received_bytes = self.copy_bytes = 0
        self.last_archived = ""  # RFC 3339; "" for never
        self.stamps = dict.fromkeys(STAMPS, 0)
        self.outcomes = dict.fromkeys(outcome.SETTLED, 0)
        self.waiting: set[str] = set()
        self.gaps: dict[str, dict[str, Any]] = {}
        self._line = b""
        self._last = ""

    @property
    def last(self) -> str:
        """The SHA-256 of the last line without its line end; "" before the first."""
        return digest.hex_of(self._line[:-1]) if self._line else self._last

    def fits(self, line: bytes) -> bool:
        """Return whether this line, with its line end, is the last that was counted."""
        return line.endswith(b"\n") and digest.hex_of(line[:-1]) == self.last

    def take(self, line: bytes) -> str:
        """Count a line, with its line end; return the file name in it, or ""."""
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
        # A second original with the same archive id has a longer file name.
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
        """Return the tally as a JSON object."""
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
    """Return the tally from a JSON object. Raises ValueError for an invalid one."""
    tally = Tally()
    if not isinstance(words, dict) or words.keys() != tally.words().keys():
        raise ValueError("not a tally")
    for name in NUMBERS:
        setattr(tally, name, _number(words[name]))
    tally._last, tally.last_archived = map(
        _text, (words["last"], words["last_archived"])
    )
    tally.stamps = _counts(words["stamps"], STAMPS)
    tally.outcomes = _counts(words["outcomes"], outcome.SETTLED)
    if not isinstance(words["waiting"], list) or not isinstance(words["gaps"], dict):
        raise ValueError("not a tally")
    tally.waiting = {*map(_text, words["waiting"])}
    if not all(map(_is_gap, words["gaps"].values())):
        raise ValueError("not a bypass event")
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
        raise ValueError("not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


def _counts(found: Any, names: tuple[str, ...]) -> dict[str, int]:
    if not isinstance(found, Mapping) or set(found) != set(names):
        raise ValueError("not a table of counts")
    return {name: _number(found[name]) for name in names}
