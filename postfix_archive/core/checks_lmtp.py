"""Check the lmtp(8) services that deliver to the workers in lmtp mode.

Used by doctor.checks. The reference is master.cf.d/40-archive-lmtp.cf. With a wrong
option lmtp(8) changes the message, omits parts of the envelope, or bounces mail instead
of deferring it.
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
BYTES = "lmtp(8) changes the message before it is archived"
REPLIES = "a 4xx reply of a worker no longer defers the message: it bounces or is lost"
TLS = "workers speak LMTP without TLS or SASL: all mail is deferred"
HARMS = {
    "syslog_name": "log lines do not show that they come from the stamp filter",
    "lmtp_line_length_limit": "long lines are broken: the message is changed",
    "disable_mime_output_conversion": "8-bit mail is converted to quoted-printable if a"
    " worker's LHLO reply is incomplete: the message is changed",
    "lmtp_generic_maps": "addresses are rewritten before they are archived",
    "lmtp_quote_rfc821_envelope": "addresses are not quoted: the archived envelope"
    " differs from the client's, or mail is deferred",
    "lmtp_send_xforward_command": "workers do not get the client's address: mail is"
    " deferred",
    "lmtp_discard_lhlo_keywords": "DSN, SMTPUTF8 or XFORWARD is not used: what the"
    " sender requested is lost, or mail is deferred",
    "lmtp_discard_lhlo_keyword_address_maps": "DSN, SMTPUTF8 or XFORWARD is not used:"
    " what the sender requested is lost, or mail is deferred",
    CACHED: "connections are not cached: each message starts a new worker",
    DONE: "lmtp(8) times out before the worker does, and the message is reinjected"
    " twice",
    "lmtp_reply_filter": REPLIES,
    "lmtp_delivery_status_filter": REPLIES,
    "lmtp_fallback_relay": "mail that should wait for a worker bypasses the archive",
}
HARMS_BY_PART = (("_checks", BYTES), ("tls", TLS), ("sasl", TLS), ("", BYTES))


def options(host: Observed) -> Iterator[Finding]:
    """Report -o options of the reference that are missing or differ."""
    reference = host.reference.get(f"{ways.STAMP}/unix")
    for service in clients(host):
        for name, wanted in reference.options.items() if reference else ():
            if name in ELSEWHERE:
                continue
            given = service.options.get(name)
            if given is None:
                yield _inherited(host, service, name, wanted)
            elif not _is_as_good(name, given, wanted):
                reason = f"is {given or 'empty'}, must be {wanted or 'empty'}"
                yield _option(host, service, name, wanted, reason)


def recipients(host: Observed) -> Iterator[Finding]:
    """Report a recipient limit below what smtpd(8) accepts."""
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
                f"a message to more than {limit} recipients is captured in pieces, with"
                " a mailed copy for each",
                host.setting(name, "0"),
                is_safe=True,
            )


def cohorts(host: Observed) -> Iterator[Finding]:
    """Report a failed-cohort limit: one dead worker would delay all mail."""
    for each in clients(host):
        name = f"{each.name}_{COHORT}"
        if host.limit(name, f"default_{COHORT}"):
            yield Finding(
                "cohort-limit",
                WARNING,
                name,
                "if one worker dies during a delivery, Postfix treats the transport as"
                " dead and defers all mail for minimal_backoff_time",
                host.setting(name, "0"),
                is_safe=True,
            )


def time_limits(host: Observed) -> Iterator[Finding]:
    """Report an lmtp(8) timeout that ends before a worker's own deadline."""
    if host.settings is None:
        return
    ours = host.settings.archive_time_limit
    for each in clients(host):
        if (host.number(DONE, each) or 0) <= ours:
            reason = f"archive_time_limit in archive.cf is {ours} s"
            yield _option(host, each, DONE, f"{ours + 100}s", reason, "time-limit")


def caching(host: Observed) -> Iterator[Finding]:
    """Report our sockets with unix: in main.cf's list of cached destinations."""
    cached = host.found.value(CACHED)
    sockets = [w for w in configuration.words(cached) if "private/archive" in w]
    if any(each.startswith("unix:") for each in sockets):
        fixed = [w.removeprefix("unix:") for w in configuration.words(cached)]
        yield Finding(
            "connection-cache",
            WARNING,
            f"main.cf: {CACHED}",
            "with unix: before the name connections are not cached: each message starts"
            " a new worker",
            host.setting(CACHED, ", ".join(fixed)),
            is_safe=True,
        )


def clients(host: Observed) -> list[Service]:
    """Return the lmtp(8) service of each route, also one without its syslog_name."""
    numbers = [gates.number_in(each.name) for each in host.found.services]
    return [
        each
        for each, number in zip(host.found.services, numbers)
        if each.program == "lmtp" and each.name == gates.transport(number)
    ]


def _inherited(host: Observed, service: Service, name: str, wanted: str) -> Finding:
    """Return the finding for a missing option; WARNING if main.cf's value is right."""
    inherited = host.found.value(name)
    is_wrong = inherited != host.found.expanded(wanted)
    if is_wrong:
        reason = f"not set; main.cf has {inherited or 'an empty value'}"
        return _option(host, service, name, wanted, reason)
    reason = "if main.cf changes; the option is not set here"
    finding = _option(host, service, name, wanted, reason)
    return replace(finding, severity=WARNING)


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
