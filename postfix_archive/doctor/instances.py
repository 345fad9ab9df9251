"""The instances of Postfix on this host that have the archive, and their site keys.

Used by inspection. Changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.doctor.host import OtherInstance
from postfix_archive.errors import ArchiveError, KeyMissing, KeyUnreadable
from postfix_archive.postfix import archive_services, configuration, postfix_command


def others(directory: str) -> Iterator[OtherInstance]:
    """Yield the other instances on this host with the archive installed."""
    for other_directory in _instance_directories():
        if Path(other_directory).resolve() == Path(directory).resolve():
            continue
        with contextlib.suppress(ArchiveError, OSError):
            postfix_config = postfix_command.read_configuration(other_directory)
            if archive_services.is_installed(postfix_config):
                settings = archive_cf.load(other_directory)
                yield OtherInstance(
                    other_directory,
                    tuple(archive_services.configured_archives(postfix_config)),
                    settings.archive_key_file,
                    key_digests(settings)[0],
                )


def _instance_directories() -> list[str]:
    """Return the configuration directories of all instances (postmulti(1))."""
    if not Path(archive_cf.DEFAULT_CONFIG_DIRECTORY, "main.cf").exists():
        return []
    try:
        command = ("postconf", "-x", "-h", "multi_instance_directories")
        output = postfix_command.run(archive_cf.DEFAULT_CONFIG_DIRECTORY, *command)
    except ArchiveError:
        return []
    return [
        archive_cf.DEFAULT_CONFIG_DIRECTORY,
        *configuration.split_list(output.strip()),
    ]


def key_digests(settings: Settings | None) -> tuple[frozenset[str], str]:
    """Return the SHA-256 digests of the site keys, and why they cannot be parsed."""
    if settings is None:
        return frozenset(), ""
    try:
        keys = archive_cf.load_keys(settings).keys
    except KeyMissing:
        return frozenset(), ""
    except KeyUnreadable as error:
        return frozenset(), str(error)
    return frozenset(hashlib.sha256(key.secret).hexdigest() for key in keys), ""
