"""Addresses that only sendmail(1) accepts: the others get their mail."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from postfix_archive.store import record_reader

from private_postfix import Client, PrivatePostfix

pytestmark = pytest.mark.live
IMPOSSIBLE_ADDRESSES = [
    "x@",
    "a@r..example",
    "-dash@example.net",
    "b\udce9@example.net",
    'c@"r.example>, NOTIFY=NEVER"',
    "d@[r.example> x]",
    'e@"r example"',
]


@pytest.fixture(scope="module", params=["pipe", "native"])
def mode(request: pytest.FixtureRequest) -> str:
    """With reinjection and without."""
    return str(request.param)


@pytest.fixture(scope="module")
def plain_host() -> Iterator[PrivatePostfix]:
    """An instance without an archive."""
    with PrivatePostfix(has_archive=False) as running:
        yield running


def notification_texts(postfix: PrivatePostfix, name: str, bad: str) -> list[str]:
    """Send by sendmail(1) to a good and a bad address; return the DSN's fields."""
    message = f"Subject: {name}\n\nThis is {name}.\n".encode()
    process = postfix.sendmail(
        message, sender="alice@example.org", to=["bob@example.net", bad]
    )
    assert process.returncode == 0, process.stderr
    marker = f"Subject: {name}\n".encode()

    def arrived() -> list[bytes]:
        notifications = postfix.delivered_to("alice@example.org")
        return [each.content for each in notifications if marker in each.content]

    postfix.wait(arrived, "the sender is notified")
    postfix.wait_for_empty_queue()
    [notification] = arrived()
    delivered = [
        d for d in postfix.delivered_to("bob@example.net") if marker in d.content
    ]
    assert len(delivered) == 1
    fields = ("Final-Recipient", "Original-Recipient", "Action", "Status", "Diagnostic")
    lines = notification.decode().splitlines()
    return [line for line in lines if line.startswith(fields)]


@pytest.mark.parametrize("impossible_address", IMPOSSIBLE_ADDRESSES)
def test_the_sender_gets_the_notification_that_postfix_would_have_sent(
    postfix: PrivatePostfix, plain_host: PrivatePostfix, impossible_address: str
) -> None:
    name = f"refused{IMPOSSIBLE_ADDRESSES.index(impossible_address)}"
    with_archive = notification_texts(postfix, name, impossible_address)
    assert with_archive == notification_texts(plain_host, name, impossible_address)
    assert "Action: failed" in with_archive


@pytest.mark.parametrize("impossible_address", IMPOSSIBLE_ADDRESSES)
def test_an_impossible_recipient_is_in_the_archived_envelope(
    postfix: PrivatePostfix, mode: str, impossible_address: str
) -> None:
    """Native mode has no name for one that is not UTF-8, and says so."""
    name = f"kept{IMPOSSIBLE_ADDRESSES.index(impossible_address)}"
    notification_texts(postfix, name, impossible_address)
    store = str(postfix.store)
    [record] = [
        candidate
        for candidate in record_reader.records(store, "legal@example.com")
        if f"This is {name}.".encode()
        in b"".join(record_reader.original(store, candidate))
    ]
    archived_recipients = {
        os.fsdecode(candidate.final) for candidate in record.recipients.values()
    }
    is_encodable = mode != "native" or impossible_address.isascii()
    assert len(archived_recipients) == 1 + is_encodable
    assert "bob@example.net" in archived_recipients
    assert record.envelope.is_incomplete != is_encodable


def test_an_impossible_sender_delays_nobody(postfix: PrivatePostfix) -> None:
    process = postfix.sendmail(
        b"Subject: nowhere\n\nx\n", sender="alice@r..example", to=["bob@example.net"]
    )
    assert process.returncode == 0
    postfix.wait(
        lambda: any(
            b"Subject: nowhere" in delivery.content
            for delivery in postfix.delivered_to("bob@example.net")
        ),
        "it is delivered",
    )
    postfix.wait_for_empty_queue()


SERVICES = {
    "virtual_alias_maps": "inline:{sales@example.net=bob@example.net}",
    "always_bcc": "everything@example.net",
}


@pytest.mark.parametrize("impossible_address", ["x@", "alice@r..example"])
def test_an_impossible_sender_costs_no_mapping(
    mode: str, impossible_address: str
) -> None:
    with PrivatePostfix(mode=mode, main=SERVICES) as postfix:
        postfix.sendmail(
            b"Subject: x\n\nx\n", sender=impossible_address, to=["sales@example.net"]
        )
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it arrives")
        postfix.wait_for_empty_queue()
        assert len(postfix.delivered_to("everything@example.net")) == 1
        assert len(postfix.stored_files()) == 1


def test_with_soft_bounce_an_impossible_address_delays_nobody(mode: str) -> None:
    with PrivatePostfix(mode=mode, main={"soft_bounce": "yes"}) as postfix:
        message = b"Subject: soft\n\nx\n"
        postfix.sendmail(message, sender="a@example.org", to=["bob@example.net", "x@"])
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "bob has it")


def test_a_latin1_address_passes_where_the_host_has_no_smtputf8(mode: str) -> None:
    with PrivatePostfix(mode=mode, main={"smtputf8_enable": "no"}) as postfix:
        with Client(postfix.smtp_port) as client:
            client.command("MAIL FROM:<alice@example.org>", 250)
            client.smtp.send(b"RCPT TO:<b\xe9@example.net>\r\n")
            assert client.smtp.getreply()[0] == 250
            client.command("DATA", 354)
            client.smtp.send(b"Subject: latin\r\n\r\nx\r\n.\r\n")
            assert client.smtp.getreply()[0] == 250
        postfix.wait_for_empty_queue()
        assert postfix.delivered_to("b\udce9@example.net")
        assert len(postfix.stored_files()) == 1


def test_mail_one_hop_below_the_limit_is_delivered() -> None:
    hops = b"Received: from a by b; Sun, 22 Nov 2026 12:53:00 +0000\n"
    with PrivatePostfix() as postfix:
        postfix.send(hops * 48 + b"Subject: far\n\nx\n")
        postfix.wait_for_empty_queue()
        assert len(postfix.delivered_to("bob@example.net")) == 1
        assert len(postfix.delivered_to("legal@example.com")) == 1
