"""Checks of lmtp(8), which brings mail to the workers of the lmtp door.

Used by core/checkup. master.cf.d/40-archive-lmtp.cf says what entries are compared
with. With a wrong one lmtp(8) changes the message, keeps back what the envelope is made
of, or does not let it wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from postfix_archive.core import configuration, gates, ways
from postfix_archive.core.configuration import Service
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

CACHED = "lmtp_connection_cache_destinations"
DONE = "lmtp_data_done_timeout"
ELSEWHERE = ("soft_bounce", DONE)  # checks_transports, time_limits
COHORT = "destination_concurrency_failed_cohort_limit"
BYTES = "not a byte of the message may change here, and lmtp(8) changes some"
REPLIES = "a worker's 4xx no longer means that the message waits: it bounces or is lost"
TLS = "workers speak plain LMTP on a socket: all mail waits"
HARMS = {
    "syslog_name": "lines in the log do not tell that they are the stamp filter's",
    "lmtp_line_length_limit": "long lines are broken: what goes on is not what came",
    "disable_mime_output_conversion": "8-bit mail is made quoted-printable where a"
    " worker does not answer LHLO in full: what goes on is not what came",
    "lmtp_generic_maps": "addresses are rewritten before they are archived",
    "lmtp_quote_rfc821_envelope": "addresses come unquoted: another envelope than the"
    " client's is archived, or mail waits",
    "lmtp_send_xforward_command": "workers do not learn who the client is: mail waits",
    "lmtp_discard_lhlo_keywords": "DSN, SMTPUTF8 or XFORWARD are not used: what the"
    " sender asked for is lost, or mail waits",
    "lmtp_discard_lhlo_keyword_address_maps": "DSN, SMTPUTF8 or XFORWARD are not used:"
    " what the sender asked for is lost, or mail waits",
    CACHED: "no connection is kept: each message starts a worker of its own",
    DONE: "lmtp(8) gives up before a worker does, and the message is handed back twice",
    "lmtp_reply_filter": REPLIES,
    "lmtp_delivery_status_filter": REPLIES,
    "lmtp_fallback_relay": "mail that should wait for a worker goes around the archive",
}
HARMS_BY_PART = (("_checks", BYTES), ("tls", TLS), ("sasl", TLS), ("", BYTES))


def options(host: Observed) -> Iterator[Finding]:
    """Every -o option of the reference on the lmtp(8) that brings mail."""
    reference = host.reference.get(f"{ways.STAMP}/unix")
    for each in clients(host):
        for name, wanted in reference.options.items() if reference else ():
            if name in ELSEWHERE:
                continue
            given = each.options.get(name)
            if given is None:
                yield _inherited(host, each, name, wanted)
            elif not _is_as_good(name, given, wanted):
                why = f"{given or 'nothing'}, not {wanted or 'empty'}"
                yield _option(host, each, name, wanted, why)


def recipients(host: Observed) -> Iterator[Finding]:
    """The whole envelope in one LMTP transaction."""
    accepted = [host.number("smtpd_recipient_limit", e) or 0 for e in host.clients()]
    wanted = max(accepted, default=0)
    for each in clients(host):
        name = f"{each.name}_destination_recipient_limit"
        limit = host.limit(name, "default_destination_recipient_limit")
        if 0 < limit < wanted:
            yield Finding(
                "recipient-limit",
                WARNING,
                name,
                f"a message to more than {limit} recipients is captured in pieces, and"
                " mailed copies come one a piece",
                host.setting(name, "0"),
                is_safe=True,
            )


def cohorts(host: Observed) -> Iterator[Finding]:
    """A worker that dies in a message holds up no other."""
    for each in clients(host):
        name = f"{each.name}_{COHORT}"
        if host.limit(name, f"default_{COHORT}"):
            yield Finding(
                "cohort-limit",
                WARNING,
                name,
                "if one worker dies in the middle of a message, Postfix takes all of"
                " them for dead, and all mail waits for minimal_backoff_time",
                host.setting(name, "0"),
                is_safe=True,
            )


def time_limits(host: Observed) -> Iterator[Finding]:
    """lmtp(8) waits for the answer longer than a worker takes for it."""
    if host.settings is None:
        return
    ours = host.settings.archive_time_limit
    for each in clients(host):
        if (host.number(DONE, each) or 0) <= ours:
            why = f"archive_time_limit in archive.cf is {ours} s"
            yield _option(host, each, DONE, f"{ours + 100}s", why, "time-limit")


def caching(host: Observed) -> Iterator[Finding]:
    """The cache of connections in main.cf names our sockets rightly."""
    cached = host.found.value(CACHED)
    named = [w for w in configuration.words(cached) if "private/archive" in w]
    if any(each.startswith("unix:") for each in named):
        fixed = [w.removeprefix("unix:") for w in configuration.words(cached)]
        yield Finding(
            "connection-cache",
            WARNING,
            f"main.cf: {CACHED}",
            "with unix: before the name no connection is kept: each message starts a"
            " worker of its own",
            host.setting(CACHED, ", ".join(fixed)),
            is_safe=True,
        )


def clients(host: Observed) -> list[Service]:
    """Return the lmtp(8) of each way, also where the entry has lost its syslog_name."""
    numbers = [gates.number_in(each.name) for each in host.found.services]
    return [
        each
        for each, number in zip(host.found.services, numbers)
        if each.program == "lmtp" and each.name == gates.transport(number)
    ]


def _inherited(host: Observed, service: Service, name: str, wanted: str) -> Finding:
    """Say what a missing option means: now, or as soon as main.cf says something."""
    given = host.found.value(name)
    now = given != host.found.expanded(wanted)
    source = f"main.cf's {given or 'empty value'}" if now else "what main.cf will say"
    found = _option(host, service, name, wanted, f"it inherits {source}")
    return found if now else replace(found, severity=WARNING)


def _option(
    host: Observed,
    service: Service,
    name: str,
    wanted: str,
    why: str,
    check: str = "lmtp-option",
) -> Finding:
    return Finding(
        check,
        WARNING if name in (CACHED, DONE) else CRITICAL,
        f"master.cf: {service.key} -o {name}",
        f"{_harm(name)} ({why})",
        host.option(service, name, wanted),
        is_safe=True,
    )


def _is_as_good(name: str, given: str, wanted: str) -> bool:
    if name == CACHED:  # sockets may also be named one by one
        return bool(given) and "unix:" not in given
    return configuration.words(given) == configuration.words(wanted)


def _harm(name: str) -> str:
    if name in HARMS:
        return HARMS[name]
    return next(harm for part, harm in HARMS_BY_PART if part in name)


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    options,
    recipients,
    cohorts,
    time_limits,
    caching,
)
