"""The command web: serves the web page."""

from __future__ import annotations

import click

from postfix_archive.config import archive_cf
from postfix_archive.errors import LibraryMissing


@click.command()
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default="",
    help="Listen here, or at unix:PATH. [default: web_listen of archive-web.cf]",
)
@click.pass_obj
def web(directory: str, listen: str) -> None:
    """Serve the web page, until stopped, as archive_web_user.

    By HTTP, for the TLS proxy of this host. Started by systemd.
    """
    settings = archive_cf.load(directory)
    try:
        from postfix_archive.web import server
    except ImportError as error:
        raise LibraryMissing(f"{error}; run make install WITH=web") from error
    server.serve(settings, directory, listen)
