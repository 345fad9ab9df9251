"""Read archive.cf and the site keys of one Postfix instance.

Used by intake and the commands. The configuration directory is Postfix's: option
``-c``, else MAIL_CONFIG, which pipe(8) exports (postconf(5), export_environment).
"""

from __future__ import annotations

import posix as os
import sys

from postfix_archive.core import keyring, settings
from postfix_archive.core.errors import (
    KeyMissing,
    KeyUnreadable,
    SettingsUnreadable,
    SettingWrong,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.settings import Settings

NAME = "archive.cf"
DIRECTORY = "/etc/postfix"  # default of config_directory in postconf(5)


def directory(given: str | None) -> str:
    """Return the configuration directory: option, MAIL_CONFIG, or the default."""
    return given or path(os.environ.get(b"MAIL_CONFIG", b"")) or DIRECTORY


def path(raw: bytes) -> str:
    """Decode a path as os.fsdecode() does, without the cost of importing os."""
    return raw.decode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())


def load(config_directory: str, place: str = "") -> Settings:
    """Return the settings; without archive.cf all settings have their defaults.

    path is another file to read instead. Raises SettingsUnreadable and SettingWrong.
    """
    place = place or f"{config_directory}/{NAME}"
    try:
        text = _text(place)
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsUnreadable(
            f"{place} cannot be read: {problem}; make it readable for the user of the"
            " archive services in master.cf"
        ) from problem
    return settings.parse(
        text,
        place=place,
        config_directory=config_directory,
        myhostname=os.uname().nodename,
    )


def keys(found: Settings) -> Keyring:
    """Return the site keys. Raises KeyMissing and KeyUnreadable."""
    place = found.archive_key_file
    try:
        return keyring.parse(_text(place), place=place)
    except FileNotFoundError:
        raise KeyMissing(
            f"{place} is missing: run postfix-archive key create"
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise KeyUnreadable(
            f"{place} cannot be read: {_reason(problem)}; its owner must be the user of"
            " the archive services in master.cf"
        ) from None


def user_id(found: Settings) -> int:
    """Return the user id of mail_owner, as whom pickup(8) requeues mail."""
    from pwd import getpwnam

    try:
        return getpwnam(found.mail_owner).pw_uid
    except KeyError:
        raise SettingWrong(
            f"{found.config_directory}/{NAME}: mail_owner = {found.mail_owner}: no such"
            " user; use the value from main.cf"
        ) from None


def _text(place: str) -> str:
    with open(place, encoding="utf-8") as opened:
        return opened.read()


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or type(problem).__name__
