"""SMTP client for Postfix's internal ports on loopback: reinjection, capsules, copies.

Used by stamp_filter/capture and archive_transport/transport. Speaks RFC 5321 with
PIPELINING, SMTPUTF8, DSN and XFORWARD; postfix/qmqp_client takes addresses that SMTP
cannot carry. A message counts as accepted only after a 250 reply to its content.
Raises PostfixUnreachable or PostfixRefused; both defer the message.
"""

from __future__ import annotations

from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SOCK_STREAM,
    TCP_NODELAY,
    socket,
)

from postfix_archive.core import address, wire
from postfix_archive.core.errors import HandBackRefused, HandBackUnreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postfix_archive.core.envelope import Client, Recipient

# Seconds for one reply: Postfix's smtp_data_done_timeout (postconf(5)). The whole
# message is subject to archive_time_limit.
TIMEOUT = 600
# RCPT commands in flight. Their replies, of at most 512 bytes, must fit the socket's
# buffer, or both sides wait for each other (RFC 2920 3.1).
WINDOW = 100
COMMAND_LIMIT = 510  # bytes without the CRLF
SERVER_LIMIT = 2046  # the same, for smtpd(8): line_length_limit in postconf(5)
ATTRIBUTE_LIMIT = 255  # bytes of xtext that smtpd(8) accepts as an XFORWARD value
LINE_LIMIT = 65536  # bytes of a reply line; RFC 5321 4.5.3.1.5 allows 512
LINES_LIMIT = 100  # lines of a reply; Postfix's longest, to EHLO, has about 12
BLOCK = 1 << 16

