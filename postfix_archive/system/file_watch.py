"""Detects changes of files by stat(2), without reading them.

Used by the long-running processes, such as intake/lmtp_worker and cli/outcomes.
"""

from __future__ import annotations

import os


class Watch:
    """The state of some files at the time of its construction.

    Construct it before reading the files, so that no change is missed.
    """

    __slots__ = ("_initial_state", "_paths")

    def __init__(self, *paths: str) -> None:
        self._paths = paths
        self._initial_state = self._current_state()

    def add(self, path: str) -> None:
        """Watch a file, too, from now on; "" is none, and never changes."""
        self._paths += (path,)
        self._initial_state.append(_file_state(path))

    @property
    def is_changed(self) -> bool:
        """True if a file has been written, replaced, made or removed since."""
        return self._current_state() != self._initial_state

    def _current_state(self) -> list[tuple[int, int, int]]:
        return [_file_state(each) for each in self._paths]


def _file_state(path: str) -> tuple[int, int, int]:
    """Return inode, size and mtime in nanoseconds; zeros if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)
