"""Text as a JSON string in ASCII (RFC 8259 7), without the import cost of _json.

Used by journal. Letter for letter what json.dumps() makes of it.
"""

from __future__ import annotations

ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\r", "\\r"), ("\n", "\\n"), ("\t", "\\t"))


def quoted(text: str) -> str:
    """Return text in quotes, in ASCII.

    Beyond lines of ASCII the C module does it: it is a file of its own, which costs a
    door 0.5 ms.
    """
    if text.isascii():
        escaped = text
        for plain, instead in ESCAPES:
            escaped = escaped.replace(plain, instead)
        if escaped.isprintable():
            return f'"{escaped}"'
    from _json import encode_basestring_ascii

    return encode_basestring_ascii(text)
