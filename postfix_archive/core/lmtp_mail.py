"""Envelope of a message in an LMTP session, and the events of a session.

Made by the session, read by intake/lmtp_worker.
"""

from __future__ import annotations

from postfix_archive.core import lmtp_command


class Addressee:
    """One recipient, with NOTIFY and ORCPT as they were sent, or empty."""

    __slots__ = ("address", "notify", "orcpt")

    def __init__(self, address: bytes, parameters: dict[bytes, bytes]) -> None:
        self.address = address
        self.notify = parameters.get(b"NOTIFY", b"")
        self.orcpt = parameters.get(b"ORCPT", b"")


class Mail:
    """Envelope of one message: MAIL, RCPT and XFORWARD.

    ``xforward`` has the names of pipe(8)'s macros; ``ret`` is as sent, ``envid`` is
    decoded from xtext.
    """

    __slots__ = (
        "eightbit",
        "envid",
        "forwarded",
        "people",
        "ret",
        "sender",
        "smtputf8",
    )

    def __init__(
        self, sender: bytes, words: dict[bytes, bytes], forwarded: dict[bytes, bytes]
    ) -> None:
        self.sender = sender
        self.forwarded = forwarded
        self.people: list[Addressee] = []
        self.eightbit = words.get(b"BODY", b"").upper() == b"8BITMIME"
        self.smtputf8 = b"SMTPUTF8" in words
        self.ret = words.get(b"RET", b"")
        self.envid = lmtp_command.unxtext(words.get(b"ENVID", b"")) or b""


class Begun:
    """DATA was accepted: the envelope is complete, the content follows."""

    __slots__ = ("mail",)

    def __init__(self, mail: Mail) -> None:
        self.mail = mail


class Piece:
    """The next bytes of the message, in canonical form."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content


class Whole:
    """The message is complete and waits for answer()."""

    __slots__ = ()


class Dropped:
    """The message will not be completed: discard its chunks."""

    __slots__ = ()


class Closed:
    """The session is over: send the replies and disconnect."""

    __slots__ = ()
