"""Inspect a host for the doctor: Postfix, the archive's files, tables, instances.

Used by cli.doctor and make install. Changes nothing. What cannot be inspected is left
out of the Host.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from postfix_archive.back import (
    config,
    fallback,
    followed,
    gap,
    instance,
    interpreter,
    maillog,
    mailq,
    maps,
    passing,
    postconf,
    program,
    reading,
    rescue,
    service,
    tablefile,
)
from postfix_archive.core import configuration, doors, gates, installation, ways
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import ArchiveError
from postfix_archive.core.observed import File, Neighbour, Observed
from postfix_archive.core.settings import Settings

OLDEST = 2000  # queued messages whose content_filter is read


def observe(directory: str) -> Observed:
    """Return the state of the instance with this configuration directory.

    Raises PostfixMissing and PostfixCommandFailed.
    """
    found = postconf.read(directory)
    settings, trouble = _settings(directory)
    is_running = postconf.is_running(directory)
    stale, tables_trouble = _stale(settings)
    fallback_count, fallback_age, fallback_reason = _fallback(settings)
    return Observed(
        found=found,
        settings=settings,
        trouble=trouble,
        reference=reference(_mode(found)),
        files={path: _file(path) for path in _paths(found, settings)},
        pythons=dict(_pythons(found)),
        groups=_groups(found),
        closed=dict(_closed(found, settings)),
        tables=maps.texts(found),
        answers=maps.answers(found, settings),
        silent_ports=tuple(_silent_ports(found)) if is_running else (),
        handed_in=maillog.handed_in(found),
        free=_free(found, settings),
        waiting=tuple(mailq.queued(directory, OLDEST)) if is_running else (),
        stale=stale,
        tables_trouble=tables_trouble,
        keys=_keys(settings),
        neighbours=tuple(_neighbours(directory)),
        gap=_gap(directory),
        held=_held(directory),
        rescued_age=rescue.age(settings, time.time()) if settings else None,
        log_trouble=_log_error(found, settings),
        follower=_follower(found, settings),
        followed_age=_log_read_age(settings),
        fallback=fallback_count,
        fallback_age=fallback_age,
        fallback_why=fallback_reason,
        is_running=is_running,
        is_default=directory == config.DIRECTORY,
    )


def _settings(directory: str) -> tuple[Settings | None, str]:
    try:
        return config.load(directory), ""
    except ArchiveError as error:
        return None, str(error)


def _mode(found: Configuration) -> str:
    """Return the installed mode, also if archive-stamp has lost our options."""
    stamp = found.service(f"{gates.STAMP}/unix")
    return gates.LMTP if stamp and stamp.program == "lmtp" else gates.PIPE


def reference(mode: str = gates.PIPE) -> dict[str, Service]:
    """Return the services of master.cf.d for this mode, by name/type."""
    services = {}
    for text in program.service_texts(mode):
        for line in installation.entries(text).values():
            [entry] = configuration.services(line)
            services[entry.key] = entry
    return services


def _paths(found: Configuration, settings: Settings | None) -> Iterator[str]:
    for launched in filter(doors.is_launched, found.services):
        yield launched.argument("argv")
    if settings is not None:
        yield settings.archive_key_file
        yield settings.archive_spool_directory
        yield settings.archive_fallback_directory
        if settings.stores:
            store = settings.archive_store_directory
            yield store
            with contextlib.suppress(ArchiveError):
                yield from (f"{store}/{each}" for each in reading.archives(store))


def _file(path: str) -> File:
    try:
        status = os.stat(path)
    except OSError:
        return File(path)
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    mode = stat.S_IMODE(status.st_mode)
    return File(path, owner, mode, stat.S_ISDIR(status.st_mode), status.st_dev)


def _closed(
    found: Configuration, settings: Settings | None
) -> Iterator[tuple[str, str]]:
    """Yield path and directory where a service's user cannot search the directory."""
    keys = [settings.archive_key_file] if settings else []
    for each in filter(doors.is_launched, found.services):
        user = each.argument("user").partition(":")[0]
        launcher = each.argument("argv")
        release = f"{Path(launcher).parent}/current/postfix_archive/front/pipe.py"
        for path in (launcher, release, *keys):
            directory = passing.closed(path, user)
            if directory:
                yield (launcher if path == release else path), directory


def _pythons(found: Configuration) -> Iterator[tuple[str, str]]:
    """Yield program directory and Python where that has another version."""
    launchers = (e.argument("argv") for e in found.services if doors.is_launched(e))
    for directory, launcher in {os.path.dirname(e): e for e in launchers}.items():
        if python := interpreter.other(launcher):
            yield directory, python


