"""The site keys: secrets that make and check stamps, seals and requests.

Used by stamp, capsule and request. A key file has one key per line: its id and at least
32 bytes in hexadecimal. The first key makes new MACs, the others only check old ones.
A key that occurs twice counts once, and two keys may have the same id: instances that
share their keys have the lines of both files.
Raises KeyUnreadable; reading the file is up to config/key_file.
"""

from __future__ import annotations

from postfix_archive.errors import KeyUnreadable
from postfix_archive.message import digest

SECRET_BYTES = 32  # the output length of SHA-256: RFC 2104 section 3
KEY_ID_BYTES = 32
KEY_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Key:
    """One secret, and the id by which stamps and seals refer to it."""

    __slots__ = ("key_id", "secret")

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.key_id = key_id
        self.secret = secret

    def mac(self, purpose: bytes, content: bytes) -> bytes:
        """Return the HMAC (32 bytes) of content for this purpose."""
        return digest.mac(self.secret, purpose, content)


class Keyring:
    """All keys of the site; the first one makes new MACs."""

    __slots__ = ("keys",)

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys

    @property
    def current(self) -> Key:
        """The key that makes new MACs."""
        return self.keys[0]

    def with_id(self, key_id: str) -> tuple[Key, ...]:
        """Return the keys with this id: more than one if key files were joined."""
        return tuple(key for key in self.keys if key.key_id == key_id)


def parse(text: str, *, path: str) -> Keyring:
    """Return the keys in the text of a key file.

    Raises KeyUnreadable, whose text names path and line and never shows a secret.
    """
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            keys.append(_parse_key(line, location=f"{path}, line {number}"))
    if not keys:
        raise KeyUnreadable(f"{path} has no key; run postfix-archive key create")
    unique = {(key.key_id, key.secret): key for key in keys}
    return Keyring(tuple(unique.values()))


def _parse_key(line: str, *, location: str) -> Key:
    fields = line.split()
    if len(fields) != 2:
        raise KeyUnreadable(
            f"{location}: expected a key id and a secret in hexadecimal"
        )
    key_id, secret = fields
    if len(key_id) > KEY_ID_BYTES or not KEY_ID_CHARS.issuperset(key_id):
        raise KeyUnreadable(
            f"{location}: a key id has up to {KEY_ID_BYTES} characters a-z, 0-9, - or _"
        )
    try:
        secret_bytes = bytes.fromhex(secret)
    except ValueError:
        raise KeyUnreadable(f"{location}: the secret is not hexadecimal") from None
    if len(secret_bytes) < SECRET_BYTES:
        raise KeyUnreadable(
            f"{location}: the secret is shorter than {SECRET_BYTES} bytes"
        )
    return Key(key_id, secret_bytes)
