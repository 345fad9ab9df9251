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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from postfix_archive.errors import InstallFailed, InstallRefused
from postfix_archive.install import config_files
from postfix_archive.install.config_files import Contents
from postfix_archive.install.filter_routes import Change
from postfix_archive.system import files

STATE_DIRECTORY = Path("/etc/postfix-archive")


class UndoRecord:
    """The undo record of one instance. Raises InstallRefused if it is damaged."""

    def __init__(self, directory: str, name: str) -> None:
        self.config_directory = Path(directory)
        self.record_directory = STATE_DIRECTORY / f"{name}.undo"
        self._initial: Contents = {}
        self._states: list[Contents] = []
        self._data: dict[str, Any] = {}
        if self.exists:
            self._data = self._read()

    @property
    def exists(self) -> bool:
        """Tell whether there is a record, so that uninstall is possible."""
        return (self.record_directory / "record.json").exists()

    @property
    def is_unfinished(self) -> bool:
        """Tell whether an installation began and did not finish."""
        return bool(self._data.get("unfinished"))

    @property
    def is_untouched(self) -> bool:
        """Tell whether both files have contents that an installation left."""
        return self._is_known_state(config_files.read(self.config_directory))

    @property
    def is_restored(self) -> bool:
        """Tell whether both files equal the originals, byte for byte."""
        return config_files.read(self.config_directory) == config_files.read(
            self.record_directory
        )

    @property
    def changes(self) -> list[Change]:
        """All changes of this installation, applied or only begun, in order."""
        return [Change(**each) for each in self._data.get("changes", [])]

    def begin(self, changes: Iterable[Change], states: Iterable[Contents]) -> None:
        """Record the changes to come, and every state that the files will have.

        A later installation extends the existing record. If somebody has edited the
        files in between, the record loses its states: the edits must survive, so
        uninstall then reverts change by change.
        """
        self._initial_data = dict(self._data)
        self._initial = config_files.read(self.config_directory)
        self._states = [self._initial, *states]
        if not self.exists:
            self._save_originals()
        known_states = self._data["states"] if self.is_untouched else {}
        merged = {(change.kind, change.name): change for change in self.changes}
        for change in changes:
            original = merged.get((change.kind, change.name), change)
            merged[change.kind, change.name] = replace(change, before=original.before)
        self._write([asdict(e) for e in merged.values()], known_states, unfinished=True)
        self.add_states(*self._states)

    def add_states(self, *states: Contents) -> None:
        """Record further states of the files, unless somebody has edited them."""
        if not self.is_untouched:
            return
        known_states = {name: list(seen) for name, seen in self._data["states"].items()}
        for state in states:
            for name, digest in config_files.digests(state).items():
                known_states[name] += (
                    [digest] if digest not in known_states[name] else []
                )
        self._write(self._data["changes"], known_states, unfinished=self.is_unfinished)

    def mark_complete(self) -> None:
        """Record that the installation is complete."""
        self._write(self._data["changes"], self._data["states"], unfinished=False)

    def roll_back(self) -> None:
        """Restore the files as they were when this installation began.

        A file that somebody else has changed meanwhile stays, and so does the record.
        """
        current, initial = config_files.read(self.config_directory), self._initial
        if not initial:
            return
        own_files = {
            name for name in current if current[name] in [e[name] for e in self._states]
        }
        restored = {
            name: initial[name] if name in own_files else current[name]
            for name in current
        }
        config_files.replace_files(self.config_directory, restored, current)
        if restored != initial:
            self._write(self._data["changes"], {}, unfinished=True)
        elif self._initial_data:
            self._data = self._initial_data
            self._save()
        elif self.exists:
            self.restore()
            self.delete()

    def restore(self) -> None:
        """Restore both original files byte for byte, with mode and owner."""
        for name in config_files.FILES:
            config_files.copy_file(
                self.record_directory / name, self.config_directory / name
            )

    def delete(self) -> None:
        """Delete the record, after the originals are restored."""
        (self.record_directory / "record.json").unlink()
        shutil.rmtree(self.record_directory)

    def keep_originals(self) -> Path:
        """End the record but keep the original files; return their directory."""
        timestamp = time.strftime("%Y%m%dT%H%M%S")
        target = self.record_directory.with_suffix(f".before-{timestamp}")
        self.record_directory.rename(target)
        files.sync_directory(str(STATE_DIRECTORY), InstallFailed)
        return target

    def _read(self) -> dict[str, Any]:
        path = self.record_directory / "record.json"
        try:
            data = json.loads(path.read_text())
            if not isinstance(data["states"], dict):
                raise ValueError("states: not an object")
            for digests in data["states"].values():
                if not isinstance(digests, list):
                    raise ValueError("states: not lists")
            for each in data["changes"]:
                change = Change(**each)
                texts = (change.kind, change.name, change.before, change.after)
                if not all(isinstance(text, str | None) for text in texts):
                    raise ValueError("changes: not texts")
            return dict(data)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InstallRefused(
                f"{path} is damaged ({error!r}); restore it from a backup, or copy the"
                f" original main.cf and master.cf from {self.record_directory} yourself"
                " and move that directory away"
            ) from error

    def _save_originals(self) -> None:
        """Save both files as the originals that uninstall restores."""
        STATE_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        self.record_directory.mkdir(mode=0o700, exist_ok=True)
        for name in config_files.FILES:
            config_files.copy_file(
                self.config_directory / name, self.record_directory / name
            )
        files.sync_directory(str(STATE_DIRECTORY), InstallFailed)
        digests = config_files.digests(self._initial)
        self._data["states"] = {name: [digests[name]] for name in digests}

    def _is_known_state(self, contents: Contents) -> bool:
        states = self._data.get("states", {})
        digests = config_files.digests(contents)
        return all(digests[name] in states.get(name, []) for name in digests)

    def _write(
        self, changes: list[dict[str, Any]], states: Any, *, unfinished: bool
    ) -> None:
        self._data = {"changes": changes, "states": states, "unfinished": unfinished}
        self._save()

    def _save(self) -> None:
        text = json.dumps(self._data, indent=1) + "\n"
        path = f"{self.record_directory}/record.json"
        files.replace(path, text.encode(), failure=InstallFailed)
