"""Notes in the journal until when records are kept: the event ``retention``.

Used by purge and by the command retention. Raises JournalFailed, StoreFailed and what
Rules.decide() and index_update.catch_up() raise.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from itertools import islice

from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexFailed
from postfix_archive.message import dates
from postfix_archive.retention.rules import NO_RULE, Decision, Rules
from postfix_archive.search import index_update, search
from postfix_archive.search.query_nodes import All, Any, Node, Not, Range, Word
from postfix_archive.search.search import Search
from postfix_archive.store import archive as store_archive
from postfix_archive.store import journal
from postfix_archive.system import privileges

BATCH_SIZE = 2000  # events that are written at once, for which mail waits
ANYTHING = Word("", "", 0, is_prefix=True)
NOT_NOTED = Not(Word("has", "retention", 0))


def append(
    settings: Settings,
    archive: str,
    decisions: Mapping[str, Decision],
    **details: str,
) -> None:
    """Note decisions, by archive id, durably; details are further ones of the event."""
    events: list[journal.Event] = [
        (
            journal.RETENTION,
            {"id": archive_id, **decision.to_fields(), **details},
        )
        for archive_id, decision in decisions.items()
    ]
    one = store_archive.of_settings(settings, archive)
    with privileges.as_owner(settings.archive_store_directory):
        for start in range(0, len(events), BATCH_SIZE):
            with one.open_journal() as journal_file:
                now = dates.format_rfc3339(time.time())
                journal_file.extend(now, events[start : start + BATCH_SIZE])


def append_new(
    settings: Settings,
    rules: Rules,
    archive: str,
    by: str,
    warn: Callable[[str], None],
) -> int:
    """Note the decision on each record that had no rule and has one; return how many.

    The index has the records, and what was noted, before and after.
    """
    count = 0
    while ids := not_noted(settings, rules, archive, BATCH_SIZE):
        decisions = {
            archive_id: decision
            for archive_id, decision in rules.decide(archive, ids).items()
            if decision.rule != NO_RULE
        }
        if not decisions:
            break
        append(settings, archive, decisions, by=by)
        count += len(decisions)
        index_update.catch_up(settings, archive, warn)
    return count


def not_noted(
    settings: Settings, rules: Rules, archive: str, limit: int | None = None
) -> list[str]:
    """Return archive ids of records for which there is a rule that is not noted."""
    if not rules.has_rules(archive):
        return []
    matching: Node = ANYTHING
    if archive not in settings.archive_retention:
        matching = Any(tuple(search.parse(each.query) for each in rules.rules))
    return matching_ids(settings, archive, All((matching, NOT_NOTED)), limit)


def due_ids(settings: Settings, archive: str, day: datetime.date) -> list[str]:
    """Return archive ids of records whose noted last day is before a day (UTC)."""
    return matching_ids(settings, archive, noted_before(day))


def noted_before(day: datetime.date) -> Node:
    """Return the query for records whose noted last day is before a day (UTC)."""
    return Range("until", "", f"{day}T00:00:00Z", False, True, 0)


def matching_ids(
    settings: Settings, archive: str, node: Node, limit: int | None = None
) -> list[str]:
    """Return the archive ids of what a query finds. Raises IndexFailed."""
    found = Search(settings, node, sort="oldest", archives=[archive])
    ids = [each.archive_id for each in islice(found.hits(), limit)]
    if found.notices:
        raise IndexFailed("; ".join(found.notices))
    return ids
