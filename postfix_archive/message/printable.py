"""Text that is safe on a terminal and in a log line."""

from __future__ import annotations

from postfix_archive.message import address


def safe_text(value: bytes) -> str:
    """Return bytes as one line of text that is safe on a terminal."""
    text = address.escape_controls(value).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
