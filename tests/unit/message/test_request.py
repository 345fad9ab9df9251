"""Claims about requests: who may ask for archiving, and where it goes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import RequestInvalid
from postfix_archive.message import address, request
from postfix_archive.message.envelope import Recipient
from postfix_archive.message.keyring import Keyring

from unit.examples import FOREIGN_KEYS, HR, KEYS, LEGAL, NEW_KEY, ROTATED

BOB = b"bob@example.com"


def split(
    *addresses: bytes, keys: Keyring = KEYS
) -> tuple[list[bytes], tuple[str, ...], int]:
    parts = request.SplitRecipients(map(Recipient, addresses), keys)
    archives = tuple(parts.table_archives)
    return [each.final for each in parts.recipients], archives, parts.forged_count


@pytest.mark.parametrize(
    ("nexthop", "archives"),
    [
        ("legal@example.com", (LEGAL,)),
        ("Legal@Example.COM", (LEGAL,)),
        ("legal@example.com,hr@example.com", (LEGAL, HR)),
        ("legal@example.com,LEGAL@example.com", (LEGAL,)),
        ("on-request", ()),
    ],
)
def test_a_nexthop_names_its_archives(nexthop: str, archives: tuple[str, ...]) -> None:
    assert request.from_nexthop(nexthop) == archives


@pytest.mark.parametrize(
    "nexthop",
    [
        "",
        ",",
        "legal",
        "legal@example.com,",
        "legal@example.com, hr@example.com",
        "legal@example.com;hr@example.com",
        "on-request,legal@example.com",
        "../../etc@example.com",
        "a/b@example.com",
        "$archive",
        "[127.0.0.1]:10025",
        "lègal@example.com",
        "\udcff@example.com",
        # The Kelvin sign, which lower() makes a k.
        "\u212aate@example.com",
    ],
)
def test_a_nexthop_that_names_no_archive_defers_and_names_the_setting(
    nexthop: str,
) -> None:
    with pytest.raises(RequestInvalid, match="main.cf"):
        request.from_nexthop(nexthop)


def test_a_table_can_request_by_a_recipient() -> None:
    carried = request.make_recipient(LEGAL, KEYS)
    assert carried.endswith(b"@archive-request.invalid")
    assert LEGAL.encode() not in carried
    assert split(BOB, carried) == ([BOB], (LEGAL,), 0)


def test_the_case_of_a_request_does_not_count() -> None:
    upper = request.make_recipient("LEGAL@Example.com", KEYS).upper()
    assert split(upper) == ([], (LEGAL,), 0)


def test_requests_add_up_and_each_counts_once() -> None:
    legal, hr = (request.make_recipient(each, KEYS) for each in (LEGAL, HR))
    assert split(legal, BOB, hr, legal) == ([BOB], (LEGAL, HR), 0)


def test_a_request_made_with_a_rotated_key_still_counts() -> None:
    assert split(request.make_recipient(LEGAL, KEYS), keys=ROTATED)[1] == (LEGAL,)


def test_new_requests_are_made_with_the_first_key() -> None:
    new_recipient = request.make_recipient(LEGAL, ROTATED)
    assert new_recipient == request.make_recipient(LEGAL, Keyring((NEW_KEY,)))


def test_a_request_made_with_a_foreign_key_is_a_forgery() -> None:
    forged = request.make_recipient(LEGAL, FOREIGN_KEYS)
    assert split(BOB, forged) == ([BOB], (), 1)


def test_the_mac_of_another_address_is_a_forgery() -> None:
    mac = request.make_recipient(HR, KEYS).partition(b".")[0]
    encoded_address = request.make_recipient(LEGAL, KEYS).partition(b".")[2]
    assert split(mac + b"." + encoded_address) == ([], (), 1)


@pytest.mark.parametrize(
    "local_part",
    [
        b"",
        b".",
        b"legal",
        b"00.00",
        b"zz.zz",
        b".6c6567616c406578616d706c652e636f6d",
        b"\xff.\xff",
        b'"a b"',
    ],
)
def test_a_request_without_a_true_mac_is_a_forgery(local_part: bytes) -> None:
    assert split(local_part + b"@archive-request.invalid") == ([], (), 1)


@given(st.binary(max_size=40))
def test_no_recipient_of_the_request_domain_counts_as_a_mail_recipient(
    local: bytes,
) -> None:
    recipients, archives, forged = split(local + b"@Archive-Request.INVALID")
    assert (recipients, archives, forged) == ([], (), 1)


def test_a_shortened_mac_is_a_forgery() -> None:
    mac, _, encoded_address = request.make_recipient(LEGAL, KEYS).partition(b".")
    assert split(mac[:-2] + b"." + encoded_address) == ([], (), 1)


@pytest.mark.parametrize(
    "other",
    [
        b"a@example.invalid",
        b"a@sub.archive-request.invalid",
        b"archive-request.invalid",
    ],
)
def test_other_domains_are_mail_recipients(other: bytes) -> None:
    assert split(other) == ([other], (), 0)


def test_a_message_to_the_capsule_address_alone_is_a_capsule() -> None:
    assert request.is_capsule((Recipient(request.CAPSULE_RECIPIENT),))
    assert not request.is_capsule(
        (Recipient(request.CAPSULE_RECIPIENT), Recipient(BOB))
    )
    assert not request.is_capsule((Recipient(BOB),))
    assert not request.is_capsule(())


def test_a_capsule_that_native_mode_has_captured_is_a_capsule() -> None:
    table = request.capture_table(LEGAL, KEYS)
    capsule, bob = (
        Recipient(captured_by(table, each.decode()))
        for each in (request.CAPSULE_RECIPIENT, BOB)
    )
    assert request.is_capsule((Recipient(request.CAPSULE_RECIPIENT), capsule))
    assert not request.is_capsule((Recipient(request.CAPSULE_RECIPIENT), bob))
    assert not request.is_capsule((bob,))


def test_the_capsule_address_is_a_forged_request_and_no_mail_recipient() -> None:
    assert split(request.CAPSULE_RECIPIENT, BOB) == ([BOB], (), 1)


def test_a_request_for_no_plain_address_cannot_be_made() -> None:
    with pytest.raises(RequestInvalid):
        request.make_recipient("../x@example.com", KEYS)


def captured_by(table: str, key: str) -> bytes:
    """What cleanup(8) makes of a recipient, quoted as lmtp(8) and pipe(8) do it."""
    for line in table.splitlines():
        pattern, _, result = line.partition(" ")
        if match := re.search(pattern.strip("/"), key):
            expanded = result.replace("$1", match[1] if match.lastindex else "")
            return address.quote(expanded.encode("utf-8", "surrogateescape"))
    raise AssertionError(key)


def split_capture(
    *keys: str, value: str = LEGAL, made_with: Keyring = KEYS, keyring: Keyring = KEYS
) -> request.SplitRecipients:
    table = request.capture_table(value, made_with)
    recipients = (Recipient(captured_by(table, each)) for each in keys)
    return request.SplitRecipients(recipients, keyring)


@pytest.mark.parametrize(
    "key",
    [
        "bob@example.com",
        "BoB+Ext@Example.COM",
        '"a b"@example.com',
        '"a\\"b"@example.com',
        '"a\\\\b"@example.com',
        '"a@b"@example.com',
        '""@example.com',
        "x==y.z@example.com",
        "b%c!d@example.com",
        "bob@[192.0.2.1]",
        "bob@[IPv6:2001:db8::1]",
        "müller@exämple.com",
        "nodomain",
        "empty@",
        "a" * 2048 + "@example.com",
        "$1@example.com",
    ],
)
def test_a_capture_recipient_carries_an_address_unchanged(key: str) -> None:
    parts = split_capture(key)
    assert list(parts.captured) == [key.encode()]
    assert (list(parts.capture_archives), parts.forged_count) == ([LEGAL], 0)
    assert not parts.recipients and not parts.has_unmapped


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\0")))
def test_any_local_part_survives_as_a_capture_recipient(local: str) -> None:
    key = address.quote(f"{local}@example.com".encode())
    assert list(split_capture(key.decode()).captured) == [key]


def test_capture_recipients_are_recipients_once_each_of_all_archives() -> None:
    parts = split_capture(
        "a@x.example", "b@y.example", "a@x.example", value="A@B.c,d@e.f"
    )
    assert list(parts.captured) == [b"a@x.example", b"b@y.example"]
    assert list(parts.capture_archives) == ["a@b.c", "d@e.f"]


def test_with_tables_alone_capture_recipients_request_nothing() -> None:
    parts = split_capture("a@x.example", value=request.ON_REQUEST)
    assert (list(parts.captured), list(parts.capture_archives)) == (
        [b"a@x.example"],
        [],
    )
    assert parts.has_capture and not parts.forged_count


def test_a_recipient_that_is_no_key_is_known_to_be_missing() -> None:
    parts = split_capture("@", "bob@x.example")
    assert parts.has_unmapped and list(parts.capture_archives) == [LEGAL]
    assert list(parts.captured) == [b"bob@x.example"]


def test_a_capture_table_of_a_rotated_key_still_counts() -> None:
    assert split_capture("a@x.example", keyring=ROTATED).captured


@pytest.mark.parametrize(
    "forged",
    [
        captured_by(request.capture_table(LEGAL, FOREIGN_KEYS), "bob@x.example"),
        b"capture." + request.make_recipient(LEGAL, KEYS),  # a seal of another purpose
        captured_by(request.capture_table(HR, KEYS), "bob@x.example").replace(
            HR.encode().hex().encode(), LEGAL.encode().hex().encode()
        ),
        b"capture.@archive-request.invalid",
        b'"capture...bob@x.example"@archive-request.invalid',
    ],
)
def test_a_forged_capture_recipient_archives_nothing(forged: bytes) -> None:
    parts = request.SplitRecipients([Recipient(forged)], KEYS)
    assert parts.forged_count == 1 and not parts.has_capture
    assert not parts.captured and not parts.capture_archives


def test_a_seal_of_capture_recipients_requests_nothing_for_a_table() -> None:
    sealed = captured_by(request.capture_table(LEGAL, KEYS), "@").partition(b".")[2]
    assert split(sealed) == ([], (), 1)


def test_after_a_requeue_capture_recipients_of_internal_ones_are_no_recipients() -> (
    None
):
    table = request.capture_table(LEGAL, KEYS)
    first = captured_by(table, "bob@x.example")
    again = [
        captured_by(table, first.decode()),
        first,
        captured_by(table, "al@y.example"),
    ]
    again.append(captured_by(table, request.make_recipient(HR, KEYS).decode()))
    parts = request.SplitRecipients(map(Recipient, again), KEYS)
    assert list(parts.captured) == [b"bob@x.example", b"al@y.example"]
    assert not parts.forged_count and not parts.table_archives


def test_a_capture_table_is_made_for_archives_only() -> None:
    with pytest.raises(RequestInvalid):
        request.capture_table("not an address", KEYS)
