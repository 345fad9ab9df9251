"""Reads Postfix's lines in systemd's journal, by journalctl(1).

Used by maillog.log_reader. Each entry becomes a line as syslogd(8) would have written
it, with its time in seconds since 1970. All errors are LogUnreadable. Lines stay in
journalctl's pipe until somebody asks for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from postfix_archive.errors import LogUnreadable

FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_HOSTNAME"
JOURNALCTL = ("journalctl", "-q", "--no-pager", "--all", "-o", "json")
MAIL_FACILITY = "SYSLOG_FACILITY=2"  # RFC 5424 6.2.1
FOLLOW = ("--follow", "--no-tail")
CHUNK_SIZE = 1 << 16  # bytes: what a pipe holds
MICROSECONDS = 1_000_000  # per second


class Entry(NamedTuple):
    """One entry of the journal; ``at`` is Unix time."""

    cursor: str
    line: str
    at: float


class Journal:
    """The entries of the mail facility, from a cursor or a time on."""

    def __init__(self, *options: str, is_followed: bool = False) -> None:
        """Start journalctl(1) with these options in addition.

        is_followed: wait for new entries; entries() ends where there are none yet.
        """
        command = [*JOURNALCTL, f"--output-fields={FIELDS}", *options]
        command += [*(FOLLOW if is_followed else ()), MAIL_FACILITY]
        try:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise LogUnreadable(
                f"no log file and no journalctl ({error.strerror}); set maillog_file"
                " in main.cf"
            ) from error
        assert self._process.stdout is not None
        self._descriptor = self._process.stdout.fileno()
        os.set_blocking(self._descriptor, not is_followed)
        self._is_followed = is_followed
        self._buffer = bytearray()
        self.is_at_end = False  # journalctl(1) has ended, and all is read

    def entries(self, limit: int) -> Iterator[Entry]:
        """Yield at most limit entries; followed: those that are there now."""
        count = 0
        while count < limit:
            end = self._buffer.find(b"\n")
            if end < 0:
                if not self._read_chunk():
                    return
                continue
            text = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            entry = _parse(text)
            if entry is not None:
                count += 1
                yield entry

    def _read_chunk(self) -> bool:
        """Read more of journalctl's output; tell whether there was any."""
        try:
            chunk = os.read(self._descriptor, CHUNK_SIZE)
        except BlockingIOError:
            return False
        self._buffer += chunk
        if not chunk:
            self._check_end()
        return chunk != b""

    def _check_end(self) -> None:
        assert self._process.stderr is not None
        error_output = self._process.stderr.read().decode("utf-8", "replace").strip()
        if self._process.wait() or self._is_followed:
            reason = error_output or f"ended with {self._process.returncode}"
            raise LogUnreadable(f"journalctl: {reason}; run the command as root")
        self.is_at_end = True

    def close(self) -> None:
        """End journalctl(1). SIGKILL: the follower's children inherit blocked ones."""
        with self._process as process:
            process.kill()


def latest_time() -> float:
    """Return the Unix time of the newest entry of the mail facility, 0 without one."""
    try:
        with contextlib.closing(Journal("--lines=1")) as journal:
            return max((entry.at for entry in journal.entries(1)), default=0.0)
    except LogUnreadable:
        return 0.0


def _parse(text: bytes) -> Entry | None:
    """Return an entry as a line of syslogd(8), None if it is not one of a daemon."""
    try:
        fields = json.loads(text)
        microseconds = int(fields["__REALTIME_TIMESTAMP"])
        message = _decode(fields["MESSAGE"])
        name = _decode(fields["SYSLOG_IDENTIFIER"])
        host = _decode(fields["_HOSTNAME"])
        pid = _decode(fields.get("SYSLOG_PID") or fields["_PID"])
        cursor = fields["__CURSOR"]
    except (ValueError, TypeError, KeyError):
        return None
    seconds, rest = divmod(microseconds, MICROSECONDS)
    line = f"{seconds}.{rest:06d} {host} {name}[{pid}]: {message}"
    return Entry(cursor, line, microseconds / MICROSECONDS)


def _decode(value: str | list[int] | list[str]) -> str:
    """Return a value: text, bytes if it is not UTF-8, or the last of several values."""
    if isinstance(value, str):
        return value
    if isinstance(value[-1], str):
        return value[-1]
    return bytes(map(int, value)).decode("utf-8", "surrogateescape")
