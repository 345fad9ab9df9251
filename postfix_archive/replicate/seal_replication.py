"""Uploads the seals of a store to the bucket, and restores them.

Used by replication_service and cli.restore. Raises ObjectStoreFailed and StoreFailed.
"""

from __future__ import annotations

import hashlib
import os

from postfix_archive.errors import StoreFailed
from postfix_archive.replicate.bucket import Bucket, Lock
from postfix_archive.store import verifier
from postfix_archive.system import files

PREFIX = f"{verifier.SEALS}/"  # of the keys
JSON_SUFFIX = ".json"


def upload(bucket: Bucket, store_directory: str, lock: Lock, known: set[str]) -> None:
    """Upload the seals that are not known to be there, and add their files to known.

    Those are asked for first if known is empty.
    """
    directory = f"{store_directory}/{verifier.SEALS}"
    names = _file_names(directory)
    if names and not known:
        versions = bucket.versions(PREFIX)
        known.update(each.key.removeprefix(PREFIX) for each in versions)
    for name in names:
        if name not in known:
            path = f"{directory}/{name}"
            try:
                sha256 = hashlib.sha256(verifier.read_seal(path)).hexdigest()
                key = PREFIX + name
                bucket.put_file(key, path, lock, sha256=sha256, offset=0)
            except OSError as error:
                raise files.store_error(path, error) from error
            except ValueError as error:
                raise StoreFailed(
                    f"{path}: {error}; run postfix-archive verify"
                ) from error
            known.add(name)


def restore(bucket: Bucket, store_directory: str) -> int:
    """Write the seals that are not there yet; return how many files.

    Of several versions the oldest counts: nobody can put another one before it.
    """
    names: dict[str, str] = {}  # the version of each
    for version in bucket.versions(PREFIX):
        name = version.key.removeprefix(PREFIX)
        if not version.is_marker and "/" not in name:
            names[name] = version.version_id
    directory = f"{store_directory}/{verifier.SEALS}"
    count = 0
    for name, version_id in names.items():
        files.make_directory(directory)
        if not files.exists(f"{directory}/{name}"):
            content = bucket.get(PREFIX + name, version_id)
            mode = files.shared_mode(directory, files.STORED_FILE_MODE)
            files.replace(f"{directory}/{name}", content, mode)
            count += 1
    return count


def _file_names(directory: str) -> list[str]:
    """Return the files of finished seals: their JSON comes last."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.store_error(directory, error) from error
    stems = {each.removesuffix(JSON_SUFFIX) for each in names if JSON_SUFFIX in each}
    return [each for each in names if each.partition(".")[0] in stems]
