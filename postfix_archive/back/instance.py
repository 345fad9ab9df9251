"""One Postfix instance, before and while the archive is put into it.

Used by front/install. Refuses what cannot be done before anything is changed; what
fails on the way is put back, byte for byte.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from postfix_archive.back import config, host, keyfile, postconf, program, undo
from postfix_archive.core import explained, installation, rewriting, settings, ways
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import InstallRefused
from postfix_archive.core.ways import Change, Wish

OLDEST = (3, 4)


class Instance:
    """One Postfix instance, before and while the archive is put into it."""

    def __init__(self, directory: str, store: str) -> None:
        self.directory = directory
        self.found = postconf.read(self.directory)
        self.name = name_of(self.found)
        self.record = undo.Undo(self.directory, self.name)
        self.store = store or self._usual("archive_store_directory")
        self.archive_cf = Path(self.directory, config.NAME)
        if self.found.version < OLDEST:
            raise InstallRefused(
                f"Postfix {self.found.raw('mail_version')} is older than 3.4, which we"
                " need: upgrade it first"
            )
        if not _is_writable(self.directory):
            raise InstallRefused(
                f"{self.directory} cannot be written to: mount it writable, or give"
                " another with CONFIG_DIRECTORY="
            )
        postconf.check(self.directory)

    def plan(self, wish: Wish) -> tuple[Change, ...]:
        """Return what is to change; raises InstallRefused for ports in use."""
        given: dict[str, str] = {}
        for text in program.service_texts():
            given.update(installation.entries(text))
        ours = [each for each in self.found.services if ways.is_ours(each)]
        known = [each.name.rpartition(":")[2] for each in ours if each.kind == "inet"]
        needed = installation.ports_needed(self.found, wish)
        host.refuse_taken(needed, map(int, known))
        self.ports = needed
        return installation.plan(self.found, wish, given)

    def furnish(self, wish: Wish) -> None:
        """Make user, store, archive.cf and key, where they are missing."""
        host.user_made(wish.user, self.store)
        undo.STATE.mkdir(mode=0o755, exist_ok=True)
        host.make_store(self.store, wish.user)
        if not self.archive_cf.exists():
            kept = undo.STATE / f"{self.name}.archive.cf"
            text = kept.read_text() if kept.exists() else self._archive_cf(wish)
            program.replace(self.archive_cf, text, 0o644)
        loaded = config.load(self.directory)
        host.make_store(loaded.archive_fallback_directory, wish.user)
        key = loaded.archive_key_file
        if not os.path.exists(key):
            keyfile.create(key, keyfile.todays_id(), wish.user)

    def apply(self, changes: tuple[Change, ...]) -> None:
        """Make the changes: services first, mail last; put all back if one fails."""
        if not changes:
            return
        self.record.keep()
        running = postconf.is_running(self.directory)
        before = {name: Path(self.directory, name) for name in undo.FILES}
        with tempfile.TemporaryDirectory() as kept:
            for name, path in before.items():
                undo.put_back(path, Path(kept, name))
            try:
                self._make(changes, running=running)
            except BaseException:
                for name, path in before.items():
                    undo.put_back(Path(kept, name), path)
                if running:
                    postconf.reload(self.directory)
                if not self.record.changes():
                    self.record.forget()
                    self.archive_cf.unlink(missing_ok=True)
                raise
        self.record.done(changes)

    def _make(self, changes: tuple[Change, ...], *, running: bool) -> None:
        for gate in (False, True):
            for each in changes:
                if each.gate == gate:
                    undo.make(self.directory, each)
            postconf.check(self.directory)
            if running:
                postconf.reload(self.directory)
                host.wait_for_ports(self.ports)

    def first_port(self) -> int:
        """Return the first port of an installation that is there, 0 without one."""
        if ways.is_installed(self.found) and self.archive_cf.exists():
            return config.load(self.directory).archive_handback_address[1]
        return 0

    def _usual(self, setting: str) -> str:
        usual = settings.DEFAULTS[setting]
        return usual if self.name == "postfix" else f"{usual}-{self.name}"

    def _archive_cf(self, wish: Wish) -> str:
        names = (
            "archive_handback_address",
            "archive_capsule_address",
            "archive_copy_address",
            "archive_relay_address",
            "archive_refused_address",
        )
        values = {
            "myhostname": self.found.value("myhostname"),
            "archive_store_directory": self.store,
            "archive_fallback_directory": self._usual("archive_fallback_directory"),
            "archive_key_file": str(undo.STATE / f"{self.name}.key"),
        }
        local, _ = rewriting.clients(self.found)
        if local != rewriting.LOOPBACK:
            values["archive_local_clients"] = ", ".join(local)
        if self.found.value("mail_owner") != settings.DEFAULTS["mail_owner"]:
            values["mail_owner"] = self.found.value("mail_owner")
        if wish.port != ways.USUAL_PORT:
            for offset, name in enumerate(names):
                values[name] = f"127.0.0.1:{wish.port + offset}"
        return explained.archive_cf(values)


def name_of(found: Configuration) -> str:
    """Return the instance's name: multi_instance_name, else its folder's."""
    return found.raw("multi_instance_name") or Path(found.directory).resolve().name


def _is_writable(directory: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
