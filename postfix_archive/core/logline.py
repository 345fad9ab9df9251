"""One line of Postfix's log: who wrote it, when, about which queue id.

Used by every room that reads the log. Lines come as syslogd(8), rsyslog, postlogd(8)
and journalctl(1) write them: with or without year, RFC 3339, RFC 5424, seconds since
1970. Bytes that are no UTF-8 are lone surrogates. What a sender or a remote host can
choose stands in the text behind the queue id, and is not looked at here. Lines end at
LF alone: a text may hold U+0085 and U+2028.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

TRADITIONAL = r"[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d+)?"
YEAR_FIRST = r"\d{4} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?"
RFC_3339 = (
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?))?"
)
FULL = r"[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]{2,5}"  # journalctl(1)
SECONDS = r"\d{9,11}\.\d{6}"
TIME = f"(?:{TRADITIONAL}|{YEAR_FIRST}|{RFC_3339}|{FULL}|{SECONDS})"
PRIORITY = r"(?:<\d{1,3}>)?"  # as syslog daemons send it to each other
# postconf(5), enable_long_queue_ids: hexadecimal, or two times, z, inode number.
CONSONANTS = "[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz]"
NO_QUEUE_ID = "NOQUEUE"  # smtpd(8) has no queue file yet
QUEUE_ID = (
    f"(?:{NO_QUEUE_ID}|[0-9A-F]{{6,16}}|{CONSONANTS}{{10,14}}z{CONSONANTS}{{1,14}})"
)
LINE = re.compile(
    rf"{PRIORITY}({TIME}) (?:<[a-z\d.]+> )?(\S+) ([^\s\[\]]+)/([a-z]+)\[(\d+)\]:"
    rf" ({QUEUE_ID}): (.*)",
    re.ASCII,
)
# As syslog-ng(8) writes it; rsyslog ends the name at the slash, and the daemon is lost.
RFC_5424 = re.compile(
    rf"{PRIORITY}1 ({RFC_3339}) (\S+) ([^\s\[\]]+)/([a-z]+) (\d+) \S+"
    rf" (?:-|\[.*?\]) ?(?:\ufeff)?({QUEUE_ID}): (.*)",
    re.ASCII,
)
BEGINNING = re.compile(rf"{PRIORITY}(?:1 )?({TIME}) ", re.ASCII)
MONTHS = {
    name: number
    for number, name in enumerate(
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1
    )
}
DAY = 86400  # seconds
SINCE_1970 = re.compile(SECONDS)
WEEKDAY = re.compile(r"[A-Z][a-z]{2} (?=\d{4}-)")
ZONE_NAME = re.compile(r" ([A-Z]{2,5})$")


class Line(NamedTuple):
    """A line of Postfix about one queue file.

    ``time`` is as written; ``service`` is what stands before the daemon's name, as
    ``postfix`` or ``postfix/submission``; ``text`` is what stands behind the queue id,
    which is NO_QUEUE_ID while there is none.
    """

    time: str
    host: str
    service: str
    daemon: str
    pid: str
    queue_id: str
    text: str


def read(line: str) -> Line | None:
    """Return what a line of the log says of a queue file, None if it says nothing."""
    found = LINE.match(line) or RFC_5424.match(line)
    return Line(*found.groups()) if found else None


def time_of(line: str) -> str:
    """Return the time that a line of any log begins with; "" if it does not."""
    found = BEGINNING.match(line)
    return found.group(1) if found else ""


def is_whole(line: str) -> bool:
    """Tell whether a line begins as a line of a log does: with a time."""
    return time_of(line) != ""


class Clock:
    """Reads the times of one log.

    A time without year is the last such one that is not after ``latest`` (seconds since
    1970) by more than a day: of a file, when it was last written to. One without zone
    is of ``zone``.
    """

    def __init__(self, latest: float, zone: datetime.tzinfo) -> None:
        self._latest = latest
        self._zone = zone
        self._seen = ""
        self._seconds = 0.0

    def seconds(self, time: str) -> float:
        """Return a line's time in seconds since 1970; 0.0 if there is no such time."""
        if time != self._seen:
            self._seen = time
            self._seconds = self._read(time)
        return self._seconds

    def _read(self, time: str) -> float:
        try:
            if SINCE_1970.fullmatch(time):
                return float(time)
            time = WEEKDAY.sub("", time)
            if time[4] == "-":
                return self._at(datetime.datetime.fromisoformat(_joined(time)))
            return self._traditional(time)
        except (ValueError, OverflowError, KeyError, IndexError):
            return 0.0

    def _traditional(self, time: str) -> float:
        *date, clock = time.split()
        years = [int(each) for each in date if len(each) == 4]
        month, day = (each for each in date if len(each) != 4)
        hour, minute, second = clock.split(":")
        whole, _, fraction = second.partition(".")
        leap = datetime.datetime(  # a year that has every day
            2000, MONTHS[month], int(day), int(hour), int(minute), min(59, int(whole))
        ) + datetime.timedelta(seconds=float(f"0.{fraction or 0}"))
        if years:
            return self._at(leap.replace(year=years[0]))
        return self._without_year(leap)

    def _without_year(self, when: datetime.datetime) -> float:
        latest = datetime.datetime.fromtimestamp(self._latest + DAY, self._zone)
        for year in range(latest.year, latest.year - 9, -1):  # 29 February
            try:
                seconds = self._at(when.replace(year=year))
            except ValueError:
                continue
            if seconds <= self._latest + DAY:
                return seconds
        return 0.0

    def _at(self, when: datetime.datetime) -> float:
        if when.tzinfo is None:
            when = when.replace(tzinfo=self._zone)
        return when.timestamp()


def _joined(time: str) -> str:
    """Return a time of RFC 3339 without the spaces that journalctl(1) may write.

    Of a zone's name only UTC is certain; any other is taken for the log's own.
    """
    name = ZONE_NAME.search(time)
    if name:
        time = time[: name.start()] + ("Z" if name.group(1) in ("UTC", "GMT") else "")
    return f"{time[:10]}T{time[11:].replace(' ', '')}"
