"""make install and make uninstall: put the archive into a host, or take it out.

Standard library only: it runs before there is an environment for anything else. First
everything is looked at and refused where it must be; then the program is laid down;
then Postfix gets the services, and last the mail. What fails on the way is put back.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys

from postfix_archive.back import (
    config,
    followed,
    host,
    instance,
    interpreter,
    mailq,
    observing,
    postconf,
    program,
    rescue,
    service,
    stopping,
    timers,
)
from postfix_archive.back.instance import Instance
from postfix_archive.core import asked, checkup, gates, installation, ways
from postfix_archive.core.asked import Asked
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import (
    ArchiveError,
    InstallFailed,
    InstallRefused,
    PostfixMissing,
)
from postfix_archive.core.settings import Settings
from postfix_archive.core.ways import Change, Wish
from postfix_archive.front import rehearsal, uninstall

INSTALL_POSTFIX = (
    "apt-get update -qq &&"
    " DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postfix"
)


NO_TIMER = (
    "neither systemd nor cron here: run postfix-archive rescue and postfix-archive"
    " return every five minutes"
)
NO_SERVICE = (
    "neither systemd nor cron here: run postfix-archive outcomes --once every minute"
)


def main(arguments: list[str] | None = None) -> int:
    """Run install or uninstall; return 0, or 1 with one line that says what to do.

    What they are to do is said in the environment, as make passes it on.
    """
    os.umask(0o022)  # the archive's user must get at what root makes here
    for each in (sys.stdout, sys.stderr):
        if isinstance(each, io.TextIOWrapper):  # bytes of main.cf leave as they came
            each.reconfigure(encoding="utf-8", errors="surrogateescape")
    [verb] = sys.argv[1:] if arguments is None else arguments
    try:
        stopping.heed()
        if verb == "uninstall":
            given = asked.places(os.environ)
            _refuse_user(verb)
            directory = _directory(given)
            host.hold_alone(directory)
            uninstall.uninstall(directory, given.prefix)
        else:
            _install(asked.read(os.environ))
    except ArchiveError as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 1
    except OSError as problem:
        place = f"{problem.filename}: " if problem.filename else ""
        print(f"{verb}: {place}{problem.strerror}", file=sys.stderr)
        return 1
    return 0


def _install(given: Asked) -> None:
    if given.destdir:
        _lay_down_package(given)
        return
    _refuse_user("install")
    python = interpreter.named(given.python)
    _refuse_wheels(given.wheels)
    _need_postfix(install=given.install_postfix and not given.dry_run)
    directory = _directory(given)
    host.hold_alone(directory)
    place = Instance(directory, given.store)
    before = instance.prefix_of(place.found.services)
    prefix = given.prefix or before or program.USUAL_PREFIX
    laid = program.Program(prefix, "", python)
    wish = _wish(given, place, laid)
    for word, path in ((f"PREFIX={prefix}", laid.lib), (f"PYTHON={python}", python)):
        host.refuse_closed(word, path, wish.user)
    host.refuse_no_folder(f"PREFIX={prefix}", prefix)
    place.refuse(wish)
    changes = place.plan(wish)
    if given.dry_run:
        rehearsal.show(place, wish, changes, laid)
        return
    _carry_out(given, place, wish, changes, laid)
    _report(place, changes, laid)


def _carry_out(
    given: Asked,
    place: Instance,
    wish: Wish,
    changes: tuple[Change, ...],
    laid: program.Program,
) -> None:
    """Lay the program down, then give Postfix the services and the mail."""
    first, new = not laid.is_there, not laid.is_current
    laid.lay_down(given.wheels)
    if new:
        print(f"Program:    {laid.lib}")
    try:
        place.carry_out(wish, changes)
    except BaseException:
        if first:
            laid.remove()
        raise


def _lay_down_package(given: Asked) -> None:
    """Lay the program down for a package; Postfix is not looked at."""
    python = interpreter.named(given.python)
    _refuse_wheels(given.wheels)
    destdir = os.path.abspath(given.destdir).rstrip("/")
    laid = program.Program(given.prefix or program.USUAL_PREFIX, destdir, python)
    if given.dry_run:
        print(f"Program:    {destdir}{laid.lib} would be made")
        return
    laid.lay_down(given.wheels)
    print(f"The program is in {destdir}{laid.lib}. Postfix: untouched.")


def _directory(given: Asked) -> str:
    return config.directory(given.config_directory or None)


def _refuse_user(verb: str) -> None:
    if os.geteuid():
        raise InstallRefused(f"this changes Postfix and needs root: sudo make {verb}")


def _refuse_wheels(folder: str) -> None:
    if folder and not os.path.isdir(folder):
        raise InstallRefused(
            f"WHEELS={folder}: there is no such folder: give the one that holds the"
            " Python packages"
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


def _wish(given: Asked, place: Instance, laid: program.Program) -> Wish:
    """Return what is asked for; what is not said stays as it was installed."""
    installed = ways.is_installed(place.found)
    archive = given.archive or (place.found.raw("archive") if installed else "")
    on_request = given.on_request
    if on_request is None:
        on_request = installed and "on-request" in place.found.raw("content_filter")
    if not archive and not on_request:
        raise InstallRefused(
            "say where copies go: make install ARCHIVE=legal@example.com (or"
            " ON_REQUEST=yes, if only ARCHIVE actions in tables are to ask for them)"
        )
    if archive:
        asked.refuse_address(archive)
    return Wish(
        archive=archive,
        program=laid.lib,
        port=given.port or place.first_port or ways.USUAL_PORT,
        position=given.position or installation.position(place.found) or "before",
        on_request=on_request,
        mode=given.mode or ways.mode(place.found) or gates.PIPE,
    )


def _report(
    place: Instance, changes: tuple[Change, ...], laid: program.Program
) -> None:
    """Say what was done, and try it with a message that goes to nobody."""
    print(f"Settings:   {place.archive_cf}")
    print(f"Store:      {place.store}")
    runs = timers.install(place.name, place.directory, str(laid.command))
    print(f"Timer:      {runs or NO_TIMER}")
    print(f"Follower:   {_follower(place, str(laid.command))}")
    print(f"Undo:       make uninstall, from {place.record.folder}")
    if not changes:
        print("Postfix:    nothing to change.")
    if not postconf.is_running(place.directory):
        print("Postfix does not run: start it, then postfix-archive list shows mail.")
        return
    _begin_notes(config.load(place.directory))
    seen = observing.observe(place.directory)
    told = checkup.report(seen, checkup.examine(seen))
    print("Doctor:     " + told.replace("\n", "\n            "))
    if seen.gap is not None:
        print("Probe:      none, the gate is open: postfix-archive bypass off")
        return
    if not _is_led(seen.found):
        print("Probe:      none, nothing asks for mail of local programs (pickup).")
        return
    loaded = config.load(place.directory)
    if loaded.stores and not host.probe(
        place.directory, loaded.archive_store_directory
    ):
        raise InstallFailed(unarrived(place.directory))
    print("Probe:      a message went through Postfix and is in the archive.")


def _is_led(found: Configuration) -> bool:
    """Tell whether pickup, which takes the probe message, leads to the archive."""
    return any(
        found.value("content_filter", each).startswith(ways.STAMP)
        and found.value("archive", each)
        for each in ways.clients(found)
        if each.program == "pickup"
    )


def _follower(place: Instance, command: str) -> str:
    """Set up what follows the log; return what runs it, or why nothing does."""
    why = service.obstacle(place.found, is_wanted=place.loaded().follows)
    if why:
        service.remove(place.name)
        return f"none: {why}"
    return service.install(place.name, place.directory, command) or NO_SERVICE


def _begin_notes(settings: Settings) -> None:
    """What runs again and again counts as having run: the doctor gives it its time."""
    rescue.note(settings)
    followed.note(settings.archive_fallback_directory)


def unarrived(directory: str) -> str:
    """Return what a postmaster must know and do if the probe is not in the store."""
    queued = mailq.queued(directory)
    ours = "postfix-archive"
    if directory != config.DIRECTORY:
        ours += f" -c {directory}"
    if any(each.content_filter.startswith(ways.STAMP) for each in queued):
        return (
            "ALL MAIL NOW WAITS in Postfix's queue, since the probe message did not get"
            f" through the archive: let it flow past with {ours} bypass on"
            " --reason=WHY; see Postfix's log for the cause, cure it, say bypass off,"
            " or take all back with make uninstall"
        )
    return (
        "mail flows, but the probe message did not reach the store, so copies wait: see"
        f" {ours} status, mailq and Postfix's log; make uninstall takes"
        " everything back"
    )


if __name__ == "__main__":
    sys.exit(main())
