"""Notices that somebody has changed files, without reading them.

Used by front/outcomes and front/lmtp, which run for long: a call of stat(2) a file and
look, none of postconf(1).
"""

from __future__ import annotations

import os

from postfix_archive.back import config

FILES = ("main.cf", "master.cf", config.NAME)


class Watch:
    """Some files as they were when this was made.

    Make it before they are read: so no change falls in between.
    """

    __slots__ = ("_before", "_paths")

    def __init__(self, *paths: str) -> None:
        self._paths = paths
        self._before = self._look()

    @property
    def is_changed(self) -> bool:
        """Tell whether one was written, replaced, made or taken away since."""
        return self._look() != self._before

    def _look(self) -> list[tuple[int, int, int]]:
        return [_stamp(each) for each in self._paths]


def configuration(directory: str) -> Watch:
    """Return a watch on the configuration of Postfix, and ours, in a directory."""
    return Watch(*(f"{directory}/{each}" for each in FILES))


def _stamp(path: str) -> tuple[int, int, int]:
    """Return what shows of a file that it is another one; zeros where there is none."""
    try:
        told = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (told.st_ino, told.st_size, told.st_mtime_ns)
