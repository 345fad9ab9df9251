"""Erase nothing: no command can take an archived message away, or change it."""

from __future__ import annotations

import hashlib

import click
import pytest

from postfix_archive.cli import main

import journal_lines
from mails import LEGAL, mail, record_of
from private_postfix import USER, PrivatePostfix

pytestmark = pytest.mark.live

# As people type them, in this order. ID, OUT and MAIL stand for an archive id, a
# directory that is not there and a message.
COMMAND_LINES: dict[str, list[list[str]]] = {
    "index": [[], ["--once"], ["--rebuild"]],
    "search": [["*"], ["--json", "two"]],
    "install": [["--archive", LEGAL, "--dry-run"]],
    "key create": [[], ["--id", "other", "--owner", USER]],
    "key rotate": [[]],
    "key helo": [[]],
    "key capture-maps": [[]],
    "list": [[], ["--json", "--last", "1"], ["--until", "2000-01-01"]],
    "show": [["ID"], ["--raw", "ID"], ["--original", "ID"], ["--outcome", "ID"]],
    "export": [["--format", "csv", "OUT"]],
    "import": [["--archive", LEGAL, "MAIL"]],
    "procedure": [[], ["--language", "de"]],
    "replay": [
        ["ID", "--to", "carol@example.net", "--yes"],
        ["ID", "--copies", "--yes"],
    ],
    "status": [[], ["--json"], ["--prometheus"], ["--write"]],
    "explain": [["--from", "a@example.org", "--to", "b@example.net"]],
    "tables": [["--dry-run"], []],
    "bypass on": [["--reason", "a test"]],
    "bypass off": [[]],
    "purge": [[], ["--dry-run"]],
    "retention show": [["ID"], ["--due", "2040-01-01"]],
    "retention apply": [["--reason", "test", "--yes"]],
    "queue rescue": [[]],
    "fallback import": [[]],
    "rescue": [[]],
    "return": [[]],
    "outcomes": [[], ["--once"]],
    "replicate": [[], ["--once"]],
    "restore": [["--object-store", "s3://bucket?endpoint=http://127.0.0.1:1", "OUT"]],
    "reconcile": [[], ["--json"]],
    "doctor": [[], ["--json"], ["--fix"]],
    # root without a login is nobody: refused.
    "erase request": [["ID", "--reason", "test"]],
    "erase list": [[], ["--json"]],
    "erase approve": [["ID", "--yes"]],
    "erase withdraw": [["ID"]],
    "hold add": [["x", "--query", "two", "--reason", "test"]],
    "hold list": [[], ["--json"]],
    "hold show": [["x"]],
    "hold release": [["x", "--reason", "test"]],
    "seal": [["--if-configured"]],
    "verify": [[], ["--archive", LEGAL], ["--json"], ["--seals"]],
    "history": [[], ["--json", "ID"]],
    "readers": [[]],
    "access-service": [[]],
    "web": [[]],  # without archive_web_user: refused
    # Without a web_directory: refused.
    "user add": [["anna", "--role", "auditor", "--password-stdin"]],
    "user change": [["anna", "--role", "officer"]],
    "user password": [["anna", "--password-stdin"]],
    "user disable": [["anna"]],
    "user enable": [["anna"]],
    "user totp": [["anna"]],
    "user list": [[]],
    "token add": [["script", "--user", "anna"]],
    "token list": [[]],
    "token revoke": [["script"]],
    "uninstall": [[]],
}


def all_commands(group: click.Group) -> dict[str, click.Command]:
    """Return all commands of postfix-archive, by the words that name them."""
    commands_by_name: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            commands_by_name |= {
                f"{name} {k}": v for k, v in all_commands(command).items()
            }
        else:
            commands_by_name[name] = command
    return commands_by_name


def digests(postfix: PrivatePostfix) -> dict[str, str]:
    """Return the SHA-256 of every file of the store but journals, and index."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in postfix.store.rglob("*")
        if path.is_file()
        and "/journal" not in str(path)
        and "/access" not in str(path)
        and not path.is_relative_to(postfix.store / "index")
    }


def test_every_command_is_tried() -> None:
    assert set(all_commands(main.main)) == set(COMMAND_LINES)


def test_no_command_erases_or_changes_what_is_archived() -> None:
    with PrivatePostfix() as postfix:
        for name in ("one", "two", "three"):
            postfix.send(mail(name))
        postfix.wait_for_empty_queue()
        archive_id = record_of(postfix, "two").archive_id
        imported = postfix.directory / "imported.eml"
        imported.write_bytes(mail("four"))
        out = postfix.directory / "out"
        values = {"ID": archive_id, "MAIL": str(imported), "OUT": str(out)}
        journal = journal_lines.segment(postfix.store / LEGAL)
        digests_before = digests(postfix)
        assert len(digests_before) == 3
        for name, command_lines in COMMAND_LINES.items():
            for command_line in command_lines:
                lines = journal.read_bytes()
                arguments = [values.get(each, each) for each in command_line]
                process = postfix.run_command(*name.split(), *arguments)
                assert "Usage:" not in process.stderr, process.stderr
                digests_after = digests(postfix)
                assert (
                    digests_before.items() <= digests_after.items()
                ), f"{name} {command_line}"
                added = digests_after.keys() - digests_before.keys()
                assert name == "import" or all(
                    ".outcome." in each for each in added
                ), f"{name} {command_line}"
                digests_before = digests_after
                assert journal.read_bytes().startswith(lines), f"{name} {command_line}"
        assert postfix.run_command("verify").returncode == 0
