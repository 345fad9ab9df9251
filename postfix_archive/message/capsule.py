"""The capsule: original and sealed envelope on their way through Postfix's queue.

The stamp filter makes capsules, the archive transport unseals them. A capsule is a
message of type application/octet-stream. Its body begins with the sealed envelope
fields; the original follows, unchanged. The fields are in the body because
header_checks, address rewriting and header_size_limit do not apply there. In the queue
the beginning of the body is in base64. Format: docs/store-format.md. Raises
CapsuleBroken for a malformed capsule and SealInvalid for a wrong seal.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64, hexlify

from postfix_archive.errors import CapsuleBroken, SealInvalid
from postfix_archive.message import dates, digest, envelope, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postfix_archive.message.envelope import Envelope
    from postfix_archive.message.keyring import Keyring

MAGIC = b"Archive-Capsule: 1\r\n"
SEAL_FIELD = b"Archive-Seal: "
SEAL_LIMIT = 200  # bytes; a seal line of ours has about 90
SEAL_PURPOSE = b"seal"
# All addresses fit in the kernel's limit for arguments (2 MiB), a control character
# takes four bytes in a field, and the rest is for the field names of 3,500 recipients.
FIELDS_LIMIT = 10 << 20


class Capsule:
    """The contents of a capsule with a valid seal.

    ``envelope`` is what the stamp filter recorded and ``fields`` are its exact bytes.
    ``capsule_id`` (a SHA-256) names the capsule in the journal. ``original_offset`` is
    where the original begins.
    """

    __slots__ = ("envelope", "fields", "capsule_id", "original_offset")

    def __init__(
        self,
        sealed_envelope: Envelope,
        fields: bytes,
        capsule_id: str,
        original_offset: int,
    ) -> None:
        self.envelope = sealed_envelope
        self.fields = fields
        self.capsule_id = capsule_id
        self.original_offset = original_offset

    def require_whole(self, size: int) -> None:
        """Return if a plain capsule of this size (bytes) has the whole original.

        Raises CapsuleBroken if it is shorter than the sealed Archive-Original-Size.
        """
        original_size = size - self.original_offset
        if original_size < self.envelope.size:
            raise CapsuleBroken(
                f"capsule cut short: {original_size} of {self.envelope.size} bytes of"
                f" the original of {self.envelope.archive_id}"
            )


def make_preamble(
    sealed_envelope: Envelope, keys: Keyring, *, sender: bytes, now: int
) -> bytes:
    """Return everything before the original in a capsule; now is Unix time.

    The header has the fields that cleanup(8) would otherwise add.
    """
    archive_id = sealed_envelope.archive_id.encode()
    fields = MAGIC + envelope.serialise(sealed_envelope)
    seal = hexlify(keys.current.mac(SEAL_PURPOSE, fields))
    return b"\r\n".join(
        (
            b"From: " + sender,
            b"Date: " + dates.format_rfc5322(now),
            b"Subject: archive capsule " + archive_id,
            b"Message-Id: <capsule." + archive_id + b"@" + sealed_envelope.host + b">",
            b"Auto-Submitted: auto-generated",
            b"MIME-Version: 1.0",
            b"Content-Type: application/octet-stream",
            b"Content-Transfer-Encoding: 8bit",
            b"",
            fields,
            SEAL_FIELD + b"k=" + keys.current.key_id.encode() + b"; h=" + seal,
            b"",
            b"",
        )
    )


def from_fields(fields: bytes) -> Capsule:
    """Return the contents of a capsule that was never queued, from envelope fields.

    The capsule id is that of the queued capsule, so that archiving both makes one
    record.
    """
    capsule_id = digest.sha256_hex(MAGIC + fields)
    return Capsule(envelope.parse(fields), fields, capsule_id, 0)


def from_envelope(own_envelope: Envelope) -> Capsule:
    """Return the contents of a capsule that was never queued, from its envelope.

    The same as from_fields() does, which parses what differs once it is serialised:
    control characters are escaped then, and white space around a value is gone.
    """
    fields = envelope.serialise(own_envelope)
    if any(each in fields for each in ALTERED_BY_FIELDS):
        return from_fields(fields)
    return Capsule(own_envelope, fields, digest.sha256_hex(MAGIC + fields), 0)


# In serialised fields: something in the envelope may have been another.
ALTERED_BY_FIELDS = (b"\\x", b"\t", b"  ", b" \r\n")


def fields_offset(head: bytes) -> int:
    """Return the offset of the sealed fields, -1 if the message is no capsule."""
    offset = header.body_start(head)
    return offset if offset >= 0 and head.startswith(MAGIC, offset) else -1


def unseal(head: bytes, keys: Keyring) -> Capsule:
    """Check the seal of a capsule and return its contents.

    head is the first bytes of the message, up to the original at least. Raises
    CapsuleBroken for anything but a whole capsule, and SealInvalid when no key of this
    site made the seal.
    """
    offset = fields_offset(head)
    if offset < 0:
        raise CapsuleBroken(
            "message is not a capsule: only the stamp filter sends mail to the archive"
            " transport; check transport_maps and FILTER actions"
        )
    seal_offset = head.find(b"\r\n" + SEAL_FIELD, offset)
    seal_end = head.find(b"\r\n\r\n", seal_offset)
    if seal_offset < 0 or seal_end < 0 or seal_end - seal_offset > SEAL_LIMIT:
        raise CapsuleBroken("capsule without a seal: its envelope fields are cut off")
    sealed_fields = head[offset:seal_offset]
    _check_seal(sealed_fields, head[seal_offset + len(SEAL_FIELD) + 2 : seal_end], keys)
    capsule_id = digest.sha256_hex(sealed_fields)
    envelope_fields = sealed_fields[len(MAGIC) :]
    return Capsule(
        envelope.parse(envelope_fields), envelope_fields, capsule_id, seal_end + 4
    )


def _check_seal(fields: bytes, seal: bytes, keys: Keyring) -> None:
    pairs = (part.strip().partition(b"=") for part in seal.split(b";"))
    parameters = {name: value for name, _, value in pairs}
    matching_keys = keys.with_id(parameters.get(b"k", b"").decode("latin-1"))
    if not matching_keys:
        raise SealInvalid(
            "capsule sealed with a key that this site does not have; restore the key in"
            " archive_key_file"
        )
    seals = [hexlify(key.mac(SEAL_PURPOSE, fields)) for key in matching_keys]
    if not any(digest.equal(each, parameters.get(b"h", b"")) for each in seals):
        raise SealInvalid("capsule with a wrong seal: forged, or altered in the queue")


ENCODING_FIELD = b"\r\nContent-Transfer-Encoding: "
PLAIN_ENCODING, PACKED_ENCODING = (
    ENCODING_FIELD + b"8bit\r\n",
    ENCODING_FIELD + b"base64\r\n",
)  # base64: earlier versions
EMPTY_LINE = b"\r\n\r\n"  # with the end of the line above
LINE_LENGTH = 76  # characters: RFC 2045 6.8, and what attachments have
LINE_BYTES = LINE_LENGTH * 3 // 4  # bytes a line
# Bytes of fields and original to pack (all, if there are fewer). They make 131,072
# bytes of base64, over twice the default of body_checks_size_limit (51200).
PACKED_SIZE = 96 << 10
PACKED_MAGIC = b2a_base64(MAGIC[: len(MAGIC) // 3 * 3], newline=False)


def pack(preamble: bytes, original: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a capsule of this preamble and original in its packed form."""
    start = header.body_start(preamble)
    yield preamble[:start]
    buffer, packed_size = preamble[start:], 0
    remaining = iter(original)
    for piece in remaining:
        buffer += piece
        if packed_size + len(buffer) > PACKED_SIZE:
            end = _split_offset(buffer, PACKED_SIZE - packed_size)
            yield _encode_base64(buffer[:end]) + b"\r\n"
            yield buffer[end:]
            yield from remaining
            return
        length = len(buffer) // LINE_BYTES * LINE_BYTES
        if length:
            yield _encode_base64(buffer[:length])
            buffer, packed_size = buffer[length:], packed_size + length
    if buffer:
        yield _encode_base64(buffer)


