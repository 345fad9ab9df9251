"""make install DRY_RUN=yes: prints the planned changes and changes nothing.

Used by install/main. Prints a unified diff of main.cf and master.cf, then what would be
created besides.
"""

from __future__ import annotations

import difflib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from postfix_archive.back import drafts, service, timers
from postfix_archive.back.instance import Instance
from postfix_archive.back.program import Program
from postfix_archive.core.ways import Change, Wish


def show(
    place: Instance, wish: Wish, changes: tuple[Change, ...], laid: Program
) -> None:
    """Print what an installation would change and create."""
    sys.stdout.writelines(_diff(place, changes))
    made = list(_missing(place, wish, laid))
    for what, name in made:
        print(f"{what + ':':<12}{name} would be created")
    if not changes and not made:
        print("Nothing to change.")


def _diff(place: Instance, changes: tuple[Change, ...]) -> Iterator[str]:
    """Yield the lines of the diff; bytes that are not UTF-8 become surrogates."""
    with tempfile.TemporaryDirectory() as folder:
        for name in reversed(drafts.FILES):
            shutil.copy2(Path(place.directory, name), folder)
        for each in changes:
            drafts.make(folder, each)
        for name in reversed(drafts.FILES):
            path = Path(place.directory, name)
            yield from difflib.unified_diff(
                _lines(path),
                _lines(Path(folder, name)),
                str(path),
                f"{path} with the archive",
            )


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "surrogateescape").splitlines(True)


def _missing(place: Instance, wish: Wish, laid: Program) -> Iterator[tuple[str, str]]:
    """Yield what would be created: label and name."""
    if not laid.is_current:
        yield "Program", f"{laid.lib}/releases/{laid.release}"
    if not laid.command.exists():
        yield "Command", str(laid.command)
    yield from place.missing(wish)
    timer = timers.missing(place.name)
    if timer:
        yield "Timer", timer
    follower = service.missing(place.name)
    wanted = place.loaded().follows
    if follower and not service.obstacle(place.found, is_wanted=wanted):
        yield "Follower", follower
