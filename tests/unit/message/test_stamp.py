"""Claims about the stamp: what it proves, and what cannot be done with it."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postfix_archive.message import header, stamp
from postfix_archive.message.keyring import Key, Keyring

from unit import examples
from unit.examples import (
    ARCHIVE_ID,
    FOREIGN_KEYS,
    HR,
    KEYS,
    LEGAL,
    MESSAGE,
    NEW_KEY,
    NOW,
    OLD_KEY,
    ROTATED,
)

OTHER_MESSAGE = MESSAGE.replace(b"Please sign.", b"Please burn.")
FOOTER = b"-- \r\nthe list\r\n"


def make_stamp(
    message: bytes = MESSAGE,
    archive: str = LEGAL,
    *,
    key: Key = OLD_KEY,
    archive_id: str = ARCHIVE_ID,
    time: int = NOW,
) -> bytes:
    """The stamp of this message for one archive."""
    tag = stamp.archive_tag(archive, key)
    return stamp.make(archive_id, tag, examples.sha256(message), time, key)


def verdict_of(
    message: bytes, archive: str = LEGAL, keys: Keyring = KEYS
) -> stamp.Verdict:
    """What the stamps of a message say to one archive."""
    stamps = stamp.find(message[: header.HEAD_LIMIT], keys)
    digests = examples.digests(message, stamps.content_offsets)
    return stamp.verify(stamps, archive, digests, keys)


def verdict_kind(message: bytes, archive: str = LEGAL, keys: Keyring = KEYS) -> str:
    return verdict_of(message, archive, keys).result


@pytest.mark.parametrize("key", [OLD_KEY, FOREIGN_KEYS.current])
def test_keys_of_one_id_verify_their_own_stamps(key: Key) -> None:
    joined = Keyring(KEYS.keys + FOREIGN_KEYS.keys)
    assert len(joined.with_id(key.key_id)) == 2
    assert verdict_kind(make_stamp(key=key) + MESSAGE, keys=joined) == stamp.VALID


def test_a_message_that_was_stamped_is_valid_and_names_its_capture() -> None:
    verdict = verdict_of(make_stamp() + MESSAGE)
    assert verdict.result == stamp.VALID
    assert verdict.stamp is not None
    assert verdict.stamp.archive_id == ARCHIVE_ID
    assert verdict.stamp.time == NOW
    assert verdict.stamp.start == 0


def test_a_message_without_a_stamp_is_absent() -> None:
    assert verdict_kind(MESSAGE) == stamp.ABSENT
    assert verdict_kind(b"") == stamp.ABSENT


def test_a_stamp_in_the_body_is_no_stamp() -> None:
    assert verdict_kind(MESSAGE + make_stamp()) == stamp.ABSENT


def test_a_changed_body_is_altered() -> None:
    verdict = verdict_of(make_stamp() + MESSAGE + FOOTER)
    assert verdict.result == stamp.ALTERED
    assert verdict.stamp is not None and verdict.stamp.archive_id == ARCHIVE_ID


def test_a_changed_header_below_is_altered() -> None:
    assert (
        verdict_kind(make_stamp() + MESSAGE.replace(b"contract", b"[list]"))
        == stamp.ALTERED
    )


@given(st.integers(0, len(MESSAGE) - 1), st.integers(1, 255))
@example(0, MESSAGE[0] ^ 0x20)
@example(0, MESSAGE[0] ^ 0x09)
def test_no_byte_below_may_change(at: int, change: int) -> None:
    other = bytearray(MESSAGE)
    other[at] ^= change
    # A first byte that is white space makes the line a part of the stamp: forged.
    continued = at == 0 and bytes(other[:1]) in (b" ", b"\t")
    expected = stamp.FORGED if continued else stamp.ALTERED
    assert verdict_kind(make_stamp() + bytes(other)) == expected


def test_the_stamp_of_another_message_is_altered() -> None:
    assert verdict_kind(make_stamp(OTHER_MESSAGE) + MESSAGE) == stamp.ALTERED


def test_the_stamp_of_another_message_above_changes_nothing() -> None:
    assert (
        verdict_kind(make_stamp(OTHER_MESSAGE) + make_stamp() + MESSAGE) == stamp.VALID
    )
    assert (
        verdict_kind(make_stamp(OTHER_MESSAGE) + make_stamp() + MESSAGE + FOOTER)
        == stamp.ALTERED
    )


def test_a_foreign_stamp_is_forged_even_if_it_names_our_key() -> None:
    (foreign_key,) = FOREIGN_KEYS.keys
    assert foreign_key.key_id == OLD_KEY.key_id
    assert verdict_kind(make_stamp(key=foreign_key) + MESSAGE) == stamp.FORGED


def test_a_key_id_that_we_do_not_have_is_forged() -> None:
    assert verdict_kind(make_stamp(key=NEW_KEY) + MESSAGE) == stamp.FORGED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (rb"id=2026", b"id=2025"),
        (rb"t=\d", b"t=9"),
        (rb"a=.", b"a=x"),
        (rb"k=k2025", b"k=k2026"),
        (rb"b=....", b"b=AAAA"),
        (rb"h=....", b"h=AAAA"),
        (rb"h=[^\r]*", b""),
        (rb"h=[^\r]*", b"h="),
        (rb"b=[^;]*;", b"b=;"),
        (rb"t=\d*", b"t=now"),
        (rb"id=[^;]*", b"id=../../../etc"),
        (rb"h=....", b"h=\xff\xff\xff\xff"),
        (rb"h=....", b"h=\0\0\0\0"),
        (rb"v=1; ", b"v=2; "),
    ],
)
def test_no_part_of_a_stamp_may_change(before: bytes, after: bytes) -> None:
    changed = re.sub(before, after, make_stamp())
    assert changed != make_stamp()
    assert verdict_kind(changed + MESSAGE) == stamp.FORGED


@pytest.mark.parametrize(
    "added",
    [
        b"; x=the secret plan",
        b"; the secret plan",
        b";",
        b"!!!",
        b"; h=AAAA; h=%s",
    ],
)
def test_nothing_can_be_hidden_within_a_stamp(added: bytes) -> None:
    """What a valid stamp holds is recorded nowhere: it must hold nothing else."""
    line = make_stamp()
    proof = line.rpartition(b"h=")[2].strip()
    if b"%s" in added:
        added = added % proof
    longer_line = line.removesuffix(b"\r\n") + added + b"\r\n"
    assert verdict_kind(longer_line + MESSAGE) != stamp.VALID


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"v=1; ", b"x=the secret plan; v=1; "),
        (b"v=1; ", b"v=1; id=the secret plan; "),
        (b"\tb=", b"\tb=!!!"),
        (b" t=", b" t=000"),
        (b" t=", b" t=+"),
    ],
)
def test_nothing_can_be_hidden_in_the_middle_of_a_stamp(
    before: bytes, after: bytes
) -> None:
    assert before in make_stamp()
    assert verdict_kind(make_stamp().replace(before, after) + MESSAGE) != stamp.VALID


def test_a_stamp_does_not_contain_the_archive_in_clear() -> None:
    line = make_stamp()
    assert b"legal" not in line and LEGAL.encode().hex().encode() not in line


def test_a_stamp_is_for_one_archive_only() -> None:
    assert verdict_kind(make_stamp() + MESSAGE, HR) == stamp.ABSENT


def test_two_archives_have_a_stamp_each() -> None:
    stamped_twice = make_stamp(archive=LEGAL) + make_stamp(archive=HR) + MESSAGE
    assert verdict_kind(stamped_twice, LEGAL) == stamp.VALID
    assert verdict_kind(stamped_twice, HR) == stamp.VALID


def test_a_second_archive_may_stamp_above_the_first() -> None:
    stamped = make_stamp(archive=LEGAL) + MESSAGE
    stamped_twice = make_stamp(stamped, HR) + stamped
    assert verdict_kind(stamped_twice, LEGAL) == stamp.VALID
    assert verdict_kind(stamped_twice, HR) == stamp.VALID
    relayed = examples.FROM_SMTP + stamped_twice
    assert verdict_kind(relayed, LEGAL) == stamp.VALID
    assert verdict_kind(relayed, HR) == stamp.VALID


def test_the_second_archives_stamp_sees_a_change_of_the_first() -> None:
    stamped = make_stamp(archive=LEGAL) + MESSAGE
    changed = stamped.replace(b"Archive-Stamp", b"archive-stamp")
    assert verdict_kind(make_stamp(stamped, HR) + changed, LEGAL) == stamp.VALID
    assert (
        verdict_kind(make_stamp(stamped, HR) + examples.FROM_SMTP + stamped, HR)
        == stamp.ALTERED
    )


def test_a_forged_stamp_between_two_of_ours_ends_the_block() -> None:
    (foreign_key,) = FOREIGN_KEYS.keys
    forged = make_stamp(key=foreign_key, archive_id="20200101-" + "0" * 40)
    message = make_stamp(archive=LEGAL) + forged + make_stamp(archive=HR) + MESSAGE
    assert verdict_kind(message, LEGAL) == stamp.ALTERED
    assert verdict_kind(message, HR) == stamp.VALID


@pytest.mark.parametrize(
    "line",
    [
        b"Archive-Stamp: hidden text\r\n",
        b"Archive-Stamp:\r\n",
        b"archive-stamp: v=1\r\n",
        b"X-Hidden: text\r\n",
        b" hidden continuation\r\n",
    ],
)
def test_nothing_hides_between_a_stamp_and_its_message(line: bytes) -> None:
    assert verdict_kind(make_stamp() + line + MESSAGE) != stamp.VALID


def test_lines_above_a_stamp_leave_it_valid_and_are_separated() -> None:
    above = b"Received: from a list\r\nX-Spam: no\r\n"
    verdict = verdict_of(above + make_stamp() + MESSAGE)
    assert verdict.result == stamp.VALID
    assert verdict.stamp is not None and verdict.stamp.start == len(above)


def test_a_foreign_stamp_above_ours_does_not_spoil_it() -> None:
    (foreign_key,) = FOREIGN_KEYS.keys
    assert (
        verdict_kind(make_stamp(key=foreign_key) + make_stamp() + MESSAGE)
        == stamp.VALID
    )


def test_an_altered_and_a_valid_stamp_for_one_archive_are_valid() -> None:
    first = make_stamp(OTHER_MESSAGE, archive_id="20200101-" + "0" * 40) + MESSAGE
    message = make_stamp(first) + first
    verdict = verdict_of(message)
    assert verdict.result == stamp.VALID
    assert verdict.stamp is not None and verdict.stamp.archive_id == ARCHIVE_ID


def test_a_stamp_of_a_rotated_key_is_still_ours() -> None:
    assert verdict_kind(make_stamp(key=OLD_KEY) + MESSAGE, keys=ROTATED) == stamp.VALID
    assert verdict_kind(make_stamp(key=NEW_KEY) + MESSAGE, keys=ROTATED) == stamp.VALID


@pytest.mark.parametrize(
    "refold",
    [
        lambda line: line.replace(b"\r\n\t", b" "),
        lambda line: line.replace(b"\r\n\t", b"\r\n        "),
        lambda line: line.replace(b"; ", b";\r\n\t"),
        lambda line: line.replace(b"=", b"=\r\n ", 3),
        lambda line: re.sub(rb"([0-9a-f]{20})", rb"\1\r\n\t", line),
        lambda line: line.replace(b"Archive-Stamp:", b"ARCHIVE-STAMP:   "),
    ],
)
def test_a_header_that_a_relay_folded_anew_is_still_valid(refold: object) -> None:
    assert callable(refold)
    folded = refold(make_stamp())
    assert folded != make_stamp()
    assert verdict_kind(folded + MESSAGE) == stamp.VALID


def test_more_stamps_than_are_looked_at_leave_the_rest_unread() -> None:
    foreign_stamp = b"Archive-Stamp: x\r\n"
    assert (
        verdict_kind(foreign_stamp * (stamp.STAMP_LIMIT - 1) + make_stamp() + MESSAGE)
        == stamp.VALID
    )
    assert (
        verdict_kind(foreign_stamp * stamp.STAMP_LIMIT + make_stamp() + MESSAGE)
        == stamp.FORGED
    )
    assert verdict_kind(foreign_stamp * 5000 + make_stamp() + MESSAGE) == stamp.FORGED


def test_our_own_stamps_need_no_more_digests_than_are_looked_at() -> None:
    stamps = stamp.find(make_stamp() * 300 + MESSAGE, KEYS)
    assert len(stamps.content_offsets) == stamp.STAMP_LIMIT
    assert stamps.has_foreign


@given(st.integers(0, 400))
def test_a_stamp_that_is_cut_off_is_never_valid(length: int) -> None:
    line = make_stamp()
    truncated = line[: min(length, len(line) - 3)]
    assert verdict_kind(truncated + b"\r\n" + MESSAGE) != stamp.VALID
    assert verdict_kind(truncated) != stamp.VALID


@pytest.mark.parametrize("filler", [b" ", b"x", b"=;", b"\0", b"v=1;", b"\r\n\t"])
def test_a_stamp_of_a_megabyte_is_forged_and_read_in_no_time(filler: bytes) -> None:
    huge = b"Archive-Stamp: " + filler * ((1 << 20) // len(filler)) + b"\r\n"
    assert verdict_kind(huge[: 1 << 20] + b"\r\n\r\n") in (stamp.FORGED, stamp.ABSENT)
    assert (
        verdict_kind(huge[:500000].rstrip(b"\r\n") + b"\r\n" + MESSAGE) == stamp.FORGED
    )


@pytest.mark.parametrize(
    "value",
    [b"", b"\0", b"v=1", b"k=k2025", b"=;=;=", b"\xff\xfe", b"h=h=h=", b";" * 900],
)
def test_a_stamp_of_noise_is_forged(value: bytes) -> None:
    assert verdict_kind(b"Archive-Stamp: " + value + b"\r\n" + MESSAGE) == stamp.FORGED


@given(st.binary(max_size=120))
def test_no_stamp_raises(noise: bytes) -> None:
    line = b"Archive-Stamp: v=1; k=k2025; " + noise + b"\r\n"
    assert verdict_kind(line + MESSAGE) in (stamp.FORGED, stamp.ABSENT)


def test_a_stamp_is_a_header_that_survives_transport() -> None:
    line = make_stamp()
    (field,) = header.fields(line)
    assert field.name == stamp.FIELD_NAME
    assert line.isascii()
    assert max(map(len, line.split(b"\r\n"))) <= 998  # RFC 5322 2.1.1
    assert len(line) < stamp.VALUE_LIMIT


def test_the_stamp_of_a_copy_differs_from_that_of_a_message() -> None:
    tag = stamp.archive_tag(LEGAL, OLD_KEY, generation=1)
    line = stamp.make(ARCHIVE_ID, tag, examples.sha256(MESSAGE), NOW, OLD_KEY)
    assert verdict_of(line + MESSAGE).result == stamp.VALID
    assert verdict_of(line + MESSAGE, LEGAL, ROTATED).generation == 1
    assert verdict_of(line + MESSAGE, HR, ROTATED).generation == 0
    assert verdict_of(make_stamp() + MESSAGE).generation == 0
    assert verdict_of(make_stamp() + line + MESSAGE, LEGAL, ROTATED).generation == 1
