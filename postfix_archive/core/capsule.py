"""The capsule: original and sealed envelope on their way through Postfix's queue.

The stamp filter makes capsules, the archive transport unseals them. A capsule is a
message of type application/octet-stream. Its body begins with the sealed envelope
fields; the original follows, unchanged. The fields are in the body because
header_checks, address rewriting and header_size_limit do not apply there. In the queue
the beginning of the body is in base64. Format: docs/store-format.md. Raises
CapsuleBroken for a malformed capsule and SealInvalid for a wrong seal.
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
SEAL_LIMIT = 200  # bytes; a seal line of ours has about 90
PURPOSE = b"seal"
# All addresses fit in the kernel's limit for arguments (2 MiB), a control character
# takes four bytes in a field, and the rest is for the field names of 3,500 recipients.
FIELDS_LIMIT = 10 << 20


class Opened:
    """The contents of a capsule with a valid seal.

    ``envelope`` is what the stamp filter recorded and ``fields`` are its exact bytes.
    ``capsule_id`` (a SHA-256) names the capsule in the journal. ``original_offset`` is
    where the original begins.
    """

    __slots__ = ("envelope", "fields", "key", "start")

    def __init__(self, sealed: Envelope, fields: bytes, key: str, start: int) -> None:
        self.envelope = sealed
        self.fields = fields
        self.key = key
        self.start = start


def preamble(sealed: Envelope, keys: Keyring, *, sender: bytes, now: int) -> bytes:
    """Return everything before the original in a capsule; now is Unix time.

    The header has the fields that cleanup(8) would otherwise add.
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
    """Return the contents of a capsule that was never queued, from envelope fields.

    The capsule id is that of the queued capsule, so that archiving both makes one
    record.
    """
    key = digest.hex_of(MAGIC + fields)
    return Opened(envelope.parse(fields), fields, key, 0)


def start(head: bytes) -> int:
    """Return the offset of the sealed fields, -1 if the message is no capsule."""
    found = header.body_start(head)
    return found if found >= 0 and head.startswith(MAGIC, found) else -1


def opened(head: bytes, keys: Keyring) -> Opened:
    """Check the seal of a capsule and return its contents.

    head is the first bytes of the message, up to the original at least. Raises
    CapsuleBroken for anything but a whole capsule, and SealInvalid when no key of this
    site made the seal.
    """
    begin = start(head)
    if begin < 0:
        raise CapsuleBroken(
            "message is not a capsule: only the stamp filter sends mail to the archive"
            " transport; check transport_maps and FILTER actions"
        )
    seal = head.find(b"\r\n" + SEAL, begin)
    end = head.find(b"\r\n\r\n", seal)
    if seal < 0 or end < 0 or end - seal > SEAL_LIMIT:
        raise CapsuleBroken("capsule without a seal: its envelope fields are cut off")
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
        raise SealWrong(
            "capsule sealed with a key that this site does not have; restore the key in"
            " archive_key_file"
        )
    proof = hexlify(key.mac(PURPOSE, fields))
    if not digest.equal(proof, said.get(b"h", b"")):
        raise SealWrong("capsule with a wrong seal: forged, or altered in the queue")
