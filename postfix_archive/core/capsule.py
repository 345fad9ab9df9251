"""The capsule: original and envelope on their way through Postfix's own queue.

Used by filtering (makes one) and archiving (opens it). A message of type
application/octet-stream whose body begins with the sealed envelope fields and goes
on with the original, untouched. The fields stand in the body because header_checks,
address rewriting and header_size_limit never reach there. Packing puts that body into
base64 for the way through the queue. docs/store-format.md has it.
"""

from __future__ import annotations

from binascii import hexlify

from postfix_archive.core import digest, envelope, header, trace
from postfix_archive.core.errors import CapsuleBroken, SealWrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.envelope import Envelope
    from postfix_archive.core.keyring import Keyring

MAGIC = b"Archive-Capsule: 1\r\n"
SEAL = b"Archive-Seal: "
SEAL_LIMIT = 200  # bytes of the seal line; ours have about 90
PURPOSE = b"seal"
# All addresses fit the kernel's argument limit (2 MiB), and a control character takes
# four bytes in a field; the rest is for the field names of 3,500 recipients.
FIELDS_LIMIT = 10 << 20


class Opened:
    """A capsule whose seal is good.

    ``envelope`` is what the stamp filter wrote, ``fields`` its exact groups, ``key``
    names this capsule in the journal and ``start`` is the offset of the original.
    """

    __slots__ = ("envelope", "fields", "key", "start")

    def __init__(self, sealed: Envelope, fields: bytes, key: str, start: int) -> None:
        self.envelope = sealed
        self.fields = fields
        self.key = key
        self.start = start


def preamble(sealed: Envelope, keys: Keyring, *, sender: bytes, now: int) -> bytes:
    """Return all that stands before the original in a capsule.

    The header has the fields that cleanup(8) would otherwise add; now is Unix time.
    """
    identity = sealed.archive_id.encode()
    fields = MAGIC + envelope.serialise(sealed)
    proof = hexlify(keys.current.mac(PURPOSE, fields))
    return b"\r\n".join(
        (
            b"From: " + sender,
            b"Date: " + trace.written_date(now),
            b"Subject: archive capsule " + identity,
            b"Message-Id: <capsule." + identity + b"@" + sealed.host + b">",
            b"Auto-Submitted: auto-generated",
            b"MIME-Version: 1.0",
            b"Content-Type: application/octet-stream",
            b"Content-Transfer-Encoding: 8bit",
            b"",
            fields,
            SEAL + b"k=" + keys.current.key_id.encode() + b"; h=" + proof,
            b"",
            b"",
        )
    )


def unsent(fields: bytes) -> Opened:
    """Return what the capsule of an original would hold, from its envelope's fields.

    Its key is that of the capsule, so that whoever archives both archives one.
    """
    key = digest.hex_of(MAGIC + fields)
    return Opened(envelope.parse(fields), fields, key, 0)


def start(head: bytes) -> int:
    """Return where a capsule's sealed fields begin in a message, -1 if it is none."""
    found = header.body_start(head)
    return found if found >= 0 and head.startswith(MAGIC, found) else -1


def opened(head: bytes, keys: Keyring) -> Opened:
    """Return what a capsule with these first bytes holds.

    head must reach into the original or to the end. Raises CapsuleBroken for what is
    no whole capsule, and SealWrong when no key of this site made the seal.
    """
    begin = start(head)
    if begin < 0:
        raise CapsuleBroken(
            "this is no capsule: mail reaches the archive transport only by way of"
            " the stamp filter; look for a transport map or FILTER that names it"
        )
    seal = head.find(b"\r\n" + SEAL, begin)
    end = head.find(b"\r\n\r\n", seal)
    if seal < 0 or end < 0 or end - seal > SEAL_LIMIT:
        raise CapsuleBroken("a capsule without a seal: its envelope is cut off")
    fields = head[begin:seal]
    _check(fields, head[seal + len(SEAL) + 2 : end], keys)
    key = digest.hex_of(fields)
    groups = fields[len(MAGIC) :]
    return Opened(envelope.parse(groups), groups, key, end + 4)


def _check(fields: bytes, seal: bytes, keys: Keyring) -> None:
    pairs = (part.strip().partition(b"=") for part in seal.split(b";"))
    said = {name: value for name, _, value in pairs}
    key = keys.named(said.get(b"k", b"").decode("latin-1"))
    if key is None:
        raise SealWrong("a capsule sealed with a key that this site does not have")
    proof = hexlify(key.mac(PURPOSE, fields))
    if not digest.equal(proof, said.get(b"h", b"")):
        raise SealWrong("a capsule with a wrong seal: forged, or altered in the queue")
