"""Makes, finds and verifies stamps: header fields on messages that were captured.

Used by stamp_filter and archive_transport. A stamp has the archive id and the SHA-256
of the exact canonical bytes below it, authenticated with a site key. Outsiders learn
nothing from it about recipients or the archive address. Results for one archive:

    valid    a stamp of ours, and the bytes below it match
    altered  a stamp of ours, and the bytes below it differ
    forged   there are stamps, but none with a key of ours
    absent   no stamp

Without a valid stamp, a message can be recognised by its content, where a database of
recent captures is kept (archive_transport/recent_captures):

    content  from some field on, the bytes are those of an archived message

A text that is not a stamp is never an error, only forged.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from postfix_archive.message import digest, header, received_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postfix_archive.message.envelope import Request
    from postfix_archive.message.keyring import Key, Keyring

FIELD_NAME = b"archive-stamp"
PURPOSE = b"stamp"
TAG_PURPOSE = b"tag"
TAG_BYTES = 8
# Stamps examined in one message. Each needs a SHA-256 of the whole message; one capture
# makes one block, and a message whose stamp is not found is archived in full.
STAMP_LIMIT = 16
VALUE_LIMIT = 1024  # bytes; a stamp of ours has about 300

# What was stamped: a message, a copy sent as mail, a copy of such a copy.
GENERATIONS = (b"mail ", b"copy ", b"again ")
VALID, ALTERED, FORGED, ABSENT = "valid", "altered", "forged", "absent"
CONTENT = "content"
VERDICTS = (ABSENT, VALID, CONTENT, ALTERED, FORGED)


class Stamp:
    """A stamp of ours in a message.

    ``start`` is its offset. ``content_offsets`` are the offsets after this stamp and
    after each adjacent stamp of ours below it: one of them is where the stamped bytes
    began. Any other stamp ends the block, so that nothing can hide between two of ours.
    """

    __slots__ = ("archive_id", "content_offsets", "sha256", "start", "tag", "time")

    def __init__(self, archive_id: str, tag: str, sha256: bytes, time: int) -> None:
        self.archive_id = archive_id
        self.tag = tag
        self.sha256 = sha256
        self.time = time
        self.start = 0
        self.content_offsets: list[int] = []


class Stamps:
    """The stamps in a message's header: those of ours, and whether there are others."""

    __slots__ = ("has_foreign", "ours")

    def __init__(self) -> None:
        self.ours: list[Stamp] = []
        self.has_foreign = False

    @property
    def content_offsets(self) -> list[int]:
        """The offsets from which verify() needs the SHA-256 of the message."""
        return sorted({offset for each in self.ours for offset in each.content_offsets})


class Verdict:
    """The result for one archive: VALID, ALTERED, FORGED or ABSENT.

    ``stamp`` is the stamp of ours, if any. ``generation`` is the highest index into
    GENERATIONS of all stamps of ours for this archive.
    """

    __slots__ = ("generation", "stamp", "result")

    def __init__(
        self, result: str, stamp: Stamp | None = None, generation: int = 0
    ) -> None:
        self.result = result
        self.stamp = stamp
        self.generation = generation


def archive_tag(archive_address: str, key: Key, *, generation: int = 0) -> str:
    """Return the tag of an archive in a stamp, a MAC of its address.

    Each of GENERATIONS has its own tag.
    """
    mac_input = GENERATIONS[generation] + archive_address.encode()
    return key.mac(TAG_PURPOSE, mac_input)[:TAG_BYTES].hex()


def make(archive_id: str, tag: str, sha256: bytes, time: int, key: Key) -> bytes:
    """Return a stamp as a folded header field; time is Unix time."""
    signed_text = f"v=1; k={key.key_id}; id={archive_id}; a={tag}; t={time};"
    signed_text += f" b={_base64(sha256)};"
    value = f"{signed_text} h={_base64(key.mac(PURPOSE, signed_text.encode()))}"
    folded = value.replace(" a=", "\r\n\ta=").replace(" b=", "\r\n\tb=")
    return f"Archive-Stamp: {folded}\r\n".replace(" h=", "\r\n\th=").encode()


