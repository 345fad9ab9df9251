"""Gives messages to Postfix: an SMTP client for the internal ports on loopback.

Used by front/stamp_filter and front/archive_transport. Speaks RFC 5321 with PIPELINING,
SMTPUTF8, DSN and XFORWARD; for addresses that SMTP cannot carry see back/qmqp. What is
given counts as given only when Postfix has said 250 and named its queue id. Foreign
errors leave as HandBackUnreachable or HandBackRefused; both mean: defer.
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

# Seconds for one answer: over Postfix's own smtp_data_done_timeout (600 s) no peer
# of ours is still at work. archive_time_limit ends the whole.
TIMEOUT = 600
# RCPT commands in flight: their replies must fit the socket's buffer, or both sides
# wait for each other (RFC 2920 3.1). 100 replies of at most 512 bytes.
WINDOW = 100
COMMAND_LIMIT = 510  # bytes without the CRLF
SERVER_LIMIT = 2046  # the same: what smtpd(8) reads, line_length_limit in postconf(5)
ATTRIBUTE_LIMIT = 255  # bytes of xtext: what smtpd(8) takes for a value of XFORWARD
LINE_LIMIT = 65536  # bytes of one reply line; RFC 5321 4.5.3.1.5 says 512
LINES_LIMIT = 100  # of one reply; Postfix's longest, to EHLO, has about 12
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
        """True if the address is one that Postfix's smtpd cannot take at all.

        sendmail(1) lets such addresses through; the one permanent fact in hand-back.
        """
        return self.code == 501 and self.text[4:].startswith("5.1.")


class Session:
    """One SMTP connection to an internal port, for one message after the other."""

    def __init__(self, port: tuple[str, int]) -> None:
        self.port = port
        self.is_fresh = True  # nothing was given on it yet
        self._name = f"{port[0]}:{port[1]}"
        self._held = b""
        self._ahead: list[bytes] = []  # commands that go with the next MAIL
        self._in_data = False
        self._socket = connected(port)
        self._expect(220, self._reply(), "the greeting")
        self._offers = self._said(b"EHLO localhost", 250).keywords

    @property
    def is_alive(self) -> bool:
        """Tell whether the other side still waits for us; it has nothing to say."""
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
        """Pass on who the real client is (XFORWARD_README), for log and header.

        Goes with what ask() says.
        """
        if b"XFORWARD" not in self._offers:
            raise HandBackRefused(
                f"{self._name} does not offer XFORWARD: set"
                " smtpd_authorized_xforward_hosts there as in master.cf.d"
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
        """Ask for MAIL, every RCPT and DATA; tell whether SMTP can carry all of it.

        All that the client may say at once (RFC 2920 3.1) goes in one write. False
        means qmqp.give(), and that this session is to be closed. Any other refusal
        raises HandBackRefused.
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
        """Tell whether MAIL and RCPT are answered well; raises HandBackRefused."""
        if any(each.impossible for each in replies):
            return False
        for reply, command in zip(replies, commands):
            self._expect(250, reply, command[:4].decode())
        return True

    def give(self, content: Iterable[bytes]) -> str:
        """Send canonical content, which ask() was for; return Postfix's queue id."""
        if not self._in_data:
            raise HandBackRefused(f"{self._name} takes no message for these addresses")
        for block in wire.blocks(wire.stuffed(content)):
            self._send(block)
        self._send(b".\r\n")
        reply = self._reply()
        self._in_data = self.is_fresh = False
        self._expect(250, reply, "the message")
        return queue_id(reply.text)

    def close(self) -> None:
        """End the session; what was given stays given whatever happens here."""
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
        """Send commands in one write, return their replies."""
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
            raise HandBackUnreachable(f"{self._name} does not speak SMTP")
        return Reply(int(lines[-1][:3]), lines)

    def _line(self) -> bytes:
        while b"\n" not in self._held:
            try:
                piece = self._socket.recv(BLOCK)
            except OSError as problem:
                raise self._broken(problem) from problem
            if not piece or len(self._held) > LINE_LIMIT:
                raise self._broken("it hung up")
            self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        return line.rstrip(b"\r")

    def _broken(self, problem: object) -> HandBackUnreachable:
        return HandBackUnreachable(
            f"the connection to {self._name} broke: {problem}; see Postfix's log"
        )

    def _expect(self, code: int, reply: Reply, what: str) -> None:
        if reply.code != code:
            raise HandBackRefused(f"{self._name} answered {what} with: {reply.text}")


def submit(
    port: tuple[str, int],
    sender: bytes,
    recipients: tuple[Recipient, ...],
    content: Iterable[bytes],
    *,
    eightbit: bool,
    notify: bytes = b"",
) -> str:
    """Give one message to a port in a session of its own; return its queue id."""
    session = Session(port)
    session.ask(sender, recipients, eightbit=eightbit, notify=notify)
    queue_id = session.give(content)
    session.close()
    return queue_id


def queue_id(text: str) -> str:
    """Return the id in what Postfix says to a message that it has taken."""
    words = text.partition("queued as ")[2].split()
    return words[0] if words else "unknown"


def connected(port: tuple[str, int]) -> socket:
    """Return a connection to an internal port. Raises HandBackUnreachable."""
    peer = socket(AF_INET6 if ":" in port[0] else AF_INET, SOCK_STREAM)
    peer.settimeout(TIMEOUT)
    # The last line goes at once, and not after the delayed ACK of what came before.
    peer.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    try:
        peer.connect(port)
    except OSError as problem:
        peer.close()
        raise HandBackUnreachable(
            f"nobody answers on {port[0]}:{port[1]}: {problem}; is its service in"
            " master.cf and the same as in archive.cf?"
        ) from problem
    return peer


def _commands(verb: bytes, words: list[bytes]) -> Iterator[bytes]:
    """Put as many words on a command line as RFC 5321 4.5.3.1.4 allows (512)."""
    command = verb
    for word in words:
        if len(command) + len(word) > COMMAND_LIMIT and command != verb:
            yield command
            command = verb
        command += word
    yield command


def _rcpt(recipient: Recipient, notify: bytes) -> bytes:
    """Return the command; smtpd(8) would cut a longer one in the middle of ORCPT."""
    command = b"RCPT TO:<" + recipient.final + b">"
    wanted = notify or recipient.notify
    command += b" NOTIFY=" + wanted if wanted else b""
    orcpt = recipient.orcpt or address.orcpt(recipient.original or recipient.final)
    longer = command + b" ORCPT=" + orcpt
    return longer if len(longer) <= SERVER_LIMIT else command
