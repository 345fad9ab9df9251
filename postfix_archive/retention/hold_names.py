"""Names the holds that cover the messages that a command shows.

Used by the commands list, search and show, and by the web page. Where that is not
known, one line says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from postfix_archive.access.access_recorder import Readable
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError
from postfix_archive.retention.holds import Holds

CHUNK_SIZE = 500  # messages that are looked up together
Item = TypeVar("Item", bound=Readable)
Names = tuple[str, ...]


class HoldNames:
    """The names of the open holds of a store, by the messages that they cover.

    warn shows a line to the user.
    """

    def __init__(self, settings: Settings, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._holds: Holds | None = None
        try:
            self._holds = Holds(settings)
        except ArchiveError as error:
            self._give_up(error)

    def _give_up(self, error: ArchiveError) -> None:
        self._holds = None
        self._warn(f"not known which messages are held: {error}")

    def of(self, item: Readable) -> Names | None:
        """Return the names of the holds that cover a message, None if unknown."""
        [(_, names)] = self.with_names([item])
        return names

    def with_names(self, items: Iterable[Item]) -> Iterator[tuple[Item, Names | None]]:
        """Yield messages, each with the names of the holds; see of()."""
        rest = iter(items)
        while some := list(islice(rest, CHUNK_SIZE)):
            names = self._names(some)
            for each in some:
                yield each, names[each.archive, each.archive_id] if names else None

    def _names(self, items: Iterable[Readable]) -> dict[tuple[str, str], Names]:
        """Return the names by archive and archive id, {} if they are unknown."""
        ids: dict[str, list[str]] = {}
        for each in items:
            ids.setdefault(each.archive, []).append(each.archive_id)
        if self._holds is None:
            return {}
        try:
            return {
                (archive, archive_id): names
                for archive, some in ids.items()
                for archive_id, names in self._holds.covering(archive, some).items()
            }
        except ArchiveError as error:
            self._give_up(error)
            return {}
