"""The body of a capsule in base64: there and back, whatever the pieces."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as some

from postfix_archive.core import capsule, packing
from postfix_archive.core.errors import CapsuleBroken

from unit import examples
from unit.examples import KEYS, NOW

PREAMBLE = capsule.preamble(
    examples.envelope_of(), KEYS, sender=b"a@example.com", now=NOW
)


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


@given(some.binary(max_size=3000), some.integers(1, 400), some.integers(2000, 4000))
def test_what_is_packed_comes_out_as_it_was(
    original: bytes, first: int, second: int
) -> None:
    packed = b"".join(packing.packed(PREAMBLE, pieces(original, first)))
    assert packing.is_packed(packed)
    assert b"".join(packing.unpacked(pieces(packed, second))) == PREAMBLE + original


def test_it_is_mime_and_foreign_programs_read_it() -> None:
    original = b"Subject: x\r\n\r\n" + bytes(range(256)) * 40
    packed = b"".join(packing.packed(PREAMBLE, [original]))
    assert packed.isascii()
    body = packed[packed.index(packing.BEGINNING) :]
    assert max(map(len, body.split(b"\r\n"))) == packing.LINE
    read = email.message_from_bytes(packed, policy=email.policy.default)
    content = read.get_payload(decode=True)
    assert content == PREAMBLE[capsule.start(PREAMBLE) :] + original


def test_ordinary_mail_and_plain_capsules_are_not_packed() -> None:
    assert not packing.is_packed(PREAMBLE)
    assert not packing.is_packed(b"Subject: x\r\n\r\nhello\r\n")
    assert not packing.is_packed(b"")


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_a_cut_end_is_left_out(length: int) -> None:
    whole = PREAMBLE + b"the original"
    packed = b"".join(packing.packed(PREAMBLE, [b"the original"]))
    found = b"".join(packing.unpacked([packed[: len(packed) - 2 - length]]))
    assert whole.startswith(found) and len(whole) - len(found) <= length + 2


def test_a_body_that_is_no_base64_is_a_broken_capsule() -> None:
    packed = b"".join(packing.packed(PREAMBLE, [b"x"]))
    start = packed.index(packing.BEGINNING) + len(packing.BEGINNING)
    with pytest.raises(CapsuleBroken, match="no base64"):
        b"".join(packing.unpacked([packed[:start] + b"A===" + packed[start:]]))
