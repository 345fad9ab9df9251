"""Requests ("archive this message to that address") as nexthops and recipients.

Used by stamp_filter/plan; tables uses make_recipient() for BCC actions. A request is
the nexthop of the transport, or a recipient ``<mac>.<hex(addresses)>`` in a domain that
cannot exist (RFC 2606) and which cannot be made without a site key. Raises
RequestInvalid for what is not an archive address.
"""

from __future__ import annotations

from postfix_archive.core import address, digest
from postfix_archive.core.errors import RequestUnusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.core.envelope import Recipient
    from postfix_archive.core.keyring import Keyring

DOMAIN = b"archive-request.invalid"
REQUESTS = f"@{DOMAIN.decode()}"
ON_REQUEST = "on-request"  # the nexthop on hosts that archive only by tables
CAPSULE = b"capsule@" + DOMAIN  # the recipient of every capsule
PURPOSE = b"request"
MAC_BYTES = 16


def from_nexthop(nexthop: str) -> tuple[str, ...]:
    """Return the archive addresses in a nexthop, separated by commas.

    None for ``on-request``. Raises RequestInvalid.
    """
    if nexthop == ON_REQUEST:
        return ()
    return archives(nexthop)


def archives(words: str) -> tuple[str, ...]:
    """Return the archive addresses of a comma-separated list, without duplicates.

    They are in lower case. Raises RequestInvalid.
    """
    return tuple(dict.fromkeys(archive(word) for word in words.split(",")))


def archive(text: str) -> str:
    """Return the archive address in lower case, which is its one form.

    Raises RequestInvalid if it is not a plain address.
    """
    if not address.is_plain(text.encode("utf-8", "surrogateescape")):
        raise RequestUnusable(
            f"{text!r} is not an archive address; check archive = in main.cf and"
            " -o archive= in master.cf (several: commas, no spaces)"
        )
    return text.lower()


def recipient(words: str, keys: Keyring) -> bytes:
    """Return the recipient that stands for a request, for a BCC action.

    archives is a comma-separated list, since a table entry has only one action.
    """
    named = ",".join(archives(words)).encode()
    proof = keys.current.mac(PURPOSE, named)[:MAC_BYTES]
    return b"%s.%s@%s" % (proof.hex().encode(), named.hex().encode(), DOMAIN)


def is_ours(recipient_address: bytes) -> bool:
    """Return whether a recipient is a request or a capsule, not a mail address."""
    return address.domain(recipient_address) == DOMAIN


def sorted_out(
    recipients: Iterable[Recipient], keys: Keyring
) -> tuple[tuple[Recipient, ...], tuple[str, ...], int]:
    """Return (recipients of the mail, requested archives, number of forged requests).

    Forged requests have no effect; their number is for the log.
    """
    people = []
    asked = []
    forged = 0
    for each in recipients:
        if not is_ours(each.final):
            people.append(each)
        elif each.final != CAPSULE:
            wanted = _checked(each.final, keys)
            forged += not wanted
            asked += wanted.split(",") if wanted else []
    return tuple(people), tuple(dict.fromkeys(asked)), forged


def is_capsule(recipients: tuple[Recipient, ...]) -> bool:
    """Return whether a message is a capsule: its only recipient is CAPSULE_RECIPIENT.

    The body does not matter: anybody can write one.
    """
    return bool(recipients) and all(each.final == CAPSULE for each in recipients)


def _checked(recipient_address: bytes, keys: Keyring) -> str:
    """Return the archives (comma-separated) of a request recipient, empty if forged."""
    proof, _, named = recipient_address.rpartition(b"@")[0].lower().partition(b".")
    try:
        wanted = bytes.fromhex(named.decode("ascii"))
        given = bytes.fromhex(proof.decode("ascii"))
    except ValueError:
        return ""
    for key in keys.keys:
        if digest.equal(key.mac(PURPOSE, wanted)[:MAC_BYTES], given):
            return wanted.decode("ascii")
    return ""
