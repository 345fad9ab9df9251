"""postfix-archive outcomes: the journal knows what became of each recipient, once."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from mails import mail
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
TRANSPORT_TABLE = """\
archive-request.invalid archive-stamp:on-request
gone.example.net discard:
no.example.net error:5.1.1 no such user
later.example.net retry:4.3.0 come later
here.example.com local:
"""
VIRTUAL_ALIASES = (
    "three@example.net one@example.net two@gone.example.net bob@no.example.net\n"
)
ALIASES = (
    "trio: mailbox, far@example.net, two@no.example.net\nsingle: solo@example.net\n"
)


def outcome_by_recipient(postfix: PrivatePostfix) -> dict[str, str]:
    """Return the last outcome of each recipient; children as parent -> child."""
    outcomes = {}
    for event in postfix.events():
        if event["event"] == "outcome":
            parent = f"{event['parent']} -> " if "parent" in event else ""
            outcomes[f"{parent}{event['recipient']}"] = str(event["outcome"])
    return outcomes


@pytest.fixture(scope="module")
def host() -> Iterator[PrivatePostfix]:
    """An instance that delivers, throws away, refuses and defers."""
    with PrivatePostfix(
        main={
            "mydestination": "here.example.com",
            "local_recipient_maps": "",
            "smtpd_reject_unlisted_recipient": "no",
            "mailbox_command": "/bin/cat >/dev/null",
        }
    ) as postfix:
        (postfix.etc / "routes").write_text(TRANSPORT_TABLE)
        (postfix.etc / "virtual").write_text(VIRTUAL_ALIASES)
        (postfix.etc / "aliases").write_text(ALIASES)
        subprocess.run(
            ["postalias", "-c", postfix.etc, f"hash:{postfix.etc}/aliases"], check=True
        )
        postfix.postconf(
            transport_maps=f"texthash:{postfix.etc}/routes",
            virtual_alias_maps=f"texthash:{postfix.etc}/virtual",
            alias_maps=f"hash:{postfix.etc}/aliases",
        )
        postfix.reload()
        yield postfix


def test_each_recipient_of_one_message_has_an_outcome(host: PrivatePostfix) -> None:
    recipients = ["bob@example.net", "x@gone.example.net", "y@no.example.net"]
    host.send(mail("a"), to=[*recipients, "z@later.example.net", "three@example.net"])
    host.send(mail("b"), to=["trio@here.example.com", "single@here.example.com"])
    host.wait(lambda: len(host.mailq()) == 1, "one message waits")
    assert host.run_command("outcomes", "--once").returncode == 0
    assert outcome_by_recipient(host)["z@later.example.net"] == "waiting"
    host.delete_messages([str(host.mailq()[0]["queue_id"])])
    host.wait_for_empty_queue()
    process = host.run_command("outcomes", "--once")
    assert (process.returncode, process.stderr) == (0, "")
    assert outcome_by_recipient(host) == {
        "bob@example.net": "delivered",
        "x@gone.example.net": "discarded",
        "y@no.example.net": "failed",
        "z@later.example.net": "deleted",
        "three@example.net": "expanded",
        "three@example.net -> one@example.net": "delivered",
        "three@example.net -> two@gone.example.net": "discarded",
        "three@example.net -> bob@no.example.net": "failed",
        "trio@here.example.com": "expanded",
        "trio@here.example.com -> mailbox@mail.example.com": "delivered",
        "trio@here.example.com -> far@example.net": "delivered",
        "trio@here.example.com -> two@no.example.net": "failed",
        "single@here.example.com": "delivered",
    }
    before = len(host.events())
    assert host.run_command("outcomes").returncode == 0
    assert len(host.events()) == before
    assert host.run_command("verify").returncode == 0


def test_a_follower_that_is_killed_records_each_outcome_once() -> None:
    """kill -9 at any moment, a rotated log, a lost state: exactly once, and right."""
    generator = random.Random(5)
    count = 120
    with PrivatePostfix() as postfix:
        (postfix.etc / "routes").write_text(TRANSPORT_TABLE)
        postfix.postconf(
            transport_maps=f"texthash:{postfix.etc}/routes",
            smtpd_reject_unlisted_recipient="no",
        )
        postfix.reload()
        follower = postfix.start_command("outcomes", "--follow")
        for number in range(count):
            postfix.send(
                mail(f"m{number}"),
                to=[f"a{number}@example.net", refused_address(number)],
            )
            if generator.random() < 0.25:
                follower.kill()
                follower.wait()
                follower = postfix.start_command("outcomes", "--follow")
            if number == count // 2:
                rotate(postfix)
        postfix.wait_for_empty_queue()
        follower.kill()
        follower.wait()
        assert postfix.run_command("outcomes").returncode == 0
        outcome_counts = Counter(
            (str(event["recipient"]), str(event["outcome"]))
            for event in postfix.events()
            if event["event"] == "outcome"
        )
        expected = Counter((f"a{n}@example.net", "delivered") for n in range(count))
        expected += Counter((refused_address(n), "failed") for n in range(count))
        assert outcome_counts == expected
        (postfix.fallback / "outcomes.sqlite").unlink()
        assert postfix.run_command("outcomes").returncode == 0
        assert (
            sum(event["event"] == "outcome" for event in postfix.events()) == 2 * count
        )
        assert postfix.run_command("verify").returncode == 0


def test_a_copy_that_is_archived_late_has_its_outcome_too() -> None:
    """Everything is delivered and read in the log before the store has the message."""
    with PrivatePostfix(
        mode="capsule", main={"defer_transports": "archive"}
    ) as postfix:
        follower = postfix.start_command("outcomes", "--follow")
        postfix.send(mail("late"))
        postfix.wait(
            lambda: len(ended_queue_files(postfix)) == 2, "the follower has read it all"
        )
        assert not outcome_by_recipient(postfix)
        postfix.postconf(defer_transports="")
        postfix.reload()
        postfix.flush()
        postfix.wait(lambda: outcome_by_recipient(postfix), "its outcome")
        follower.terminate()
        follower.wait()
        assert outcome_by_recipient(postfix) == {"bob@example.net": "delivered"}


def ended_queue_files(postfix: PrivatePostfix) -> list[str]:
    """Return the queue files that the follower knows to be removed."""
    state = postfix.fallback / "outcomes.sqlite"
    if not state.exists():
        return []
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
        try:
            rows = connection.execute("SELECT words FROM file").fetchall()
        except sqlite3.OperationalError:  # it is being made
            return []
    return [file_state for (file_state,) in rows if '"end": "removed"' in file_state]


def refused_address(number: int) -> str:
    return f"b{number}@no.example.net"


def rotate(postfix: PrivatePostfix) -> None:
    """As logrotate(8) does: rename, then have the writer open a new file."""
    postfix.log_path.rename(postfix.log_path.with_name("maillog.1"))
    subprocess.run(
        ["postfix", "-c", str(postfix.etc), "reload"], check=True, capture_output=True
    )
    command = ["postlog", "-c", str(postfix.etc), "-t", "test", "rotated"]

    def is_new() -> bool:
        """The writer makes the file when somebody has something to say."""
        subprocess.run(command, check=True, capture_output=True)
        return postfix.log_path.exists()

    postfix.wait(is_new, "there is a new log")


def test_a_follower_ends_in_good_order(host: PrivatePostfix) -> None:
    follower = host.start_command("outcomes", "--follow")
    host.wait((host.fallback / "outcomes.sqlite").exists, "it is at work")
    follower.send_signal(signal.SIGTERM)
    assert follower.wait() in (0, -signal.SIGTERM)
