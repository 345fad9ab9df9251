"""What the pages share in one request: settings, database, user, archives."""

from __future__ import annotations

import contextlib
import datetime
import functools
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from flask import current_app, g, redirect, request, session, url_for

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    AccessRefused,
    ArchiveError,
    DecisionRefused,
    EraseRefused,
    ExportFailed,
    HoldRefused,
    LoginDelayed,
    PersonUnknown,
    QueryInvalid,
    ReasonMissing,
    RecordHeld,
    RecordNotFound,
    UserInvalid,
)
from postfix_archive.web import database
from postfix_archive.web.user import User
from postfix_archive.web.visible.archives import VisibleArchives
from postfix_archive.web.web_settings import WebSettings

NAME = "postfix_archive"  # in Flask.extensions
REASON = "reason"  # key of the session
FOR_READERS = "this page is for those who may read mail"
FOR_ADMINS = "this page is for admins"
Page = TypeVar("Page", bound=Callable[..., Any])
STATUS_OF_ERRORS = {
    AccessRefused: HTTPStatus.FORBIDDEN,
    DecisionRefused: HTTPStatus.FORBIDDEN,
    EraseRefused: HTTPStatus.CONFLICT,
    ExportFailed: HTTPStatus.CONFLICT,
    HoldRefused: HTTPStatus.CONFLICT,
    LoginDelayed: HTTPStatus.TOO_MANY_REQUESTS,
    PersonUnknown: HTTPStatus.FORBIDDEN,
    QueryInvalid: HTTPStatus.BAD_REQUEST,
    ReasonMissing: HTTPStatus.BAD_REQUEST,
    RecordHeld: HTTPStatus.CONFLICT,
    RecordNotFound: HTTPStatus.NOT_FOUND,
    UserInvalid: HTTPStatus.BAD_REQUEST,
}


@dataclass(frozen=True)
class Site:
    """One instance and its page."""

    settings: Settings
    web: WebSettings


def current() -> Site:
    """Return the site of this application."""
    found: Site = current_app.extensions[NAME]
    return found


@contextlib.contextmanager
def database_() -> Iterator[sqlite3.Connection]:
    """Open the database of the page; commits at the end."""
    with database.open_database(current().web.database_path) as db:
        yield db


def user() -> User:
    """Return who asks; only within a page that needs_login."""
    who: User = g.user
    return who


def archives(reason: str = "") -> VisibleArchives:
    """Return the archives as this user may see them.

    reason is why they look; without one it is what they said in this session.
    """
    return VisibleArchives(current().settings, user(), reason or said_reason())


def said_reason() -> str:
    """Return the reason that the user has given on this day, "" for none."""
    day, text = session.get(REASON, ("", ""))
    found: str = text if day == str(datetime.date.today()) else ""
    return found


def say_reason(text: str) -> None:
    """Keep the reason of the user for this day, in this session."""
    session[REASON] = (str(datetime.date.today()), text)


def status_of(error: ArchiveError) -> HTTPStatus:
    """Return the HTTP status for an error; others mean: it cannot be read now."""
    return next(
        (code for kind, code in STATUS_OF_ERRORS.items() if isinstance(error, kind)),
        HTTPStatus.SERVICE_UNAVAILABLE,
    )


def needs_login(page: Page) -> Page:
    """Show a page only to who has logged in; others log in first."""

    @functools.wraps(page)
    def with_login(*args: Any, **options: Any) -> Any:
        if g.get("user") is None:
            target = request.full_path if request.method == "GET" else ""
            return redirect(url_for("login.log_in", next=target.rstrip("?")))
        return page(*args, **options)

    return with_login  # type: ignore[return-value]


def needs(condition: Callable[[User], bool], refusal: str) -> Callable[[Page], Page]:
    """Show a page only to users that meet a condition; others see the refusal."""

    def decorate(page: Page) -> Page:
        @functools.wraps(page)
        def with_condition(*args: Any, **options: Any) -> Any:
            if not condition(user()):
                archives().record_refusal(f"{request.method} {request.path}")
                raise AccessRefused(refusal)
            return page(*args, **options)

        return needs_login(with_condition)  # type: ignore[return-value]

    return decorate


for_officers = needs(lambda user: user.is_officer, "this page is for officers")
