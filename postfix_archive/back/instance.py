"""One Postfix instance, before and while the archive is put into it.

Used by front/install. Refuses what cannot be done before anything is changed; what
fails on the way is put back, byte for byte.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from postfix_archive.back import (
    config,
    drafts,
    host,
    keyfile,
    postconf,
    program,
    undo,
)
from postfix_archive.back.drafts import Contents
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
        self.archive_cf = Path(self.directory, config.NAME)
        self._kept = undo.STATE / f"{self.name}.archive.cf"
        self.settings = self._settings()
        self.store = self._store(store)
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
        self._refuse_moves(wish)
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
        loaded = self.loaded()
        spare = loaded.archive_fallback_directory
        for word, path in (
            (f"STORE={self.store}", self.store),
            (f"archive.cf: archive_fallback_directory = {spare}", spare),
        ):
            host.refuse_no_folder(word, path)
            host.refuse_closed(word, path, wish.user)

    def missing(self, wish: Wish) -> Iterator[tuple[str, str]]:
        """Give what furnish would make: what it is, and its name."""
        loaded = self.loaded()
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

    def carry_out(self, wish: Wish, changes: tuple[Change, ...]) -> None:
        """Make the changes: services first, mail last; put all back if one fails.

        The undo record is durable before; so whatever ends this run, a later one goes
        on from there, and uninstall brings back what was there before the first.
        """
        if not changes and not self.record.is_unfinished:
            self._furnish(wish)
            return
        before = drafts.read(self.directory)
        ready = drafts.changed(before, [each for each in changes if not each.gate])
        opened = drafts.changed(ready, [each for each in changes if each.gate])
        there = self.archive_cf.exists()
        told = self.archive_cf.read_bytes() if there else None
        try:
            self.record.begin(changes, [ready, opened])
            self._furnish(wish)
            self._use(ready, before)
            self._use(opened, ready)
        except BaseException:
            self._roll_back(told)
            raise
        self.record.finish()

    def _roll_back(self, told: bytes | None) -> None:
        """Put main.cf, master.cf and archive.cf back; told is what archive.cf said."""
        self.record.roll_back()
        if told is None:
            self.archive_cf.unlink(missing_ok=True)
        else:
            drafts.rewrite(self.archive_cf, told)
        if postconf.is_running(self.directory):
            postconf.reload(self.directory)

    def _use(self, after: Contents, before: Contents) -> None:
        """Put both files in their place; return when Postfix works by them."""
        drafts.put(self.directory, after, before)
        postconf.check(self.directory)
        if postconf.is_running(self.directory):
            postconf.reload(self.directory)
            host.wait_for_ports(self.ports)

    def _furnish(self, wish: Wish) -> None:
        """Make user, store, archive.cf and key, where they are missing."""
        host.user_made(wish.user, self.store)
        undo.STATE.mkdir(exist_ok=True)
        undo.STATE.chmod(0o755)  # whatever umask it was made with: the key is in there
        host.make_store(self.store, wish.user)
        self._write_settings(wish)
        loaded = config.load(self.directory)
        host.make_store(loaded.archive_fallback_directory, wish.user)
        key = loaded.archive_key_file
        if not os.path.exists(key):
            keyfile.create(key, keyfile.todays_id(), wish.user)

    def _write_settings(self, wish: Wish) -> None:
        """Make archive.cf, or give the one that is there the ports; no other line."""
        if not self.archive_cf.exists():
            known = self._kept.exists()
            text = self._kept.read_text("utf-8") if known else self._archive_cf()
            drafts.rewrite(self.archive_cf, text.encode())
        loaded = config.load(self.directory)
        wrong = {
            name: f"{ways.LOCAL}:{port}"
            for port, name in enumerate(explained.ADDRESSES, wish.port)
            if getattr(loaded, name) != (ways.LOCAL, port)
        }
        text = explained.corrected(self.archive_cf.read_text("utf-8"), wrong)
        drafts.rewrite(self.archive_cf, text.encode())

    @property
    def first_port(self) -> int:
        """The first port: of the services, else as archive.cf has it; 0 for none."""
        there = installation.first_port(self.found)
        if there or self.settings is None:
            return there
        return self.settings.archive_handback_address[1]

    def _refuse_moves(self, wish: Wish) -> None:
        """Refuse what would leave half of an installation at its old place."""
        port = installation.first_port(self.found) or wish.port
        position = installation.position(self.found) or wish.position
        where = "" if self.directory == config.DIRECTORY else self.directory
        again = f" CONFIG_DIRECTORY={where}" if where else ""
        for word, asked, there in (
            ("PORT", wish.port, port),
            ("ARCHIVE_POSITION", wish.position, position),
        ):
            if asked != there:
                raise InstallRefused(
                    f"{word}={asked}: the archive is installed here with"
                    f" {word}={there}; to change that: make uninstall{again}, then make"
                    f" install again with {word}={asked}"
                )

    def _settings(self) -> Settings | None:
        """Return the settings of archive.cf: here, or kept from before; None else."""
        for place in (self.archive_cf, self._kept):
            if place.exists():
                return config.load(self.directory, str(place))
        return None

    def _store(self, asked: str) -> str:
        """Return the store; raises InstallRefused where archive.cf has another."""
        if self.settings is None:
            return asked or self._usual("archive_store_directory")
        there = self.settings.archive_store_directory
        if asked and os.path.normpath(asked) != os.path.normpath(there):
            place = self.archive_cf if self.archive_cf.exists() else self._kept
            raise InstallRefused(
                f"STORE={asked}: {place} has archive_store_directory = {there};"
                " docs/operating.md, Moving the store, says how to change it"
            )
        return there

    def _usual(self, setting: str) -> str:
        usual = settings.DEFAULTS[setting]
        return usual if self.name == "postfix" else f"{usual}-{self.name}"

    def loaded(self) -> Settings:
        """Return the settings that there are, or those that there will be."""
        return self.settings or settings.parse(
            self._archive_cf(),
            place=str(self._kept),
            config_directory=self.directory,
            myhostname=self.found.value("myhostname"),
        )

    def _archive_cf(self) -> str:
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
