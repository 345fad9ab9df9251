"""Claims about the capsule: only ours open, and they open to what went in."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import CapsuleBroken, SealInvalid
from postfix_archive.message import capsule, envelope, header
from postfix_archive.message.envelope import Client, Recipient
from postfix_archive.message.keyring import Keyring

from unit import examples
from unit.examples import (
    ADDRESSES,
    ARCHIVE_ID,
    FOREIGN_KEYS,
    KEYS,
    MESSAGE,
    NEW_KEY,
    NOW,
    ROTATED,
    envelope_values,
    make_envelope,
)

FROM = b"postfix-archive@mail.example.com"


def make_preamble(sealed_envelope: envelope.Envelope, keys: Keyring = KEYS) -> bytes:
    return capsule.make_preamble(sealed_envelope, keys, sender=FROM, now=NOW)


PREAMBLE = make_preamble(make_envelope())


def test_unsealing_a_capsule_gives_its_envelope_and_original() -> None:
    unsealed = capsule.unseal(PREAMBLE + MESSAGE, KEYS)
    assert envelope_values(unsealed.envelope) == envelope_values(make_envelope())
    assert (PREAMBLE + MESSAGE)[unsealed.original_offset :] == MESSAGE
    assert unsealed.fields == envelope.serialise(make_envelope())


@given(
    sender=ADDRESSES,
    recipient=st.one_of(ADDRESSES, st.binary(min_size=1, max_size=20)),
    helo=st.sampled_from([b"", b"a b", b" a", b"a ", b"a\tb", b"a\t", b"a\rb"]),
)
@pytest.mark.parametrize("quoted", [b"%s", b" %s", b"%s ", b"\t%s", b"%s\n", b"a%s\t"])
def test_an_envelope_is_the_same_with_and_without_its_fields(
    quoted: bytes, sender: bytes, recipient: bytes, helo: bytes
) -> None:
    """The same message by another door makes the same record."""
    own = make_envelope(
        sender=quoted % sender,
        recipients=(Recipient(quoted % recipient, recipient, orcpt=helo),),
        client=Client(address=b"192.0.2.7", helo=helo),
    )
    direct = capsule.from_envelope(own)
    parsed = capsule.from_fields(envelope.serialise(own))
    assert envelope_values(direct.envelope) == envelope_values(parsed.envelope)
    assert (direct.fields, direct.capsule_id) == (parsed.fields, parsed.capsule_id)


@pytest.mark.parametrize(
    "original",
    [b"", b"\r\n", b"\r\n\r\n", b"Archive-Seal: k=x; h=y\r\n\r\n", PREAMBLE, b"\0\xff"],
)
def test_the_original_begins_where_it_began_whatever_it_is(original: bytes) -> None:
    unsealed = capsule.unseal(PREAMBLE + original, KEYS)
    assert (PREAMBLE + original)[unsealed.original_offset :] == original


@given(ADDRESSES, st.lists(ADDRESSES, max_size=4), st.binary(max_size=50))
def test_every_envelope_can_be_sealed_and_unsealed(
    sender: bytes, people: list[bytes], original: bytes
) -> None:
    sealed_envelope = make_envelope(
        sender=sender, recipients=tuple(map(Recipient, people))
    )
    content = make_preamble(sealed_envelope) + original
    unsealed = capsule.unseal(content, KEYS)
    assert unsealed.fields == envelope.serialise(sealed_envelope)
    assert content[unsealed.original_offset :] == original


def test_no_recipients_at_all_go_through() -> None:
    unsealed = capsule.unseal(make_preamble(make_envelope(recipients=())), KEYS)
    assert unsealed.envelope.recipients == ()


@pytest.mark.parametrize(
    "hostile_sender",
    [
        b"x\r\nArchive-Seal: k=k2025; h=00\r\n\r\n",
        b"x\nArchive-Seal: ",
        b"Archive-Seal: k=k2025; h=00",
    ],
)
def test_an_address_cannot_write_a_seal(hostile_sender: bytes) -> None:
    unsealed = capsule.unseal(
        make_preamble(make_envelope(sender=hostile_sender)) + MESSAGE, KEYS
    )
    assert unsealed.envelope.archive_id == ARCHIVE_ID


def test_the_key_names_the_capsule_by_its_envelope() -> None:
    resealed = capsule.unseal(make_preamble(make_envelope()), ROTATED)
    other = capsule.unseal(make_preamble(make_envelope(recipients=())), KEYS)
    first = capsule.unseal(PREAMBLE, KEYS)
    assert first.capsule_id == resealed.capsule_id != other.capsule_id


def test_a_capsule_of_a_rotated_key_opens() -> None:
    assert capsule.unseal(PREAMBLE, ROTATED).envelope.archive_id == ARCHIVE_ID


def test_new_capsules_are_sealed_with_the_first_key() -> None:
    new = make_preamble(make_envelope(), ROTATED)
    assert capsule.unseal(new, Keyring((NEW_KEY,))).envelope.archive_id == ARCHIVE_ID


@pytest.mark.parametrize("keys", [KEYS, FOREIGN_KEYS])
def test_keys_of_one_id_open_their_own_capsules(keys: Keyring) -> None:
    joined = Keyring(KEYS.keys + FOREIGN_KEYS.keys)
    assert len(joined.with_id(keys.current.key_id)) == 2
    content = make_preamble(make_envelope(), keys) + MESSAGE
    fields = capsule.unseal(content, joined).fields
    assert fields == envelope.serialise(make_envelope())


def test_a_foreign_seal_is_wrong_even_if_it_names_our_key() -> None:
    with pytest.raises(SealInvalid):
        capsule.unseal(make_preamble(make_envelope(), FOREIGN_KEYS) + MESSAGE, KEYS)


def test_a_seal_of_a_key_that_we_do_not_have_is_wrong() -> None:
    with pytest.raises(SealInvalid, match="does not have"):
        capsule.unseal(make_preamble(make_envelope(), Keyring((NEW_KEY,))), KEYS)


@given(st.data())
def test_no_byte_of_the_envelope_may_change(data: st.DataObject) -> None:
    start = header.body_start(PREAMBLE)
    offset = data.draw(st.integers(start, len(PREAMBLE) - 1))
    changed = bytearray(PREAMBLE)
    changed[offset] ^= data.draw(st.integers(1, 255))
    content = bytes(changed) + MESSAGE
    try:
        unsealed = capsule.unseal(content, KEYS)
    except (SealInvalid, CapsuleBroken):
        return
    # Only the seal line's own white space and words of nobody are free to change.
    assert unsealed.fields == envelope.serialise(make_envelope())
    assert offset >= PREAMBLE.index(b"\r\nArchive-Seal: ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"bob@example.com", b"eve@example.com"),
        (b"legal@example.com", b"trash@example.com"),
        (b"k=k2025", b"k=k2026"),
        (b"; h=", b"; h=00"),
        (b"; h=", b"; x="),
        (b"Archive-Format: 1\r\n", b""),
    ],
)
def test_a_broken_seal_is_wrong(before: bytes, after: bytes) -> None:
    assert before in PREAMBLE
    with pytest.raises(SealInvalid):
        capsule.unseal(PREAMBLE.replace(before, after) + MESSAGE, KEYS)


@given(st.integers(0, len(PREAMBLE) - 1))
def test_a_capsule_that_is_cut_off_never_opens(length: int) -> None:
    with pytest.raises((CapsuleBroken, SealInvalid)):
        capsule.unseal(PREAMBLE[:length], KEYS)


def test_a_seal_line_without_end_is_broken() -> None:
    with pytest.raises(CapsuleBroken):
        capsule.unseal(PREAMBLE.rstrip() + b"0" * 5000 + b"\r\n\r\n", KEYS)


def test_an_ordinary_message_is_no_capsule() -> None:
    with pytest.raises(CapsuleBroken, match="not a capsule"):
        capsule.unseal(MESSAGE, KEYS)


def test_a_body_that_looks_like_a_capsule_is_a_forgery() -> None:
    body = PREAMBLE[header.body_start(PREAMBLE) :]
    forged = b"Subject: x\r\n\r\n" + body.replace(b"bob@", b"eve@")
    with pytest.raises(SealInvalid):
        capsule.unseal(forged, KEYS)


def test_a_capsule_that_postsuper_requeued_still_opens() -> None:
    requeued = examples.REQUEUED + PREAMBLE + MESSAGE
    unsealed = capsule.unseal(requeued, KEYS)
    assert unsealed.capsule_id == capsule.unseal(PREAMBLE, KEYS).capsule_id
    assert requeued[unsealed.original_offset :] == MESSAGE


def test_the_header_holds_all_that_cleanup_would_add() -> None:
    parsed = email.message_from_bytes(PREAMBLE, policy=email.policy.default)
    assert parsed["From"] == FROM.decode()
    assert parsed["Date"].datetime.timestamp() == NOW
    assert ARCHIVE_ID in parsed["Message-Id"]
    assert parsed.get_content_type() == "application/octet-stream"
    assert parsed["MIME-Version"] == "1.0"
    assert not parsed.defects


def test_the_header_of_a_capsule_contains_no_recipient() -> None:
    assert b"bob@" not in PREAMBLE[: header.body_start(PREAMBLE)]
