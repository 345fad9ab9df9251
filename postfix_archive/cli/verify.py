"""The command postfix-archive verify: check every file and journal line of the store.

store/verifier does the work; auditors run that file alone as contrib/verify_archive.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from postfix_archive import monitoring
from postfix_archive.cli.options import ArchiveAddress
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, RecordNotFound, StoreFailed
from postfix_archive.message.printable import safe_text
from postfix_archive.replicate import bucket, comparison, remote_journal
from postfix_archive.store import known_end, record_reader, verifier
from postfix_archive.store.verifier import Finding, Verification


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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(
    ctx: click.Context,
    archive: str | None,
    sealed: tuple[str, ...],
    has_object_store: bool,
    as_json: bool,
) -> None:
    """Check every file and journal line of the store.

    Changes nothing. --sealed takes what an earlier run printed as the last line's
    SHA-256. --object-store reads every object in the bucket.

    Exit codes are those of monitoring plugins: 0 no errors (a note is no error),
    2 errors, 3 the store cannot be read.
    """
    try:
        settings = archive_cf.load(ctx.obj)
        store = settings.archive_store_directory
        results = _verify_archives(store, archive, sealed)
        if has_object_store:
            _compare(settings, results, only=archive)
    except ArchiveError as error:
        fields = {"status": "UNKNOWN", "reason": str(error)}
        click.echo(
            json.dumps(fields) if as_json else f"UNKNOWN: {safe_text(str(error))}"
        )
        ctx.exit(monitoring.UNKNOWN)
    found = {sha256 for each in results.values() for sha256 in each.sealed}
    errors = [
        Finding(store, verifier.missing_seal(each))
        for each in sealed
        if each not in found
    ]
    known = known_end.read(settings.archive_fallback_directory, store)
    errors += [
        Finding(f"{store}/{address}/{verifier.JOURNAL}", loss)
        for address, loss in known_end.losses(known, store).items()
        if archive in (None, address)
    ]
    has_errors = errors or any(each.error_count for each in results.values())
    severity = monitoring.CRITICAL if has_errors else monitoring.OK
    if as_json:
        click.echo(json.dumps(_to_json(severity, results, errors)))
        ctx.exit(severity)
    for address, result in results.items():
        for finding in result.findings:
            click.echo(safe_text(str(finding)))
        click.echo(f"{address}: {verifier.summary(result)}")
    for finding in errors:
        click.echo(safe_text(str(finding)))
    if not results:
        click.echo(f"No archives in {store}.")
    ctx.exit(severity)


def _verify_archives(
    store: str, archive: str | None, sealed: Sequence[str]
) -> dict[str, Verification]:
    """Return the results by archive address. Raises StoreFailed, RecordNotFound."""
    archives = record_reader.archives(store)
    if archive is not None and archive not in archives:
        raise RecordNotFound(f"{store} has no archive {archive}")
    results = {}
    for address in [archive] if archive else archives:
        try:
            results[address] = _verify_with_progress(f"{store}/{address}", sealed)
        except OSError as error:
            is_locked = isinstance(error, BlockingIOError)
            advice = "" if is_locked else "; run this as root or as the archive's user"
            raise StoreFailed(f"{error.filename}: {error.strerror}{advice}") from error
    return results


def _verify_with_progress(directory: str, sealed: Sequence[str]) -> Verification:
    """Verify one archive, with a progress bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return verifier.verify_archive(directory, sealed=sealed)
    label = directory.rpartition("/")[2]
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        return verifier.verify_archive(directory, progress, sealed)


def _compare(
    settings: Settings, results: dict[str, Verification], *, only: str | None
) -> None:
    """Add to the results what a comparison with the object storage finds."""
    remote = bucket.of_settings(settings)
    remote.check()
    store = settings.archive_store_directory
    for address in [only] if only else remote_journal.archives(remote):
        result = results.get(address)
        if result is None:
            result = results[address] = Verification()
            result.add_error(
                f"{store}/{address}", "in the bucket, but not in the store"
            )
    for address, result in results.items():
        result.findings += comparison.compare(remote, store, address).findings


def _to_json(
    severity: int, results: dict[str, Verification], errors: list[Finding]
) -> dict[str, Any]:
    return {
        "status": monitoring.STATUS_NAMES[severity],
        "archives": [
            {
                "archive": address,
                "files": len(result.files),
                "lines": result.line_count,
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
