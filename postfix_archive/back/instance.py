"""Installs the archive into one Postfix instance.

Used by install/main. Raises InstallRefused before it changes anything; after a failure
it restores main.cf, master.cf and archive.cf byte for byte.
"""

from __future__ import annotations

import os
import re
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
from postfix_archive.core import (
    doors,
    explained,
    installation,
    rewriting,
    settings,
    ways,
)
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import InstallRefused
from postfix_archive.core.settings import Settings
from postfix_archive.core.ways import Change, Wish

OLDEST = (3, 4)
LAUNCHER = re.compile(rf"(.*)/lib/postfix-archive/(?:{ways.STAMP}|{doors.WORKER})")


class Instance:
    """A Postfix instance into which the archive is installed.

    Raises InstallRefused if Postfix is too old or the directory is not writable.
    """

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
                f"Postfix {self.found.raw('mail_version')} is older than 3.4; upgrade"
                " Postfix first"
            )
        if not _is_writable(self.directory):
            raise InstallRefused(
                f"{self.directory} is not writable; mount it writable or name another"
                " directory with CONFIG_DIRECTORY="
            )
        postconf.check(self.directory)

    def plan(self, wish: Wish) -> tuple[Change, ...]:
        """Return the changes; raises InstallRefused, for example for a port in use."""
        self._refuse_moves(wish)
        given: dict[str, str] = {}
        for text in program.service_texts(wish.mode):
            given.update(installation.entries(text))
        ours = [each for each in self.found.services if ways.is_ours(each)]
        known = [each.name.rpartition(":")[2] for each in ours if each.kind == "inet"]
        needed = installation.ports_needed(self.found, wish)
        host.refuse_taken(needed, map(int, known))
        self.ports = needed
        return installation.plan(self.found, wish, given)

    def refuse(self, wish: Wish) -> None:
        """Raise InstallRefused if the user or a directory could not be used."""
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
        """Yield what apply would create besides its changes: label and name."""
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
        """Apply the changes, services first, mail routing last; roll back on failure.

        The undo record is durable before the first change. After a crash, install
        continues from there and uninstall restores the original files.
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
        """Restore main.cf, master.cf and archive.cf; None removes archive.cf."""
        self.record.roll_back()
        if told is None:
            self.archive_cf.unlink(missing_ok=True)
        else:
            drafts.rewrite(self.archive_cf, told)
        if postconf.is_running(self.directory):
            postconf.reload(self.directory)

    def _use(self, after: Contents, before: Contents) -> None:
        """Replace main.cf and master.cf; return when Postfix has loaded them."""
        drafts.put(self.directory, after, before)
        postconf.check(self.directory)
        if postconf.is_running(self.directory):
            postconf.reload(self.directory)
            host.wait_for_ports(self.ports)

    def _furnish(self, wish: Wish) -> None:
        """Create user, store, archive.cf and key unless they exist."""
        host.user_made(wish.user, self.store)
        undo.STATE.mkdir(exist_ok=True)
        undo.STATE.chmod(0o755)  # the archive's user reads the key in it
        host.make_store(self.store, wish.user)
        self._write_settings(wish)
        loaded = config.load(self.directory)
        host.make_store(loaded.archive_fallback_directory, wish.user)
        key = loaded.archive_key_file
        if not os.path.exists(key):
            keyfile.create(key, keyfile.todays_id(), wish.user)

    def _write_settings(self, wish: Wish) -> None:
        """Create archive.cf, or correct only the port settings of an existing one."""
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
        """The first port of the services, else of archive.cf; 0 if there is none."""
        there = installation.first_port(self.found)
        if there or self.settings is None:
            return there
        return self.settings.archive_handback_address[1]

    def _refuse_moves(self, wish: Wish) -> None:
        """Raise InstallRefused for options that only a new installation can change."""
        port = installation.first_port(self.found) or wish.port
        position = installation.position(self.found) or wish.position
        where = "" if self.directory == config.DIRECTORY else self.directory
        again = f" CONFIG_DIRECTORY={where}" if where else ""
        for word, asked, there in (
            ("PORT", wish.port, port),
            ("ARCHIVE_POSITION", wish.position, position),
            ("MODE", wish.mode, ways.mode(self.found) or wish.mode),
        ):
            if asked != there:
                raise InstallRefused(
                    f"{word}={asked}: the archive is installed with {word}={there};"
                    f" to change it, run make uninstall{again}, then make install with"
                    f" {word}={asked}"
                )

    def _settings(self) -> Settings | None:
        """Return the settings of archive.cf, else of a kept one; None without both."""
        for place in (self.archive_cf, self._kept):
            if place.exists():
                return config.load(self.directory, str(place))
        return None

    def _store(self, asked: str) -> str:
        """Return the store; raises InstallRefused if archive.cf names another."""
        if self.settings is None:
            return asked or self._usual("archive_store_directory")
        there = self.settings.archive_store_directory
        if asked and os.path.normpath(asked) != os.path.normpath(there):
            place = self.archive_cf if self.archive_cf.exists() else self._kept
            raise InstallRefused(
                f"STORE={asked}: {place} has archive_store_directory = {there}; to"
                " change it, see docs/operating.md, Moving the store"
            )
        return there

    def _usual(self, setting: str) -> str:
        usual = settings.DEFAULTS[setting]
        return usual if self.name == "postfix" else f"{usual}-{self.name}"

    def loaded(self) -> Settings:
        """Return the existing settings, else those of the archive.cf to create."""
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
    """Return the PREFIX of the launchers that these services run, "" if none."""
    for each in services:
        there = LAUNCHER.fullmatch(each.argument("argv"))
        if there and doors.is_launched(each):
            return there.group(1)
    return ""


def name_of(found: Configuration) -> str:
    """Return multi_instance_name, else the name of the configuration directory."""
    return found.raw("multi_instance_name") or Path(found.directory).resolve().name


def _is_writable(directory: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
