"""Holds the message that is being handled, so that it can be read several times.

Used by both transports. Small messages stay in memory; large ones go to an unnamed
file, which the kernel removes with the process. Nothing here needs to be durable, since
Postfix keeps the message in its queue until the transport reports success. Also names
the files of one user in a spool directory, which others may write.
"""

from __future__ import annotations

import posix as os

from postfix_archive.errors import CapsuleBroken, SpoolFailed
from postfix_archive.message import capsule, digest, header, smtp_data
from postfix_archive.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

READ_SIZE = 1 << 16  # bytes a read; the capacity of a Linux pipe (pipe(7))
MEMORY_LIMIT = 4 << 20  # bytes; a larger message goes to a file


class Spool:
    """A message in canonical form that can be read from any offset, many times."""

    __slots__ = ("_file", "_memory", "size")

    def __init__(self) -> None:
        self._memory: list[bytes] = []
        self._file = -1
        self.size = 0

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from start up to stop (default: the end), in chunks."""
        stop = self.size if stop is None else min(stop, self.size)
        source = self._file_chunks(start, stop) if self._file >= 0 else self._memory
        position = start if self._file >= 0 else 0
        for chunk in source:
            if position + len(chunk) > start and position < stop:
                yield chunk[max(0, start - position) : stop - position]
            position += len(chunk)

    def head(self, start: int = 0, limit: int = header.HEAD_LIMIT) -> bytes:
        """Return the bytes from start on, at most limit of them."""
        return b"".join(self.chunks(start, start + limit))

    def digests(self, offsets: list[int]) -> dict[int, bytes]:
        """Return the SHA-256 of the message from each of these offsets on."""
        digest.select_implementation(self.size * len(offsets))
        hashes = [(offset, digest.sha256()) for offset in offsets]
        position = 0
        for chunk in self.chunks():
            for offset, sha256 in hashes:
                if offset < position + len(chunk):
                    sha256.update(chunk[max(0, offset - position) :])
            position += len(chunk)
        return {offset: sha256.digest() for offset, sha256 in hashes}

    def shape(self, start: int = 0) -> smtp_data.ContentProperties:
        """Return what SMTP must support to carry the message from start on."""
        shape = smtp_data.ContentProperties()
        for chunk in self.chunks(start):
            shape.update(chunk)
        return shape

    def add(self, chunk: bytes, directory: str) -> None:
        """Append a chunk; a file, if one is needed, is made in directory."""
        self.size += len(chunk)
        if self._file < 0 and self.size <= MEMORY_LIMIT:
            self._memory.append(chunk)
            return
        if self._file < 0:
            self._file = _open_unnamed_file(directory)
            memory_chunks, self._memory = self._memory, []
            for memory_chunk in memory_chunks:
                files.write_all(self._file, memory_chunk)
        files.write_all(self._file, chunk)

    def close(self) -> None:
        """Free memory and file."""
        self._memory = []
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _file_chunks(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            chunk = os.pread(self._file, READ_SIZE, start)
            if not chunk:
                raise SpoolFailed(
                    "spool file is shorter than the message; Postfix will retry"
                )
            yield chunk
            start += len(chunk)


def read(descriptor: int, directory: str, *, canonical: bool = False) -> Spool:
    """Return the message that pipe(8) writes to descriptor, in canonical form.

    canonical: it has that form already, as our own files have. Reads to the end, since
    a transport that closes its stdin early and exits with 0 counts as success. Raises
    SpoolFailed.
    """
    spool = Spool()
    try:
        chunks = _read_chunks(descriptor)
        for chunk in chunks if canonical else smtp_data.to_canonical(chunks):
            spool.add(chunk, directory)
    except OSError as error:
        raise _spool_error(spool, directory, error) from error
    return spool


def append(message: Spool, chunk: bytes, directory: str) -> None:
    """Append a chunk that is in canonical form already. Raises SpoolFailed."""
    try:
        message.add(chunk, directory)
    except OSError as error:
        raise _spool_error(message, directory, error) from error


def unpack(message: Spool, directory: str) -> Spool:
    """Return a capsule with its body decompressed; the same message if it is plain.

    Raises CapsuleBroken and SpoolFailed.
    """
    head = message.head()
    if not capsule.is_packed(head):
        return message
    plain = Spool()
    try:
        body = message.chunks(len(head))
        for chunk in capsule.unpack(smtp_data.chain((head,), body)):
            plain.add(chunk, directory)
    except CapsuleBroken:
        plain.close()
        raise
    except OSError as error:
        raise SpoolFailed(
            f"cannot spool a capsule of {message.size} bytes: {error};"
            f" check archive_spool_directory = {directory}"
        ) from error
    message.close()
    return plain


def _spool_error(message: Spool, directory: str, error: OSError) -> SpoolFailed:
    return SpoolFailed(
        f"cannot spool a message of at least {message.size} bytes: {error};"
        f" check archive_spool_directory = {directory}"
    )


def _read_chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, READ_SIZE):
        yield chunk


def _open_unnamed_file(directory: str) -> int:
    """Open a file without a name: private, and removed when it is closed."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):  # a file system without O_TMPFILE
        path = f"{directory}/.postfix-archive-{os.getpid()}-{os.urandom(8).hex()}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        os.unlink(path)
        return descriptor


def own_path(directory: str, name: str, user_id: int | None = None) -> str:
    """Return the path of a file of one user in a directory that others can write.

    user_id: the owner, by default this process's user. The file may not exist yet.
    Where another user has taken the name, the path has random digits, and is the same
    for all later calls.
    """
    owner = os.geteuid() if user_id is None else user_id
    path = f"{directory}/{name}"
    if _is_owned_by(owner, path, default=True):
        return path
    with os.scandir(directory) as entries:
        names = [each.name for each in entries if each.name.startswith(f"{name}.")]
    candidates = (f"{directory}/{each}" for each in names)
    paths = [each for each in candidates if _is_owned_by(owner, each)]
    return min(paths, default=f"{path}.{os.urandom(files.DRAFT_ID_SIZE).hex()}")


def _is_owned_by(owner: int, path: str, default: bool = False) -> bool:
    """Tell whether a user owns a file; default if there is none."""
    try:
        return os.lstat(path).st_uid == owner
    except OSError:
        return default


class FailureMarker:
    """A file that says when something has failed last; each user has its own.

    ``pause``: the seconds after that in which it is not tried again.
    """

    __slots__ = ("_directory", "_name", "_pause")

    def __init__(self, directory: str, name: str, pause: int) -> None:
        self._directory = directory
        self._name = name
        self._pause = pause

    @property
    def path(self) -> str:
        """The path of the file, which may not exist. Raises OSError."""
        return own_path(self._directory, self._name)

    def is_recent(self, now: int) -> bool:
        """Tell whether the failure is less than a pause ago; now is Unix time."""
        try:
            stat = os.lstat(self.path)
        except OSError:
            return False
        return stat.st_uid == os.geteuid() and abs(now - stat.st_mtime) < self._pause

    def touch(self) -> None:
        """Note a failure; ignore errors."""
        try:
            files.touch(self.path)
        except OSError:
            pass  # the directory cannot be read
