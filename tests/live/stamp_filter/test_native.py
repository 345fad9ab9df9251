"""Native mode: the envelope comes as capture recipients; nobody's mail waits."""

from __future__ import annotations

import os
import re
import smtplib
import subprocess
from collections.abc import Iterator

import pytest

from postfix_archive.message import keyring, request

from mails import (
    LEGAL,
    archives_of,
    deliveries,
    event_kinds,
    mail,
    one_delivery,
    recipients_of,
    record_of,
    records,
)
from private_postfix import KEY, NATIVE_MODES, Client, PrivatePostfix

pytestmark = pytest.mark.live
KEYS = keyring.parse(KEY, path="test")
HR = "hr@example.com"
TO = [f"person{number}@domain{number % 3}.example.net" for number in range(900)]


@pytest.fixture(scope="module", params=NATIVE_MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """By workers, and by one process a message."""
    return str(request.param)


@pytest.fixture(scope="module")
def postfix(mode: str) -> Iterator[PrivatePostfix]:
    """An instance with aliases of both kinds, a table and a rule for clients."""
    instance = PrivatePostfix(
        mode=mode,
        archive_cf={"archive_delivery": "store"},
        main={"authorized_verp_clients": "127.0.0.1", "mydestination": "local.example"},
    )
    bcc = f"BCC {request.make_recipient(HR, KEYS).decode()}"
    (instance.etc / "headers").write_text(f"/^Subject: contract/ {bcc}\n")
    (instance.etc / "virtual").write_text(
        "all@example.net one@example.net,two@example.net\n"
    )
    (instance.etc / "access").write_text("refused@example.net reject\n")
    access = f"texthash:{instance.etc}/access"
    instance.postconf(
        header_checks=f"regexp:{instance.etc}/headers",
        virtual_alias_maps=f"texthash:{instance.etc}/virtual",
        forward_path=f"{instance.etc}/forward/$user",
        alias_maps=f"regexp:{instance.etc}/aliases",
        smtpd_recipient_restrictions=f"check_recipient_access {access}",
    )
    (instance.etc / "forward").mkdir()
    (instance.etc / "forward" / "nobody").write_text("five@example.net\n")
    (instance.etc / "aliases").write_text(
        "/^both$/ three@example.net, four@example.net\n"
    )
    with instance:
        yield instance


def requeue_all(postfix: PrivatePostfix) -> None:
    """Requeue every message, as postsuper -r does."""
    command = ["postsuper", "-c", str(postfix.etc), "-r", "ALL"]
    subprocess.run(command, check=True, capture_output=True)


def test_nine_hundred_recipients_of_three_domains_make_one_record(
    postfix: PrivatePostfix,
) -> None:
    postfix.send(mail("crowd"), to=TO)
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "crowd")
    assert event_kinds(record) == ["archived"]
    assert recipients_of(record) == sorted(TO)
    for each in (TO[0], TO[-1]):
        assert b"Archive-Stamp" not in one_delivery(postfix, "crowd", each).content


def test_recipients_are_recorded_as_the_client_gave_them(
    postfix: PrivatePostfix,
) -> None:
    """Before aliases, without refused ones; forwarding makes no second record."""
    recipients = ["all@example.net", "both@local.example", "nobody@local.example"]
    with Client(postfix.smtp_port) as client:
        client.command("MAIL FROM:<>", 250)
        for address in recipients:
            client.command(f"RCPT TO:<{address}>", 250)
        with pytest.raises(smtplib.SMTPResponseException):
            client.command("RCPT TO:<refused@example.net>", 250)
        client.command("DATA", 354)
        client.smtp.send(mail("aliased").replace(b"\n", b"\r\n") + b".\r\n")
        client.smtp.getreply()
    postfix.wait_for_empty_queue()
    for each in ("one", "two", "three", "four", "five"):
        one_delivery(postfix, "aliased", f"{each}@example.net")
    record = record_of(postfix, "aliased")
    assert recipients_of(record) == recipients
    assert event_kinds(record) == ["archived"]
    assert record.envelope.sender == b""


def test_ret_and_envid_are_recorded_and_no_notice_names_a_capture_recipient(
    postfix: PrivatePostfix, mode: str
) -> None:
    """lmtp(8) passes them. Of NOTIFY and ORCPT a capture recipient has its own."""
    sender = "ann@example.org"
    postfix.send(
        mail("dsn"),
        sender=sender,
        options=("RET=HDRS", "ENVID=a+2Bb"),
        rcpt_options=("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;sales@example.com"),
    )
    postfix.wait(lambda: postfix.delivered_to(sender), "the sender is notified")
    postfix.wait_for_empty_queue()
    envelope = record_of(postfix, "dsn").envelope
    expected = (b"a+b", b"HDRS") if mode == "native" else (b"", b"")  # Postfix 3.7
    assert (envelope.envid, envelope.ret) == expected
    [recipient] = envelope.recipients
    assert (recipient.notify, recipient.orcpt) == (b"", b"")
    [notification] = postfix.delivered_to(sender)
    assert b"Original-Recipient: rfc822;sales@example.com" in notification.content
    assert b"archive" not in notification.content


def test_a_table_requests_another_archive(postfix: PrivatePostfix) -> None:
    postfix.sendmail(mail("contract"), sender="a@x.example", to=["bob@example.net"])
    postfix.wait(lambda: deliveries(postfix, "contract", "bob@example.net"), "it left")
    postfix.wait_for_empty_queue()
    assert archives_of(postfix, "contract") == [HR, LEGAL]
    assert recipients_of(record_of(postfix, "contract", HR)) == ["bob@example.net"]


