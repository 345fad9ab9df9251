"""The lmtp door on a live Postfix: what passes it is what passes the pipe door."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from postfix_archive.message import keyring, request

from mails import (
    LEGAL,
    archives_of,
    below_the_top,
    delivered,
    deliveries,
    mail,
    original_of,
    recipients_of,
    record_of,
    records,
    words,
)
from private_postfix import KEY, PrivatePostfix

pytestmark = pytest.mark.live

DSN = ("RET=HDRS", "ENVID=a+2Bb")
RCPT_DSN = ("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;sales@example.com")


@pytest.fixture(scope="module")
def postfix() -> Iterator[PrivatePostfix]:
    """A running instance with the lmtp door, shared by this module."""
    with PrivatePostfix(door="lmtp") as running:
        yield running


def line_of(postfix: PrivatePostfix, queue_id: str) -> str:
    """Return what the stamp filter's client has logged of a message; the last line."""
    pattern = rf"archive-stamp/lmtp.* {queue_id}: .*status=.*"
    postfix.wait_for_log(pattern)
    return str(re.findall(pattern, postfix.log())[-1])


def test_a_message_is_captured_stored_mailed_and_delivered_once(
    postfix: PrivatePostfix,
) -> None:
    queue_id = postfix.send(mail("first"), to=["bob@example.net", "eve@example.net"])
    postfix.settle()
    record = record_of(postfix, "first")
    assert words(record) == ["archived", "mailed"]
    assert record.envelope.queue_id == queue_id.encode()
    assert recipients_of(record) == ["bob@example.net", "eve@example.net"]
    for to in ("bob@example.net", "eve@example.net", LEGAL):
        assert delivered(postfix, "first", to)
    said = "250 2.0.0 id=[0-9a-f-]+ as=[0-9A-Za-z]+ result=done"
    assert re.search(said, line_of(postfix, queue_id))
    assert postfix.command("verify").returncode == 0


def test_what_is_stored_and_delivered_is_what_was_received(
    postfix: PrivatePostfix,
) -> None:
    content = mail("bytes") + b"".join(
        (b".\n", b"..\n", b".x\n", b"\xff\xfe\0\n", b"y" * 5000 + b"\n", b"\n\n")
    )
    postfix.send(content)
    postfix.settle()
    original = original_of(postfix, record_of(postfix, "bytes"))
    body = content.partition(b"\n\n")[2]  # Postfix adds a Date: to the header
    assert original.endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))
    assert below_the_top(delivered(postfix, "bytes", "bob@example.net").content) == (
        original
    )


def test_dsn_parameters_are_archived_and_passed_on(postfix: PrivatePostfix) -> None:
    """Postfix sends the notification of success after delivery, not at the filter."""
    queue_id = postfix.send(
        mail("dsn"),
        sender="ann@example.org",
        to=["bob@example.net"],
        options=DSN,
        rcpt_options=RCPT_DSN,
    )
    postfix.settle()
    record = record_of(postfix, "dsn")
    assert (record.envelope.envid, record.envelope.ret) == (b"a+b", b"HDRS")
    [bob] = record.envelope.recipients
    assert (bob.notify, bob.orcpt) == (
        b"SUCCESS,DELAY",
        b"rfc822;sales@example.com",
    )
    assert not bob.is_mapped, "a client's ORCPT is no mapping of this host"
    reports = [
        each.content
        for each in postfix.delivered_to("ann@example.org")
        if b"Original-Envelope-Id: a+b" in each.content
    ]
    assert len(reports) == 1
    assert b"Original-Recipient: rfc822;sales@example.com" in reports[0]
    assert b"delivery via sink" in reports[0]
    assert record.archive_id.encode() not in reports[0]
    assert f"{queue_id}: sender delivery status notification" not in postfix.log()


def test_a_recipient_that_wants_no_notification_gets_none(
    postfix: PrivatePostfix,
) -> None:
    postfix.send(mail("never"), rcpt_options=("NOTIFY=NEVER",))
    postfix.settle()
    [bob] = record_of(postfix, "never").envelope.recipients
    assert bob.notify == b"NEVER"


