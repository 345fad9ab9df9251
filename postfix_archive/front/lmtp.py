"""LMTP mode: a worker under spawn(8) that serves one LMTP session on stdin and stdout.

Started by intake/launcher; the client is lmtp(8). Takes the envelope from the session
and handles each message with the same function as pipe mode. A 250 reply means done
durably. Every failure, bugs included, is a 4xx reply for that message, and the worker
goes on with the next. It ends between messages: when the client disconnects, when its
code or settings have changed on disk, or after LIFETIME.
"""

from __future__ import annotations

import os
import sys
import time
from _signal import SIG_IGN, SIGPIPE, alarm, signal

from postfix_archive.back import config, keeping, spool
from postfix_archive.back.watching import Watch
from postfix_archive.core import address, digest, lmtp, lmtp_mail, trace
from postfix_archive.core.envelope import Recipient
from postfix_archive.core.errors import ArchiveError, ArgumentsWrong
from postfix_archive.front import pipe
from postfix_archive.front.through import Through

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from postfix_archive.back.keeping import Line
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.lmtp_mail import Mail
    from postfix_archive.core.settings import Settings

PIECE = 1 << 16  # bytes a read
CAPSULES = b"capsule"  # the nexthop for which the worker is the archive transport
# Seconds. More than archive_time_limit below the time limit of the spawn(8) service in
# 40-archive-lmtp.cf, at which spawn(8) kills the worker.
LIFE = 3600
LOOK = 1  # seconds: without a message in between, files are checked no more often
SOURCES = {b"LOCAL": True, b"REMOTE": False}  # XFORWARD_README


class Ready:
    """Settings and keys as a worker has read them, and write-through to the store."""

    __slots__ = ("_key_file", "_settings_file", "keys", "settings", "through")

    def __init__(self, given: bytes) -> None:
        directory = config.directory(os.fsdecode(given) or None)
        self._settings_file = Watch(f"{directory}/{config.NAME}")
        self.settings: Settings = config.load(directory)
        self._key_file = Watch(self.settings.archive_key_file)
        self.keys: Keyring = config.keys(self.settings)
        self.through = Through(self.settings, self.keys)

    @property
    def is_outdated(self) -> bool:
        """True if the files of the settings or keys have changed since."""
        return self._settings_file.is_changed or self._key_file.is_changed


class Run(pipe.Run):
    """One message from Postfix, with the envelope of the LMTP session."""

    def __init__(
        self, ready: Ready, line: Line, said: dict[bytes, bytes], mail: Mail
    ) -> None:
        self.line = line
        self._ready = ready
        self.settings = ready.settings
        self.keys = ready.keys
        self.macros = {**said, b"sender": mail.sender, b"envid": mail.envid}
        forwarded = dict(mail.forwarded)
        self.local = SOURCES.get(forwarded.pop(b"source", b"").upper())
        if self.local is None:
            raise ArgumentsWrong(
                "no XFORWARD SOURCE from lmtp(8); set lmtp_send_xforward_command = yes"
                " for this service, as in master.cf.d"
            )
        self.macros.update((n, pipe.known(n, v)) for n, v in forwarded.items())
        self.recipients = tuple(map(_recipient, mail.people))
        self.ret = mail.ret
        self.smtputf8 = mail.smtputf8
        self.now = int(time.time())
        self.message = spool.Spool()

    @property
    def through(self) -> Through:
        """Write-through to the store, the same for all messages."""
        return self._ready.through

    def read_queue_id(self) -> None:
        """Set the queue id to that in the top Received: line of the message."""
        said, host = self.macros[b"queue-id"], self.settings.myhostname
        head = self.message.head(limit=PIECE)
        self.macros[b"queue-id"] = trace.queue_id(head, said=said, host=host)


