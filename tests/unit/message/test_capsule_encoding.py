"""The body of a capsule in base64: there and back, whatever the pieces."""

from __future__ import annotations

from base64 import b64decode, encodebytes

import pytest
from hypothesis import given
from hypothesis import strategies as some

from postfix_archive.errors import CapsuleBroken
from postfix_archive.message import capsule, header, smtp_data

from unit import examples
from unit.examples import KEYS, NOW

PREAMBLE = capsule.make_preamble(
    examples.make_envelope(), KEYS, sender=b"a@example.com", now=NOW
)


def chunks_of(content: bytes, size: int) -> list[bytes]:
    return [content[offset : offset + size] for offset in range(0, len(content), size)]


ANY_BYTES = some.binary(max_size=3000)
LINE_ENDS = some.text("\r\n.x", max_size=3000).map(str.encode)


@given(
    ANY_BYTES | LINE_ENDS,
    some.integers(100, 3000),
    some.integers(1, 400),
    some.integers(2000, 4000),
)
def test_what_is_packed_comes_out_as_it_was(
    original: bytes, beginning: int, first: int, second: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capsule, "PACKED_SIZE", beginning)
        packed = b"".join(capsule.pack(PREAMBLE, chunks_of(original, first)))
    assert capsule.is_packed(packed)
    assert b"".join(capsule.unpack(chunks_of(packed, second))) == PREAMBLE + original


@given(LINE_ENDS, some.integers(100, 1500), some.integers(1, 400))
def test_no_crlf_of_the_original_is_parted(
    original: bytes, beginning: int, size: int
) -> None:
    """Postfix would make two line ends of the two."""
    canonical = b"".join(smtp_data.to_canonical([original]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capsule, "PACKED_SIZE", beginning)
        packed = b"".join(capsule.pack(PREAMBLE, chunks_of(canonical, size)))
    assert b"".join(smtp_data.to_canonical([packed.replace(b"\r\n", b"\n")])) == packed


@pytest.mark.parametrize("line", [b"A secret here.\r\n", b"secret" * 200_000 + b"\r\n"])
def test_the_encoded_body_contains_no_plain_text_and_adds_little(line: bytes) -> None:
    original = line * (2_000_000 // len(line) + 1)
    packed = b"".join(capsule.pack(PREAMBLE, chunks_of(original, 1 << 16)))
    body = packed[header.body_start(packed) :]
    assert b"secret" not in body[: 2 * 51200] and b"secret" in body
    assert len(packed) < len(PREAMBLE) + len(original) + 40_000


def test_a_capsule_of_an_earlier_version_in_base64_to_its_end_is_read() -> None:
    original = b"Subject: x\r\n\r\n" + b"0123456789" * 50_000 + b"\r\n"
    start = header.body_start(PREAMBLE)
    head = PREAMBLE[:start].replace(capsule.PLAIN_ENCODING, capsule.PACKED_ENCODING)
    assert head != PREAMBLE[:start]
    body = encodebytes(PREAMBLE[start:] + original).replace(b"\n", b"\r\n")
    assert capsule.is_packed(head + body)
    unpacked = b"".join(capsule.unpack(chunks_of(head + body, 5000)))
    assert unpacked == PREAMBLE + original


def test_lines_are_as_long_as_an_attachments() -> None:
    original = b"Subject: x\r\n\r\n" + bytes(range(256)) * 40
    packed = b"".join(capsule.pack(PREAMBLE, [original]))
    assert packed.isascii()
    body = packed[packed.index(capsule.PACKED_MAGIC) :]
    assert max(map(len, body.split(b"\r\n"))) == capsule.LINE_LENGTH
    assert b64decode(body) == PREAMBLE[capsule.fields_offset(PREAMBLE) :] + original


def test_ordinary_mail_and_plain_capsules_are_not_packed() -> None:
    assert not capsule.is_packed(PREAMBLE)
    assert not capsule.is_packed(b"Subject: x\r\n\r\nhello\r\n")
    assert not capsule.is_packed(b"")


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_a_cut_end_is_left_out(length: int) -> None:
    complete = PREAMBLE + b"the original"
    packed = b"".join(capsule.pack(PREAMBLE, [b"the original"]))
    unpacked = b"".join(capsule.unpack([packed[: len(packed) - 2 - length]]))
    assert complete.startswith(unpacked) and len(complete) - len(unpacked) <= length + 2


def test_a_body_that_is_no_base64_is_a_broken_capsule() -> None:
    packed = b"".join(capsule.pack(PREAMBLE, [b"x"]))
    start = packed.index(capsule.PACKED_MAGIC) + len(capsule.PACKED_MAGIC)
    with pytest.raises(CapsuleBroken, match="body is not base64"):
        b"".join(capsule.unpack([packed[:start] + b"A===" + packed[start:]]))
