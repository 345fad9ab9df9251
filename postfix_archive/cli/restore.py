"""The command postfix-archive restore: rebuild a store from the object storage."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from postfix_archive import monitoring
from postfix_archive.cli.options import ArchiveAddress
from postfix_archive.config import archive_cf, object_store
from postfix_archive.errors import RestoreFailed
from postfix_archive.message.printable import safe_text
from postfix_archive.replicate import remote_journal, seal_replication
from postfix_archive.replicate.bucket import Bucket
from postfix_archive.replicate.restore import restore as restore_archive
from postfix_archive.store import verifier
from postfix_archive.store.verifier import Seal, Verification


@click.command()
@click.option(
    "--object-store",
    "url",
    metavar="URL",
    help="The bucket. [default: archive_object_store]",
)
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.argument("target", metavar="DIR")
@click.pass_context
def restore(
    ctx: click.Context, url: str | None, archive: str | None, target: str
) -> None:
    """Rebuild a store in DIR from the object storage.

    Nothing else is needed. DIR has no journals yet; a restore that was interrupted goes
    on where it was. Then the store is verified, also against its seals.

    Exit codes: 0 all is there, 2 something is missing or damaged.
    """
    settings = archive_cf.load(ctx.obj)
    url = url or settings.archive_object_store
    if not url:
        raise RestoreFailed(
            "no bucket: give --object-store URL, or set archive_object_store"
        )
    bucket = Bucket(object_store.parse(url), settings.archive_object_credentials_file)
    bucket.check()
    archives = [archive] if archive else remote_journal.archives(bucket)
    if not archives:
        raise RestoreFailed(f"{url}: no archive in this bucket under this prefix")
    target = os.path.abspath(target)
    seal_count = seal_replication.restore(bucket, target)
    if seal_count:
        click.echo(f"{seal_count} files of seals")
    seals, findings = verifier.read_seals(target)
    results = {}
    has_errors = False
    for name in archives:
        problems, results[name] = _restore(bucket, target, name, seals)
        has_errors |= bool(problems or results[name].error_count)
    if archive is None:
        findings += verifier.check_seals(target, results, seals)
    for finding in findings:
        click.echo(safe_text(str(finding)))
        has_errors |= not finding.is_note
    ctx.exit(monitoring.CRITICAL if has_errors else monitoring.OK)


def _restore(
    bucket: Bucket, target: str, archive: str, seals: Sequence[Seal]
) -> tuple[list[str], Verification]:
    """Restore one archive and verify it; return what the bucket lacks, and the result.

    Its journals must have what the seals have of them.
    """
    total = 0

    def progress(count: int) -> None:
        nonlocal total
        total += count
        if sys.stderr.isatty():
            click.echo(f"\r{archive}: {total} files restored", err=True, nl=False)

    result = restore_archive(bucket, target, archive, progress)
    if sys.stderr.isatty():
        click.echo(err=True)
    if not result.lines:
        result.problems.append(f"{archive}: the bucket has no journal of it")
    for problem in result.problems:
        click.echo(safe_text(f"ERROR: {problem}"))
    verification = verifier.verify_archive(f"{target}/{archive}", seals=seals)
    for finding in verification.findings:
        click.echo(safe_text(str(finding)))
    click.echo(f"{archive}: {verifier.summary(verification)}")
    return result.problems, verification