XFORWARD = (
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
    def impossible(self) -> bool:
        """True if smtpd(8) rejects the syntax of the address.

        sendmail(1) accepts such addresses. This is the only permanent failure of
        reinjection; QMQP carries these messages.
        """
        return self.code == 501 and self.text[4:].startswith("5.1.")


class Session:
    """One SMTP connection to an internal port, for one or more messages.

    Every method may raise PostfixUnreachable and PostfixRefused.
    """

    def __init__(self, port: tuple[str, int]) -> None:
        self.port = port
        self.is_fresh = True  # no message has been sent on it
        self._name = f"{port[0]}:{port[1]}"
        self._held = b""
        self._ahead: list[bytes] = []  # commands to send together with the next MAIL
        self._in_data = False
        self._socket = connected(port)
        self._expect(220, self._reply(), "connect")
        self._offers = self._said(b"EHLO localhost", 250).keywords

    @property
    def is_alive(self) -> bool:
        """True if the server has neither closed the connection nor sent anything."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except BlockingIOError:
            self._socket.settimeout(TIMEOUT)
            return True
        except OSError:
            pass
        return False

    def forward(self, client: Client, queue_id: bytes, *, local: bool) -> None:
        """Prepare the XFORWARD commands with the original client (XFORWARD_README).

        send_envelope() sends them before MAIL.
        """
        if b"XFORWARD" not in self._offers:
            raise HandBackRefused(
                f"{self._name} does not offer XFORWARD; set"
                " smtpd_authorized_xforward_hosts for this service as in master.cf.d"
            )
        known = [(name, getattr(client, each)) for name, each in XFORWARD]
        known += [(b"IDENT", queue_id), (b"SOURCE", b"LOCAL" if local else b"REMOTE")]
        offered = self._offers[b"XFORWARD"].split()
        coded = [(n, address.xtext(v, limit=ATTRIBUTE_LIMIT)) for n, v in known]
        said = [
            b" " + name + b"=" + (value or b"[UNAVAILABLE]")
            for name, value in coded
            if name in offered
        ]
        self._ahead = list(_commands(b"XFORWARD", said))

    def ask(
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
        command = b"MAIL FROM:<" + sender + b">"
        command += b" BODY=8BITMIME" if eightbit else b""
        command += b" SMTPUTF8" if smtputf8 and b"SMTPUTF8" in self._offers else b""
        command += b" RET=" + ret if ret else b""
        command += b" ENVID=" + address.xtext(envid) if envid else b""
        if len(command) > SERVER_LIMIT:
            return False
        commands = [*self._ahead, command]
        ahead, self._ahead = len(self._ahead), []
        for at in range(0, max(1, len(recipients)), WINDOW):
            window = recipients[at : at + WINDOW]
            commands += [_rcpt(each, notify) for each in window]
            last = at + WINDOW >= len(recipients)
            replies = self._exchanged([*commands, b"DATA"] if last else commands)
            self._in_data = last and replies[-1].code == 354
            for each in replies[:ahead]:
                self._expect(250, each, "XFORWARD")
            if not self._takes(replies[ahead : len(commands)], commands[ahead:]):
                return False
            if last:
                self._expect(354, replies[-1], "DATA")
            commands, ahead = [], 0
        return True

    def _takes(self, replies: list[Reply], commands: list[bytes]) -> bool:
        """Tell whether smtpd(8) takes all addresses; raises PostfixRefused."""
        if any(each.impossible for each in replies):
            return False
        for reply, command in zip(replies, commands):
            self._expect(250, reply, command[:4].decode())
        return True

    def give(self, content: Iterable[bytes]) -> str:
        """Send the content, in canonical form, after send_envelope(); return queue id.

        On return Postfix has the message in its queue.
        """
        if not self._in_data:
            raise HandBackRefused(f"{self._name} has not accepted the envelope")
        for block in wire.blocks(wire.stuffed(content)):
            self._send(block)
        self._send(b".\r\n")
        reply = self._reply()
        self._in_data = self.is_fresh = False
        self._expect(250, reply, "end of data")
        return queue_id(reply.text)

    def close(self) -> None:
        """End the session. Errors are ignored: accepted messages stay accepted."""
        try:
            if not self._in_data:
                self._send(b"QUIT\r\n")
            self._socket.close()
        except (OSError, HandBackUnreachable):
            pass

    def _said(self, command: bytes, code: int) -> Reply:
        reply = self._command(command)
        self._expect(code, reply, command.split(b" ")[0].decode())
        return reply

    def _command(self, command: bytes) -> Reply:
        return self._exchanged([command])[0]

    def _exchanged(self, commands: list[bytes]) -> list[Reply]:
        """Send commands in one write; return their replies."""
        self._send(b"\r\n".join(commands) + b"\r\n")
        return [self._reply() for _ in commands]

    def _send(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError as problem:
            raise self._broken(problem) from problem

    def _reply(self) -> Reply:
        lines = [self._line()]
        while lines[-1][3:4] == b"-" and len(lines) <= LINES_LIMIT:
            lines.append(self._line())
        if not lines[-1][:3].isdigit() or len(lines) > LINES_LIMIT:
            raise HandBackUnreachable(
                f"{self._name}: invalid SMTP reply; check the port in archive.cf"
            )
        return Reply(int(lines[-1][:3]), lines)

    def _line(self) -> bytes:
        while b"\n" not in self._held:
            try:
                piece = self._socket.recv(BLOCK)
            except OSError as problem:
                raise self._broken(problem) from problem
            if not piece or len(self._held) > LINE_LIMIT:
                raise self._broken("closed by the server")
            self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        return line.rstrip(b"\r")

    def _broken(self, problem: object) -> HandBackUnreachable:
        return HandBackUnreachable(
            f"connection to {self._name} lost: {problem}; see Postfix's log"
        )

    def _expect(self, code: int, reply: Reply, what: str) -> None:
        if reply.code != code:
            raise HandBackRefused(f"{self._name} replied to {what}: {reply.text}")


def submit(
    port: tuple[str, int],
    sender: bytes,
    recipients: tuple[Recipient, ...],
    content: Iterable[bytes],
    *,
    eightbit: bool,
    notify: bytes = b"",
) -> str:
    """Send one message to a port in its own session; return its queue id."""
    session = Session(port)
    session.ask(sender, recipients, eightbit=eightbit, notify=notify)
    queue_id = session.give(content)
    session.close()
    return queue_id


def queue_id(text: str) -> str:
    """Return the queue id in Postfix's reply to an accepted message."""
    words = text.partition("queued as ")[2].split()
    return words[0] if words else "unknown"


def connected(port: tuple[str, int]) -> socket:
    """Connect to an internal port. Raises PostfixUnreachable."""
    peer = socket(AF_INET6 if ":" in port[0] else AF_INET, SOCK_STREAM)
    peer.settimeout(TIMEOUT)
    # Sends the last line at once, without waiting for the delayed ACK of earlier data.
    peer.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    try:
        peer.connect(port)
    except OSError as problem:
        peer.close()
        raise HandBackUnreachable(
            f"connect to {port[0]}:{port[1]}: {problem.strerror or problem}; check the"
            " service in master.cf and the port in archive.cf"
        ) from problem
    return peer


def _commands(verb: bytes, words: list[bytes]) -> Iterator[bytes]:
    """Pack arguments into command lines of at most 512 bytes (RFC 5321 4.5.3.1.4)."""
    command = verb
    for word in words:
        if len(command) + len(word) > COMMAND_LIMIT and command != verb:
            yield command
            command = verb
        command += word
    yield command


def _rcpt(recipient: Recipient, notify: bytes) -> bytes:
    """Return the RCPT command; without ORCPT if smtpd(8) would truncate the line."""
    command = b"RCPT TO:<" + recipient.final + b">"
    wanted = notify or recipient.notify
    command += b" NOTIFY=" + wanted if wanted else b""
    orcpt = recipient.orcpt or address.orcpt(recipient.original or recipient.final)
    longer = command + b" ORCPT=" + orcpt
    return longer if len(longer) <= SERVER_LIMIT else command
