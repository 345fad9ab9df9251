"""Check the time stamps of seals, and the site keys against those they name.

Used by ``postfix-archive verify --seals``. That the journals stand as sealed, and that
no seal is missing, store/verifier checks. Changes nothing. Raises TimeStampFailed and
LibraryMissing.
"""

from __future__ import annotations

import contextlib
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
    directory = f"{store}/{verifier.SEALS}"
    if not seals:
        return [Finding(directory, "no seal in this store")]
    findings: list[Finding] = []
    unstamped: list[Seal] = []
    first_uncovered = ""  # the first after the last seal with a valid time stamp
    roots = None
    for seal in seals:
        stamp_count = 0
        if seal.authorities:
            roots = roots or time_stamp.load_roots(settings.archive_tsa_certificates)
            stamp_count, problems = _check_seal(store, seal, roots)
            findings += problems
        else:
            unstamped.append(seal)
        first_uncovered = "" if stamp_count else first_uncovered or seal.name
    if first_uncovered and settings.archive_tsa_url:
        problem = (
            f"no valid time stamp of {first_uncovered} or of any seal after it, but"
            " archive_tsa_url is set: if it was set since, run postfix-archive seal"
        )
        findings.append(Finding(directory, problem))
    if unstamped:
        problem = (
            f"{len(unstamped)} seals have no time stamp, the last is"
            f" {unstamped[-1].name}: compare them with those that the third party has"
            " (--seal-file)"
        )
        findings.append(Finding(directory, problem, True))
    return findings + list(_check_keys(settings, seals))


def _check_seal(
    store: str, seal: Seal, roots: list[Certificate]
) -> tuple[int, list[Finding]]:
    """Return how many valid stamps a seal has, and what is wrong with the others."""
    path = seal_file.path_of(store, seal)
    try:
        content = seal_file.read_content(store, seal)
    except ArchiveError as error:
        return 0, [Finding(path, str(error))]
    directory = os.path.dirname(path)
    # An authority without a reply gave none, which the run has reported.
    replies = [f"{directory}/{each}" for each in verifier.stamp_names(seal)]
    replies = [each for each in replies if os.path.lexists(each)]
    problems = [(each, _problem(each, content, seal, roots)) for each in replies]
    findings = [Finding(each, problem) for each, problem in problems if problem]
    return len(replies) - len(findings), findings


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
        return _old_root_problem(path, reply, content) or str(error)
    if abs(difference) > time_stamp.CLOCK_SLACK:
        return f"stamped at {stamp.time:%Y-%m-%dT%H:%M:%SZ}, not when the seal was made"
    return ""


def _old_root_problem(path: str, reply: bytes, content: bytes) -> str:
    """Return which root a stamp is valid with that is kept beside it, else ""."""
    kept = path.removesuffix(seal_file.REPLY_SUFFIX) + seal_file.CERTIFICATES_SUFFIX
    try:
        certificates = time_stamp.parse_certificates(verifier.read_seal(kept))
    except (OSError, ValueError):
        return ""
    for root in certificates:
        if root.subject == root.issuer:
            with contextlib.suppress(TimeStampFailed):
                time_stamp.check(reply, content, [root])
                return (
                    f"valid with the root {root.subject.rfc4514_string()} in"
                    f" {os.path.basename(kept)}, which is no longer in"
                    " archive_tsa_certificates: if it was your authority's, get it"
                    " from there and add it"
                )
    return ""


def _check_keys(settings: Settings, seals: list[Seal]) -> Iterator[Finding]:
    """Yield how the site keys differ from those at the seals."""
    current = sealing.key_digests(settings)
    path = settings.archive_key_file
    first: dict[str, tuple[str, str]] = {}  # digest and seal, by key id
    changed = set()
    for name, keys in [*((e.name, e.keys) for e in seals), ("", current)]:
        for key_id, sha256 in keys.items():
            first_sha256, first_name = first.setdefault(key_id, (sha256, name))
            if sha256 != first_sha256 and key_id not in changed:
                changed.add(key_id)
                when = f"at {name}" if name else "now"
                text = f"key {key_id} is another one {when} than at {first_name}"
                yield Finding(path, text)
    for key_id in current:
        if key_id not in seals[-1].keys:
            text = f"key {key_id} came after {seals[-1].name}: is it one of yours?"
            yield Finding(path, text, True)
