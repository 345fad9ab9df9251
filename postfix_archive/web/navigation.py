"""The links at the top of each page: those that a user may follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flask import current_app

from postfix_archive.web.language import gettext as _
from postfix_archive.web.user import User

# Endpoint, label, and who sees it.
LINKS: tuple[tuple[str, Callable[[], str], Callable[[User], bool]], ...] = (
    ("search.search", lambda: _("Search"), lambda user: user.is_reader),
    ("exports.list_", lambda: _("Exports"), lambda user: user.is_reader),
    ("holds.list_", lambda: _("Holds"), lambda user: user.is_officer),
    ("erasures.list_", lambda: _("Erasures"), lambda user: user.is_officer),
    ("access_log.list_", lambda: _("Access log"), lambda user: user.is_officer),
    ("dashboard.show", lambda: _("Status"), lambda user: not user.is_own_only),
    ("users.list_", lambda: _("Users"), lambda user: user.is_admin),
    ("account.show", lambda: _("Account"), lambda user: True),
)


def navigation(user: User) -> Iterator[tuple[str, str]]:
    """Yield endpoint and label of each page for a user."""
    for endpoint, label, is_for in LINKS:
        if is_for(user) and endpoint in current_app.view_functions:
            yield endpoint, label()
