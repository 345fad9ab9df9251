"""What is known to be in the bucket: up to where each journal, and what must still go.

Used by replicator, replication_lag and the commands; imports no library. Without the
file the service asks the bucket, but does not know what was missing or damaged: verify
--object-store does. Raises StoreFailed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from postfix_archive.config.settings import Settings
from postfix_archive.system import files

FILE_NAME = "replicated"  # in archive_fallback_directory
MAX_SIZE = 1 << 30  # bytes


@dataclass(frozen=True)
class End:
    """The end of what is in the bucket of a journal: offset and hash of its line."""

    position: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Removed:
    """A removed record of which the bucket still has objects.

    ``offset`` is the start of the part of the journal that says so: what is of later
    parts is of a message that was archived again. ``until`` is the time (RFC 3339) at
    which the server will let the objects go, "" if that is not known.
    """

    offset: int
    until: str = ""


@dataclass
class ArchiveState:
    """What is in the bucket of one archive.

    ``ends`` has the end of each journal, ``removed`` removed records by their ids,
    ``held`` the ids of those on whose objects a legal hold was set, when ``holds`` were
    open. ``longest`` is the longest retention of a rule in the last run, in days.
    ``damaged`` has the offsets of journal lines whose files were not uploaded: these
    were missing or damaged. ``moved`` is the position in the journal up to which copies
    were looked at that need not be in the store any more (archive_local_days).
    """

    ends: dict[str, End] = field(default_factory=dict)
    removed: dict[str, Removed] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    longest: int = 0
    damaged: list[int] = field(default_factory=list)
    moved: int = 0


@dataclass
class State:
    """The state of all archives, for the bucket of this URL."""

    url: str
    archives: dict[str, ArchiveState] = field(default_factory=dict)


def path_of(settings: Settings) -> str:
    """Return the path of the file."""
    return f"{settings.archive_fallback_directory}/{FILE_NAME}"


def read(settings: Settings) -> State | None:
    """Return the state, None if there is none for this bucket, or it is damaged."""
    try:
        with os.fdopen(files.open_regular(path_of(settings)), "rb") as file:
            values = json.loads(file.read(MAX_SIZE))
        if values["url"] != settings.archive_object_store:
            return None
        archives = {
            name: ArchiveState(
                {key: End(**each) for key, each in value["ends"].items()},
                {key: Removed(**each) for key, each in value["removed"].items()},
                list(value["held"]),
                list(value["holds"]),
                int(value["longest"]),
                list(map(int, value["damaged"])),
                int(value.get("moved", 0)),
            )
            for name, value in values["archives"].items()
        }
        return State(values["url"], archives)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write(settings: Settings, state: State) -> None:
    """Replace the file, durably: the bucket does not know all of it."""
    content = json.dumps(asdict(state)).encode()
    files.replace(path_of(settings), content)
