"""Routes: which services pass mail to the stamp filter, and where it goes next.

Used by install/plan. A host may have one content filter for all services, others for
some and none for the rest; addresses may be mapped at the first hop or where a content
filter reinjects mail. Each combination is a route: a stamp filter with a reinjection
port of its own. The first route is that of main.cf.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from postfix_archive.core import configuration, doors, gates
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import InstallRefused

STAMP = gates.STAMP
OURS = (
    STAMP,
    "archive",
    "archive-relay",
    "archive-local",
    "archive-cleanup",
    "archive-capsule-cleanup",
    "archive-copy-cleanup",
)
LOCAL = "127.0.0.1"
USUAL_PORT = 10026
PORTS = 5
HANDBACK = "no_unknown_recipient_checks,no_header_body_checks,no_milters"
NO_MAPPINGS = gates.NO_MAPPINGS
PROBES = ",archive-probe.invalid=discard:}"
ROUTES = "inline:{archive-request.invalid=archive-stamp:on-request" + PROBES
OUR_ROUTES = "inline:{archive-request.invalid"
CLIENT_CHECK = "check_recipient_access,inline:{archive-request.invalid=reject}"
OUR_ELEMENT = re.compile(
    r"(check_recipient_access[,\s]+)?inline:\{archive-request\.invalid[^}]*\}[,\s]*"
)
LIMITS = {
    gates.PIPE: (("destination_recipient_limit", "3500"), ("time_limit", "1000s")),
    gates.LMTP: (
        ("destination_recipient_limit", "0"),
        ("destination_concurrency_failed_cohort_limit", "0"),
    ),
}
LOOPBACK = ("127.", "localhost:", "[::1]:", "::1:")


@dataclass(frozen=True)
class Wish:
    """The installation to reach: options, completed by what is installed."""

    archive: str
    program: str  # directory of the launchers
    user: str = "postfix-archive"
    port: int = USUAL_PORT  # the first of PORT_COUNT
    position: str = "before"
    on_request: bool = False
    mode: str = gates.PIPE


@dataclass(frozen=True)
class Change:
    """One change: a parameter of main.cf, an entry of master.cf, or its -o option.

    before and after are None if the entry does not exist before or after the change.
    """

    where: str  # main, service or option
    name: str  # parameter, name/type or name/type/option
    after: str | None
    before: str | None = None
    gate: bool = False  # routes mail to the stamp filter

    @property
    def undone(self) -> Change:
        """The change that reverts this one."""
        return replace(self, after=self.before, before=self.after)


@dataclass(frozen=True)
class Way:
    """Where the stamp filter reinjects: next content filter, override options."""

    next_filter: str
    handback_options: str


class Ways:
    """Assigns a route to each service whose mail is archived.

    Raises InstallRefused for position "after" without a reinjection port.
    """

    def __init__(self, found: Configuration, wish: Wish) -> None:
        self.found = found
        self.wish = wish
        self.own_filter = self._original("content_filter", None)
        self.own_options = self._original("receive_override_options", None)
        after = wish.position == "after"
        takes_back = [e for e in clients(self.found) if self._takes_back(e)]
        self.backs = takes_back if self._is_filtered() else []
        if after and not self.backs:
            raise InstallRefused(
                "ARCHIVE_POSITION=after: master.cf has no reinjection port (smtpd on"
                " loopback with -o content_filter=), or no service has a content"
                " filter; add -o content_filter= to the smtpd that takes mail back"
                " from your filter"
            )
        self.through = [e for e in clients(self.found) if self._is_through(e)]
        self.left = [e for e in clients(self.found) if e not in self.through]
        first = self.backs[0] if after else None
        self.usual = self._way(first)
        self.numbered = [self.usual]
        for each in self.through:
            if self._way(each) not in self.numbered:
                self.numbered.append(self._way(each))

    def number(self, service: Service) -> int:
        """Return the number of the route of a service; 1 is that of main.cf."""
        taken = self._way(service) if service in self.through else self.usual
        return self.numbered.index(taken) + 1

    def services(self) -> Iterator[Change]:
        """Yield the changes to the -o options of the admin's services."""
        for each in self.through:
            own = "content_filter" in each.options or self.wish.position == "after"
            if own:
                before = self._original("content_filter", each)
                value = self._gate(self.number(each), before)
                yield self._option(each, "content_filter", value, gate=True)
            if "receive_override_options" in each.options or own:
                options = self._original("receive_override_options", each)
                mapped = gates.unmapped(options, self.wish.on_request)
                yield self._option(each, "receive_override_options", mapped, gate=True)
        left = self.left if self.wish.position == "before" else []
        mains = {
            "content_filter": self.own_filter,
            "receive_override_options": self.own_options,
        }
        for each in left:
            for name in sorted(mains.keys() - each.options.keys()):
                yield self._option(each, name, mains[name], gate=True)
        yield from self._client_checks()

    def _client_checks(self) -> Iterator[Change]:
        """Reject the request domain from clients, accept it from content filters."""
        name = "smtpd_recipient_restrictions"
        for each in clients(self.found):
            if each in self.backs:
                if self.wish.position == "after" and name not in each.options:
                    own = self.found.raw(name).replace(CLIENT_CHECK, "").lstrip(",")
                    yield self._option(each, name, own)
            elif name in each.options:
                yield self._option(each, name, guarded(each.options[name]))

    def main(self) -> Iterator[Change]:
        """Yield the changes to main.cf that route mail to the stamp filter."""
        if self.wish.archive:
            yield changed(self.found, "archive", self.wish.archive, gate=True)
        if self.wish.position == "after":
            return
        opened = self._gate(1, "$archive_next_filter")
        value = gates.unmapped(self.own_options, self.wish.on_request)
        yield changed(self.found, "receive_override_options", value, gate=True)
        yield changed(self.found, "content_filter", opened, gate=True)

    def _gate(self, number: int, next_filter: str) -> str:
        wish = self.wish
        return gates.content_filter(number, next_filter, wish.on_request, wish.mode)

    def _is_filtered(self) -> bool:
        """Tell whether any service has a content filter, which may reinject mail."""
        services = (None, *clients(self.found))
        return any(self._original("content_filter", each) for each in services)

    def _takes_back(self, service: Service) -> bool:
        """Tell whether a content filter may reinject mail into this service."""
        bound = service.kind == "inet" and service.name.startswith(LOOPBACK)
        named = "content_filter" in service.options
        return bound and named and self._original("content_filter", service) == ""

    def _is_through(self, service: Service) -> bool:
        if self.wish.position == "after":
            filtered = bool(self._original("content_filter", service))
            return service in self.backs or not (filtered or self._by_sendmail(service))
        return service not in self.backs and not self._by_sendmail(service)

    def _by_sendmail(self, service: Service) -> bool:
        """Tell whether this is pickup and a filter may reinject by sendmail(1)."""
        if service.program != "pickup" or self._original("content_filter", service):
            return False
        named = "content_filter" in service.options or self.own_filter == ""
        return named and any(map(self._is_piped, clients(self.found)))

    def _is_piped(self, service: Service) -> bool:
        name = self._original("content_filter", service).partition(":")[0]
        behind = self.found.service(f"{name}/unix")
        return behind is not None and behind.program == "pipe"

    def _way(self, service: Service | None) -> Way:
        after = self.wish.position == "after"
        next_filter = "" if after else self._original("content_filter", service)
        options = self._original("receive_override_options", service)
        elsewhere = NO_MAPPINGS in configuration.words(options)
        return Way(next_filter, f"{HANDBACK},{NO_MAPPINGS}" if elsewhere else "")

    def _original(self, name: str, service: Service | None) -> str:
        """Return the admin's value, also if an installation has changed it."""
        text = self.found.raw(name, service)
        if name == "content_filter":
            return self._filter_behind(text, service)
        if NO_MAPPINGS in text and self._is_gated(service):
            kept = [w for w in configuration.words(text) if NO_MAPPINGS not in w]
            way = self._numbered_before(service)
            return ",".join([*kept, NO_MAPPINGS] if NO_MAPPINGS in way else kept)
        return text

    def _is_gated(self, service: Service | None) -> bool:
        return STAMP in self.found.raw("content_filter", service)

    def _filter_behind(self, text: str, service: Service | None) -> str:
        if STAMP not in text:
            return text
        number = gates.number_in(text)
        if number == 1:
            return self.found.raw("archive_next_filter")
        return self._back(number).get("content_filter", "")

    def _numbered_before(self, service: Service | None) -> str:
        """Return the override options of the installed reinjection port."""
        number = gates.number_in(self.found.raw("content_filter", service))
        if number == 1:
            return self.found.raw("archive_handback_options")
        return self._back(number).get("receive_override_options", "")

    def _back(self, number: int) -> Mapping[str, str]:
        """Return the -o options of the reinjection port of an additional route."""
        port = doors.way_back(self.found, number)
        back = self.found.service(f"{port}/inet")
        return back.options if back else {}

    def _option(
        self, service: Service, name: str, value: str, *, gate: bool = False
    ) -> Change:
        before = service.options.get(name)
        return Change("option", f"{service.key}/{name}", value, before, gate)