class Worker:
    """Serves one LMTP client on two file descriptors until its session ends."""

    def __init__(
        self,
        door: Callable[[pipe.Run], str],
        macros: dict[bytes, bytes],
        *,
        reads: int = 0,
        writes: int = 1,
    ) -> None:
        self._door = door
        self._macros = macros
        self._reads = reads
        self._writes = writes
        self._session = lmtp.Session(os.uname().nodename.encode())
        self._ready: Ready | None = None
        self._line = keeping.Line(keeps=True)
        self._program = Watch(*_program())
        self._end = time.monotonic() + LIFE
        self._looked: float | None = None  # None: not checked since the last message
        self._run: Run | None = None
        self._people = 0
        self._problem: tuple[int, str] | None = None  # of the current message
        self._open = True

    def serve(self) -> None:
        """Serve until the session ends.

        Raises ConnectionError if the client has disconnected, and DeadlineExceeded if
        the time limit ends outside the handling of a message. In both cases the current
        message has no reply yet, so the client sends it again.
        """
        self._send()
        while self._open:
            sent = self._read()
            if sent and self._session.is_between_messages and self._is_over():
                self._session.end(b"4.3.2 worker restarts, connect again")
            elif sent:
                self._session.take(sent)
            else:
                self._session.hang_up()
            while (event := self._session.event()) is not None:
                self._note(event)
            self._send()

    def _note(self, event: lmtp.Event) -> None:
        if isinstance(event, lmtp_mail.Begun):
            self._begin(event.mail)
        elif isinstance(event, lmtp_mail.Piece):
            self._set_aside(event.content)
        elif isinstance(event, lmtp_mail.Whole):
            self._session.answer([self._outcome()] * self._people)
            self._looked = None
            self._send()  # before the next message, since this one is done
        else:
            self._forget()
            self._open = not isinstance(event, lmtp_mail.Closed)

    def _begin(self, mail: Mail) -> None:
        self._people = len(mail.people)
        self._problem = None
        try:
            self._ready = self._ready or Ready(self._macros[b"config-directory"])
            pipe.set_deadline(self._ready.settings.archive_time_limit)
            self._run = Run(self._ready, self._line, self._macros, mail)
        except Exception as error:
            self._fail(error, mail.forwarded.get(b"queue-id", b""))

    def _set_aside(self, content: bytes) -> None:
        """Spool a chunk; after a failure the rest is discarded, the reply says why."""
        if self._run is None:
            return
        try:
            directory = self._run.settings.archive_spool_directory
            spool.append(self._run.message, content, directory)
        except Exception as error:
            self._fail(error, self._run.macros[b"queue-id"])

    def _outcome(self) -> tuple[int, str]:
        """Handle the complete message; return the reply for each recipient."""
        if self._run is not None:
            try:
                self._run.read_queue_id()
                line = self._door(self._run)
                alarm(0)
                self._forget()
                return 250, f"2.0.0 {line}"
            except Exception as error:
                self._fail(error, self._run.macros[b"queue-id"])
        return self._problem or (451, "4.3.0 internal error: message without envelope")

    def _fail(self, error: Exception, queue_id: bytes) -> None:
        """Note the error reply and discard the message."""
        self._forget()
        self._problem = _answer(error, queue_id)

    def _forget(self) -> None:
        alarm(0)
        if self._run is not None:
            self._run.message.close()
        self._run = None

    def _is_over(self) -> bool:
        """Tell whether the lifetime is over, or code or settings have changed."""
        now = time.monotonic()
        if self._looked is not None and now - self._looked < LOOK:
            return now > self._end
        self._looked = now
        outdated = self._ready is not None and self._ready.is_outdated
        return outdated or self._program.is_changed or now > self._end

    def _read(self) -> bytes:
        try:
            return os.read(self._reads, PIECE)
        except ConnectionError:
            return b""

    def _send(self) -> None:
        """Send all pending replies, in one write unless the client is slow to read."""
        left = self._session.replies()
        while left:
            left = left[os.write(self._writes, left) :]


def main(arguments: list[bytes]) -> int:
    """Serve one client; return 0, also if it has disconnected before a reply."""
    signal(SIGPIPE, SIG_IGN)
    digest.expect(digest.MUCH)  # a worker digests many messages
    macros, _ = pipe.parse(arguments)
    try:
        Worker(_door(macros[b"nexthop"]), macros).serve()
    except ConnectionError:
        pass
    except ArchiveError as error:  # DeadlineExceeded, outside the handling of a message
        os.write(1, f"421 {error.dsn} {pipe.named(error)}\r\n".encode())
    return 0


def _door(nexthop: bytes) -> Callable[[pipe.Run], str]:
    """Return the function that handles a message; the same as in pipe mode."""
    if nexthop == CAPSULES:
        from postfix_archive.front import archive_transport

        return archive_transport.door
    from postfix_archive.front import stamp_filter

    return stamp_filter.door


def _recipient(told: lmtp_mail.Addressee) -> Recipient:
    """Return the recipient, with ORCPT only if it differs from Postfix's default.

    Postfix derives the default from the address without its quotes.
    """
    plain = address.unquoted(told.address)
    usual = told.orcpt in map(address.orcpt, (told.address, plain))
    return Recipient(
        told.address,
        told.address,
        notify=told.notify,
        orcpt=b"" if usual else told.orcpt,
    )


def _answer(error: Exception, queue_id: bytes) -> tuple[int, str]:
    place = f"queue id {queue_id.decode('utf-8', 'replace')}: " if queue_id else ""
    if isinstance(error, ArchiveError):
        return 451, f"{error.dsn} {place}{pipe.named(error)}"
    if isinstance(error, MemoryError):
        return 452, f"4.3.1 {place}out of memory"
    return 451, f"4.3.0 {place}internal error: {pipe.named(error)}"


def _program() -> list[str]:
    """Return the files of the imported modules and the symlink to the release."""
    files = [
        str(module.__file__)
        for name, module in list(sys.modules.items())
        if name.startswith("postfix_archive.")
    ]
    return [*files, f"{os.path.dirname(os.path.realpath(sys.argv[0]))}/current"]
