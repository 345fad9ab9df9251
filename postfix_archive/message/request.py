"""Requests ("archive this message to that address") as nexthops and recipients.

Used by stamp_filter/capture_plan; tables uses make_recipient() for BCC actions, install
capture_table(). Raises RequestInvalid for what is not an archive address. A request is

* the nexthop of the transport, or
* a recipient ``<mac>.<hex(addresses)>``, which a lookup table has added, or
* in native mode, a capture recipient ``capture.<mac>.<hex(addresses)>.<recipient>``:
  cleanup(8) adds one for each recipient of the message (recipient_bcc_maps).

The recipients are in a domain that cannot exist (RFC 2606), and cannot be made without
a site key.
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
CAPTURE_PURPOSE = b"capture"
MAC_BYTES = 16
CAPTURE_NEXTHOP = "capture"  # of the transport that gets the capture recipients
CAPTURE_PREFIX = b"capture."
# The key of capture_table() for an address that is no key: one that is not UTF-8.
NO_KEY = "@"


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


def capture_table(archive_value: str, keys: Keyring) -> str:
    """Return the text of a regexp_table(5) that makes capture recipients.

    archive_value is a value of ``archive`` in main.cf, or ``on-request``. The table is
    a secret of this host, as the MAC in it is. The key is a recipient in its quoted
    form (RFC 5321 4.1.2), and the whole of it becomes a part of a local part. Raises
    RequestInvalid.
    """
    archives = ",".join(from_nexthop(archive_value)) or ON_REQUEST
    mac = keys.current.mac(CAPTURE_PURPOSE, archives.encode())[:MAC_BYTES]
    prefix = f"{CAPTURE_PREFIX.decode()}{mac.hex()}.{archives.encode().hex()}"
    return (
        f"/^{NO_KEY}$/ {prefix}{DOMAIN_SUFFIX}\n"
        f"/^(.*)$/ {prefix}.$1{DOMAIN_SUFFIX}\n"
    )


def is_internal_recipient(recipient_address: bytes) -> bool:
    """Return whether a recipient is a request or a capsule, not a mail address."""
    return address.domain(recipient_address) == DOMAIN


class SplitRecipients:
    """The recipients of a message, separated from its requests.

    ``recipients`` are those to deliver to, ``captured`` those that capture recipients
    stand for. ``table_archives`` are requested by lookup tables, ``capture_archives``
    by capture recipients. ``forged_count`` is the number of requests that no site key
    made; they have no effect. ``claimed_count`` is that of capture recipients which are
    recipients themselves: Postfix has made none of those, but for postsuper -r.
    ``has_unmapped``: Postfix could not encode a recipient.
    """

    __slots__ = (
        "capture_archives",
        "captured",
        "claimed_count",
        "forged_count",
        "has_capture",
        "has_unmapped",
        "recipients",
        "table_archives",
    )

    def __init__(self, recipients: Iterable[Recipient], keys: Keyring) -> None:
        self.recipients: list[Recipient] = []
        self.captured: dict[bytes, None] = {}
        self.table_archives: dict[str, None] = {}
        self.capture_archives: dict[str, None] = {}
        self.forged_count = self.claimed_count = 0
        self.has_capture = self.has_unmapped = False
        verified: dict[bytes, str] = {}
        for recipient in recipients:
            if not is_internal_recipient(recipient.final):
                self.recipients.append(recipient)
                continue
            local = address.unquote(recipient.final).rpartition(b"@")[0]
            if _is_capture(local):
                self._add_capture(local[len(CAPTURE_PREFIX) :], keys, verified)
            else:  # CAPSULE_RECIPIENT too: with other recipients it is none
                self._add_request(local, keys)

    def _add_request(self, local: bytes, keys: Keyring) -> None:
        archives = _verify(local, PURPOSE, keys)
        self.forged_count += not archives
        self.table_archives.update(
            dict.fromkeys(archives.split(",") if archives else ())
        )

    def _add_capture(
        self, local: bytes, keys: Keyring, verified: dict[bytes, str]
    ) -> None:
        """Add a capture recipient, whose MAC is verified once for all recipients."""
        archives, dot, recipient = _open_capture(local, keys, verified)
        if not archives:
            self.forged_count += 1
            return
        self.has_capture = True
        self.has_unmapped |= not dot
        self.capture_archives.update(dict.fromkeys(from_nexthop(archives)))
        if dot and not is_internal_recipient(recipient):
            self.captured[recipient] = None
            return
        claimed = address.unquote(recipient).rpartition(b"@")[0]
        if _is_capture(claimed):
            claimed = claimed[len(CAPTURE_PREFIX) :]
            self.claimed_count += bool(_open_capture(claimed, keys, verified)[0])


def is_capsule(recipients: tuple[Recipient, ...]) -> bool:
    """Return whether a message is a capsule: its only recipient is CAPSULE_RECIPIENT.

    In native mode postsuper -r adds a capture recipient for that. The body does not
    matter: anybody can write one.
    """
    return bool(recipients) and all(_is_of_capsule(each.final) for each in recipients)


def _is_of_capsule(recipient_address: bytes) -> bool:
    if recipient_address == CAPSULE_RECIPIENT:
        return True
    local, _, domain = address.unquote(recipient_address).rpartition(b"@")
    is_captured = _is_capture(local) and local.endswith(b"." + CAPSULE_RECIPIENT)
    return domain == DOMAIN and is_captured


def _is_capture(local: bytes) -> bool:
    return local[: len(CAPTURE_PREFIX)].lower() == CAPTURE_PREFIX


def _open_capture(
    local: bytes, keys: Keyring, verified: dict[bytes, str]
) -> tuple[str, bytes, bytes]:
    """Return archives ("" if forged), a dot, and the recipient (b"" for both if none).

    local follows CAPTURE_PREFIX; verified has what was verified already.
    """
    mac, _, rest = local.partition(b".")
    encoded_archives, dot, recipient = rest.partition(b".")
    sealed = mac + b"." + encoded_archives
    if sealed not in verified:
        verified[sealed] = _verify(sealed, CAPTURE_PURPOSE, keys)
    return verified[sealed], dot, recipient


def _verify(sealed: bytes, purpose: bytes, keys: Keyring) -> str:
    """Return the archives (comma-separated) of ``<mac>.<hex>``, empty if forged."""
    mac_hex, _, archives_hex = sealed.lower().partition(b".")
    try:
        archives = bytes.fromhex(archives_hex.decode("ascii"))
        mac = bytes.fromhex(mac_hex.decode("ascii"))
    except ValueError:
        return ""
    for key in keys.keys:
        if digest.equal(key.mac(purpose, archives)[:MAC_BYTES], mac):
            return archives.decode("ascii")
    return ""
