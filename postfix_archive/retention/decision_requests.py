"""Has the access service carry out what a user of the web page decides.

    decision_requests.add_hold(settings, "anna", "smith", query="from:smith", ...)

Used by the web page, whose process can write nothing of the store. web_user is who has
logged in at the page. What is decided is durable on return, and recorded with the
user's name. Raises what the commands hold, erase and replay raise, with the same texts,
DecisionRefused for what archive_web_decisions does not have, and AccessServiceFailed if
there is no answer: then it may be carried out all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from postfix_archive.access import access_service
from postfix_archive.config.settings import Settings


def add_hold(
    settings: Settings,
    web_user: str,
    name: str,
    *,
    query: str = "",
    ids: Sequence[str] = (),
    archives: Sequence[str] = (),
    reason: str,
) -> None:
    """Set a hold of a query, or of whole archive ids; see holds.add()."""
    access_service.decide(
        settings,
        web_user,
        "hold-add",
        name=name,
        query=query,
        ids=list(ids),
        archives=list(archives),
        reason=reason,
    )


def release_hold(settings: Settings, web_user: str, name: str, *, reason: str) -> None:
    """Release an open hold; see holds.release()."""
    access_service.decide(settings, web_user, "hold-release", name=name, reason=reason)


def request_erasure(
    settings: Settings, web_user: str, archive: str, archive_id: str, *, reason: str
) -> None:
    """Request the erasure of a message; see erasure.request()."""
    one = {"archives": [archive], "ids": [archive_id]}
    access_service.decide(settings, web_user, "erase-request", reason=reason, **one)


def approve_erasure(
    settings: Settings, web_user: str, archive: str, archive_id: str
) -> None:
    """Erase a message, as another person has requested; see erasure.approve().

    Like the command it takes no reason: that could name the person in the message.
    """
    one = {"archives": [archive], "ids": [archive_id]}
    access_service.decide(settings, web_user, "erase-approve", **one)


def withdraw_erasure(
    settings: Settings, web_user: str, archive: str, archive_id: str
) -> None:
    """Withdraw an open request; see erasure.withdraw()."""
    one = {"archives": [archive], "ids": [archive_id]}
    access_service.decide(settings, web_user, "erase-withdraw", **one)


def replay(
    settings: Settings,
    web_user: str,
    archive: str,
    archive_id: str,
    *,
    to: str,
    reason: str,
) -> str:
    """Deliver a message once more, to an address of archive_replay_to.

    Returns Postfix's queue id; several, with spaces between, if the record has several
    originals.
    """
    one = {"archives": [archive], "ids": [archive_id]}
    return access_service.decide(
        settings, web_user, "replay", to=to, reason=reason, **one
    )
