"""Our lines in Postfix's log: ``key=value`` fields, the most important first.

Used by everything that writes such a line; maillog/report reads them. pipe(8) logs the
first 100 characters of what a transport prints, and Postfix shows the sender all of it
in a DSN (NOTIFY=SUCCESS). So the keys of the stamp filter are short and neutral. Keys,
values and what is stable: docs/log-format.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROSE_KEY = "reason"  # always last: its value is the rest of the line


def build(fields: Mapping[str, str]) -> str:
    """Return the fields with a value as one line, in their order, ``reason`` last.

    White space in a value becomes ``_``, in the value of ``reason`` one space.
    """
    pairs = [
        f"{key}={'_'.join(value.split())}"
        for key, value in fields.items()
        if key != PROSE_KEY and value.strip()
    ]
    prose = " ".join(fields.get(PROSE_KEY, "").split())
    if prose:
        pairs.append(f"{PROSE_KEY}={prose}")
    return " ".join(pairs)


def parse(line: str) -> dict[str, str]:
    """Return the fields of a line, up to the first text that is no field.

    The last value may be incomplete: pipe(8) truncates the line.
    """
    fields: dict[str, str] = {}
    rest = line
    while rest:
        key, equals, value = rest.partition("=")
        if not equals or not is_key(key) or key in fields:
            break
        if key == PROSE_KEY:
            fields[key] = value
            break
        fields[key], _, rest = value.partition(" ")
    return fields


def is_key(text: str) -> bool:
    """Return whether a text has the form of a key: lower-case letters and ``_``."""
    return bool(text) and not text.strip("abcdefghijklmnopqrstuvwxyz_")