def test_forged_capture_recipients_archive_nothing_and_add_nobody(
    postfix: PrivatePostfix,
) -> None:
    """From a client, where no restriction refuses them, and from sendmail(1)."""
    forged = f"capture.{'0' * 32}.{HR.encode().hex()}.ceo=x@archive-request.invalid"
    postfix.send(mail("by client"), to=["bob@example.net", forged])
    postfix.sendmail(mail("by user"), sender="a@x.example", to=[forged])
    postfix.wait_for_log("alarm=forged forged=1", 4)  # a line for each recipient
    postfix.wait_for_empty_queue()
    assert archives_of(postfix, "by client") == archives_of(postfix, "by user")
    assert recipients_of(record_of(postfix, "by client")) == ["bob@example.net"]
    assert recipients_of(record_of(postfix, "by user")) == []


def test_a_local_user_who_knows_the_secret_adds_recipients_not_unnoticed(
    postfix: PrivatePostfix,
) -> None:
    """The mail log and ``sendmail -v`` show capture recipients."""
    postfix.send(mail("seen"), to=["bob@example.net"])
    postfix.wait_for_log(r'to=<"capture\.\w+\.\w+\.bob@.*relay=.*archive[.-]capture')
    [made, *_] = re.findall(r'to=<("capture\.\w+\.\w+\.bob@[^ ]+)>', postfix.log())
    added = made.replace("bob@", "ceo@")
    alarm_count = postfix.log().count("alarm=forged forged=1")
    postfix.sendmail(mail("added"), sender="a@x.example", to=["ann@example.net", added])
    postfix.wait_for_log("alarm=forged forged=1", alarm_count + 3)
    record = record_of(postfix, "added")
    assert sorted(recipients_of(record)) == ["ann@example.net", "ceo@example.net"]


def test_a_recipient_that_no_table_can_encode_makes_the_record_incomplete(
    postfix: PrivatePostfix,
) -> None:
    """Postfix bounces an address that is not UTF-8, but the record must say so."""
    to = ["bob@example.net", os.fsdecode(b"j\xf6rg@example.net")]
    postfix.sendmail(mail("latin"), sender="a@x.example", to=to)
    postfix.wait_for_log("alarm=incomplete")
    postfix.wait(lambda: records(postfix, "latin"), "it is archived")
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "latin")
    assert recipients_of(record) == ["bob@example.net"]
    assert record.envelope.is_incomplete


@pytest.mark.parametrize("option", ["XVERP", "XVERP=-+"])
def test_xverp_to_three_hundred_is_one_record_with_the_true_sender(
    postfix: PrivatePostfix, option: str
) -> None:
    name = f"list {option}"
    sender, to = '"the list"@example.org', TO[:300]
    postfix.send(mail(name), sender=sender, to=to, options=(option,))
    postfix.wait_for_empty_queue()
    record = record_of(postfix, name)
    assert event_kinds(record).count("archived") == 1
    [one] = record.passes
    assert one.sender.decode() == sender
    assert sorted(each.final.decode() for each in one.recipients.values()) == sorted(to)


def test_a_requeued_message_has_one_record(postfix: PrivatePostfix) -> None:
    """Requeued before the archive has it, and after; no recipient is added."""
    postfix.postconf(defer_transports="archive-capture, sink")
    postfix.reload()
    postfix.send(mail("before"), to=["all@example.net"])
    postfix.wait_for_log("one@example.net>.*deferred transport")
    requeue_all(postfix)
    postfix.postconf(defer_transports="sink")
    postfix.reload()
    postfix.flush()
    postfix.wait(lambda: records(postfix, "before"), "it is archived")
    requeue_all(postfix)
    postfix.postconf(defer_transports="")
    postfix.reload()
    postfix.flush()
    postfix.wait(lambda: deliveries(postfix, "before", "two@example.net"), "it left")
    postfix.wait_for_empty_queue()
    # One record; as it was each time, with the Received: fields of the requeues.
    record = record_of(postfix, "before")
    assert set(event_kinds(record)) <= {"archived", "supplement"}
    recorded = set(recipients_of(record))
    # After a requeue Postfix knows the recipients by what the aliases made of them.
    assert {"all@example.net"} < recorded
    assert recorded <= {"all@example.net", "one@example.net", "two@example.net"}
    for each in ("one@example.net", "two@example.net"):
        one_delivery(postfix, "before", each)


def test_live_mail_does_not_wait_for_a_store_that_fails(
    postfix: PrivatePostfix,
) -> None:
    store, absent = postfix.store, postfix.store.with_name("absent")
    store.rename(absent)
    store.write_bytes(b"")
    try:
        postfix.send(mail("no store"))
        postfix.wait(
            lambda: deliveries(postfix, "no store", "bob@example.net"), "it left"
        )
        postfix.wait_for_failure("error=Store")
        [waiting] = postfix.mailq()
        assert str(waiting["recipients"]).count("@archive-request.invalid'") == 1
    finally:
        store.unlink()
        absent.rename(store)
    postfix.flush()
    postfix.wait_for_empty_queue()
    assert event_kinds(record_of(postfix, "no store")) == ["archived"]
    one_delivery(postfix, "no store", "bob@example.net")
