"""SHA-256 and HMAC-SHA-256, without the import cost of hashlib, hmac and OpenSSL.

Used wherever something is hashed or sealed. Python's own C module loads at once;
loading OpenSSL costs 2.4 ms, a third of a bare start, and hashlib as much again. Once
loaded, OpenSSL is five times faster: a caller that is about to hash much data calls
select_implementation() first. The results are the same.
"""

from __future__ import annotations

import sys
from _operator import _compare_digest as equal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from hashlib import _Hash, sha256
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:  # Python built without its own SHA-256
        from hashlib import sha256

__all__ = ["equal", "select_implementation", "sha256_hex", "mac", "sha256_of", "sha256"]

BLOCK_BYTES = 64  # bytes: the B of RFC 2104 for SHA-256
INNER_PAD = int.from_bytes(b"\x36" * BLOCK_BYTES, "big")
OUTER_PAD = int.from_bytes(b"\x5c" * BLOCK_BYTES, "big")
# Bytes above which OpenSSL is faster (measured: 4.6 ms a MB against 0.8 plus loading).
OPENSSL_THRESHOLD = 640 << 10


def select_implementation(size: int) -> None:
    """Load OpenSSL if at least OPENSSL_THRESHOLD bytes are going to be hashed."""
    global sha256
    if size >= OPENSSL_THRESHOLD:
        try:
            from _hashlib import openssl_sha256
        except ImportError:  # Python built without OpenSSL
            return
        sha256 = openssl_sha256


def mac(secret: bytes, purpose: bytes, content: bytes) -> bytes:
    """Return the 32 bytes of HMAC-SHA-256 (RFC 2104) for one purpose.

    The purpose separates the uses of one secret: a seal is never a valid stamp.
    """
    return _hmac(secret, purpose + b"\0" + content)


def _hmac(secret: bytes, content: bytes) -> bytes:
    key = secret if len(secret) <= BLOCK_BYTES else sha256(secret).digest()
    padded = int.from_bytes(key.ljust(BLOCK_BYTES, b"\0"), "big")
    inner = sha256((padded ^ INNER_PAD).to_bytes(BLOCK_BYTES, "big") + content)
    outer = (padded ^ OUTER_PAD).to_bytes(BLOCK_BYTES, "big")
    return bytes(sha256(outer + inner.digest()).digest())


def sha256_of(pieces: Iterable[bytes]) -> _Hash:
    """Return the SHA-256 hash object of content given in pieces."""
    hash_object = sha256()
    for piece in pieces:
        hash_object.update(piece)
    return hash_object


def sha256_hex(content: bytes) -> str:
    """Return the SHA-256 of content as 64 lower-case hexadecimal digits."""
    return sha256(content).hexdigest()
