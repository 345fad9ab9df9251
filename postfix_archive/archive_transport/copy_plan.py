"""Decides what the archive transport does with one capsule for one archive.

Used by archive_transport/transport. Pure: the record id, whether a copy is mailed, and
the envelope report of the copy. Whether a record exists already is the store's
decision.
"""

from __future__ import annotations

from postfix_archive.message import archive_copy, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postfix_archive.config.settings import Settings
    from postfix_archive.message.archive_copy import EnvelopeReport
    from postfix_archive.message.capsule import Capsule
    from postfix_archive.message.envelope import Envelope, Request
    from postfix_archive.message.smtp_data import ContentProperties
VERDICT_REMARKS = {
    stamp.ALTERED: "The message has a stamp of this archive, but was changed since.",
    stamp.FORGED: "The message has a stamp that no key of this site made.",
}


def record_id(capsule: Capsule, request: Request) -> str:
    """Return the id under which the message is stored in full.

    With a valid stamp that the store does not know, it is the id in the stamp. A copy
    has an id of its own: its stamp names the message that is enclosed in it.
    """
    if request.verdict == stamp.VALID and not request.generation:
        return request.stamp_id
    return capsule.envelope.archive_id


def header_above_stamp(head: bytes, request: Request) -> bytes:
    """Return the header lines above the original's valid stamp; empty without one.

    Of a message that was recognised by its content, those above that. head is the
    first bytes of the original.
    """
    return head[: request.stamp_offset] if request.stamp_offset is not None else b""


def is_mailed(
    envelope: Envelope, request: Request, head: bytes, settings: Settings
) -> bool:
    """Return whether a copy is sent as mail: if so configured, but never in a loop.

    head is the first bytes of the original.
    """
    return settings.has_mail_delivery and not archive_copy.could_loop(
        envelope,
        request,
        head,
        archive_from=settings.archive_from,
        archive_sender=settings.archive_sender,
        has_store=settings.has_store,
    )


def build_report(
    capsule: Capsule,
    request: Request,
    head: bytes,
    properties: ContentProperties,
    *,
    sha256: str,
    size: int,
) -> EnvelopeReport:
    """Return the envelope report of the copy for one request.

    sha256 (hexadecimal) and size (bytes) are those of the original as it arrived in
    the capsule. A valid seal with a different SHA-256 means that body_checks altered
    the original after a requeue; the report says so.
    """
    envelope = capsule.envelope
    envelope_report = archive_copy.EnvelopeReport(
        envelope, request.address, head, properties
    )
    envelope_report.message_id_left = archive_copy.message_id_left(
        envelope.archive_id, capsule.capsule_id
    )
    envelope_report.extra_fields.append(
        (b"Archive-Capsule", capsule.capsule_id.encode())
    )
    envelope_report.extra_fields.append(
        (b"Archive-Record-Id", record_id(capsule, request).encode())
    )
    if request.verdict in VERDICT_REMARKS:
        envelope_report.remarks.append(VERDICT_REMARKS[request.verdict])
    if request.is_stamp_trusted:
        envelope_report.remarks.append(
            f"The message was archived before as {request.stamp_id}; this is its new"
            " envelope with its present header, without the body."
        )
    elif request.verdict == stamp.VALID:
        envelope_report.remarks.append(
            f"The message has a valid stamp of {request.stamp_id}, which was not in"
            " this store."
        )
    elif request.verdict == stamp.CONTENT:
        envelope_report.remarks.append(
            f"The message has the content of {request.stamp_id}, whose copy is not in"
            " this store."
        )
    if envelope.is_incomplete:
        envelope_report.remarks.append(
            "The envelope is incomplete: a FILTER action bypassed the stamp filter."
        )
    if sha256 != envelope.sha256:
        envelope_report.remarks.append(
            "The message was ALTERED IN THE QUEUE after its capture."
        )
        envelope_report.extra_fields.append(
            (b"Archive-Altered-SHA256", sha256.encode())
        )
        envelope_report.extra_fields.append((b"Archive-Altered-Size", b"%d" % size))
    if properties.encoding == b"binary":
        envelope_report.remarks.append(
            "The message has lines that SMTP cannot carry; the SHA-256 of the exact"
            f" original is {sha256}."
        )
    return envelope_report


def note_forged_marker(envelope_report: EnvelopeReport, sha256: str) -> None:
    """Add a remark: the original has a line that importers take for their marker."""
    envelope_report.remarks.append(
        "The message has a line that begins like a journal importer's marker; it is in"
        f" lower case here. The SHA-256 of the exact original is {sha256}."
    )


def split_report(
    envelope_report: EnvelopeReport, limit: int
) -> Iterator[EnvelopeReport]:
    """Yield reports with at most limit recipients each (0: one report for all)."""
    step = limit or max(1, len(envelope_report.recipients))
    for number, start in enumerate(
        range(0, max(1, len(envelope_report.recipients)), step)
    ):
        yield envelope_report.for_recipients(
            envelope_report.recipients[start : start + step], number
        )
