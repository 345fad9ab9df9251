"""The undo record of an installation: the configuration before, and what was changed.

Used by install and uninstall. One folder an instance, for root alone:

    /etc/postfix-archive/<instance>.undo/main.cf, master.cf  as they were
    /etc/postfix-archive/<instance>.undo/record.json         changes, digests

All of it is durable before anything is changed, and knows every state in which we
ourselves may leave the files. Where nobody else has touched them, they come back byte
for byte; where somebody has, our changes are taken back one by one and everybody else's
stay.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
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
        """Tell whether there is a record: an installation that can be taken back."""
        return (self.folder / "record.json").exists()

    @property
    def is_unfinished(self) -> bool:
        """Tell whether an installation was begun and never came to its end."""
        return bool(self._record.get("unfinished"))

    @property
    def is_untouched(self) -> bool:
        """Tell whether the files are as we left them, however far we came."""
        return self._knows(drafts.read(self.directory))

    @property
    def is_restored(self) -> bool:
        """Tell whether the files are, byte for byte, what is kept."""
        return drafts.read(self.directory) == drafts.read(self.folder)

    @property
    def changes(self) -> list[Change]:
        """All changes of this installation, made or only begun, first ones first."""
        return [Change(**each) for each in self._record.get("changes", [])]

    def begin(self, changes: Iterable[Change], states: Iterable[Contents]) -> None:
        """Note what is about to change, and every state the files will be in.

        A later installation adds to the record that there is. What somebody has changed
        between the two must survive, so then nothing is put back as a whole.
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
        self._write([asdict(e) for e in merged.values()], known, unfinished=True)
        self.expect(*self._made)

    def expect(self, *states: Contents) -> None:
        """Note states in which we are going to leave the files."""
        if not self.is_untouched:
            return
        known = {name: list(seen) for name, seen in self._record["states"].items()}
        for state in states:
            for name, digest in drafts.digests(state).items():
                known[name] += [digest] if digest not in known[name] else []
        self._write(self._record["changes"], known, unfinished=self.is_unfinished)

    def finish(self) -> None:
        """Note that the installation came to its end."""
        self._write(self._record["changes"], self._record["states"], unfinished=False)

    def roll_back(self) -> None:
        """Put the files back as they were when this installation began.

        What somebody else has changed meanwhile stays, and so does the record then.
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
        """Put both files back byte for byte, with mode and owner."""
        for name in drafts.FILES:
            drafts.put_back(self.folder / name, self.directory / name)

    def forget(self) -> None:
        """Take the record away: everything is as before."""
        (self.folder / "record.json").unlink()
        shutil.rmtree(self.folder)

    def put_aside(self) -> Path:
        """Take the record away and keep the files that it has; return where."""
        moment = time.strftime("%Y%m%dT%H%M%S")
        aside = self.folder.with_suffix(f".before-{moment}")
        self.folder.rename(aside)
        program.sync(STATE)
        return aside

    def _keep(self) -> None:
        """Keep both files as they are now: these are what uninstall brings back."""
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
