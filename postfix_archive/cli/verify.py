"""The command postfix-archive verify: check every file and journal line of the store.

store/verifier does the work; auditors run that file alone as contrib/verify_archive.py.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from postfix_archive import monitoring
from postfix_archive.cli.options import ArchiveAddress
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, SealFailed, StoreFailed
from postfix_archive.message.printable import safe_text
from postfix_archive.replicate import bucket, comparison, remote_journal
from postfix_archive.seal import signatures
from postfix_archive.status import last_verify
from postfix_archive.store import known_end, record_reader, verifier
from postfix_archive.store.verifier import Finding, Seal, Verification

ADVICE = "run this as root or as the archive's user"


@click.command()
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.option(
    "--sealed",
    multiple=True,
    metavar="HASH",
    help="SHA-256 of a line that a journal must have; may be repeated.",
)
@click.option(
    "--object-store",
    "has_object_store",
    is_flag=True,
    help="Compare the store with the object storage, too.",
)
@click.option(
    "--seals", "with_signatures", is_flag=True, help="Check signatures of seals, too."
)
@click.option(
    "--seal-file",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="Seals that a third party has kept; all must be in the store.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(
    ctx: click.Context,
    archive: str | None,
    sealed: tuple[str, ...],
    has_object_store: bool,
    with_signatures: bool,
    seal_file: str | None,
    as_json: bool,
) -> None:
    """Check every file and journal line of the store.

    Changes nothing in it. The journals must have each line that a seal in the store
    names. --seals also checks the time stamps of the seals (RFC 3161). --sealed takes
    what an earlier run printed as the last line's SHA-256. --object-store reads every
    object in the bucket.

    Exit codes are those of monitoring plugins: 0 no errors (a note is no error),
    2 errors, 3 the store cannot be read.
    """
    try:
        settings = archive_cf.load(ctx.obj)
        store = settings.archive_store_directory
        # Before those of the store, which has each seal before anybody else.
        kept_seals, kept_findings = _read_kept_seals(seal_file)
        seals, errors = _read_seals(store)
        errors += kept_findings
        results = _verify_archives(store, archive, sealed, [*seals, *kept_seals])
        if with_signatures:
            errors += signatures.check(settings, seals)
        if has_object_store:
            errors += _compare(settings, results, only=archive)
    except ArchiveError as error:
        fields = {"status": "UNKNOWN", "reason": str(error)}
        click.echo(
            json.dumps(fields) if as_json else f"UNKNOWN: {safe_text(str(error))}"
        )
        ctx.exit(monitoring.UNKNOWN)
    found = {sha256 for each in results.values() for sha256 in each.sealed}
    errors += [
        Finding(store, verifier.missing_seal(each))
        for each in sealed
        if each not in found
    ]
    if archive is None:
        errors += verifier.check_seals(store, results, seals, kept_seals)
    known = known_end.read(settings.archive_fallback_directory, store)
    errors += [
        Finding(_journal_path(store, address), loss)
        for address, loss in known_end.losses(known, store).items()
        if archive in (None, address)
    ]
    error_count = sum(each.error_count for each in results.values())
    has_errors = error_count or any(not each.is_note for each in errors)
    severity = monitoring.CRITICAL if has_errors else monitoring.OK
    if archive is None:
        error_count += sum(not each.is_note for each in errors)
        file_count = sum(len(each.files) for each in results.values())
        last_verify.save(settings, time.time(), error_count, file_count)
    if as_json:
        click.echo(json.dumps(_to_json(severity, results, errors)))
        ctx.exit(severity)
    for address, result in results.items():
        for finding in result.findings:
            click.echo(safe_text(str(finding)))
        click.echo(f"{address}: {verifier.summary(result)}")
    for finding in errors:
        click.echo(safe_text(str(finding)))
    if seals:
        click.echo(verifier.seal_summary(store, seals))
    if not results:
        click.echo(f"No archives in {store}.")
    ctx.exit(severity)


def _read_seals(store: str) -> tuple[list[Seal], list[Finding]]:
    """Return the seals of the store, and what is wrong with them."""
    try:
        return verifier.read_seals(store)
    except OSError as error:
        raise StoreFailed(f"{error.filename}: {error.strerror}; {ADVICE}") from error


def _read_kept_seals(path: str | None) -> tuple[list[Seal], list[Finding]]:
    """Return the seals in a file from elsewhere, and its damage. Raises SealFailed."""
    try:
        return verifier.read_seal_file(path) if path else ([], [])
    except OSError as error:
        raise SealFailed(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SealFailed(f"{error}; give a file as postfix-archive seal made it") from (
            error
        )


def _journal_path(store: str, address: str) -> str:
    is_seals = address == known_end.SEALS
    return f"{store}/{address}" + ("" if is_seals else f"/{verifier.JOURNAL}")


def _verify_archives(
    store: str, archive: str | None, sealed: Sequence[str], seals: Sequence[Seal]
) -> dict[str, Verification]:
    """Return the results by archive address. Raises StoreFailed, RecordNotFound."""
    results = {}
    for address in record_reader.selected_archives(store, archive):
        try:
            directory = f"{store}/{address}"
            results[address] = _verify_with_progress(directory, sealed, seals)
        except OSError as error:
            is_locked = isinstance(error, BlockingIOError)
            advice = "" if is_locked else f"; {ADVICE}"
            raise StoreFailed(f"{error.filename}: {error.strerror}{advice}") from error
    return results


def _verify_with_progress(
    directory: str, sealed: Sequence[str], seals: Sequence[Seal]
) -> Verification:
    """Verify one archive, with a progress bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return verifier.verify_archive(directory, sealed=sealed, seals=seals)
    label = directory.rpartition("/")[2]
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        return verifier.verify_archive(directory, progress, sealed, seals)


def _compare(
    settings: Settings, results: dict[str, Verification], *, only: str | None
) -> list[Finding]:
    """Add to the results what a comparison with the object storage finds.

    Returns which archives are in the bucket alone.
    """
    remote = bucket.of_settings(settings)
    remote.check()
    store = settings.archive_store_directory
    for address, result in results.items():
        result.findings += comparison.compare(remote, settings, address).findings
    return [
        Finding(f"{store}/{address}", "in the bucket, but not in the store")
        for address in remote_journal.archives(remote)
        if address not in results and only in (None, address)
    ]


def _to_json(
    severity: int, results: dict[str, Verification], errors: list[Finding]
) -> dict[str, Any]:
    return {
        "status": monitoring.STATUS_NAMES[severity],
        "archives": [
            {
                "archive": address,
                "files": len(result.files),
                "unnamed_files": result.unnamed_count,
                "moved_files": result.moved_count,
                "lines": result.line_count,
                "access_lines": result.access_line_count,
                "last_sha256": result.last_sha256,
                "errors": result.error_count,
                "findings": [_finding_to_json(each) for each in result.findings],
            }
            for address, result in results.items()
        ],
        "findings": [_finding_to_json(each) for each in errors],
    }


def _finding_to_json(finding: Finding) -> dict[str, str]:
    return {
        "severity": "NOTE" if finding.is_note else "ERROR",
        "place": finding.location,
        "problem": finding.problem,
    }
