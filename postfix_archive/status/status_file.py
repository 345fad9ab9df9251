"""The state of an instance for the web page: a file beside the index.

Written by ``status --write``, which the timer runs, since the user of the page can read
neither Postfix's queue nor the fallback directory. archive_reader_group can read it. It
is as ``status --json``, with what a chart of a year needs, and why the state is not OK.
Can be deleted.
"""

from __future__ import annotations

import json
import os
from typing import Any

from postfix_archive.config.settings import Settings
from postfix_archive.message import dates
from postfix_archive.status import status_json
from postfix_archive.status.overview import Snapshot
from postfix_archive.system import files, privileges

FILE_NAME = "status.json"
FILE_MODE = 0o640
SIZE_LIMIT = 64 << 20  # bytes: 1,000 archives have 15 MB


def is_wanted(settings: Settings) -> bool:
    """Tell whether there is a web page, and an index, and so a place for the file."""
    has_page = bool(settings.archive_web_user)
    return has_page and os.path.isdir(settings.archive_index_directory)


def save(settings: Settings, snapshot: Snapshot) -> None:
    """Write the file, as the owner of the index. Raises StoreFailed."""
    state = status_json.to_json(snapshot)
    for archive in state["archives"]:
        archive["days"] = snapshot.tallies[archive["archive"]].days
    state |= {
        "time": dates.format_rfc3339(snapshot.time),
        "risks": snapshot.risks,
        "warnings": snapshot.warnings,
    }
    directory = settings.archive_index_directory
    with privileges.as_owner(directory):
        content = json.dumps(state).encode()
        files.replace(f"{directory}/{FILE_NAME}", content, FILE_MODE)


def read(settings: Settings) -> dict[str, Any] | None:
    """Return the state, None if nobody has written it. Raises OSError, ValueError."""
    path = f"{settings.archive_index_directory}/{FILE_NAME}"
    try:
        with open(path, "rb") as file:
            state = json.loads(file.read(SIZE_LIMIT))
    except FileNotFoundError:
        return None
    if not isinstance(state, dict):
        raise ValueError("not a JSON object")
    return state
