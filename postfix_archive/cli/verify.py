"""The command postfix-archive verify: check every file and journal line of the store.

store/verifier does the work; auditors run that file alone as contrib/verify_archive.py.
"""

from __future__ import annotations

import click

from postfix_archive.cli.options import ArchiveAddress
from postfix_archive.config import archive_cf
from postfix_archive.errors import RecordNotFound, StoreFailed
from postfix_archive.message.printable import safe_text
from postfix_archive.store import record_reader, verifier


@click.command()
@click.option(
    "--archive", type=ArchiveAddress(), metavar="ADDRESS", help="Only this archive."
)
@click.pass_context
def verify(ctx: click.Context, archive: str | None) -> None:
    """Check every file and journal line of the store.

    Changes nothing. Exit code 0: no errors (a note is no error), 1: errors.
    """
    settings = archive_cf.load(ctx.obj)
    store = settings.archive_store_directory
    archives = record_reader.archives(store)
    if archive is not None and archive not in archives:
        raise RecordNotFound(f"{store} has no archive {archive}")
    exit_code = verifier.EXIT_OK
    for address in [archive] if archive else archives:
        try:
            result = _verify_with_progress(f"{store}/{address}")
        except OSError as error:
            raise StoreFailed(
                f"{error.filename}: {error.strerror}; run this as root or as the"
                " archive's user"
            ) from error
        for finding in result.findings:
            click.echo(safe_text(str(finding)))
        click.echo(f"{address}: {verifier.summary(result)}")
        exit_code = verifier.EXIT_ERRORS if result.error_count else exit_code
    if not archives:
        click.echo(f"No archives in {store}.")
    ctx.exit(exit_code)


def _verify_with_progress(directory: str) -> verifier.Verification:
    """Verify one archive, with a progress bar on a terminal."""
    with click.progressbar(length=1, label=directory.rpartition("/")[2]) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        return verifier.verify_archive(directory, progress)
