"""The files of the capture maps in the configuration directory (postfix/capture_maps).

Used by install/instance, uninstall and the command key. Only root can read them: a map
has a MAC under the site key, with which a local user could request archiving.
cleanup(8) opens it as root, before it becomes mail_owner, and starts anew if the file
has changed.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Collection, Mapping

from postfix_archive.errors import InstallFailed, InstallRefused
from postfix_archive.message import request
from postfix_archive.message.keyring import Keyring
from postfix_archive.postfix import capture_maps
from postfix_archive.system import files, privileges

MODE = 0o600
MARK = request.DOMAIN  # what every line of ours has


def read(directory: str) -> dict[str, bytes]:
    """Return name -> content of our maps in a configuration directory."""
    contents = {}
    with contextlib.suppress(FileNotFoundError):  # purged with the package
        for name in filter(capture_maps.is_map_name, os.listdir(directory)):
            content = privileges.read_file(f"{directory}/{name}")
            if MARK in content:
                contents[name] = content
    return contents


def check(directory: str, names: Collection[str]) -> None:
    """Raise InstallRefused if a file that is not ours has the name of a map."""
    own_names = read(directory)
    for name in names:
        path = f"{directory}/{name}"
        if os.path.lexists(path) and name not in own_names:
            raise InstallRefused(
                f"{path} exists and was not made by postfix-archive; rename it"
            )


def write(directory: str, values: Mapping[str, str], keys: Keyring) -> None:
    """Write the maps, by file name with their archive values, where they differ.

    Durable on return. Raises InstallFailed.
    """
    restore(
        directory,
        {
            name: request.capture_table(value, keys).encode()
            for name, value in values.items()
        },
    )


def restore(directory: str, contents: Mapping[str, bytes]) -> None:
    """Write maps with these contents, where they differ. Raises InstallFailed."""
    present = read(directory)
    for name, content in contents.items():
        if present.get(name) != content:
            files.replace(f"{directory}/{name}", content, MODE, failure=InstallFailed)


def remove(directory: str, kept: Collection[str] = ()) -> None:
    """Remove our maps, except those with the names to keep, and drafts of maps."""
    for name in read(directory).keys() - set(kept):
        os.unlink(f"{directory}/{name}")
    with contextlib.suppress(FileNotFoundError):  # purged with the package
        targets = {e[1:].rpartition(".")[0] for e in os.listdir(directory)}
        for name in filter(capture_maps.is_map_name, targets):
            files.remove_drafts(directory, math.inf, name)
