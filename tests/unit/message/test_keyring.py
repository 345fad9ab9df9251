"""Claims about the key file and what keys prove."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import KeyUnreadable
from postfix_archive.message import keyring

SECRET = bytes(range(32)).hex()
KEY_PATH = "/etc/postfix/archive.key"


def refusal(text: str) -> str:
    with pytest.raises(KeyUnreadable) as excinfo:
        keyring.parse(text, path=KEY_PATH)
    return str(excinfo.value)


def test_the_first_key_is_in_use_and_the_others_are_known() -> None:
    text = f"# comment\n\nnew {'ab' * 32}\nold {SECRET}\n"
    keys = keyring.parse(text, path=KEY_PATH)
    assert keys.current.key_id == "new"
    assert [each.secret for each in keys.with_id("old")] == [bytes(range(32))]


def test_a_key_that_is_not_there_is_none() -> None:
    keys = keyring.parse(f"a {SECRET}\n", path=KEY_PATH)
    assert keys.with_id("b") == keys.with_id("") == ()


def test_a_longer_secret_is_taken() -> None:
    keys = keyring.parse(f"a {'00' * 64}", path=KEY_PATH)
    assert len(keys.current.secret) == 64


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_file_without_a_key_says_how_to_make_one(text: str) -> None:
    error_text = refusal(text)
    assert error_text.startswith(KEY_PATH)
    assert "key create" in error_text


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
    error_text = refusal(f"# keys\n{line}\n")
    assert error_text.startswith(f"{KEY_PATH}, line 2: ")
    assert SECRET[2:-2] not in error_text


def test_two_keys_may_have_one_id_and_a_key_that_occurs_twice_is_one() -> None:
    text = f"a {SECRET}\n\n# others\na {'ab' * 32}\na {SECRET}\n"
    keys = keyring.parse(text, path=KEY_PATH)
    assert [each.secret.hex() for each in keys.with_id("a")] == [SECRET, "ab" * 32]
    assert keys.keys == keys.with_id("a")
    assert keys.with_id("b") == ()


def test_a_proof_is_the_hmac_that_openssl_makes() -> None:
    key = keyring.Key("a", b"s" * 32)
    expected = hmac.new(b"s" * 32, b"stamp\0content", "sha256").digest()
    assert key.mac(b"stamp", b"content") == expected


@given(st.binary(max_size=50))
def test_a_proof_for_one_purpose_is_none_for_another(content: bytes) -> None:
    key = keyring.Key("a", b"s" * 32)
    purposes = (b"stamp", b"seal", b"request", b"tag", b"boundary")
    assert len({key.mac(each, content) for each in purposes}) == len(purposes)
