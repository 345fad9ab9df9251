"""Runs extraction in a child process with limits on CPU time, time and memory.

Used by the index and by show. When the child has died or was killed, the next one reads
the message without libraries. Replies are JSON and checked: the child may have been
taken over by hostile content.
"""

from __future__ import annotations

import io
import json
import math
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from postfix_archive.message import header
from postfix_archive.search import extraction_header
from postfix_archive.search.content import Attachment, MessageContent
from postfix_archive.search.extraction_limits import (
    LENGTH_SIZE,
    MEMORY_LIMIT,
    MESSAGE_LIMIT,
    REPLY_LIMIT,
    TIME_LIMIT,
    WITH_LIBRARIES,
    WITHOUT_LIBRARIES,
    ProcessLimits,
)
from postfix_archive.system import path_access

PROGRAM = (
    "import sys; sys.path[:] = sys.argv[4:];"
    " from postfix_archive.search.extraction_child import main;"
    " main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))"
)
OPTIONS = ("-I", "-S", "-B")  # isolated, without site, without writing byte code
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FAILED = "extraction: process failed"
UNPRIVILEGED_USER = "nobody"
RECEIVE_SIZE = 1 << 20
# Messages that one child extracts, should a library keep some memory of each.
MESSAGES_PER_PROCESS = 20_000


