"""The directory of an export: made once, locked, and written by descriptor.

Used by export/run and export/writers. Everything is opened relative to the descriptor
of the directory: root may export into a directory of another user, who could put a
symlink in its place. Files have mode 0600, directories 0700. Raises ExportFailed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator

from postfix_archive.errors import ExportFailed
from postfix_archive.system import files

DRAFT = "draft"  # the message that is being written; there is at most one
WHOLE_DRAFT = "draft.whole"  # of a file that is written in one step
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Target:
    """The directory of one export. A context manager, which unlocks it."""

    def __init__(self, path: str, *, resume: bool) -> None:
        """Make the directory; with resume open the one that is there.

        Raises ExportFailed if it exists, or with resume does not, is another user's,
        or is being written by another export.
        """
        self.path = path
        self._directories: set[str] = set()
        with self.translated(path):
            if not resume:
                self._make(path)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                self.descriptor = os.open(path, flags)
            except FileNotFoundError:
                raise ExportFailed(
                    f"{path}: no export to go on with; leave out --resume"
                ) from None
        try:
            self._lock()
        except ExportFailed:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    @property
    def spool_directory(self) -> str:
        """The directory as a path that nobody can lead elsewhere (proc(5))."""
        return f"/proc/self/fd/{self.descriptor}"

    def open_append(self, name: str, size: int) -> int:
        """Open a file to be continued at size, which it is cut to."""
        with self.translated(name):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(name, flags, 0o600, dir_fd=self.descriptor)
            os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
        return descriptor

    def write(self, descriptor: int, content: bytes, name: str) -> None:
        """Append content to a file of the export."""
        with self.translated(name):
            files.write_all(descriptor, content)

    def write_draft(self, chunks: Iterable[bytes], mtime: float) -> int:
        """Write a file under the name DRAFT; return its size in bytes."""
        size = 0
        with self.translated(DRAFT):
            descriptor = os.open(DRAFT, NEW_FILE, 0o600, dir_fd=self.descriptor)
            try:
                for chunk in chunks:
                    files.write_all(descriptor, chunk)
                    size += len(chunk)
                os.utime(descriptor, (mtime, mtime))
            finally:
                os.close(descriptor)
        return size

    def publish_draft(self, name: str, draft: str = DRAFT) -> None:
        """Give the draft its name; the directories of it are made."""
        with self.translated(name):
            self.make_directory(name.rpartition("/")[0])
            descriptor = self.descriptor
            os.rename(draft, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)

    def discard_draft(self, draft: str = DRAFT) -> None:
        """Remove a draft, if there is one."""
        with self.translated(draft), contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=self.descriptor)

    def replace(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a whole file in one step, durably."""
        self.discard_draft(WHOLE_DRAFT)
        with self.translated(name):
            descriptor = os.open(WHOLE_DRAFT, NEW_FILE, 0o600, dir_fd=self.descriptor)
            with open(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(descriptor)
        self.publish_draft(name, WHOLE_DRAFT)

    def exists(self, name: str) -> bool:
        """Tell whether the export has a file or directory of this name."""
        with self.translated(name), contextlib.suppress(FileNotFoundError):
            os.lstat(name, dir_fd=self.descriptor)
            return True
        return False

    def make_directory(self, name: str) -> None:
        """Make a directory and those above it, unless they are there."""
        if not name or name in self._directories:
            return
        self.make_directory(name.rpartition("/")[0])
        with self.translated(name), contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        self._directories.add(name)

    @contextlib.contextmanager
    def open_read(self, name: str) -> Iterator[Iterable[bytes]]:
        """Open a file of the export to be read line by line; a missing one is empty."""
        with self.translated(name):
            try:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(name, flags, dir_fd=self.descriptor)
            except FileNotFoundError:
                yield ()
                return
            with open(descriptor, "rb") as file:
                yield file

    def sync(self) -> None:
        """Make all that was written durable."""
        with self.translated(self.path):
            os.sync()

    def _make(self, path: str) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            raise ExportFailed(
                f"{path}: {error.strerror}; give a directory that can be made"
            ) from None

    def _lock(self) -> None:
        status = os.fstat(self.descriptor)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise ExportFailed(
                f"{self.path}: other users can write there; export to a new directory"
            )
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ExportFailed(f"{self.path}: another export writes there") from None

    @contextlib.contextmanager
    def translated(self, name: str) -> Iterator[None]:
        """Translate an OSError about a file of the export."""
        try:
            yield
        except OSError as error:
            place = name if name == self.path else f"{self.path}/{name}"
            raise ExportFailed(
                f"{place}: {error.strerror}; then go on with --resume"
            ) from error


def require_absent(path: str) -> None:
    """Raise ExportFailed if something is at this path, or no directory above it."""
    if os.path.lexists(path):
        raise _exists(path)
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        raise ExportFailed(f"{path}: {parent} is not a directory; make it first")


def _exists(path: str) -> ExportFailed:
    return ExportFailed(
        f"{path} exists: give another name, or --resume to go on with an export that"
        " was interrupted"
    )
