"""Check the lmtp(8) services that deliver to the workers in the modes lmtp and native.

Used by doctor.checks. The reference is master.cf.d (40-…, 50-…). With a wrong
option lmtp(8) changes the message, omits parts of the envelope, or bounces mail instead
of deferring it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor import reference_options
from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.doctor.reference_options import OptionRules
from postfix_archive.monitoring import WARNING
from postfix_archive.postfix import archive_services, configuration
from postfix_archive.postfix.configuration import Service

CACHED_DESTINATIONS = "lmtp_connection_cache_destinations"
DATA_DONE_TIMEOUT = "lmtp_data_done_timeout"
CHECKED_ELSEWHERE = (  # check_transports, time limits
    "soft_bounce",
    "lmtp_delivery_status_filter",
    DATA_DONE_TIMEOUT,
)
RECIPIENT_LIMITS = {
    archive_services.STAMP_TRANSPORT: 0,
    archive_services.CAPTURE_TRANSPORT: 5000,
}  # as in master.cf.d; 0: no limit
COHORT_LIMIT_SUFFIX = "destination_concurrency_failed_cohort_limit"
CHANGE_HARM = "lmtp(8) changes the message before it is archived"
REPLY_HARM = (
    "a 4xx reply of a worker no longer defers the message: it bounces or is lost"
)
TLS_HARM = "workers speak LMTP without TLS or SASL: all mail is deferred"
HARMS = {
    "syslog_name": "log lines do not show that they come from the stamp filter",
    "lmtp_line_length_limit": "long lines are broken: the message is changed",
    "disable_mime_output_conversion": (
        "8-bit mail is converted to quoted-printable if a"
        " worker's LHLO reply is incomplete: the message is changed"
    ),
    "lmtp_generic_maps": "addresses are rewritten before they are archived",
    "lmtp_quote_rfc821_envelope": (
        "addresses are not quoted: the archived envelope"
        " differs from the client's, or mail is deferred"
    ),
    "lmtp_send_xforward_command": (
        "workers do not get the client's address: mail is deferred"
    ),
    "lmtp_discard_lhlo_keywords": (
        "DSN, SMTPUTF8 or XFORWARD is not used: what the"
        " sender requested is lost, or mail is deferred"
    ),
    "lmtp_discard_lhlo_keyword_address_maps": (
        "DSN, SMTPUTF8 or XFORWARD is not used:"
        " what the sender requested is lost, or mail is deferred"
    ),
    CACHED_DESTINATIONS: "connections are not cached: each message starts a new worker",
    DATA_DONE_TIMEOUT: (
        "lmtp(8) times out before the worker does, and the message is reinjected twice"
        " (native mode: handled twice)"
    ),
    "lmtp_reply_filter": REPLY_HARM,
    "lmtp_fallback_relay": "mail that should wait for a worker bypasses the archive",
}
HARMS_BY_PART = (
    ("_checks", CHANGE_HARM),
    ("tls", TLS_HARM),
    ("sasl", TLS_HARM),
    ("", CHANGE_HARM),
)


def _is_equivalent(host: Host, service: Service, name: str, expected: str) -> bool:
    if name == CACHED_DESTINATIONS:  # sockets may also be named one by one
        actual = service.options[name]
        return bool(actual) and "unix:" not in actual
    return reference_options.is_same_list(host, service, name, expected)


RULES = OptionRules(
    missing_check="lmtp-option",
    different_check="lmtp-option",
    harms=HARMS,
    harms_by_part=HARMS_BY_PART,
    warnings=(CACHED_DESTINATIONS, DATA_DONE_TIMEOUT),
    is_equivalent=_is_equivalent,
)


def check_options(host: Host) -> Iterator[Finding]:
    """Report -o options of the reference that are missing or differ."""
    for service in lmtp_services(host):
        reference = host.reference_services.get(f"{_base_name(service)}/unix")
        yield from RULES.compare(host, service, reference, ignored=CHECKED_ELSEWHERE)


def check_recipient_limit(host: Host) -> Iterator[Finding]:
    """Report a recipient limit below what smtpd(8) accepts."""
    accepted = [
        host.number("smtpd_recipient_limit", e) or 0 for e in host.receiving_services()
    ]
    smtpd_limit = max(accepted, default=0)
    for service in lmtp_services(host):
        parameter = f"{service.name}_destination_recipient_limit"
        limit = host.transport_limit(parameter, "default_destination_recipient_limit")
        recommended = RECIPIENT_LIMITS[_base_name(service)]
        if 0 < limit < (min(smtpd_limit, recommended) or smtpd_limit):
            yield Finding(
                "recipient-limit",
                WARNING,
                parameter,
                f"a message to more than {limit} recipients is captured in pieces, with"
                " a mailed copy for each",
                host.parameter_command(parameter, str(recommended)),
                is_safe=True,
            )


def _filter_services(host: Host) -> Iterator[Service]:
    """Yield the lmtp(8) clients for which live mail waits: not that of native mode.

    There a cohort limit and a short timeout keep captures for a store that hangs from
    filling the active queue (50-archive-capture.cf).
    """
    for service in lmtp_services(host):
        if service.name != archive_services.CAPTURE_TRANSPORT:
            yield service


def check_cohort_limit(host: Host) -> Iterator[Finding]:
    """Report a failed-cohort limit: one dead worker would delay all mail."""
    for service in _filter_services(host):
        parameter = f"{service.name}_{COHORT_LIMIT_SUFFIX}"
        if host.transport_limit(parameter, f"default_{COHORT_LIMIT_SUFFIX}"):
            yield Finding(
                "cohort-limit",
                WARNING,
                parameter,
                "if one worker dies during a delivery, Postfix treats the transport as"
                " dead and defers all mail for minimal_backoff_time",
                host.parameter_command(parameter, "0"),
                is_safe=True,
            )


def check_time_limit(host: Host) -> Iterator[Finding]:
    """Report an lmtp(8) timeout that ends before a worker's own deadline."""
    if host.settings is None:
        return
    our_limit = host.settings.archive_time_limit
    for service in _filter_services(host):
        if (host.number(DATA_DONE_TIMEOUT, service) or 0) <= our_limit:
            reason = f"archive_time_limit in archive.cf is {our_limit} s"
            value = f"{our_limit + 100}s"
            yield RULES.finding(
                host, service, DATA_DONE_TIMEOUT, value, reason, check="time-limit"
            )


