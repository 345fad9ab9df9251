"""Makes a long log of Postfix, and the journal that fits it, of those of a real run.

Used by the tests of reconcile. What a run has logged is repeated at other times, each
time with queue ids and archive ids of its own; so is what it has written into a
journal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from postfix_archive.message.queue_ids import LONG_ID_DIGITS

import journal_lines

LONG_ID = rb"\b4[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{9,13}z[0-9A-Za-z]{1,14}\b"
ARCHIVE_ID = rb"\b\d{8}-[0-9a-f]{40}\b"
IDS = re.compile(LONG_ID + b"|" + ARCHIVE_ID)
LOG_TIME = re.compile(rb"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d")
JOURNAL_TIME = re.compile(rb'(?<="time":")[^"]*(?=")')
SEPARATORS = (",", ":")  # of JSON
INTERVAL = timedelta(seconds=300)
FormatTime = Callable[[bytes, timedelta], bytes]


class RepeatedLog:
    """The log and the journal of a run, repeated as often as the log gets that long.

    ``times`` says how often; the run itself is the last one.
    """

    def __init__(self, log: bytes, journal: bytes, lines: int) -> None:
        self._log = log.splitlines(keepends=True)
        # Each event as one JSON object: the ids that replace others have any length.
        events = map(journal_lines.parse, journal.splitlines())
        self._journal = [
            json.dumps(each, separators=SEPARATORS).encode() for each in events
        ]
        self.repeats = -(-lines // len(self._log))
        identifiers = {*IDS.findall(log), *IDS.findall(journal)}
        self._ids = sorted(identifiers)

    def write_log(self, path: Path) -> int:
        """Write the log, its first half as a rotated one; return the lines."""
        half = self.repeats // 2
        rotated = path.with_name(f"{path.name}.1")
        for each in (rotated, path):
            each.write_bytes(b"")
        count = 0
        for index in range(self.repeats):
            with (rotated if index < half else path).open("ab") as log:
                count += len(self._log)
                log.writelines(
                    self._repeated(self._log, index, LOG_TIME, _earlier_log_time)
                )
        return count

    def write_journal(self, path: Path) -> None:
        """Write the journal in its place, with its owner; its chain is not right."""
        with path.open("r+b") as journal:
            for index in range(self.repeats):
                repeated = self._repeated(
                    self._journal, index, JOURNAL_TIME, _earlier_journal_time
                )
                journal.writelines(
                    journal_lines.make_line(json.loads(line)) for line in repeated
                )

    def _repeated(
        self,
        lines: list[bytes],
        index: int,
        time_pattern: re.Pattern[bytes],
        format_time: FormatTime,
    ) -> Iterator[bytes]:
        shift = INTERVAL * (self.repeats - 1 - index)
        replacements = {
            each: self._other(each, index, n) for n, each in enumerate(self._ids)
        }

        def replacement(match: re.Match[bytes]) -> bytes:
            return replacements[match[0]]

        for line in lines:
            line = time_pattern.sub(
                lambda time_match: format_time(time_match[0], shift), line, count=1
            )
            yield IDS.sub(replacement, line)

    def _other(self, identifier: bytes, index: int, number: int) -> bytes:
        """Return another id; the last time it is as it was."""
        if index == self.repeats - 1:
            return identifier
        unique = index * len(self._ids) + number
        if b"-" in identifier:
            return b"%s-%040x" % (identifier[:8], unique)
        digits = bytearray()
        for _ in range(9):
            unique, digit = divmod(unique, len(LONG_ID_DIGITS))
            digits.append(LONG_ID_DIGITS[digit])
        return b"4" + bytes(reversed(digits)) + identifier[identifier.rindex(b"z") :]


def _earlier_log_time(text: bytes, shift: timedelta) -> bytes:
    """Return an earlier time as syslog writes it."""
    now = datetime.now()
    moment = datetime.strptime(f"{now.year} {text.decode()}", "%Y %b %d %H:%M:%S")
    return f"{moment - shift:%b %e %H:%M:%S}".encode()


def _earlier_journal_time(text: bytes, shift: timedelta) -> bytes:
    """Return an earlier time as the journal has it."""
    moment = datetime.fromisoformat(text.decode()) - shift
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
