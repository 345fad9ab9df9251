"""The XFORWARD IDENT by which the log knows a replayed message from any other.

export/replay gives it to the reinjection port, whose smtpd(8) logs it as orig_queue_id=
(XFORWARD_README); reconcile and the doctor look for mail that no stamp filter has sent
to that port. Nobody can make one without the site key. Who has read one in the log can
use it again, so each counts once.
"""

from __future__ import annotations

import re

from postfix_archive.message import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.message.keyring import Key, Keyring

PURPOSE = b"replay"
NONCE_BYTES = 8
MAC_BYTES = 16
# Letters and digits, as a queue id.
IDENT = re.compile(
    rf"replay([0-9a-f]{{{2 * NONCE_BYTES}}})([0-9a-f]{{{2 * MAC_BYTES}}})"
)


def make(key: Key, nonce: bytes) -> bytes:
    """Return the IDENT of one replayed message; nonce is NONCE_BYTES at random."""
    return f"replay{nonce.hex()}{_mac(key, nonce).hex()}".encode()


class Idents:
    """Those of one log; keys are the site's, None if they cannot be read."""

    def __init__(self, keys: Keyring | None) -> None:
        self._keys = keys.keys if keys is not None else ()
        self._seen: set[str] = set()

    def take(self, ident: str) -> bool:
        """Return whether it is of a replayed message, the first with it."""
        match = IDENT.fullmatch(ident)
        if match is None or ident in self._seen:
            return False
        nonce, mac = map(bytes.fromhex, match.groups())
        is_valid = any(digest.equal(_mac(each, nonce), mac) for each in self._keys)
        if is_valid:
            self._seen.add(ident)
        return is_valid


def _mac(key: Key, nonce: bytes) -> bytes:
    return key.mac(PURPOSE, nonce)[:MAC_BYTES]
