"""The server's side of an LMTP session (RFC 2033): bytes in; events and replies out.

Used by intake/lmtp_worker. Pure: no socket, no clock. The content of a message comes
out in chunks as it arrives; the message is complete with the event MessageComplete, and
then the session waits for answer() with one reply for each recipient. An error of the
client gets an error reply; one that could hide the end of a message ends the session.

    receive_data(bytes) -> next_event() until None -> data_to_send() -> receive_data(…)
"""

from __future__ import annotations

from postfix_archive.core import lmtp_command
from postfix_archive.core.lmtp_mail import (
    Addressee,
    Begun,
    Closed,
    Dropped,
    Mail,
    Piece,
    Whole,
)
from postfix_archive.core.unstuffing import Content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Event = Begun | Piece | Whole | Dropped | Closed

# Bytes of a command line. An address has at most line_length_limit bytes (2048,
# postconf(5)), its quoted form twice that, its ORCPT in xtext three times that.
LINE_LIMIT = 12288
# What qmgr(8) reads of one message (qmgr_message_recipient_limit, postconf(5)).
RECIPIENT_LIMIT = 20000
# Bytes of all RCPT lines: even with every control character written as \xNN they stay
# below capsule.FIELDS_LIMIT. lmtp(8) sends the other recipients in a next transaction.
ENVELOPE_LIMIT = 3 << 19
ERROR_LIMIT = 20  # smtpd_hard_error_limit in postconf(5)
IDLE_LIMIT = 100  # commands without mail: smtpd_junk_command_limit in postconf(5)
REPLY_LIMIT = 510  # bytes without the CRLF: RFC 5321 4.5.3.1.5

LHLO = (
    b"PIPELINING",
    b"SIZE",
    b"8BITMIME",
    b"SMTPUTF8",
    b"DSN",
    b"ENHANCEDSTATUSCODES",
    b"XFORWARD " + b" ".join(lmtp_command.FORWARDED),
)


