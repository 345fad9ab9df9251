"""The lmtp mode on a live Postfix: what passes it is what passes the pipe mode."""

from __future__ import annotations

import re
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
    original_of,
    received_content,
    recipients_of,
    record_of,
    records,
)
from private_postfix import KEY, PrivatePostfix

pytestmark = pytest.mark.live

DSN = ("RET=HDRS", "ENVID=a+2Bb")
RCPT_DSN = ("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;sales@example.com")


@pytest.fixture(scope="module")
def postfix() -> Iterator[PrivatePostfix]:
    """A running instance with the lmtp mode, shared by this module."""
    with PrivatePostfix(mode="lmtp") as running:
        yield running


def log_line_of(postfix: PrivatePostfix, queue_id: str) -> str:
    """Return what the stamp filter's client has logged of a message; the last line."""
    pattern = rf"archive-stamp/lmtp.* {queue_id}: .*status=.*"
    postfix.wait_for_log(pattern)
    return str(re.findall(pattern, postfix.log())[-1])


def test_a_message_is_captured_stored_mailed_and_delivered_once(
    postfix: PrivatePostfix,
) -> None:
    queue_id = postfix.send(mail("first"), to=["bob@example.net", "eve@example.net"])
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "first")
    assert event_kinds(record) == ["archived", "mailed"]
    assert record.envelope.queue_id == queue_id.encode()
    assert recipients_of(record) == ["bob@example.net", "eve@example.net"]
    for to in ("bob@example.net", "eve@example.net", LEGAL):
        assert one_delivery(postfix, "first", to)
    reply = "250 2.0.0 id=[0-9a-f-]+ as=[0-9A-Za-z]+ result=done"
    assert re.search(reply, log_line_of(postfix, queue_id))
    assert postfix.run_command("verify").returncode == 0


def test_what_is_stored_and_delivered_is_what_was_received(
    postfix: PrivatePostfix,
) -> None:
    content = mail("bytes") + b"".join(
        (b".\n", b"..\n", b".x\n", b"\xff\xfe\0\n", b"y" * 5000 + b"\n", b"\n\n")
    )
    postfix.send(content)
    postfix.wait_for_empty_queue()
    original = original_of(postfix, record_of(postfix, "bytes"))
    body = content.partition(b"\n\n")[2]  # Postfix adds a Date: to the header
    assert original.endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))
    assert received_content(
        one_delivery(postfix, "bytes", "bob@example.net").content
    ) == (original)


def test_dsn_parameters_are_archived_and_passed_on(postfix: PrivatePostfix) -> None:
    """Postfix sends the notification of success after delivery, not at the filter."""
    queue_id = postfix.send(
        mail("dsn"),
        sender="ann@example.org",
        to=["bob@example.net"],
        options=DSN,
        rcpt_options=RCPT_DSN,
    )
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "dsn")
    assert (record.envelope.envid, record.envelope.ret) == (b"a+b", b"HDRS")
    [recipient] = record.envelope.recipients
    assert (recipient.notify, recipient.orcpt) == (
        b"SUCCESS,DELAY",
        b"rfc822;sales@example.com",
    )
    assert not recipient.is_mapped, "a client's ORCPT is no mapping of this host"
    reports = [
        delivery.content
        for delivery in postfix.delivered_to("ann@example.org")
        if b"Original-Envelope-Id: a+b" in delivery.content
    ]
    assert len(reports) == 1
    assert b"Original-Recipient: rfc822;sales@example.com" in reports[0]
    assert b"delivery via sink" in reports[0]
    # What follows is the header of the message, with its Archive-Stamp.
    notification, returned_header, _ = reports[0].partition(b"text/rfc822-headers")
    assert returned_header and record.archive_id.encode() not in notification
    assert f"{queue_id}: sender delivery status notification" not in postfix.log()


def test_a_recipient_that_wants_no_notification_gets_none(
    postfix: PrivatePostfix,
) -> None:
    postfix.send(mail("never"), rcpt_options=("NOTIFY=NEVER",))
    postfix.wait_for_empty_queue()
    [recipient] = record_of(postfix, "never").envelope.recipients
    assert recipient.notify == b"NEVER"


def test_mail_from_sendmail_has_its_queue_id_and_no_client(
    postfix: PrivatePostfix,
) -> None:
    recipients = ["mü@example.net", "bob@example.net"]
    assert not postfix.sendmail(mail("local"), sender="", to=recipients).returncode
    postfix.wait_for_empty_queue()
    envelope = record_of(postfix, "local").envelope
    assert re.search(rf"pickup.* {envelope.queue_id.decode()}: uid=0", postfix.log())
    assert envelope.client.address == b"" and envelope.arrival is not None
    for to in recipients:
        assert one_delivery(postfix, "local", to).sender == ""