def _groups(found: Configuration) -> dict[str, tuple[str, ...]]:
    """Return user -> groups of our services' users, without users that do not exist."""
    users: dict[str, tuple[str, ...]] = {}
    for each in found.services:
        user = each.argument("user").partition(":")[0]
        if not user:
            continue
        with contextlib.suppress(KeyError):
            primary = pwd.getpwnam(user).pw_gid
            gids = os.getgrouplist(user, primary)
            names = {group.gr_gid: group.gr_name for group in grp.getgrall()}
            users[user] = tuple(names.get(gid, str(gid)) for gid in gids)
    return users


def _silent_ports(found: Configuration) -> Iterator[str]:
    for each in found.services:
        host, _, port = each.name.rpartition(":")
        if ways.is_ours(each) and each.kind == "inet" and port.isdigit():
            if not postconf.answers(host.strip("[]") or "127.0.0.1", int(port)):
                yield each.name


def _free(found: Configuration, settings: Settings | None) -> dict[str, int]:
    """Return the free bytes of the file systems of queue, spool and store."""
    directories = [found.value("queue_directory")]
    if settings is not None:
        directories.append(settings.archive_spool_directory)
        if settings.stores:
            directories.append(settings.archive_store_directory)
    free = {}
    for directory in directories:
        with contextlib.suppress(OSError):
            statvfs = os.statvfs(directory)
            free[directory] = statvfs.f_bavail * statvfs.f_frsize
    return free


def _stale(settings: Settings | None) -> tuple[tuple[str, ...], str]:
    """Return the compiled tables that differ from their sources, or the error."""
    if settings is None or not settings.archive_tables:
        return (), ""
    try:
        keys = config.keys(settings)
        tables = tablefile.compiled(settings.archive_tables, keys)
    except ArchiveError as error:
        return (), str(error)
    return tuple(each.native for each in tables if each.is_new), ""


def _keys(settings: Settings | None) -> frozenset[str]:
    """Return the SHA-256 digests of the site keys."""
    if settings is None:
        return frozenset()
    try:
        keys = config.keys(settings).keys
    except ArchiveError:
        return frozenset()
    return frozenset(hashlib.sha256(key.secret).hexdigest() for key in keys)


def _neighbours(directory: str) -> Iterator[Neighbour]:
    """Yield the other instances on this host with the archive installed."""
    for each in _instances():
        if Path(each).resolve() == Path(directory).resolve():
            continue
        with contextlib.suppress(ArchiveError, OSError):
            found = postconf.read(each)
            if ways.is_installed(found):
                keys = _keys(config.load(each))
                yield Neighbour(each, tuple(gates.archives(found)), keys)


def _instances() -> list[str]:
    """Return the configuration directories of all instances (postmulti(1))."""
    if not Path(config.DIRECTORY, "main.cf").exists():
        return []
    try:
        command = ("postconf", "-x", "-h", "multi_instance_directories")
        output = postconf.run(config.DIRECTORY, *command)
    except ArchiveError:
        return []
    return [config.DIRECTORY, *configuration.words(output.strip())]


def _held(directory: str) -> int:
    try:
        return len(rescue.held(directory))
    except ArchiveError:
        return 0


def _fallback(settings: Settings | None) -> tuple[int, int, str]:
    """Return count, age in seconds of the oldest and its reason, for the capsules."""
    if settings is None:
        return 0, 0, ""
    directory = settings.archive_fallback_directory
    try:
        capsules = fallback.waiting(directory)
    except ArchiveError as error:
        return 1, 0, str(error)
    if not capsules:
        return 0, 0, ""
    age = int(abs(time.time() - capsules[0][0]))
    return len(capsules), age, fallback.why(directory)


def _log_error(found: Configuration, settings: Settings | None) -> str:
    """Return why the log cannot be read, "" if it can, or if we are not root."""
    if settings is None or os.geteuid():
        return ""
    return maillog.unreadable(found)


def _follower(found: Configuration, settings: Settings | None) -> str:
    return service.there(instance.name_of(found)) if settings is not None else ""


def _log_read_age(settings: Settings | None) -> float | None:
    if settings is None:
        return None
    return followed.age(settings.archive_fallback_directory, time.time())


def _gap(directory: str) -> dict[str, Any] | None:
    try:
        return gap.read(directory)
    except ArchiveError as error:
        return {"opened": "?", "by": "?", "why": str(error)}
