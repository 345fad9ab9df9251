"""Holds, requests for erasure and replays, as an officer of some archives sees them.

Used by the pages holds, erasures and replay. An officer sees and changes what concerns
the archives they are officer of; a hold in others besides cannot be released without an
officer of all of them. What is decided goes to the access service, which does what the
commands do. Raises AccessRefused, RecordNotFound, the errors of archives, and
those of retention/decision_requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    AccessRefused,
    ArchiveError,
    HoldRefused,
    RecordNotFound,
)
from postfix_archive.retention import decision_requests, erasure, holds
from postfix_archive.retention.erasure import Copies, Request
from postfix_archive.retention.holds import Hold
from postfix_archive.search.index_engine import Hit
from postfix_archive.web.user import EVERY_ARCHIVE, Role, User
from postfix_archive.web.visible.archives import VisibleArchives, VisiblePage

FIRST_HITS = 20  # of a hold that are shown


@dataclass(frozen=True)
class Covered:
    """What a hold covers: its first messages, and the number of all."""

    page: VisiblePage
    count: int


@dataclass(frozen=True)
class OpenErasure:
    """One request for erasure, the holds of its message, and why it must not be here.

    ``refusal`` says why this user cannot approve it, "" if they can.
    """

    request: Request
    hold_names: tuple[str, ...]
    refusal: str


class VisibleDecisions:
    """The decisions about the archives of one officer."""

    def __init__(self, settings: Settings, user: User, view: VisibleArchives) -> None:
        self._settings = settings
        self._user = user
        self._view = view

    @cached_property
    def archives(self) -> list[str]:
        """The archives that this user is officer of."""
        return self._view.officer_names

    @property
    def is_of_all(self) -> bool:
        """True for an officer of every archive, also of those to come."""
        return self._user.has_role(Role.OFFICER, EVERY_ARCHIVE)

    def require(self, archives: Sequence[str]) -> None:
        """Raise AccessRefused unless the user is officer of these archives."""
        others = [each for each in archives if each not in self.archives]
        if others:
            self._view.record_refusal(f"decision about {', '.join(others)}")
            raise AccessRefused(
                "this is for officers of all archives that it is about; another"
                " officer must do it"
            )

    def holds(self) -> list[Hold]:
        """Return the open holds; those released too for an officer of every archive."""
        return [
            self._visible(each)
            for each in holds.read(self._settings)
            if self._may_see(each)
        ]

    def _may_see(self, hold: Hold) -> bool:
        is_of_every_archive = hold.is_open and hold.query and not hold.archives
        is_of_mine = not hold.journals.isdisjoint(self.archives)
        return bool(self.is_of_all or is_of_mine or is_of_every_archive)

    def hold(self, name: str) -> Hold:
        """Return the open hold of a name, or else the last one that was released."""
        named = [each for each in self.holds() if each.name == name]
        if not named:
            raise RecordNotFound(f"there is no hold {name} in your archives")
        return max(named, key=lambda each: (each.is_open, each.time))

    def _visible(self, hold: Hold) -> Hold:
        ids = {name: some for name, some in hold.ids.items() if name in self.archives}
        return replace(hold, ids=ids)

    def covered(
        self,
        query: str,
        ids: Sequence[str],
        archives: Sequence[str],
        now: float | None = None,
    ) -> Covered:
        """Return what a hold of a query or of ids covers, which is recorded.

        now (Unix time) is when it was set.
        """
        self.require(archives)
        some = ids[:FIRST_HITS]
        page = self._view.search(
            " OR ".join(f"id:{each}" for each in some) or query,
            archives=archives,
            limit=FIRST_HITS,
            action="hold",
            now=now,
        )
        if ids:
            return Covered(page, len(ids))
        return Covered(page, self._view.count(query, archives=archives, now=now))

    def add_hold(
        self,
        name: str,
        *,
        query: str,
        ids: Sequence[str],
        archives: Sequence[str],
        reason: str,
    ) -> None:
        """Set a hold; archives are those it is about, none for all of the store."""
        if archives or not self.is_of_all:
            archives = archives or self.archives
            self.require(archives)
            if not archives:
                raise AccessRefused("none of your archives is in the store")
        named = [e for e in holds.read(self._settings) if e.is_open and e.name == name]
        if named and not any(map(self._may_see, named)):
            raise HoldRefused(f"the name {name} is taken; choose another")
        decision_requests.add_hold(
            self._settings,
            self._user.name,
            name,
            query="" if ids else query,
            ids=ids,
            archives=archives,
            reason=reason,
        )

    def release_hold(self, name: str, reason: str) -> None:
        """Release a hold."""
        hold = self.hold(name)
        self.require(sorted(hold.journals))
        if hold.query and not hold.archives and not self.is_of_all:
            self._view.record_refusal(f"release of the hold {name}")
            raise AccessRefused(
                f"the hold {name} is of all archives, also of those to come: an officer"
                " of all archives releases it"
            )
        decision_requests.release_hold(
            self._settings, self._user.name, name, reason=reason
        )

    def erasures(self) -> list[OpenErasure]:
        """Return the open requests for erasure, oldest first."""
        requests = [
            each
            for each in erasure.read(self._settings)
            if each.archive in self.archives
        ]
        covering = holds.Holds(self._settings) if requests else None
        found = []
        for each in requests:
            assert covering
            names = covering.covering(each.archive, [each.archive_id])
            refusal = self._refusal(each)
            found.append(OpenErasure(each, names[each.archive_id], refusal))
        return found

    def erasure(self, archive: str, archive_id: str) -> OpenErasure:
        """Return the open request for a message."""
        for each in self.erasures():
            if (each.request.archive, each.request.archive_id) == (archive, archive_id):
                return each
        raise RecordNotFound(f"there is no open request to erase {archive_id}")

    def _refusal(self, one: Request) -> str:
        """Return why this user cannot approve a request."""
        try:
            approver = erasure.web_person(self._settings, self._user.name)
            erasure.require_other(one, approver)
        except ArchiveError as error:
            return str(error)
        if "erase-approve" not in self._settings.archive_web_decisions:
            return (
                "archive_web_decisions in archive.cf does not have erase-approve:"
                " approve it at the host, with postfix-archive erase approve"
                f" {one.archive_id}"
            )
        return ""

    def effect(self, one: OpenErasure) -> tuple[list[Hit], Copies]:
        """Return the message that goes, and what is known of copies elsewhere.

        The message is left out while the index does not have it.
        """
        request = one.request
        page = self._view.search(
            f"id:{request.archive_id}", archives=[request.archive], action="erase"
        )
        copies = erasure.copies(self._settings, request)
        archives = [each for each in copies.archives if each in self._view.names]
        return page.hits, replace(copies, archives=archives)

    def request_erasure(self, archive: str, archive_id: str, reason: str) -> None:
        """Request that a message is erased."""
        self.require([archive])
        decision_requests.request_erasure(
            self._settings, self._user.name, archive, archive_id, reason=reason
        )

    def decide_erasure(self, archive: str, archive_id: str, decision: str) -> None:
        """Approve or withdraw a request: decision is one of these words."""
        self.require([archive])
        decide = {
            "approve": decision_requests.approve_erasure,
            "withdraw": decision_requests.withdraw_erasure,
        }[decision]
        decide(self._settings, self._user.name, archive, archive_id)

    def replay(self, archive: str, archive_id: str, to: str, reason: str) -> str:
        """Deliver a message once more, to an allowed address; return its queue id."""
        if not self._user.may_read_all(archive) or archive not in self._view.names:
            self._view.record_refusal(f"replay {archive_id} of {archive}")
            raise AccessRefused("only auditors and officers replay mail")
        return decision_requests.replay(
            self._settings, self._user.name, archive, archive_id, to=to, reason=reason
        )
