"""The state of an instance, as one user may see it: of their archives.

Used by dashboard_page. The numbers are those that ``status --write`` has left beside
the index; what the page's user can read itself is read now. What is about the whole
host is for admins, and for auditors of every archive. Raises nothing: what cannot be
read is said.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from postfix_archive.access import access_service
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.retention import holds, notes
from postfix_archive.search import index_lag
from postfix_archive.search.index_lag import Lag
from postfix_archive.status import overview, status_file
from postfix_archive.store import record_reader
from postfix_archive.web.user import EVERY_ARCHIVE, User

DAYS = 365  # of a chart
STALE_SECONDS = 3600.0  # the timer writes every five minutes
LAG_SECONDS = 3600.0  # of an index that is nearly up to date

UNREADABLE, MISSING, OLD = "unreadable", "missing", "old"
# Texts for monitoring; those of the page are in its template.
PROBLEMS = {
    UNREADABLE: "the numbers cannot be read",
    MISSING: "there are no numbers yet",
    OLD: "the numbers are old: the timer does not run",
}


@dataclass(frozen=True)
class ArchiveState:
    """One archive: its numbers of status --json, and what is known now.

    What is None is not known.
    """

    name: str
    fields: dict[str, Any]
    lag: Lag | None
    open_holds: int | None
    due: int | None  # records whose retention period is over
    replication: dict[str, Any] | None


class VisibleStatus:
    """The state, for a user; ``problem`` is a key of PROBLEMS, or ""."""

    def __init__(self, settings: Settings, user: User) -> None:
        self._settings = settings
        self._user = user
        self.problem = ""
        self.fields: dict[str, Any] = {}
        try:
            self.fields = status_file.read(settings) or {}
        except (OSError, ValueError):
            self.problem = UNREADABLE
        self.problem = self.problem or self._age_problem()

    def _age_problem(self) -> str:
        written = overview.parse_time(self.fields.get("time", ""))
        if written is None:
            return MISSING
        if time.time() - written > STALE_SECONDS:
            return OLD
        return ""

    @property
    def is_of_host(self) -> bool:
        """True for who may see what is about the whole host."""
        return self._user.is_admin or self._user.may_read_all(EVERY_ARCHIVE)

    @cached_property
    def names(self) -> list[str]:
        """The archives of which this user may see numbers."""
        names: list[str] = []
        with contextlib.suppress(ArchiveError):
            names = list(record_reader.archives(self._settings.archive_store_directory))
        user = self._user
        return [each for each in names if user.is_admin or user.may_read_all(each)]

    def archives(self) -> list[ArchiveState]:
        """Return the state of each archive."""
        known = {e["archive"]: e for e in self.fields.get("archives", ())}
        lags = self.fields.get("object_store", {})
        journals: list[frozenset[str]] | None = None
        with contextlib.suppress(ArchiveError):
            journals = [e.journals for e in holds.read(self._settings)]
        return [
            ArchiveState(
                name=each,
                fields=known.get(each, {}),
                lag=self.lag(each),
                open_holds=(
                    None if journals is None else sum(each in e for e in journals)
                ),
                due=self._due(each),
                replication=lags.get(each),
            )
            for each in self.names
        ]

    def lag(self, archive: str) -> Lag | None:
        """Return how far an index is behind, None if that is not known."""
        with contextlib.suppress(ArchiveError, OSError):
            return index_lag.lag(self._settings, archive)
        return None

    def _due(self, archive: str) -> int | None:
        with contextlib.suppress(ArchiveError):
            today = datetime.datetime.now(datetime.UTC).date()
            return len(notes.due_ids(self._settings, archive, today))
        return None

    def days(self) -> list[tuple[datetime.date, int, int]]:
        """Return day (UTC), messages and bytes of the last DAYS days, oldest first."""
        totals: dict[str, list[int]] = {}
        for each in self.fields.get("archives", ()):
            if each["archive"] in self.names:
                for day, counts in each.get("days", {}).items():
                    total = totals.setdefault(day, [0, 0])
                    total[0] += counts[0]
                    total[1] += counts[1]
        today = datetime.datetime.now(datetime.UTC).date()
        days = [today - datetime.timedelta(each) for each in range(DAYS)]
        return [(e, *totals.get(str(e), (0, 0))) for e in reversed(days)]


def health(settings: Settings) -> list[str]:
    """Return what is wrong, without names of archives and people; [] for nothing."""
    state = VisibleStatus(settings, NOBODY)
    reasons = [PROBLEMS[state.problem]] if state.problem else []
    reasons += [str(each) for each in state.fields.get("risks", ())]
    reasons += [str(each) for each in state.fields.get("warnings", ())]
    try:
        names = list(record_reader.archives(settings.archive_store_directory))
    except ArchiveError:
        return [*reasons, "the store cannot be read"]
    lags = [state.lag(each) for each in names]
    if not all(each and each.has_index for each in lags):
        reasons.append("an archive has no index")
    if any(each and each.seconds > LAG_SECONDS for each in lags):
        reasons.append("an index is more than an hour behind")
    if settings.archive_web_user and not access_service.is_running(
        settings.archive_access_socket
    ):
        reasons.append("the access service does not run: nobody is shown any mail")
    return reasons


NOBODY = User("", "", frozenset())
