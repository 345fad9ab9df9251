"""The command postfix-archive procedure: the written procedure, for auditors."""

from __future__ import annotations

import click

from postfix_archive.procedure import document, facts


@click.command()
@click.option(
    "--language",
    type=click.Choice(document.LANGUAGES),
    default=document.LANGUAGES[0],
    show_default=True,
    help="Language of the page.",
)
@click.pass_obj
def procedure(directory: str, language: str) -> None:
    """Print the written procedure of this archive as an HTML page.

    Made from the running configuration: what is captured and how, how it is kept and
    checked, who may do what, and what is missing. Its SHA-256 becomes an event in the
    journal of each archive: nothing is printed if that fails.
    """
    state = facts.collect_facts(directory)
    page = document.to_html(state, language).encode("utf-8", "backslashreplace")
    archives = document.record(state, page, language)
    click.echo(page, nl=False)
    where = ", ".join(archives) or "no archive: nothing is archived yet"
    click.echo(f"SHA-256 {document.sha256(page)}, recorded in {where}", err=True)
