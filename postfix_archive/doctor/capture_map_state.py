"""Read the capture maps of native mode and compare them with what they must be.

Used by inspection. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.message import request
from postfix_archive.message.keyring import Keyring
from postfix_archive.system import privileges


def problems(values: Mapping[str, str], settings: Settings | None) -> dict[str, str]:
    """Return path -> what is wrong with the content of a map, "" if nothing is.

    values: path -> the archive value that the map must have. A map that cannot be
    compared is left out.
    """
    if settings is None:
        return {}
    try:
        keys = archive_cf.load_keys(settings)
    except ArchiveError:
        return {}
    found = {}
    for path, value in values.items():
        try:
            found[path] = problem(path, value, keys)
        except (ArchiveError, PermissionError):
            pass  # check_routing reports the value; only root can read a map
    return found


def problem(path: str, value: str, keys: Keyring) -> str:
    """Return what is wrong with one map. Raises PermissionError, RequestInvalid."""
    try:
        text = privileges.read_file(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return "there is no such file: cleanup(8) answers 451 to all mail"
    except PermissionError:
        raise
    except OSError as error:
        return (
            f"cleanup(8) cannot read it ({error.strerror}): it answers 451 to all mail"
        )
    # A key that is no longer the first one is as good: its requests are valid.
    if any(text == request.capture_table(value, Keyring((e,))) for e in keys.keys):
        return ""
    return (
        f"it is not the map for archive = {value} under a key of this host: mail is"
        " archived to another address, or not at all"
    )
