"""Decodes text as senders really label it: undeclared and wrong charsets too.

Used by extraction and by the commands that show subjects. Never raises.
"""

from __future__ import annotations

import codecs
import re

from postfix_archive.message import encoded_words

SAMPLE_SIZE = 1 << 12  # bytes that chardet sees: it takes some 10 ms for them
# Codecs in which every text can be read, so that UTF-8 may be labelled with them.
SINGLE_BYTE_CODECS = ("ascii", "cp125", "iso8859", "koi8", "mac")
NON_ASCII_LINE = re.compile(rb"[^\r\n]*[\x80-\xff][^\r\n]*")


def decode(raw: bytes, declared: str = "") -> str:
    """Return raw as text, in the charset that is declared if that is plausible."""
    if raw.isascii() and b"\x1b" not in raw and not _is_wide(declared):
        return raw.decode("ascii")
    if not declared or declared.lower() in encoded_words.UNDECLARED:
        return decode_undeclared(raw)
    try:
        codec = codecs.lookup(declared).name
        if codec == "utf-8" or codec.startswith(SINGLE_BYTE_CODECS):
            return raw.decode()
    except LookupError:
        pass
    except UnicodeDecodeError:
        if codec == "utf-8":
            return decode_undeclared(raw)
    try:
        return encoded_words.decode_charset(raw, declared)
    except (LookupError, ValueError):
        return decode_undeclared(raw)


def decode_undeclared(raw: bytes) -> str:
    """Decode text without a declared charset, as chardet guesses it."""
    if b"\x1b$" in raw:
        return encoded_words.decode_charset(raw, "iso-2022-jp")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    import chardet  # takes 50 ms, and most text is UTF-8

    sample, size = [], 0
    for line in NON_ASCII_LINE.finditer(raw):
        sample.append(line[0][: SAMPLE_SIZE - size])
        size += len(sample[-1])
        if size >= SAMPLE_SIZE:
            break
    guess = chardet.detect(b"\n".join(sample))
    try:
        return encoded_words.decode_charset(raw, guess["encoding"] or "ascii")
    except (LookupError, ValueError):  # chardet has charsets that Python lacks
        return raw.decode("ascii", "replace")


def _is_wide(declared: str) -> bool:
    """Tell whether ASCII bytes can be other text: UTF-7, UTF-16, UTF-32, HZ."""
    return declared.lower().startswith(("utf-7", "utf-16", "utf-32", "hz", "utf7"))
