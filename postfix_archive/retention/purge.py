"""Purge: remove the records whose retention period is over.

Used by the command purge, daily. Each run first completes what an earlier one has left,
catches the index up, notes new decisions in the journal, and then removes what is over
by the noted and by the present rule, and what no hold covers. It refuses to remove more
than archive_purge_limit of an archive at once. Raises PurgeRefused,
RetentionRuleInvalid, and the errors of removal and of the index.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexFailed, PurgeRefused
from postfix_archive.retention import clock, holds, notes, removal, rules
from postfix_archive.retention.rules import Decision, Rules
from postfix_archive.search import index_update
from postfix_archive.search.index_engine import Hit
from postfix_archive.search.search import Search
from postfix_archive.store import (
    journal,
    journal_format,
    journal_reader,
    record_reader,
)

CHUNK_SIZE = 500  # records that are looked at together


@dataclass
class Result:
    """What a run has done in one archive, or, if it was a dry run, would have done.

    ``due`` has the decisions on what goes, or has gone, by archive id; ``held`` the
    names of the holds of what would go without them.
    """

    archive: str
    finished: int = 0
    noted: int = 0
    due: dict[str, Decision] = field(default_factory=dict)
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def counts_by_rule(self) -> Counter[tuple[str, str]]:
        """How many records go by each rule and period."""
        return Counter((each.rule, each.period) for each in self.due.values())


class Purge:
    """One run, on one day."""

    def __init__(
        self,
        settings: Settings,
        *,
        now: float,
        doubt: str = "",
        by: str,
        warn: Callable[[str], None],
    ) -> None:
        """Read the rules.

        now is a Unix time, doubt says why it may be wrong: then nothing is removed. by
        says who runs it; warn gets what the user should know.
        """
        self._settings = settings
        self._doubt = doubt
        self._rules: Rules = rules.load(settings)
        self._now = now
        self._today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
        self._by = by
        self._warn = warn

    def run(self, archive: str, *, is_dry: bool, is_confirmed: bool) -> Result:
        """Purge one archive; is_confirmed: also more than archive_purge_limit."""
        result = Result(archive)
        if not is_dry:
            since = clock.run_before(self._settings, self._now)
            result.finished = removal.finish(self._settings, archive, since, self._warn)
        has_index = index_update.has_index(self._settings, archive)
        if not (has_index or self._rules.has_rules(archive)):
            return result  # nothing can be due
        path = journal_reader.path_of(self._settings.archive_store_directory, archive)
        start = journal_reader.end_offset(path)
        index_update.catch_up(self._settings, archive, self._warn)
        if is_dry:
            new_ids = notes.not_noted(self._settings, self._rules, archive)
            result.noted = len(new_ids)
            result.due = self._over(self._rules.decide(archive, new_ids))
        else:
            result.noted = notes.append_new(
                self._settings, self._rules, archive, self._by, self._warn
            )
        due, longer = self._due(archive)
        result.due |= due
        result.held = _held(self._settings, archive, result.due)
        for archive_id in result.held:
            del result.due[archive_id]
        if is_dry:
            return result
        notes.append(self._settings, archive, longer, by=self._by)
        if result.due and self._doubt:
            raise PurgeRefused(f"{self._doubt}; nothing is removed")
        if not is_confirmed:
            self._require_limit(result)
        self._remove(result, lambda: _captured_since(path, start))
        return result

    def _remove(self, result: Result, captured: Callable[[], Iterator[str]]) -> None:
        """Remove what is due but what is held, or was captured after the decision.

        A further pass may bring a recipient for whom there is a longer rule: the next
        run decides anew.
        """
        details = {
            archive_id: {**decision.to_fields(), "by": self._by}
            for archive_id, decision in result.due.items()
        }
        newer: set[str] = set()

        def exclude() -> set[str]:
            newer.update(captured())
            return newer

        held = removal.remove_all(
            self._settings,
            result.archive,
            details,
            journal.PURGED,
            self._warn,
            exclude=exclude,
        )
        result.held |= held
        for archive_id in result.due.keys() & (held.keys() | newer):
            del result.due[archive_id]

    def _due(self, archive: str) -> tuple[dict[str, Decision], dict[str, Decision]]:
        """Return what is over by the noted rule: over too by the present one, or not.

        The latter is to be noted, so that it is not looked at again each day.
        """
        due: dict[str, Decision] = {}
        longer: dict[str, Decision] = {}
        hits = self._noted_as_over(archive)
        for start in range(0, len(hits), CHUNK_SIZE):
            chunk = {each.archive_id: each for each in hits[start : start + CHUNK_SIZE]}
            for archive_id, decision in self._rules.decide(archive, chunk).items():
                self._require_over(chunk[archive_id])
                group = due if decision.is_over(self._today) else longer
                group[archive_id] = decision
        return due, longer

    def _noted_as_over(self, archive: str) -> list[Hit]:
        """Return what the index has as over."""
        node = notes.noted_before(self._today)
        found = Search(self._settings, node, sort="oldest", archives=[archive])
        hits = list(found.hits())
        if found.notices:
            raise IndexFailed("; ".join(found.notices))
        return hits

    def _require_over(self, hit: Hit) -> None:
        """Raise IndexFailed unless the journal says of a record what the index does."""
        store = self._settings.archive_store_directory
        record = record_reader.record_at(store, hit.archive, hit.offsets)
        noted = rules.noted(record)
        arrival = record.envelope.arrival
        if (
            record.archive_id != hit.archive_id
            or noted is None
            or not noted.is_over(self._today)
            or arrival not in (None, hit.arrived)
        ):
            raise IndexFailed(
                f"{hit.archive}: what its index says of {hit.archive_id} is not what"
                " the journal says; run postfix-archive index --rebuild"
            )

    def _over(self, decisions: Mapping[str, Decision]) -> dict[str, Decision]:
        return {
            archive_id: decision
            for archive_id, decision in decisions.items()
            if decision.is_over(self._today)
        }

    def _require_limit(self, result: Result) -> None:
        found = Search(self._settings, notes.ANYTHING, archives=[result.archive])
        total, limit = found.count(), self._settings.archive_purge_limit
        if len(result.due) * 100 <= limit * total:
            return
        by_rule = ", ".join(
            f"{count} by {rule} {period}"
            for (rule, period), count in sorted(result.counts_by_rule.items())
        )
        raise PurgeRefused(
            f"{result.archive}: {len(result.due)} of {total} records are due, more than"
            f" archive_purge_limit = {limit}%: {by_rule}; nothing is removed; if that"
            " is right, run postfix-archive purge --really"
        )


def _captured_since(path: str, offset: int) -> Iterator[str]:
    """Yield the archive ids of what a journal has captured from an offset on."""
    for line in journal_reader.lines(path, offset):
        if line.kind in journal.CAPTURE_EVENTS:
            yield journal_format.string_field(line.content, "id")


def _held(
    settings: Settings, archive: str, archive_ids: Mapping[str, Decision]
) -> dict[str, tuple[str, ...]]:
    """Return the names of the holds that cover some of these records."""
    names = holds.covering(settings, archive, [*archive_ids]) if archive_ids else {}
    return {archive_id: some for archive_id, some in names.items() if some}
