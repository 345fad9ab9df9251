"""One line of Postfix's log: time, host, process and queue id.

Used by everything that reads the mail log. Parses lines as syslogd(8), rsyslog,
postlogd(8) and journalctl(1) write them: with or without year, RFC 3339, RFC 5424,
seconds since 1970. Bytes that are not UTF-8 are lone surrogates. Whatever a sender or a
remote host can choose is in the text after the queue id, which this module does not
parse. Only LF ends a line: the text may contain U+0085 and U+2028.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

TRADITIONAL_TIME = r"[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d+)?"
YEAR_FIRST_TIME = r"\d{4} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?"
RFC_3339_TIME = (
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?))?"
)
JOURNALCTL_FULL_TIME = (  # journalctl(1)
    r"[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]{2,5}"
)
UNIX_TIME = r"\d{9,11}\.\d{6}"
TIME_FORMATS = (
    TRADITIONAL_TIME,
    YEAR_FIRST_TIME,
    RFC_3339_TIME,
    JOURNALCTL_FULL_TIME,
    UNIX_TIME,
)
TIME = f"(?:{'|'.join(TIME_FORMATS)})"
PRIORITY = r"(?:<\d{1,3}>)?"  # PRI, RFC 5424 6.2.1: between syslog daemons
# postconf(5), enable_long_queue_ids: hexadecimal, or seconds, microseconds, z, inode.
BASE_52_DIGIT = "[0-9BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz]"
NO_QUEUE_ID = "NOQUEUE"  # logged by smtpd(8) before there is a queue file
SHORT_QUEUE_ID = "[0-9A-F]{6,16}"
LONG_QUEUE_ID = f"{BASE_52_DIGIT}{{10,14}}z{BASE_52_DIGIT}{{1,14}}"
QUEUE_ID = f"(?:{NO_QUEUE_ID}|{SHORT_QUEUE_ID}|{LONG_QUEUE_ID})"
SYSLOG_LINE = re.compile(
    rf"{PRIORITY}({TIME}) (?:<[a-z\d.]+> )?(\S+) ([^\s\[\]]+)/([a-z]+)\[(\d+)\]:"
    rf" ({QUEUE_ID}): (.*)",
    re.ASCII,
)
# As syslog-ng(8) writes it. rsyslog cuts the name at the slash: no daemon, no match.
RFC_5424_LINE = re.compile(
    rf"{PRIORITY}1 ({RFC_3339_TIME}) (\S+) ([^\s\[\]]+)/([a-z]+) (\d+) \S+"
    rf" (?:-|\[.*?\]) ?(?:\ufeff)?({QUEUE_ID}): (.*)",
    re.ASCII,
)
LINE_START = re.compile(rf"{PRIORITY}(?:1 )?({TIME}) ", re.ASCII)
MONTHS = {
    name: number
    for number, name in enumerate(
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1
    )
}
DAY = 86400  # seconds
MAX_DISORDER = 60.0  # seconds: lines of several processes are not quite in order
UNIX_TIME_PATTERN = re.compile(UNIX_TIME)
WEEKDAY = re.compile(r"[A-Z][a-z]{2} (?=\d{4}-)")
ZONE_NAME = re.compile(r" ([A-Z]{2,5})$")


class LogLine(NamedTuple):
    """A line that a Postfix process logged about one queue file.

    ``time`` is as logged; ``service`` is what precedes the daemon's name, as
    ``postfix`` or ``postfix/submission``; ``text`` is what follows the queue id.
    ``queue_id`` is NO_QUEUE_ID while there is no queue file.
    """

    time: str
    host: str
    service: str
    daemon: str
    pid: str
    queue_id: str
    text: str


def parse(line: str) -> LogLine | None:
    """Return the parsed line, None if it is not about a queue file."""
    match = SYSLOG_LINE.match(line) or RFC_5424_LINE.match(line)
    return LogLine(*match.groups()) if match else None


def time_of(line: str) -> str:
    """Return the time at the beginning of any log line, "" if there is none."""
    match = LINE_START.match(line)
    return match.group(1) if match else ""


class TimeParser:
    """Converts the times of one log to Unix time.

    A time without year is taken as the last such time that is at most a day after
    ``latest`` (Unix time): for a file, its modification time. ``zone`` applies to times
    without a zone; None is the zone of this host. Without a zone the hour that is
    repeated in autumn is told by the order of the lines; ``previous`` is the Unix time
    of the line before the first one, 0 if there is none.
    """

    def __init__(
        self,
        latest: float,
        zone: datetime.tzinfo | None = None,
        *,
        previous: float = 0.0,
    ) -> None:
        self._latest = latest
        self._zone = zone
        self._previous = previous
        self._last_text = ""
        self._last_unix_time = 0.0

    def line_time(self, line: str) -> float:
        """Return the time of a line as Unix time, 0.0 if it has none."""
        length = len(self._last_text)
        if length and line[length : length + 1] == " ":
            if line.startswith(self._last_text):  # most lines have that of the last
                return self._last_unix_time
        return self.unix_time(time_of(line))

    def unix_time(self, time: str) -> float:
        """Return a line's time as Unix time, 0.0 if it cannot be parsed."""
        if time != self._last_text:
            self._last_text = time
            self._last_unix_time = self._parse(time)
            self._previous = self._last_unix_time or self._previous
        return self._last_unix_time

    def _parse(self, time: str) -> float:
        try:
            if UNIX_TIME_PATTERN.fullmatch(time):
                return float(time)
            time = WEEKDAY.sub("", time)
            if time[4] == "-":
                return self._to_unix_time(
                    datetime.datetime.fromisoformat(_remove_spaces(time))
                )
            return self._parse_traditional(time)
        except (ValueError, OverflowError, KeyError, IndexError):
            return 0.0

    def _parse_traditional(self, time: str) -> float:
        *date, time_of_day = time.split()
        years = [int(part) for part in date if len(part) == 4]
        month, day = (part for part in date if len(part) != 4)
        hour, minute, second = time_of_day.split(":")
        whole_second, _, fraction = second.partition(".")
        moment = datetime.datetime(  # 2000 has a 29 February
            2000,
            MONTHS[month],
            int(day),
            int(hour),
            int(minute),
            min(59, int(whole_second)),
        ) + datetime.timedelta(seconds=float(f"0.{fraction or 0}"))
        if years:
            return self._to_unix_time(moment.replace(year=years[0]))
        return self._infer_year(moment)

    def _infer_year(self, moment: datetime.datetime) -> float:
        latest = datetime.datetime.fromtimestamp(self._latest + DAY, self._zone)
        for year in range(latest.year, latest.year - 9, -1):  # 29 Feb: up to 8 years
            try:
                seconds = self._to_unix_time(moment.replace(year=year))
            except ValueError:
                continue
            if seconds <= self._latest + DAY:
                return seconds
        return 0.0

    def _to_unix_time(self, moment: datetime.datetime) -> float:
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self._zone)
        seconds = moment.timestamp()
        if seconds < self._previous - MAX_DISORDER:  # perhaps in the repeated hour
            return moment.replace(fold=1).timestamp()
        return seconds


def _remove_spaces(time: str) -> str:
    """Return an RFC 3339 time without the spaces that journalctl(1) may write.

    Of zone names only UTC is unambiguous; any other is taken as the log's own zone.
    """
    zone_name = ZONE_NAME.search(time)
    if zone_name:
        time = time[: zone_name.start()] + (
            "Z" if zone_name.group(1) in ("UTC", "GMT") else ""
        )
    return f"{time[:10]}T{time[11:].replace(' ', '')}"
