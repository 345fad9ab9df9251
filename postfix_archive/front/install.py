"""Entry point of make install and make uninstall.

Imports only the standard library: it runs before the virtual environment exists. Checks
everything first and raises InstallRefused; then installs the program files, then adds
the services to Postfix, and routes mail to them last. Rolls back on failure.
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
    "none, no systemd or cron found: run postfix-archive rescue and postfix-archive"
    " return every five minutes"
)
NO_SERVICE = (
    "none, no systemd or cron found: run postfix-archive outcomes --once every minute"
)


def main(arguments: list[str] | None = None) -> int:
    """Run install or uninstall; return 0, or 1 after printing one line of error.

    make(1) passes the options in the environment.
    """
    os.umask(0o022)  # the archive's user must read files that root creates
    for each in (sys.stdout, sys.stderr):
        if isinstance(each, io.TextIOWrapper):  # prints bytes of main.cf unchanged
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
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        print(f"{verb}: {path}{error.strerror}", file=sys.stderr)
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
    """Install the program files, then change Postfix's configuration."""
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
    """Install the program files below DESTDIR; neither reads nor changes Postfix."""
    python = interpreter.named(given.python)
    _refuse_wheels(given.wheels)
    destdir = os.path.abspath(given.destdir).rstrip("/")
    laid = program.Program(given.prefix or program.USUAL_PREFIX, destdir, python)
    if given.dry_run:
        print(f"Program:    {destdir}{laid.lib} would be created")
        return
    laid.lay_down(given.wheels)
    print(f"Program:    {destdir}{laid.lib} (Postfix is unchanged)")


def _directory(given: Asked) -> str:
    return config.directory(given.config_directory or None)


def _refuse_user(verb: str) -> None:
    if os.geteuid():
        raise InstallRefused(f"must run as root: sudo make {verb}")


def _refuse_wheels(folder: str) -> None:
    if folder and not os.path.isdir(folder):
        raise InstallRefused(
            f"WHEELS={folder}: no such directory; name the directory that contains the"
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
            raise InstallFailed(
                f"apt-get install postfix: exit code {done.returncode}; see its output"
            ) from None


def _wish(given: Asked, place: Instance, laid: program.Program) -> Wish:
    """Return the setup: options as given, others as installed, else defaults."""
    installed = ways.is_installed(place.found)
    archive = given.archive or (place.found.raw("archive") if installed else "")
    on_request = given.on_request
    if on_request is None:
        on_request = installed and "on-request" in place.found.raw("content_filter")
    if not archive and not on_request:
        raise InstallRefused(
            "no archive address: run make install ARCHIVE=legal@example.com (or"
            " ON_REQUEST=yes to archive only what ARCHIVE actions in tables request)"
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
    """Print what was installed, run the doctor and send a probe message."""
    print(f"Settings:   {place.archive_cf}")
    print(f"Store:      {place.store}")
    runs = timers.install(place.name, place.directory, str(laid.command))
    print(f"Timer:      {runs or NO_TIMER}")
    print(f"Follower:   {_follower(place, str(laid.command))}")
    print(f"Undo:       make uninstall (undo record: {place.record.folder})")
    if not changes:
        print("Postfix:    nothing to change.")
    if not postconf.is_running(place.directory):
        print("Probe:      none, Postfix is not running: run postfix start.")
        return
    _begin_notes(config.load(place.directory))
    seen = observing.observe(place.directory)
    told = checkup.report(seen, checkup.examine(seen))
    print("Doctor:     " + told.replace("\n", "\n            "))
    if seen.gap is not None:
        print("Probe:      none, bypass is on: run postfix-archive bypass off.")
        return
    if not _is_led(seen.found):
        print("Probe:      none, mail from sendmail(1) (pickup) is not archived.")
        return
    loaded = config.load(place.directory)
    if loaded.stores and not host.probe(
        place.directory, loaded.archive_store_directory
    ):
        raise InstallFailed(unarrived(place.directory))
    print("Probe:      a message went through Postfix and is in the archive.")


def _is_led(found: Configuration) -> bool:
    """Tell whether pickup, which receives the probe message, has a stamp filter."""
    return any(
        found.value("content_filter", each).startswith(ways.STAMP)
        and found.value("archive", each)
        for each in ways.clients(found)
        if each.program == "pickup"
    )


def _follower(place: Instance, command: str) -> str:
    """Install the follower; return its scheduler and file, or why there is none."""
    why = service.obstacle(place.found, is_wanted=place.loaded().follows)
    if why:
        service.remove(place.name)
        return f"none: {why}"
    return service.install(place.name, place.directory, command) or NO_SERVICE


def _begin_notes(settings: Settings) -> None:
    """Record timer and follower as run just now, so that the doctor does not warn."""
    rescue.note(settings)
    followed.note(settings.archive_fallback_directory)


def unarrived(directory: str) -> str:
    """Return the error message if the probe message is not in the store."""
    queued = mailq.queued(directory)
    ours = "postfix-archive"
    if directory != config.DIRECTORY:
        ours += f" -c {directory}"
    if any(each.content_filter.startswith(ways.STAMP) for each in queued):
        return (
            "ALL MAIL WAITS in Postfix's queue: the stamp filter did not process the"
            f" probe message; to deliver mail unarchived, run {ours} bypass on"
            " --reason=WHY; see Postfix's log, fix the cause and run bypass off, or run"
            " make uninstall"
        )
    return (
        "mail is delivered, but archive copies wait: the probe message did not reach"
        f" the store; see {ours} status, mailq and Postfix's log; make uninstall"
        " removes the archive"
    )


if __name__ == "__main__":
    sys.exit(main())
