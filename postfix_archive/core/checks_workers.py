"""Check the workers of lmtp mode and their sockets.

Used by doctor.checks. spawn(8) starts a worker for each connection; the name of the
socket is the archive address that mail on it is archived to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core import checks_lmtp, checks_ports, doors, gates, workers
from postfix_archive.core.configuration import Service
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

INSTALL = "make install"
OTHERWISE = "or make uninstall, then make install MODE=pipe"


def sockets(host: Observed) -> Iterator[Finding]:
    """Report sockets in a content_filter that have no service in master.cf."""
    for each in host.clients():
        content_filter = host.found.value("content_filter", each)
        socket = content_filter.partition(":unix:private/")[2]
        if socket and host.found.service(f"{socket}/unix") is None:
            harm, cure = _unserved(socket)
            place = f"{_place(each)}: {socket}"
            yield Finding("lmtp-worker", CRITICAL, place, harm, cure)


def names(host: Observed) -> Iterator[Finding]:
    """Report services whose socket path is too long for the kernel."""
    for each in host.found.services:
        directory = "public" if each.fields[:1] == ("n",) else "private"
        path = f"{directory}/{each.name}"
        if each.kind != "inet" and _is_long(path):
            yield Finding(
                "socket-name",
                CRITICAL,
                f"master.cf: {each.key}",
                f"{_too_long(each.name)}: at its next start or reload master(8) exits"
                " and all mail stops; postfix check does not report it",
                host.command("postconf", "-M", "-X", each.key),
            )


def time_limits(host: Observed) -> Iterator[Finding]:
    """Report a time limit of spawn(8) below a worker's own lifetime."""
    if host.settings is None:
        return
    least = workers.LIFE + host.settings.archive_time_limit
    for each in filter(doors.is_worker, host.found.services):
        name = f"{each.name}_time_limit"
        default = host.number("command_time_limit", each)
        limit = host.number(name, each) or default or 0
        if limit <= least:
            yield Finding(
                "time-limit",
                WARNING,
                f"master.cf: {each.key} -o command_time_limit",
                f"spawn(8) kills a worker {limit} s after its start, possibly during a"
                f" message; a worker exits within {least} s by itself",
                host.option(each, "command_time_limit", "10000s"),
                is_safe=name not in host.found.main,
            )


def arguments(host: Observed) -> Iterator[Finding]:
    """Report workers whose arguments do not match their socket and route."""
    for each in filter(doors.is_worker, host.found.services):
        if harm := _misled(each):
            place = f"master.cf: {each.key}"
            yield Finding("arguments", CRITICAL, place, harm, INSTALL)


def processes(host: Observed) -> Iterator[Finding]:
    """Report workers whose process limit is below that of their lmtp(8) client."""
    for client in checks_lmtp.clients(host):
        client_limit = _processes(host, client)
        prefix = gates.socket(gates.number_in(client.name))
        for worker in filter(doors.is_worker, host.found.services):
            limit = _processes(host, worker)
            is_less = limit and (limit < client_limit or not client_limit)
            if worker.name.startswith(prefix) and is_less:
                field = f"{worker.key}/process_limit={2 * client_limit}"
                yield Finding(
                    "worker-limit",
                    WARNING,
                    f"master.cf: {worker.key}",
                    f"{limit} workers for {client_limit or 'any number of'} clients:"
                    " under load a message waits at the socket for a free worker and is"
                    " deferred after lmtp_lhlo_timeout",
                    host.command("postconf", "-F", "-e", field),
                    is_safe=True,
                )


def _misled(worker: Service) -> str:
    """Return what a worker's wrong arguments cause, "" if they are right."""
    archive, nexthop = worker.name.partition(".")[2], worker.argument("nexthop")
    if not gates.is_socket(worker.name):
        return ""
    if nexthop != archive:
        return (
            f"--nexthop is {nexthop or 'missing'}: mail is archived to another address,"
            " or deferred"
        )
    is_first_route = worker.name.startswith(gates.socket(1))
    addresses = [worker.argument(f"{role}-address") for role in checks_ports.BACK]
    if not is_first_route and not all(addresses):
        return (
            "--handback-address or --refused-address is missing: mail is reinjected"
            " without the content filter of its service"
        )
    return ""


def _unserved(socket: str) -> tuple[str, str]:
    """Return harm and cure for a socket without a service."""
    if _is_long(f"private/{socket}"):
        return (
            f"{_too_long(socket)}: mail is deferred, then bounces",
            f"set a shorter address there; {OTHERWISE}",
        )
    if gates.is_socket(socket) and not workers.NAME.fullmatch(socket):
        return (
            f"{socket} cannot be a service name: mail is deferred, then bounces",
            f"set another address there; {OTHERWISE}",
        )
    return (
        f"master.cf has no service {socket}: mail is deferred, then bounces",
        f"{INSTALL}; or correct archive there",
    )


def _place(service: Service) -> str:
    """Return the parameter that sets the archive of a service."""
    for name in ("archive", "content_filter"):
        if name in service.options:
            return f"master.cf: {service.key} -o {name}"
    return f"main.cf: content_filter (for {service.key})"


def _is_long(path: str) -> bool:
    return len(path.encode()) > workers.PATH_LIMIT


def _processes(host: Observed, service: Service) -> int:
    """Return the process limit of a service (master(5), maxproc); 0 for unlimited."""
    maxproc = service.fields[4] if len(service.fields) > 4 else "-"
    if maxproc.isdigit():
        return int(maxproc)
    return host.number("default_process_limit") or 0


def _too_long(socket: str) -> str:
    limit = workers.PATH_LIMIT - len("private/")
    return (
        f"{socket} has {len(socket.encode())} characters, a socket's name at most"
        f" {limit}"
    )


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    sockets,
    names,
    time_limits,
    arguments,
    processes,
)
