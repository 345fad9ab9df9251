"""The undo record of an installation: the configuration before, and what was changed.

Used by front/install. One folder an instance, for root alone:

    /etc/postfix-archive/<instance>.undo/main.cf, master.cf  as they were
    /etc/postfix-archive/<instance>.undo/record.json         changes, digests

Where nobody has touched the files since, they come back byte for byte; where somebody
has, our changes are taken back one by one and everybody else's stay.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from postfix_archive.back import postconf, program
from postfix_archive.core.ways import Change

STATE = Path("/etc/postfix-archive")
FILES = ("main.cf", "master.cf")


class Undo:
    """The undo record of one instance."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = Path(directory)
        self.folder = STATE / f"{name}.undo"
        self._touched = False

    @property
    def exists(self) -> bool:
        """Tell whether there is a record: an installation that can be taken back."""
        return (self.folder / "record.json").exists()

    def keep(self) -> None:
        """Keep both files as they are now, before anything is changed.

        A later installation adds to the record that there is; what somebody has
        changed between the two must survive, so then nothing is put back as a whole.
        """
        if self.exists:
            self._touched = not self.is_untouched()
            return
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        for name in FILES:
            put_back(self.directory / name, self.folder / name)
        self._write([], {})

    def done(self, changes: tuple[Change, ...]) -> None:
        """Add changes that were made; note the files' digests after them."""
        merged = {(each.where, each.name): each for each in self.changes()}
        for each in changes:
            first = merged.get((each.where, each.name), each)
            merged[each.where, each.name] = replace(each, before=first.before)
        after = {} if self._touched else self._digests()
        self._write(list(merged.values()), after)

    def changes(self) -> list[Change]:
        """Return all changes of this installation, the first ones first."""
        if not self.exists:
            return []
        return [Change(**each) for each in self._record()["changes"]]

    def is_untouched(self) -> bool:
        """Tell whether nobody has changed the files since."""
        return bool(self._record()["after"] == self._digests())

    def restore(self) -> None:
        """Put both files back byte for byte, with mode and owner."""
        for name in FILES:
            put_back(self.folder / name, self.directory / name)

    def forget(self) -> None:
        """Take the record away: everything is as before."""
        shutil.rmtree(self.folder)

    def _record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "record.json").read_text())
        return found

    def _write(self, changes: list[Change], after: dict[str, str]) -> None:
        record = {"changes": [asdict(each) for each in changes], "after": after}
        text = json.dumps(record, indent=1) + "\n"
        program.replace(self.folder / "record.json", text, 0o600)

    def _digests(self) -> dict[str, str]:
        return {
            name: hashlib.sha256((self.directory / name).read_bytes()).hexdigest()
            for name in FILES
        }


def make(directory: str, change: Change) -> None:
    """Make one change, by postconf(1)."""
    if change.where == "main":
        if change.after is None:
            postconf.remove_main(directory, change.name)
        else:
            postconf.set_main(directory, change.name, change.after)
    elif change.where == "service":
        if change.after is None:
            postconf.remove_service(directory, change.name)
        else:
            postconf.set_service(directory, change.name, change.after)
    else:
        key, _, option = change.name.rpartition("/")
        if change.after is None:
            postconf.remove_option(directory, key, option)
        else:
            postconf.set_option(directory, key, option, change.after)


def put_back(kept: Path, path: Path) -> None:
    """Replace a file by the kept one, whole: bytes, mode, owner, times."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.copy2(kept, draft)
    status = kept.stat()
    os.chown(draft, status.st_uid, status.st_gid)
    draft.replace(path)
