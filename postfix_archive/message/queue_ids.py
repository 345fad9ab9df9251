"""Compares queue ids: whether two of them are names of one queue file.

Used by received, rescue and reconcile. postsuper(1) -s, at start and reload, renames a
queue file whose name no longer fits: a short name after the queue was moved and the
inode numbers changed, a long one after enable_long_queue_ids was turned off (with -S
also after a move). Only the part with the time stays:

    short   microseconds, 5 hexadecimal digits; inode number
    long    seconds, 6 characters or more; microseconds, 4; z; inode number
"""

from __future__ import annotations

LONG_ID_DIGITS = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"  # mail_queue.h
HEX_DIGITS = b"0123456789ABCDEF"
SHORT_MICROSECOND_DIGITS = 5
LONG_MICROSECOND_DIGITS = 4
LONG_SECOND_DIGITS = 6


def is_same(first_id: bytes, second_id: bytes) -> bool:
    """Return whether both ids name one queue file, under its old or its new name."""
    if first_id == second_id:
        return True
    first_time, second_time = _time_part(first_id), _time_part(second_id)
    if len(first_time) == len(second_time):
        return first_time == second_time != b""
    return microseconds(first_id) == microseconds(second_id) != b""


def microseconds(queue_id: bytes) -> bytes:
    """Return the microseconds, which all names of one file share, as in short ids.

    Empty if queue_id is not one of Postfix's.
    """
    time_part = _time_part(queue_id)
    if len(time_part) <= SHORT_MICROSECOND_DIGITS:
        return time_part
    return b"%05X" % max(0, _decode(time_part[-LONG_MICROSECOND_DIGITS:]))


def arrival(queue_id: bytes) -> int | None:
    """Return the Unix time in a long queue id, when Postfix made the queue file.

    None for a short one, which has no seconds.
    """
    seconds = _time_part(queue_id)[:-LONG_MICROSECOND_DIGITS]
    if len(seconds) != LONG_SECOND_DIGITS:  # enough until the year 2596
        return None
    return _decode(seconds)


def _decode(digits: bytes) -> int:
    number = 0
    for digit in digits:
        number = number * len(LONG_ID_DIGITS) + LONG_ID_DIGITS.find(digit)
    return number


def _time_part(queue_id: bytes) -> bytes:
    """Return the part with the time, empty if queue_id is not one of Postfix's."""
    position = queue_id.rfind(b"z")
    if position >= LONG_SECOND_DIGITS + LONG_MICROSECOND_DIGITS and not queue_id.strip(
        LONG_ID_DIGITS
    ):
        return queue_id[:position]
    if len(queue_id) > SHORT_MICROSECOND_DIGITS and not queue_id.strip(HEX_DIGITS):
        return queue_id[:SHORT_MICROSECOND_DIGITS]
    return b""
