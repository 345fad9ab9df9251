"""Records the accesses of one command before it shows anything.

Used by the commands that read archived mail. root and the archive's user append to the
access journals themselves; any other user, who is in archive_reader_group, asks the
access service to do it. Raises ReasonMissing and AccessNotRecorded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from postfix_archive.access import access_entry, access_journal
from postfix_archive.access.access_entry import Entry
from postfix_archive.config.settings import Settings
from postfix_archive.errors import AccessNotRecorded, ArchiveError, ReasonMissing


class Readable(Protocol):
    """What names a record: a record itself, or a hit of a search."""

    @property
    def archive(self) -> str:
        """The archive address."""

    @property
    def archive_id(self) -> str:
        """The archive id."""


Item = TypeVar("Item", bound=Readable)
LOG_TAG = "postfix-archive/access"
LOG_LIMIT = 1000  # characters of ids in a line of the log


class AccessRecorder:
    """The accesses of one command, or of one request to the web page.

    warn shows a warning to the user. Threads may share one, or have one each.
    """

    def __init__(
        self,
        settings: Settings,
        action: str,
        *,
        query: str = "",
        reason: str = "",
        web_user: str = "",
        warn: Callable[[str], None],
    ) -> None:
        """Record nothing yet.

        action is the command's name, query what the user has typed. web_user is who has
        logged in at the web page (access_entry.is_web_user): only archive_web_user may
        say that. Raises ReasonMissing with archive_require_reason and no reason.
        """
        needs_reason = action not in access_entry.WITHOUT_REASON
        if settings.archive_require_reason and needs_reason and not reason.strip():
            raise ReasonMissing(
                f"archive_require_reason = yes: {action} needs a reason; add --reason"
                " TEXT"
            )
        self._settings = settings
        self._warn = warn
        limit = access_entry.TEXT_LIMIT
        self._entry = Entry(
            access_entry.current_user()._replace(web_user=web_user),
            action,
            query[:limit],
            reason[:limit],
            (),
        )

    def record(self, ids: Mapping[str, Sequence[str]]) -> None:
        """Record that these messages are read; durable on return.

        ids are archive ids by archive; an archive without ids was searched in vain.
        """
        store = self._settings.archive_store_directory
        try:
            if os.geteuid() and not _owns(store):
                # Here and below, because the imports take 5 ms each.
                from postfix_archive.access import access_service

                access_service.request(self._settings, ids, self._entry)
            else:
                append_or_log(self._settings, ids, self._entry, self._warn)
        except OSError as error:
            raise AccessNotRecorded(
                f"{error.filename or store}: {error.strerror}; nothing is shown that"
                " cannot be recorded"
            ) from error

    def searched(self, archives: Iterable[str]) -> None:
        """Record that archives were searched, without a message that was shown."""
        self.record({archive: () for archive in archives})

    def before(self, items: Iterable[Item], archives: Iterable[str]) -> Iterator[Item]:
        """Yield the items; each is recorded before.

        archives: where they are searched; those without any are recorded at the end.
        """
        rest = iter(items)
        seen: set[str] = set()
        while some := list(islice(rest, access_journal.IDS_PER_LINE)):
            ids: dict[str, list[str]] = {}
            for each in some:
                ids.setdefault(each.archive, []).append(each.archive_id)
            self.record(ids)
            seen |= ids.keys()
            yield from some
        self.searched(sorted({*archives} - seen))


def append_or_log(
    settings: Settings,
    ids: Mapping[str, Sequence[str]],
    entry: Entry,
    warn: Callable[[str], None],
) -> None:
    """Append an entry; where the store takes none, write it to Postfix's log.

    Reading goes on while the store is full or read-only. Raises AccessNotRecorded if
    the log takes nothing either.
    """
    try:
        access_journal.append(settings.archive_store_directory, ids, entry)
    except ArchiveError as error:
        from postfix_archive.postfix import postfix_command

        fields = {
            "alarm": "access-unrecorded",
            "archive": ",".join(ids),
            **{name: str(value) for name, value in entry.to_fields().items()},
            "ids": " ".join(each for some in ids.values() for each in some)[:LOG_LIMIT],
        }
        if not postfix_command.log_alarm(settings.config_directory, LOG_TAG, fields):
            raise AccessNotRecorded(
                f"neither the store nor Postfix's log takes a record of who reads:"
                f" {error}"
            ) from error
        warn(f"access recorded in Postfix's log only: {error}")


def _owns(store: str) -> bool:
    """Tell whether this process has the user id of the store's owner."""
    return os.stat(store).st_uid == os.geteuid()
