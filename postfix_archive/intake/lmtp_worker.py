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

from postfix_archive.config import archive_cf
from postfix_archive.errors import ArchiveError, ArgumentsInvalid
from postfix_archive.intake import lmtp_session, pipe
from postfix_archive.message import address, digest, received_header, request
from postfix_archive.message.envelope import Recipient
from postfix_archive.postfix import smtp_client
from postfix_archive.stamp_filter import transaction
from postfix_archive.stamp_filter.write_through import WriteThrough
from postfix_archive.store import copy_file
from postfix_archive.system import deadline, spool
from postfix_archive.system.file_watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from postfix_archive.config.settings import Settings
    from postfix_archive.intake.lmtp_session import LmtpEnvelope
    from postfix_archive.message.keyring import Keyring
    from postfix_archive.postfix.smtp_client import ConnectionCache

READ_SIZE = 1 << 16  # bytes a read
# The nexthop for which the worker is the archive transport.
CAPSULE_NEXTHOP = b"capsule"
# Seconds. More than archive_time_limit below the time limit of the spawn(8) service in
# 40-archive-lmtp.cf, at which spawn(8) kills the worker.
LIFETIME = 3600
# Seconds: without a message in between, files are checked no more often.
CHECK_INTERVAL = 1
XFORWARD_SOURCES = {b"LOCAL": True, b"REMOTE": False}  # XFORWARD_README


class LoadedConfiguration:
    """Settings and keys as a worker has read them, and write-through to the store."""

    __slots__ = ("_key_watch", "_settings_watch", "keys", "settings", "write_through")

    def __init__(self, config_directory: bytes) -> None:
        directory = archive_cf.find_config_directory(
            os.fsdecode(config_directory) or None
        )
        self._settings_watch = Watch(f"{directory}/{archive_cf.FILE_NAME}")
        self.settings: Settings = archive_cf.load(directory)
        self._key_watch = Watch(self.settings.archive_key_file)
        self.keys: Keyring = archive_cf.load_keys(self.settings)
        self.write_through = WriteThrough(self.settings, self.keys)

    @property
    def is_outdated(self) -> bool:
        """True if the files of the settings or keys have changed since."""
        return self._settings_watch.is_changed or self._key_watch.is_changed


class LmtpTransaction(transaction.Transaction):
    """One message from Postfix, with the envelope of the LMTP session."""

    def __init__(
        self,
        configuration: LoadedConfiguration,
        connection_cache: ConnectionCache,
        macros: dict[bytes, bytes],
        envelope: LmtpEnvelope,
    ) -> None:
        self.connection_cache = connection_cache
        self._configuration = configuration
        self.settings = configuration.settings
        self.keys = configuration.keys
        self.macros = {**macros, b"sender": envelope.sender, b"envid": envelope.envid}
        xforward = dict(envelope.xforward)
        self.is_local = XFORWARD_SOURCES.get(xforward.pop(b"source", b"").upper())
        if self.is_local is None:
            raise ArgumentsInvalid(
                "no XFORWARD SOURCE from lmtp(8); set lmtp_send_xforward_command = yes"
                " for this service, as in master.cf.d"
            )
        self.macros.update(
            (n, transaction.macro_value(n, v)) for n, v in xforward.items()
        )
        self.recipients = tuple(map(_to_recipient, envelope.recipients))
        self.ret = envelope.ret
        self.smtputf8 = envelope.smtputf8
        self.is_8bitmime = envelope.is_8bitmime
        self.now = int(time.time())
        self.message = spool.Spool()

    @property
    def write_through(self) -> WriteThrough:
        """Write-through to the store, the same for all messages."""
        return self._configuration.write_through

    def set_queue_id(self) -> None:
        """Set the queue id to that in the top Received: line of the message."""
        reported, host = self.macros[b"queue-id"], self.settings.myhostname
        head = self.message.head(limit=READ_SIZE)
        self.macros[b"queue-id"] = received_header.find_queue_id(
            head, ident=reported, host=host
        )


