"""The host's own content filters, and the services at which they reinject mail.

Used by install/filter_routes and doctor/check_routing. On an installed host the stamp
filter has taken the place of a service's content filter: archive_next_filter, or the
reinjection port of its route, has the original one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from postfix_archive.postfix import archive_services
from postfix_archive.postfix.configuration import Configuration, Service


def original_filter(config: Configuration, service: Service | None) -> str:
    """Return the content_filter of a service, or of main.cf, without the stamp filter.

    Not expanded, as in main.cf or master.cf.
    """
    value = config.raw("content_filter", service)
    if archive_services.STAMP_TRANSPORT not in value:
        return value
    number = archive_services.route_number(value)
    if number == 1:
        return config.raw("archive_next_filter")
    return reinjection_options(config, number).get("content_filter", "")


def reinjection_options(config: Configuration, number: int) -> Mapping[str, str]:
    """Return the -o options of the reinjection port of an additional route."""
    address = archive_services.reinject_address(config, number)
    service = config.service(f"{address}/inet")
    return service.options if service else {}


def reinjection_ports(config: Configuration) -> list[Service]:
    """Return the smtpd(8) services at which a content filter may reinject mail.

    They are on loopback and have an empty content_filter of their own. Without any
    content filter there is nothing that reinjects.
    """
    services = archive_services.receiving_services(config)
    if not any(original_filter(config, each) for each in (None, *services)):
        return []
    return [
        each
        for each in services
        if each.kind == "inet"
        and each.name.startswith(archive_services.LOOPBACK_PREFIXES)
        and "content_filter" in each.options
        and original_filter(config, each) == ""
    ]


def is_sendmail_reinjection(config: Configuration, service: Service) -> bool:
    """Tell whether this is pickup(8) and a filter may reinject by sendmail(1)."""
    if service.program != "pickup" or original_filter(config, service):
        return False
    has_empty_filter = (
        "content_filter" in service.options or original_filter(config, None) == ""
    )
    return has_empty_filter and any(
        _has_pipe_filter(config, each)
        for each in archive_services.receiving_services(config)
    )


def returning_services(config: Configuration) -> list[Service]:
    """Return the services at which a content filter may reinject mail."""
    ports = reinjection_ports(config)
    return [
        each
        for each in archive_services.receiving_services(config)
        if each in ports or is_sendmail_reinjection(config, each)
    ]


@dataclass(frozen=True)
class RecipientLimit:
    """How many recipients a content filter gets in one delivery; 0 for all."""

    parameter: str  # of main.cf
    value: int
    needed: int  # so that capture recipients come with those of the client

    @property
    def is_too_low(self) -> bool:
        """Tell whether the largest message would come in pieces."""
        return 0 < self.value < self.needed


def recipient_limit(config: Configuration, service: Service) -> RecipientLimit | None:
    """Return the recipient limit of the content filter of a service, None without one.

    The default values are those of postconf(5).
    """
    content_filter = config.expand(original_filter(config, service), service)
    if not content_filter:
        return None
    parameter = f"{content_filter.partition(':')[0]}_destination_recipient_limit"
    value = config.seconds(parameter)
    if value is None:
        value = config.seconds("default_destination_recipient_limit")
    accepted = config.seconds("smtpd_recipient_limit", service) or 1000
    return RecipientLimit(parameter, 50 if value is None else value, 2 * accepted)


def _has_pipe_filter(config: Configuration, service: Service) -> bool:
    transport = original_filter(config, service).partition(":")[0]
    filter_service = config.service(f"{transport}/unix")
    return filter_service is not None and filter_service.program == "pipe"
