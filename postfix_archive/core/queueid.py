"""Queue ids: which two of them name one queue file.

Used by trace and rescuing. Postfix renames queue files at start and reload when the
name fits no more (postsuper(1), -s): short names where the queue was moved and the
inode numbers changed, long ones where enable_long_queue_ids was turned off (and with -S
where the queue was moved). Only the moment in it stays:

    short   microseconds, 5 hexadecimal digits; inode number
    long    seconds, 6 characters or more; microseconds, 4; z; inode number
"""

from __future__ import annotations

DIGITS = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"  # mail_queue.h
HEXADECIMAL = b"0123456789ABCDEF"
SHORT = 5
LONG = 4
SECONDS = 6


def is_same(one: bytes, other: bytes) -> bool:
    """Tell whether two ids name one queue file: they are equal, or it was renamed."""
    if one == other:
        return True
    first, second = _moment(one), _moment(other)
    if len(first) == len(second):
        return first == second != b""
    return microseconds(one) == microseconds(other) != b""


def microseconds(queue_id: bytes) -> bytes:
    """Return the part that all names of one queue file share, as short ids have it."""
    moment = _moment(queue_id)
    if len(moment) <= SHORT:
        return moment
    number = 0
    for digit in moment[-LONG:]:
        number = number * len(DIGITS) + DIGITS.find(digit)
    return b"%05X" % max(0, number)


def _moment(queue_id: bytes) -> bytes:
    """Return the part of an id that stays, nothing if it is none of Postfix's."""
    at = queue_id.rfind(b"z")
    if at >= SECONDS + LONG and not queue_id.strip(DIGITS):
        return queue_id[:at]
    if len(queue_id) > SHORT and not queue_id.strip(HEXADECIMAL):
        return queue_id[:SHORT]
    return b""
