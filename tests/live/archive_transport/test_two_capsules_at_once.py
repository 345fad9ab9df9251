"""Two capsules of one message, worked on at the same moment, mail one copy."""

from __future__ import annotations

import subprocess

import pytest

from mails import LEGAL, deliveries, event_kinds, mail, read_queue_file, record_of
from private_postfix import GROUP, USER, PrivatePostfix

pytestmark = pytest.mark.live
ROUNDS = 8


def queued_capsule(postfix: PrivatePostfix, name: str) -> bytes:
    """Send a message and return its capsule, which waits; nothing is archived."""
    postfix.send(mail(name))
    postfix.wait(lambda: deliveries(postfix, name, "bob@example.net"), "delivery")
    postfix.wait(lambda: len(postfix.mailq()) == 1, "the capsule alone is queued")
    [queue_id] = [str(each["queue_id"]) for each in postfix.mailq()]
    content = read_queue_file(postfix, queue_id)
    postfix.delete_messages([queue_id])
    return content


def test_two_runs_at_once_mail_the_copy_once() -> None:
    with PrivatePostfix(
        mode="capsule", main={"defer_transports": "archive"}
    ) as postfix:
        for number in range(ROUNDS):
            name = f"twins-{number}"
            capsule = queued_capsule(postfix, name)
            processes = [
                subprocess.Popen(
                    [postfix.program_directory / "archive", "--queue-id", f"4Zx{twin}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={"MAIL_CONFIG": str(postfix.etc)},
                    user=USER,
                    group=GROUP,
                    extra_groups=[],
                )
                for twin in range(4)
            ]
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(capsule)
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            for process in processes:
                assert process.wait() == 0
                assert process.stdout is not None
                process.stdout.close()
            postfix.wait_for_empty_queue()
            assert event_kinds(record_of(postfix, name)) == ["archived", "mailed"]
            assert len(deliveries(postfix, name, LEGAL)) == 1
