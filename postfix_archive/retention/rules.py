"""The retention rules: for how long each record is kept.

    rules.load(settings).decide("legal@example.com", archive_ids)

Used by purge, retention and replicate. archive.retention, beside archive.cf, has one
rule a line, a query and a period; the first one that finds a record counts, else
archive_retention. A record for which there is no rule at all is kept for ever. Raises
RetentionRuleInvalid, and where the index cannot tell what a query finds, the errors of
search.match.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dateutil.relativedelta import relativedelta

from postfix_archive.config import retention_period
from postfix_archive.config.retention_period import PERMANENT, Period
from postfix_archive.config.settings import Settings
from postfix_archive.errors import IndexFailed, QueryInvalid, RetentionRuleInvalid
from postfix_archive.search import match
from postfix_archive.search.match import Matcher
from postfix_archive.search.query_nodes import Any, Word
from postfix_archive.search.search import Search
from postfix_archive.store.record import Record
from postfix_archive.system import files

SIZE_LIMIT = 1 << 20  # bytes of the file
SETTING = "archive_retention"  # the rule that is none of the file
NO_RULE = ""


class Rule(NamedTuple):
    """A line of archive.retention; ``number`` is that of the line."""

    query: str
    period: Period
    number: int


class Decision(NamedTuple):
    """For how long a record is kept, and by which rule.

    ``rule`` is the query, SETTING or NO_RULE. ``until`` is the last day (UTC) on which
    it is kept, None for ever.
    """

    rule: str
    period: str
    until: datetime.date | None

    @property
    def until_text(self) -> str:
        """The last day as YYYY-MM-DD, or ``permanent``."""
        return self.until.isoformat() if self.until else PERMANENT[1]

    def is_over(self, today: datetime.date) -> bool:
        """Tell whether the last day is past."""
        return self.until is not None and self.until < today

    def is_longer_than(self, other: Decision) -> bool:
        """Tell whether it keeps a record for longer than another."""
        if other.until is None:
            return False
        return self.until is None or self.until > other.until

    def to_fields(self) -> dict[str, str]:
        """Return it as details of an event."""
        return {"rule": self.rule, "period": self.period, "until": self.until_text}


def noted(record: Record) -> Decision | None:
    """Return the decision that the journal has noted last for a record."""
    event = record.retention
    if event is None:
        return None
    until = event["until"]
    day = None if until == PERMANENT[1] else datetime.date.fromisoformat(until)
    return Decision(event["rule"], event["period"], day)


KEPT_FOR_EVER = Decision(NO_RULE, PERMANENT[1], None)


class Rules:
    """The rules of one instance, as they are now."""

    def __init__(self, settings: Settings, rules: Iterable[Rule]) -> None:
        self._settings = settings
        self.rules = list(rules)

    def has_rules(self, archive: str) -> bool:
        """Tell whether there may be a rule for a record of this archive."""
        return bool(self.rules) or archive in self._settings.archive_retention

    def decide(self, archive: str, archive_ids: Iterable[str]) -> dict[str, Decision]:
        """Return for how long each of these records is kept, by whole archive id.

        The index must have them all.
        """
        ids = list(archive_ids)
        if not self.has_rules(archive):
            return dict.fromkeys(ids, KEPT_FOR_EVER)
        matcher = Matcher(self._settings, archive, ids)
        arrivals = dict(_arrivals(self._settings, archive, ids))
        if arrivals.keys() < {*ids}:
            raise IndexFailed(
                f"{archive}: its index has changed meanwhile; {match.NEXT_STEP}"
            )
        now = time.time()
        decisions: dict[str, Decision] = {}
        for rule in self.rules:
            for each in matcher.matching(rule.query, now):
                if each not in decisions:
                    decisions[each] = _decision(rule.query, rule.period, arrivals[each])
        default = self._settings.archive_retention.get(archive)
        for each in ids:
            if each not in decisions and default is not None:
                decisions[each] = _decision(SETTING, default, arrivals[each])
        return {each: decisions.get(each, KEPT_FOR_EVER) for each in ids}


def _arrivals(
    settings: Settings, archive: str, archive_ids: Sequence[str]
) -> Iterator[tuple[str, int]]:
    """Yield archive ids and when these records arrived (Unix time)."""
    for start in range(0, len(archive_ids), match.CHUNK_SIZE):
        chunk = archive_ids[start : start + match.CHUNK_SIZE]
        node = Any(tuple(Word("id", each, 0) for each in chunk))
        for hit in Search(settings, node, archives=[archive]).hits():
            yield hit.archive_id, hit.arrived


def _decision(rule: str, period: Period, arrived: int) -> Decision:
    day = datetime.datetime.fromtimestamp(max(0, arrived), datetime.UTC).date()
    return Decision(rule, retention_period.to_text(period), last_day(day, period))


def last_day(arrived: datetime.date, period: Period) -> datetime.date | None:
    """Return the last day of a period, None for ever.

    A period of years or months that would end on a day that the month does not have
    ends on its last day: one year from 29 February 2028 is 28 February 2029.
    """
    number, unit = period
    if period == PERMANENT:
        return None
    step = {retention_period.UNITS[unit]: number}
    return arrived + relativedelta(**step)  # type: ignore[arg-type]


def load(settings: Settings) -> Rules:
    """Return the rules. Raises RetentionRuleInvalid for the first line that is none."""
    path = settings.retention_rules_file
    try:
        with open(files.open_regular(path), encoding="utf-8") as file:
            text = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        return Rules(settings, ())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise RetentionRuleInvalid(
            f"{path}: {reason}; the archive's user must be able to read it"
        ) from error
    if len(text) > SIZE_LIMIT:
        raise RetentionRuleInvalid(f"{path}: larger than {SIZE_LIMIT >> 20} MB")
    numbered = enumerate(text.splitlines(), 1)
    return Rules(
        settings,
        [
            _parse(line, number, path)
            for number, line in numbered
            if line.strip() and not line.lstrip().startswith("#")
        ],
    )


def _parse(line: str, number: int, path: str) -> Rule:
    """Return the rule in a line: a query, white space, a period."""
    *query, period = line.rsplit(maxsplit=1)
    try:
        if not query:
            raise QueryInvalid(
                "a query is missing before the period; * finds all", "", 0
            )
        rule = Rule(query[0].strip(), _parse_period(line, period), number)
        match.check(rule.query, time.time())
    except QueryInvalid as error:
        column = error.position + 1
        if error.query != line:
            column += len(line) - len(line.lstrip())
        raise RetentionRuleInvalid(
            f"{path}, line {number}, column {column}: {error}"
        ) from error
    return rule


def _parse_period(line: str, period: str) -> Period:
    try:
        return retention_period.parse(period)
    except ValueError as error:
        raise QueryInvalid(str(error), line, line.rstrip().rfind(period)) from error