def test_mail_from_sendmail_has_its_queue_id_and_no_client(
    postfix: PrivatePostfix,
) -> None:
    people = ["mü@example.net", "bob@example.net"]
    assert not postfix.sendmail(mail("local"), sender="", to=people).returncode
    postfix.settle()
    found = record_of(postfix, "local").envelope
    assert re.search(rf"pickup.* {found.queue_id.decode()}: uid=0", postfix.log())
    assert found.client.address == b"" and found.arrival is not None
    for to in people:
        assert delivered(postfix, "local", to).sender == ""


def test_an_address_that_smtp_cannot_carry_delays_nobody(
    postfix: PrivatePostfix,
) -> None:
    people = ["x@", "a@r..example", "carol@example.net"]
    postfix.sendmail(mail("odd"), sender="alice@example.com", to=people)
    postfix.settle()
    assert recipients_of(record_of(postfix, "odd")) == sorted(people)
    assert delivered(postfix, "odd", "carol@example.net")


def test_two_thousand_recipients_of_one_message_come_in_one_piece(
    postfix: PrivatePostfix,
) -> None:
    people = [f"p{n}@d{n % 9}.example.net" for n in range(2000)]
    postfix.send(mail("crowd"), to=people)
    postfix.settle()
    record = record_of(postfix, "crowd")
    assert recipients_of(record) == sorted(people)
    assert words(record) == ["archived", "mailed"]


def test_one_worker_serves_many_messages(postfix: PrivatePostfix) -> None:
    for number in range(10):
        postfix.send(mail(f"many{number}"))
    postfix.settle()
    assert re.search(r"archive-stamp/lmtp.* conn_use=[2-9]", postfix.log())
    assert len([n for n in range(10) if record_of(postfix, f"many{n}")]) == 10


def test_what_became_of_a_message_gets_into_the_journal_and_it_adds_up() -> None:
    with PrivatePostfix(door="lmtp") as host:
        (host.etc / "routes").write_text("no.example.net error:5.1.1 no such user\n")
        host.postconf(
            smtpd_reject_unlisted_recipient="no",
            transport_maps=f"texthash:{host.etc}/routes",
        )
        host.reload()
        host.send(mail("told"), to=["bob@example.net", "x@no.example.net"])
        host.settle()
        done = host.command("outcomes", "--once")
        assert (done.returncode, done.stderr) == (0, "")
        told = {
            each["recipient"]: each["outcome"]
            for each in host.events()
            if each["event"] == "outcome"
        }
        assert told == {"bob@example.net": "delivered", "x@no.example.net": "failed"}
        done = host.command("reconcile")
        assert done.returncode == 0, done.stdout
        assert re.search(r"^archived +1$", done.stdout, re.M)


def test_a_message_that_is_requeued_while_it_waits_is_archived_once() -> None:
    with PrivatePostfix(door="lmtp") as host:
        launcher = host.program / "archive-lmtp"
        aside = launcher.rename(host.program / "aside")
        sent = host.send(mail("requeued"))
        host.sendmail(mail("local"), sender="a@example.com", to=["bob@example.net"])
        host.wait_for_log("archive-stamp/lmtp.*status=deferred", 2)
        again = ["postsuper", "-c", str(host.etc), "-r", "ALL"]
        subprocess.run(again, check=True, capture_output=True)
        host.wait_for_log("pickup.* orig_id=", 2)
        aside.rename(launcher)
        host.settle()
        for name in ("requeued", "local"):
            assert words(record_of(host, name)) == ["archived", "mailed"]
            assert len(deliveries(host, name, "bob@example.net")) == 1
        assert record_of(host, "requeued").envelope.queue_id == sent.encode()
        assert record_of(host, "requeued").envelope.arrival is not None


def test_a_broken_installation_makes_mail_wait_and_the_log_says_so(
    postfix: PrivatePostfix,
) -> None:
    room = postfix.program / "postfix_archive" / "intake" / "lmtp_worker.py"
    right = room.read_text()
    room.write_text("import nothing_of_that_name\n")
    queue_id = postfix.send(mail("broken"))
    line = line_of(postfix, queue_id)
    assert "status=deferred" in line
    room.write_text(right)
    postfix.settle()
    assert words(record_of(postfix, "broken")) == ["archived", "mailed"]
    assert len(deliveries(postfix, "broken", "bob@example.net")) == 1


