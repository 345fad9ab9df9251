"""Apply rules that became shorter to records that were noted with longer periods.

Used by the command retention apply. Raises what rules.Rules.decide() and
holds.covering() raise, JournalFailed and StoreFailed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from postfix_archive.config.settings import Settings
from postfix_archive.retention import holds, notes, rules
from postfix_archive.retention.rules import Decision
from postfix_archive.search import index_update
from postfix_archive.search.query_nodes import Word
from postfix_archive.search.search import Search
from postfix_archive.store import record_reader

CHUNK_SIZE = 500  # records that are looked at together


@dataclass
class PeriodChange:
    """The records of an archive that would be kept for less time, by archive id.

    ``shorter`` has the new decisions; ``held`` the names of the holds of those that are
    left as they are.
    """

    archive: str
    shorter: dict[str, Decision] = field(default_factory=dict)
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)


def find(settings: Settings, archive: str, warn: Callable[[str], None]) -> PeriodChange:
    """Return what would change; nothing does yet."""
    change = PeriodChange(archive)
    present = rules.load(settings)
    if not present.has_rules(archive):
        return change
    index_update.catch_up(settings, archive, warn)
    found = Search(settings, Word("has", "retention", 0), archives=[archive])
    hits = list(found.hits())
    store = settings.archive_store_directory
    for start in range(0, len(hits), CHUNK_SIZE):
        chunk = hits[start : start + CHUNK_SIZE]
        decisions = present.decide(archive, [each.archive_id for each in chunk])
        for hit in chunk:
            record = record_reader.record_at(store, archive, hit.offsets)
            noted, decision = rules.noted(record), decisions[hit.archive_id]
            if noted is not None and noted.is_longer_than(decision):
                change.shorter[hit.archive_id] = decision
    if change.shorter:
        covering = holds.covering(settings, archive, [*change.shorter])
        change.held = {each: names for each, names in covering.items() if names}
    for each in change.held:
        del change.shorter[each]
    return change


def apply(
    settings: Settings,
    change: PeriodChange,
    warn: Callable[[str], None],
    *,
    by: str,
    reason: str,
) -> None:
    """Note the new decisions, durably, and let the index read them."""
    if change.shorter:
        notes.append(settings, change.archive, change.shorter, by=by, reason=reason)
        index_update.catch_up(settings, change.archive, warn)
