"""postsuper -r sends a queue file through pickup(8) again: still one capture."""

from __future__ import annotations

import subprocess

import pytest
from private_postfix import KEY, Client, PrivatePostfix

from postfix_archive.back import reading
from postfix_archive.core import capsule, keyring
from postfix_archive.core.envelope import Envelope, Recipient, Request

pytestmark = pytest.mark.live


def requeue(postfix: PrivatePostfix) -> None:
    """Requeue all mail, as an administrator would."""
    command = ["postsuper", "-c", str(postfix.etc), "-r", "ALL"]
    subprocess.run(command, check=True, capture_output=True)


def one_record(postfix: PrivatePostfix) -> list[str]:
    """The events of the only record; fails if there are two."""
    [record] = reading.records(str(postfix.store), "legal@example.com").values()
    return [event["event"] for event in record.events]


def test_an_original_requeued_before_its_capture_keeps_its_first_queue_id() -> None:
    with PrivatePostfix() as postfix:
        postfix.postconf(defer_transports="archive-stamp")
        postfix.reload()
        queue_id = postfix.send(b"Subject: requeued\n\nx\n")
        postfix.wait_for_log("deferred transport")
        requeue(postfix)
        postfix.postconf(defer_transports="")
        postfix.reload()
        postfix.flush()
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it is delivered")
        postfix.settle()
        assert one_record(postfix) == ["archived", "mailed"]
        [record] = reading.records(str(postfix.store), "legal@example.com").values()
        assert record.envelope.queue_id.decode() == queue_id
        assert b"from userid" in reading.original_head(str(postfix.store), record)


def test_a_capsule_requeued_is_sent_on_to_the_archive_transport() -> None:
    with PrivatePostfix() as postfix:
        postfix.postconf(defer_transports="archive")
        postfix.reload()
        postfix.send(b"Subject: requeued\n\nx\n")
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it is delivered")
        requeue(postfix)
        postfix.postconf(defer_transports="")
        postfix.reload()
        postfix.flush()
        postfix.wait(
            lambda: postfix.delivered_to("legal@example.com"), "it is archived"
        )
        postfix.settle()
        assert one_record(postfix) == ["archived", "mailed"]
        assert "requeued; queued as" in postfix.log()


def test_a_capsule_requeued_where_pickup_does_not_archive_still_arrives() -> None:
    with PrivatePostfix(
        edit_master=lambda text: text.replace(
            "pickup unix n - n 1 1 pickup",
            "pickup unix n - n 1 1 pickup\n  -o archive=",
        )
    ) as postfix:
        postfix.postconf(defer_transports="archive")
        postfix.reload()
        postfix.send(b"Subject: requeued\n\nx\n")
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it is delivered")
        requeue(postfix)
        postfix.postconf(defer_transports="")
        postfix.reload()
        postfix.flush()
        postfix.wait(
            lambda: postfix.delivered_to("legal@example.com"), "it is archived"
        )
        postfix.settle()
        assert one_record(postfix) == ["archived", "mailed"]


def test_handed_back_mail_requeued_makes_no_second_copy() -> None:
    with PrivatePostfix() as postfix:
        postfix.postconf(defer_transports="sink", archive_relay="")
        postfix.reload()
        postfix.send(b"Subject: requeued\n\nx\n")
        postfix.wait(lambda: postfix.stored(), "it is stored")
        postfix.wait_for_log("to=<bob@example.net>.*deferred transport")
        requeue(postfix)
        postfix.postconf(defer_transports="")
        postfix.reload()
        postfix.flush()
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it is delivered")
        postfix.settle()
        events = one_record(postfix)
        assert events[0] == "archived"
        assert events.count("archived") == 1
        assert len(postfix.delivered_to("bob@example.net")) == 1


def test_a_capsule_with_a_wrong_seal_is_refused_kept_and_reported() -> None:
    forged = Envelope(
        archive_id="20260101-" + "0" * 40,
        host=b"mail.example.com",
        queue_id=b"4Zx",
        sender=b"ceo@example.com",
        recipients=(Recipient(b"bob@example.net"),),
        requests=(Request("legal@example.com", "nexthop"),),
        digest="0" * 64,
    )
    foreign = keyring.parse("test " + "ab" * 32, place="forger")
    before = capsule.preamble(forged, foreign, sender=b"x@example.com", now=1)
    assert KEY.split()[0] == "test"
    with PrivatePostfix() as postfix:
        with Client(postfix.ports[2]) as client:
            client.send(
                before + b"Subject: forged\r\n\r\nforged\r\n",
                sender="",
                to=["capsule@archive-request.invalid"],
            )
        postfix.wait_for_log("SealWrong: a capsule with a wrong seal")
        assert not postfix.stored()
        [waiting] = postfix.mailq()
        assert waiting["queue_name"] in ("deferred", "active", "incoming")
