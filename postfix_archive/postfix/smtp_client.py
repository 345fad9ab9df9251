"""SMTP client for Postfix's internal ports on loopback: reinjection, capsules, copies.

Used by stamp_filter/capture and archive_transport/transport. Speaks RFC 5321 with
PIPELINING, SMTPUTF8, DSN and XFORWARD; postfix/qmqp_client takes addresses that SMTP
cannot carry. A message counts as accepted only after a 250 reply to its content.
Raises PostfixUnreachable or PostfixRefused; both defer the message.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

from postfix_archive.errors import PostfixRefused, PostfixUnreachable
from postfix_archive.message import address, smtp_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postfix_archive.message.envelope import Client, Recipient

# Seconds for one reply: Postfix's smtp_data_done_timeout (postconf(5)). The whole
# message is subject to archive_time_limit.
REPLY_TIMEOUT = 600
# RCPT commands in flight. Their replies, of at most 512 bytes, must fit the socket's
# buffer, or both sides wait for each other (RFC 2920 3.1).
PIPELINE_WINDOW = 100
COMMAND_LENGTH_LIMIT = 510  # bytes without the CRLF
SMTPD_LINE_LIMIT = 2046  # the same, for smtpd(8): line_length_limit in postconf(5)
XFORWARD_VALUE_LIMIT = 255  # bytes of xtext that smtpd(8) accepts as an XFORWARD value
REPLY_LINE_LIMIT = 65536  # bytes of a reply line; RFC 5321 4.5.3.1.5 allows 512
REPLY_LINES_LIMIT = 100  # lines of a reply; Postfix's longest, to EHLO, has about 12
RECEIVE_SIZE = 1 << 16

DEFAULT_HELO = b"localhost"
XFORWARD_ATTRIBUTES = (
    (b"NAME", "hostname"),
    (b"ADDR", "address"),
    (b"PORT", "port"),
    (b"PROTO", "protocol"),
    (b"HELO", "helo"),
)


class Reply:
    """One SMTP reply: its code, and its last line as text."""

    __slots__ = ("code", "keywords", "text")

    def __init__(self, code: int, lines: list[bytes]) -> None:
        self.code = code
        self.text = lines[-1].decode("utf-8", "replace")
        self.keywords = {line[4:].split(b" ", 1)[0].upper(): line for line in lines[1:]}

    @property
    def is_address_syntax_error(self) -> bool:
        """True if smtpd(8) rejects the syntax of the address.

        sendmail(1) accepts such addresses. This is the only permanent failure of
        reinjection; QMQP carries these messages.
        """
        return self.code == 501 and self.text[4:].startswith("5.1.")


class Session:
    """One SMTP connection to an internal port, for one or more messages.

    Every method may raise PostfixUnreachable and PostfixRefused.
    """

    def __init__(self, port: tuple[str, int], helo: bytes = DEFAULT_HELO) -> None:
        self.port = port
        self.is_fresh = True  # no message has been sent on it
        self._peer_name = f"{port[0]}:{port[1]}"
        self._buffer = b""
        self._pending_commands: list[bytes] = (
            []
        )  # commands to send together with the next MAIL
        self._is_in_data = False
        self._socket = connect(port)
        self._expect(220, self._read_reply(), "connect")
        self._extensions = self._require(b"EHLO " + helo, 250).keywords

    @property
    def is_alive(self) -> bool:
        """True if the server has neither closed the connection nor sent anything."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except BlockingIOError:
            self._socket.settimeout(REPLY_TIMEOUT)
            return True
        except OSError:
            pass
        return False

    def prepare_xforward(self, client: Client, queue_id: bytes, *, local: bool) -> None:
        """Prepare the XFORWARD commands with the original client (XFORWARD_README).

        send_envelope() sends them before MAIL.
        """
        if b"XFORWARD" not in self._extensions:
            raise PostfixRefused(
                f"{self._peer_name} does not offer XFORWARD; set"
                " smtpd_authorized_xforward_hosts for this service as in master.cf.d"
            )
        attributes = [
            (name, getattr(client, each)) for name, each in XFORWARD_ATTRIBUTES
        ]
        attributes += [
            (b"IDENT", queue_id),
            (b"SOURCE", b"LOCAL" if local else b"REMOTE"),
        ]
        supported = self._extensions[b"XFORWARD"].split()
        encoded = [
            (n, address.xtext(v, limit=XFORWARD_VALUE_LIMIT)) for n, v in attributes
        ]
        arguments = [
            b" " + name + b"=" + (value or b"[UNAVAILABLE]")
            for name, value in encoded
            if name in supported
        ]
        self._pending_commands = list(_command_lines(b"XFORWARD", arguments))

    def send_envelope(
        self,
        sender: bytes,
        recipients: tuple[Recipient, ...],
        *,
        smtputf8: bool = False,
        eightbit: bool = False,
        envid: bytes = b"",
        ret: bytes = b"",
        notify: bytes = b"",
    ) -> bool:
        """Send MAIL, every RCPT and DATA; tell whether SMTP can carry all addresses.

        Sends in one write what may be pipelined (RFC 2920 3.1). After False, close this
        session and use qmqp_client.send_message(). Any other error reply raises
        PostfixRefused.
        """
        if not all(
            map(address.fits_smtp, (sender, *(each.final for each in recipients)))
        ):
            return False
        mail_command = b"MAIL FROM:<" + sender + b">"
        mail_command += b" BODY=8BITMIME" if eightbit else b""
        mail_command += (
            b" SMTPUTF8" if smtputf8 and b"SMTPUTF8" in self._extensions else b""
        )
        mail_command += b" RET=" + ret if ret else b""
        mail_command += b" ENVID=" + address.xtext(envid) if envid else b""
        if len(mail_command) > SMTPD_LINE_LIMIT:
            return False
        commands = [*self._pending_commands, mail_command]
        pending_count, self._pending_commands = len(self._pending_commands), []
        for start in range(0, max(1, len(recipients)), PIPELINE_WINDOW):
            window = recipients[start : start + PIPELINE_WINDOW]
            commands += [_rcpt_command(each, notify) for each in window]
            is_last = start + PIPELINE_WINDOW >= len(recipients)
            replies = self._exchange([*commands, b"DATA"] if is_last else commands)
            self._is_in_data = is_last and replies[-1].code == 354
            for each in replies[:pending_count]:
                self._expect(250, each, "XFORWARD")
            if not self._is_envelope_accepted(
                replies[pending_count : len(commands)], commands[pending_count:]
            ):
                return False
            if is_last:
                self._expect(354, replies[-1], "DATA")
            commands, pending_count = [], 0
        return True

    def _is_envelope_accepted(
        self, replies: list[Reply], commands: list[bytes]
    ) -> bool:
        """Tell whether smtpd(8) takes all addresses; raises PostfixRefused."""
        if any(each.is_address_syntax_error for each in replies):
            return False
        for reply, command in zip(replies, commands):
            self._expect(250, reply, command[:4].decode())
        return True

    def send_message(self, content: Iterable[bytes]) -> str:
        """Send the content, in canonical form, after send_envelope(); return queue id.

        On return Postfix has the message in its queue.
        """
        if not self._is_in_data:
            raise PostfixRefused(f"{self._peer_name} has not accepted the envelope")
        for chunk in smtp_data.join_blocks(smtp_data.dot_stuff(content)):
            self._send(chunk)
        self._send(b".\r\n")
        reply = self._read_reply()
        self._is_in_data = self.is_fresh = False
        self._expect(250, reply, "end of data")
        return parse_queue_id(reply.text)

    def close(self) -> None:
        """End the session. Errors are ignored: accepted messages stay accepted."""
        try:
            if not self._is_in_data:
                self._send(b"QUIT\r\n")
            self._socket.close()
        except (OSError, PostfixUnreachable):
            pass

    def _require(self, command: bytes, code: int) -> Reply:
        reply = self._send_command(command)
        self._expect(code, reply, command.split(b" ")[0].decode())
        return reply

    def _send_command(self, command: bytes) -> Reply:
        return self._exchange([command])[0]

    def _exchange(self, commands: list[bytes]) -> list[Reply]:
        """Send commands in one write; return their replies."""
        self._send(b"\r\n".join(commands) + b"\r\n")
        return [self._read_reply() for _ in commands]

    def _send(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise self._connection_error(error) from error

    def _read_reply(self) -> Reply:
        lines = [self._read_line()]
        while lines[-1][3:4] == b"-" and len(lines) <= REPLY_LINES_LIMIT:
            lines.append(self._read_line())
        if not lines[-1][:3].isdigit() or len(lines) > REPLY_LINES_LIMIT:
            raise PostfixUnreachable(
                f"{self._peer_name}: invalid SMTP reply; check the port in archive.cf"
            )
        return Reply(int(lines[-1][:3]), lines)

    def _read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            try:
                chunk = self._socket.recv(RECEIVE_SIZE)
            except OSError as error:
                raise self._connection_error(error) from error
            if not chunk or len(self._buffer) > REPLY_LINE_LIMIT:
                raise self._connection_error("closed by the server")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def _connection_error(self, reason: object) -> PostfixUnreachable:
        return PostfixUnreachable(
            f"connection to {self._peer_name} lost: {reason}; see Postfix's log"
        )

    def _expect(self, code: int, reply: Reply, step: str) -> None:
        if reply.code != code:
            raise PostfixRefused(f"{self._peer_name} replied to {step}: {reply.text}")


def submit(
    port: tuple[str, int],
    sender: bytes,
    recipients: tuple[Recipient, ...],
    content: Iterable[bytes],
    *,
    eightbit: bool,
    notify: bytes = b"",
    helo: bytes = DEFAULT_HELO,
) -> str:
    """Send one message to a port in its own session; return its queue id."""
    session = Session(port, helo)
    session.send_envelope(sender, recipients, eightbit=eightbit, notify=notify)
    queue_id = session.send_message(content)
    session.close()
    return queue_id


def parse_queue_id(text: str) -> str:
    """Return the queue id in Postfix's reply to an accepted message."""
    words_after = text.partition("queued as ")[2].split()
    return words_after[0] if words_after else "unknown"


def connect(port: tuple[str, int]) -> socket:
    """Connect to an internal port. Raises PostfixUnreachable."""
    connection = socket(AF_INET6 if ":" in port[0] else AF_INET, SOCK_STREAM)
    connection.settimeout(REPLY_TIMEOUT)
    # Sends the last line at once, without waiting for the delayed ACK of earlier data.
    connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    try:
        connection.connect(port)
    except OSError as error:
        connection.close()
        raise PostfixUnreachable(
            f"connect to {port[0]}:{port[1]}: {error.strerror or error}; check the"
            " service in master.cf and the port in archive.cf"
        ) from error
    return connection


def _command_lines(verb: bytes, arguments: list[bytes]) -> Iterator[bytes]:
    """Pack arguments into command lines of at most 512 bytes (RFC 5321 4.5.3.1.4)."""
    command = verb
    for argument in arguments:
        if len(command) + len(argument) > COMMAND_LENGTH_LIMIT and command != verb:
            yield command
            command = verb
        command += argument
    yield command


def _rcpt_command(recipient: Recipient, notify: bytes) -> bytes:
    """Return the RCPT command; without ORCPT if smtpd(8) would truncate the line."""
    command = b"RCPT TO:<" + recipient.final + b">"
    notify_value = notify or recipient.notify
    command += b" NOTIFY=" + notify_value if notify_value else b""
    orcpt = recipient.orcpt or address.orcpt(recipient.original or recipient.final)
    with_orcpt = command + b" ORCPT=" + orcpt
    return with_orcpt if len(with_orcpt) <= SMTPD_LINE_LIMIT else command


class ConnectionCache:
    """Keeps one session with the reinjection port for the next message, if enabled."""

    __slots__ = ("_is_enabled", "_session")

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._session: Session | None = None

    def take(self, port: tuple[str, int]) -> Session:
        """Return a session for one message, the cached one if it is still alive.

        Raises PostfixUnreachable and PostfixRefused.
        """
        session, self._session = self._session, None
        if session is not None and session.port == port and session.is_alive:
            return session
        if session is not None:
            session.close()
        return Session(port)

    def put_back(self, session: Session) -> None:
        """Cache a session without errors for the next message, or close it."""
        if self._is_enabled:
            self._session = session
        else:
            session.close()
