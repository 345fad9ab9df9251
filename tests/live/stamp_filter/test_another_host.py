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
        self.ours, self.theirs = f"{network}.1", f"{network}.2"
        self._wire = f"pfa{os.getpid()}"
        self._life = subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> AnotherHost:
        try:
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._life.kill()
        self._life.communicate()

    def talk(self, port: int, said: bytes) -> str:
        """Connect from there to a port here, say something; return the answers."""
        words = (self.ours, str(port), said.hex())
        return self._run_there("/usr/bin/python3", "-c", TALK, *words)

    def _join(self) -> None:
        assert self._life.stdin and self._life.stdout
        self._life.stdin.write(b"!")
        self._life.stdin.flush()
        self._life.stdout.read(1)  # cat(1) runs: the namespace is there
        ends = ["type", "veth", "peer", "name", "eth0", "netns", str(self._life.pid)]
        _run("ip", "link", "add", self._wire, *ends)
        _run("ip", "address", "add", f"{self.ours}/30", "dev", self._wire)
        _run("ip", "link", "set", self._wire, "up")
        self._run_there("ip", "address", "add", f"{self.theirs}/30", "dev", "eth0")
        self._run_there("ip", "link", "set", "eth0", "up")

    def _run_there(self, *command: str) -> str:
        return _run("nsenter", "--net", "--target", str(self._life.pid), *command)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True)
    return done.stdout.decode("utf-8", "replace")


TALK = """
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
NEIGHBOURS = {
    "inet_interfaces": "all",
    "mynetworks": "127.0.0.0/8, 10.99.0.0/16",
    "smtpd_authorized_xforward_hosts": "10.99.0.0/16",
    "smtpd_authorized_xclient_hosts": "10.99.0.0/16",
    "qmqpd_authorized_clients": "10.99.0.0/16",
}


@pytest.fixture(scope="module")
def another() -> Iterator[AnotherHost]:
    with AnotherHost() as host:
        yield host


def test_another_host_cannot_reach_the_internal_ports(another: AnotherHost) -> None:
    """It does reach a port for clients, where it is welcome."""
    [port] = free_ports(1)
    public = f"{port} inet n - n - - smtpd\n"
    with PrivatePostfix(main=NEIGHBOURS, master=public) as postfix:
        told = another.talk(port, b"EHLO elsewhere.example.net\r\nQUIT\r\n")
        assert "250-XFORWARD" in told and "250-XCLIENT" in told
        for each in postfix.ports[1:]:
            assert another.talk(each, MAIL) == "nobody listens\n"


def test_an_internal_port_that_is_open_to_all_refuses_another_host(
    another: AnotherHost,
) -> None:
    with PrivatePostfix(main=NEIGHBOURS, edit_master=opened) as postfix:
        *smtp, qmqp = postfix.ports[1:]
        for each in smtp:
            told = another.talk(each, MAIL)
            assert "250-PIPELINING" in told
            assert "250-XFORWARD" not in told and "250-XCLIENT" not in told
            assert len(re.findall("550 5.7.0 .*insufficient authorization", told)) == 2
            assert len(re.findall("554 5.7.1 .*rejected: Access denied", told)) == 2
            assert "354 " not in told
        assert "not authorized to use this service" in another.talk(qmqp, b"")
        assert another.talk(qmqp, QMQP) in ("", "thrown out\n")
        postfix.settle()
        assert not postfix.deliveries() and not postfix.stored()


def opened(text: str) -> str:
    """Bind the services of master.cf.d to every address of the host."""
    first, ours, rest = text.partition("# The stamp filter")
    return first + ours + re.sub(r"(?m)^127\.0\.0\.1:(\d+) inet", r"\1 inet", rest)