def find(head: bytes, keys: Keyring) -> Stamps:
    """Return the stamps in the header of a message with these first bytes."""
    stamps = Stamps()
    block: list[Stamp] = []
    end = -1
    for index, field in enumerate(_stamp_fields(head)):
        stamp = _parse_authentic(field, keys) if index < STAMP_LIMIT else None
        if field.start != end or stamp is None:
            block = []
        end = field.end
        if stamp is None:
            stamps.has_foreign = True
            continue
        stamp.start = field.start
        block.append(stamp)
        stamps.ours.append(stamp)
        for each in block:
            each.content_offsets.append(end)
    return stamps


def verify(
    stamps: Stamps, archive_address: str, digests: dict[int, bytes], keys: Keyring
) -> Verdict:
    """Return the verdict of the stamps for this archive.

    digests has, by offset, the SHA-256 of the message from each of
    stamps.content_offsets to the end.
    """
    if not stamps.ours:
        return Verdict(FORGED if stamps.has_foreign else ABSENT)
    generations = _generations_by_tag(archive_address, keys)
    own_stamps = [stamp for stamp in stamps.ours if stamp.tag in generations]
    if not own_stamps:
        return Verdict(FORGED if stamps.has_foreign else ABSENT)
    generation = max(generations[stamp.tag] for stamp in own_stamps)
    for stamp in own_stamps:
        if any(
            digest.equal(stamp.sha256, digests[offset])
            for offset in stamp.content_offsets
        ):
            return Verdict(VALID, stamp, generation)
    return Verdict(ALTERED, own_stamps[0], generation)


def _generations_by_tag(archive_address: str, keys: Keyring) -> dict[str, int]:
    """Return all tags of an archive, each with its generation."""
    return {
        archive_tag(archive_address, key, generation=generation): generation
        for key in keys.keys
        for generation in range(len(GENERATIONS))
    }


def _stamp_fields(head: bytes) -> Iterator[header.Field]:
    return (field for field in header.fields(head) if field.name == FIELD_NAME)


def _parse_authentic(field: header.Field, keys: Keyring) -> Stamp | None:
    """Return the stamp if a key of ours made it, else None."""
    parameters = _parse_parameters(field)
    try:
        sha256 = a2b_base64(parameters["b"])
        stamp = Stamp(parameters["id"], parameters["a"], sha256, int(parameters["t"]))
    except (KeyError, ValueError):
        return None
    if not received_header.is_archive_id(stamp.archive_id):
        return None
    # Only white space may differ, or a stamp could carry other text along.
    value = b"".join(field.value.split())
    for key in keys.with_id(parameters.get("k", "")):
        expected_field = make(stamp.archive_id, stamp.tag, sha256, stamp.time, key)
        if digest.equal(b"".join(expected_field.partition(b":")[2].split()), value):
            return stamp
    return None


def _parse_parameters(field: header.Field) -> dict[str, str]:
    """Parse ``name=value; …``, ignoring white space: some relays refold headers."""
    if field.end - field.start > VALUE_LIMIT:
        return {}
    text = field.value.decode("latin-1")
    parts = (part.partition("=") for part in text.split(";"))
    return {name.strip(): "".join(value.split()) for name, _, value in parts}


def _base64(content: bytes) -> str:
    return b2a_base64(content, newline=False).decode()


LAST_GENERATION = len(GENERATIONS) - 1


def make_copy_stamp(
    record_id: str, request: Request, sha256: bytes, keys: Keyring, *, now: int
) -> bytes:
    """Return the stamp for a copy or report that is sent as mail, against loops.

    sha256 (32 bytes) is that of the mail, now is Unix time.
    """
    generation = min(request.generation + 1, LAST_GENERATION)
    tag = archive_tag(request.address, keys.current, generation=generation)
    return make(record_id, tag, sha256, now, keys.current)
