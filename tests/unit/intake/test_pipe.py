"""Claims about reading the command line that pipe(8) makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import ArgumentsInvalid
from postfix_archive.stamp_filter import transaction

BOB, EVE = b"bob@example.com", b"eve@example.com"


def parse(*arguments: bytes) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    macros, recipients = transaction.parse_arguments(list(arguments))
    return macros, [(each.final, each.original) for each in recipients]


def test_macros_and_recipients_are_separated() -> None:
    macros, recipients = parse(
        b"--nexthop", b"legal@example.com", b"--sender", b"ann@example.org",
        b"--queue-id", b"4Zx", b"--", BOB, EVE, b"sales@example.com", EVE,
    )  # fmt: skip
    assert macros[b"nexthop"] == b"legal@example.com"
    assert macros[b"sender"] == b"ann@example.org"
    assert macros[b"queue-id"] == b"4Zx"
    assert recipients == [(BOB, b"sales@example.com"), (EVE, EVE)]


def test_a_macro_that_is_not_given_is_empty() -> None:
    macros, _ = parse(b"--")
    assert set(macros) == set(transaction.OPTIONS)
    assert not any(macros.values())


@pytest.mark.parametrize("option", transaction.OPTIONS)
def test_every_option_takes_its_value(option: bytes) -> None:
    macros, _ = parse(b"--" + option, b"value", b"--", BOB, BOB)
    assert macros[option] == b"value"


@pytest.mark.parametrize("value", [b"", b"unknown"])
@pytest.mark.parametrize(
    "option", [b"client-hostname", b"client-address", b"client-port", b"client-helo"]
)
def test_what_postfix_does_not_know_of_the_client_is_left_out(
    option: bytes, value: bytes
) -> None:
    macros, _ = parse(b"--" + option, value, b"--", BOB, BOB)
    assert macros[option] == b""


@pytest.mark.parametrize("option", [b"sender", b"envid", b"sasl-username"])
def test_a_value_that_a_client_calls_unknown_is_passed_on(option: bytes) -> None:
    """Only of the client does Postfix say so; ENVID=unknown is what it was given."""
    macros, _ = parse(b"--" + option, b"unknown", b"--", BOB, BOB)
    assert macros[option] == b"unknown"


def test_the_null_sender_stays_null() -> None:
    macros, _ = parse(b"--sender", b"", b"--", BOB, BOB)
    assert macros[b"sender"] == b""


@pytest.mark.parametrize("value", [b"--", b"--nexthop", b"-", b"-x@example.com"])
def test_a_value_that_looks_like_an_option_is_a_value(value: bytes) -> None:
    macros, recipients = parse(b"--sender", value, b"--", BOB, BOB)
    assert macros[b"sender"] == value
    assert recipients == [(BOB, BOB)]


@pytest.mark.parametrize(
    "recipient", [b"--", b"--sender", b"-f", b"", b"\xff\0", b"a b"]
)
def test_a_recipient_may_look_like_anything(recipient: bytes) -> None:
    assert parse(b"--", recipient, BOB, recipient, EVE)[1] == [
        (recipient, recipient),
        (BOB, EVE),
    ]


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=9))
def test_recipients_keep_their_form_and_order(
    people: list[tuple[bytes, bytes]],
) -> None:
    arguments = [final for final, _ in people] + [original for _, original in people]
    assert parse(b"--", *arguments)[1] == people


def test_3500_recipients_are_read() -> None:
    arguments = [b"r%04d@example.com" % number for number in range(3500)]
    assert len(parse(b"--", *arguments, *arguments)[1]) == 3500


@pytest.mark.parametrize(
    "arguments",
    [
        (b"--colour", b"red", b"--"),
        (b"sender", b"ann@example.org", b"--"),
        (b"-sender", b"ann@example.org", b"--"),
        (b"--sender",),
        (b"--sender=ann@example.org", b"--"),
        (BOB, EVE),
        (b"--SENDER", b"x", b"--"),
    ],
)
def test_an_option_that_master_cf_does_not_have_is_refused(
    arguments: tuple[bytes, ...],
) -> None:
    with pytest.raises(ArgumentsInvalid, match="master.cf.d"):
        parse(*arguments)


@pytest.mark.parametrize("recipients", [(BOB,), (BOB, EVE, BOB)])
def test_recipients_without_their_originals_are_refused(
    recipients: tuple[bytes, ...],
) -> None:
    with pytest.raises(ArgumentsInvalid, match="master.cf.d"):
        parse(b"--", *recipients)


def test_the_error_shows_the_start_of_the_argument_on_one_line() -> None:
    with pytest.raises(ArgumentsInvalid) as excinfo:
        parse(b"--x\n" + b"y" * 500, b"z")
    assert "\n" not in str(excinfo.value)
    assert len(str(excinfo.value)) < 300
