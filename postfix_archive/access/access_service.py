"""The access service: appends entries for readers who cannot write the journal.

A Unix socket (archive_access_socket) that only archive_reader_group can connect to. The
service runs as the archive's user; who reads is what the kernel says of the client
(SO_PEERCRED, unix(7)), never what the client says. A request is one JSON object in one
line, the answer too:

    {"action":…,"query":…,"reason":…,"ids":{ARCHIVE:[ID…]}}
    {} or {"error":…}

The client side is used by access_recorder, the service by the command access-service.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import stat
import struct
from collections.abc import Callable, Mapping, Sequence

from postfix_archive.access import access_entry, reader_group
from postfix_archive.access.access_entry import Entry
from postfix_archive.config.settings import Settings
from postfix_archive.errors import AccessNotRecorded, AccessServiceFailed
from postfix_archive.message import received_header
from postfix_archive.store import record_reader
from postfix_archive.system import files, privileges

REQUEST_LIMIT = 16 << 20  # bytes: 250,000 ids
ANSWER_LIMIT = 1 << 16  # bytes
TIME_LIMIT = 30.0  # seconds for a request and its answer
SOCKET_MODE = 0o660
PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group id
Append = Callable[[Mapping[str, Sequence[str]], Entry], None]


def request(settings: Settings, ids: Mapping[str, Sequence[str]], entry: Entry) -> None:
    """Ask the service to record an entry; durable on return.

    Raises AccessNotRecorded if the service does not run or refuses.
    """
    path = settings.archive_access_socket
    fields = {
        "action": entry.action,
        "query": entry.query,
        "reason": entry.reason,
        "ids": {archive: list(some) for archive, some in ids.items()},
    }
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIME_LIMIT)
            connection.connect(path)
            connection.sendall(json.dumps(fields).encode("ascii") + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline(ANSWER_LIMIT))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AccessNotRecorded(
            f"{path}: {reason}; the access service records who reads: as root run"
            " postfix-archive access-service, and see that you are in"
            " archive_reader_group"
        ) from error
    if answer.get("error"):
        raise AccessNotRecorded(f"{path}: {answer['error']}")


class AccessService(socketserver.ThreadingUnixStreamServer):
    """Answers requests; no client waits for another that is idle.

    Nothing has to be done before its end: a signal is as harmless as a crash.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that wait for accept(2)

    def __init__(self, settings: Settings, append: Append) -> None:
        """Listen on archive_access_socket; only archive_reader_group can connect.

        Makes the socket's directory if root may. Raises AccessServiceFailed.
        """
        self.store = settings.archive_store_directory
        self.append = append
        self._group_id = _group_id(settings.archive_reader_group)
        path = settings.archive_access_socket
        try:
            directory = files.parent_directory(path)
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o755)
            if privileges.can_others_write(directory):
                raise OSError(0, "other users can write into its directory")
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)
            super().__init__(path, _RequestHandler)
        except OSError as error:
            raise AccessServiceFailed(
                f"{path}: {error.strerror}; check the directory and"
                " archive_access_socket"
            ) from error

    def server_bind(self) -> None:
        """Bind the socket, and give it to the group before anyone can connect."""
        umask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            super().server_bind()
        finally:
            os.umask(umask)
        os.chown(str(self.server_address), -1, self._group_id, follow_symlinks=False)


class _RequestHandler(socketserver.StreamRequestHandler):
    """One client."""

    server: AccessService
    timeout = TIME_LIMIT

    def handle(self) -> None:
        """Record the request, and answer it."""
        answer: dict[str, str] = {}
        with contextlib.suppress(OSError):  # the client has gone
            try:
                line = self.rfile.readline(REQUEST_LIMIT)
                ids, entry = parse(line, _peer(self.connection), self.server.store)
                self.server.append(ids, entry)
            except (ValueError, RecursionError) as error:
                answer["error"] = f"invalid request: {error}"
            self.wfile.write(json.dumps(answer).encode("ascii") + b"\n")


def _group_id(group: str) -> int:
    if not group:
        raise AccessServiceFailed(
            "archive_reader_group is empty: root and the archive's user record"
            " themselves what they read; set it in archive.cf to let others read"
        )
    return reader_group.group_id(group)


def parse(
    line: bytes, user: access_entry.User, store: str
) -> tuple[dict[str, list[str]], Entry]:
    """Return the ids by archive and the entry in a request. Raises ValueError."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or not isinstance(fields.get("ids"), dict):
        raise ValueError("not an object with ids")
    texts = [fields.get(name, "") for name in ("action", "query", "reason")]
    if not all(isinstance(each, str) for each in texts) or not texts[0]:
        raise ValueError("action, query and reason must be text")
    ids = fields["ids"]
    if not set(ids) <= set(record_reader.archives(store)):
        raise ValueError("no such archive")
    for some in ids.values():
        if not isinstance(some, list) or not all(map(_is_archive_id, some)):
            raise ValueError("ids must be archive ids")
    action, query, reason = (each[: access_entry.TEXT_LIMIT] for each in texts)
    return ids, Entry(user, action, query, reason, ())


def is_running(path: str) -> bool:
    """Tell whether a service listens on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIME_LIMIT)
        try:
            connection.connect(path)
        except OSError:
            return False
    return True


def _peer(connection: socket.socket) -> access_entry.User:
    size = PEER_CREDENTIALS.size
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    process_id, uid, _ = PEER_CREDENTIALS.unpack(credentials)
    return access_entry.user_of(uid, process_id)


def _is_archive_id(value: object) -> bool:
    return isinstance(value, str) and received_header.is_archive_id(value)
