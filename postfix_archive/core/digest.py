"""SHA-256 and HMAC-SHA-256, without the import cost of hashlib and hmac.

Used by every room of core and back that proves something. The C module behind
hashlib imports in no time; hashlib itself costs 4 ms, a third of a bare start.
"""

from __future__ import annotations

try:
    from _hashlib import compare_digest as equal
    from _hashlib import hmac_digest
    from _hashlib import openssl_sha256 as sha256
except ImportError:  # a Python built without OpenSSL
    from hashlib import sha256
    from hmac import compare_digest as equal
    from hmac import digest as hmac_digest  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from hashlib import _Hash

__all__ = ["equal", "hex_of", "mac", "of", "sha256"]


def mac(secret: bytes, purpose: bytes, content: bytes) -> bytes:
    """Return the 32 bytes of HMAC-SHA-256 (RFC 2104) for one purpose.

    The purpose keeps, say, a seal from ever being taken for a stamp.
    """
    return bytes(hmac_digest(secret, purpose + b"\0" + content, "sha256"))


def of(pieces: Iterable[bytes]) -> _Hash:
    """Return the SHA-256 over content that comes in pieces."""
    total = sha256()
    for piece in pieces:
        total.update(piece)
    return total


def hex_of(content: bytes) -> str:
    """Return the SHA-256 of content as 64 lower-case hexadecimal digits."""
    return sha256(content).hexdigest()
