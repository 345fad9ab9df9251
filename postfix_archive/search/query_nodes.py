"""The nodes of a parsed query. Pure values.

Made by query_syntax, and by look_up without a parser; used by query_fields and snippet.
"""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """A word or phrase in a field, "" for any; ``is_prefix`` if it ends with ``*``."""

    field: str
    text: str
    position: int
    is_prefix: bool = False


class Range(NamedTuple):
    """Values of a field from ``low`` to ``high``, "" for no limit."""

    field: str
    low: str
    high: str
    has_low: bool  # low itself is in the range
    has_high: bool
    position: int


class All(NamedTuple):
    """True if all parts are."""

    parts: tuple[Node, ...]


class Any(NamedTuple):
    """True if one of the parts is."""

    parts: tuple[Node, ...]


class Not(NamedTuple):
    """True if the part is not."""

    part: Node


Node = Word | Range | All | Any | Not
