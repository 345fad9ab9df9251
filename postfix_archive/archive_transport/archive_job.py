"""One message on its way into its archives, and what is determined from it.

Used by archive_transport/transport. Its callers make an ArchiveJob for each message.
"""

from __future__ import annotations

from postfix_archive.archive_transport import copy_plan
from postfix_archive.message import archive_copy, dates, smtp_data
from postfix_archive.store import copy_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from postfix_archive.archive_transport.recent_captures import RecentCaptures
    from postfix_archive.config.settings import Settings
    from postfix_archive.message.archive_copy import ArchiveCopy
    from postfix_archive.message.capsule import Capsule
    from postfix_archive.message.envelope import Request
    from postfix_archive.message.keyring import Keyring
    from postfix_archive.message.smtp_data import ContentProperties
    from postfix_archive.outcomes.outcome_report import KnownOutcomes
    from postfix_archive.system.spool import Spool


class ArchiveJob:
    """One message to archive, with settings and keys; ``now`` is Unix time.

    ``message`` is a capsule, or for write-through the original itself.
    """

    __slots__ = ("known_outcomes", "keys", "message", "now", "recent_captures") + (
        "settings",
    )

    def __init__(
        self, message: Spool, settings: Settings, keys: Keyring, now: int
    ) -> None:
        self.message = message
        self.settings = settings
        self.keys = keys
        self.now = now
        # Outcomes that are known already.
        self.known_outcomes: KnownOutcomes | None = None
        # Where mail gets no stamp: what is stored in full is added here.
        self.recent_captures: RecentCaptures | None = None

    @property
    def timestamp(self) -> str:
        """``now`` as the journal writes it."""
        return dates.format_rfc3339(self.now)


class CapturedMessage:
    """A captured message: its envelope, and what was determined from the original."""

    __slots__ = (
        "sha256",
        "has_forged_marker",
        "head",
        "opened_capsule",
        "job",
        "shape",
    )

    def __init__(
        self,
        job: ArchiveJob,
        opened_capsule: Capsule,
        sha256: str,
        shape: ContentProperties,
    ) -> None:
        self.job = job
        self.opened_capsule = opened_capsule
        self.head = job.message.head(opened_capsule.original_offset)
        self.sha256 = sha256
        self.shape = shape
        report_format = job.settings.archive_report_format
        needs_marker_check = (
            job.settings.has_mail_delivery
            and report_format in archive_copy.MARKED_FORMATS
        )
        self.has_forged_marker = needs_marker_check and archive_copy.has_marker(
            self.original()
        )

    @property
    def size(self) -> int:
        """Size of the original in bytes."""
        return self.job.message.size - self.opened_capsule.original_offset

    def original(self) -> Iterable[bytes]:
        """Return the bytes of the original, in chunks."""
        return self.job.message.chunks(self.opened_capsule.original_offset)

    def content(self, copy: ArchiveCopy, *, is_mailed: bool = False) -> Iterable[bytes]:
        """Return the bytes of an archive copy.

        In a mailed copy, journal markers within the original are put in lower case, so
        that no importer takes them for ours.
        """
        original = self.original() if copy.has_original else ()
        if is_mailed and self.has_forged_marker:
            original = archive_copy.lowercase_markers(original)
        return smtp_data.chain((copy.preamble,), original, (copy.trailer,))

    def piece(self, request: Request, record_id: str) -> copy_file.Capture:
        """Return what the store needs to record this message in one archive."""
        return copy_file.Capture(
            record_id=record_id,
            capsule_id=self.opened_capsule.capsule_id,
            envelope_fields=self.opened_capsule.fields,
            sha256=self.sha256,
            size=self.size,
            verdict=request.verdict,
            lines_above=copy_plan.header_above_stamp(self.head, request),
        )
