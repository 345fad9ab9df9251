"""make demo: mail goes through a real Postfix, and archive copies come out.

Builds a private Postfix in a temporary directory, sends three messages, and shows what
was delivered, what was archived and what became of each recipient, where it lies and
how to look at it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from postfix_archive.store import record_reader

from private_postfix import PrivatePostfix

COMMAND = Path(sys.executable).parent / "postfix-archive"
ARCHIVE = "legal@example.com"

ALIASES = "inline:{{team@example.net=bob@example.net, erin@example.net}}"

EXPECTED = sorted(
    [f"{name}@example.net" for name in ("bob", "bob", "carol.bcc", "dave", "erin")]
    + [ARCHIVE, ARCHIVE]
)

MESSAGES = [
    (
        "A plain message to two people, one of them in Bcc",
        b"From: Alice <alice@example.org>\nTo: bob@example.net\n"
        b"Subject: Lunch on Friday?\nMessage-Id: <lunch@example.org>\n\n"
        b"Shall we say half past twelve?\n",
        ["bob@example.net", "carol.bcc@example.net"],
    ),
    (
        "One to an alias, which Postfix delivers to two mailboxes",
        b"From: Alice <alice@example.org>\nTo: team@example.net\n"
        b"Subject: Minutes of the meeting\n\nNobody came.\n",
        ["team@example.net"],
    ),
]


def print_line(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(*command: str | Path) -> None:
    """Show a command and what it prints."""
    text = " ".join(str(word) for word in command)
    print_line(f"  $ {text.replace(str(COMMAND), '.venv/bin/postfix-archive')}")
    process = subprocess.run(command, capture_output=True, check=True)
    for line in process.stdout.decode("utf-8", "replace").splitlines():
        print_line(f"    {line}")
    print_line()


def send(postfix: PrivatePostfix) -> None:
    """Send the messages, and one of them a second time, as a mailing list would."""
    for description, content, to in MESSAGES:
        print_line(f"  {description}")
        print_line(f"    accepted, queue id {postfix.send(content, to=to)}")
        postfix.wait_for_empty_queue()
    forwarded = postfix.delivered_to("bob@example.net")[0].content
    print_line(
        "  The first once more, stamped as it was delivered, back from a mailing list"
    )
    queue_id = postfix.send(
        b"List-Id: <lunch.lists.example.net>\n" + forwarded,
        sender="lunch-bounces@lists.example.net",
        to=["dave@example.net"],
    )
    print_line(f"    accepted, queue id {queue_id}")
    postfix.wait_for_empty_queue()


def show_deliveries(postfix: PrivatePostfix) -> None:
    """Show who got what."""
    for delivery in postfix.deliveries():
        recipients = ", ".join(delivery.recipients)
        kind = "archive copy" if ARCHIVE in delivery.recipients else "mail"
        note = " (no Bcc address in it)" if b"carol.bcc" not in delivery.content else ""
        sender = delivery.sender or "<>"
        print_line(
            f"  {kind:12}  {sender} -> {recipients}{note if kind == 'mail' else ''}"
        )


def main() -> int:
    """Run the demonstration; return 0 if everything arrived and was archived."""
    if os.geteuid() != 0:
        print_line("A Postfix of its own needs root: run 'sudo make demo'.")
        return 1
    print_line("Building a private Postfix; this host's own mail is not touched.")
    postfix = PrivatePostfix(archive=ARCHIVE, main={"virtual_alias_maps": ALIASES})
    postfix.start()
    print_line(f"  It runs in {postfix.directory} with this in its main.cf:")
    print_line(f"    archive = {ARCHIVE}")
    print_line()
    print_line("Sending mail:")
    send(postfix)
    print_line()
    print_line("Delivered:")
    show_deliveries(postfix)
    postfix.stop()
    print_line()
    show_archive(postfix)
    return 0 if is_as_expected(postfix) else 1


def show_archive(postfix: PrivatePostfix) -> None:
    """Show what was archived and how to look at it."""
    store = str(postfix.store)
    records = list(record_reader.records(store, ARCHIVE))
    print_line(f"Archived in {store}: {len(records)} messages, each once.")
    print_line(
        "The one that came back from the list made no second copy: its record has a"
    )
    print_line("supplement with the new recipient and the lines above the stamp.")
    print_line()
    config = ("-c", str(postfix.etc))
    print_line(
        "What became of each recipient, from Postfix's log (a service does that):"
    )
    print_line()
    run(COMMAND, *config, "outcomes", "--once")
    run(COMMAND, *config, "list")
    record_id = records[0].archive_id
    run(COMMAND, *config, "show", record_id)
    print_line("Who got a blind copy? (A service keeps the index up to date.)")
    print_line()
    run(COMMAND, *config, "index", "--once")
    run(COMMAND, *config, "search", "bcc:carol.bcc@example.net")
    print_line("The copy itself needs nothing of ours, today or in thirty years:")
    print_line()
    run("zcat", f"{store}/{ARCHIVE}/{records[0].files[0]}")
    print_line("Find the mail to carol, who is in no header, and hand it over:")
    print_line()
    run(COMMAND, *config, "index", "--once")
    run(COMMAND, *config, "search", "bcc:carol.bcc@example.net")
    export = ("export", "--format", "mbox", "--query", "bcc:carol.bcc@example.net")
    run(COMMAND, *config, *export, postfix.directory / "export")
    run("cat", postfix.directory / "export" / "messages.mbox")
    print_line("Look around, with Postfix stopped:")
    print_line(
        f"  .venv/bin/postfix-archive -c {postfix.etc} show --original {record_id}"
    )
    print_line(f"  less {store}/{ARCHIVE}/journal/*   # every event, hash-chained")
    print_line(f"  less {postfix.log_path}             # what Postfix did")
    print_line(f"  rm -r {postfix.directory}             # when you are done")


def is_as_expected(postfix: PrivatePostfix) -> bool:
    """Say so if anything is not as this demonstration promises."""
    recipients = sorted(to for each in postfix.deliveries() for to in each.recipients)
    records = record_reader.records(str(postfix.store), ARCHIVE)
    outcomes = [each.results.overall_kind for each in records]
    is_expected = outcomes == ["delivered", "delivered"] and recipients == EXPECTED
    if not is_expected:
        print_line(
            f"THIS WENT WRONG: expected 2 records of delivered mail and {EXPECTED},"
            f" got {outcomes} and {recipients}"
        )
    return is_expected


if __name__ == "__main__":
    sys.exit(main())
