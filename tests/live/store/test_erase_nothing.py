"""Erase nothing: no command can take an archived message away, or change it."""

from __future__ import annotations

import hashlib

import click
import pytest

from postfix_archive.cli import main

from mails import LEGAL, mail, record_of
from private_postfix import USER, PrivatePostfix

pytestmark = pytest.mark.live

# As people type them, in this order; ID stands for an archive id.
TYPED: dict[str, list[list[str]]] = {
    "key create": [[], ["--id", "other", "--owner", USER]],
    "key rotate": [[]],
    "list": [[], ["--json", "--last", "1"], ["--until", "2000-01-01"]],
    "show": [["ID"], ["--raw", "ID"], ["--original", "ID"], ["--outcome", "ID"]],
    "status": [[], ["--json"], ["--prometheus"], ["--write"]],
    "explain": [["--from", "a@example.org", "--to", "b@example.net"]],
    "tables": [["--dry-run"], []],
    "bypass on": [["--reason", "a test"]],
    "bypass off": [[]],
    "queue rescue": [[]],
    "fallback import": [[]],
    "rescue": [[]],
    "return": [[]],
    "outcomes": [[], ["--once"]],
    "reconcile": [[], ["--json"]],
    "doctor": [[], ["--json"], ["--fix"]],
    "verify": [[], ["--archive", LEGAL]],
}


def commands(group: click.Group) -> dict[str, click.Command]:
    """Return all commands of postfix-archive, by the words that name them."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= {f"{name} {k}": v for k, v in commands(command).items()}
        else:
            found[name] = command
    return found


def digests(postfix: PrivatePostfix) -> dict[str, str]:
    """Return the SHA-256 of every file of the store but the journal and its note."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in postfix.store.rglob("*")
        if path.is_file() and not path.name.startswith("journal")
    }


def test_every_command_is_tried() -> None:
    assert set(commands(main.main)) == set(TYPED)


def test_no_command_erases_or_changes_what_is_archived() -> None:
    with PrivatePostfix() as postfix:
        for name in ("one", "two", "three"):
            postfix.send(mail(name))
        postfix.settle()
        archive_id = record_of(postfix, "two").archive_id
        journal = postfix.store / LEGAL / "journal"
        kept = digests(postfix)
        assert len(kept) == 3
        for name, every in TYPED.items():
            for typed in every:
                lines = journal.read_bytes()
                given = [archive_id if each == "ID" else each for each in typed]
                done = postfix.command(*name.split(), *given)
                assert "Usage:" not in done.stderr, done.stderr
                found = digests(postfix)
                assert kept.items() <= found.items(), f"{name} {typed}"
                added = found.keys() - kept.keys()
                assert all(".outcome." in each for each in added), f"{name} {typed}"
                kept = found
                assert journal.read_bytes().startswith(lines), f"{name} {typed}"
        assert postfix.command("verify").returncode == 0
