"""Recognises senders that Postfix made for one recipient each (VERP).

Used by stamp_filter/capture_plan. With XVERP or sendmail -XV, qmgr(8) hands each
recipient to the first content filter alone, with a sender of its own (VERP_README,
verp_sender.c): list@example.com becomes list+user=domain@example.com. The true sender
is nowhere else in what a content filter gets.
"""

from __future__ import annotations

from postfix_archive.message import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.message.envelope import Recipient

DELIMITERS = b"-=+"  # default of verp_delimiter_filter (postconf(5))


class VerpSender:
    """The true sender, and the two delimiters that Postfix used."""

    __slots__ = ("delimiters", "sender")

    def __init__(self, sender: bytes, delimiters: bytes) -> None:
        self.sender = sender
        self.delimiters = delimiters


NONE = VerpSender(b"", b"")


def decode(sender: bytes, recipients: tuple[Recipient, ...]) -> VerpSender:
    """Return the sender of which Postfix may have made this one; NONE if of none.

    A list manager can make such senders by itself, with a message for each recipient:
    one message alone does not tell these from Postfix's.
    """
    if len(recipients) != 1:
        return NONE
    [recipient] = recipients
    for candidate in (recipient.original, recipient.final):
        verp_sender = _decode_for(sender, candidate)
        if verp_sender is not NONE:
            return verp_sender
    return NONE


def true_sender(sender: bytes, recipients: tuple[Recipient, ...]) -> bytes:
    """Return the sender before VERP, if the only recipient is one that this host made.

    Nobody but Postfix can have made a sender of such a recipient.
    """
    if len(recipients) != 1:
        return sender
    recipient = address.unquote(recipients[0].final)
    decoded = _decode_for(address.unquote(sender), recipient)
    return sender if decoded is NONE else address.quote(decoded.sender)


def _decode_for(sender: bytes, recipient: bytes) -> VerpSender:
    sender_local, _, origin = sender.rpartition(b"@")
    recipient_local, _, domain = recipient.rpartition(b"@")
    length = len(recipient_local) + len(domain) + 2
    prefix, suffix = sender_local[:-length], sender_local[-length:]
    first, second = suffix[:1], suffix[-len(domain) - 1 :][:1]
    is_made_of_it = suffix == first + recipient_local + second + domain
    has_delimiters = bool(first and second) and not (first + second).strip(DELIMITERS)
    if not (prefix and recipient_local and is_made_of_it and has_delimiters):
        return NONE
    return VerpSender(prefix + b"@" + origin, first + second)
