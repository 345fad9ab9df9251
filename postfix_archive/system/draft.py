"""A file of the store while it is being written, and its publication.

Used by store, replicate and the fallback directory. A file is a draft until it is
published; then its content, its name and all directories above it are on disk.
Raises StoreFailed.
"""

from __future__ import annotations

import posix as os

from postfix_archive.system import files


class Draft:
    """A file being written, under a name of its own until it is published."""

    __slots__ = ("_descriptor", "path", "size")

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/{os.getpid()}-{os.urandom(files.DRAFT_ID_SIZE).hex()}"
        try:
            self._descriptor = os.open(
                self.path, files.NEW_FILE_FLAGS, files.DRAFT_MODE
            )
        except OSError as error:
            raise files.store_error(self.path, error) from error
        self.size = 0

    def write(self, content: bytes) -> None:
        """Append content."""
        try:
            files.write_all(self._descriptor, content)
        except OSError as error:
            raise files.store_error(self.path, error) from error
        self.size += len(content)

    def sync(self) -> None:
        """Make the bytes durable."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise files.store_error(self.path, error) from error

    def publish(self, path: str) -> None:
        """Link the synced file to path, durably; never replaces an existing file."""
        if not self.publish_new(path):
            raise files.store_error(path, OSError(0, "File exists"))

    def publish_new(self, path: str) -> bool:
        """Link the synced file to path, durably; False if there is a file already."""
        try:
            os.link(self.path, path, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            raise files.store_error(path, error) from error
        files.sync_directory(files.parent_directory(path))
        return True

    def is_at(self, path: str) -> bool:
        """Return whether path is this file; False if it cannot be looked up."""
        try:
            stat, own_stat = os.lstat(path), os.fstat(self._descriptor)
        except OSError:
            return False
        return (stat.st_dev, stat.st_ino) == (own_stat.st_dev, own_stat.st_ino)

    def replace(self, path: str) -> None:
        """Rename the file to path; not durable."""
        try:
            os.rename(self.path, path)
        except OSError as error:
            raise files.store_error(path, error) from error

    def discard(self) -> None:
        """Close the file and remove the draft's own name; a published name stays."""
        try:
            os.close(self._descriptor)
            os.unlink(self.path)
        except OSError:
            pass  # remove_drafts() removes it later
