"""make install and make uninstall: put the archive into a Postfix host, or take it out.

Standard library only: it runs before there is an environment for anything else. First
everything is looked at and refused where it must be; then the program is laid down;
then Postfix gets the services, and last the mail. What fails on the way is put back.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from postfix_archive.back import config, host, keyfile, postconf, program, undo
from postfix_archive.core import (
    configuration,
    explained,
    installation,
    request,
    settings,
    ways,
)
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import (
    ArchiveError,
    InstallFailed,
    InstallRefused,
    PostfixMissing,
    RequestUnusable,
)
from postfix_archive.core.ways import Change, Wish

OLDEST = (3, 4)
USER = "postfix-archive"
INSTALL_POSTFIX = (
    "apt-get update -qq &&"
    " DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postfix"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two; return 0, or 1 with one line that says what to do."""
    given = _parser().parse_args(arguments)
    try:
        (_uninstall if given.verb == "uninstall" else _install)(given)
    except ArchiveError as error:
        print(f"{given.verb}: {error}", file=sys.stderr)
        return 1
    except OSError as problem:
        place = f"{problem.filename}: " if problem.filename else ""
        print(f"{given.verb}: {place}{problem.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="postfix_archive", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("install", "uninstall"):
        each = verbs.add_parser(verb)
        each.add_argument("--config-directory", "-c", default="")
        each.add_argument("--prefix", default="/usr/local")
    each = verbs.choices["install"]
    each.add_argument("--archive", default="")
    each.add_argument("--on-request", action="store_true")
    each.add_argument("--position", choices=("before", "after"), default="before")
    each.add_argument("--port", type=int, default=0)
    each.add_argument("--store", default="")
    each.add_argument("--destdir", default="")
    each.add_argument("--python", default="/usr/bin/python3")
    each.add_argument("--wheels", default="")
    each.add_argument("--install-postfix", action="store_true")
    each.add_argument("--dry-run", action="store_true")
    return parser


def _install(given: argparse.Namespace) -> None:
    laid = program.Program(given.prefix, given.destdir, given.python)
    if given.destdir:
        laid.lay_down(given.wheels)
        print(f"The program is in {given.destdir}{given.prefix}. Postfix: untouched.")
        return
    _refuse_user()
    _need_postfix(install=given.install_postfix and not given.dry_run)
    place = _Place(given)
    wish = _wish(given, place, laid)
    changes = place.plan(wish)
    if given.dry_run:
        _show(place, changes)
        return
    new = not laid.is_current
    laid.lay_down(given.wheels)
    if new:
        print(f"Program:    {laid.lib}")
    place.furnish(wish)
    place.apply(changes)
    _report(place, changes, given)


def _uninstall(given: argparse.Namespace) -> None:
    _refuse_user()
    directory = config.directory(given.config_directory or None)
    found = postconf.read(directory)
    name = _instance(found)
    record = undo.Undo(directory, name)
    if not record.exists:
        raise InstallRefused(
            f"{record.folder}: there is no undo record, so nothing to take back in"
            f" {directory}; other instances: -c DIR (make: CONFIG_DIRECTORY=DIR)"
        )
    _take_back(directory, record)
    _put_away(directory, name)
    if not any(undo.STATE.glob("*.undo")):
        program.Program(given.prefix).remove()
    store = "the store, the key and the user stay, since copies depend on them"
    print(f"{directory} is as it was before; {store}.")


def _take_back(directory: str, record: undo.Undo) -> None:
    """Close the gate, let the queue run dry, then take the rest back."""
    untouched = record.is_untouched()
    running = postconf.is_running(directory)
    undone = [each.undone for each in reversed(record.changes())]
    _undo(directory, [each for each in undone if each.gate], keep=not untouched)
    if running:
        postconf.reload(directory)
        left = host.drain(directory)
        if left:
            raise InstallFailed(
                f"nothing new is archived, but {len(left)} messages still wait for the"
                f" archive's services ({', '.join(left[:3])}): see postqueue -p, cure"
                " what holds them, and run this again"
            )
    elif host.waiting(directory):
        raise InstallFailed(
            "messages wait for the archive's services and Postfix is stopped: start it"
            " and run this again"
        )
    if untouched:
        record.restore()
    else:
        _undo(directory, [each for each in undone if not each.gate], keep=True)
        print(f"{directory} was changed since: only our lines were taken out.")
    if running:
        postconf.reload(directory)
    record.forget()


def _undo(directory: str, changes: Iterable[Change], *, keep: bool) -> None:
    """Take changes back; with keep, not what somebody has changed since."""
    found = postconf.read(directory)
    for each in changes:
        if keep and _now(found, each) not in (each.before, _plain(each.before)):
            print(f"{each.name}: changed since, left as it is")
        else:
            undo.make(directory, each)


def _plain(line: str | None) -> str | None:
    return " ".join(configuration.words_of_entry(line)) if line else line


def _now(found: Configuration, change: Change) -> str | None:
    """Return what now stands where a change was made."""
    if change.where == "main":
        return found.main.get(change.name)
    if change.where == "service":
        service = found.service(change.name)
        return service.line if service else None
    key, _, option = change.name.rpartition("/")
    service = found.service(key)
    return service.options.get(option) if service else None


def _put_away(directory: str, name: str) -> None:
    """Move archive.cf to the state folder: a later installation finds it again."""
    path = Path(directory, config.NAME)
    if path.exists():
        program.replace(undo.STATE / f"{name}.archive.cf", path.read_text(), 0o644)
        path.unlink()


class _Place:
    """One Postfix instance, before and while the archive is put into it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.directory = config.directory(given.config_directory or None)
        self.found = postconf.read(self.directory)
        self.name = _instance(self.found)
        self.record = undo.Undo(self.directory, self.name)
        self.store = given.store or self._usual_store()
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
        key = config.load(self.directory).archive_key_file
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
                shutil.copy2(path, Path(kept, name))
                os.chown(Path(kept, name), path.stat().st_uid, path.stat().st_gid)
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

    def _usual_store(self) -> str:
        usual = settings.DEFAULTS["archive_store_directory"]
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
            "archive_key_file": str(undo.STATE / f"{self.name}.key"),
        }
        if self.found.value("mail_owner") != settings.DEFAULTS["mail_owner"]:
            values["mail_owner"] = self.found.value("mail_owner")
        if wish.port != ways.USUAL_PORT:
            for offset, name in enumerate(names):
                values[name] = f"127.0.0.1:{wish.port + offset}"
        return explained.archive_cf(values)


def _refuse_user() -> None:
    if os.geteuid():
        raise InstallRefused("this changes Postfix and needs root: sudo make install …")


def _need_postfix(*, install: bool) -> None:
    try:
        postconf.program("postconf")
    except PostfixMissing:
        if not install or shutil.which("apt-get") is None:
            raise
        print("Installing Debian's postfix package.")
        done = subprocess.run(["sh", "-c", INSTALL_POSTFIX], check=False)
        if done.returncode:
            raise InstallFailed("apt-get could not install postfix") from None


def _wish(given: argparse.Namespace, place: _Place, laid: program.Program) -> Wish:
    """Return what is asked for; what is not said stays as it was installed."""
    there = place.found.raw("archive") if ways.is_installed(place.found) else ""
    archive = given.archive or there
    if not archive and not given.on_request:
        raise InstallRefused(
            "say where copies go: make install ARCHIVE=legal@example.com (or"
            " ON_REQUEST=yes, if only ARCHIVE actions in tables are to ask for them)"
        )
    try:
        request.from_nexthop(archive) if archive else None
    except RequestUnusable:
        raise InstallRefused(
            f"ARCHIVE={archive}: that is no address; several are separated by commas"
            " without spaces"
        ) from None
    installed = place.found.service(f"{ways.STAMP}/unix")
    port = given.port or _port_in_use(place) or ways.USUAL_PORT
    asked = "on-request" in place.found.raw("content_filter") and bool(installed)
    return Wish(
        archive=archive,
        program=laid.lib,
        port=port,
        position=given.position,
        on_request=given.on_request or asked,
    )


def _port_in_use(place: _Place) -> int:
    """Return the first port of an installation that is there, 0 if there is none."""
    if ways.is_installed(place.found) and place.archive_cf.exists():
        return config.load(place.directory).archive_handback_address[1]
    return 0


def _instance(found: Configuration) -> str:
    """Return the instance's name: multi_instance_name, else its folder's."""
    return found.raw("multi_instance_name") or Path(found.directory).resolve().name


def _is_writable(directory: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _show(place: _Place, changes: tuple[Change, ...]) -> None:
    """Print what would change in main.cf and master.cf, as a diff; change nothing."""
    with tempfile.TemporaryDirectory() as folder:
        for name in undo.FILES:
            shutil.copy2(Path(place.directory, name), folder)
        for each in changes:
            undo.make(folder, each)
        for name in undo.FILES:
            path = Path(place.directory, name)
            sys.stdout.writelines(
                difflib.unified_diff(
                    path.read_text("utf-8", "surrogateescape").splitlines(True),
                    Path(folder, name).read_text("utf-8").splitlines(True),
                    str(path),
                    f"{path} with the archive",
                )
            )
    if not changes:
        print("Nothing to change.")


def _report(
    place: _Place, changes: tuple[Change, ...], given: argparse.Namespace
) -> None:
    """Say what was done, and try it with a message that goes to nobody."""
    print(f"Settings:   {place.archive_cf}")
    print(f"Store:      {place.store}")
    print(f"Undo:       make uninstall, from {place.record.folder}")
    if not changes:
        print("Postfix:    nothing to change.")
    if not postconf.is_running(place.directory):
        print("Postfix does not run: start it, then postfix-archive list shows mail.")
        return
    loaded = config.load(place.directory)
    if place.found.raw("archive") or given.archive:
        if loaded.stores and not host.probe(
            place.directory, loaded.archive_store_directory
        ):
            raise InstallFailed(
                "Postfix is set up, but the probe message did not reach the store: see"
                " mailq and Postfix's log; make uninstall takes everything back"
            )
        print("Probe:      a message went through Postfix and is in the archive.")


if __name__ == "__main__":
    sys.exit(main())