def is_ours(service: Service) -> bool:
    """Tell whether a service comes from master.cf.d."""
    known = service.name in OURS or service.name.startswith(f"{STAMP}-")
    known = known or doors.is_worker(service)
    return known or "/archive-" in service.options.get("syslog_name", "")


def clients(found: Configuration) -> list[Service]:
    """Return the services that receive mail, smtpd and pickup, without ours."""
    programs = ("smtpd", "pickup")
    return [e for e in found.services if e.program in programs and not is_ours(e)]


def is_installed(found: Configuration) -> bool:
    """Tell whether the stamp filter is installed in this instance."""
    return mode(found) != ""


def mode(found: Configuration) -> str:
    """Return the installed mode, pipe or lmtp, "" without an installation."""
    service = found.service(f"{STAMP}/unix")
    if service is None:
        return ""
    if doors.is_client(service):
        return gates.LMTP
    return gates.PIPE if doors.is_door(service) else ""


def routes(door: str) -> str:
    """Return the table of transport_maps that routes requests and probes."""
    return ROUTES.replace(f"{STAMP}:", gates.leading(1, door))


def changed(
    found: Configuration, name: str, value: str, *, gate: bool = False
) -> Change:
    """Return the change that sets a parameter of main.cf."""
    return Change("main", name, value, found.main.get(name), gate)


def guarded(restrictions: str) -> str:
    """Return restrictions that reject the request domain."""
    if "archive-request.invalid" in restrictions:
        return restrictions
    return ",".join(each for each in (CLIENT_CHECK, restrictions) if each)


def unguarded(value: str) -> str:
    """Return a list value of main.cf without the elements of an installation."""
    return OUR_ELEMENT.sub("", value).rstrip(", ")
