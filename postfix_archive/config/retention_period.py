"""Retention periods such as 10y, 18mo, 12w, 90d and ``permanent``.

Used by settings for archive_retention and by retention/rules. Pure. Raises ValueError
with a text for the user.
"""

from __future__ import annotations

Period = tuple[int, str]  # number and unit
PERMANENT = (0, "permanent")
UNITS = {"y": "years", "mo": "months", "w": "weeks", "d": "days"}
LIMIT = 1000  # years: no date that is later can be written


def parse(text: str) -> Period:
    """Return a period; it is not 0, and does not exceed 1000 years."""
    text = text.lower()
    if text == PERMANENT[1]:
        return PERMANENT
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
        raise ValueError(
            f"{text!r} is not a period; write 10y, 18mo, 12w, 90d or" " permanent"
        )
    number = int(digits)
    if not unit:
        raise ValueError(
            f"a period of {number} what? years ({number}y), months ({number}mo), weeks"
            f" ({number}w) or days ({number}d)?"
        )
    if unit not in UNITS:
        hint = f"; months are {number}mo" if unit == "m" else ""
        raise ValueError(f"{text!r}: no unit {unit!r}; y, mo, w and d are{hint}")
    in_years = {"y": 1, "mo": 12, "w": 52, "d": 365}
    if not 0 < number <= LIMIT * in_years[unit]:
        raise ValueError(
            f"{text!r}: a period is from 1 day to {LIMIT} years, or permanent"
        )
    return number, unit


def to_text(period: Period) -> str:
    """Return a period as it is written: 10y."""
    number, unit = period
    return f"{number}{unit}" if number else unit
