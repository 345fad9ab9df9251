"""Detects changes of files by stat(2), without reading them.

Used by the long-running processes: intake/lmtp_worker and cli/outcomes.
"""

from __future__ import annotations

import os

from postfix_archive.back import config

FILES = ("main.cf", "master.cf", config.NAME)


class Watch:
    """The state of some files at the time of its construction.

    Construct it before reading the files, so that no change is missed.
    """

    __slots__ = ("_before", "_paths")

    def __init__(self, *paths: str) -> None:
        self._paths = paths
        self._before = self._look()

    @property
    def is_changed(self) -> bool:
        """True if a file has been written, replaced, made or removed since."""
        return self._look() != self._before

    def _look(self) -> list[tuple[int, int, int]]:
        return [_stamp(each) for each in self._paths]


def configuration(directory: str) -> Watch:
    """Return a watch on main.cf, master.cf and archive.cf in a directory."""
    return Watch(*(f"{directory}/{each}" for each in FILES))


def _stamp(path: str) -> tuple[int, int, int]:
    """Return inode, size and mtime in nanoseconds; zeros if there is no file."""
    try:
        told = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (told.st_ino, told.st_size, told.st_mtime_ns)
