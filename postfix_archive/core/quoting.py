"""Encodes text as an ASCII JSON string (RFC 8259 7), mostly without importing _json.

Used by journal. The result is byte for byte that of json.dumps().
"""

from __future__ import annotations

JSON_ESCAPES = (
    ("\\", "\\\\"),
    ('"', '\\"'),
    ("\r", "\\r"),
    ("\n", "\\n"),
    ("\t", "\\t"),
)


def json_string(text: str) -> str:
    """Return text as a JSON string in ASCII.

    Imports the C module _json only for text that is not printable ASCII: the import
    costs a transport process 0.5 ms.
    """
    if text.isascii():
        escaped = text
        for char, escape in JSON_ESCAPES:
            escaped = escaped.replace(char, escape)
        if escaped.isprintable():
            return f'"{escaped}"'
    from _json import encode_basestring_ascii

    return encode_basestring_ascii(text)
