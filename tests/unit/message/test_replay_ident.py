"""The mark of a replayed message: made with a site key, good for one message."""

from __future__ import annotations

import pytest

from postfix_archive.message import keyring, replay_ident

KEYS = keyring.parse(f"new {'1' * 64}\nold {'2' * 64}\n", path="test")
FOREIGN = keyring.parse(f"new {'3' * 64}\n", path="test")
NONCE = bytes(range(replay_ident.NONCE_BYTES))


@pytest.mark.parametrize("key", KEYS.keys)
def test_a_mark_of_any_key_of_the_site_counts_once(key: keyring.Key) -> None:
    ident = replay_ident.make(key, NONCE).decode()
    idents = replay_ident.Idents(KEYS)
    assert ident.isalnum()
    assert [idents.take(ident), idents.take(ident)] == [True, False]


@pytest.mark.parametrize(
    "ident",
    [
        "",
        "4jZFG724PhzK5b4",
        "replay" + "0" * 48,
        replay_ident.make(KEYS.current, NONCE).decode()[:-1],
        replay_ident.make(KEYS.current, NONCE).decode() + "0",
        replay_ident.make(FOREIGN.current, NONCE).decode(),
    ],
)
def test_what_no_key_of_the_site_has_made_is_no_mark(ident: str) -> None:
    assert not replay_ident.Idents(KEYS).take(ident)


def test_without_keys_nothing_is_a_mark() -> None:
    ident = replay_ident.make(KEYS.current, NONCE).decode()
    assert not replay_ident.Idents(None).take(ident)
