"""Looks at a host for the doctor: Postfix, the archive's files, tables, instances.

Used by front/doctor and by make install. Changes nothing. What cannot be seen is left
out: the checks never guess it.
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

OLDEST = 2000  # messages in the queue whose content filter is looked up


def observe(directory: str) -> Observed:
    """Return all that the doctor may judge of the instance of this directory.

    Raises PostfixMissing and PostfixCommandFailed where Postfix cannot be asked.
    """
    found = postconf.read(directory)
    settings, trouble = _settings(directory)
    is_running = postconf.is_running(directory)
    stale, tables_trouble = _stale(settings)
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
        **_followed(found, settings),
        **_fallback(settings),
        is_running=is_running,
        is_default=directory == config.DIRECTORY,
    )


def _settings(directory: str) -> tuple[Settings | None, str]:
    try:
        return config.load(directory), ""
    except ArchiveError as error:
        return None, str(error)


def _mode(found: Configuration) -> str:
    """Return the door that is installed, also where its entry has lost our options."""
    stamp = found.service(f"{gates.STAMP}/unix")
    return gates.LMTP if stamp and stamp.program == "lmtp" else gates.PIPE


def reference(mode: str = gates.PIPE) -> dict[str, Service]:
    """Return the services of master.cf.d, with those of this door, by name/type."""
    found = {}
    for text in program.service_texts(mode):
        for line in installation.entries(text).values():
            [service] = configuration.services(line)
            found[service.key] = service
    return found


def _paths(found: Configuration, settings: Settings | None) -> Iterator[str]:
    for each in found.services:
        if doors.is_launched(each):
            yield each.argument("argv")
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
        told = os.stat(path)
    except OSError:
        return File(path)
    try:
        owner = pwd.getpwuid(told.st_uid).pw_name
    except KeyError:
        owner = str(told.st_uid)
    mode = stat.S_IMODE(told.st_mode)
    return File(path, owner, mode, stat.S_ISDIR(told.st_mode), told.st_dev)


def _closed(
    found: Configuration, settings: Settings | None
) -> Iterator[tuple[str, str]]:
    """Give the paths that a user of ours cannot get to, and the folder in the way."""
    for each in filter(doors.is_launched, found.services):
        user = each.argument("user").partition(":")[0]
        launcher = each.argument("argv")
        release = f"{Path(launcher).parent}/current/postfix_archive/front/pipe.py"
        key = [settings.archive_key_file] if settings else []
        for path in (launcher, release, *key):
            folder = passing.closed(path, user)
            if folder:
                yield (launcher if path == release else path), folder


def _pythons(found: Configuration) -> Iterator[tuple[str, str]]:
    """Give the folders of releases that another Python runs than was to."""
    launchers = (e.argument("argv") for e in found.services if doors.is_launched(e))
    for folder, launcher in {os.path.dirname(e): e for e in launchers}.items():
        if other := interpreter.other(launcher):
            yield folder, other


def _groups(found: Configuration) -> dict[str, tuple[str, ...]]:
    """Return the groups of the users of our services; who is not there is left out."""
    users: dict[str, tuple[str, ...]] = {}
    for each in found.services:
        user = each.argument("user").partition(":")[0]
        if not user:
            continue
        with contextlib.suppress(KeyError):
            own = pwd.getpwnam(user).pw_gid
            ids = os.getgrouplist(user, own)
            names = {each.gr_gid: each.gr_name for each in grp.getgrall()}
            users[user] = tuple(names.get(one, str(one)) for one in ids)
    return users


def _silent_ports(found: Configuration) -> Iterator[str]:
    for each in found.services:
        host, _, port = each.name.rpartition(":")
        if ways.is_ours(each) and each.kind == "inet" and port.isdigit():
            if not postconf.answers(host.strip("[]") or "127.0.0.1", int(port)):
                yield each.name


def _free(found: Configuration, settings: Settings | None) -> dict[str, int]:
    places = [found.value("queue_directory")]
    if settings is not None:
        places.append(settings.archive_spool_directory)
        if settings.stores:
            places.append(settings.archive_store_directory)
    free = {}
    for each in places:
        with contextlib.suppress(OSError):
            told = os.statvfs(each)
            free[each] = told.f_bavail * told.f_frsize
    return free


def _stale(settings: Settings | None) -> tuple[tuple[str, ...], str]:
    """Return the native tables that are not what their sources say, or the trouble."""
    if settings is None or not settings.archive_tables:
        return (), ""
    try:
        keys = config.keys(settings)
        found = tablefile.compiled(settings.archive_tables, keys)
    except ArchiveError as error:
        return (), str(error)
    return tuple(each.native for each in found if each.is_new), ""


def _keys(settings: Settings | None) -> frozenset[str]:
    """Return digests of the site keys, to compare them with those of others."""
    if settings is None:
        return frozenset()
    try:
        held = config.keys(settings).keys
    except ArchiveError:
        return frozenset()
    return frozenset(hashlib.sha256(each.secret).hexdigest() for each in held)


def _neighbours(directory: str) -> Iterator[Neighbour]:
    """Give the other instances of this host that have the archive."""
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
        words = ("postconf", "-x", "-h", "multi_instance_directories")
        told = postconf.run(config.DIRECTORY, *words)
    except ArchiveError:
        return []
    return [config.DIRECTORY, *configuration.words(told.strip())]


def _held(directory: str) -> int:
    try:
        return len(rescue.held(directory))
    except ArchiveError:
        return 0


def _fallback(settings: Settings | None) -> dict[str, Any]:
    if settings is None:
        return {}
    folder = settings.archive_fallback_directory
    try:
        waiting = fallback.waiting(folder)
    except ArchiveError as error:
        return {"fallback": 1, "fallback_why": str(error)}
    if not waiting:
        return {}
    return {
        "fallback": len(waiting),
        "fallback_age": int(abs(time.time() - waiting[0][0])),
        "fallback_why": fallback.why(folder),
    }


def _followed(found: Configuration, settings: Settings | None) -> dict[str, Any]:
    """What tells of the follower; a log that only root may read is for root to see."""
    if settings is None:
        return {}
    folder = settings.archive_fallback_directory
    return {
        "log_trouble": maillog.unreadable(found) if os.geteuid() == 0 else "",
        "follower": service.there(instance.name_of(found)),
        "followed_age": followed.age(folder, time.time()),
    }


def _gap(directory: str) -> dict[str, Any] | None:
    try:
        return gap.read(directory)
    except ArchiveError as error:
        return {"opened": "?", "by": "?", "why": str(error)}
