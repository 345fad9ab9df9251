"""The fallback directory: capsules that the store could not take, on another disk.

Used by front/archive_transport and by rescue (put), and by front/returning (waiting,
done). Whole capsules as they came, each in one file that is named after its content, so
that the same capsule twice is one file. What is here is not archived yet: it is mail in
flight that waits outside Postfix's queue, where nothing expires.
"""

from __future__ import annotations

import posix as os

from postfix_archive.back import files
from postfix_archive.core import capsule, digest, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.back.spool import Spool

SUFFIX = ".capsule"
WHY = "why"  # the last reason for putting something here, for people
DRAFTS = "drafts"


def put(folder: str, message: Spool, why: str) -> str:
    """Keep a capsule, durably; return the name of its file. Raises StoreFailed."""
    start = max(0, capsule.start(message.head()))
    name = message.digests([start])[start].hex() + SUFFIX
    path = f"{folder}/{name}"
    if files.is_file(path):  # of a run that got no further
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
    """Return since when (Unix time) and under which path capsules wait, oldest first.

    A folder that is not there holds nothing. Raises StoreFailed.
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
    """Return the last reason for which a capsule was put here, "" if none is known."""
    try:
        with open(files.opened(f"{folder}/{WHY}"), "rb") as opened:
            return " ".join(opened.read(2000).decode("utf-8", "replace").split())
    except OSError:
        return ""


def opened(path: str) -> int:
    """Open a capsule to be read; return the descriptor. Raises StoreFailed."""
    try:
        return files.opened(path)
    except OSError as problem:
        raise files.failed(path, problem) from problem


def done(path: str) -> None:
    """Take a capsule away that the store has now. Raises StoreFailed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as problem:
        raise files.failed(path, problem) from problem


def _since(path: str) -> tuple[float, str] | None:
    """Return since when a capsule waits, None if it was taken away just now."""
    try:
        return os.lstat(path).st_mtime, path
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise files.failed(path, problem) from problem


def _check(path: str, name: str) -> None:
    """Raise StoreFailed unless a file holds the capsule that it is named after."""
    with open(opened(path), "rb") as found:
        head = found.read(header.HEAD_LIMIT)
        total = digest.sha256(head[max(0, capsule.start(head)) :])
        while block := found.read(header.HEAD_LIMIT):
            total.update(block)
    if total.hexdigest() + SUFFIX != name:
        raise files.failed(path, OSError(0, "it is not the capsule that it is named"))


def _note(folder: str, why: str) -> None:
    """Note the reason; that it cannot be noted loses nothing."""
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
