"""Decodes header values: encoded words (RFC 2047), charsets as senders really use them.

Used to show and index headers, and by mime for a Subject that must be cut. Senders
label supersets of a charset with its name (gb2312 for GBK and GB 18030, ks_c_5601-1987
for CP949), end a word inside a character, and add the language of RFC 2231 to the
charset. Never raises: a word that cannot be decoded stays as it is, and a byte that its
charset lacks becomes U+FFFD.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Callable, Iterator

# Start of a word: charset, language (RFC 2231 5), encoding.
WORD_START = re.compile(rb"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([bBqQ])\?")
# Python codec of the charset -> codecs to try in this order.
REAL_CODECS = {
    "big5": ("big5hkscs", "cp950"),
    "euc_kr": ("cp949",),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "iso2022_jp": ("iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_ext"),
    "iso8859-1": ("cp1252", "iso8859-1"),
    "iso8859-9": ("cp1254",),
    "iso8859-11": ("cp874",),
    "shift_jis": ("cp932",),
    "tis-620": ("cp874",),
}
ALIASES = {  # of IANA and of mail programs, which Python lacks
    "cn-big5": "big5",
    "cn-gb": "gb2312",
    "cp50220": "iso2022_jp",
    "cp50221": "iso2022_jp",
    "cp51932": "euc_jp",
    "euc-cn": "gb2312",
    "gb_2312-80": "gb2312",
    "iso-2022-jp-ms": "iso2022_jp",
    "iso-8859-8-e": "iso8859-8",
    "iso-8859-8-i": "iso8859-8",
    "iso-ir-149": "euc_kr",
    "koi8-ru": "koi8-u",
    "windows-31j": "cp932",
}
WINDOWS_NAME = re.compile(r"(?:windows|cp|ms)-?(?:cp)?(\d+)")  # code page: cpN
UNDECLARED = ("unknown-8bit", "x-unknown", "unknown", "us-ascii", "ascii")  # RFC 1428
NOT_CHARSETS = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
JIS_ESCAPE = re.compile(rb"(\x1b\$[@B]|\x1b\$?\([A-Z])")
JIS_ASCII = b"\x1b(B"
JIS_X_0208 = (b"\x1b$@", b"\x1b$B")

Guess = Callable[[bytes], str]


class _Run:
    """Encoded words of one charset with only white space between.

    They are decoded as one: a multi-byte character may begin in one and end in the
    next.
    """

    def __init__(self, start: int, end: int, charset: bytes, content: bytes) -> None:
        self.start = start
        self.end = end
        self.charset = charset
        self.content = content


def guess_utf8(raw: bytes) -> str:
    """Decode text of an unknown charset as UTF-8."""
    return raw.decode("utf-8", "replace")


def decode(value: bytes, guess: Guess = guess_utf8) -> str:
    """Return an unfolded header value as text; guess decodes undeclared charsets."""
    if b"=?" not in value:
        return _decode_plain(value, guess)  # most values, in a tenth of the time
    texts = []
    end = 0
    for run in _runs(value):
        between = value[end : run.start]
        if not end or between.strip():  # white space between two runs is not text
            texts.append(_decode_plain(between, guess))
        try:
            texts.append(_decode_run(run, guess))
        except (LookupError, ValueError):
            texts.append(_decode_plain(value[run.start : run.end], guess))
        end = run.end
    return "".join([*texts, _decode_plain(value[end:], guess)])


def decode_charset(raw: bytes, charset: str) -> str:
    """Decode bytes in this charset, by its real use. Raises LookupError."""
    codec = _codec(charset)
    names = REAL_CODECS.get(codec, (codec,))
    for name in names:
        try:
            return raw.decode(name)
        except UnicodeDecodeError:
            continue
    if codec == "iso2022_jp":
        return _decode_jis(raw)
    return raw.decode(names[0], "replace")


def _runs(value: bytes) -> list[_Run]:
    runs: list[_Run] = []
    for word in _words(value):
        last = runs[-1] if runs else None
        is_next = last and not value[last.end : word.start].strip()
        if last and is_next and last.charset == word.charset:
            last.content += word.content
            last.end = word.end
        else:
            runs.append(word)
    return runs


def _words(value: bytes) -> Iterator[_Run]:
    """Yield each encoded word that can be decoded from base64 or quoted-printable."""
    start = WORD_START.search(value)
    while start:
        end = value.find(b"?=", start.end())
        if end < 0:
            return
        try:
            content = _content(start[2], value[start.end() : end])
        except binascii.Error:
            pass  # the word stays as it is
        else:
            yield _Run(start.start(), end + 2, start[1].lower(), content)
        start = WORD_START.search(value, end + 2)


def _content(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"qQ":
        return binascii.a2b_qp(text, header=True)
    return binascii.a2b_base64(text + b"==")  # some senders leave out the padding


def _decode_run(run: _Run, guess: Guess) -> str:
    charset = run.charset.decode("ascii")
    if charset in UNDECLARED:
        return guess(run.content)
    text = decode_charset(run.content, charset)
    if text and not text.strip("\ufffd"):
        raise ValueError("nothing of the content is in this charset")
    return text


def _decode_plain(raw: bytes, guess: Guess) -> str:
    is_ascii = raw.isascii() and b"\x1b" not in raw
    return raw.decode() if is_ascii else guess(raw)


def _codec(charset: str) -> str:
    """Return Python's name of a charset's codec. Raises LookupError."""
    name = ALIASES.get(charset.lower(), charset.lower())
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        name = name.removeprefix("x-")
        codec = codecs.lookup(WINDOWS_NAME.sub(r"cp\1", name)).name
    if codec in NOT_CHARSETS:
        raise LookupError(f"{codec} is not the charset of a text")
    return codec


def _decode_jis(raw: bytes) -> str:
    """Decode ISO-2022-JP with the rows 13 and 89 to 92 of NEC, which CP932 has."""
    parts = [JIS_ASCII, *JIS_ESCAPE.split(raw)]
    texts = []
    for escape, content in zip(parts[::2], parts[1::2], strict=True):
        if escape in JIS_X_0208:
            texts.append(_jis_to_cp932(content).decode("cp932", "replace"))
        else:
            texts.append((escape + content).decode("iso2022_jp_ext", "replace"))
    return "".join(texts)


def _jis_to_cp932(content: bytes) -> bytes:
    """Convert pairs of JIS X 0208 bytes to Shift_JIS (JIS X 0208, appendix 1)."""
    converted = bytearray()
    for row, cell in zip(content[::2], content[1::2], strict=False):
        lead = (row + 1 >> 1) + (0x70 if row < 0x5F else 0xB0)
        odd_cell = cell + (0x20 if cell >= 0x60 else 0x1F)
        converted += bytes((lead & 0xFF, (odd_cell if row & 1 else cell + 0x7E) & 0xFF))
    return bytes(converted)
