"""Check the workers of lmtp mode and their sockets.

Used by doctor.checks. spawn(8) starts a worker for each connection; the name of the
socket is the archive address that mail on it is archived to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.doctor import check_lmtp, check_ports
from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services, lmtp_services
from postfix_archive.postfix.configuration import Service


def check_sockets(host: Host) -> Iterator[Finding]:
    """Report sockets in a content_filter that have no service in master.cf."""
    for service in host.receiving_services():
        content_filter = host.config.value("content_filter", service)
        socket = content_filter.partition(":unix:private/")[2]
        if socket and host.config.service(f"{socket}/unix") is None:
            harm, fix = _missing_service(host, socket)
            place = f"{_place(service)}: {socket}"
            yield Finding("worker-missing", CRITICAL, place, harm, fix)


def check_socket_names(host: Host) -> Iterator[Finding]:
    """Report services whose socket path is too long for the kernel."""
    for service in host.config.services:
        directory = "public" if service.fields[:1] == ("n",) else "private"
        path = f"{directory}/{service.name}"
        if service.kind != "inet" and _is_too_long(path):
            yield Finding(
                "socket-name",
                CRITICAL,
                f"master.cf: {service.key}",
                f"{_length_harm(service.name)}: at its next start or reload master(8)"
                " exits and all mail stops; postfix check does not report it",
                host.postfix_command("postconf", "-M", "-X", service.key),
            )


def check_time_limits(host: Host) -> Iterator[Finding]:
    """Report a time limit of spawn(8) below a worker's own lifetime."""
    if host.settings is None:
        return
    lifetime = lmtp_services.WORKER_LIFETIME + host.settings.archive_time_limit
    for worker in filter(archive_services.is_worker_service, host.config.services):
        parameter = f"{worker.name}_time_limit"
        limit = host.number(parameter, worker)
        if limit is None:
            limit = host.number("command_time_limit", worker) or 0
        if limit <= lifetime:
            yield Finding(
                "time-limit",
                WARNING,
                f"master.cf: {worker.key} -o command_time_limit",
                f"spawn(8) kills a worker {limit} s after its start, possibly during a"
                f" message; a worker exits within {lifetime} s by itself",
                host.option_command(worker, "command_time_limit", "10000s"),
                is_safe=parameter not in host.config.main,
            )


def check_arguments(host: Host) -> Iterator[Finding]:
    """Report workers whose arguments do not match their socket and route."""
    for worker in filter(archive_services.is_worker_service, host.config.services):
        if harm := _argument_harm(worker):
            place = f"master.cf: {worker.key}"
            yield Finding(
                "launcher-arguments", CRITICAL, place, harm, host.install_command()
            )


def check_process_limits(host: Host) -> Iterator[Finding]:
    """Report workers whose process limit is below that of their lmtp(8) client."""
    for client in check_lmtp.lmtp_services(host):
        client_limit = _process_limit(host, client)
        prefix = archive_services.socket_prefix(
            archive_services.route_number(client.name)
        )
        for worker in filter(archive_services.is_worker_service, host.config.services):
            limit = _process_limit(host, worker)
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
                    host.postfix_command("postconf", "-F", "-e", field),
                    is_safe=True,
                )


def _argument_harm(worker: Service) -> str:
    """Return what a worker's wrong arguments cause, "" if they are right."""
    archive, nexthop = worker.name.partition(".")[2], worker.argument("nexthop")
    if not archive_services.is_worker_socket(worker.name):
        return ""
    if nexthop != archive:
        return (
            f"--nexthop is {nexthop or 'missing'}: mail is archived to another address,"
            " or deferred"
        )
    is_first_route = worker.name.startswith(archive_services.socket_prefix(1))
    addresses = [
        worker.argument(f"{role}-address") for role in check_ports.REINJECT_ROLES
    ]
    if not is_first_route and not all(addresses):
        return (
            "--handback-address or --refused-address is missing: mail is reinjected"
            " without the content filter of its service"
        )
    return ""


def _missing_service(host: Host, socket: str) -> tuple[str, str]:
    """Return harm and fix for a socket without a service."""
    pipe_mode_fix = (
        f"or {host.archive_command('uninstall')}, then {host.install_command()}"
        " --mode=pipe"
    )
    if _is_too_long(f"private/{socket}"):
        return (
            f"{_length_harm(socket)}: mail is deferred, then bounces",
            f"set a shorter address there; {pipe_mode_fix}",
        )
    if archive_services.is_worker_socket(
        socket
    ) and not lmtp_services.SERVICE_NAME.fullmatch(socket):
        return (
            f"{socket} cannot be a service name: mail is deferred, then bounces",
            f"set another address there; {pipe_mode_fix}",
        )
    return (
        f"master.cf has no service {socket}: mail is deferred, then bounces",
        f"{host.install_command()}; or correct archive there",
    )


def _place(service: Service) -> str:
    """Return the parameter that sets the archive of a service."""
    for name in ("archive", "content_filter"):
        if name in service.options:
            return f"master.cf: {service.key} -o {name}"
    return f"main.cf: content_filter (for {service.key})"


def _is_too_long(path: str) -> bool:
    return len(path.encode()) > lmtp_services.SOCKET_PATH_LIMIT


def _process_limit(host: Host, service: Service) -> int:
    """Return the process limit of a service (master(5), maxproc); 0 for unlimited."""
    maxproc = service.fields[4] if len(service.fields) > 4 else "-"
    if maxproc.isdigit():
        return int(maxproc)
    return host.number("default_process_limit") or 0


def _length_harm(socket: str) -> str:
    limit = lmtp_services.SOCKET_PATH_LIMIT - len("private/")
    return (
        f"{socket} has {len(socket.encode())} characters, a socket's name at most"
        f" {limit}"
    )


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_sockets,
    check_socket_names,
    check_time_limits,
    check_arguments,
    check_process_limits,
)
