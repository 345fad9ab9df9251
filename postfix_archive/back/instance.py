"""One Postfix instance, before and while the archive is put into it.

Used by front/install. Refuses what cannot be done before anything is changed; what
fails on the way is put back, byte for byte.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from postfix_archive.back import config, host, keyfile, postconf, program, undo
from postfix_archive.core import explained, installation, rewriting, settings, ways
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import InstallRefused
from postfix_archive.core.settings import Settings
from postfix_archive.core.ways import Change, Wish

OLDEST = (3, 4)
LAUNCHER = f"/lib/postfix-archive/{ways.STAMP}"


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

    def refuse(self, wish: Wish) -> None:
        """Raise InstallRefused for what furnish and the doors would stumble over."""
        host.refuse_userless(wish.user)
        named = f"CONFIG_DIRECTORY={self.directory}"
        host.refuse_closed(named, str(self.archive_cf), wish.user)
        loaded = self._settings(wish)
        spare = loaded.archive_fallback_directory
        for word, path in (
            (f"STORE={self.store}", self.store),
            (f"archive.cf: archive_fallback_directory = {spare}", spare),
        ):
            host.refuse_no_folder(word, path)
            host.refuse_closed(word, path, wish.user)

    def missing(self, wish: Wish) -> Iterator[tuple[str, str]]:
        """Give what furnish would make: what it is, and its name."""
        loaded = self._settings(wish)
        if not host.is_user(wish.user):
            yield "User", wish.user
        for name, path in (
            ("Settings", str(self.archive_cf)),
            ("Store", self.store),
            ("Fallback", loaded.archive_fallback_directory),
            ("Key", loaded.archive_key_file),
        ):
            if not os.path.exists(path):
                yield name, path

    def furnish(self, wish: Wish) -> None:
        """Make user, store, archive.cf and key, where they are missing."""
        host.user_made(wish.user, self.store)
        undo.STATE.mkdir(exist_ok=True)
        undo.STATE.chmod(0o755)  # whatever umask it was made with: the key is in there
        host.make_store(self.store, wish.user)
        if not self.archive_cf.exists():
            program.replace(self.archive_cf, self._text(wish), 0o644)
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

    def _settings(self, wish: Wish) -> Settings:
        """Return the settings that there are, or those that there will be."""
        if self.archive_cf.exists():
            return config.load(self.directory)
        return settings.parse(
            self._text(wish),
            place=str(undo.STATE / f"{self.name}.archive.cf"),
            config_directory=self.directory,
            myhostname=self.found.value("myhostname"),
        )

    def _text(self, wish: Wish) -> str:
        """Return archive.cf as an earlier installation left it, else a new one."""
        kept = undo.STATE / f"{self.name}.archive.cf"
        return kept.read_text() if kept.exists() else self._archive_cf(wish)

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


def prefix_of(services: Iterable[Service]) -> str:
    """Return the PREFIX of the program that these services run, "" without one."""
    for each in services:
        path = each.argument("argv")
        if each.name == ways.STAMP and path.endswith(LAUNCHER):
            return path.removesuffix(LAUNCHER)
    return ""


def name_of(found: Configuration) -> str:
    """Return the instance's name: multi_instance_name, else its folder's."""
    return found.raw("multi_instance_name") or Path(found.directory).resolve().name


def _is_writable(directory: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
