"""How copies reach the archive address, and what happens when it refuses them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from private_postfix import PrivatePostfix, free_ports

pytestmark = pytest.mark.live
ROUTE = "archive-request.invalid=archive-stamp:on-request"


class RefusingServer:
    """A mail server that refuses recipients as long as it is told to."""

    def __init__(self) -> None:
        self.is_refusing = True
        self.accepted: list[tuple[str, list[str]]] = []

    async def handle_RCPT(
        self, _: object, __: object, envelope: Envelope, address: str, ___: object
    ) -> str:
        """Answer RCPT."""
        if self.is_refusing:
            return "550 5.7.1 archive says no"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, _: object, __: object, envelope: Envelope) -> str:
        """Take the message."""
        self.accepted.append((envelope.mail_from or "", envelope.rcpt_tos))
        return "250 ok"


@pytest.fixture
def peer() -> Iterator[tuple[RefusingServer, str]]:
    """A remote mail server, and its name for transport_maps."""
    [port] = free_ports(1)
    behaviour = RefusingServer()
    controller = Controller(behaviour, hostname="127.0.0.1", port=port)
    controller.start()
    yield behaviour, f"smtp:[127.0.0.1]:{port}"
    controller.stop()


def test_with_store_alone_no_copy_is_mailed() -> None:
    with PrivatePostfix(archive_cf={"archive_delivery": "store"}) as postfix:
        postfix.send(b"Subject: kept\n\nx\n")
        postfix.wait_for_empty_queue()
        assert len(postfix.stored_files()) == 1
        assert not postfix.delivered_to("legal@example.com")


def test_with_mail_alone_nothing_is_stored() -> None:
    with PrivatePostfix(
        main={"archive_relay": "sink:dummy"}, archive_cf={"archive_delivery": "mail"}
    ) as postfix:
        postfix.send(b"Subject: sent\n\nx\n")
        postfix.wait_for_empty_queue()
        assert not postfix.stored_files()
        [copy] = postfix.delivered_to("legal@example.com")
        assert b"Recipient: bob@example.net\n" in copy.content


def test_with_mail_alone_a_young_valid_stamp_sends_a_supplement_not_a_copy() -> None:
    with PrivatePostfix(
        main={"archive_relay": "sink:dummy"}, archive_cf={"archive_delivery": "mail"}
    ) as postfix:
        postfix.send(b"Subject: once\n\nonly once\n")
        postfix.wait_for_empty_queue()
        [delivery] = postfix.delivered_to("bob@example.net")
        postfix.send(b"X-Added: above\n" + delivery.content, to=["carol@example.net"])
        postfix.wait_for_empty_queue()
        assert postfix.delivered_to("carol@example.net")
        _, supplement = postfix.delivered_to("legal@example.com")
        assert b"Content-Type: text/rfc822-headers" in supplement.content
        assert b"Final-Recipient: rfc822; carol@example.net" in supplement.content
        assert b"X-Added: above" in supplement.content
        assert b"only once" not in supplement.content
        postfix.set_archive_cf(archive_stamp_lifetime="1s")
        postfix.wait(lambda: is_old(delivery.content), "the stamp is old")
        postfix.send(delivery.content, to=["carol@example.net"])
        postfix.wait_for_empty_queue()
        mailed = postfix.delivered_to("legal@example.com")
        assert [b"only once" in each.content for each in mailed].count(True) == 2


def is_old(content: bytes) -> bool:
    """Tell whether the stamp in a message is over a second old."""
    stamped = int(content.partition(b" t=")[2].partition(b";")[0])
    return time.time() > stamped + 2


def test_with_mail_alone_a_refusal_defers_the_copy(
    peer: tuple[RefusingServer, str],
) -> None:
    behaviour, route = peer
    with PrivatePostfix(archive_cf={"archive_delivery": "mail"}) as postfix:
        postfix.postconf(archive_relay=route.replace("smtp:", "archive-relay:"))
        postfix.reload()
        postfix.send(b"Subject: refused\n\nx\n")
        postfix.wait_for_log("to=<legal@example.com>.*status=SOFTBOUNCE")
        assert len(postfix.mailq()) == 1
        assert not postfix.delivered_to("alice@example.org")
        behaviour.is_refusing = False
        postfix.flush()
        postfix.wait_for_empty_queue()
        assert behaviour.accepted == [("<>", ["legal@example.com"])]


def test_with_a_store_a_refused_copy_is_in_the_store(
    peer: tuple[RefusingServer, str],
) -> None:
    _, route = peer
    with PrivatePostfix() as postfix:
        postfix.postconf(transport_maps=f"inline:{{{ROUTE}, example.com={route}}}")
        postfix.reload()
        postfix.send(b"Subject: refused\n\nx\n")
        postfix.wait_for_log("to=<legal@example.com>.*status=bounced")
        postfix.wait_for_empty_queue()
        assert len(postfix.stored_files()) == 1
        assert not postfix.delivered_to("alice@example.org")


def test_archive_sender_gets_the_bounces(peer: tuple[RefusingServer, str]) -> None:
    _, route = peer
    with PrivatePostfix(archive_cf={"archive_sender": "keeper@example.net"}) as postfix:
        postfix.postconf(transport_maps=f"inline:{{{ROUTE}, example.com={route}}}")
        postfix.reload()
        postfix.send(b"Subject: refused\n\nx\n")
        postfix.wait(
            lambda: postfix.delivered_to("keeper@example.net"), "the bounce arrives"
        )
        postfix.wait_for_empty_queue()
        [bounce] = postfix.delivered_to("keeper@example.net")
        assert b"archive says no" in bounce.content
        assert not postfix.delivered_to("alice@example.org")


def test_the_sender_never_hears_of_the_archive_even_with_notify_success() -> None:
    with PrivatePostfix() as postfix:
        postfix.send(
            b"Subject: notify\n\nx\n", rcpt_options=("NOTIFY=SUCCESS,FAILURE",)
        )
        postfix.wait_for_empty_queue()
        notifications = [
            each.content for each in postfix.delivered_to("alice@example.org")
        ]
        assert not any(
            b"legal@" in each or b"capsule" in each for each in notifications
        )


def test_with_mail_alone_a_copy_that_comes_back_altered_starts_no_loop() -> None:
    with PrivatePostfix(
        main={"archive_relay": "sink:dummy"}, archive_cf={"archive_delivery": "mail"}
    ) as postfix:
        postfix.send(b"Subject: round\n\nx\n")
        postfix.wait_for_empty_queue()
        for _ in range(3):
            newest = max(
                postfix.delivered_to("legal@example.com"),
                key=lambda each: len(each.content),
            )
            postfix.send(newest.content + b"footer\n", to=["legal@example.com"])
            postfix.wait_for_empty_queue()
        copies = postfix.delivered_to("legal@example.com")
        reports = [each for each in copies if each.sender == ""]
        assert len(reports) == 2
        assert "alarm=not-mailed result=none" in postfix.log()


def test_bounces_to_archive_sender_are_delivered_and_start_no_loop() -> None:
    with PrivatePostfix(archive_cf={"archive_sender": "keeper@example.net"}) as postfix:
        postfix.send(b"Subject: NDR\n\nx\n", sender="", to=["keeper@example.net"])
        postfix.wait_for_empty_queue()
        assert len(postfix.stored_files()) == 1
        assert not postfix.delivered_to("legal@example.com")


def test_a_retry_mails_the_copy_that_the_first_try_only_stored() -> None:
    with PrivatePostfix() as postfix:
        postfix.send(b"Subject: first\n\nx\n")
        postfix.wait_for_empty_queue()
        [delivery] = postfix.delivered_to("bob@example.net")
        for each in postfix.stored_files():
            each.unlink()
        postfix.set_archive_cf(archive_copy_address="127.0.0.1:1")
        postfix.send(delivery.content, to=["carol@example.net"])
        postfix.wait_for_failure("=PostfixUnreachable reason=connect to 127.0.0.1:1")
        assert len(postfix.stored_files()) == 1
        postfix.set_archive_cf()
        postfix.flush()
        postfix.wait_for_empty_queue()
        assert len(postfix.delivered_to("legal@example.com")) == 2
