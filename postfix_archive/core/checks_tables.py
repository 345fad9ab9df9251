"""Checks of lookup tables: actions and mappings that lead mail around the archive.

Used by core/checkup. access(5), header_checks(5) and body_checks(5): an action is a
word in capitals, FILTER and REDIRECT replace what content_filter says, and ARCHIVE is
ours, which Postfix does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import (
    configuration,
    gates,
    lookups,
    questions,
    request,
    tables,
    ways,
)
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.lookups import Lookup
from postfix_archive.core.observed import Observed

HARMS = {
    "FILTER": (
        "filter-action",
        "mail that it matches goes to that filter, around the archive",
        "take the line out, or make that filter archive_next_filter",
    ),
    "REDIRECT": (
        "redirect-action",
        "mail that it matches loses its recipients before it is archived, and"
        " content_filter with them",
        "take the line out; a BCC action leaves the recipients alone",
    ),
    "ARCHIVE": (
        "archive-action",
        "Postfix does not know ARCHIVE: access(5) answers clients 451, header_checks"
        " and body_checks log a warning and archive nothing",
        "move the lines to a source table of archive_tables, then postfix-archive"
        " tables",
    ),
}


def actions(host: Observed) -> Iterator[Finding]:
    """No table has FILTER, REDIRECT or ARCHIVE."""
    seen = set()
    for each in lookups.named(host.found):
        if not each.has_actions or each.table in seen:
            continue
        seen.add(each.table)
        for number, action, target in _actions(each, host.tables.get(each.table, "")):
            if action == "FILTER" and target.startswith(gates.STAMP):
                continue
            check, harm, cure = HARMS[action]
            place = f"{each.table}, line {number} ({each.place})"
            yield Finding(check, CRITICAL, place, harm, cure)


def compiled(host: Observed) -> Iterator[Finding]:
    """The tables of archive_tables are compiled as their sources stand."""
    places = [f"archive.cf: {host.tables_trouble}"] if host.tables_trouble else []
    for place in [*places, *host.stale]:
        yield Finding(
            "tables-stale",
            WARNING,
            place,
            "its ARCHIVE lines, as they stand in the source, do not count yet",
            "postfix-archive tables",
        )


def requests_mapped(host: Observed) -> Iterator[Finding]:
    """No map rewrites the addresses by which tables ask for archiving."""
    for parameter in questions.REWRITING:
        for each in lookups.in_parameter(host.found, parameter):
            for key in (questions.REQUEST, f"@{questions.REQUEST_DOMAIN}"):
                answer = host.answers.get((each.table, key))
                if answer:
                    yield Finding(
                        "request-mapped",
                        CRITICAL,
                        f"{each.place}: {each.table}",
                        f"it maps {questions.REQUEST_DOMAIN} to {answer}: requests of"
                        " tables, and capsules, become mail to somebody",
                        f"leave {questions.REQUEST_DOMAIN} out of that table's pattern",
                    )
                    break


def requests_routed(host: Observed) -> Iterator[Finding]:
    """A request that a FILTER took around the archive still reaches it."""
    for each in lookups.in_parameter(host.found, questions.ROUTING):
        for key in (questions.REQUEST, questions.REQUEST_DOMAIN):
            answer = host.answers.get((each.table, key))
            if answer == _route(host):
                return
            if answer:
                yield _unrouted(host, f"{each.table} sends it to {answer}")
                return
    yield _unrouted(host, "no table names it")


def _route(host: Observed) -> str:
    """Return where requests from tables are to go, by the door that is installed."""
    leads = gates.leading(1, ways.mode(host.found))
    return f"{leads}{request.ON_REQUEST}"


def _unrouted(host: Observed, why: str) -> Finding:
    own = host.found.raw(questions.ROUTING)
    route = f"inline:{{{questions.REQUEST_DOMAIN}={_route(host)}}}"
    return Finding(
        "request-route",
        CRITICAL,
        f"main.cf: {questions.ROUTING}",
        f"{questions.REQUEST_DOMAIN} does not lead to the stamp filter ({why}): a"
        " request that comes another way, and a requeued capsule, bounces",
        host.setting(questions.ROUTING, ", ".join(filter(None, [route, own]))),
        is_safe=True,
    )


def _actions(lookup: Lookup, text: str) -> Iterator[tuple[int, str, str]]:
    """Give line number, action and target of every line with one of ours."""
    kind, _, name = lookup.table.partition(":")
    if kind == "static":
        text = f"* {name.strip('{}')}"
    elif kind == "inline":
        entries = (each.strip("{} ") for each in configuration.words(name.strip("{}")))
        text = "".join(f"{each.replace('=', ' ', 1)}\n" for each in entries)
    for line in tables.logical_lines(text.encode("utf-8", "surrogateescape")):
        said = tables.action(line.text, kind).decode("utf-8", "replace").split()
        if said and said[0].upper() in HARMS:
            yield line.number, said[0].upper(), " ".join(said[1:])


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    actions,
    compiled,
    requests_mapped,
    requests_routed,
)
