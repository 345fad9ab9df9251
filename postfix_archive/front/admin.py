"""Commands that change the host."""

from __future__ import annotations

import click

from postfix_archive.back import config, keyfile


@click.group()
def key() -> None:
    """Make the key that proves stamps, capsules and requests to be ours."""


@key.command()
@click.option("--id", "key_id", help="A name for the key. [default: today's date]")
@click.option("--owner", help="The user of the archive services in master.cf.")
@click.pass_obj
def create(directory: str, key_id: str | None, owner: str | None) -> None:
    """Make a site key where there is none."""
    settings = config.load(directory)
    keyfile.create(settings.archive_key_file, key_id or keyfile.todays_id(), owner)
    click.echo(f"Made {settings.archive_key_file}. Back it up: proofs depend on it.")
