"""Check the time stamps of seals, and the site keys against those they name.

Used by ``postfix-archive verify --seals``. That the journals stand as sealed, and that
no seal is missing, store/verifier checks. Changes nothing. Raises TimeStampFailed and
LibraryMissing.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, TimeStampFailed
from postfix_archive.seal import seal_file, sealing, time_stamp
from postfix_archive.store import verifier
from postfix_archive.store.verifier import Finding, Seal

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def check(settings: Settings, seals: list[Seal]) -> list[Finding]:
    """Return what is wrong with the time stamps of a store's seals."""
    store = settings.archive_store_directory
    if not seals:
        return [Finding(f"{store}/{verifier.SEALS}", "no seal in this store")]
    findings: list[Finding] = []
    if any(each.authorities for each in seals):
        roots = time_stamp.load_roots(settings.archive_tsa_certificates)
        for seal in seals:
            findings += _check_seal(store, seal, roots)
    unstamped = [each for each in seals if not each.authorities]
    if unstamped:
        problem = (
            f"{len(unstamped)} seals have no time stamp, the last is"
            f" {unstamped[-1].name}: compare them with those that the third party has"
            " (--seal-file)"
        )
        findings.append(Finding(f"{store}/{verifier.SEALS}", problem, True))
    return findings + list(_check_keys(settings, seals[-1]))


def _check_seal(store: str, seal: Seal, roots: list[Certificate]) -> Iterator[Finding]:
    """Yield what is wrong with the stamps of one seal; that it has one is checked."""
    path = seal_file.path_of(store, seal)
    try:
        content = seal_file.read_content(store, seal)
    except ArchiveError as error:
        yield Finding(path, str(error))
        return
    for number in range(1, len(seal.authorities) + 1):
        reply_path = seal_file.path_of(store, seal, number, seal_file.REPLY_SUFFIX)
        if not os.path.lexists(reply_path):
            continue  # this authority gave none, which the run has reported
        problem = _problem(reply_path, content, seal, roots)
        if problem:
            yield Finding(reply_path, problem)


def _problem(path: str, content: bytes, seal: Seal, roots: list[Certificate]) -> str:
    """Return what is wrong with a reply, "" if nothing."""
    try:
        reply = verifier.read_seal(path)
        stamp = time_stamp.check(reply, content, roots)
        sealed = datetime.datetime.fromisoformat(seal.time)
        difference = (stamp.time - sealed).total_seconds()
    except (OSError, ValueError, TypeError) as error:
        return str(error)
    except TimeStampFailed as error:
        return str(error)
    if abs(difference) > time_stamp.CLOCK_SLACK:
        return f"stamped at {stamp.time:%Y-%m-%dT%H:%M:%SZ}, not when the seal was made"
    return ""


def _check_keys(settings: Settings, last: Seal) -> Iterator[Finding]:
    """Yield how the site keys differ from those at the last seal."""
    current = sealing.key_digests(settings)
    path = settings.archive_key_file
    for key_id, sha256 in current.items():
        if key_id not in last.keys:
            text = f"key {key_id} came after {last.name}: is it one of yours?"
            yield Finding(path, text, True)
        elif last.keys[key_id] != sha256:
            yield Finding(path, f"key {key_id} is another one than at {last.name}")
