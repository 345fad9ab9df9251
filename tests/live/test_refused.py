"""Addresses that only sendmail(1) accepts: the others get their mail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postfix_archive.back import reading

from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
IMPOSSIBLE = ["x@", "a@r..example", "-dash@example.net"]


@pytest.fixture(scope="module")
def plain() -> Iterator[PrivatePostfix]:
    """An instance without an archive."""
    with PrivatePostfix(archive="", main={"receive_override_options": ""}) as running:
        yield running


def notified(postfix: PrivatePostfix, name: str, bad: str) -> list[str]:
    """Send by sendmail(1) to a good and a bad address; return the DSN's fields."""
    message = f"Subject: {name}\n\nThis is {name}.\n".encode()
    run = postfix.sendmail(
        message, sender="alice@example.org", to=["bob@example.net", bad]
    )
    assert run.returncode == 0, run.stderr
    marker = f"Subject: {name}\n".encode()

    def arrived() -> list[bytes]:
        mine = postfix.delivered_to("alice@example.org")
        return [each.content for each in mine if marker in each.content]

    postfix.wait(arrived, "the sender is notified")
    postfix.settle()
    [notification] = arrived()
    passed = [d for d in postfix.delivered_to("bob@example.net") if marker in d.content]
    assert len(passed) == 1
    fields = ("Final-Recipient", "Original-Recipient", "Action", "Status", "Diagnostic")
    lines = notification.decode().splitlines()
    return [line for line in lines if line.startswith(fields)]


@pytest.mark.parametrize("bad", IMPOSSIBLE)
def test_the_sender_gets_the_notification_that_postfix_would_have_sent(
    postfix: PrivatePostfix, plain: PrivatePostfix, bad: str
) -> None:
    name = f"refused{IMPOSSIBLE.index(bad)}"
    with_archive = notified(postfix, name, bad)
    assert with_archive == notified(plain, name, bad)
    assert "Action: failed" in with_archive


@pytest.mark.parametrize("bad", IMPOSSIBLE)
def test_an_impossible_recipient_is_in_the_archived_envelope(
    postfix: PrivatePostfix, bad: str
) -> None:
    name = f"kept{IMPOSSIBLE.index(bad)}"
    notified(postfix, name, bad)
    store = str(postfix.store)
    [record] = [
        each
        for each in reading.records(store, "legal@example.com").values()
        if f"This is {name}.".encode() in b"".join(reading.original(store, each))
    ]
    got = {each.final.decode() for each in record.recipients.values()}
    assert len(got) == 2
    assert "bob@example.net" in got


def test_an_impossible_sender_delays_nobody(postfix: PrivatePostfix) -> None:
    run = postfix.sendmail(
        b"Subject: nowhere\n\nx\n", sender="alice@r..example", to=["bob@example.net"]
    )
    assert run.returncode == 0
    postfix.wait(
        lambda: any(
            b"Subject: nowhere" in each.content
            for each in postfix.delivered_to("bob@example.net")
        ),
        "it is delivered",
    )
    postfix.settle()
