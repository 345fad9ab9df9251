"""The access service: appends entries for readers who cannot write the journal.

A Unix socket (archive_access_socket) that only archive_reader_group can connect to. The
service runs as the archive's user; who reads is what the kernel says of the client
(SO_PEERCRED, unix(7)), never what the client says. Only archive_web_user may add who
has logged in at the web page, ask for what such a user decides, and read a copy that is
in the object storage alone, for which it has no credentials. A request is one JSON
object in one line, the answer too; the bytes of a copy follow it, up to the end:

    {"action":…,"query":…,"reason":…,"ids":{ARCHIVE:[ID…]},"web_user":…}
    {"decision":…,"web_user":…,…}
    {"copy":"ARCHIVE/YYYY/MM/DD/FILE"}
    {}, {"result":…} or {"error":…}

The client side is used by access_recorder, retention/decision_requests and web, the
service by the command access-service.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import socketserver
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, NamedTuple

from postfix_archive.access import access_entry, decision, reader_group
from postfix_archive.access.access_entry import Entry, User
from postfix_archive.access.decision import Decision
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    AccessNotRecorded,
    AccessServiceFailed,
    ArchiveError,
    CopyUnreachable,
    StoreFailed,
)
from postfix_archive.message import digest, received_header
from postfix_archive.store import copy_file, journal_event, record_reader
from postfix_archive.system import files, privileges

REQUEST_LIMIT = 16 << 20  # bytes: 250,000 ids
ANSWER_LIMIT = 1 << 20  # bytes: an invalid query comes back
TIME_LIMIT = 30.0  # seconds for a request and its answer
# The service waits 60 s for each lock, and for the index service, which seldom takes
# longer than this.
DECISION_TIME_LIMIT = 300.0
# For the first bytes of a copy, which the service has read whole then. A proxy gives
# the page about as long.
COPY_TIME_LIMIT = 60.0
SOCKET_MODE = 0o660
PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group id
Append = Callable[[Mapping[str, Sequence[str]], Entry], None]
Decide = Callable[[Settings, Decision], str]
Fetch = Callable[[str, str], Iterator[bytes]]
Load = Callable[[], Settings]


class Copy(NamedTuple):
    """A copy that is asked for; ``sha256`` is that of its file."""

    path: str
    sha256: str


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
        "web_user": entry.user.web_user,
    }
    try:
        answer = _exchange(path, fields, TIME_LIMIT)
    except (OSError, ValueError) as error:
        raise AccessNotRecorded(
            f"{path}: {_reason(error)}; the access service records who reads: as root"
            " run postfix-archive access-service, and see that you are in"
            " archive_reader_group"
        ) from error
    if answer.get("error"):
        raise AccessNotRecorded(f"{path}: {answer['error']}")


def decide(
    settings: Settings, web_user: str, kind: str, **fields: str | list[str]
) -> str:
    """Have the service carry out a decision of settings.WEB_DECISIONS.

    fields are those of decision.Decision. Returns the queue ids of a replay, else "".
    Raises the error with which it failed there, and AccessServiceFailed without an
    answer.
    """
    path = settings.archive_access_socket
    request_fields = {"decision": kind, "web_user": web_user, **fields}
    try:
        answer = _exchange(path, request_fields, DECISION_TIME_LIMIT)
    except (FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
        raise AccessServiceFailed(
            f"{path}: {error.strerror}; {kind} was not carried out: as root run"
            " postfix-archive access-service, and see that archive_web_user is in"
            " archive_reader_group"
        ) from error
    except (OSError, ValueError) as error:
        raise AccessServiceFailed(
            f"{path}: {_reason(error)}; it is not known whether {kind} was carried out;"
            " look before you try again, and see that the access service runs"
        ) from error
    decision.raise_error(answer)
    return str(answer.get("result", ""))


def fetch_copies(settings: Settings) -> None:
    """Let the service read for this process the copies in the object storage alone."""
    copy_file.fetch_moved = functools.partial(fetch_copy, settings)


def fetch_copy(settings: Settings, path: str, sha256: str) -> Iterator[bytes]:
    """Yield the compressed bytes of a copy, from the service.

    Raises StoreFailed as it does, and CopyUnreachable for any other failure, also at
    the end of what does not have this SHA-256.
    """
    name = path.removeprefix(f"{settings.archive_store_directory}/")
    where, received = settings.archive_access_socket, digest.sha256()
    try:
        with _sent(where, {"copy": name}, COPY_TIME_LIMIT) as answers:
            decision.raise_error(_read_answer(answers))
            while block := answers.read(copy_file.BLOCK_SIZE):
                received.update(block)
                yield block
        if received.hexdigest() != sha256:
            raise ValueError("the copy did not come whole")
    except StoreFailed:
        raise
    except (OSError, ValueError, ArchiveError) as error:
        raise CopyUnreachable(
            f"{path}: the whole copy is in the object storage, and {where}, the access"
            f" service, does not give it: {_reason(error)}"
        ) from error


def _exchange(
    path: str, fields: Mapping[str, object], time_limit: float
) -> dict[str, object]:
    """Send a request, and return the answer. Raises OSError and ValueError."""
    with _sent(path, fields, time_limit) as answers:
        return _read_answer(answers)


@contextlib.contextmanager
def _sent(
    path: str, fields: Mapping[str, object], time_limit: float
) -> Iterator[IO[bytes]]:
    """Send a request; yield what its answer is read from. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(time_limit)
        connection.connect(path)
        connection.sendall(json.dumps(fields).encode("ascii") + b"\n")
        with connection.makefile("rb") as answers:
            yield answers


