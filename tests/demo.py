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


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(*command: str | Path) -> None:
    """Show a command and what it prints."""
    shown = " ".join(str(word) for word in command)
    say(f"  $ {shown.replace(str(COMMAND), '.venv/bin/postfix-archive')}")
    done = subprocess.run(command, capture_output=True, check=True)
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        say(f"    {line}")
    say()


def send(postfix: PrivatePostfix) -> None:
    """Send the messages, and one of them a second time, as a mailing list would."""
    for what, content, to in MESSAGES:
        say(f"  {what}")
        say(f"    accepted, queue id {postfix.send(content, to=to)}")
        postfix.settle()
    passed_on = postfix.delivered_to("bob@example.net")[0].content
    say("  The first once more, stamped as it was delivered, back from a mailing list")
    again = postfix.send(
        b"List-Id: <lunch.lists.example.net>\n" + passed_on,
        sender="lunch-bounces@lists.example.net",
        to=["dave@example.net"],
    )
    say(f"    accepted, queue id {again}")
    postfix.settle()


def delivered(postfix: PrivatePostfix) -> None:
    """Show who got what."""
    for each in postfix.deliveries():
        to = ", ".join(each.recipients)
        what = "archive copy" if ARCHIVE in each.recipients else "mail"
        blind = " (no Bcc address in it)" if b"carol.bcc" not in each.content else ""
        sender = each.sender or "<>"
        say(f"  {what:12}  {sender} -> {to}{blind if what == 'mail' else ''}")


def main() -> int:
    """Run the demonstration; return 0 if everything arrived and was archived."""
    if os.geteuid() != 0:
        say("A Postfix of its own needs root: run 'sudo make demo'.")
        return 1
    say("Building a private Postfix; this host's own mail is not touched.")
    postfix = PrivatePostfix(archive=ARCHIVE, main={"virtual_alias_maps": ALIASES})
    postfix.start()
    say(f"  It runs in {postfix.folder} with this in its main.cf:")
    say(f"    archive = {ARCHIVE}")
    say()
    say("Sending mail:")
    send(postfix)
    say()
    say("Delivered:")
    delivered(postfix)
    postfix.stop()
    say()
    archived(postfix)
    return 0 if went_well(postfix) else 1


def archived(postfix: PrivatePostfix) -> None:
    """Show what was archived and how to look at it."""
    store = str(postfix.store)
    records = list(record_reader.records(store, ARCHIVE))
    say(f"Archived in {store}: {len(records)} messages, each once.")
    say("The one that came back from the list made no second copy: its record has a")
    say("supplement with the new recipient and the lines above the stamp.")
    say()
    config = ("-c", str(postfix.etc))
    say("What became of each recipient, from Postfix's log (a service does that):")
    say()
    run(COMMAND, *config, "outcomes", "--once")
    run(COMMAND, *config, "list")
    first = records[0].archive_id
    run(COMMAND, *config, "show", first)
    say("The copy itself needs nothing of ours, today or in thirty years:")
    say()
    run("zcat", f"{store}/{ARCHIVE}/{records[0].files[0]}")
    say("Look around, with Postfix stopped:")
    say(f"  .venv/bin/postfix-archive -c {postfix.etc} show --original {first}")
    say(f"  less {store}/{ARCHIVE}/journal     # every event, hash-chained")
    say(f"  less {postfix.logfile}             # what Postfix did")
    say(f"  rm -r {postfix.folder}             # when you are done")


def went_well(postfix: PrivatePostfix) -> bool:
    """Say so if anything is not as this demonstration promises."""
    got = sorted(to for each in postfix.deliveries() for to in each.recipients)
    records = record_reader.records(str(postfix.store), ARCHIVE)
    became = [each.results.overall_kind for each in records]
    well = became == ["delivered", "delivered"] and got == EXPECTED
    if not well:
        say(
            f"THIS WENT WRONG: expected 2 records of delivered mail and {EXPECTED},"
            f" got {became} and {got}"
        )
    return well


if __name__ == "__main__":
    sys.exit(main())
