"""Unarchived mail that an admin accepts as such, and why: kept beside main.cf.

Used by cli/reconcile. Mail such as the notices of a content filter passes the archive
every day. An acceptance covers only messages with one cause, sender, client and
service, so that it hides no other; totals counts what it covers under a kind of its
own. Only root may write the file: a user who can write the store or the fallback
directory cannot accept what he made disappear.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from postfix_archive.bypass import switch
from postfix_archive.errors import AcceptanceInvalid, NotRoot
from postfix_archive.message import dates
from postfix_archive.reconcile import causes
from postfix_archive.system import files

FILE_NAME = "archive.accepted"  # in config_directory
FILE_MODE = 0o644
# Causes that a configuration has and so every message of a kind. The others are
# accidents (mail deleted, lost, sent past the archive), and each is one of its own.
ACCEPTABLE_CAUSES = (
    causes.OTHER_CONTENT_FILTER,
    causes.FILTER_ACTION,
    causes.REDIRECT_ACTION,
)


@dataclass(frozen=True)
class Pattern:
    """What reconcile shows of a missing message, and an acceptance must name."""

    cause: str
    sender: str  # "": the null sender
    client: str  # IP address, or uid=N for sendmail(1)
    service: str  # as in the log: postfix/10025/smtpd


@dataclass(frozen=True)
class Acceptance:
    """Messages that an admin accepts as unarchived; times are RFC 3339, in UTC."""

    pattern: Pattern
    reason: str
    by: str
    at: str
    expires: str = ""  # messages that arrive from then on are missing again; "": never

    def covers(self, pattern: Pattern, arrival: float) -> bool:
        """Return whether this is for a message with a pattern that arrived then."""
        arrived = dates.format_rfc3339(arrival)
        return pattern == self.pattern and not "" < self.expires <= arrived

    def to_json(self) -> dict[str, str]:
        """Return it for JSON."""
        fields = dataclasses.asdict(self)
        return {**fields.pop("pattern"), **fields}


def read(directory: str) -> tuple[Acceptance, ...]:
    """Return the acceptances of an instance, the first first.

    directory is config_directory. Raises AcceptanceInvalid if the file is damaged.
    """
    path = Path(directory, FILE_NAME)
    try:
        return tuple(map(_parse, json.loads(path.read_text())))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise AcceptanceInvalid(
            f"read {path}: {error!r}; the file says which unarchived mail is accepted:"
            " restore it from a backup, or remove it and accept again"
        ) from error


def add(directory: str, pattern: Pattern, reason: str, expires: float | None) -> None:
    """Accept messages with a pattern: those of before, and until a Unix time.

    It replaces an earlier one of the same pattern and is durable on return. Raises
    NotRoot, AcceptanceInvalid.
    """
    _require_root()
    now = dates.format_rfc3339(time.time())
    end = "" if expires is None else dates.format_rfc3339(expires)
    added = Acceptance(pattern, reason, switch.current_user(), now, end)
    others = [each for each in read(directory) if each.pattern != pattern]
    _write(directory, [*others, added])


def remove(directory: str, number: int) -> Acceptance:
    """Withdraw the acceptance with a number in the list, from 1; return it.

    Raises NotRoot, AcceptanceInvalid.
    """
    _require_root()
    accepted = list(read(directory))
    if not 1 <= number <= len(accepted):
        raise AcceptanceInvalid(
            f"no acceptance has the number {number}: postfix-archive reconcile"
            " --accepted lists them"
        )
    removed = accepted.pop(number - 1)
    _write(directory, accepted)
    return removed


def find(
    acceptances: Sequence[Acceptance], pattern: Pattern, arrival: float
) -> Acceptance | None:
    """Return the acceptance that covers a message, None if it is not accepted."""
    if pattern.cause not in ACCEPTABLE_CAUSES:
        return None
    return next((e for e in acceptances if e.covers(pattern, arrival)), None)


def _parse(fields: dict[str, str]) -> Acceptance:
    if {*map(type, dict(fields).values())} != {str}:
        raise ValueError("a value is not a string")
    names = [each.name for each in dataclasses.fields(Pattern)]
    pattern = Pattern(**{name: fields.pop(name) for name in names})
    return Acceptance(pattern, **fields)


def _write(directory: str, acceptances: Sequence[Acceptance]) -> None:
    text = json.dumps([each.to_json() for each in acceptances], indent=1) + "\n"
    path = f"{directory}/{FILE_NAME}"
    files.replace(path, text.encode(), FILE_MODE, failure=AcceptanceInvalid)


def _require_root() -> None:
    if os.geteuid():
        raise NotRoot(
            "only root may accept unarchived mail: sudo postfix-archive reconcile"
        )