class Worker:
    """Serves one LMTP client on two file descriptors until its session ends."""

    def __init__(
        self,
        handler: Callable[[transaction.Transaction], str],
        macros: dict[bytes, bytes],
        *,
        input_descriptor: int = 0,
        output_descriptor: int = 1,
    ) -> None:
        self._handler = handler
        self._macros = macros
        self._input_descriptor = input_descriptor
        self._output_descriptor = output_descriptor
        self._session = lmtp_session.Session(os.uname().nodename.encode())
        self._configuration: LoadedConfiguration | None = None
        self._connection_cache = smtp_client.ConnectionCache(is_enabled=True)
        *modules, release = _program_files()
        self._release_watch, self._module_watch = Watch(release), Watch(*modules)
        self._last_module_check = 0.0
        self._end_time = time.monotonic() + LIFETIME
        # None: not checked since the last message.
        self._last_check: float | None = None
        self._transaction: LmtpTransaction | None = None
        self._recipient_count = 0
        self._error_reply: tuple[int, str] | None = None  # of the current message
        self._is_open = True

    def serve(self) -> None:
        """Serve until the session ends.

        Raises ConnectionError if the client has disconnected, and DeadlineExceeded if
        the time limit ends outside the handling of a message. In both cases the current
        message has no reply yet, so the client sends it again.
        """
        self._send()
        while self._is_open:
            data = self._read()
            if data and self._session.is_between_messages and self._is_due_to_end():
                self._session.end(b"4.3.2 worker restarts, connect again")
            elif data:
                self._session.receive_data(data)
            else:
                self._session.connection_lost()
            while (event := self._session.next_event()) is not None:
                self._handle_event(event)
            self._send()

    def _handle_event(self, event: lmtp_session.Event) -> None:
        if isinstance(event, lmtp_session.MessageStarted):
            self._begin_message(event.envelope)
        elif isinstance(event, lmtp_session.MessageChunk):
            self._append_chunk(event.content)
        elif isinstance(event, lmtp_session.MessageComplete):
            self._session.answer([self._handle_message()] * self._recipient_count)
            self._last_check = None
            self._send()  # before the next message, since this one is done
        else:
            self._discard_message()
            self._is_open = not isinstance(event, lmtp_session.SessionClosed)

    def _begin_message(self, envelope: LmtpEnvelope) -> None:
        self._recipient_count = len(envelope.recipients)
        self._error_reply = None
        try:
            self._configuration = self._configuration or LoadedConfiguration(
                self._macros[b"config-directory"]
            )
            deadline.set_deadline(self._configuration.settings.archive_time_limit)
            self._transaction = LmtpTransaction(
                self._configuration, self._connection_cache, self._macros, envelope
            )
        except Exception as error:
            self._record_failure(error, envelope.xforward.get(b"queue-id", b""))

    def _append_chunk(self, chunk: bytes) -> None:
        """Spool a chunk; after a failure the rest is discarded, the reply says why."""
        if self._transaction is None:
            return
        try:
            directory = self._transaction.settings.archive_spool_directory
            spool.append(self._transaction.message, chunk, directory)
        except Exception as error:
            self._record_failure(error, self._transaction.macros[b"queue-id"])

    def _handle_message(self) -> tuple[int, str]:
        """Handle the complete message; return the reply for each recipient."""
        if self._transaction is not None:
            try:
                self._transaction.set_queue_id()
                text = self._handler(self._transaction)
                alarm(0)
                self._discard_message()
                return 250, f"2.0.0 {text}"
            except Exception as error:
                self._record_failure(error, self._transaction.macros[b"queue-id"])
        return self._error_reply or (451, "4.3.0 message without envelope")

    def _record_failure(self, error: Exception, queue_id: bytes) -> None:
        """Note the error reply and discard the message."""
        self._discard_message()
        code = 452 if isinstance(error, MemoryError) else 451
        self._error_reply = code, _report(error, queue_id, self._macros)

    def _discard_message(self) -> None:
        alarm(0)
        if self._transaction is not None:
            self._transaction.message.close()
        self._transaction = None

    def _is_due_to_end(self) -> bool:
        """Tell whether the lifetime is over, or code or settings have changed.

        An upgrade changes the symlink to the release; a module alone is seldom edited.
        """
        now = time.monotonic()
        if self._last_check is not None and now - self._last_check < CHECK_INTERVAL:
            return now > self._end_time
        self._last_check = now
        is_outdated = (
            self._configuration is not None and self._configuration.is_outdated
        )
        if is_outdated or self._release_watch.is_changed or now > self._end_time:
            return True
        if now - self._last_module_check < CHECK_INTERVAL:
            return False
        self._last_module_check = now
        return self._module_watch.is_changed

    def _read(self) -> bytes:
        try:
            return os.read(self._input_descriptor, READ_SIZE)
        except ConnectionError:
            return b""

    def _send(self) -> None:
        """Send all pending replies, in one write unless the client is slow to read."""
        data = self._session.data_to_send()
        while data:
            data = data[os.write(self._output_descriptor, data) :]


def main(arguments: list[bytes]) -> int:
    """Serve one client; return 0, also if it has disconnected before a reply."""
    signal(SIGPIPE, SIG_IGN)
    digest.select_implementation(
        digest.OPENSSL_THRESHOLD
    )  # a worker digests many messages
    copy_file.select_compression()
    macros, _ = transaction.parse_arguments(arguments)
    try:
        Worker(_message_handler(macros[b"nexthop"]), macros).serve()
    except ConnectionError:
        pass
    except ArchiveError as error:  # DeadlineExceeded, outside the handling of a message
        text = _report(error, b"", macros)
        os.write(1, f"421 {text}\r\n".encode())
    return 0


def _message_handler(nexthop: bytes) -> Callable[[transaction.Transaction], str]:
    """Return the function that handles a message; the same as in pipe mode."""
    if nexthop == CAPSULE_NEXTHOP:
        return pipe.archive_capsule
    if nexthop == request.CAPTURE_NEXTHOP.encode():
        from postfix_archive.stamp_filter import native_capture

        return native_capture.archive_message
    from postfix_archive.stamp_filter import capture

    return capture.filter_message


def _to_recipient(recipient: lmtp_session.LmtpRecipient) -> Recipient:
    """Return the recipient, with ORCPT only if it differs from Postfix's default.

    Postfix derives the default from the address without its quotes.
    """
    unquoted = address.unquote(recipient.address)
    is_default_orcpt = recipient.orcpt in map(
        address.orcpt, (recipient.address, unquoted)
    )
    return Recipient(
        recipient.address,
        recipient.address,
        notify=recipient.notify,
        orcpt=b"" if is_default_orcpt else recipient.orcpt,
    )


def _report(error: Exception, queue_id: bytes, macros: dict[bytes, bytes]) -> str:
    """Log a failure; return the text of the reply, after its code."""
    from postfix_archive.intake import failure  # rarely needed

    return failure.report(
        error, queue_id=queue_id, config_directory=macros[b"config-directory"]
    )


def _program_files() -> list[str]:
    """Return the files of the imported modules and the symlink to the release."""
    paths = [
        str(module.__file__)
        for name, module in list(sys.modules.items())
        if name.startswith("postfix_archive.")
    ]
    return [*paths, f"{os.path.dirname(os.path.realpath(sys.argv[0]))}/current"]
