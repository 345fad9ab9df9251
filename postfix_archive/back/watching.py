"""Notices that somebody has changed a configuration, without reading it.

Used by front/outcomes, which runs for weeks: three calls of stat(2) a look, none of
postconf(1).
"""

from __future__ import annotations

import os

from postfix_archive.back import config

FILES = ("main.cf", "master.cf", config.NAME)
Stamp = tuple[int, int, int]


class Watch:
    """The configuration files of a directory, as they were when this was made.

    Make it before they are read: so no change falls in between.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._before = self._look()

    @property
    def is_changed(self) -> bool:
        """Tell whether one was written, replaced, made or taken away since."""
        return self._look() != self._before

    def _look(self) -> list[Stamp]:
        return [_stamp(f"{self._directory}/{each}") for each in FILES]


def _stamp(path: str) -> Stamp:
    try:
        told = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (told.st_ino, told.st_size, told.st_mtime_ns)
