"""The internal ports are for this host alone, whatever main.cf says.

Another host is a network namespace with one wire to this one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from private_postfix import PrivatePostfix, free_ports

pytestmark = pytest.mark.live


class AnotherHost:
    """A network namespace that ends with its one process, and the wire with it."""

    def __init__(self) -> None:
        network = f"10.99.{os.getpid() % 250}"
        self.own_address, self.other_address = f"{network}.1", f"{network}.2"
        self._link_name = f"pfa{os.getpid()}"
        self._process = subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> AnotherHost:
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def exchange(self, port: int, data: bytes) -> str:
        """Connect from there to a port here, say something; return the answers."""
        arguments = (self.own_address, str(port), data.hex())
        return self._run_in_namespace(
            "/usr/bin/python3", "-c", CLIENT_PROGRAM, *arguments
        )

    def _connect(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(b"!")
        self._process.stdin.flush()
        self._process.stdout.read(1)  # cat(1) runs: the namespace is there
        link_options = [
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(self._process.pid),
        ]
        _run("ip", "link", "add", self._link_name, *link_options)
        _run("ip", "address", "add", f"{self.own_address}/30", "dev", self._link_name)
        _run("ip", "link", "set", self._link_name, "up")
        self._run_in_namespace(
            "ip", "address", "add", f"{self.other_address}/30", "dev", "eth0"
        )
        self._run_in_namespace("ip", "link", "set", "eth0", "up")

    def _run_in_namespace(self, *command: str) -> str:
        return _run("nsenter", "--net", "--target", str(self._process.pid), *command)


def _run(*command: str) -> str:
    process = subprocess.run(command, check=True, capture_output=True)
    return process.stdout.decode("utf-8", "replace")


CLIENT_PROGRAM = """
import socket, sys
try:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)
    peer.sendall(bytes.fromhex(sys.argv[3]))
    print(peer.makefile().read())
except ConnectionRefusedError:
    print("nobody listens")
except ConnectionResetError:
    print("thrown out")
"""
MAIL = b"""EHLO elsewhere.example.net\r
XFORWARD ADDR=192.0.2.7\r
XCLIENT ADDR=127.0.0.1\r
MAIL FROM:<eve@example.org>\r
RCPT TO:<bob@example.net>\r
RCPT TO:<capsule@archive-request.invalid>\r
DATA\r
QUIT\r
"""
QMQP = b"56:14:Subject: x\n\nx\n,15:eve@example.org,15:bob@example.net,,"
# As generous as a host may be to its neighbours: the internal ports must not care.
ALLOWED_CLIENTS = {
    "inet_interfaces": "all",
    "mynetworks": "127.0.0.0/8, 10.99.0.0/16",
    "smtpd_authorized_xforward_hosts": "10.99.0.0/16",
    "smtpd_authorized_xclient_hosts": "10.99.0.0/16",
    "qmqpd_authorized_clients": "10.99.0.0/16",
}


@pytest.fixture(scope="module")
def another_host() -> Iterator[AnotherHost]:
    with AnotherHost() as host:
        yield host


@pytest.mark.parametrize("mode", ["pipe", "native"])
def test_another_host_cannot_reach_the_internal_ports(
    another_host: AnotherHost, mode: str
) -> None:
    """It does reach a port for clients, where it is welcome."""
    [port] = free_ports(1)
    public = f"{port} inet n - n - - smtpd\n"
    with PrivatePostfix(mode=mode, main=ALLOWED_CLIENTS, master=public) as postfix:
        answer = another_host.exchange(port, b"EHLO elsewhere.example.net\r\nQUIT\r\n")
        assert "250-XFORWARD" in answer and "250-XCLIENT" in answer
        for each in postfix.ports[1:]:
            assert another_host.exchange(each, MAIL) == "nobody listens\n"


def test_an_internal_port_that_is_open_to_all_refuses_another_host(
    another_host: AnotherHost,
) -> None:
    with PrivatePostfix(main=ALLOWED_CLIENTS, edit_master=open_ports) as postfix:
        *smtp, qmqp = postfix.ports[1:]
        for port in smtp:
            answer = another_host.exchange(port, MAIL)
            assert "250-PIPELINING" in answer
            assert "250-XFORWARD" not in answer and "250-XCLIENT" not in answer
            assert (
                len(re.findall("550 5.7.0 .*insufficient authorization", answer)) == 2
            )
            assert len(re.findall("554 5.7.1 .*rejected: Access denied", answer)) == 2
            assert "354 " not in answer
        assert "not authorized to use this service" in another_host.exchange(qmqp, b"")
        assert another_host.exchange(qmqp, QMQP) in ("", "thrown out\n")
        postfix.wait_for_empty_queue()
        assert not postfix.deliveries() and not postfix.stored_files()


def open_ports(text: str) -> str:
    """Bind the services of master.cf.d to every address of the host."""
    first, archive_entries, remainder = text.partition("# The stamp filter")
    return (
        first
        + archive_entries
        + re.sub(r"(?m)^127\.0\.0\.1:(\d+) inet", r"\1 inet", remainder)
    )
