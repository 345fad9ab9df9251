"""Requests: "archive this message to that address", and how they are carried.

Used by filtering; recipient() makes what a BCC action in a table names. A request
comes as the nexthop of the transport, or as a recipient ``<mac>.<hex(addresses)>`` in a
domain that cannot exist (RFC 2606), which only this program understands and which
nobody without the site key can make.
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
REQUESTS = f"@{DOMAIN.decode()}"  # how such a recipient ends, as text
ON_REQUEST = "on-request"  # the nexthop of hosts that archive by tables alone
CAPSULE = b"capsule@" + DOMAIN  # where capsules are addressed to
PURPOSE = b"request"
MAC_BYTES = 16


def from_nexthop(nexthop: str) -> tuple[str, ...]:
    """Return the archive addresses that a nexthop names: one, or several by comma.

    Nobody for ``on-request``. Raises RequestUnusable for what is no archive address.
    """
    if nexthop == ON_REQUEST:
        return ()
    return archives(nexthop)


def archives(words: str) -> tuple[str, ...]:
    """Return the archive addresses of a list by comma, each once, in lower case."""
    return tuple(dict.fromkeys(archive(word) for word in words.split(",")))


def archive(text: str) -> str:
    """Return the archive address in the form that names it: in lower case.

    Raises RequestUnusable if it is no plain address.
    """
    if not address.is_plain(text.encode("utf-8", "surrogateescape")):
        raise RequestUnusable(
            f"{text!r} is no archive address: look at archive = in main.cf and at"
            " -o archive= in master.cf; several are separated by commas, no spaces"
        )
    return text.lower()


def recipient(words: str, keys: Keyring) -> bytes:
    """Return the recipient that carries this request, for a BCC action.

    words is one archive address, or several by comma: a table's line has one action.
    """
    named = ",".join(archives(words)).encode()
    proof = keys.current.mac(PURPOSE, named)[:MAC_BYTES]
    return b"%s.%s@%s" % (proof.hex().encode(), named.hex().encode(), DOMAIN)


def is_ours(recipient_address: bytes) -> bool:
    """Tell whether a recipient is meant for this program and no mail address."""
    return address.domain(recipient_address) == DOMAIN


def sorted_out(
    recipients: Iterable[Recipient], keys: Keyring
) -> tuple[tuple[Recipient, ...], tuple[str, ...], int]:
    """Part the recipients: those of the mail, archives asked for, forged requests.

    A forged request asks for nothing; only their number is returned, for the log.
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
    """Tell whether this is a capsule on its way: addressed as one, and to nobody else.

    What a body looks like does not count: anybody can write a body.
    """
    return bool(recipients) and all(each.final == CAPSULE for each in recipients)


def _checked(recipient_address: bytes, keys: Keyring) -> str:
    """Return the addresses by comma a request recipient names, nothing if forged."""
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
