"""One LMTP session, the server's side (RFC 2033): bytes in; events and replies out.

Used by front/lmtp. Knows no socket and no clock. A message goes out piece by piece, as
it comes in, and is whole only when the event Whole says so; then nothing goes on until
answer() has one answer for each recipient. What the client does wrong gets a reply, and
what could hide the end of a message ends the session.

    take(bytes) -> event() until None -> replies() -> take(...)
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

# An address fills at most a line of line_length_limit (2048 bytes, postconf(5)), its
# quoted form twice that, its ORCPT in xtext three times that.
LINE_LIMIT = 12288  # bytes of a command line
# As many as qmgr(8) reads of one message (qmgr_message_recipient_limit, postconf(5)).
RECIPIENT_LIMIT = 20000
# Bytes of all RCPT lines: written down with control characters as \xNN they stay below
# capsule.FIELDS_LIMIT. The rest of the recipients comes in a piece of its own.
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
    """An LMTP session with one client, from the greeting to the end."""

    def __init__(self, host: bytes) -> None:
        self._host = host
        self._sent = b""  # by the client, and not read yet
        self._at = 0  # what stands before is read
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
        """True if no mail transaction is open: a good moment to end."""
        return self._mail is None

    def take(self, sent: bytes) -> None:
        """Take bytes from the client, as many or few as there are."""
        if not self._closed:
            self._sent, self._at = self._sent[self._at :] + sent, 0

    def event(self) -> Event | None:
        """Return what is next; None if more bytes, or the answers, must come first."""
        while not self._events and not self._waits and not self._closed:
            if not (self._read_content() if self._content else self._read_command()):
                break
        return self._events.pop(0) if self._events else None

    def replies(self) -> bytes:
        """Return the replies that the client is to get now, once."""
        said, self._replies = b"".join(self._replies), []
        return said

    def answer(self, answers: Sequence[tuple[int, str]]) -> None:
        """Answer a whole message: code and text for each recipient, in their order.

        Texts begin with a status of RFC 3463. A number of answers that is wrong is a
        bug; then everybody is told to wait.
        """
        people = self._mail.people if self._mail else []
        if len(answers) != len(people):
            answers = [(451, "4.3.0 a bug: answers and recipients differ")] * len(
                people
            )
        for code, text in answers:
            line = b"%d " % code + " ".join(text.split()).encode("utf-8", "replace")
            self._reply(line)
        self._waits = False
        self._errors = self._idle = 0
        self._reset()

    def hang_up(self) -> None:
        """Note that the client is gone; a message that is not whole is dropped."""
        self._close()

    def end(self, why: bytes) -> None:
        """End the session from our side, with a reason for the client."""
        self._reply(b"421 " + why)
        self._close()

    # --- content --------------------------------------------------------------------

    def _read_content(self) -> bool:
        """Read what there is of the message; tell whether to go on."""
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
        self.answer([(451, "4.6.0 the message has a bare LF")] * len(people))

    # --- commands ---------------------------------------------------------------------

    def _read_command(self) -> bool:
        """Read one command line, if there is one; tell whether to go on."""
        end = self._sent.find(b"\n", self._at)
        length = (len(self._sent) if end < 0 else end) - self._at
        if length > LINE_LIMIT:
            self.end(b"4.5.2 a command line of over %d bytes" % LINE_LIMIT)
            return True
        if end < 0:
            return False
        line = self._sent[self._at : end]
        self._at = end + 1
        if not line.endswith(b"\r"):
            self.end(b"4.5.2 a command line that ends with a bare LF")
            return True
        self._obey(line[:-1])
        return True

    def _obey(self, line: bytes) -> None:
        verb, rest = lmtp_command.parted(line)
        command = COMMANDS.get(verb)
        if command is None or b"\0" in line:
            self._wrong(b"500 5.5.2 this command is not known here")
        elif not self._greeted and verb in NEED_LHLO:
            self._wrong(b"503 5.5.1 LHLO comes first")
        else:
            command(self, rest)
        if self._errors > ERROR_LIMIT or self._idle > IDLE_LIMIT:
            self.end(b"4.7.0 too many errors, or commands without mail")

    def _lhlo(self, rest: bytes) -> None:
        if not rest:
            return self._wrong(b"501 5.5.4 say LHLO and a name")
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
            return self._wrong(b"503 5.5.1 XFORWARD comes before MAIL")
        if found is None:
            return self._wrong(b"501 5.5.4 XFORWARD with what was not offered")
        self._idle += 1
        self._forwarded.update(found)
        return self._reply(b"250 2.0.0 Ok")

    def _begin(self, rest: bytes) -> None:
        found = lmtp_command.mail(rest)
        if self._mail is not None:
            return self._wrong(b"503 5.5.1 this message has its sender already")
        if found is None:
            return self._wrong(
                b"501 5.5.4 MAIL FROM:<address>, or a parameter, is wrong"
            )
        self._mail = Mail(*found, self._forwarded)
        return self._reply(b"250 2.1.0 Ok")

    def _rcpt(self, rest: bytes) -> None:
        found = lmtp_command.rcpt(rest)
        if self._mail is None:
            return self._wrong(b"503 5.5.1 MAIL comes before RCPT")
        if found is None:
            return self._wrong(b"501 5.5.4 RCPT TO:<address>, or a parameter, is wrong")
        self._envelope_size += len(rest)
        full = self._envelope_size > ENVELOPE_LIMIT
        if full or len(self._mail.people) >= RECIPIENT_LIMIT:
            return self._reply(b"452 4.5.3 too many recipients: the rest next time")
        self._mail.people.append(Addressee(*found))
        return self._reply(b"250 2.1.5 Ok")

    def _data(self, rest: bytes) -> None:
        if rest:
            return self._wrong(b"501 5.5.4 say DATA alone")
        if self._mail is None or not self._mail.people:
            return self._wrong(b"503 5.5.1 there is no recipient")
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
        self._reply(b"252 2.0.0 send some mail, and see")

    def _bdat(self, rest: bytes) -> None:
        """Refuse it, and end: what follows is content, and must not be obeyed."""
        self._reply(b"502 5.5.1 BDAT is not offered")
        self.end(b"4.5.1 what follows BDAT cannot be read")

    def _quit(self, rest: bytes) -> None:
        self._reply(b"221 2.0.0 Bye")
        self._close()

    # --- what all of them do --------------------------------------------------------

    def _reply(self, line: bytes) -> None:
        self._replies.append(line[:REPLY_LIMIT] + b"\r\n")

    def _wrong(self, line: bytes) -> None:
        self._errors += 1
        self._reply(line)

    def _reset(self) -> None:
        """Forget the transaction, and who the client is (XFORWARD_README)."""
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
