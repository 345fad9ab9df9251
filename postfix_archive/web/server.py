"""Serves the web page by HTTP, behind the host's TLS proxy.

Used by the command web. The server listens where web_listen says, gives up root's
rights for those of archive_web_user, and serves until SIGTERM. Raises SettingInvalid,
WebServerFailed and WebDatabaseFailed before it serves.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import stat
from typing import Any

import waitress
from flask import Flask

from postfix_archive.access import access_service, reader_group
from postfix_archive.config.settings import Settings
from postfix_archive.errors import NotRoot, SettingInvalid, WebServerFailed
from postfix_archive.web import database, web_settings

THREADS = 8
PROXY_ADDRESS = "127.0.0.1"
PROXY_HEADERS = "x-forwarded-for x-forwarded-proto"
UNIX_PEER = "localhost"  # waitress's name of every client of a Unix socket
BACKLOG = 128
# A browser, as nginx and Apache by default, sends 8 KB of header at most.
HEADER_LIMIT = 32 << 10  # bytes
BODY_LIMIT = 1 << 20  # bytes; forms are all that is sent here
CONNECTION_LIMIT = 200
IDLE_TIME = 60  # seconds of a connection on which nothing moves


def listen(location: str) -> socket.socket:
    """Listen at ``host:port`` or ``unix:path``. Raises WebServerFailed.

    A Unix socket that a former process has left is replaced. Who may connect to it is
    for its directory to say.
    """
    path = location.removeprefix("unix:")
    try:
        if path == location:
            host, _, port = location.rpartition(":")
            return socket.create_server(
                (host.strip("[]"), int(port)),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=BACKLOG,
            )
        return _listen_unix(path)
    except OSError as error:
        raise WebServerFailed(
            f"web_listen = {location}: {error.strerror or error}; is the page running"
            " already?"
        ) from error


def _listen_unix(path: str) -> socket.socket:
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(0, "there is something else than a socket")
        with socket.socket(socket.AF_UNIX) as other:
            if not other.connect_ex(path):
                raise OSError(0, "another process listens there")
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    os.chmod(path, 0o666)
    server.listen(BACKLOG)
    return server


def web_user(settings: Settings) -> pwd.struct_passwd:
    """Return archive_web_user, as whom this process may go on.

    Raises SettingInvalid for one who could write the archive or cannot read it, and
    NotRoot if we are somebody else.
    """
    name = settings.archive_web_user
    if not name:
        raise SettingInvalid(
            "archive_web_user is empty: the page runs as a user of its own, who can"
            " read the archive and not write it; run make install WITH=web"
        )
    if problem := reader_group.web_user_problem(settings):
        raise SettingInvalid(f"archive_web_user = {name}: {problem}")
    user = pwd.getpwnam(name)
    if os.geteuid() not in (0, user.pw_uid):
        raise NotRoot(f"start the page as root or as archive_web_user ({name})")
    return user


def _become(user: pwd.struct_passwd) -> None:
    """Give up root for good."""
    if os.geteuid() == 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.umask(0o077)


def make_server(app: Flask, listener: socket.socket) -> Any:
    """Return the waitress server of an application, with limits."""
    is_unix = listener.family == socket.AF_UNIX
    return waitress.create_server(
        app,
        sockets=[listener],
        threads=THREADS,
        trusted_proxy=UNIX_PEER if is_unix else PROXY_ADDRESS,
        trusted_proxy_count=1,
        trusted_proxy_headers=PROXY_HEADERS,
        ident=None,
        connection_limit=CONNECTION_LIMIT,
        channel_timeout=IDLE_TIME,
        cleanup_interval=IDLE_TIME // 4,
        max_request_header_size=HEADER_LIMIT,
        max_request_body_size=BODY_LIMIT,
        asyncore_use_poll=True,
    )


def serve(settings: Settings, config_directory: str, location: str = "") -> None:
    """Serve the page until SIGTERM or SIGINT; location is instead of web_listen."""
    web = web_settings.load(config_directory)
    location = location or web.web_listen
    web_settings.parse_listen(location, f"--listen {location}")
    user = web_user(settings)
    with listen(location) as listener:
        _become(user)
        from postfix_archive.web import app, extractors

        extractors.start()
        access_service.fetch_copies(settings)
        server = make_server(app.create_app(settings, web), listener)
        signal.signal(signal.SIGTERM, _stop)
        print(f"listening on {location}", flush=True)
        with contextlib.closing(database.connect(web.database_path)):
            server.run()


def _stop(*_: object) -> None:
    """Let waitress end the requests that it has begun."""
    raise SystemExit