def is_packed(head: bytes) -> bool:
    """Return whether a message with these first bytes is a packed capsule."""
    start = header.body_start(head)
    return start >= 0 and head.startswith(PACKED_MAGIC, start)


def unpack(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a packed capsule in its plain form: header, fields, original.

    The whole header must be in the first piece. Incomplete base64 at the end is
    dropped. Raises CapsuleBroken when the beginning of the body is not base64.
    """
    remaining = iter(pieces)
    head = next(remaining, b"")
    start = max(0, header.body_start(head))
    yield head[:start].replace(PACKED_ENCODING, PLAIN_ENCODING, 1)
    buffer, encoded = head[start:], b""
    while True:
        end = buffer.find(EMPTY_LINE)
        safe_length = max(0, len(buffer) - len(EMPTY_LINE) + 1) if end < 0 else end
        encoded += buffer[:safe_length].translate(None, b"\r\n")
        length = len(encoded) // 4 * 4
        yield _decode_base64(encoded[:length])
        buffer, encoded = buffer[safe_length:], encoded[length:]
        if end >= 0:
            break
        piece = next(remaining, None)
        if piece is None:
            encoded += buffer.translate(None, b"\r\n")
            yield _decode_base64(encoded[: len(encoded) // 4 * 4])
            return
        buffer += piece
    yield buffer[len(EMPTY_LINE) :]
    yield from remaining


def _split_offset(content: bytes, end: int) -> int:
    """Return the last offset up to end that does not split a CRLF."""
    end = max(0, end)
    while content[:end].endswith(b"\r"):
        end -= 1
    return end


def _encode_base64(content: bytes) -> bytes:
    encoded = b2a_base64(content, newline=False)
    lines = [
        encoded[start : start + LINE_LENGTH]
        for start in range(0, len(encoded), LINE_LENGTH)
    ]
    return b"\r\n".join(lines) + b"\r\n"


def _decode_base64(text: bytes) -> bytes:
    try:
        return a2b_base64(text)
    except Error as error:
        raise CapsuleBroken(
            f"capsule body is not base64 ({error}): altered in the queue"
        ) from None
