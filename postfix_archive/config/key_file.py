"""Write the key file: the first site key, and new ones before it.

Used by the ``postfix-archive key`` commands. Never removes a key: existing stamps and
seals need it.
"""

from __future__ import annotations

import contextlib
import datetime
import os

from postfix_archive.errors import KeyMissing, KeyUnreadable
from postfix_archive.message import keyring
from postfix_archive.system import files

KEY_FILE_HEADING = (
    "# Site keys of postfix-archive. The first is in use. Keep them secret.\n"
)


def create(path: str, key_id: str, owner: str | None) -> None:
    """Create a key file, mode 0600, atomically; durable on return.

    owner is the user of the archive services; with None the calling user owns the file.
    Raises KeyUnreadable if the file exists or cannot be written.
    """
    secret = os.urandom(keyring.SECRET_BYTES).hex()
    text = KEY_FILE_HEADING + f"{key_id} {secret}\n"
    keyring.parse(text, path=path)
    draft = f"{path}.{os.getpid()}.draft"
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            files.write_all(descriptor, text.encode())
            if owner is not None:
                _change_owner(descriptor, owner)
            os.fsync(descriptor)
            os.link(draft, path)
            files.sync_directory(os.path.dirname(path))
        finally:
            os.close(descriptor)
            os.unlink(draft)
    except FileExistsError:
        raise KeyUnreadable(
            f"{path} already exists; use postfix-archive key rotate to add a key"
        ) from None
    except OSError as error:
        raise KeyUnreadable(f"{path} cannot be created: {error.strerror}") from error


def rotate(path: str, key_id: str) -> None:
    """Add a new key before the ones in a key file, atomically; durable on return.

    Keeps owner and mode. Raises KeyUnreadable and KeyMissing.
    """
    draft = f"{path}.{os.getpid()}.draft"
    try:
        with open(path, encoding="ascii", opener=_open_no_follow) as file:
            stat = os.fstat(file.fileno())
            old_text = file.read()
        text = KEY_FILE_HEADING + f"{key_id} {os.urandom(keyring.SECRET_BYTES).hex()}\n"
        text += old_text.removeprefix(KEY_FILE_HEADING)
        keyring.parse(text, path=path)
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.fchown(descriptor, stat.st_uid, stat.st_gid)
            os.fchmod(descriptor, stat.st_mode & 0o777)
            files.write_all(descriptor, text.encode())
            os.fsync(descriptor)
            os.rename(draft, path)
            files.sync_directory(os.path.dirname(path))
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
    except FileNotFoundError:
        raise KeyMissing(f"{path} is missing: run postfix-archive key create") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnreadable(f"{path} cannot be changed: {error}") from error


def _open_no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def new_key_id() -> str:
    """Return the id for a new key: today's date (UTC) as YYYYMMDD."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")


def _change_owner(descriptor: int, owner: str) -> None:
    from pwd import getpwnam

    try:
        account = getpwnam(owner)
    except KeyError:
        raise KeyUnreadable(f"no user {owner}; give another --owner") from None
    os.fchown(descriptor, account.pw_uid, account.pw_gid)
