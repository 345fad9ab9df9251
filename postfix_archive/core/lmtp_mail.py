"""Envelope of a message in an LMTP session, and the events of a session.

Made by the session, read by intake/lmtp_worker.
"""

from __future__ import annotations

from postfix_archive.core import lmtp_command


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
        "eightbit",
        "envid",
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
        self.eightbit = parameters.get(b"BODY", b"").upper() == b"8BITMIME"
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
