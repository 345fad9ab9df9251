"""Who witnesses seals, when the store was last sealed, and what is not sealed yet.

Used by sealing, status and the doctor; imports no library. Raises StoreFailed and
JournalFailed.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

from postfix_archive.config.settings import Settings
from postfix_archive.seal import heads, seal_file
from postfix_archive.store import record_reader


class SealState(NamedTuple):
    """The last seal, and the first line that no seal covers.

    Times are RFC 3339, "" for none.
    """

    sealed_at: str
    unsealed_since: str

    def unsealed_age(self, now: float) -> float:
        """Return the age in seconds of the first unsealed line, 0 if there is none."""
        if not self.unsealed_since:
            return 0.0
        since = datetime.datetime.fromisoformat(self.unsealed_since)
        return max(0.0, now - since.timestamp())


def is_configured(settings: Settings) -> bool:
    """Return whether there is anybody to witness a seal."""
    return settings.has_store and bool(
        settings.archive_tsa_url
        or settings.archive_seal_to
        or settings.archive_seal_file
    )


def state(settings: Settings) -> SealState | None:
    """Return the state of the seals, None where nobody witnesses any."""
    if not is_configured(settings):
        return None
    store = settings.archive_store_directory
    seals = seal_file.read_all(store)
    last = seals[-1] if seals else None
    archives = record_reader.archives(store)
    unsealed_since = heads.unsealed_since(store, archives, last)
    return SealState(last.time if last else "", unsealed_since)
