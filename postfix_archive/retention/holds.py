"""Legal holds: what nobody may remove while one of them is open.

Used by removal, with the journal of the archive locked.
"""

from __future__ import annotations

from collections.abc import Iterable

from postfix_archive.config.settings import Settings


def covering(
    settings: Settings, archive: str, archive_ids: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Return for each of these messages the names of the holds that cover it.

    There are no holds yet.
    """
    return {each: () for each in archive_ids}
