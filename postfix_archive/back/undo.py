"""The undo record of an installation: the original files and the list of changes.

Used by install and uninstall. One directory for each instance, mode 0700:

    /etc/postfix-archive/<instance>.undo/main.cf, master.cf  the original files
    /etc/postfix-archive/<instance>.undo/record.json         changes, digests

The record is durable before the first change and has the digest of every content that
an installation can leave. If the files have one of these, uninstall restores the
originals byte for byte; otherwise it reverts our changes one by one and keeps others.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from postfix_archive.back import drafts, program
from postfix_archive.back.drafts import Contents
from postfix_archive.core.ways import Change

STATE = Path("/etc/postfix-archive")


class Undo:
    """The undo record of one instance."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = Path(directory)
        self.folder = STATE / f"{name}.undo"
        self._before: Contents = {}
        self._made: list[Contents] = []
        self._record: dict[str, Any] = {}
        if self.exists:
            self._record = json.loads((self.folder / "record.json").read_text())

    @property
    def exists(self) -> bool:
        """Tell whether there is a record, so that uninstall is possible."""
        return (self.folder / "record.json").exists()

    @property
    def is_unfinished(self) -> bool:
        """Tell whether an installation began and did not finish."""
        return bool(self._record.get("unfinished"))

    @property
    def is_untouched(self) -> bool:
        """Tell whether both files have contents that an installation left."""
        return self._knows(drafts.read(self.directory))

    @property
    def is_restored(self) -> bool:
        """Tell whether both files equal the originals, byte for byte."""
        return drafts.read(self.directory) == drafts.read(self.folder)

    @property
    def changes(self) -> list[Change]:
        """All changes of this installation, applied or only begun, in order."""
        return [_from_json(each) for each in self._record.get("changes", [])]

    def begin(self, changes: Iterable[Change], states: Iterable[Contents]) -> None:
        """Record the changes to come, and every state that the files will have.

        A later installation extends the existing record. If somebody has edited the
        files in between, the record loses its states: the edits must survive, so
        uninstall then reverts change by change.
        """
        self._record_before = dict(self._record)
        self._before = drafts.read(self.directory)
        self._made = [self._before, *states]
        if not self.exists:
            self._keep()
        known = self._record["states"] if self.is_untouched else {}
        merged = {(each.where, each.name): each for each in self.changes}
        for each in changes:
            first = merged.get((each.where, each.name), each)
            merged[each.where, each.name] = replace(each, before=first.before)
        self._write([_to_json(e) for e in merged.values()], known, unfinished=True)
        self.expect(*self._made)

    def expect(self, *states: Contents) -> None:
        """Record further states of the files, unless somebody has edited them."""
        if not self.is_untouched:
            return
        known = {name: list(seen) for name, seen in self._record["states"].items()}
        for state in states:
            for name, digest in drafts.digests(state).items():
                known[name] += [digest] if digest not in known[name] else []
        self._write(self._record["changes"], known, unfinished=self.is_unfinished)

    def finish(self) -> None:
        """Record that the installation is complete."""
        self._write(self._record["changes"], self._record["states"], unfinished=False)

    def roll_back(self) -> None:
        """Restore the files as they were when this installation began.

        A file that somebody else has changed meanwhile stays, and so does the record.
        """
        now, before = drafts.read(self.directory), self._before
        if not before:
            return
        ours = {name for name in now if now[name] in [e[name] for e in self._made]}
        after = {name: before[name] if name in ours else now[name] for name in now}
        drafts.put(self.directory, after, now)
        if after != before:
            self._write(self._record["changes"], {}, unfinished=True)
        elif self._record_before:
            self._record = self._record_before
            self._save()
        elif self.exists:
            self.restore()
            self.forget()

    def restore(self) -> None:
        """Restore both original files byte for byte, with mode and owner."""
        for name in drafts.FILES:
            drafts.put_back(self.folder / name, self.directory / name)

    def forget(self) -> None:
        """Delete the record, after the originals are restored."""
        (self.folder / "record.json").unlink()
        shutil.rmtree(self.folder)

    def put_aside(self) -> Path:
        """End the record but keep the original files; return their directory."""
        moment = time.strftime("%Y%m%dT%H%M%S")
        aside = self.folder.with_suffix(f".before-{moment}")
        self.folder.rename(aside)
        program.sync(STATE)
        return aside

    def _keep(self) -> None:
        """Save both files as the originals that uninstall restores."""
        STATE.mkdir(mode=0o755, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for name in drafts.FILES:
            drafts.put_back(self.directory / name, self.folder / name)
        program.sync(STATE)
        found = drafts.digests(self._before)
        self._record["states"] = {name: [found[name]] for name in found}

    def _knows(self, contents: Contents) -> bool:
        states = self._record.get("states", {})
        found = drafts.digests(contents)
        return all(found[name] in states.get(name, []) for name in found)

    def _write(
        self, changes: list[dict[str, Any]], states: Any, *, unfinished: bool
    ) -> None:
        self._record = {"changes": changes, "states": states, "unfinished": unfinished}
        self._save()

    def _save(self) -> None:
        text = json.dumps(self._record, indent=1) + "\n"
        program.replace(self.folder / "record.json", text, 0o600)


def _to_json(change: Change) -> dict[str, Any]:
    """Return a change with the keys of record.json."""
    return {
        "where": change.where,
        "name": change.name,
        "after": change.after,
        "before": change.before,
        "gate": change.gate,
    }


def _from_json(data: dict[str, Any]) -> Change:
    """Return the change that _to_json has written."""
    return Change(
        data["where"], data["name"], data["after"], data["before"], data["gate"]
    )