class Extractor:
    """Extracts messages in one child process. A context manager, not thread-safe."""

    def __init__(self, limits: ProcessLimits | None = None) -> None:
        self._limits = limits or ProcessLimits()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._message_count = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the child, 0 if there is none."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the child, if there is none that runs."""
        if self._process and self._process.poll() is None:
            return
        self.close()
        self._connection, theirs = socket.socketpair()
        self._message_count = 0
        rights = child_rights()
        limits = self._limits
        arguments = (limits.cpu, limits.killed_cpu, limits.memory)
        # The last one for an installation whose import hook comes with site (pip -e).
        paths = [*filter(None, sys.path), os.path.dirname(PACKAGE)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, *OPTIONS, "-c", PROGRAM]
                + [*map(str, arguments), *paths],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                **rights,
            )
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """End the child. The next message gets another."""
        if self._connection:
            self._connection.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def extract(self, original: bytes) -> MessageContent:
        """Return the content of a message; see extract_all()."""
        [content] = self.extract_all([original])
        return content

    def extract_all(self, originals: Sequence[bytes]) -> Iterator[MessageContent]:
        """Yield the content of each message; all are sent to the child at once.

        If the child does not cope with one, a second one reads it without libraries; if
        that fails too, it has what its header says. ``problems`` has the reason. Raises
        OSError only if no child can be started.
        """
        done = 0
        while done < len(originals):
            reasons: list[str] = []
            for content in self._try(originals[done:], WITH_LIBRARIES, reasons):
                done += 1
                yield content
            if reasons:
                yield self._without_libraries(originals[done], reasons)
                done += 1

    def _without_libraries(self, original: bytes, reasons: list[str]) -> MessageContent:
        """Return the content of a message over which the child has failed."""
        content = next(self._try([original], WITHOUT_LIBRARIES, reasons), None)
        content = content or _header_only(original)
        problems = dict.fromkeys((*reasons, *content.problems))
        return content._replace(problems=tuple(problems))

    def _try(
        self, originals: Sequence[bytes], mode: bytes, reasons: list[str]
    ) -> Iterator[MessageContent]:
        """Yield the child's replies, up to the first one that is none.

        Then appends the reason. Ends a child that has not replied to all, so that no
        reply can be taken for that to a later message, and one that is out of memory.
        """
        self.start()
        missing = len(originals)
        try:
            self._send(originals, mode)
            for _ in originals:
                content = self._reply()
                self._message_count += 1
                missing -= 1
                is_full = any(each.endswith(MEMORY_LIMIT) for each in content.problems)
                if is_full or self._message_count >= MESSAGES_PER_PROCESS:
                    missing = 0
                    self.close()
                yield content
                if self._process is None:
                    return
        except TimeoutError:
            reasons.append(TIME_LIMIT)
        except OSError:
            reasons.append(self._reason())
        except (ValueError, RecursionError, OverflowError):
            reasons.append(f"{FAILED} (invalid reply)")
        finally:
            if missing:
                self.close()

    def _send(self, originals: Sequence[bytes], mode: bytes) -> None:
        """Send messages. Raises OSError, TimeoutError if it takes too long."""
        assert self._connection is not None
        self._connection.settimeout(self._limits.wall)
        # One byte above the limit, so that the child sees that the rest is missing.
        requests = [each[: MESSAGE_LIMIT + 1] for each in originals]
        numbers = (len(requests), *map(len, requests))
        lengths = (each.to_bytes(LENGTH_SIZE, "big") for each in numbers)
        self._connection.sendall(b"".join((mode, *lengths, *requests)))

    def _reply(self) -> MessageContent:
        """Return the content of the next message.

        Raises OSError, TimeoutError if it is late, ValueError for an invalid reply.
        """
        deadline = time.monotonic() + self._limits.wall
        header = self._receive(2 * LENGTH_SIZE, deadline)
        length = int.from_bytes(header[:LENGTH_SIZE], "big")
        text_length = int.from_bytes(header[LENGTH_SIZE:], "big")
        if not text_length <= length <= REPLY_LIMIT:
            raise ValueError("a reply that extraction does not make")
        reply = self._receive(length, deadline)
        return _parse_reply(
            reply[: length - text_length], reply[length - text_length :]
        )

    def _receive(self, size: int, deadline: float) -> bytes:
        assert self._connection is not None
        chunks = []
        while size:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._connection.recv(min(size, RECEIVE_SIZE))
            if not chunk:
                raise ConnectionError("the child has ended")
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    def _reason(self) -> str:
        """Return why the connection is closed."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=self._limits.wall)
        except subprocess.TimeoutExpired:
            return TIME_LIMIT
        if code == -signal.SIGXCPU:
            return TIME_LIMIT
        return f"{FAILED} ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


def _header_only(original: bytes) -> MessageContent:
    fields = header.fields(original[: header.HEAD_LIMIT])
    return extraction_header.read(
        (each.name.decode("ascii"), each.value) for each in fields
    )


def read_original(chunks: Iterable[bytes]) -> bytes:
    """Return no more of an original than extraction looks at, and a byte.

    It is in memory once: a buffer grows where it is, and is given away as it is.
    """
    kept = io.BytesIO()
    remaining = MESSAGE_LIMIT + 1
    for chunk in chunks:
        remaining -= kept.write(memoryview(chunk)[:remaining])
        if not remaining:
            break
    return kept.getvalue()


def child_rights() -> dict[str, Any]:
    """Return the arguments of Popen so that the child cannot become root again."""
    user = _unprivileged_user()
    if user is not None:
        return {"user": user, "group": user, "extra_groups": []}
    if os.getuid() != os.geteuid():
        # privileges.as_ids() has dropped the groups; only root may drop them again.
        return {"user": os.geteuid(), "group": os.getegid()}
    return {}


def _unprivileged_user() -> int | None:
    """Return the user that the child gets if we are root and that user can read it."""
    if os.geteuid():
        return None
    try:
        uid = pwd.getpwnam(UNPRIVILEGED_USER).pw_uid
    except KeyError:
        return None
    paths = (PACKAGE, f"{sys.prefix}/lib", f"{sys.base_prefix}/lib")
    is_readable = os.stat(__file__).st_mode & stat.S_IROTH and not any(
        path_access.first_blocked_directory(f"{path}/x", UNPRIVILEGED_USER)
        for path in paths
    )
    return uid if is_readable else None


def _parse_reply(json_text: bytes, text: bytes) -> MessageContent:
    """Return the content in a reply. Raises ValueError for anything else."""
    values: Any = json.loads(json_text)
    if not isinstance(values, list) or len(values) != len(MessageContent._fields):
        raise ValueError("not a message")
    named = dict(zip(MessageContent._fields, values, strict=True))
    date = named["date"]
    if date is not None and (
        not isinstance(date, int | float) or not math.isfinite(date)
    ):
        raise ValueError("not a date")
    return MessageContent(
        from_=_texts(named["from_"]),
        to=_texts(named["to"]),
        cc=_texts(named["cc"]),
        bcc=_texts(named["bcc"]),
        subject=_text(named["subject"]),
        date=None if date is None else float(date),
        message_id=_text(named["message_id"]),
        list_id=_text(named["list_id"]),
        list_name=_text(named["list_name"]),
        references=_texts(named["references"]),
        text=text.decode(),
        attachments=tuple(map(_attachment, _list(named["attachments"]))),
        problems=_texts(named["problems"]),
    )


def _attachment(value: Any) -> Attachment:
    name, media_type, size = _list(value)
    if not isinstance(size, int):
        raise ValueError("not a size")
    return Attachment(_text(name), _text(media_type), size)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    value.encode()  # a lone surrogate is a ValueError
    return value
