"""The HTTP server of the page: where it listens, whom it believes, what it refuses."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, request

from postfix_archive.errors import ArchiveError, SettingInvalid, WebServerFailed
from postfix_archive.web import server, web_settings

from sample_store import SampleStore

READERS, OTHER_USER = "games", "news"  # a group, and a user of Debian


def make_app() -> Flask:
    app = Flask(__name__)

    @app.route("/", methods=["GET", "POST"])
    def show() -> str:
        return f"from {request.remote_addr} by {request.scheme}"

    return app


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    """A running server; what to connect to."""
    where = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/web"
    listener = server.listen(where)
    instance = server.make_server(make_app(), listener)
    is_ending = threading.Event()

    def serve() -> None:
        while not is_ending.is_set():
            instance.asyncore.poll(0.1, instance._map)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    instance.task_dispatcher.shutdown()
    # Before the sockets are closed, which it would still wait for.
    is_ending.set()
    thread.join()
    for each in list(instance._map.values()):
        each.close()


def ask(address: object, head: str, body: bytes = b"") -> str:
    """Send a request; return the whole answer."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.connect(address)  # type: ignore[arg-type]
        client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = b""
        # A request that is not read to its end resets the connection after the answer.
        with contextlib.suppress(ConnectionResetError):
            while some := client.recv(1 << 16):
                answer += some
        return answer.decode()


def test_proxy_of_the_host_is_believed(address: object) -> None:
    answer = ask(
        address,
        "GET / HTTP/1.1\nHost: x\nConnection: close\n"
        "X-Forwarded-For: 198.51.100.1, 203.0.113.9\nX-Forwarded-Proto: https",
    )
    assert answer.endswith("from 203.0.113.9 by https")
    assert "Server:" not in answer


@pytest.mark.parametrize(
    ("head", "size", "status"),
    [
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 2000000", 0, 413),
        (f"GET / HTTP/1.1\nHost: x\nX: {'x' * 32_800}", 0, 431),
        ("GET / HTTP/1.1\nHost: x\nTransfer-Encoding: gzip", 0, 501),
        ("GET / HTTP/1.1\nHost: x\nX-Forwarded-Proto: http\\nx", 0, 400),
        ("nonsense", 0, 400),
    ],
)
def test_limits(address: object, head: str, size: int, status: int) -> None:
    answer = ask(address, head, b"x" * size)
    assert re.match(rf"HTTP/1\.[01] {status} ", answer), answer
    assert "Traceback" not in answer


def test_port_in_use() -> None:
    with server.listen("127.0.0.1:0") as first:
        location = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(WebServerFailed, match=f"web_listen = {location}: .*in use"):
            server.listen(location)


def test_socket_of_a_former_process_is_replaced(tmp_path: Path) -> None:
    location = f"unix:{tmp_path}/web"
    server.listen(location).close()
    with server.listen(location):
        with pytest.raises(WebServerFailed, match="another process listens"):
            server.listen(location)
    (tmp_path / "file").touch()
    with pytest.raises(WebServerFailed, match="something else than a socket"):
        server.listen(f"unix:{tmp_path}/file")


@pytest.mark.parametrize("value", ["", "8090", "unix:web", "host:port", "x:70000"])
def test_bad_place_to_listen(value: str) -> None:
    with pytest.raises(SettingInvalid, match=r"x: must be address:port, .* unix:/path"):
        web_settings.parse_listen(value, "x")


@pytest.mark.parametrize(
    ("user", "group", "owner", "text"),
    [
        ("", READERS, 0, "archive_web_user is empty.*make install WITH=web"),
        ("no-such-user", READERS, 0, "no such user"),
        ("root", READERS, 0, "it can write the store"),
        (OTHER_USER, READERS, pwd.getpwnam(OTHER_USER).pw_uid, "can write the store"),
        (OTHER_USER, READERS, 0, "not in archive_reader_group"),
    ],
)
def test_page_runs_as_nobody_who_could_write(
    tmp_path: Path, user: str, group: str, owner: int, text: str
) -> None:
    store = SampleStore(tmp_path)
    os.chown(store.path, owner, -1)
    with open(tmp_path / "archive.cf", "a") as file:
        file.write(f"archive_web_user = {user}\narchive_reader_group = {group}\n")
    with pytest.raises(ArchiveError, match=text):
        server.web_user(store.settings)
    result = store.run("web", "--listen", f"unix:{tmp_path}/web", exit_code=1)
    assert re.search(text, result.output)
    assert result.output.count("\n") == 1
