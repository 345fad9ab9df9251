"""Checks of the workers of the lmtp door, and of the sockets by which they are asked.

Used by core/checkup. A socket's name says which archive is asked for; spawn(8) runs a
worker for each client that connects.
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
    """Every socket that a content_filter names can be one, and has a service."""
    for each in host.clients():
        leads = host.found.value("content_filter", each)
        socket = leads.partition(":unix:private/")[2]
        if socket and host.found.service(f"{socket}/unix") is None:
            harm, cure = _unserved(socket)
            place = f"{_place(each)}: {socket}"
            yield Finding("lmtp-worker", CRITICAL, place, harm, cure)


def names(host: Observed) -> Iterator[Finding]:
    """No service whose socket's path is longer than the kernel takes."""
    for each in host.found.services:
        folder = "public" if each.fields[:1] == ("n",) else "private"
        path = f"{folder}/{each.name}"
        if each.kind != "inet" and _is_long(path):
            yield Finding(
                "socket-name",
                CRITICAL,
                f"master.cf: {each.key}",
                f"{_too_long(each.name)}: at its next start or reload master(8) ends"
                " and no mail moves at all, and postfix check does not see it",
                host.command("postconf", "-M", "-X", each.key),
            )


def time_limits(host: Observed) -> Iterator[Finding]:
    """spawn(8) lets a worker live until it ends by itself."""
    if host.settings is None:
        return
    least = workers.LIFE + host.settings.archive_time_limit
    for each in filter(doors.is_worker, host.found.services):
        name = f"{each.name}_time_limit"
        usual = host.number("command_time_limit", each)
        limit = host.number(name, each) or usual or 0  # $command_time_limit itself
        if limit <= least:
            yield Finding(
                "time-limit",
                WARNING,
                f"master.cf: {each.key} -o command_time_limit",
                f"spawn(8) kills a worker {limit} s after its start, perhaps in the"
                f" middle of a message; by itself it ends within {least} s",
                host.option(each, "command_time_limit", "10000s"),
                is_safe=name not in host.found.main,
            )


def arguments(host: Observed) -> Iterator[Finding]:
    """A worker archives for whom its socket is named after, and hands back rightly."""
    for each in filter(doors.is_worker, host.found.services):
        if harm := _misled(each):
            place = f"master.cf: {each.key}"
            yield Finding("arguments", CRITICAL, place, harm, INSTALL)


def processes(host: Observed) -> Iterator[Finding]:
    """As many workers of each archive as clients that may ask for one."""
    for each in checks_lmtp.clients(host):
        most = _processes(host, each)
        front = gates.socket(gates.number_in(each.name))
        for worker in filter(doors.is_worker, host.found.services):
            few = _processes(host, worker)
            if worker.name.startswith(front) and few and (few < most or not most):
                yield Finding(
                    "worker-limit",
                    WARNING,
                    f"master.cf: {worker.key}",
                    f"{few} workers for {most or 'any number of'} clients: under load a"
                    " message waits at a socket where nobody answers, and is deferred"
                    " after lmtp_lhlo_timeout",
                    host.command(
                        "postconf", "-F", "-e", f"{worker.key}/process_limit={2 * most}"
                    ),
                    is_safe=True,
                )


def _misled(worker: Service) -> str:
    """Return what comes of a worker's wrong arguments, "" where they are right."""
    archive, given = worker.name.partition(".")[2], worker.argument("nexthop")
    if not gates.is_socket(worker.name):
        return ""
    if given != archive:
        return (
            f"--nexthop is {given or 'missing'}: mail is archived for somebody else, or"
            " waits"
        )
    further = not worker.name.startswith(gates.socket(1))
    backs = [worker.argument(f"{role}-address") for role in checks_ports.BACK]
    if further and not all(backs):
        return (
            "--handback-address or --refused-address is missing: mail goes on without"
            " the content filter of its service"
        )
    return ""


def _unserved(socket: str) -> tuple[str, str]:
    """Return what mail for a socket without a service comes to, and the cure."""
    if _is_long(f"private/{socket}"):
        return (
            f"{_too_long(socket)}: mail waits and then bounces",
            f"give a shorter address there; {OTHERWISE}",
        )
    if gates.is_socket(socket) and not workers.NAME.fullmatch(socket):
        return (
            f"{socket} cannot be a service of master.cf: mail waits and then bounces",
            f"give another address there; {OTHERWISE}",
        )
    return (
        f"master.cf has no service {socket}: mail waits and then bounces",
        f"{INSTALL}; or correct archive there",
    )


def _place(service: Service) -> str:
    """Return where it is said which archive a service asks for."""
    for name in ("archive", "content_filter"):
        if name in service.options:
            return f"master.cf: {service.key} -o {name}"
    return f"main.cf: content_filter (for {service.key})"


def _is_long(path: str) -> bool:
    return len(path.encode()) > workers.PATH_LIMIT


def _processes(host: Observed, service: Service) -> int:
    """Return how many processes of a service may run; 0 for any number."""
    said = service.fields[4] if len(service.fields) > 4 else "-"
    return int(said) if said.isdigit() else host.number("default_process_limit") or 0


def _too_long(socket: str) -> str:
    limit = workers.PATH_LIMIT - len("private/")
    return (
        f"{socket} has {len(socket.encode())} characters, and a socket's name at most"
        f" {limit}"
    )


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    sockets,
    names,
    time_limits,
    arguments,
    processes,
)
