"""Claims about addresses: kept as they are, written so that they can do no harm."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import address

from unit.examples import ADDRESSES


@pytest.mark.parametrize(
    "text",
    [
        b"legal@example.com",
        b"Legal@Example.COM",
        b"a.b+c-d_e=f@x-1.example",
        b"!#$%&'*?^`{|}~@example.com",
        b"a@localhost",
        b"a" * 242 + b"@example.com",
    ],
)
def test_plain_addresses_are_plain(text: bytes) -> None:
    assert address.is_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"@",
        b"legal",
        b"@example.com",
        b"legal@",
        b"..@example.com",
        b".@example.com",
        b".a@example.com",
        b"a.@example.com",
        b"a..b@example.com",
        b"a@..",
        b"a@.example.com",
        b"a@example.com.",
        b"a@example..com",
        b"a/b@example.com",
        b"../../x@example.com",
        b"a@example.com/..",
        b"-rf@example.com",
        b"a@b@example.com",
        b'"a b"@example.com',
        b"a b@example.com",
        b"a@example.com ",
        b"a,b@example.com",
        b"a;b@example.com",
        b"a:b@example.com",
        b"<a@example.com>",
        b"a\\b@example.com",
        b"a\0b@example.com",
        b"a\n@example.com",
        b"a@example.com\r\n",
        b"a@[192.0.2.1]",
        b"gr\xc3\xbcn@example.com",
        b"a@b\xc3\xbccher.example",
        b"a" * 243 + b"@example.com",
    ],
)
def test_what_needs_quoting_or_could_be_a_path_is_not_plain(text: bytes) -> None:
    assert not address.is_plain(text)


@given(st.text(alphabet="a.@/-\0\n ~;", max_size=12))
def test_a_plain_address_is_one_name_in_a_directory(text: str) -> None:
    if address.is_plain(text.encode()):
        assert "/" not in text and "\0" not in text and "\n" not in text
        assert text not in (".", "..") and not text.startswith(("-", "."))


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        (b"a@Example.COM", b"example.com"),
        (b'"a@b"@c.example', b"c.example"),
        (b"postmaster", b""),
        (b"a@", b""),
        (b"", b""),
    ],
)
def test_the_domain_is_right_of_the_last_at(text: bytes, domain: bytes) -> None:
    assert address.domain(text) == domain


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        (b"a@b.example", b"rfc822; a@b.example"),
        (b"\xc3\xbc@b.example", b"utf-8; \xc3\xbc@b.example"),
        (b"\xfc@b.example", b"rfc822; \xfc@b.example"),
        (b'"a;b"@c.example', b'rfc822; "a;b"@c.example'),
        (b"a\r\nb@c.example", b"rfc822; a\\x0D\\x0Ab@c.example"),
    ],
)
def test_an_address_is_written_with_its_type(text: bytes, typed: bytes) -> None:
    assert address.add_type(text) == typed


@given(ADDRESSES)
def test_a_typed_address_decodes_to_the_address(text: bytes) -> None:
    assert (
        address.strip_type(address.add_type(text))
        == address.escape_controls(text).strip()
    )


@given(st.binary(max_size=40))
def test_one_line_holds_no_control_character_but_tab(text: bytes) -> None:
    line = address.escape_controls(text)
    assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line)


@given(st.binary(max_size=40))
def test_what_holds_no_control_character_stays_as_it_is(text: bytes) -> None:
    printable = bytes(c for c in text if (c >= 32 or c == 9) and c != 127)
    assert address.escape_controls(printable) == printable


@pytest.mark.parametrize(
    ("quoted", "plain"),
    [
        (b'"a b"@c.example', b"a b@c.example"),
        (b'"a\\"b"@c.example', b'a"b@c.example'),
        (b'"a\\\\b"@c.example', b"a\\b@c.example"),
        (b'"a@b"@c.example', b"a@b@c.example"),
        (b'""@c.example', b"@c.example"),
        (b'"a b"', b"a b"),
        (b"a@c.example", b"a@c.example"),
        (b'"@c.example', b'"@c.example'),
        (b"", b""),
    ],
)
def test_quotes_come_off_the_local_part_alone(quoted: bytes, plain: bytes) -> None:
    assert address.unquote(quoted) == plain


@given(st.binary(max_size=30).filter(lambda local: b"@" not in local))
def test_quoting_can_be_undone(local: bytes) -> None:
    for plain in (local, local + b"@c.example"):
        assert address.unquote(address.quote(plain)) == plain
    quoted = re.sub(rb'([\\"])', rb"\\\1", local)
    assert address.unquote(b'"' + quoted + b'"@c.example') == local + b"@c.example"


def from_xtext(text: bytes) -> bytes:
    """RFC 3461 4, by the letter."""
    assert re.fullmatch(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*", text)
    return re.sub(rb"\+(..)", lambda m: bytes.fromhex(m[1].decode()), text)


@given(st.binary(max_size=60))
def test_xtext_is_xtext_and_can_be_undone(text: bytes) -> None:
    assert from_xtext(address.xtext(text)) == text


@given(st.binary(max_size=60), st.integers(1, 90))
def test_xtext_that_is_cut_is_xtext_of_the_beginning(text: bytes, limit: int) -> None:
    encoded = address.xtext(text, limit=limit)
    assert len(encoded) <= limit
    assert text.startswith(from_xtext(encoded))
    assert len(encoded) > limit - 3 or encoded == address.xtext(text)


@pytest.mark.parametrize(
    ("text", "orcpt"),
    [
        (b"bob@example.com", b"rfc822;bob@example.com"),
        (b"a+b=c@example.com", b"rfc822;a+2Bb+3Dc@example.com"),
        (b'"a b"@example.com', b'rfc822;"a+20b"@example.com'),
        (b"\xfc@example.com", b"rfc822;+FC@example.com"),
        (b"gr\xc3\xbcn@example.com", rb"utf-8;gr\x{FC}n@example.com"),
        ("😀+\\@x.example".encode(), rb"utf-8;\x{1F600}\x{2B}\x{5C}@x.example"),
    ],
)
def test_orcpt_is_in_the_form_of_its_rfc(text: bytes, orcpt: bytes) -> None:
    assert address.orcpt(text) == orcpt


@given(ADDRESSES)
def test_orcpt_is_one_word_of_ascii(text: bytes) -> None:
    value = address.orcpt(text)
    assert re.fullmatch(rb"(?:rfc822|utf-8);[!-~]+", value)
    assert b"=" not in value


@given(
    st.text(alphabet="aü=+\\ 😀{}@\t\x7f", min_size=1).filter(lambda t: not t.isascii())
)
def test_a_utf8_orcpt_can_be_undone(text: str) -> None:
    encoded = address.orcpt(text.encode()).decode().removeprefix("utf-8;")
    decoded = re.sub(r"\\x\{([0-9A-F]+)\}", lambda m: chr(int(m[1], 16)), encoded)
    assert decoded == text


def test_a_network_is_no_client() -> None:
    assert not address.is_in_network(b"192.0.2.0/24", "192.0.2.0/24")
    assert not address.is_in_network(b"192.0.2.0/24", "192.0.0.0/16")
