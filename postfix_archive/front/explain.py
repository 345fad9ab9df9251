"""The command postfix-archive explain: what would be archived, and why, without mail.

Decides nothing itself: core/explaining knows what Postfix asks, back/explaining asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import click

from postfix_archive.back import config, explaining, postconf
from postfix_archive.back.explaining import Reason
from postfix_archive.core import explaining as plan
from postfix_archive.core import ways
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.explaining import Mail
from postfix_archive.core.record import shown


@click.command()
@click.option("--from", "sender", required=True, help="Envelope sender; <> is null.")
@click.option("--to", "recipients", required=True, multiple=True, help="A recipient.")
@click.option("--client", default="", help="The client's IP address.")
@click.option("--client-name", default="", help="The client's name in DNS.")
@click.option("--helo", default="", help="What the client says in HELO.")
@click.option("--sasl-username", default="", help="Who has logged in.")
@click.option("--service", default="", help="Only this one, such as submission/inet.")
@click.argument("message", type=click.File("rb"), required=False)
@click.pass_obj
def explain(
    directory: str,
    sender: str,
    recipients: tuple[str, ...],
    client: str,
    client_name: str,
    helo: str,
    sasl_username: str,
    service: str,
    message: BinaryIO | None,
) -> None:
    """Say which requests a message would collect, and from which line; send nothing.

    MESSAGE is a file with the message, for header_checks and body_checks.
    """
    settings = config.load(directory)
    found = postconf.read(directory)
    mail = Mail(
        sender="" if sender == "<>" else sender,
        recipients=recipients,
        client=client,
        client_name=client_name,
        helo=helo,
        sasl_username=sasl_username,
        has_content=message is not None,
    )
    content = message.read() if message else b""
    for each in _services(found, service):
        told = explaining.reasons(found, settings, each, mail, content)
        for line in _lines(found, each, mail, told):
            click.echo(shown(line.encode("utf-8", "replace")))


def _services(found: Configuration, only: str) -> list[Service]:
    """Return the services by which mail comes in, or the one that is asked for."""
    clients = ways.clients(found)
    if only and only not in [each.key for each in clients]:
        names = ", ".join(each.key for each in clients)
        raise click.BadParameter(f"mail comes in by {names}", param_hint="--service")
    return [each for each in clients if only in ("", each.key)]


def _lines(
    found: Configuration, service: Service, mail: Mail, told: list[Reason]
) -> Iterator[str]:
    archives = sorted({one for each in told for one in each.archives})
    yield f"By {service.key}: {', '.join(archives) or 'archived nowhere'}"
    for each in told:
        yield f"  {each.place}"
        if each.what:
            yield f"    {each.what} -> {', '.join(each.archives)}"
    for lookup in dict.fromkeys(plan.unanswered(found, service, mail)):
        yield f"  not asked, for want of what it looks up: {lookup}"
