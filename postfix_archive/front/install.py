"""make install and make uninstall: put the archive into a host, or take it out.

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
from pathlib import Path

from postfix_archive.back import (
    config,
    drafts,
    host,
    observing,
    postconf,
    program,
    rescue,
    stopping,
    timers,
)
from postfix_archive.back.instance import Instance
from postfix_archive.core import checkup, installation, request, ways
from postfix_archive.core.errors import (
    ArchiveError,
    InstallFailed,
    InstallRefused,
    PostfixMissing,
    RequestUnusable,
)
from postfix_archive.core.ways import Change, Wish
from postfix_archive.front import uninstall

INSTALL_POSTFIX = (
    "apt-get update -qq &&"
    " DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postfix"
)


NO_TIMER = (
    "neither systemd nor cron here: run postfix-archive rescue and postfix-archive"
    " return every five minutes"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two; return 0, or 1 with one line that says what to do."""
    given = _parser().parse_args(arguments)
    try:
        stopping.heed()
        _refuse_user(given)
        directory = config.directory(given.config_directory or None)
        if given.verb == "uninstall":
            uninstall.uninstall(directory, given.prefix)
        else:
            _install(given, directory)
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
    each.add_argument("--position", choices=("", "before", "after"), default="")
    each.add_argument("--port", type=int, default=0)
    each.add_argument("--store", default="")
    each.add_argument("--destdir", default="")
    each.add_argument("--python", default="/usr/bin/python3")
    each.add_argument("--wheels", default="")
    each.add_argument("--install-postfix", action="store_true")
    each.add_argument("--dry-run", action="store_true")
    return parser


def _install(given: argparse.Namespace, directory: str) -> None:
    laid = program.Program(given.prefix, given.destdir, given.python)
    if given.destdir:
        laid.lay_down(given.wheels)
        print(f"The program is in {given.destdir}{given.prefix}. Postfix: untouched.")
        return
    _need_postfix(install=given.install_postfix and not given.dry_run)
    place = Instance(directory, given.store)
    wish = _wish(given, place, laid)
    changes = place.plan(wish)
    if given.dry_run:
        _show(place, changes)
        return
    new = not laid.is_current
    laid.lay_down(given.wheels)
    if new:
        print(f"Program:    {laid.lib}")
    place.carry_out(wish, changes)
    _report(place, changes, given)


def _refuse_user(given: argparse.Namespace) -> None:
    packaging = given.verb == "install" and given.destdir
    if os.geteuid() and not packaging:
        raise InstallRefused(
            f"this changes Postfix and needs root: sudo make {given.verb}"
        )


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


def _wish(given: argparse.Namespace, place: Instance, laid: program.Program) -> Wish:
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
    port = given.port or place.first_port or ways.USUAL_PORT
    asked = "on-request" in place.found.raw("content_filter") and bool(installed)
    return Wish(
        archive=archive,
        program=laid.lib,
        port=port,
        position=given.position or installation.position(place.found) or "before",
        on_request=given.on_request or asked,
    )


def _show(place: Instance, changes: tuple[Change, ...]) -> None:
    """Print what would change in main.cf and master.cf, as a diff; change nothing."""
    with tempfile.TemporaryDirectory() as folder:
        for name in drafts.FILES:
            shutil.copy2(Path(place.directory, name), folder)
        for each in changes:
            drafts.make(folder, each)
        for name in reversed(drafts.FILES):
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
    place: Instance, changes: tuple[Change, ...], given: argparse.Namespace
) -> None:
    """Say what was done, and try it with a message that goes to nobody."""
    print(f"Settings:   {place.archive_cf}")
    print(f"Store:      {place.store}")
    runs = timers.install(
        place.name, place.directory, f"{given.prefix}/sbin/postfix-archive"
    )
    print(f"Timer:      {runs or NO_TIMER}")
    print(f"Undo:       make uninstall, from {place.record.folder}")
    if not changes:
        print("Postfix:    nothing to change.")
    if not postconf.is_running(place.directory):
        print("Postfix does not run: start it, then postfix-archive list shows mail.")
        return
    rescue.note(config.load(place.directory))
    seen = observing.observe(place.directory)
    told = checkup.report(seen, checkup.examine(seen))
    print("Doctor:     " + told.replace("\n", "\n            "))
    if seen.gap is not None:
        print("Probe:      none, the gate is open: postfix-archive bypass off")
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
