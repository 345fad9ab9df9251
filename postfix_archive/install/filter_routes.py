"""Routes: which services pass mail to the stamp filter, and where it goes next.

Used by install/install_plan. A host may have one content filter for all services,
others for some and none for the rest; addresses may be mapped at the first hop or where
a content filter reinjects mail. Each combination is a route: a stamp filter with a
reinjection port of its own. The first route is that of main.cf.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from postfix_archive.errors import InstallRefused
from postfix_archive.postfix import (
    archive_services,
    configuration,
    content_filters,
    header_rewriting,
)
from postfix_archive.postfix.configuration import Configuration, Service

REINJECT_OPTIONS = "no_unknown_recipient_checks,no_header_body_checks,no_milters"
PROBE_ROUTE = ",archive-probe.invalid=discard:}"
TRANSPORT_TABLE_PREFIX = "inline:{archive-request.invalid"
TRANSPORT_LIMITS = {
    archive_services.PIPE: (
        ("destination_recipient_limit", "3500"),
        ("time_limit", "1000s"),
    ),
    archive_services.LMTP: (
        ("destination_recipient_limit", "0"),
        ("destination_concurrency_failed_cohort_limit", "0"),
    ),
    archive_services.NATIVE: (
        ("destination_recipient_limit", "5000"),
        ("destination_concurrency_failed_cohort_limit", "1"),
        ("destination_concurrency_limit", "10"),
    ),
    archive_services.NATIVE_PIPE: (
        ("destination_recipient_limit", "1500"),
        ("destination_concurrency_failed_cohort_limit", "1"),
        ("time_limit", "1000s"),
    ),
}


@dataclass(frozen=True)
class Setup:
    """The installation to reach: options, completed by what is installed."""

    archive: str
    launcher_directory: str  # directory of the launchers
    user: str = "postfix-archive"
    port: int = archive_services.DEFAULT_FIRST_PORT  # the first of PORT_COUNT
    position: str = "before"
    on_request: bool = False
    mode: str = archive_services.PIPE
    capsule_helo: str = ""  # table with the HELO name for the capsule port


@dataclass(frozen=True)
class Change:
    """One change: a parameter of main.cf, an entry of master.cf, or its -o option.

    before and after are None if the entry does not exist before or after the change.
    """

    kind: str  # main, service or option
    name: str  # parameter, name/type or name/type/option
    after: str | None
    before: str | None = None
    routes_mail: bool = False  # routes mail to the stamp filter

    @property
    def inverse(self) -> Change:
        """The change that reverts this one."""
        return replace(self, after=self.before, before=self.after)


@dataclass(frozen=True)
class Route:
    """Where the stamp filter reinjects: next content filter, override options."""

    next_filter: str
    reinject_options: str


class Routing:
    """Assigns a route to each service whose mail is archived.

    Raises InstallRefused for position "after" without a reinjection port.
    """

    def __init__(self, config: Configuration, setup: Setup) -> None:
        self.config = config
        self.setup = setup
        self.main_filter = self._original_value("content_filter", None)
        self.main_options = self._original_value("receive_override_options", None)
        is_after = setup.position == "after"
        self.reinjection_services = content_filters.reinjection_ports(config)
        if is_after and not self.reinjection_services:
            raise InstallRefused(
                "ARCHIVE_POSITION=after: master.cf has no reinjection port (smtpd on"
                " loopback with -o content_filter=), or no service has a content"
                " filter; add -o content_filter= to the smtpd that takes mail back"
                " from your filter"
            )
        self.archived_services = [
            e
            for e in archive_services.receiving_services(self.config)
            if self._is_archived(e)
        ]
        self.unarchived_services = [
            e
            for e in archive_services.receiving_services(self.config)
            if e not in self.archived_services
        ]
        mapped_services = list(filter(self._is_mapped_here, self.archived_services))
        self.maps_headers_first = header_rewriting.is_needed(config, mapped_services)
        self.first_cleanups = {
            header_rewriting.cleanup_name(config, each)
            for each in mapped_services
            if self.maps_headers_first
        }
        first_service = self.reinjection_services[0] if is_after else None
        self.first_route = self._route(first_service)
        self.routes = [self.first_route]
        for service in self.archived_services:
            if self._route(service) not in self.routes:
                self.routes.append(self._route(service))

    def route_number(self, service: Service) -> int:
        """Return the number of the route of a service; 1 is that of main.cf."""
        route = (
            self._route(service)
            if service in self.archived_services
            else self.first_route
        )
        return self.routes.index(route) + 1

    def service_changes(self) -> Iterator[Change]:
        """Yield the changes to the -o options of the admin's services."""
        for service in self.archived_services:
            has_own_filter = (
                "content_filter" in service.options
                or self.setup.position == "after"
                or self.route_number(service) != 1  # main.cf's is the first
            )
            if has_own_filter:
                next_filter = self._original_value("content_filter", service)
                value = self._content_filter(self.route_number(service), next_filter)
                yield option_change(service, "content_filter", value, routes_mail=True)
            if "receive_override_options" in service.options or has_own_filter:
                yield option_change(
                    service,
                    "receive_override_options",
                    self._override_options(service),
                    routes_mail=True,
                )
            yield from self._cleanup_changes(service)
        unarchived = self.unarchived_services if self.setup.position == "before" else []
        main_values = {
            "content_filter": self.main_filter,
            "receive_override_options": self.main_options,
        }
        for service in unarchived:
            for name in sorted(main_values.keys() - service.options.keys()):
                yield option_change(service, name, main_values[name], routes_mail=True)
        is_after = self.setup.position == "after"
        yield from restriction_changes(
            self.config, self.reinjection_services, takes_requests=is_after
        )

    def main_changes(self) -> Iterator[Change]:
        """Yield the changes to main.cf that route mail to the stamp filter."""
        yield from archive_changes(self.config, self.setup)
        if self.setup.position == "after":
            return
        content_filter = self._content_filter(1, "$archive_next_filter")
        yield main_cf_change(
            self.config,
            "receive_override_options",
            self._override_options(None),
            routes_mail=True,
        )
        yield main_cf_change(
            self.config, "content_filter", content_filter, routes_mail=True
        )

    def _override_options(self, service: Service | None) -> str:
        """Return receive_override_options of a service, or of main.cf."""
        options = self._original_value("receive_override_options", service)
        if self.maps_headers_first or self._maps_all_first(service):
            return options
        return archive_services.override_options_expression(
            options, self.setup.on_request
        )

    def _cleanup_changes(self, service: Service) -> Iterator[Change]:
        """Yield the change to the cleanup service of a service, if there is one."""
        name = header_rewriting.cleanup_name(self.config, service)
        value = self.config.raw(header_rewriting.CLEANUP_PARAMETER, service)
        if self.maps_headers_first and self._is_mapped_here(service):
            value = header_rewriting.name_expression(name, self.setup.on_request)
        elif value != name:
            value = name
        else:
            return
        yield option_change(
            service, header_rewriting.CLEANUP_PARAMETER, value, routes_mail=True
        )

    def _is_mapped_here(self, service: Service) -> bool:
        """Tell whether the addresses of its mail are mapped at our last hop."""
        options = self._original_value("receive_override_options", service)
        return not (
            archive_services.NO_ADDRESS_MAPPINGS in configuration.split_list(options)
            or self._maps_all_first(service)
        )

    def _maps_all_first(self, service: Service | None) -> bool:
        """Tell whether an admin has moved all mappings to the first hop since.

        docs/how-it-works.md, Address mappings at the last hop, says how.
        """
        return (
            self._has_stamp_filter(service)
            and archive_services.NO_ADDRESS_MAPPINGS
            not in self.config.raw("receive_override_options", service)
            and archive_services.NO_ADDRESS_MAPPINGS
            in self._installed_reinject_options(service)
        )

    def _content_filter(self, number: int, next_filter: str) -> str:
        setup = self.setup
        return archive_services.content_filter_expression(
            number, next_filter, setup.on_request, setup.mode
        )

    def _is_archived(self, service: Service) -> bool:
        is_reinjection_port = service in self.reinjection_services
        is_by_sendmail = content_filters.is_sendmail_reinjection(self.config, service)
        if self.setup.position == "after":
            is_filtered = bool(self._original_value("content_filter", service))
            return is_reinjection_port or not (is_filtered or is_by_sendmail)
        return not (is_reinjection_port or is_by_sendmail)

    def _route(self, service: Service | None) -> Route:
        is_after = self.setup.position == "after"
        next_filter = (
            "" if is_after else self._original_value("content_filter", service)
        )
        if self._maps_all_first(service):
            return Route(next_filter, self._installed_reinject_options(service))
        options = self._original_value("receive_override_options", service)
        has_no_mappings = (
            archive_services.NO_ADDRESS_MAPPINGS in configuration.split_list(options)
        )
        return Route(
            next_filter,
            (
                f"{REINJECT_OPTIONS},{archive_services.NO_ADDRESS_MAPPINGS}"
                if has_no_mappings
                else ""
            ),
        )

    def _original_value(self, name: str, service: Service | None) -> str:
        """Return the admin's value, also if an installation has changed it."""
        if name == "content_filter":
            return content_filters.original_filter(self.config, service)
        value = self.config.raw(name, service)
        if archive_services.NO_ADDRESS_MAPPINGS in value and self._has_stamp_filter(
            service
        ):
            is_mapped_later = (
                archive_services.NO_ADDRESS_MAPPINGS
                in self._installed_reinject_options(service)
            )
            options = [
                each
                for each in configuration.split_list(value)
                if archive_services.NO_ADDRESS_MAPPINGS not in each
                or is_mapped_later
                and each == archive_services.NO_ADDRESS_MAPPINGS
            ]
            return ",".join(options)
        return value

    def _has_stamp_filter(self, service: Service | None) -> bool:
        return archive_services.STAMP_TRANSPORT in self.config.raw(
            "content_filter", service
        )

    def _installed_reinject_options(self, service: Service | None) -> str:
        """Return the override options of the installed reinjection port."""
        number = archive_services.route_number(
            self.config.raw("content_filter", service)
        )
        if number == 1:
            return self.config.raw("archive_handback_options")
        options = content_filters.reinjection_options(self.config, number)
        return options.get("receive_override_options", "")