def check_connection_cache(host: Host) -> Iterator[Finding]:
    """Report our sockets with unix: in main.cf's list of cached destinations."""
    destinations = host.config.value(CACHED_DESTINATIONS)
    sockets = [
        w for w in configuration.split_list(destinations) if "private/archive" in w
    ]
    if any(each.startswith("unix:") for each in sockets):
        fixed = [
            w.removeprefix("unix:") for w in configuration.split_list(destinations)
        ]
        yield Finding(
            "connection-cache",
            WARNING,
            f"main.cf: {CACHED_DESTINATIONS}",
            "with unix: before the name connections are not cached: each message starts"
            " a new worker",
            host.parameter_command(CACHED_DESTINATIONS, ", ".join(fixed)),
            is_safe=True,
        )


def lmtp_services(host: Host) -> list[Service]:
    """Return the lmtp(8) service of each route, also one without its syslog_name."""
    numbers = [
        archive_services.route_number(each.name) for each in host.config.services
    ]
    return [
        each
        for each, number in zip(host.config.services, numbers)
        if each.program == "lmtp"
        and each.name
        in (archive_services.CAPTURE_TRANSPORT, archive_services.transport_name(number))
    ]


def _base_name(service: Service) -> str:
    """Return the transport in master.cf.d that a service is, on any route."""
    is_capture = service.name == archive_services.CAPTURE_TRANSPORT
    return service.name if is_capture else archive_services.STAMP_TRANSPORT


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_options,
    check_recipient_limit,
    check_cohort_limit,
    check_time_limit,
    check_connection_cache,
)