def _read_answer(answers: IO[bytes]) -> dict[str, object]:
    """Return the line of an answer. Raises OSError and ValueError."""
    line = answers.readline(ANSWER_LIMIT)
    if not line:
        raise ValueError("no answer")
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("not an answer")
    return answer


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class AccessService(socketserver.ThreadingUnixStreamServer):
    """Answers requests; no client waits for another that is idle.

    Nothing has to be done before its end: a signal is as harmless as a crash.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that wait for accept(2)

    def __init__(
        self, load: Load, append: Append, decide: Decide, fetch: Fetch
    ) -> None:
        """Listen on archive_access_socket; only archive_reader_group can connect.

        load reads archive.cf; append records an entry; decide carries out a decision,
        and returns what its client gets; fetch is copy_file.fetch_moved. Threads call
        them at the same time. Makes the socket's directory if root may. Raises
        AccessServiceFailed, and what load does.
        """
        settings = load()
        self.load = load
        self.append = append
        self.decide = decide
        self.fetch = fetch
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
        """Do what is asked, and answer; also for a client that has gone by then."""
        try:
            line = self.rfile.readline(REQUEST_LIMIT)
        except OSError:  # the client has gone, or is silent
            return
        answer, blocks = self._answer(line)
        # The client has gone, or the copy ends here; it looks at the SHA-256.
        with contextlib.suppress(OSError, ArchiveError):
            self.wfile.write(json.dumps(answer).encode("ascii") + b"\n")
            for block in blocks:
                self.wfile.write(block)

    def _answer(self, line: bytes) -> tuple[dict[str, object], Iterable[bytes]]:
        """Return the answer, and the bytes of a copy that follow it."""
        try:
            # Anew each time: who takes a right away does not think of this process.
            settings = self.server.load()
            one = parse(line, _peer(self.connection), settings)
        except (ValueError, RecursionError) as error:
            return {"error": f"invalid request: {error}"}, ()
        except ArchiveError as error:
            return decision.error_fields(error), ()
        try:
            if isinstance(one, Decision):
                return {"result": self.server.decide(settings, one)}, ()
            if isinstance(one, Copy):
                blocks = self.server.fetch(*one)
                return {}, chain((next(blocks, b""),), blocks)
            self.server.append(*one)
            return {}, ()
        except ArchiveError as error:
            return decision.error_fields(error), ()


def _group_id(group: str) -> int:
    if not group:
        raise AccessServiceFailed(
            "archive_reader_group is empty: root and the archive's user record"
            " themselves what they read; set it in archive.cf to let others read"
        )
    return reader_group.group_id(group)


def parse(
    line: bytes, user: User, settings: Settings
) -> tuple[dict[str, list[str]], Entry] | Decision | Copy:
    """Return what a request of this user says.

    Ids by archive and an entry, or a decision, or a copy. Raises ValueError, and
    StoreFailed for a store that cannot be read.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict) or not line.endswith(b"\n"):
        raise ValueError("not an object in a line")
    user = _with_web_user(user, fields.get("web_user", ""), settings)
    archives = set(record_reader.archives(settings.archive_store_directory))
    if "decision" in fields:
        return decision.parse(fields, user, archives)
    if "copy" in fields:
        _require_web_process(user, settings, "read a copy here")
        return _moved_copy(fields["copy"], archives, settings)
    texts = [fields.get(name, "") for name in ("action", "query", "reason")]
    if not all(isinstance(each, str) for each in texts) or not texts[0]:
        raise ValueError("action, query and reason must be text")
    ids = fields.get("ids")
    if not isinstance(ids, dict):
        raise ValueError("not an object with ids")
    if not set(ids) <= archives:
        raise ValueError("no such archive")
    for some in ids.values():
        if not isinstance(some, list) or not all(map(_is_archive_id, some)):
            raise ValueError("ids must be archive ids")
    action, query, reason = (each[: access_entry.TEXT_LIMIT] for each in texts)
    return ids, Entry(user, action, query, reason, ())


def _with_web_user(user: User, name: object, settings: Settings) -> User:
    """Return the user with the name at the web page, if its process says so."""
    if name == "":
        return user
    _require_web_process(user, settings, "say who is at the web page")
    if not isinstance(name, str) or not access_entry.is_web_user(name):
        raise ValueError(
            "web_user must be printable text of at most"
            f" {access_entry.WEB_USER_LIMIT} characters"
        )
    return user._replace(web_user=name)


def _require_web_process(user: User, settings: Settings, action: str) -> None:
    web_user = settings.archive_web_user
    if not web_user or user.uid != access_entry.uid_of(web_user):
        raise ValueError(f"only archive_web_user may {action}")


def _moved_copy(name: object, archives: set[str], settings: Settings) -> Copy:
    """Return a copy of which the store has the header: what was removed is in none."""
    if not isinstance(name, str) or not journal_event.is_file_name(name):
        raise ValueError("copy must be the name of a file")
    if name.partition("/")[0] not in archives:
        raise ValueError("no such archive")
    path = f"{settings.archive_store_directory}/{name}"
    sha256 = copy_file.moved_sha256(path)
    if not sha256:
        raise ValueError("the copy is not in the object storage alone")
    return Copy(path, sha256)


def is_running(path: str) -> bool:
    """Tell whether a service listens on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIME_LIMIT)
        try:
            connection.connect(path)
        except OSError:
            return False
    return True


def _peer(connection: socket.socket) -> User:
    size = PEER_CREDENTIALS.size
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    process_id, uid, _ = PEER_CREDENTIALS.unpack(credentials)
    return access_entry.user_of(uid, process_id)


def _is_archive_id(value: object) -> bool:
    return isinstance(value, str) and received_header.is_archive_id(value)
