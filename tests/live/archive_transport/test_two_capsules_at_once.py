"""Two capsules of one message, worked on at the same moment, mail one copy."""

from __future__ import annotations

import subprocess

import pytest

from mails import LEGAL, deliveries, mail, queued, record_of, words
from private_postfix import GROUP, USER, PrivatePostfix

pytestmark = pytest.mark.live
ROUNDS = 8


def capsule_of(postfix: PrivatePostfix, name: str) -> bytes:
    """Send a message and return its capsule, which waits; nothing is archived."""
    postfix.send(mail(name))
    postfix.wait(lambda: deliveries(postfix, name, "bob@example.net"), "delivery")
    postfix.wait(lambda: len(postfix.mailq()) == 1, "the capsule alone is queued")
    [queue_id] = [str(each["queue_id"]) for each in postfix.mailq()]
    found = queued(postfix, queue_id)
    postfix.forget([queue_id])
    return found


def test_two_runs_at_once_mail_the_copy_once() -> None:
    with PrivatePostfix(
        door="capsule", main={"defer_transports": "archive"}
    ) as postfix:
        for number in range(ROUNDS):
            name = f"twins-{number}"
            capsule = capsule_of(postfix, name)
            runs = [
                subprocess.Popen(
                    [postfix.program / "archive", "--queue-id", f"4Zx{twin}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={"MAIL_CONFIG": str(postfix.etc)},
                    user=USER,
                    group=GROUP,
                    extra_groups=[],
                )
                for twin in range(4)
            ]
            for run in runs:
                assert run.stdin is not None
                run.stdin.write(capsule)
            for run in runs:
                assert run.stdin is not None
                run.stdin.close()
            for run in runs:
                assert run.wait() == 0
                assert run.stdout is not None
                run.stdout.close()
            postfix.settle()
            assert words(record_of(postfix, name)) == ["archived", "mailed"]
            assert len(deliveries(postfix, name, LEGAL)) == 1
