"""The command postfix-archive explain: which requests a message would get, and why.

Sends nothing. tables.explain_plan lists the lookups that Postfix makes, tables.explain
does them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import click

from postfix_archive.config import archive_cf
from postfix_archive.message.printable import safe_text
from postfix_archive.postfix import archive_services, postfix_command
from postfix_archive.postfix.configuration import Configuration, Service
from postfix_archive.tables import explain_plan, explanation
from postfix_archive.tables.explain_plan import Mail
from postfix_archive.tables.explanation import Reason


@click.command()
@click.option(
    "--from",
    "sender",
    required=True,
    metavar="ADDRESS",
    help="Envelope sender; <> for null.",
)
@click.option(
    "--to",
    "recipients",
    required=True,
    multiple=True,
    metavar="ADDRESS",
    help="Envelope recipient; may be repeated.",
)
@click.option(
    "--client", default="", metavar="ADDRESS", help="IP address of the client."
)
@click.option(
    "--client-name", default="", metavar="NAME", help="Host name of the client."
)
@click.option(
    "--helo", default="", metavar="NAME", help="HELO or EHLO name of the client."
)
@click.option("--sasl-username", default="", metavar="USER", help="SASL login name.")
@click.option(
    "--service",
    default="",
    metavar="NAME/TYPE",
    help="Only this service, such as submission/inet.",
)
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
    """Show which archives would get a message, and why.

    Names the lines that request each archive. Sends nothing. MESSAGE is a file with
    the message, for header_checks and body_checks.
    """
    settings = archive_cf.load(directory)
    postfix_config = postfix_command.read_configuration(directory)
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
    for receiver in _select_services(postfix_config, service):
        reasons = explanation.find_reasons(
            postfix_config, settings, receiver, mail, content
        )
        for line in _format_lines(postfix_config, receiver, mail, reasons):
            click.echo(safe_text(line))


def _select_services(postfix_config: Configuration, only: str) -> list[Service]:
    """Return the services that receive mail, or the one of that name."""
    services = archive_services.receiving_services(postfix_config)
    if only and only not in [each.key for each in services]:
        names = ", ".join(each.key for each in services)
        raise click.BadParameter(
            f"{only} does not receive mail; choose from {names}", param_hint="--service"
        )
    return [each for each in services if only in ("", each.key)]


def _format_lines(
    postfix_config: Configuration, service: Service, mail: Mail, reasons: list[Reason]
) -> Iterator[str]:
    archives = sorted({archive for each in reasons for archive in each.archives})
    yield f"{service.key}: {', '.join(archives) or 'not archived'}"
    for reason in reasons:
        yield f"  {reason.place}"
        if reason.matched_text:
            yield f"    {reason.matched_text} -> {', '.join(reason.archives)}"
    for lookup in dict.fromkeys(
        explain_plan.unknown_lookups(postfix_config, service, mail)
    ):
        yield f"  not looked up, key unknown: {lookup}"