def test_a_change_of_the_settings_counts_from_the_next_message_on(
    postfix: PrivatePostfix,
) -> None:
    """No reload, and no message waits: the client opens a new connection."""
    deferred = postfix.log().count("status=deferred")
    postfix.send(mail("before"))
    postfix.settle()
    postfix.set_archive_cf(archive_delivery="store")
    postfix.send(mail("after"))
    postfix.settle()
    postfix.set_archive_cf()
    assert words(record_of(postfix, "before")) == ["archived", "mailed"]
    assert words(record_of(postfix, "after")) == ["archived"]
    assert postfix.log().count("status=deferred") == deferred


def test_an_archive_without_a_service_makes_mail_wait() -> None:
    host = PrivatePostfix(door="lmtp")
    host.postconf(archive="other@example.com")
    with host:
        queue_id = host.send(mail("nobody"))
        assert "No such file or directory" in line_of(host, queue_id)
        assert "status=deferred" in line_of(host, queue_id)
        assert not records(host, "nobody")


POISON = """def filter_message(transaction: Transaction) -> str:
    import os
    if b"This is poison." in b"".join(transaction.message.chunks()):
        os._exit(9)
"""


def test_a_worker_that_dies_in_a_message_holds_up_no_other(
    postfix: PrivatePostfix,
) -> None:
    room = postfix.program / "postfix_archive" / "stamp_filter" / "capture.py"
    right = room.read_text()
    room.write_text(
        right.replace("def filter_message(transaction: Transaction) -> str:\n", POISON)
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
    room.write_text(right)
    postfix.settle()
    for name in ("poison", *names):
        assert words(record_of(postfix, name)) == ["archived", "mailed"]
        assert len(deliveries(postfix, name, "bob@example.net")) == 1


CAPSULES = """
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
    own = re.compile(r"^archive unix .*\n(?:  .*\n)+", re.M)
    [entry] = own.findall(master)
    [(user, program)] = re.findall(r"user=(\S+)\n  argv=(\S+)/archive\n", entry)
    workers = CAPSULES.format(user=user, program=program)
    master = own.sub("", master).replace(
        "content_filter=archive:capsule",
        "content_filter=archive:unix:private/archive.capsule",
    )
    return master + workers


def test_workers_can_be_the_archive_transport_too() -> None:
    by_capsule = {"archive_write_through_time_limit": "0"}
    with PrivatePostfix(
        door="lmtp", edit_master=capsules_by_lmtp, archive_cf=by_capsule
    ) as host:
        content = mail("both") + b"\xff\xfe\0\n" + b"y" * 5000 + b"\n"
        host.send(content)
        host.settle()
        record = record_of(host, "both")
        assert words(record) == ["archived", "mailed"]
        assert original_of(host, record).endswith(
            content.partition(b"\n\n")[2].replace(b"\n", b"\r\n")
        )
        assert delivered(host, "both", "bob@example.net")
        assert re.search("relay=.*capsule.* result=stored[+]mailed", host.log())
        assert "status=deferred" not in host.log()


PAIR = "one@example.com,two@example.com"


def test_several_archives_are_asked_for_by_the_name_of_the_socket() -> None:
    with PrivatePostfix(door="lmtp", archive=PAIR) as host:
        host.send(mail("pair"))
        host.settle()
        assert archives_of(host, "pair") == PAIR.split(",")
        assert len(deliveries(host, "pair", "bob@example.net")) == 1


def test_a_request_from_a_table_is_archived_where_nothing_else_asks() -> None:
    keys = keyring.parse(KEY, path="key")
    wanted = request.make_recipient("table@example.com", keys).decode()
    main = {"content_filter": "archive-stamp:unix:private/archive.on-request"}
    with PrivatePostfix(door="lmtp", archive="", main=main) as host:
        host.send(mail("asked"), to=["bob@example.net", wanted])
        host.send(mail("unasked"))
        host.settle()
        assert archives_of(host, "asked") == ["table@example.com"]
        assert recipients_of(record_of(host, "asked", "table@example.com")) == [
            "bob@example.net"
        ]
        assert archives_of(host, "unasked") == []
        for name in ("asked", "unasked"):
            assert delivered(host, name, "bob@example.net")
