"""Check lookup tables for actions and mappings that bypass the archive.

Used by doctor.checks. The actions FILTER and REDIRECT of access(5) and header_checks(5)
override content_filter. Postfix does not know our action ARCHIVE: it belongs in a
source of archive_tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor import lookup_queries
from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services, configuration, lookup_tables
from postfix_archive.postfix.lookup_tables import Lookup
from postfix_archive.tables import table_source

HARMS = {
    "FILTER": (
        "filter-action",
        "mail that matches goes to that filter and bypasses the archive",
        "remove the line, or set archive_next_filter to that filter",
    ),
    "REDIRECT": (
        "redirect-action",
        (
            "mail that matches loses its recipients and content_filter before it is"
            " archived"
        ),
        "remove the line; a BCC action does not change the recipients",
    ),
    "ARCHIVE": (
        "archive-action",
        (
            "Postfix does not know ARCHIVE: access(5) replies 451 to clients,"
            " header_checks and body_checks log a warning, and nothing is archived"
        ),
        "move the lines to a source of archive_tables, then postfix-archive tables",
    ),
}


def check_actions(host: Host) -> Iterator[Finding]:
    """Report the actions FILTER, REDIRECT and ARCHIVE."""
    seen = set()
    for lookup in lookup_tables.in_configuration(host.config):
        if not lookup.has_actions or lookup.table in seen:
            continue
        seen.add(lookup.table)
        for number, action, target in _find_actions(
            lookup, host.table_texts.get(lookup.table, "")
        ):
            if action == "FILTER" and target.startswith(
                archive_services.STAMP_TRANSPORT
            ):
                continue
            check, harm, fix = HARMS[action]
            place = f"{lookup.table}, line {number} ({lookup.location})"
            yield Finding(check, CRITICAL, place, harm, fix)


def check_compiled_tables(host: Host) -> Iterator[Finding]:
    """Report tables that differ from their sources, and sources with a mistake."""
    errors = [f"archive.cf: {host.tables_error}"] if host.tables_error else []
    for place in [*errors, *host.stale_tables]:
        yield Finding(
            "tables-stale",
            WARNING,
            place,
            "the source is not compiled: changes of its ARCHIVE lines have no effect",
            host.archive_command("tables"),
        )


def check_request_mappings(host: Host) -> Iterator[Finding]:
    """Report maps that rewrite the request recipients of tables."""
    for parameter in lookup_queries.REWRITING_MAPS:
        for lookup in lookup_tables.in_parameter(host.config, parameter):
            for key in (
                lookup_queries.REQUEST_RECIPIENT,
                f"@{lookup_queries.REQUEST_DOMAIN}",
            ):
                result = host.lookup_results.get((lookup.table, key))
                if result:
                    yield Finding(
                        "request-mapped",
                        CRITICAL,
                        f"{lookup.location}: {lookup.table}",
                        f"it maps {lookup_queries.REQUEST_DOMAIN} to {result}: requests"
                        " of tables, capsules and in native mode all that is captured"
                        " become mail to that address",
                        f"exclude {lookup_queries.REQUEST_DOMAIN} from that table's"
                        " pattern",
                    )
                    break


def check_request_route(host: Host) -> Iterator[Finding]:
    """Report transport_maps that do not route request recipients to the stamp filter.

    A request that a FILTER action diverted comes back by that route.
    """
    for lookup in lookup_tables.in_parameter(
        host.config, lookup_queries.TRANSPORT_MAPS
    ):
        for key in (lookup_queries.REQUEST_RECIPIENT, lookup_queries.REQUEST_DOMAIN):
            result = host.lookup_results.get((lookup.table, key))
            if result == _request_route(host):
                return
            if result:
                yield _route_finding(host, f"{lookup.table} routes it to {result}")
                return
    yield _route_finding(host, "no table has it")


def _request_route(host: Host) -> str:
    """Return the transport:nexthop for requests of tables, by the installed mode."""
    return archive_services.request_destination(
        archive_services.installed_mode(host.config)
    )


def _route_finding(host: Host, reason: str) -> Finding:
    current = host.config.raw(lookup_queries.TRANSPORT_MAPS)
    route = f"inline:{{{lookup_queries.REQUEST_DOMAIN}={_request_route(host)}}}"
    return Finding(
        "request-route",
        CRITICAL,
        f"main.cf: {lookup_queries.TRANSPORT_MAPS}",
        f"{lookup_queries.REQUEST_DOMAIN} is not routed to the archive ({reason}):"
        " requests that a FILTER action diverted, requeued capsules, and in native mode"
        " all that is captured, bounce",
        host.parameter_command(
            lookup_queries.TRANSPORT_MAPS, ", ".join(filter(None, [route, current]))
        ),
        is_safe=True,
    )


def _find_actions(lookup: Lookup, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, action and its argument for the actions in HARMS."""
    table_type, _, name = lookup.table.partition(":")
    if table_type == "static":
        text = f"* {name.strip('{}')}"
    elif table_type == "inline":
        entries = (
            each.strip("{} ") for each in configuration.split_list(name.strip("{}"))
        )
        text = "".join(f"{each.replace('=', ' ', 1)}\n" for each in entries)
    for line in table_source.logical_lines(text.encode("utf-8", "surrogateescape")):
        words = (
            table_source.right_side(line.text, table_type)
            .decode("utf-8", "replace")
            .split()
        )
        if words and words[0].upper() in HARMS:
            yield line.number, words[0].upper(), " ".join(words[1:])


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_actions,
    check_compiled_tables,
    check_request_mappings,
    check_request_route,
)