def test_an_address_that_smtp_cannot_carry_delays_nobody(
    postfix: PrivatePostfix,
) -> None:
    recipients = ["x@", "a@r..example", "carol@example.net"]
    postfix.sendmail(mail("odd"), sender="alice@example.com", to=recipients)
    postfix.wait_for_empty_queue()
    assert recipients_of(record_of(postfix, "odd")) == sorted(recipients)
    assert one_delivery(postfix, "odd", "carol@example.net")


def test_two_thousand_recipients_of_one_message_come_in_one_piece(
    postfix: PrivatePostfix,
) -> None:
    recipients = [f"p{n}@d{n % 9}.example.net" for n in range(2000)]
    postfix.send(mail("crowd"), to=recipients)
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "crowd")
    assert recipients_of(record) == sorted(recipients)
    assert event_kinds(record) == ["archived", "mailed"]


def test_one_worker_serves_many_messages(postfix: PrivatePostfix) -> None:
    for number in range(10):
        postfix.send(mail(f"many{number}"))
    postfix.wait_for_empty_queue()
    assert re.search(r"archive-stamp/lmtp.* conn_use=[2-9]", postfix.log())
    assert len([n for n in range(10) if record_of(postfix, f"many{n}")]) == 10


def test_what_became_of_a_message_gets_into_the_journal_and_it_adds_up() -> None:
    with PrivatePostfix(mode="lmtp") as host:
        (host.etc / "routes").write_text("no.example.net error:5.1.1 no such user\n")
        host.postconf(
            smtpd_reject_unlisted_recipient="no",
            transport_maps=f"texthash:{host.etc}/routes",
        )
        host.reload()
        host.send(mail("told"), to=["bob@example.net", "x@no.example.net"])
        host.wait_for_empty_queue()
        process = host.run_command("outcomes", "--once")
        assert (process.returncode, process.stderr) == (0, "")
        outcomes = {
            event["recipient"]: event["outcome"]
            for event in host.events()
            if event["event"] == "outcome"
        }
        assert outcomes == {
            "bob@example.net": "delivered",
            "x@no.example.net": "failed",
        }
        process = host.run_command("reconcile")
        assert process.returncode == 0, process.stdout
        assert re.search(r"^archived +1$", process.stdout, re.M)


def test_a_message_that_is_requeued_while_it_waits_is_archived_once() -> None:
    with PrivatePostfix(mode="lmtp") as host:
        launcher = host.program_directory / "archive-lmtp"
        moved_launcher = launcher.rename(host.program_directory / "aside")
        queue_id = host.send(mail("requeued"))
        host.sendmail(mail("local"), sender="a@example.com", to=["bob@example.net"])
        host.wait_for_log("archive-stamp/lmtp.*status=deferred", 2)
        requeue_command = ["postsuper", "-c", str(host.etc), "-r", "ALL"]
        subprocess.run(requeue_command, check=True, capture_output=True)
        host.wait_for_log("pickup.* orig_id=", 2)
        moved_launcher.rename(launcher)
        host.wait_for_empty_queue()
        for name in ("requeued", "local"):
            assert event_kinds(record_of(host, name)) == ["archived", "mailed"]
            assert len(deliveries(host, name, "bob@example.net")) == 1
        assert record_of(host, "requeued").envelope.queue_id == queue_id.encode()
        assert record_of(host, "requeued").envelope.arrival is not None


def test_a_broken_installation_makes_mail_wait_and_the_log_names_it(
    postfix: PrivatePostfix,
) -> None:
    path = postfix.program_directory / "postfix_archive" / "intake" / "lmtp_worker.py"
    correct_source = path.read_text()
    path.write_text("import nothing_of_that_name\n")
    queue_id = postfix.send(mail("broken"))
    line = log_line_of(postfix, queue_id)
    assert "status=deferred" in line
    path.write_text(correct_source)
    postfix.wait_for_empty_queue()
    assert event_kinds(record_of(postfix, "broken")) == ["archived", "mailed"]
    assert len(deliveries(postfix, "broken", "bob@example.net")) == 1


def test_a_change_of_the_settings_counts_from_the_next_message_on(
    postfix: PrivatePostfix,
) -> None:
    """No reload, and no message waits: the client opens a new connection."""
    deferred = postfix.log().count("status=deferred")
    postfix.send(mail("before"))
    postfix.wait_for_empty_queue()
    postfix.set_archive_cf(archive_delivery="store")
    postfix.send(mail("after"))
    postfix.wait_for_empty_queue()
    postfix.set_archive_cf()
    assert event_kinds(record_of(postfix, "before")) == ["archived", "mailed"]
    assert event_kinds(record_of(postfix, "after")) == ["archived"]
    assert postfix.log().count("status=deferred") == deferred


