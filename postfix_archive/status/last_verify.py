"""The result of the last verify of the whole store: a file in the fallback directory.

Written by cli/verify, read by status/collect. Can be deleted.
"""

from __future__ import annotations

import contextlib
import json
from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.message import dates
from postfix_archive.system import files, privileges

FILE_NAME = "verified"
FILE_MODE = 0o600


class LastVerify(NamedTuple):
    """When verify has read the whole store last, and how many errors it found.

    ``time`` is that of its end (RFC 3339), ``files`` the number of files it read.
    """

    time: str
    errors: int
    files: int


def save(settings: Settings, now: float, errors: int, file_count: int) -> None:
    """Save a result; nothing is saved by a user who may not write there."""
    directory = settings.archive_fallback_directory
    result = LastVerify(dates.format_rfc3339(now), errors, file_count)
    with contextlib.suppress(ArchiveError, OSError), privileges.as_owner(directory):
        content = json.dumps(result._asdict()).encode()
        files.replace(f"{directory}/{FILE_NAME}", content, FILE_MODE)


def read(settings: Settings) -> LastVerify | None:
    """Return the last result, None if there is none or it is damaged."""
    path = f"{settings.archive_fallback_directory}/{FILE_NAME}"
    try:
        fields = json.loads(privileges.read_file(path))
        result = LastVerify(str(fields["time"]), fields["errors"], fields["files"])
    except (ArchiveError, OSError, ValueError, KeyError, TypeError):
        return None
    is_valid = type(result.errors) is int and type(result.files) is int
    return result if is_valid else None
