"""Claims about the canonical form of message bytes and its form on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given

from postfix_archive.message import smtp_data

from unit import examples


def dot_unstuff(stuffed: bytes) -> bytes:
    """What an SMTP server makes of it (RFC 5321 4.5.2), by the letter."""
    lines = stuffed.split(b"\r\n")
    return b"\r\n".join(each[1:] if each[:1] == b"." else each for each in lines)


def canonical(*pieces: bytes) -> bytes:
    return b"".join(smtp_data.to_canonical(pieces))


def test_every_line_of_the_canonical_form_ends_with_crlf() -> None:
    assert canonical(b"a\nb\n\nc\n") == b"a\r\nb\r\n\r\nc\r\n"


def test_a_missing_last_line_end_is_added() -> None:
    assert canonical(b"a\nb") == b"a\r\nb\r\n"


def test_an_empty_message_stays_empty() -> None:
    assert canonical() == b""
    assert canonical(b"", b"") == b""


def test_empty_pieces_at_the_end_add_no_line() -> None:
    assert canonical(b"a\n", b"", b"") == b"a\r\n"


@given(examples.LINES_LF, examples.OFFSETS)
def test_canonical_form_does_not_depend_on_the_pieces(
    message: bytes, marks: list[int]
) -> None:
    assert canonical(*examples.split_at(message, marks)) == canonical(message)


@given(examples.LINES_LF)
def test_canonical_form_loses_no_byte(message: bytes) -> None:
    complete = message if message.endswith(b"\n") or not message else message + b"\n"
    assert canonical(message).replace(b"\r\n", b"\n") == complete


def test_dots_that_begin_a_line_are_doubled_and_no_others() -> None:
    stuffed = b"".join(smtp_data.dot_stuff([b".a\r\nb.c\r\n.\r\n..\r\n"]))
    assert stuffed == b"..a\r\nb.c\r\n..\r\n...\r\n"


def test_a_message_never_holds_the_end_of_data_by_itself() -> None:
    stuffed = b"".join(smtp_data.dot_stuff([b"a\r\n", b".", b"\r\n", b"QUIT\r\n"]))
    assert b"\r\n.\r\n" not in stuffed


@given(examples.LINES_LF, examples.OFFSETS)
def test_stuffing_does_not_depend_on_the_pieces_and_can_be_undone(
    message: bytes, marks: list[int]
) -> None:
    content = canonical(message)
    stuffed = b"".join(smtp_data.dot_stuff(examples.split_at(content, marks)))
    assert stuffed == b"".join(smtp_data.dot_stuff([content]))
    assert dot_unstuff(stuffed) == content
    assert b"\r\n.\r\n" not in b"\r\n" + stuffed


@given(examples.LINES_LF, examples.OFFSETS)
def test_lf_form_does_not_depend_on_the_pieces_and_is_reversible(
    message: bytes, marks: list[int]
) -> None:
    content = canonical(message)
    with_lf = b"".join(smtp_data.to_lf(examples.split_at(content, marks)))
    assert with_lf == content.replace(b"\r\n", b"\n")
    assert canonical(with_lf) == content


def test_lf_form_keeps_a_bare_cr_even_at_the_very_end() -> None:
    assert b"".join(smtp_data.to_lf([b"a\r", b"b\r"])) == b"a\rb\r"


def test_chained_parts_follow_each_other() -> None:
    assert list(smtp_data.chain([b"1"], (), [b"2", b"3"])) == [b"1", b"2", b"3"]


@given(examples.LINES_LF, examples.OFFSETS)
def test_content_properties_do_not_depend_on_the_pieces(
    message: bytes, marks: list[int]
) -> None:
    content = canonical(message)
    properties = smtp_data.ContentProperties()
    for piece in examples.split_at(content, marks):
        properties.update(piece)
    lines = content.split(b"\r\n")
    assert properties.longest_line == max(map(len, lines))
    assert properties.is_ascii == content.isascii()
    assert properties.has_nul == (b"\0" in content)
    assert not properties.has_bare_cr


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"", b"7bit"),
        (b"plain\r\n", b"7bit"),
        (b"gr\xfcn\r\n", b"8bit"),
        (b"x" * 998 + b"\r\n", b"7bit"),
        (b"x" * 999 + b"\r\n", b"binary"),
        (b"\xfc" * 999 + b"\r\n", b"binary"),
        (b"a\0b\r\n", b"binary"),
        (b"a\rb\r\n", b"binary"),
        (b"a\r\r\n", b"binary"),
    ],
)
def test_encoding_is_true_of_the_bytes(content: bytes, encoding: bytes) -> None:
    assert examples.content_properties(content).encoding == encoding


def test_a_bare_cr_is_seen_across_pieces() -> None:
    properties = smtp_data.ContentProperties()
    for piece in (b"a\r", b"b\r", b"\n"):
        properties.update(piece)
    assert properties.has_bare_cr


def test_a_crlf_cut_in_two_is_no_bare_cr_and_adds_nothing_to_the_line() -> None:
    properties = smtp_data.ContentProperties()
    for piece in (b"ab\r", b"\n", b"c\r\n"):
        properties.update(piece)
    assert not properties.has_bare_cr
    assert properties.longest_line == 2