class Session:
    """An LMTP session with one client, from the greeting to its end."""

    def __init__(self, host: bytes) -> None:
        self._host = host
        self._sent = b""  # received from the client
        self._at = 0  # up to here it is parsed
        self._replies: list[bytes] = []
        self._events: list[Event] = []
        self._content: Content | None = None
        self._mail: Mail | None = None
        self._forwarded: dict[bytes, bytes] = {}
        self._envelope_size = 0
        self._errors = 0
        self._idle = 0
        self._greeted = False
        self._waits = False
        self._closed = False
        self._reply(b"220 " + host + b" LMTP postfix-archive")

    @property
    def is_between_messages(self) -> bool:
        """True if no mail transaction is open, so the session may end."""
        return self._mail is None

    def take(self, sent: bytes) -> None:
        """Add bytes from the client, any number of them."""
        if not self._closed:
            self._sent, self._at = self._sent[self._at :] + sent, 0

    def event(self) -> Event | None:
        """Return the next event; None until more bytes, or the answers, are given."""
        while not self._events and not self._waits and not self._closed:
            if not (self._read_content() if self._content else self._read_command()):
                break
        return self._events.pop(0) if self._events else None

    def replies(self) -> bytes:
        """Return the pending replies, and clear them."""
        said, self._replies = b"".join(self._replies), []
        return said

    def answer(self, answers: Sequence[tuple[int, str]]) -> None:
        """Reply to a complete message: code and text for each recipient, in order.

        Each text begins with a status code of RFC 3463. If the number of answers is
        wrong, which is a bug, all recipients are deferred.
        """
        people = self._mail.people if self._mail else []
        if len(answers) != len(people):
            answers = [(451, "4.3.0 internal error: wrong number of replies")] * len(
                people
            )
        for code, text in answers:
            line = b"%d " % code + " ".join(text.split()).encode("utf-8", "replace")
            self._reply(line)
        self._waits = False
        self._errors = self._idle = 0
        self._reset()

    def hang_up(self) -> None:
        """Note that the client has disconnected; an incomplete message is aborted."""
        self._close()

    def end(self, why: bytes) -> None:
        """End the session from our side, with a 421 reply."""
        self._reply(b"421 " + why)
        self._close()

    # --- content --------------------------------------------------------------------

    def _read_content(self) -> bool:
        """Read what has arrived of the message; tell whether anything was read."""
        content = self._content
        if content is None or self._at == len(self._sent):
            return False
        fresh = content.taken(self._sent[self._at :])
        self._sent, self._at = content.rest, 0
        if fresh and not content.bare_lf:
            self._events.append(Piece(fresh))
        if content.ended:
            self._content = None
            self._whole(content)
        return True

    def _whole(self, content: Content) -> None:
        if not content.bare_lf:
            self._waits = True
            self._events.append(Whole())
            return
        self._events.append(Dropped())
        people = self._mail.people if self._mail else []
        self.answer([(451, "4.6.0 bare LF in message")] * len(people))

    # --- commands ---------------------------------------------------------------------

    def _read_command(self) -> bool:
        """Read and execute one command line; tell whether there was one."""
        end = self._sent.find(b"\n", self._at)
        length = (len(self._sent) if end < 0 else end) - self._at
        if length > LINE_LIMIT:
            self.end(b"4.5.2 command line of more than %d bytes" % LINE_LIMIT)
            return True
        if end < 0:
            return False
        line = self._sent[self._at : end]
        self._at = end + 1
        if not line.endswith(b"\r"):
            self.end(b"4.5.2 bare LF at the end of a command line")
            return True
        self._obey(line[:-1])
        return True

    def _obey(self, line: bytes) -> None:
        verb, rest = lmtp_command.parted(line)
        command = COMMANDS.get(verb)
        if command is None or b"\0" in line:
            self._wrong(b"500 5.5.2 command not recognised")
        elif not self._greeted and verb in NEED_LHLO:
            self._wrong(b"503 5.5.1 send LHLO first")
        else:
            command(self, rest)
        if self._errors > ERROR_LIMIT or self._idle > IDLE_LIMIT:
            self.end(b"4.7.0 too many errors, or too many commands without mail")

    def _lhlo(self, rest: bytes) -> None:
        if not rest:
            return self._wrong(b"501 5.5.4 syntax: LHLO hostname")
        self._idle += 1
        self._reset()
        self._greeted = True
        lines = (self._host, *LHLO)
        for each in lines[:-1]:
            self._reply(b"250-" + each)
        return self._reply(b"250 " + lines[-1])

    def _xforward(self, rest: bytes) -> None:
        found = lmtp_command.xforward(rest)
        if self._mail is not None:
            return self._wrong(b"503 5.5.1 XFORWARD within a mail transaction")
        if found is None:
            return self._wrong(b"501 5.5.4 bad XFORWARD attribute")
        self._idle += 1
        self._forwarded.update(found)
        return self._reply(b"250 2.0.0 Ok")

    def _begin(self, rest: bytes) -> None:
        found = lmtp_command.mail(rest)
        if self._mail is not None:
            return self._wrong(b"503 5.5.1 nested MAIL command")
        if found is None:
            return self._wrong(b"501 5.5.4 bad MAIL FROM:<address>, or bad parameter")
        self._mail = Mail(*found, self._forwarded)
        return self._reply(b"250 2.1.0 Ok")

    def _rcpt(self, rest: bytes) -> None:
        found = lmtp_command.rcpt(rest)
        if self._mail is None:
            return self._wrong(b"503 5.5.1 need MAIL before RCPT")
        if found is None:
            return self._wrong(b"501 5.5.4 bad RCPT TO:<address>, or bad parameter")
        self._envelope_size += len(rest)
        full = self._envelope_size > ENVELOPE_LIMIT
        if full or len(self._mail.people) >= RECIPIENT_LIMIT:
            return self._reply(b"452 4.5.3 too many recipients in one transaction")
        self._mail.people.append(Addressee(*found))
        return self._reply(b"250 2.1.5 Ok")

    def _data(self, rest: bytes) -> None:
        if rest:
            return self._wrong(b"501 5.5.4 syntax: DATA")
        if self._mail is None or not self._mail.people:
            return self._wrong(b"503 5.5.1 no valid recipients")
        self._content = Content()
        self._events.append(Begun(self._mail))
        return self._reply(b"354 End data with <CR><LF>.<CR><LF>")

    def _rset(self, rest: bytes) -> None:
        self._idle += 1
        self._reset()
        self._reply(b"250 2.0.0 Ok")

    def _noop(self, rest: bytes) -> None:
        self._idle += 1
        self._reply(b"250 2.0.0 Ok")

    def _vrfy(self, rest: bytes) -> None:
        self._idle += 1
        self._reply(b"252 2.0.0 cannot verify, send mail instead")

    def _bdat(self, rest: bytes) -> None:
        """Refuse BDAT and end: what follows is content, not commands."""
        self._reply(b"502 5.5.1 BDAT not supported")
        self.end(b"4.5.1 session ends after BDAT")

    def _quit(self, rest: bytes) -> None:
        self._reply(b"221 2.0.0 Bye")
        self._close()

    # --- replies and state ----------------------------------------------------------

    def _reply(self, line: bytes) -> None:
        self._replies.append(line[:REPLY_LIMIT] + b"\r\n")

    def _wrong(self, line: bytes) -> None:
        self._errors += 1
        self._reply(line)

    def _reset(self) -> None:
        """End the transaction and forget the XFORWARD attributes (XFORWARD_README)."""
        self._mail = None
        self._forwarded = {}
        self._envelope_size = 0

    def _close(self) -> None:
        if self._closed:
            return
        if self._content is not None or self._waits:
            self._events.append(Dropped())
        self._content = None
        self._waits = False
        self._closed = True
        self._sent, self._at = b"", 0
        self._reset()
        self._events.append(Closed())


COMMANDS = {
    b"LHLO": Session._lhlo,
    b"XFORWARD": Session._xforward,
    b"MAIL": Session._begin,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"RSET": Session._rset,
    b"NOOP": Session._noop,
    b"VRFY": Session._vrfy,
    b"BDAT": Session._bdat,
    b"QUIT": Session._quit,
}
NEED_LHLO = (b"XFORWARD", b"MAIL", b"RCPT", b"DATA")
