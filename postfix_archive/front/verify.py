"""The command postfix-archive verify: check every file and journal line of the store.

store/verify does the work; auditors run that file alone as contrib/verify_archive.py.
"""

from __future__ import annotations

import click

from postfix_archive.back import config, reading, verifying
from postfix_archive.core.errors import RecordNotFound, StoreFailed
from postfix_archive.core.record import shown


@click.command()
@click.option("--archive", metavar="ADDRESS", help="Only this archive.")
@click.pass_context
def verify(ctx: click.Context, archive: str | None) -> None:
    """Check every file and journal line of the store.

    Changes nothing. Exit code 0: no errors (a note is no error), 1: errors.
    """
    settings = config.load(ctx.obj)
    store = settings.archive_store_directory
    there = reading.archives(store)
    if archive is not None and archive not in there:
        raise RecordNotFound(f"{store} has no archive {archive}")
    code = verifying.WELL
    for name in [archive] if archive else there:
        try:
            found = _verified(f"{store}/{name}")
        except OSError as problem:
            raise StoreFailed(
                f"{problem.filename}: {problem.strerror}; run this as root or as the"
                " archive's user"
            ) from problem
        for each in found.findings:
            click.echo(shown(str(each).encode("utf-8", "replace")))
        click.echo(f"{name}: {verifying.summary(found)}")
        code = verifying.WRONG if found.damage else code
    if not there:
        click.echo(f"No archives in {store}.")
    ctx.exit(code)


def _verified(folder: str) -> verifying.Chain:
    """Verify one archive, with a progress bar on a terminal."""
    with click.progressbar(length=1, label=folder.rpartition("/")[2]) as bar:

        def progress(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        return verifying.verify(folder, progress)