def test_an_archive_without_a_service_makes_mail_wait() -> None:
    host = PrivatePostfix(mode="lmtp")
    host.postconf(archive="other@example.com")
    with host:
        queue_id = host.send(mail("nobody"))
        assert "No such file or directory" in log_line_of(host, queue_id)
        assert "status=deferred" in log_line_of(host, queue_id)
        assert not records(host, "nobody")


KILLING_FILTER = """def filter_message(transaction: Transaction) -> str:
    import os
    if b"This is poison." in b"".join(transaction.message.chunks()):
        os._exit(9)
"""


def test_a_worker_that_dies_in_a_message_holds_up_no_other(
    postfix: PrivatePostfix,
) -> None:
    path = postfix.program_directory / "postfix_archive" / "stamp_filter" / "capture.py"
    correct_source = path.read_text()
    path.write_text(
        correct_source.replace(
            "def filter_message(transaction: Transaction) -> str:\n", KILLING_FILTER
        )
    )
    postfix.send(mail("poison"))
    postfix.wait_for_log(
        "lost connection with .*status=deferred|status=deferred .*lost"
    )
    names = [f"other{number}" for number in range(20)]
    for name in names:
        postfix.send(mail(name))
    postfix.wait(
        lambda: all(deliveries(postfix, name, "bob@example.net") for name in names),
        "the other messages are delivered",
    )
    assert not deliveries(postfix, "poison", "bob@example.net")
    path.write_text(correct_source)
    postfix.wait_for_empty_queue()
    for name in ("poison", *names):
        assert event_kinds(record_of(postfix, name)) == ["archived", "mailed"]
        assert len(deliveries(postfix, name, "bob@example.net")) == 1


CAPSULE_ENTRIES = """
archive unix - - n - 4 lmtp
  -o soft_bounce=yes
  -o lmtp_line_length_limit=0
  -o disable_mime_output_conversion=yes
  -o lmtp_send_xforward_command=yes
archive.capsule unix - n n - 8 spawn
  -o command_time_limit=10000s
  user={user}
  argv={program}/archive-lmtp --nexthop capsule
"""


def capsules_by_lmtp(master: str) -> str:
    """Let workers be the archive transport too."""
    archive_entry = re.compile(r"^archive unix .*\n(?:  .*\n)+", re.M)
    [entry] = archive_entry.findall(master)
    [(user, program)] = re.findall(r"user=(\S+)\n  argv=(\S+)/archive\n", entry)
    workers = CAPSULE_ENTRIES.format(user=user, program=program)
    master = archive_entry.sub("", master).replace(
        "content_filter=archive:capsule",
        "content_filter=archive:unix:private/archive.capsule",
    )
    return master + workers


def test_workers_can_be_the_archive_transport_too() -> None:
    by_capsule = {"archive_write_through_time_limit": "0"}
    with PrivatePostfix(
        mode="lmtp", edit_master=capsules_by_lmtp, archive_cf=by_capsule
    ) as host:
        content = mail("both") + b"\xff\xfe\0\n" + b"y" * 5000 + b"\n"
        host.send(content)
        host.wait_for_empty_queue()
        record = record_of(host, "both")
        assert event_kinds(record) == ["archived", "mailed"]
        assert original_of(host, record).endswith(
            content.partition(b"\n\n")[2].replace(b"\n", b"\r\n")
        )
        assert one_delivery(host, "both", "bob@example.net")
        assert re.search("relay=.*capsule.* result=stored[+]mailed", host.log())
        assert "status=deferred" not in host.log()


TWO_ARCHIVES = "one@example.com,two@example.com"


def test_several_archives_are_requested_by_the_name_of_the_socket() -> None:
    with PrivatePostfix(mode="lmtp", archive=TWO_ARCHIVES) as host:
        host.send(mail("pair"))
        host.wait_for_empty_queue()
        assert archives_of(host, "pair") == TWO_ARCHIVES.split(",")
        assert len(deliveries(host, "pair", "bob@example.net")) == 1


def test_a_request_from_a_table_is_archived_without_another_request() -> None:
    keys = keyring.parse(KEY, path="key")
    request_recipient = request.make_recipient("table@example.com", keys).decode()
    main = {"content_filter": "archive-stamp:unix:private/archive.on-request"}
    with PrivatePostfix(mode="lmtp", archive="", main=main) as host:
        host.send(mail("asked"), to=["bob@example.net", request_recipient])
        host.send(mail("unasked"))
        host.wait_for_empty_queue()
        assert archives_of(host, "asked") == ["table@example.com"]
        assert recipients_of(record_of(host, "asked", "table@example.com")) == [
            "bob@example.net"
        ]
        assert archives_of(host, "unasked") == []
        for name in ("asked", "unasked"):
            assert one_delivery(host, name, "bob@example.net")
