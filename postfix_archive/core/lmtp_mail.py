"""What an LMTP session tells of: a message's envelope, and the events.

Made by lmtp, read by front/lmtp.
"""

from __future__ import annotations

from postfix_archive.core import lmtp_command


class Addressee:
    """One recipient, with NOTIFY and ORCPT just as they were sent, or empty."""

    __slots__ = ("address", "notify", "orcpt")

    def __init__(self, address: bytes, parameters: dict[bytes, bytes]) -> None:
        self.address = address
        self.notify = parameters.get(b"NOTIFY", b"")
        self.orcpt = parameters.get(b"ORCPT", b"")


class Mail:
    """What the client said of one message: MAIL, RCPT and XFORWARD.

    ``forwarded`` has pipe(8)'s names; ``ret`` is as sent, ``envid`` decoded.
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
    """A message begins: its envelope is complete."""

    __slots__ = ("mail",)

    def __init__(self, mail: Mail) -> None:
        self.mail = mail


class Piece:
    """Some more bytes of the message, in canonical form."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content


class Whole:
    """The message is whole, and waits for answer()."""

    __slots__ = ()


class Dropped:
    """The message that had begun comes to nothing: forget its pieces."""

    __slots__ = ()


class Closed:
    """The session is over: send the replies and hang up."""

    __slots__ = ()
