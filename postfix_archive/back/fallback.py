"""The fallback directory: capsules that could not be stored, on another file system.

Used by archive_transport and rescue (write), and by archive_transport/fallback_import
(read, remove). Each file is one complete capsule and is named by its SHA-256, so that
writing it twice gives one file. These messages are not archived yet; outside Postfix's
queue they do not expire. Raises StoreFailed.
"""

from __future__ import annotations

import posix as os

from postfix_archive.back import files
from postfix_archive.core import capsule, digest, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.back.spool import Spool

SUFFIX = ".capsule"
WHY = "why"  # the last reason, as text
DRAFTS = "drafts"


def put(folder: str, message: Spool, why: str) -> str:
    """Write a capsule, durably; return its file name. Raises StoreFailed."""
    start = max(0, capsule.start(message.head()))
    name = message.digests([start])[start].hex() + SUFFIX
    path = f"{folder}/{name}"
    if files.is_file(path):  # from an attempt that was interrupted
        _check(path, name)
        files.sync_folder(folder)
        return name
    if not files.is_folder(f"{folder}/{DRAFTS}"):
        files.make_folder(f"{folder}/{DRAFTS}")
    draft = files.Draft(f"{folder}/{DRAFTS}")
    try:
        for piece in message.pieces():
            draft.write(piece)
        draft.sync()
        draft.publish(path)
    finally:
        draft.discard()
    _note(folder, why)
    return name


def waiting(folder: str) -> list[tuple[float, str]]:
    """Return (mtime, path) of each capsule, oldest first; mtime is Unix time.

    A missing directory has no capsules. Raises StoreFailed.
    """
    try:
        with os.scandir(folder) as found:
            mine = [each.path for each in found if each.name.endswith(SUFFIX)]
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise files.failed(folder, problem) from problem
    return sorted(filter(None, map(_since, mine)))


def why(folder: str) -> str:
    """Return why the last capsule was written here, "" if that is unknown."""
    try:
        with open(files.opened(f"{folder}/{WHY}"), "rb") as opened:
            return " ".join(opened.read(2000).decode("utf-8", "replace").split())
    except OSError:
        return ""


def opened(path: str) -> int:
    """Open a capsule for reading; return the descriptor. Raises StoreFailed."""
    try:
        return files.opened(path)
    except OSError as problem:
        raise files.failed(path, problem) from problem


def done(path: str) -> None:
    """Remove a capsule that has been stored. Raises StoreFailed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as problem:
        raise files.failed(path, problem) from problem


def _since(path: str) -> tuple[float, str] | None:
    """Return (mtime, path) of a capsule, None if it has just been removed."""
    try:
        return os.lstat(path).st_mtime, path
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise files.failed(path, problem) from problem


def _check(path: str, name: str) -> None:
    """Raise StoreFailed unless the SHA-256 of the capsule is its file name."""
    with open(opened(path), "rb") as found:
        head = found.read(header.HEAD_LIMIT)
        total = digest.sha256(head[max(0, capsule.start(head)) :])
        while block := found.read(header.HEAD_LIMIT):
            total.update(block)
    if total.hexdigest() + SUFFIX != name:
        raise files.failed(
            path, OSError(0, "SHA-256 of the capsule differs from its file name")
        )


def _note(folder: str, why: str) -> None:
    """Write the reason; ignore OSError, since the capsule itself is durable."""
    draft = f"{folder}/{WHY}.{os.getpid()}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(draft, flags, files.DRAFT_MODE)
        try:
            files.write_all(descriptor, why.encode("utf-8", "replace") + b"\n")
        finally:
            os.close(descriptor)
        os.replace(draft, f"{folder}/{WHY}")
    except OSError:
        pass
