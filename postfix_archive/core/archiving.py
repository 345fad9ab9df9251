"""The plan of the archive transport: what one capsule means for one archive.

Used by front/archive_transport. The store says whether it has an id.
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
KEY_DIGITS = 8  # of the capsule's name: tells the pieces of one message apart
WORDS = {
    stamp.ALTERED: "It bore a stamp of this archive, but had been changed since.",
    stamp.FORGED: "It bore a stamp that no key of this site has made.",
}


def record_id(opened: Opened, request: Request) -> str:
    """Return the id under which the archive keeps this capture.

    A validly stamped message belongs to the record that its stamp names, whether the
    store has that already (a supplement) or not (then it is kept in full there).
    """
    if request.verdict == stamp.VALID:
        return request.stamp_id
    return opened.envelope.archive_id


def copy_name(archive_id: str, key: str) -> str:
    """Return the left part of a copy's Message-Id; key names its capsule."""
    return f"{archive_id}.{key[:KEY_DIGITS]}"


def lines_above(head: bytes, request: Request) -> bytes:
    """Return what stands above the stamp of the original with these first bytes."""
    return head[: request.above] if request.above is not None else b""


def is_mailed(sealed: Envelope, request: Request, settings: Settings) -> bool:
    """Tell whether a copy of a message leaves as mail: not into a loop."""
    return settings.mails and not could_loop(sealed, request, settings)


def could_loop(sealed: Envelope, request: Request, settings: Settings) -> bool:
    """Tell whether mail to the archive about a message could start a loop.

    An archive copy that came back altered is kept, but sends no further copy (where
    there is no store, one), and the notification that archive_sender gets for a bounced
    copy sends none.
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
    """Return what the report has to tell; digest (SHA-256) and size are of what came.

    A good seal and a wrong digest mean that somebody's body_checks has altered the
    original after a requeue: the copy says so.
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
            f"It had been archived before, as {request.stamp_id}: this is its new"
            " envelope, with the header lines that it has now, without the rest."
        )
    elif request.verdict == stamp.VALID:
        found.remarks.append(
            f"It bore a valid stamp of {request.stamp_id}, which was not in this store."
        )
    if sealed.incomplete:
        found.remarks.append(
            "The envelope is incomplete: a FILTER action took it around."
        )
    if digest != sealed.digest:
        found.remarks.append("The message was ALTERED IN THE QUEUE after its capture.")
        found.extra.append((b"Archive-Altered-SHA256", digest.encode()))
        found.extra.append((b"Archive-Altered-Size", b"%d" % size))
    if shape.encoding == b"binary":
        found.remarks.append(
            "It holds lines that SMTP cannot carry; the exact original has the SHA-256"
            f" {digest}."
        )
    return found


def copy_stamp(
    named: str, request: Request, content: bytes, keys: Keyring, *, now: int
) -> bytes:
    """Return the stamp for a copy or report that leaves as mail: it starts no loop.

    named is the record's id, content the mail's SHA-256, now Unix time.
    """
    generation = min(request.copy + 1, LAST_GENERATION)
    tag = stamp.tag(request.address, keys.current, generation=generation)
    return stamp.line(named, tag, content, now, keys.current)


def with_forged_marker(found: Told, digest: str) -> None:
    """Say in the report that the original had an importer's marker in it."""
    found.remarks.append(
        "It held a line that begins like an importer's marker, which stands in lower"
        f" case here; the exact original has the SHA-256 {digest}."
    )


def dealt_out(found: Told, count: int) -> Iterator[Told]:
    """Deal the recipients out over reports of at most count each (0: all in one)."""
    step = count or max(1, len(found.recipients))
    for number, at in enumerate(range(0, max(1, len(found.recipients)), step)):
        yield found.for_recipients(found.recipients[at : at + step], number)
