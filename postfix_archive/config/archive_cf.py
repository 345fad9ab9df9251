"""Read archive.cf and the site keys of one Postfix instance.

Used by intake and the commands. The configuration directory is Postfix's: option
``-c``, else MAIL_CONFIG, which pipe(8) exports (postconf(5), export_environment).
"""

from __future__ import annotations

import posix as os
import sys
from _stat import S_ISREG

from postfix_archive.config import settings
from postfix_archive.errors import (
    KeyMissing,
    KeyUnreadable,
    SettingInvalid,
    SettingsUnreadable,
)
from postfix_archive.message import keyring
from postfix_archive.postfix import smtp_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.config.settings import Settings
    from postfix_archive.message.keyring import Keyring

FILE_NAME = "archive.cf"
DEFAULT_CONFIG_DIRECTORY = "/etc/postfix"  # default of config_directory in postconf(5)


def find_config_directory(option: str | None) -> str:
    """Return the configuration directory: option, MAIL_CONFIG, or the default."""
    return (
        option
        or decode_path(os.environ.get(b"MAIL_CONFIG", b""))
        or DEFAULT_CONFIG_DIRECTORY
    )


def decode_path(raw: bytes) -> str:
    """Decode a path as os.fsdecode() does, without the cost of importing os."""
    return raw.decode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())


def load(config_directory: str, path: str = "") -> Settings:
    """Return the settings; without archive.cf all settings have their defaults.

    path is another file to read instead. Raises SettingsUnreadable and SettingInvalid.
    """
    path = path or f"{config_directory}/{FILE_NAME}"
    try:
        text = _read_text(path)
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsUnreadable(
            f"{path} cannot be read: {error}; make it readable for the user of the"
            " archive services in master.cf"
        ) from error
    return settings.parse(
        text,
        path=path,
        config_directory=config_directory,
        myhostname=os.uname().nodename,
    )


def load_keys(archive_settings: Settings) -> Keyring:
    """Return the site keys. Raises KeyMissing and KeyUnreadable."""
    path = archive_settings.archive_key_file
    try:
        return keyring.parse(_read_text(path), path=path)
    except FileNotFoundError:
        raise KeyMissing(f"{path} is missing: run postfix-archive key create") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnreadable(
            f"{path} cannot be read: {_error_text(error)}; its owner must be the user"
            " of the archive services in master.cf"
        ) from None


def readable_keys(archive_settings: Settings | None) -> Keyring | None:
    """Return the site keys, None if they or archive.cf cannot be read."""
    if archive_settings is None:
        return None
    try:
        return load_keys(archive_settings)
    except (KeyMissing, KeyUnreadable):
        return None


def load_capsule_helo(archive_settings: Settings) -> bytes:
    """Return the HELO name for the capsule port; without the file any name will do.

    Raises KeyUnreadable.
    """
    path = archive_settings.capsule_helo_file
    try:
        words = _read_text(path).split()
    except FileNotFoundError:
        words = []
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnreadable(
            f"{path} cannot be read: {_error_text(error)}; its owner must be the user"
            " of the archive services in master.cf"
        ) from None
    return words[0].encode() if words else smtp_client.DEFAULT_HELO


def mail_owner_uid(archive_settings: Settings) -> int:
    """Return the user id of mail_owner, as whom pickup(8) requeues mail."""
    from pwd import getpwnam

    try:
        return getpwnam(archive_settings.mail_owner).pw_uid
    except KeyError:
        raise SettingInvalid(
            f"{archive_settings.config_directory}/{FILE_NAME}: mail_owner ="
            f" {archive_settings.mail_owner}: no such user; use the value from main.cf"
        ) from None


def _read_text(path: str) -> str:
    """Return the text of a regular file; a FIFO in its place would block for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file", path)
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


def _error_text(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def configuration_files(directory: str) -> tuple[str, ...]:
    """Return the paths of main.cf, master.cf and archive.cf in a directory."""
    return tuple(f"{directory}/{name}" for name in ("main.cf", "master.cf", FILE_NAME))
