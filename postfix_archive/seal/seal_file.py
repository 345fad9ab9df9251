"""The files of the seals in <store>/seals: their names, their content, their writing.

    <number>-<time>.json           the seal: one line of JSON
    <number>-<time>.<n>.tsr        the reply of its n-th authority (RFC 3161)
    <number>-<time>.<n>.pem        the certificates that this one is checked with

Used by sealing. store/verifier parses and checks seals. The JSON comes last: a seal is
made when it has its name, and files without one are of a run that was interrupted.
Raises StoreFailed.
"""

from __future__ import annotations

import bisect
import json
import os

from postfix_archive.errors import StoreFailed
from postfix_archive.message import digest
from postfix_archive.store import journal_format, verifier
from postfix_archive.store.verifier import Head, Seal
from postfix_archive.system import files

REPLY_SUFFIX, CERTIFICATES_SUFFIX = ".tsr", ".pem"
LOCK_NAME = "seal.lock"  # the suffix keeps it from archive_reader_group


def read_all(store: str) -> list[Seal]:
    """Return the seals of a store, oldest first; what is damaged is left out.

    verify reports that.
    """
    try:
        return verifier.read_seals(store)[0]
    except OSError as error:
        raise files.store_error(str(error.filename), error) from error


def first_covering(store: str, archive: str, end: int) -> Seal | None:
    """Return the first seal that covers the lines of a journal up to a position.

    None if there is none yet. Reads few of the seals; damaged ones are passed over.
    """
    directory = f"{store}/{verifier.SEALS}"
    try:
        names = sorted(filter(verifier.SEAL_NAME.fullmatch, os.listdir(directory)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.store_error(directory, error) from error

    def sealed_end(name: str) -> int:
        return journal_end(_read(f"{directory}/{name}"), archive)

    for name in names[bisect.bisect_left(names, end, key=sealed_end) :]:
        seal = _read(f"{directory}/{name}")
        if seal and journal_end(seal, archive) >= end:
            return seal
    return None


def journal_end(seal: Seal | None, archive: str) -> int:
    """Return where the journal of an archive ended at a seal, 0 if it has none."""
    heads = seal.heads if seal else ()
    own = (e for e in heads if (e.archive, e.journal) == (archive, journal_format.NAME))
    return next((each.end for each in own), 0)


def _read(path: str) -> Seal | None:
    try:
        return verifier.parse_seal(path.rpartition("/")[2], verifier.read_seal(path))
    except (OSError, ValueError):
        return None


def make(
    number: int,
    previous: str,
    heads: tuple[Head, ...],
    time: str,
    *,
    host: str,
    authorities: tuple[str, ...],
    keys: dict[str, str],
) -> tuple[Seal, bytes]:
    """Return a new seal and its content; time is RFC 3339, UTC.

    previous is the SHA-256 of the seal before.
    """
    fields = {
        "format": verifier.SEAL_FORMAT,
        "number": number,
        "time": time,
        "host": host,
        "previous": previous,
        "authorities": authorities,
        "keys": keys,
        "journals": [each._asdict() for each in heads],
    }
    content = json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
    compact_time = time.replace("-", "").replace(":", "")
    name = f"{number:06d}-{compact_time}.json"
    return verifier.parse_seal(name, content), content


def path_of(store: str, seal: Seal, number: int = 0, suffix: str = "") -> str:
    """Return the path of a seal, or of a file of its authority of this number."""
    path = f"{store}/{verifier.SEALS}/{seal.name}"
    return f"{path.removesuffix('.json')}.{number}{suffix}" if suffix else path


def write(path: str, content: bytes) -> None:
    """Write one of the files durably; nobody but root can change it."""
    try:
        mode = files.shared_mode(files.parent_directory(path), files.STORED_FILE_MODE)
    except OSError as error:
        raise files.store_error(path, error) from error
    files.replace(path, content, mode)


def remove_unfinished(store: str, next_number: int) -> None:
    """Remove what an interrupted run has left: replies for the seal to be made next."""
    directory = f"{store}/{verifier.SEALS}"
    try:
        names = os.listdir(directory)
        stems = {each.partition(".")[0] for each in names if each.endswith(".json")}
        for name in names:
            stem = name.partition(".")[0]
            is_next = stem.startswith(f"{next_number:06d}-") and stem not in stems
            if is_next and name.endswith((REPLY_SUFFIX, CERTIFICATES_SUFFIX)):
                os.unlink(f"{directory}/{name}")
    except OSError as error:
        raise files.store_error(directory, error) from error


def read_content(store: str, seal: Seal) -> bytes:
    """Return the content of a seal."""
    path = path_of(store, seal)
    try:
        content = verifier.read_seal(path)
    except (OSError, ValueError) as error:
        raise StoreFailed(f"{path}: {error}") from error
    if digest.sha256_hex(content) != seal.sha256:
        raise StoreFailed(f"{path}: changed while it was read; run it again")
    return content
