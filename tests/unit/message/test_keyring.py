"""Claims about the key file and what keys prove."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import KeyUnreadable
from postfix_archive.message import keyring

SECRET = bytes(range(32)).hex()
PLACE = "/etc/postfix/archive.key"


def refusal(text: str) -> str:
    with pytest.raises(KeyUnreadable) as caught:
        keyring.parse(text, path=PLACE)
    return str(caught.value)


def test_the_first_key_is_in_use_and_the_others_are_known() -> None:
    text = f"# comment\n\nnew {'ab' * 32}\nold {SECRET}\n"
    keys = keyring.parse(text, path=PLACE)
    assert keys.current.key_id == "new"
    old = keys.find("old")
    assert old is not None and old.secret == bytes(range(32))


def test_a_key_that_is_not_there_is_none() -> None:
    keys = keyring.parse(f"a {SECRET}\n", path=PLACE)
    assert keys.find("b") is None
    assert keys.find("") is None


def test_a_longer_secret_is_taken() -> None:
    keys = keyring.parse(f"a {'00' * 64}", path=PLACE)
    assert len(keys.current.secret) == 64


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_file_without_a_key_says_how_to_make_one(text: str) -> None:
    said = refusal(text)
    assert said.startswith(PLACE)
    assert "key create" in said


@pytest.mark.parametrize(
    "line",
    [
        SECRET,
        f"a b {SECRET}",
        f"A {SECRET}",
        f"k/1 {SECRET}",
        f"{'k' * 33} {SECRET}",
        f"a {SECRET[:-2]}",
        f"a {SECRET[:-1]}",
        f"a x{SECRET[1:]}",
    ],
)
def test_a_wrong_line_is_named_and_its_secret_is_not_shown(line: str) -> None:
    said = refusal(f"# keys\n{line}\n")
    assert said.startswith(f"{PLACE}, line 2: ")
    assert SECRET[2:-2] not in said


def test_two_keys_of_one_id_are_refused() -> None:
    said = refusal(f"a {SECRET}\na {'ab' * 32}\n")
    assert "two keys with the same id" in said
    assert SECRET not in said


def test_a_proof_is_the_hmac_that_openssl_makes() -> None:
    key = keyring.Key("a", b"s" * 32)
    expected = hmac.new(b"s" * 32, b"stamp\0content", "sha256").digest()
    assert key.mac(b"stamp", b"content") == expected


@given(st.binary(max_size=50))
def test_a_proof_for_one_purpose_is_none_for_another(content: bytes) -> None:
    key = keyring.Key("a", b"s" * 32)
    purposes = (b"stamp", b"seal", b"request", b"tag", b"boundary")
    assert len({key.mac(each, content) for each in purposes}) == len(purposes)
