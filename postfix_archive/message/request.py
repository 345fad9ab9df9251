"""Requests ("archive this message to that address") as nexthops and recipients.

Used by stamp_filter/capture_plan; tables uses make_recipient() for BCC actions. A
request is the nexthop of the transport, or a recipient ``<mac>.<hex(addresses)>`` in a
domain that cannot exist (RFC 2606) and which cannot be made without a site key. Raises
RequestInvalid for what is not an archive address.
"""

from __future__ import annotations

from postfix_archive.errors import RequestInvalid
from postfix_archive.message import address, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.message.envelope import Recipient
    from postfix_archive.message.keyring import Keyring

DOMAIN = b"archive-request.invalid"
DOMAIN_SUFFIX = f"@{DOMAIN.decode()}"
ON_REQUEST = "on-request"  # the nexthop on hosts that archive only by tables
CAPSULE_RECIPIENT = b"capsule@" + DOMAIN  # the recipient of every capsule
PURPOSE = b"request"
MAC_BYTES = 16


def from_nexthop(nexthop: str) -> tuple[str, ...]:
    """Return the archive addresses in a nexthop, separated by commas.

    None for ``on-request``. Raises RequestInvalid.
    """
    if nexthop == ON_REQUEST:
        return ()
    return parse_archives(nexthop)


def parse_archives(text: str) -> tuple[str, ...]:
    """Return the archive addresses of a comma-separated list, without duplicates.

    They are in lower case. Raises RequestInvalid.
    """
    return tuple(dict.fromkeys(parse_archive(item) for item in text.split(",")))


def parse_archive(text: str) -> str:
    """Return the archive address in lower case, which is its one form.

    Raises RequestInvalid if it is not a plain address.
    """
    if not address.is_plain(text.encode("utf-8", "surrogateescape")):
        raise RequestInvalid(
            f"{text!r} is not an archive address; check archive = in main.cf and"
            " -o archive= in master.cf (several: commas, no spaces)"
        )
    return text.lower()


def make_recipient(words: str, keys: Keyring) -> bytes:
    """Return the recipient that stands for a request, for a BCC action.

    archives is a comma-separated list, since a table entry has only one action.
    """
    addresses = ",".join(parse_archives(words)).encode()
    mac = keys.current.mac(PURPOSE, addresses)[:MAC_BYTES]
    return b"%s.%s@%s" % (mac.hex().encode(), addresses.hex().encode(), DOMAIN)


def is_internal_recipient(recipient_address: bytes) -> bool:
    """Return whether a recipient is a request or a capsule, not a mail address."""
    return address.domain(recipient_address) == DOMAIN


def split_recipients(
    recipients: Iterable[Recipient], keys: Keyring
) -> tuple[tuple[Recipient, ...], tuple[str, ...], int]:
    """Return (recipients of the mail, requested archives, number of forged requests).

    Forged requests have no effect; their number is for the log.
    """
    mail_recipients = []
    archives = []
    forged_count = 0
    for recipient in recipients:
        if not is_internal_recipient(recipient.final):
            mail_recipients.append(recipient)
        else:  # CAPSULE_RECIPIENT too: with other recipients it is none
            addresses = _verify(recipient.final, keys)
            forged_count += not addresses
            archives += addresses.split(",") if addresses else []
    return tuple(mail_recipients), tuple(dict.fromkeys(archives)), forged_count


def is_capsule(recipients: tuple[Recipient, ...]) -> bool:
    """Return whether a message is a capsule: its only recipient is CAPSULE_RECIPIENT.

    The body does not matter: anybody can write one.
    """
    return bool(recipients) and all(
        each.final == CAPSULE_RECIPIENT for each in recipients
    )


def _verify(recipient_address: bytes, keys: Keyring) -> str:
    """Return the archives (comma-separated) of a request recipient, empty if forged."""
    mac_hex, _, addresses_hex = (
        recipient_address.rpartition(b"@")[0].lower().partition(b".")
    )
    try:
        addresses = bytes.fromhex(addresses_hex.decode("ascii"))
        mac = bytes.fromhex(mac_hex.decode("ascii"))
    except ValueError:
        return ""
    for key in keys.keys:
        if digest.equal(key.mac(PURPOSE, addresses)[:MAC_BYTES], mac):
            return addresses.decode("ascii")
    return ""
