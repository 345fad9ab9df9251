"""The fallback directory: capsules that could not be stored, on another file system.

Used by archive_transport and rescue (write), and by archive_transport/fallback_import
(read, remove). Each file is one complete capsule and is named by its SHA-256, so that
writing it twice gives one file. These messages are not archived yet; outside Postfix's
queue they do not expire. Raises StoreFailed.
"""

from __future__ import annotations

import posix as os

from postfix_archive.errors import StoreFailed
from postfix_archive.message import capsule, digest, header
from postfix_archive.system import files
from postfix_archive.system.draft import Draft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.system.spool import Spool

CAPSULE_SUFFIX = ".capsule"
REASON_FILE = "why"  # the last reason, as text
DRAFTS = "drafts"


def put(directory: str, message: Spool, reason: str) -> str:
    """Write a capsule, durably; return its file name. Raises StoreFailed."""
    start = max(0, capsule.fields_offset(message.head()))
    name = message.digests([start])[start].hex() + CAPSULE_SUFFIX
    path = f"{directory}/{name}"
    if files.is_file(path):  # from an attempt that was interrupted
        _check_content(path, name)
        files.sync_directory(directory)
        return name
    if not files.is_directory(f"{directory}/{DRAFTS}"):
        files.make_directory(f"{directory}/{DRAFTS}")
    draft = Draft(f"{directory}/{DRAFTS}")
    try:
        for chunk in message.chunks():
            draft.write(chunk)
        draft.sync()
        draft.publish(path)
    finally:
        draft.discard()
    _write_reason(directory, reason)
    return name


def waiting_capsules(directory: str) -> list[tuple[float, str]]:
    """Return (mtime, path) of each capsule, oldest first; mtime is Unix time.

    A missing directory has no capsules. Raises StoreFailed.
    """
    try:
        with os.scandir(directory) as entries:
            paths = [
                each.path for each in entries if each.name.endswith(CAPSULE_SUFFIX)
            ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.store_error(directory, error) from error
    return sorted(filter(None, map(_waiting_since, paths)))


def last_reason(directory: str) -> str:
    """Return why the last capsule was written here, "" if that is unknown."""
    try:
        with open(files.open_regular(f"{directory}/{REASON_FILE}"), "rb") as file:
            return " ".join(file.read(2000).decode("utf-8", "replace").split())
    except OSError:
        return ""


def open_capsule(path: str) -> int:
    """Open a capsule for reading; return the descriptor. Raises StoreFailed."""
    try:
        return files.open_regular(path)
    except OSError as error:
        raise files.store_error(path, error) from error


def remove(path: str) -> None:
    """Remove a capsule that has been stored. Raises StoreFailed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise files.store_error(path, error) from error


def _waiting_since(path: str) -> tuple[float, str] | None:
    """Return (mtime, path) of a capsule, None if it has just been removed."""
    try:
        return os.lstat(path).st_mtime, path
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.store_error(path, error) from error


def _check_content(path: str, name: str) -> None:
    """Raise StoreFailed unless the SHA-256 of the capsule is its file name."""
    with open(open_capsule(path), "rb") as file:
        head = file.read(header.HEAD_LIMIT)
        sha256 = digest.sha256(head[max(0, capsule.fields_offset(head)) :])
        while block := file.read(header.HEAD_LIMIT):
            sha256.update(block)
    if sha256.hexdigest() + CAPSULE_SUFFIX != name:
        raise files.store_error(
            path, OSError(0, "SHA-256 of the capsule differs from its file name")
        )


def _write_reason(directory: str, reason: str) -> None:
    """Write the reason; ignore errors, since the capsule itself is durable."""
    try:
        draft = Draft(f"{directory}/{DRAFTS}")
        try:
            draft.write(reason.encode("utf-8", "replace") + b"\n")
            draft.replace(f"{directory}/{REASON_FILE}")
        finally:
            draft.discard()
    except StoreFailed:
        pass
