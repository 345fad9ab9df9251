"""The searches that users have saved, each under a name.

Used by search_page. Raises WebDatabaseFailed and SavedSearchInvalid.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from postfix_archive.errors import SavedSearchInvalid

NAME_LIMIT = 100  # characters
LIMIT = 100  # searches of one user


class SavedSearch(NamedTuple):
    """A name, and the query, the order and the archives (with spaces) of a search."""

    name: str
    query: str
    sort: str
    archives: str


def of_user(db: sqlite3.Connection, user: str) -> list[SavedSearch]:
    """Return the searches of a user, by name."""
    rows = db.execute(
        "SELECT name, query, sort, archives FROM saved_search WHERE user = ?"
        " ORDER BY name",
        (user,),
    )
    return [SavedSearch(*each) for each in rows]


def save(db: sqlite3.Connection, user: str, search: SavedSearch) -> None:
    """Save a search; one of the same name is replaced."""
    name = " ".join(search.name.split())
    if not name or len(name) > NAME_LIMIT:
        raise SavedSearchInvalid(
            f"the name of a saved search has 1 to {NAME_LIMIT} characters"
        )
    others = [each for each in of_user(db, user) if each.name != name]
    if len(others) >= LIMIT:
        raise SavedSearchInvalid(f"there are {LIMIT} saved searches: delete one first")
    db.execute(
        "INSERT OR REPLACE INTO saved_search VALUES (?, ?, ?, ?, ?)",
        (user, name, search.query, search.sort, search.archives),
    )


def delete(db: sqlite3.Connection, user: str, name: str) -> None:
    """Delete a search; that it is gone already is no error."""
    db.execute("DELETE FROM saved_search WHERE user = ? AND name = ?", (user, name))
