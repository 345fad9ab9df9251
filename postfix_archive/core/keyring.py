"""The site keys: which secrets make and check stamps, seals and requests.

Used by stamp, capsule and request. A key file has one key a line, its id and at
least 32 bytes in hexadecimal; the first makes new proofs, the others only check old
ones. This room never reads a file.
"""

from __future__ import annotations

from postfix_archive.core import digest
from postfix_archive.core.errors import KeyUnreadable

SECRET_BYTES = 32  # the output length of SHA-256: RFC 2104 section 3
KEY_ID_BYTES = 32
KEY_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Key:
    """One secret and the id by which stamps and seals name it."""

    __slots__ = ("key_id", "secret")

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.key_id = key_id
        self.secret = secret

    def mac(self, purpose: bytes, content: bytes) -> bytes:
        """Return the 32-byte proof of content for this purpose."""
        return digest.mac(self.secret, purpose, content)


class Keyring:
    """All keys of the site; the first is the one that makes new proofs."""

    __slots__ = ("keys",)

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys

    @property
    def current(self) -> Key:
        """The key that makes new proofs."""
        return self.keys[0]

    def named(self, key_id: str) -> Key | None:
        """Return the key of that id, None if this site has no such key."""
        for key in self.keys:
            if key.key_id == key_id:
                return key
        return None


def parse(text: str, *, place: str) -> Keyring:
    """Return the keys of a key file's text.

    Raises KeyUnreadable, which names place and line and never shows a secret.
    """
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            keys.append(_key(line, where=f"{place}, line {number}"))
    if not keys:
        raise KeyUnreadable(f"{place} holds no key: run postfix-archive key create")
    if len({key.key_id for key in keys}) != len(keys):
        raise KeyUnreadable(f"{place} has two keys of one id: rename or remove one")
    return Keyring(tuple(keys))


def _key(line: str, *, where: str) -> Key:
    words = line.split()
    if len(words) != 2:
        raise KeyUnreadable(f"{where}: expected a key id and a secret in hexadecimal")
    key_id, secret = words
    if len(key_id) > KEY_ID_BYTES or not KEY_ID_CHARS.issuperset(key_id):
        raise KeyUnreadable(
            f"{where}: a key id is up to {KEY_ID_BYTES} of a-z, 0-9, - and _"
        )
    try:
        raw = bytes.fromhex(secret)
    except ValueError:
        raise KeyUnreadable(f"{where}: the secret is not hexadecimal") from None
    if len(raw) < SECRET_BYTES:
        raise KeyUnreadable(f"{where}: the secret is under {SECRET_BYTES} bytes")
    return Key(key_id, raw)