def restriction_changes(
    config: Configuration,
    reinjection_services: Collection[Service],
    *,
    takes_requests: bool,
) -> Iterator[Change]:
    """Reject the request domain from clients, accept it from content filters.

    takes_requests: content filters reinject to that domain at reinjection_services.
    """
    name = "smtpd_recipient_restrictions"
    for service in archive_services.receiving_services(config):
        if service not in reinjection_services:
            if name in service.options:
                value = archive_services.guard_restrictions(service.options[name])
                yield option_change(service, name, value)
        elif takes_requests and name not in service.options:
            value = config.raw(name).replace(archive_services.REQUEST_DOMAIN_CHECK, "")
            yield option_change(service, name, value.lstrip(","))


def archive_changes(config: Configuration, setup: Setup) -> Iterator[Change]:
    """Yield the change of the archive value of main.cf, if it is to have one."""
    if setup.archive:
        yield main_cf_change(config, "archive", setup.archive, routes_mail=True)


def transport_table(mode: str) -> str:
    """Return the table of transport_maps that routes requests and probes."""
    destination = archive_services.request_destination(mode)
    return f"{TRANSPORT_TABLE_PREFIX}={destination}{PROBE_ROUTE}"


def option_change(
    service: Service, name: str, value: str, *, routes_mail: bool = False
) -> Change:
    """Return the change that sets an -o option of a service of master.cf."""
    before = service.options.get(name)
    return Change("option", f"{service.key}/{name}", value, before, routes_mail)


def main_cf_change(
    config: Configuration, name: str, value: str, *, routes_mail: bool = False
) -> Change:
    """Return the change that sets a parameter of main.cf."""
    return Change("main", name, value, config.main.get(name), routes_mail)
