"""Write the key file: the first site key, and new ones before it; the HELO name.

Used by the ``postfix-archive key`` commands. Never removes a key: existing stamps and
seals need it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pwd
import secrets
from collections.abc import Iterator

from postfix_archive.errors import KeyMissing, KeyUnreadable, StoreFailed
from postfix_archive.message import keyring
from postfix_archive.system import files, privileges

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
    owner_ids = _owner_ids(owner) if owner is not None else None
    with _as_directory_owner(path):
        is_created = files.create(
            path, text.encode(), owner=owner_ids, failure=KeyUnreadable
        )
    if not is_created:
        raise KeyUnreadable(
            f"{path} already exists; use postfix-archive key rotate to add a key"
        )


def create_helo(path: str, owner: str | None) -> bool:
    """Create the table with the HELO name for the capsule port; False if it exists.

    Mode 0600; durable on return. owner as in create(). Raises KeyUnreadable.
    """
    text = f"capsule-{secrets.token_hex(16)} OK\n"
    owner_ids = _owner_ids(owner) if owner is not None else None
    with _as_directory_owner(path):
        return files.create(path, text.encode(), owner=owner_ids, failure=KeyUnreadable)


def rotate(path: str, key_id: str) -> None:
    """Add a new key before the ones in a key file, atomically; durable on return.

    Keeps owner and mode. Raises KeyUnreadable and KeyMissing.
    """
    with _as_directory_owner(path):
        _add_key(path, key_id)


def _add_key(path: str, key_id: str) -> None:
    try:
        with open(files.open_regular(path), encoding="ascii") as file:
            old_text = file.read()
    except FileNotFoundError:
        raise KeyMissing(f"{path} is missing: run postfix-archive key create") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnreadable(f"{path} cannot be changed: {error}") from error
    text = KEY_FILE_HEADING + f"{key_id} {os.urandom(keyring.SECRET_BYTES).hex()}\n"
    text += old_text.removeprefix(KEY_FILE_HEADING)
    keys = keyring.parse(text, path=path)
    if len(keys.with_id(key_id)) > 1:
        raise KeyUnreadable(f"{path} has a key {key_id} already; choose another --id")
    files.replace(path, text.encode(), like=path, failure=KeyUnreadable)


@contextlib.contextmanager
def _as_directory_owner(path: str) -> Iterator[None]:
    """Act as the owner of a file's directory, who decides what its path leads to."""
    try:
        with privileges.as_owner(os.path.dirname(os.path.abspath(path))):
            yield
    except StoreFailed as error:
        raise KeyUnreadable(str(error)) from error


def new_key_id() -> str:
    """Return the id for a new key: today's date (UTC) and 64 random bits.

    Keys that are made on one day on two hosts, or for two instances, differ in it.
    """
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")
    return f"{date}-{secrets.token_hex(8)}"


def _owner_ids(owner: str) -> tuple[int, int]:
    try:
        account = pwd.getpwnam(owner)
    except KeyError:
        raise KeyUnreadable(f"no user {owner}; give another --owner") from None
    return account.pw_uid, account.pw_gid
