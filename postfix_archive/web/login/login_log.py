"""Records logins and changes of users in the access journals and in the log.

The access journal of each archive in which the user has a role gets an entry, which
names no message. A name that nobody has is written nowhere: some people type their
password there. The log has a line of each refused login with the client's address, for
programs such as fail2ban. Where nothing can be recorded a login goes on: it shows no
mail, and each access to mail is recorded by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from flask import request

from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.errors import ArchiveError
from postfix_archive.message.printable import safe_text
from postfix_archive.store import record_reader
from postfix_archive.web import site
from postfix_archive.web.user import EVERY_ARCHIVE, Grant, User

LOGGER = logging.getLogger("postfix_archive.web")
EVERYWHERE = (Grant.parse("own:*"),)  # for whose roles are not known yet


def logged_in(user: User) -> None:
    """Record a login."""
    LOGGER.info(_line("login", user.name, f"source={user.source}"))
    _record("login", user.name, user.grants, user.source)


def refused(name: str, grants: Collection[Grant], reason: str) -> None:
    """Record a refused login; name is "" if there is none of it."""
    LOGGER.warning(_line("login-refused", name, f"reason={reason}"))
    if name:
        _record("login-refused", name, grants, reason)


def changed(admin: str, text: str) -> None:
    """Record that an admin has changed a user; text says whom and how."""
    LOGGER.info(_line("user-changed", admin, text))
    _record("user-changed", admin, EVERYWHERE, text)


def _line(event: str, name: str, text: str) -> str:
    client = request.remote_addr or ""
    return safe_text(f"{event} user={name or '-'} client={client or '-'} {text}")


def _record(action: str, name: str, grants: Collection[Grant], text: str) -> None:
    settings = site.current().settings
    try:
        archives = record_reader.archives(settings.archive_store_directory)
        names = {EVERY_ARCHIVE, *archives} & {each.archive for each in grants}
        concerned = archives if EVERY_ARCHIVE in names else names
        recorder = AccessRecorder(
            settings,
            action,
            query=f"client={request.remote_addr} {text}",
            reason=action,
            web_user=name,
            warn=LOGGER.warning,
        )
        recorder.searched(sorted(concerned))
    except (ArchiveError, OSError) as error:
        LOGGER.warning(_line("unrecorded", name, f"action={action} {error}"))
