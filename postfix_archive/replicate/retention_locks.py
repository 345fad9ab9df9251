"""For how long the server must keep the objects of one archive: by retention and holds.

Used by replication_service. Asks the index what the rules' queries find, and brings it
up to date first. Raises SettingInvalid, and what retention.rules, retention.holds and
search.index_update raise: then nothing is uploaded, and it is tried again.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexFailed, SettingInvalid
from postfix_archive.replicate.bucket import Lock
from postfix_archive.retention import holds, rules
from postfix_archive.retention.holds import Holds
from postfix_archive.search import index_update

# The longest that AWS takes. A record that is kept for ever is not locked for ever: an
# end that nobody alive will see can at least be written.
PERMANENT_DAYS = 36500
ATTEMPTS = 3  # since the index may just have fallen behind again
Warn = Callable[[str], None]


class RetentionLocks:
    """The locks of one archive's objects. For a mode see archive_object_lock."""

    def __init__(self, settings: Settings, archive: str, warn: Warn) -> None:
        """Raises SettingInvalid if some record would be locked without a rule."""
        self._settings = settings
        self._archive = archive
        self._warn = warn
        self._holds: Holds | None = None
        if archive not in settings.archive_retention:
            raise SettingInvalid(
                f"archive_retention has no period for {archive}, so what no rule finds"
                " would be locked for ever; add one (permanent, if that is meant), or"
                " set archive_object_lock = none"
            )

    def of_records(self, archive_ids: Iterable[str]) -> Mapping[str, Lock]:
        """Return the locks of records that are in the store."""
        ids = list(archive_ids)
        if not ids:
            return {}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._locks(ids)
            except IndexFailed:
                if attempt == ATTEMPTS:
                    raise
        return {}

    def _locks(self, archive_ids: Sequence[str]) -> Mapping[str, Lock]:
        held = self.held(archive_ids)
        decisions = rules.load(self._settings).decide(self._archive, archive_ids)
        return {
            archive_id: Lock(end_of(each.until), archive_id in held)
            for archive_id, each in decisions.items()
        }

    def of_archive(self) -> Lock:
        """Return the longest lock that a record may need that comes today."""
        today = datetime.datetime.now(datetime.UTC).date()
        periods = [each.period for each in rules.load(self._settings).rules]
        periods.append(self._settings.archive_retention[self._archive])
        return Lock(max(end_of(rules.last_day(today, each)) for each in periods))

    def of_day(self, until: datetime.date | None, archive_id: str) -> Lock:
        """Return the lock of a record that is kept until a day, None for ever."""
        return Lock(end_of(until), archive_id in self.held([archive_id]))

    def held(self, archive_ids: Collection[str]) -> set[str]:
        """Return which of these records a hold covers.

        The holds are those of the first call since change().
        """
        if not archive_ids:
            return set()
        if self._holds is None:
            self._holds = Holds(self._settings)
        index_update.catch_up(self._settings, self._archive, self._warn)
        covering = self._holds.covering(self._archive, archive_ids)
        return {archive_id for archive_id, names in covering.items() if names}

    def change(self) -> None:
        """Read the holds again: other ones are open."""
        self._holds = None


def open_holds(settings: Settings) -> list[str]:
    """Return the open holds of a store, each by its name and time."""
    return [f"{e.name} {e.time}" for e in holds.read(settings) if e.is_open]


def end_of(last_day: datetime.date | None) -> datetime.datetime:
    """Return when a record may be removed whose last day this is, None for ever."""
    now = datetime.datetime.now(datetime.UTC)
    end = now.date() + datetime.timedelta(days=PERMANENT_DAYS)
    if last_day is not None and last_day < end:
        end = last_day + datetime.timedelta(days=1)
    return datetime.datetime.combine(end, datetime.time(), datetime.UTC)


class NoLocks:
    """The locks with archive_object_lock = none."""

    def of_records(self, archive_ids: Iterable[str]) -> Mapping[str, Lock]:
        """Return no locks."""
        return dict.fromkeys(archive_ids, Lock())

    def of_archive(self) -> Lock:
        """Return no lock."""
        return Lock()

    def of_day(self, until: datetime.date | None, archive_id: str) -> Lock:
        """Return no lock."""
        return Lock()

    def held(self, archive_ids: Collection[str]) -> set[str]:
        """Return nothing: a hold keeps the store's copy alone."""
        return set()

    def change(self) -> None:
        """Do nothing."""
