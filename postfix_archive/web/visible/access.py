"""Who read what, for the officers of an archive: from its access journal, newest first.

Used by access_log_page. A page of entries reads at most SCAN_LIMIT lines, however long
the journal is. That an officer looks is recorded before. Raises RecordNotFound,
JournalFailed and AccessNotRecorded.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from postfix_archive.access import access_journal
from postfix_archive.access.access_entry import Entry
from postfix_archive.config.settings import Settings
from postfix_archive.errors import AccessRefused, StoreFailed
from postfix_archive.export import manifest
from postfix_archive.store import journal_reader, verifier
from postfix_archive.web.visible.archives import VisibleArchives

ACTION = "access-log"
PAGE_SIZE = 50  # entries
SCAN_LIMIT = 10_000  # lines that are read for one page: 1 s on a busy host
VERIFY_LIMIT = 64 << 20  # bytes of a journal that are verified at once: some 8 s
DAY = datetime.timedelta(days=1)
COLUMNS = (
    *("time", "archive", "person", "web_user", "user", "uid", "login", "sudo_user"),
    *("action", "query", "reason", "ids"),
)


@dataclass(frozen=True)
class Filter:
    """Which entries; "" and None for any. ``until`` is the last day (UTC)."""

    user: str = ""
    action: str = ""
    archive_id: str = ""
    since: datetime.date | None = None
    until: datetime.date | None = None

    def __str__(self) -> str:
        """Return it as the access journal has it."""
        fields = {name: value for name, value in vars(self).items() if value}
        return " ".join(f"{name}={value}" for name, value in fields.items())

    def matches(self, entry: Entry) -> bool:
        """Tell whether an entry is one of these."""
        day = entry.time[:10]
        return (
            self.action in ("", entry.action)
            and (not self.since or day >= str(self.since))
            and (not self.until or day <= str(self.until))
            and entry.is_of(self.user, self.archive_id)
        )

    @property
    def end(self) -> float | None:
        """The Unix time after the last day."""
        return _timestamp(self.until + DAY) if self.until else None


@dataclass(frozen=True)
class LogPage:
    """Some entries; ``next`` is where the next page ends, None if there are no more.

    ``is_cut`` is true if SCAN_LIMIT lines had not enough entries for a page.
    """

    entries: list[Entry]
    next: int | None
    is_cut: bool


@dataclass(frozen=True)
class ChainVerdict:
    """What verifying an access journal has found; times are RFC 3339."""

    line_count: int
    errors: list[str]


class VisibleAccess:
    """The access journals of one officer's archives."""

    def __init__(self, settings: Settings, view: VisibleArchives) -> None:
        self._settings = settings
        self._view = view
        self._store = settings.archive_store_directory

    @cached_property
    def archives(self) -> list[str]:
        """The archives that this user is officer of."""
        return self._view.officer_names

    def page(self, archive: str, wanted: Filter, end: int | None) -> LogPage:
        """Return a page of entries, those before an offset."""
        self._record(archive, str(wanted))
        entries: list[Entry] = []
        place = self._end(archive, wanted) if end is None else end
        lines = self._lines(archive, wanted, place)
        for number, (offset, entry) in enumerate(lines, 1):
            if entry and wanted.matches(entry):
                entries.append(entry)
            if len(entries) == PAGE_SIZE or number == SCAN_LIMIT:
                has_more = offset > 0
                is_cut = has_more and len(entries) < PAGE_SIZE
                return LogPage(entries, offset if has_more else None, is_cut)
        return LogPage(entries, None, False)

    def csv_lines(self, archive: str, wanted: Filter) -> Iterator[bytes]:
        """Return the lines of a CSV file with all entries, newest first."""
        self._record(archive, f"csv {wanted}".strip())
        return self._csv_lines(archive, wanted)

    def _csv_lines(self, archive: str, wanted: Filter) -> Iterator[bytes]:
        yield manifest.csv_line(COLUMNS)
        for _, entry in self._lines(archive, wanted, self._end(archive, wanted)):
            if entry and wanted.matches(entry):
                who = entry.user
                yield manifest.csv_line(
                    [entry.time, archive, str(who), who.web_user, who.name, who.uid]
                    + [who.login, who.sudo_user, entry.action, entry.query]
                    + [entry.reason, " ".join(entry.ids)]
                )

    def _lines(
        self, archive: str, wanted: Filter, end: int | None
    ) -> Iterator[tuple[int, Entry | None]]:
        """Yield offsets and entries backwards, until they are too old."""
        oldest = str(wanted.since - DAY) if wanted.since else ""
        for offset, entry in access_journal.entries_backwards(
            self._store, archive, end
        ):
            if entry and entry.time < oldest:
                return
            yield offset, entry

    def _end(self, archive: str, wanted: Filter) -> int | None:
        if wanted.end is None:
            return None
        return access_journal.offset_after(self._store, archive, wanted.end)

    def verify(self, archive: str) -> ChainVerdict:
        """Verify the chain of an access journal. Raises StoreFailed for a long one."""
        self._record(archive, "verify")
        path = journal_reader.path_of(self._store, archive, access_journal.NAME)
        if journal_reader.end_offset(path) > VERIFY_LIMIT:
            raise StoreFailed(
                f"{path} is too long to be verified while you wait: the postmaster"
                " runs postfix-archive verify"
            )
        try:
            found = verifier.verify_access(f"{self._store}/{archive}")
        except OSError as error:
            raise StoreFailed(f"{path}: {journal_reader.reason(error)}") from error
        errors = [str(each) for each in found.findings if not each.is_note]
        return ChainVerdict(found.line_count, list(islice(errors, PAGE_SIZE)))

    def _record(self, archive: str, what: str) -> None:
        if archive not in self.archives:
            self._view.record_refusal(f"access log of {archive}")
            raise AccessRefused("the access log is for officers of the archive")
        self._view.recorder(ACTION, what).searched([archive])


def parse_day(text: str) -> datetime.date | None:
    """Return a day, None for "". Raises ValueError."""
    return datetime.date.fromisoformat(text) if text else None


def _timestamp(day: datetime.date) -> float:
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
    return midnight.timestamp()
