"""postsuper -r sends a queue file through pickup(8) again: still one capture."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from postfix_archive.back import reading
from postfix_archive.core import capsule, keyring
from postfix_archive.core.envelope import Envelope, Recipient, Request

from mails import LEGAL, delivered, deliveries, mail, record_of, records, words
from private_postfix import Client, PrivatePostfix

pytestmark = pytest.mark.live


@contextmanager
def held_up(postfix: PrivatePostfix, transport: str) -> Iterator[None]:
    """Keep what goes to a transport in the queue; requeue it at the end, let it go."""
    postfix.postconf(defer_transports=transport)
    postfix.reload()
    yield
    command = ["postsuper", "-c", str(postfix.etc), "-r", "ALL"]
    subprocess.run(command, check=True, capture_output=True)
    postfix.postconf(defer_transports="")
    postfix.reload()
    postfix.flush()


def arrived(postfix: PrivatePostfix, name: str, to: str) -> None:
    """Return when the message, or its copy, is there and the queue is empty."""
    postfix.wait(lambda: deliveries(postfix, name, to), f"{name} is at {to}")
    postfix.settle()


def test_an_original_requeued_before_its_capture_keeps_its_first_queue_id(
    postfix: PrivatePostfix,
) -> None:
    with held_up(postfix, "archive-stamp"):
        queue_id = postfix.send(mail("original"))
        postfix.wait_for_log(f"{queue_id}.*deferred transport")
    arrived(postfix, "original", LEGAL)
    record = record_of(postfix, "original")
    assert words(record) == ["archived", "mailed"]
    assert record.envelope.queue_id.decode() == queue_id
    assert b"from userid" in reading.original_head(str(postfix.store), record)


def test_a_capsule_requeued_is_sent_on_to_the_archive_transport(
    postfix: PrivatePostfix,
) -> None:
    with held_up(postfix, "archive"):
        postfix.send(mail("capsule"))
        postfix.wait(
            lambda: deliveries(postfix, "capsule", "bob@example.net"), "it is delivered"
        )
    arrived(postfix, "capsule", LEGAL)
    assert words(record_of(postfix, "capsule")) == ["archived", "mailed"]
    assert "requeued; queued as" in postfix.log()


def test_a_capsule_requeued_where_pickup_does_not_archive_still_arrives() -> None:
    pickup = "pickup unix n - n 1 1 pickup"
    with PrivatePostfix(
        edit_master=lambda text: text.replace(pickup, f"{pickup}\n  -o archive=")
    ) as postfix:
        with held_up(postfix, "archive"):
            postfix.send(mail("capsule"))
            postfix.wait(
                lambda: deliveries(postfix, "capsule", "bob@example.net"),
                "it is delivered",
            )
        arrived(postfix, "capsule", LEGAL)
        assert words(record_of(postfix, "capsule")) == ["archived", "mailed"]


def test_handed_back_mail_requeued_makes_no_second_copy(
    postfix: PrivatePostfix,
) -> None:
    with held_up(postfix, "sink"):
        postfix.send(mail("back"))
        postfix.wait(lambda: records(postfix, "back"), "it is stored")
        postfix.wait_for_log("to=<bob@example.net>.*deferred transport")
    arrived(postfix, "back", "bob@example.net")
    assert words(record_of(postfix, "back")).count("archived") == 1
    delivered(postfix, "back", "bob@example.net")


def test_a_copy_requeued_leaves_as_it_was_to_leave() -> None:
    with PrivatePostfix(main={"always_bcc": "everybody@example.net"}) as postfix:
        (postfix.etc / "transport").write_text(
            "archive-request.invalid archive-stamp:on-request\n" f"{LEGAL} slow:\n"
        )
        text = (postfix.etc / "master.cf").read_text()
        slow = text[text.index("sink unix") :].partition("\n#")[0]
        with (postfix.etc / "master.cf").open("a") as master:
            master.write(slow.replace("sink unix", "slow unix", 1) + "\n")
        postfix.postconf(transport_maps=f"texthash:{postfix.etc}/transport")
        postfix.reload()
        with held_up(postfix, "slow"):
            postfix.send(mail("copied"), to=["bob@example.net", "hidden@example.net"])
            postfix.wait_for_log(f"to=<{LEGAL}>.*deferred transport")
        arrived(postfix, "copied", LEGAL)
        assert words(record_of(postfix, "copied")) == ["archived", "mailed"]
        everybody = deliveries(postfix, "copied", "everybody@example.net")
        assert len(everybody) == 1
        assert b"hidden@example.net" not in everybody[0].content


def test_an_original_altered_in_the_queue_is_kept_marked_and_told() -> None:
    with PrivatePostfix() as postfix:
        rule = "/^This is altered/ REPLACE This is altered. By somebody's rule."
        (postfix.etc / "rules").write_text(f"{rule}\n")
        with held_up(postfix, "archive"):
            postfix.send(mail("altered"))
            postfix.wait(
                lambda: deliveries(postfix, "altered", "bob@example.net"), "it is there"
            )
            postfix.postconf(body_checks=f"regexp:{postfix.etc}/rules")
            postfix.reload()
        arrived(postfix, "altered", LEGAL)
        record = record_of(postfix, "altered")
        original = b"".join(reading.original(str(postfix.store), record))
        assert b"By somebody's rule." in original
        sealed = record.envelope.digest
        assert record.events[0]["sha256"] == hashlib.sha256(original).hexdigest()
        assert record.events[0]["sha256"] != sealed
        copy = b"".join(reading.copy(str(postfix.store), record))
        assert b"ALTERED IN THE QUEUE" in copy
        assert f"Archive-Original-SHA256: {sealed}".encode() in copy
        assert "(ALARM: the message was altered in the queue" in postfix.log()


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
