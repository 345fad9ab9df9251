"""Compares queue ids: whether two of them are names of one queue file.

Used by received, rescue and reconcile. postsuper(1) -s, at start and reload, renames a
queue file whose name no longer fits: a short name after the queue was moved and the
inode numbers changed, a long one after enable_long_queue_ids was turned off (with -S
also after a move). Only the part with the time stays:

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
    """Return whether both ids name one queue file, under its old or its new name."""
    if one == other:
        return True
    first, second = _moment(one), _moment(other)
    if len(first) == len(second):
        return first == second != b""
    return microseconds(one) == microseconds(other) != b""


def microseconds(queue_id: bytes) -> bytes:
    """Return the microseconds, which all names of one file share, as in short ids.

    Empty if queue_id is not one of Postfix's.
    """
    moment = _moment(queue_id)
    if len(moment) <= SHORT:
        return moment
    number = 0
    for digit in moment[-LONG:]:
        number = number * len(DIGITS) + DIGITS.find(digit)
    return b"%05X" % max(0, number)


def _moment(queue_id: bytes) -> bytes:
    """Return the part with the time, empty if queue_id is not one of Postfix's."""
    at = queue_id.rfind(b"z")
    if at >= SECONDS + LONG and not queue_id.strip(DIGITS):
        return queue_id[:at]
    if len(queue_id) > SHORT and not queue_id.strip(HEXADECIMAL):
        return queue_id[:SHORT]
    return b""
