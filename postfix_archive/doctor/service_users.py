"""What our services in master.cf reach: users, groups, programs, Python, ports.

Used by inspection. Changes nothing.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from postfix_archive.config.settings import Settings
from postfix_archive.postfix import archive_services, postfix_command
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.system import path_access, python_version


def blocked_paths(
    postfix_config: Configuration, settings: Settings | None
) -> Iterator[tuple[str, str]]:
    """Yield path and directory where a service's user cannot search the directory."""
    keys = [settings.archive_key_file] if settings else []
    for service_entry in filter(archive_services.has_launcher, postfix_config.services):
        user = service_entry.argument("user").partition(":")[0]
        launcher = service_entry.argument("argv")
        release = f"{Path(launcher).parent}/current/postfix_archive/intake/pipe.py"
        for path in (launcher, release, *keys):
            directory = path_access.first_blocked_directory(path, user)
            if directory:
                yield (launcher if path == release else path), directory


def execute_obstacles(
    postfix_config: Configuration,
) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield ((program, user), obstacle) of each launcher that cannot be executed."""
    for service_entry in filter(archive_services.has_launcher, postfix_config.services):
        program, user = service_entry.argument("argv"), service_entry.argument("user")
        if obstacle := path_access.execute_obstacle(program, user):
            yield (program, user), obstacle


def python_mismatches(postfix_config: Configuration) -> Iterator[tuple[str, str]]:
    """Yield program directory and Python where that has another version."""
    launchers = (
        e.argument("argv")
        for e in postfix_config.services
        if archive_services.has_launcher(e)
    )
    for directory, launcher in {os.path.dirname(e): e for e in launchers}.items():
        if python := python_version.mismatched_interpreter(launcher):
            yield directory, python


def groups(postfix_config: Configuration) -> dict[str, tuple[str, ...]]:
    """Return user -> groups of our services' users, without users that do not exist."""
    users: dict[str, tuple[str, ...]] = {}
    for service_entry in postfix_config.services:
        user = service_entry.argument("user").partition(":")[0]
        if not user:
            continue
        with contextlib.suppress(KeyError):
            primary = pwd.getpwnam(user).pw_gid
            gids = os.getgrouplist(user, primary)
            names = {group.gr_gid: group.gr_name for group in grp.getgrall()}
            users[user] = tuple(names.get(gid, str(gid)) for gid in gids)
    return users


def unreachable_ports(postfix_config: Configuration) -> Iterator[str]:
    """Yield host:port of each of our services that takes no connection."""
    for service_entry in postfix_config.services:
        host, _, port = service_entry.name.rpartition(":")
        if (
            archive_services.is_ours(service_entry)
            and service_entry.kind == "inet"
            and port.isdigit()
        ):
            if not postfix_command.is_listening(
                host.strip("[]") or "127.0.0.1", int(port)
            ):
                yield service_entry.name
