"""Header rewriting before Milters: header mappings first, envelope mappings last.

Used by install/filter_routes and doctor/check_routing. Milters see a message after
cleanup(8) has rewritten its header (MILTER_README); one that signs must see the header
that is delivered. Where Postfix rewrites headers by a table and a Milter reads them, a
cleanup(8) of ours at the first hop therefore makes the mappings of headers alone, and
archive-cleanup at the last hop those of envelopes. Parameters such as canonical_classes
and masquerade_classes (postconf(5)) say which is which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from postfix_archive.postfix import configuration
from postfix_archive.postfix.archive_services import (
    BYPASS_PARAMETER,
    FIRST_CLEANUP_PREFIX,
)
from postfix_archive.postfix.configuration import Configuration, Service

CLEANUP_PARAMETER = "cleanup_service_name"
LAST_CLEANUP = "archive-cleanup/unix"
# Tables that rewrite addresses -> the parameter that says which addresses.
CLASSES = {
    "canonical_maps": "canonical_classes",
    "sender_canonical_maps": "sender_canonical_classes",
    "recipient_canonical_maps": "recipient_canonical_classes",
    "masquerade_domains": "masquerade_classes",
}
HEADER_PREFIX, ENVELOPE_PREFIX = "header_", "envelope_"  # of the classes
ENVELOPE_MAPS = (
    "virtual_alias_maps",
    "always_bcc",
    "sender_bcc_maps",
    "recipient_bcc_maps",
)
# Parameters that name Milters, by the program that receives the mail.
MILTERS = {
    "smtpd": ("smtpd_milters", "smtpd_milter_maps"),
    "pickup": ("non_smtpd_milters",),
}


def is_needed(config: Configuration, services: Iterable[Service]) -> bool:
    """Tell whether a Milter reads headers that Postfix rewrites, on these services.

    services: those whose mail is archived, and whose addresses are mapped here.
    """
    return any(
        _has_milters(config, service)
        and _rewrites_headers(
            config, config.service(f"{cleanup_name(config, service)}/unix")
        )
        for service in services
    )


def cleanup_name(config: Configuration, service: Service) -> str:
    """Return the cleanup service of a service, without the archive."""
    value = config.raw(CLEANUP_PARAMETER, service)
    return value.partition(f"{BYPASS_PARAMETER}?{{")[2].partition("}")[0] or value


def name_expression(name: str, on_request: bool) -> str:
    """Return cleanup_service_name of a service whose mail is archived.

    name: the cleanup service without an archive.
    """
    ours = f"{FIRST_CLEANUP_PREFIX}{name}"
    without_bypass = ours if on_request else f"${{archive?{{{ours}}}:{{{name}}}}}"
    return f"${{{BYPASS_PARAMETER}?{{{name}}}:{{{without_bypass}}}}}"


def first_entry(config: Configuration, name: str) -> str:
    """Return the master.cf entry that replaces a cleanup service at the first hop."""
    original = config.service(f"{name}/unix")
    if original is None:
        return ""
    options = {**original.options, **first_options(config, original)}
    words = [FIRST_CLEANUP_PREFIX + name, "unix", *original.fields, original.command]
    return add_options(" ".join(words), options)


def add_options(entry: str, options: Mapping[str, str]) -> str:
    """Return an entry of master.cf with further -o options (master(5))."""
    for key, value in options.items():
        is_one_word = len(value.split()) < 2
        entry += f" -o {key}={value}" if is_one_word else f" -o {{ {key} = {value} }}"
    return entry


def first_options(config: Configuration, cleanup: Service) -> dict[str, str]:
    """Return the options of a cleanup service that maps headers alone."""
    return {
        **dict.fromkeys(ENVELOPE_MAPS, ""),
        **_class_options(config, cleanup, HEADER_PREFIX),
    }


def last_options(config: Configuration) -> dict[str, str]:
    """Return what archive-cleanup needs so that it maps envelopes alone."""
    return _class_options(config, None, ENVELOPE_PREFIX)


def maps_headers_first(config: Configuration, service: Service) -> bool:
    """Tell whether a service has a cleanup service of ours now."""
    return config.value(CLEANUP_PARAMETER, service).startswith(FIRST_CLEANUP_PREFIX)


def _class_options(
    config: Configuration, service: Service | None, prefix: str
) -> dict[str, str]:
    """Return the options that restrict the mappings to classes with this prefix.

    Without such a class the table is turned off: an empty list of classes is an error
    to cleanup(8).
    """
    options: dict[str, str] = {}
    for table, parameter in CLASSES.items():
        classes = configuration.split_list(config.value(parameter, service))
        selected = [each for each in classes if each.startswith(prefix)]
        if selected:
            options[parameter] = ",".join(selected)
        else:
            options[table] = ""
    return options


def _rewrites_headers(config: Configuration, cleanup: Service | None) -> bool:
    return any(
        config.value(table, cleanup)
        and HEADER_PREFIX in config.value(parameter, cleanup)
        for table, parameter in CLASSES.items()
    )


def _has_milters(config: Configuration, service: Service) -> bool:
    options = config.value("receive_override_options", service)
    if "no_milters" in configuration.split_list(options):
        return False
    return any(config.value(each, service) for each in MILTERS[service.program])
