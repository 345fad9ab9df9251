"""Makes a long log of Postfix, and the journal that fits it, of those of a real run.

Used by the tests of reconcile. What a run has logged is repeated at other times, each
time with queue ids and archive ids of its own; so is what it has written into a
journal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from postfix_archive.message.queue_ids import LONG_ID_DIGITS

LONG_ID = rb"\b4[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{9,13}z[0-9A-Za-z]{1,14}\b"
ARCHIVE_ID = rb"\b\d{8}-[0-9a-f]{40}\b"
IDS = re.compile(LONG_ID + b"|" + ARCHIVE_ID)
LOGGED = re.compile(rb"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d")
KEPT = re.compile(rb'(?<="time":")[^"]*(?=")')
STEP = timedelta(seconds=300)
Written = Callable[[bytes, timedelta], bytes]


class Grown:
    """The log and the journal of a run, repeated as often as the log gets that long.

    ``times`` says how often; the run itself is the last one.
    """

    def __init__(self, log: bytes, journal: bytes, lines: int) -> None:
        self._log = log.splitlines(keepends=True)
        self._journal = journal.splitlines(keepends=True)
        self.times = -(-lines // len(self._log))
        found = {*IDS.findall(log), *IDS.findall(journal)}
        self._ids = sorted(found)

    def write_log(self, path: Path) -> int:
        """Write the log, its first half as a rotated one; return the lines."""
        half = self.times // 2
        rotated = path.with_name(f"{path.name}.1")
        for each in (rotated, path):
            each.write_bytes(b"")
        count = 0
        for at in range(self.times):
            with (rotated if at < half else path).open("ab") as log:
                count += len(self._log)
                log.writelines(self._repeated(self._log, at, LOGGED, _logged))
        return count

    def write_journal(self, path: Path) -> None:
        """Write the journal in its place, with its owner; its chain is not right."""
        with path.open("r+b") as journal:
            for at in range(self.times):
                journal.writelines(self._repeated(self._journal, at, KEPT, _kept))

    def _repeated(
        self, lines: list[bytes], at: int, times: re.Pattern[bytes], written: Written
    ) -> Iterator[bytes]:
        back = STEP * (self.times - 1 - at)
        instead = {each: self._other(each, at, n) for n, each in enumerate(self._ids)}

        def other(found: re.Match[bytes]) -> bytes:
            return instead[found[0]]

        for line in lines:
            line = times.sub(lambda found: written(found[0], back), line, count=1)
            yield IDS.sub(other, line)

    def _other(self, name: bytes, at: int, number: int) -> bytes:
        """Return another id; the last time it is as it was."""
        if at == self.times - 1:
            return name
        unique = at * len(self._ids) + number
        if b"-" in name:
            return b"%s-%040x" % (name[:8], unique)
        digits = bytearray()
        for _ in range(9):
            unique, digit = divmod(unique, len(LONG_ID_DIGITS))
            digits.append(LONG_ID_DIGITS[digit])
        return b"4" + bytes(reversed(digits)) + name[name.rindex(b"z") :]


def _logged(text: bytes, back: timedelta) -> bytes:
    """Return an earlier time as syslog writes it."""
    now = datetime.now()
    when = datetime.strptime(f"{now.year} {text.decode()}", "%Y %b %d %H:%M:%S")
    return f"{when - back:%b %e %H:%M:%S}".encode()


def _kept(text: bytes, back: timedelta) -> bytes:
    """Return an earlier time as the journal has it."""
    when = datetime.fromisoformat(text.decode()) - back
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
