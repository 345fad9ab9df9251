"""A bypass period: the time in which an admin let mail pass unarchived.

Used by bypass/switch, which writes it into each journal as the events
journal.BYPASS_EVENTS, and by status, reconcile and the doctor, which show it.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from postfix_archive.message import dates


@dataclass(frozen=True)
class BypassPeriod:
    """A bypass period. The fields are the keys of its events; times are RFC 3339."""

    started: str
    started_by: str  # user name
    reason: str
    ended: str = ""  # "": the bypass is on
    ended_by: str = ""

    @property
    def interval(self) -> str:
        """The period as text, for people."""
        return f"{self.started} to {self.ended or 'now'}"

    def contains(self, seconds: float) -> bool:
        """Tell whether a time, in seconds since 1970, is in the period."""
        is_before_end = not self.ended or seconds <= _seconds(self.ended)
        return _seconds(self.started) <= seconds and is_before_end

    def to_json(self) -> dict[str, str]:
        """Return the fields of an event, without those that are empty."""
        fields: dict[str, str] = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value}


NAMES = tuple(each.name for each in dataclasses.fields(BypassPeriod))


def parse(fields: Mapping[str, object]) -> BypassPeriod:
    """Return the period in an event or a record; raises ValueError for an invalid one.

    Every text can be encoded in UTF-8 with surrogateescape, every time is a time.
    """
    texts = [fields.get(name, "") for name in NAMES]
    strings = [text for text in texts if isinstance(text, str)]
    if strings != texts or not {"started_by", "reason"} <= fields.keys():
        raise ValueError("not a bypass period")
    for text in strings:
        text.encode("utf-8", "surrogateescape")
    period = BypassPeriod(*strings)
    if not all(map(is_timestamp, (period.started, period.ended or period.started))):
        raise ValueError("not a time of a bypass period")
    return period


def is_timestamp(text: str) -> bool:
    """Return whether text is a time as a journal has it (RFC 3339, in UTC)."""
    try:
        return dates.format_rfc3339(_seconds(text)) == text
    except (ValueError, OverflowError):
        return False


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
