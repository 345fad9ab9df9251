"""The server's side of an LMTP session (RFC 2033): bytes in; events and replies out.

Used by intake/lmtp_worker. Pure: no socket, no clock. The content of a message comes
out in chunks as it arrives; the message is complete with the event MessageComplete, and
then the session waits for answer() with one reply for each recipient. An error of the
client gets an error reply; one that could hide the end of a message ends the session.

    receive_data(bytes) -> next_event() until None -> data_to_send() -> receive_data(…)
"""

from __future__ import annotations

from postfix_archive.intake import lmtp_command
from postfix_archive.message.smtp_data import DataDecoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Bytes of a command line. An address has at most line_length_limit bytes (2048,
# postconf(5)), its quoted form twice that, its ORCPT in xtext three times that. A
# capture recipient contains the quoted form, and is quoted and sent as ORCPT itself.
COMMAND_LINE_LIMIT = 24576
# What qmgr(8) reads of one message (qmgr_message_recipient_limit, postconf(5)).
RECIPIENT_LIMIT = 20000
# Bytes of all RCPT lines: even with every control character written as \xNN they stay
# below capsule.FIELDS_LIMIT. lmtp(8) sends the other recipients in a next transaction.
ENVELOPE_SIZE_LIMIT = 3 << 19
ERROR_LIMIT = 20  # smtpd_hard_error_limit in postconf(5)
# Commands without mail: smtpd_junk_command_limit in postconf(5).
IDLE_COMMAND_LIMIT = 100
REPLY_LIMIT = 510  # bytes without the CRLF: RFC 5321 4.5.3.1.5

LHLO_EXTENSIONS = (
    b"PIPELINING",
    b"SIZE",
    b"8BITMIME",
    b"SMTPUTF8",
    b"DSN",
    b"ENHANCEDSTATUSCODES",
    b"XFORWARD " + b" ".join(lmtp_command.XFORWARD_MACROS),
)


class LmtpRecipient:
    """One recipient, with NOTIFY and ORCPT as they were sent, or empty."""

    __slots__ = ("address", "notify", "orcpt")

    def __init__(self, address: bytes, parameters: dict[bytes, bytes]) -> None:
        self.address = address
        self.notify = parameters.get(b"NOTIFY", b"")
        self.orcpt = parameters.get(b"ORCPT", b"")


class LmtpEnvelope:
    """Envelope of one message: MAIL, RCPT and XFORWARD.

    ``xforward`` has the names of pipe(8)'s macros; ``ret`` is as sent, ``envid`` is
    decoded from xtext.
    """

    __slots__ = (
        "envid",
        "is_8bitmime",
        "xforward",
        "recipients",
        "ret",
        "sender",
        "smtputf8",
    )

    def __init__(
        self,
        sender: bytes,
        parameters: dict[bytes, bytes],
        xforward: dict[bytes, bytes],
    ) -> None:
        self.sender = sender
        self.xforward = xforward
        self.recipients: list[LmtpRecipient] = []
        self.is_8bitmime = parameters.get(b"BODY", b"").upper() == b"8BITMIME"
        self.smtputf8 = b"SMTPUTF8" in parameters
        self.ret = parameters.get(b"RET", b"")
        self.envid = lmtp_command.decode_xtext(parameters.get(b"ENVID", b"")) or b""


class MessageStarted:
    """DATA was accepted: the envelope is complete, the content follows."""

    __slots__ = ("envelope",)

    def __init__(self, envelope: LmtpEnvelope) -> None:
        self.envelope = envelope


class MessageChunk:
    """The next bytes of the message, in canonical form."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content


class MessageComplete:
    """The message is complete and waits for answer()."""

    __slots__ = ()


class MessageAborted:
    """The message will not be completed: discard its chunks."""

    __slots__ = ()


class SessionClosed:
    """The session is over: send the replies and disconnect."""

    __slots__ = ()


if TYPE_CHECKING:
    Event = (
        MessageStarted | MessageChunk | MessageComplete | MessageAborted | SessionClosed
    )


class Session:
    """An LMTP session with one client, from the greeting to its end."""

    def __init__(self, host: bytes) -> None:
        self._host = host
        self._buffer = b""  # received from the client
        self._position = 0  # up to here it is parsed
        self._replies: list[bytes] = []
        self._events: list[Event] = []
        self._content: DataDecoder | None = None
        self._envelope: LmtpEnvelope | None = None
        self._forwarded: dict[bytes, bytes] = {}
        self._envelope_size = 0
        self._error_count = 0
        self._idle_command_count = 0
        self._has_lhlo = False
        self._is_awaiting_answers = False
        self._is_closed = False
        self._reply(b"220 " + host + b" LMTP postfix-archive")

    @property
    def is_between_messages(self) -> bool:
        """True if no mail transaction is open, so the session may end."""
        return self._envelope is None

    def receive_data(self, data: bytes) -> None:
        """Add bytes from the client, any number of them."""
        if not self._is_closed:
            self._buffer, self._position = self._buffer[self._position :] + data, 0

    def next_event(self) -> Event | None:
        """Return the next event; None until more bytes, or the answers, are given."""
        while (
            not self._events and not self._is_awaiting_answers and not self._is_closed
        ):
            if not (self._read_content() if self._content else self._read_command()):
                break
        return self._events.pop(0) if self._events else None

    def data_to_send(self) -> bytes:
        """Return the pending replies, and clear them."""
        data, self._replies = b"".join(self._replies), []
        return data

    def answer(self, answers: Sequence[tuple[int, str]]) -> None:
        """Reply to a complete message: code and text for each recipient, in order.

        Each text begins with a status code of RFC 3463. If the number of answers is
        wrong, which is a bug, all recipients are deferred.
        """
        recipients = self._envelope.recipients if self._envelope else []
        if len(answers) != len(recipients):
            answers = [(451, "4.3.0 internal error: wrong number of replies")] * len(
                recipients
            )
        for code, text in answers:
            reply = b"%d " % code + " ".join(text.split()).encode("utf-8", "replace")
            self._reply(reply)
        self._is_awaiting_answers = False
        self._error_count = self._idle_command_count = 0
        self._reset()

    def connection_lost(self) -> None:
        """Note that the client has disconnected; an incomplete message is aborted."""
        self._close()

    def end(self, reason: bytes) -> None:
        """End the session from our side, with a 421 reply."""
        self._reply(b"421 " + reason)
        self._close()

    # --- content --------------------------------------------------------------------

    def _read_content(self) -> bool:
        """Read what has arrived of the message; tell whether anything was read."""
        content = self._content
        if content is None or self._position == len(self._buffer):
            return False
        chunk = content.decode(self._buffer[self._position :])
        self._buffer, self._position = content.rest, 0
        if chunk and not content.has_bare_lf:
            self._events.append(MessageChunk(chunk))
        if content.is_complete:
            self._content = None
            self._finish_message(content)
        return True

    def _finish_message(self, content: DataDecoder) -> None:
        if not content.has_bare_lf:
            self._is_awaiting_answers = True
            self._events.append(MessageComplete())
            return
        self._events.append(MessageAborted())
        recipients = self._envelope.recipients if self._envelope else []
        self.answer([(451, "4.6.0 bare LF in message")] * len(recipients))

    # --- commands ---------------------------------------------------------------------

    def _read_command(self) -> bool:
        """Read and execute one command line; tell whether there was one."""
        line_end = self._buffer.find(b"\n", self._position)
        length = (len(self._buffer) if line_end < 0 else line_end) - self._position
        if length > COMMAND_LINE_LIMIT:
            self.end(b"4.5.2 command line of more than %d bytes" % COMMAND_LINE_LIMIT)
            return True
        if line_end < 0:
            return False
        line = self._buffer[self._position : line_end]
        self._position = line_end + 1
        if not line.endswith(b"\r"):
            self.end(b"4.5.2 bare LF at the end of a command line")
            return True
        self._execute(line[:-1])
        return True

    def _execute(self, line: bytes) -> None:
        verb, arguments = lmtp_command.split_command(line)
        handler = COMMAND_HANDLERS.get(verb)
        if handler is None or b"\0" in line:
            self._reject(b"500 5.5.2 command not recognised")
        elif not self._has_lhlo and verb in LHLO_REQUIRED:
            self._reject(b"503 5.5.1 send LHLO first")
        else:
            handler(self, arguments)
        if (
            self._error_count > ERROR_LIMIT
            or self._idle_command_count > IDLE_COMMAND_LIMIT
        ):
            self.end(b"4.7.0 too many errors, or too many commands without mail")

    def _handle_lhlo(self, arguments: bytes) -> None:
        if not arguments:
            return self._reject(b"501 5.5.4 syntax: LHLO hostname")
        self._idle_command_count += 1
        self._reset()
        self._has_lhlo = True
        lines = (self._host, *LHLO_EXTENSIONS)
        for each in lines[:-1]:
            self._reply(b"250-" + each)
        return self._reply(b"250 " + lines[-1])

    def _handle_xforward(self, arguments: bytes) -> None:
        attributes = lmtp_command.parse_xforward(arguments)
        if self._envelope is not None:
            return self._reject(b"503 5.5.1 XFORWARD within a mail transaction")
        if attributes is None:
            return self._reject(b"501 5.5.4 bad XFORWARD attribute")
        self._idle_command_count += 1
        self._forwarded.update(attributes)
        return self._reply(b"250 2.0.0 Ok")

    def _handle_mail(self, arguments: bytes) -> None:
        parsed = lmtp_command.parse_mail(arguments)
        if self._envelope is not None:
            return self._reject(b"503 5.5.1 nested MAIL command")
        if parsed is None:
            return self._reject(b"501 5.5.4 bad MAIL FROM:<address>, or bad parameter")
        self._envelope = LmtpEnvelope(*parsed, self._forwarded)
        return self._reply(b"250 2.1.0 Ok")

    def _handle_rcpt(self, arguments: bytes) -> None:
        parsed = lmtp_command.parse_rcpt(arguments)
        if self._envelope is None:
            return self._reject(b"503 5.5.1 need MAIL before RCPT")
        if parsed is None:
            return self._reject(b"501 5.5.4 bad RCPT TO:<address>, or bad parameter")
        self._envelope_size += len(arguments)
        is_full = self._envelope_size > ENVELOPE_SIZE_LIMIT
        if is_full or len(self._envelope.recipients) >= RECIPIENT_LIMIT:
            return self._reply(b"452 4.5.3 too many recipients in one transaction")
        self._envelope.recipients.append(LmtpRecipient(*parsed))
        return self._reply(b"250 2.1.5 Ok")

    def _handle_data(self, arguments: bytes) -> None:
        if arguments:
            return self._reject(b"501 5.5.4 syntax: DATA")
        if self._envelope is None or not self._envelope.recipients:
            return self._reject(b"503 5.5.1 no valid recipients")
        self._content = DataDecoder()
        self._events.append(MessageStarted(self._envelope))
        return self._reply(b"354 End data with <CR><LF>.<CR><LF>")

    def _handle_rset(self, arguments: bytes) -> None:
        self._idle_command_count += 1
        self._reset()
        self._reply(b"250 2.0.0 Ok")

    def _handle_noop(self, arguments: bytes) -> None:
        self._idle_command_count += 1
        self._reply(b"250 2.0.0 Ok")

    def _handle_vrfy(self, arguments: bytes) -> None:
        self._idle_command_count += 1
        self._reply(b"252 2.0.0 cannot verify, send mail instead")

    def _handle_bdat(self, arguments: bytes) -> None:
        """Refuse BDAT and end: what follows is content, not commands."""
        self._reply(b"502 5.5.1 BDAT not supported")
        self.end(b"4.5.1 session ends after BDAT")

    def _handle_quit(self, arguments: bytes) -> None:
        self._reply(b"221 2.0.0 Bye")
        self._close()

    # --- replies and state ----------------------------------------------------------

    def _reply(self, reply: bytes) -> None:
        self._replies.append(reply[:REPLY_LIMIT] + b"\r\n")

    def _reject(self, reply: bytes) -> None:
        self._error_count += 1
        self._reply(reply)

    def _reset(self) -> None:
        """End the transaction and forget the XFORWARD attributes (XFORWARD_README)."""
        self._envelope = None
        self._forwarded = {}
        self._envelope_size = 0

    def _close(self) -> None:
        if self._is_closed:
            return
        if self._content is not None or self._is_awaiting_answers:
            self._events.append(MessageAborted())
        self._content = None
        self._is_awaiting_answers = False
        self._is_closed = True
        self._buffer, self._position = b"", 0
        self._reset()
        self._events.append(SessionClosed())


COMMAND_HANDLERS = {
    b"LHLO": Session._handle_lhlo,
    b"XFORWARD": Session._handle_xforward,
    b"MAIL": Session._handle_mail,
    b"RCPT": Session._handle_rcpt,
    b"DATA": Session._handle_data,
    b"RSET": Session._handle_rset,
    b"NOOP": Session._handle_noop,
    b"VRFY": Session._handle_vrfy,
    b"BDAT": Session._handle_bdat,
    b"QUIT": Session._handle_quit,
}
LHLO_REQUIRED = (b"XFORWARD", b"MAIL", b"RCPT", b"DATA")
