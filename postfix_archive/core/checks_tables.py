"""Check lookup tables for actions and mappings that bypass the archive.

Used by doctor.checks. The actions FILTER and REDIRECT of access(5) and header_checks(5)
override content_filter. Postfix does not know our action ARCHIVE: it belongs in a
source of archive_tables.
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
        "mail that matches goes to that filter and bypasses the archive",
        "remove the line, or set archive_next_filter to that filter",
    ),
    "REDIRECT": (
        "redirect-action",
        "mail that matches loses its recipients and content_filter before it is"
        " archived",
        "remove the line; a BCC action does not change the recipients",
    ),
    "ARCHIVE": (
        "archive-action",
        "Postfix does not know ARCHIVE: access(5) replies 451 to clients, header_checks"
        " and body_checks log a warning, and nothing is archived",
        "move the lines to a source of archive_tables, then postfix-archive tables",
    ),
}


def actions(host: Observed) -> Iterator[Finding]:
    """Report the actions FILTER, REDIRECT and ARCHIVE."""
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
    """Report tables that differ from their sources, and sources with a mistake."""
    errors = [f"archive.cf: {host.tables_trouble}"] if host.tables_trouble else []
    for place in [*errors, *host.stale]:
        yield Finding(
            "tables-stale",
            WARNING,
            place,
            "the source is not compiled: changes of its ARCHIVE lines have no effect",
            "postfix-archive tables",
        )


def requests_mapped(host: Observed) -> Iterator[Finding]:
    """Report maps that rewrite the request recipients of tables."""
    for parameter in questions.REWRITING:
        for each in lookups.in_parameter(host.found, parameter):
            for key in (questions.REQUEST, f"@{questions.REQUEST_DOMAIN}"):
                result = host.answers.get((each.table, key))
                if result:
                    yield Finding(
                        "request-mapped",
                        CRITICAL,
                        f"{each.place}: {each.table}",
                        f"it maps {questions.REQUEST_DOMAIN} to {result}: requests of"
                        " tables and capsules become mail to that address",
                        f"exclude {questions.REQUEST_DOMAIN} from that table's pattern",
                    )
                    break


def requests_routed(host: Observed) -> Iterator[Finding]:
    """Report transport_maps that do not route request recipients to the stamp filter.

    A request that a FILTER action diverted comes back by that route.
    """
    for each in lookups.in_parameter(host.found, questions.ROUTING):
        for key in (questions.REQUEST, questions.REQUEST_DOMAIN):
            result = host.answers.get((each.table, key))
            if result == _route(host):
                return
            if result:
                yield _unrouted(host, f"{each.table} routes it to {result}")
                return
    yield _unrouted(host, "no table has it")


def _route(host: Observed) -> str:
    """Return the transport:nexthop for requests of tables, by the installed mode."""
    prefix = gates.leading(1, ways.mode(host.found))
    return f"{prefix}{request.ON_REQUEST}"


def _unrouted(host: Observed, why: str) -> Finding:
    own = host.found.raw(questions.ROUTING)
    route = f"inline:{{{questions.REQUEST_DOMAIN}={_route(host)}}}"
    return Finding(
        "request-route",
        CRITICAL,
        f"main.cf: {questions.ROUTING}",
        f"{questions.REQUEST_DOMAIN} is not routed to the stamp filter ({why}):"
        " requests that a FILTER action diverted, and requeued capsules, bounce",
        host.setting(questions.ROUTING, ", ".join(filter(None, [route, own]))),
        is_safe=True,
    )


def _actions(lookup: Lookup, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, action and its argument for the actions in HARMS."""
    kind, _, name = lookup.table.partition(":")
    if kind == "static":
        text = f"* {name.strip('{}')}"
    elif kind == "inline":
        entries = (each.strip("{} ") for each in configuration.words(name.strip("{}")))
        text = "".join(f"{each.replace('=', ' ', 1)}\n" for each in entries)
    for line in tables.logical_lines(text.encode("utf-8", "surrogateescape")):
        words = tables.action(line.text, kind).decode("utf-8", "replace").split()
        if words and words[0].upper() in HARMS:
            yield line.number, words[0].upper(), " ".join(words[1:])


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    actions,
    compiled,
    requests_mapped,
    requests_routed,
)
