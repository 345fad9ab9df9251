"""Decides what the archive transport does with one capsule for one archive.

Used by archive_transport/transport. Pure: the record id, whether a copy is mailed, and
the envelope report of the copy. Whether a record exists already is the store's
decision.
"""

from __future__ import annotations

from postfix_archive.core import report, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postfix_archive.core.capsule import Opened
    from postfix_archive.core.envelope import Envelope, Request
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.report import Told
    from postfix_archive.core.settings import Settings
    from postfix_archive.core.wire import Shape

LAST_GENERATION = len(stamp.GENERATIONS) - 1
KEY_DIGITS = 8  # enough to distinguish the pieces of a message
WORDS = {
    stamp.ALTERED: "The message has a stamp of this archive, but was changed since.",
    stamp.FORGED: "The message has a stamp that no key of this site made.",
}


def record_id(opened: Opened, request: Request) -> str:
    """Return the id of the record that this capture belongs to.

    With a valid stamp it is the id in the stamp: a supplement if the store has that
    record, else the message is stored in full under that id.
    """
    if request.verdict == stamp.VALID:
        return request.stamp_id
    return opened.envelope.archive_id


def copy_name(archive_id: str, key: str) -> str:
    """Return the id-left (RFC 5322 3.6.4) of a copy's Message-Id."""
    return f"{archive_id}.{key[:KEY_DIGITS]}"


def lines_above(head: bytes, request: Request) -> bytes:
    """Return the header lines above the original's valid stamp; empty without one.

    head is the first bytes of the original.
    """
    return head[: request.above] if request.above is not None else b""


def is_mailed(sealed: Envelope, request: Request, settings: Settings) -> bool:
    """Return whether a copy is sent as mail: if so configured, but never in a loop."""
    return settings.mails and not could_loop(sealed, request, settings)


def could_loop(sealed: Envelope, request: Request, settings: Settings) -> bool:
    """Return whether a copy of this message, sent as mail, could start a mail loop.

    An archive copy that returns altered is archived, but causes no further copy (one,
    where there is no store). A bounce to archive_sender causes none.
    """
    if not sealed.sender and settings.archive_sender:
        if {each.final for each in sealed.recipients} == {settings.archive_sender}:
            return True
    return request.copy >= (1 if settings.stores else LAST_GENERATION)


def told(
    opened: Opened,
    request: Request,
    head: bytes,
    shape: Shape,
    *,
    digest: str,
    size: int,
) -> Told:
    """Return the envelope report of the copy for one request.

    sha256 (hexadecimal) and size (bytes) are those of the original as it arrived in
    the capsule. A valid seal with a different SHA-256 means that body_checks altered
    the original after a requeue; the report says so.
    """
    sealed = opened.envelope
    found = report.Told(sealed, request.address, head, shape)
    found.name = copy_name(sealed.archive_id, opened.key)
    found.extra.append((b"Archive-Capsule", opened.key.encode()))
    found.extra.append((b"Archive-Record-Id", record_id(opened, request).encode()))
    if request.verdict in WORDS:
        found.remarks.append(WORDS[request.verdict])
    if request.spared:
        found.remarks.append(
            f"The message was archived before as {request.stamp_id}; this is its new"
            " envelope with its present header, without the body."
        )
    elif request.verdict == stamp.VALID:
        found.remarks.append(
            f"The message has a valid stamp of {request.stamp_id}, which was not in"
            " this store."
        )
    if sealed.incomplete:
        found.remarks.append(
            "The envelope is incomplete: a FILTER action bypassed the stamp filter."
        )
    if digest != sealed.digest:
        found.remarks.append("The message was ALTERED IN THE QUEUE after its capture.")
        found.extra.append((b"Archive-Altered-SHA256", digest.encode()))
        found.extra.append((b"Archive-Altered-Size", b"%d" % size))
    if shape.encoding == b"binary":
        found.remarks.append(
            "The message has lines that SMTP cannot carry; the SHA-256 of the exact"
            f" original is {digest}."
        )
    return found


def copy_stamp(
    named: str, request: Request, content: bytes, keys: Keyring, *, now: int
) -> bytes:
    """Return the stamp for a copy or report that is sent as mail, against loops.

    sha256 (32 bytes) is that of the mail, now is Unix time.
    """
    generation = min(request.copy + 1, LAST_GENERATION)
    tag = stamp.tag(request.address, keys.current, generation=generation)
    return stamp.line(named, tag, content, now, keys.current)


def with_forged_marker(found: Told, digest: str) -> None:
    """Add a remark: the original has a line that importers take for their marker."""
    found.remarks.append(
        "The message has a line that begins like a journal importer's marker; it is in"
        f" lower case here. The SHA-256 of the exact original is {digest}."
    )


def dealt_out(found: Told, count: int) -> Iterator[Told]:
    """Yield reports with at most limit recipients each (0: one report for all)."""
    step = count or max(1, len(found.recipients))
    for number, at in enumerate(range(0, max(1, len(found.recipients)), step)):
        yield found.for_recipients(found.recipients[at : at + step], number)
