"""Once and only once: forwarding, lists, second hosts, filters and loops."""

from __future__ import annotations

import email
import gzip
import json
import re
from collections.abc import Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from postfix_archive.message import keyring, stamp
from postfix_archive.store import record_reader

from mails import (
    LEGAL,
    deliveries,
    event_kinds,
    mail,
    one_delivery,
    recipients_of,
    record_of,
    records,
)
from private_postfix import MODES_AND_CAPSULE, Client, PrivatePostfix, free_ports

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=MODES_AND_CAPSULE)
def mode(request: pytest.FixtureRequest) -> str:
    """Both modes, and copies that go as capsules, one after the other."""
    return str(request.param)


def send_and_get_stamped(postfix: PrivatePostfix, name: str) -> bytes:
    """Send a message through the host; return it as it was passed on."""
    postfix.send(mail(name))
    postfix.wait_for_empty_queue()
    return one_delivery(postfix, name, "bob@example.net").content


# --- mail forwarded inside Postfix ------------------------------------------------


@pytest.fixture(scope="module")
def local_delivery_host(mode: str) -> Iterator[PrivatePostfix]:
    """An instance with local aliases and a .forward file."""
    postfix = PrivatePostfix(
        mode=mode,
        main={"mydestination": "example.com", "archive": "legal@example.net"},
    )
    (postfix.etc / "aliases").write_text("team: bob@example.net, carol@example.net\n")
    (postfix.etc / "forward").mkdir()
    (postfix.etc / "forward" / "nobody").write_text("dave@example.net\n")
    postfix.postconf(
        alias_maps=f"texthash:{postfix.etc}/aliases",
        forward_path=f"{postfix.etc}/forward/$user",
    )
    (postfix.etc / "aliases").write_text("team bob@example.net, carol@example.net\n")
    with postfix:
        yield postfix


@pytest.mark.parametrize("to", ["team@example.com", "nobody@example.com"])
def test_mail_forwarded_inside_postfix_makes_no_second_copy(
    local_delivery_host: PrivatePostfix, to: str
) -> None:
    name = to.partition("@")[0]
    local_delivery_host.send(mail(name), to=[to])
    local_delivery_host.wait_for_empty_queue()
    forwarded = "bob@example.net" if name == "team" else "dave@example.net"
    assert (
        b"Archive-Stamp:" in one_delivery(local_delivery_host, name, forwarded).content
    )
    [record] = records(local_delivery_host, name, "legal@example.net")
    assert event_kinds(record) == ["archived", "mailed"]


# --- mail that comes back ------------------------------------------------------------


def test_stamped_mail_from_a_list_adds_a_supplement(postfix: PrivatePostfix) -> None:
    passed_on = send_and_get_stamped(postfix, "listed")
    postfix.send(
        b"List-Id: <news.example.net>\nX-Added: above\n" + passed_on,
        sender="list-bounces@example.net",
        to=["erin@example.net", "frank@example.net"],
    )
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "listed")
    assert event_kinds(record) == ["archived", "mailed", "supplement"]
    first, again = record.passes
    assert [each.final for each in first.recipients.values()] == [b"bob@example.net"]
    assert recipients_of(record) == [
        "bob@example.net",
        "erin@example.net",
        "frank@example.net",
    ]
    assert again.envelope.sender == b"list-bounces@example.net"
    above = record.events[2]["above"]
    assert "List-Id: <news.example.net>\r\nX-Added: above\r\n" in above
    assert "list-bounces@example.net" in record.events[2]["envelope"]
    assert len(deliveries(postfix, "listed", LEGAL)) == 1
    second = one_delivery(postfix, "listed", "erin@example.net").content
    assert second.count(b"Archive-Stamp:") == 1


def test_who_sends_a_stamped_message_again_is_told_from_who_sent_it_first(
    postfix: PrivatePostfix,
) -> None:
    """To whom the first sender wrote, list, show, JSON and the report tell apart."""
    passed_on = send_and_get_stamped(postfix, "sent-again")
    postfix.send(
        b"Subject: as if from you\n" + passed_on,
        sender="mallory@example.org",
        to=["erin@example.net", "frank@example.net"],
    )
    postfix.wait_for_empty_queue()
    assert postfix.run_command("outcomes", "--once").returncode == 0
    record = record_of(postfix, "sent-again")
    listing = postfix.run_command("list", "--json").stdout.splitlines()
    [shown] = [e for e in map(json.loads, listing) if e["id"] == record.archive_id]
    [again] = shown["passes"]
    assert shown["recipients"] == ["bob@example.net"]
    assert shown["outcomes"] == {"delivered": 1}
    assert again["sender"] == "mallory@example.org"
    assert again["recipients"] == ["erin@example.net", "frank@example.net"]
    assert again["outcomes"] == {"delivered": 2}
    assert "Subject: as if from you" in again["lines_above"]
    lines = postfix.run_command("list").stdout.splitlines()
    [number] = [n for n, e in enumerate(lines) if e.startswith(record.archive_id)]
    assert "bob@example.net  (" in lines[number] and "mallory" not in lines[number]
    assert "mallory@example.org -> erin@example.net +1  (" in lines[number + 1]
    page = postfix.run_command("show", record.archive_id).stdout
    first_part, _, second_part = page.partition("Again:")
    assert "erin" not in first_part and "mallory" not in first_part
    assert "  Sender:      mallory@example.org\n" in second_part
    assert "  Line above:  Subject: as if from you\n" in second_part
    assert "    erin@example.net\n" in second_part
    report = postfix.run_command("show", "--outcome", record.archive_id).stdout
    before, _, after = report.partition("It was sent again")
    assert "<erin@example.net>" not in before
    assert "Sender: mallory@example.org" in after.partition("<erin@example.net>")[0]
    assert report.count("Archive-Sender: rfc822; mallory@example.org") == 2


def test_all_lines_above_the_stamp_stand_in_the_supplement(
    postfix: PrivatePostfix,
) -> None:
    passed_on = send_and_get_stamped(postfix, "above")
    postfix.send(b"Subject: another\n" + passed_on, to=["erin@example.net"])
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "above")
    content = one_delivery(postfix, "above", "erin@example.net").content
    received = content[
        content.index(b"Received:", 1) :
    ]  # below the line of the last hop
    expected = received[: received.index(b"Archive-Stamp:")]
    assert record.events[-1]["above"].replace("\r\n", "\n").encode() == expected


def test_altered_mail_is_archived_in_full_again(postfix: PrivatePostfix) -> None:
    passed_on = send_and_get_stamped(postfix, "footer")
    postfix.send(passed_on + b"-- \na list footer\n", to=["erin@example.net"])
    postfix.wait_for_empty_queue()
    first, second = records(postfix, "footer")
    assert second.events[0]["stamp"] == "altered"
    copy = gzip.decompress((postfix.store / LEGAL / second.files[0]).read_bytes())
    assert b"stamp=altered; id=" + first.archive_id.encode() in copy
    assert b"a list footer\r\n" in copy
    assert len(deliveries(postfix, "footer", LEGAL)) == 2


def test_show_lists_the_passes_that_a_list_manager_has_changed(
    postfix: PrivatePostfix,
) -> None:
    """By Message-ID, also of mail that came unstamped, and no other mail."""
    post = b"Message-ID: <post@example.org>\n" + mail("post")
    for content in (post, post + b"-- \nfooter\n", mail("no post")):
        postfix.send(content)
    postfix.wait_for_empty_queue()
    first, second = records(postfix, "post")
    for one, other in ((first, second), (second, first)):
        page = postfix.run_command("show", "--passes", one.archive_id).stdout
        passes = [e for e in page.splitlines() if e.startswith("Same Message-ID: ")]
        assert [each.split()[2] for each in passes] == [other.archive_id]
    plain = postfix.run_command("show", first.archive_id).stdout
    assert second.archive_id not in plain


def test_a_stamp_copied_to_another_mail_hides_nothing(postfix: PrivatePostfix) -> None:
    passed_on = send_and_get_stamped(postfix, "donor")
    match = re.search(rb"Archive-Stamp:.*?h=\S+\n", passed_on, re.DOTALL)
    assert match
    postfix.send(match[0] + mail("thief"), to=["erin@example.net"])
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "thief")
    assert record.events[0]["stamp"] == "altered"


def test_a_forged_stamp_hides_nothing(postfix: PrivatePostfix) -> None:
    foreign = keyring.parse("test " + "ff" * 32, path="forger").current
    forged = stamp.make("20260101-" + "0" * 40, "0" * 16, b"\0" * 32, 1, foreign)
    postfix.send(forged + mail("forger"), to=["erin@example.net"])
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "forger")
    assert record.events[0]["stamp"] == "forged"
    assert len(deliveries(postfix, "forger", LEGAL)) == 1


def test_a_stamp_whose_id_is_not_in_the_store_hides_nothing(
    postfix: PrivatePostfix,
) -> None:
    passed_on = send_and_get_stamped(postfix, "lost")
    record = record_of(postfix, "lost")
    (postfix.store / LEGAL / record.files[0]).unlink()
    postfix.send(passed_on, to=["erin@example.net"])
    postfix.wait_for_empty_queue()
    archived = [e for e in postfix.events() if e["event"] == "archived"]
    with_same_id = [e for e in archived if e["id"] == record.archive_id]
    assert [e["stamp"] for e in with_same_id] == ["absent", "valid"]
    copy = gzip.decompress((postfix.store / LEGAL / record.files[0]).read_bytes())
    assert b"which was not in this store" in copy
    assert b"This is lost.\r\n" in copy


def relay(first: PrivatePostfix, second: PrivatePostfix, name: str) -> None:
    """Send through both hosts; the second gets it when the first has archived it."""
    first.postconf(default_transport=f"smtp:[127.0.0.1]:{second.smtp_port}")
    first.postconf(defer_transports="smtp", smtp_host_lookup="native")
    first.reload()
    first.send(mail(name))
    first.wait(lambda: records(first, name), "the first host has archived it")
    first.postconf(defer_transports="")
    first.reload()
    first.flush()
    first.wait_for_empty_queue()
    second.wait_for_empty_queue()


def test_a_second_host_with_the_same_key_and_store_adds_a_supplement() -> None:
    with PrivatePostfix(archive_cf={"archive_delivery": "store"}) as first:
        other = {"myhostname": "two.example.com"}
        with PrivatePostfix(
            main=other,
            archive_cf={"archive_delivery": "store", **other},
            store=first.store,
        ) as second:
            relay(first, second, "relayed")
            record = record_of(first, "relayed")
            assert event_kinds(record) == ["archived", "supplement"]
            one_delivery(second, "relayed", "bob@example.net")


def test_a_second_host_with_a_store_of_its_own_archives_in_full() -> None:
    with PrivatePostfix(archive_cf={"archive_delivery": "store"}) as first:
        other = {"myhostname": "two.example.com"}
        with PrivatePostfix(
            main=other, archive_cf={"archive_delivery": "store", **other}
        ) as second:
            relay(first, second, "relayed")
            [first_record], [second_record] = records(first, "relayed"), records(
                second, "relayed"
            )
            assert first_record.archive_id == second_record.archive_id
            assert second_record.events[0]["stamp"] == "valid"


@pytest.mark.parametrize("has_copy_first", [True, False])
def test_a_second_host_archives_and_mails_alike_in_whichever_order_mail_and_copy_come(
    has_copy_first: bool,
) -> None:
    """Two hosts with one key, each with a store; the second has the archive mailbox."""
    domain = "example.com" if has_copy_first else "example.net"
    other = {"myhostname": "two.example.com"}
    with PrivatePostfix(main=other, archive_cf=other) as second:
        nexthop = f"[127.0.0.1]:{second.smtp_port}"
        transports = [
            "archive-request.invalid=archive-stamp:on-request",
            f"{domain}=smtp:{nexthop}",
        ]
        with PrivatePostfix(
            master="later unix - - n - - smtp\n",
            main={
                "transport_maps": f"inline:{{{', '.join(transports)}}}",
                "default_transport": f"later:{nexthop}",
                "defer_transports": "later",
            },
        ) as first:
            first.send(mail("relayed"))
            second.wait(lambda: records(second, "relayed"), "one of two has come")
            second.wait_for_empty_queue()
            first.postconf(defer_transports="")
            first.reload()
            first.flush()
            first.wait_for_empty_queue()
            second.wait_for_empty_queue()
            by_sender = {
                each.envelope.sender: each for each in records(second, "relayed")
            }
            expected = {b"alice@example.org", *([b""] if has_copy_first else [])}
            assert set(by_sender) == expected  # a copy is a message of its own
            record = by_sender[b"alice@example.org"]
            assert record.archive_id == record_of(first, "relayed").archive_id
            one_delivery(second, "relayed", "bob@example.net")
            assert len(deliveries(second, "relayed", LEGAL)) == 2  # one of each host
            assert second.run_command("verify").returncode == 0


# --- mail that leaves as a copy and comes back ---------------------------------------


@pytest.fixture(scope="module")
def forwarding_host() -> Iterator[PrivatePostfix]:
    """An instance whose archive mailbox lies on a second host that forwards it back."""
    archive_lines = "archive-request.invalid=archive-stamp:on-request"
    with PrivatePostfix(archive_cf={"archive_outcome_mail": "yes"}) as first:
        body_checks = "/^(This is altered)/ REPLACE $1 by the forwarder"
        mailbox = PrivatePostfix(
            archive="",
            main={
                "myhostname": "mailbox.example.net",
                "default_transport": f"smtp:[127.0.0.1]:{first.smtp_port}",
                "virtual_alias_maps": "inline:{box@mbox.example.net=kept@example.net}",
                "receive_override_options": "",
            },
        )
        (mailbox.etc / "body_checks").write_text(body_checks)
        mailbox.postconf(body_checks=f"regexp:{mailbox.etc}/body_checks")
        with mailbox:
            nexthop = f"smtp:[127.0.0.1]:{mailbox.smtp_port}"
            first.postconf(
                virtual_alias_maps=f"inline:{{{LEGAL}=box@mbox.example.net}}",
                transport_maps=f"inline:{{{archive_lines},"
                f" mbox.example.net={nexthop}}}",
            )
            first.reload()
            yield first


def send_around_and_back(postfix: PrivatePostfix, name: str) -> None:
    """Send a message; return when its copy has come back and been delivered."""
    postfix.send(mail(name))
    postfix.wait(lambda: postfix.delivered_to("kept@example.net"), "the copy is back")
    postfix.wait_for_empty_queue()


def test_an_archive_copy_mailed_back_to_this_host_starts_no_loop(
    forwarding_host: PrivatePostfix,
) -> None:
    send_around_and_back(forwarding_host, "returning")
    record = record_of(forwarding_host, "returning")
    assert event_kinds(record) == ["archived", "mailed", "supplement"]
    assert len(forwarding_host.delivered_to("kept@example.net")) == 1


def test_a_reply_to_a_copy_is_archived_and_not_mailed(
    postfix: PrivatePostfix,
) -> None:
    """As a responder on the archive mailbox sends it, to whoever From: names."""
    postfix.send(mail("answered"))
    postfix.wait_for_empty_queue()
    [copy] = deliveries(postfix, "answered", LEGAL)
    message = email.message_from_bytes(copy.content)
    assert message["Precedence"] == "bulk"
    assert message["X-Auto-Response-Suppress"] == "All"
    answer = f"In-Reply-To: {message['Message-Id']}\n".encode() + mail("an answer")
    postfix.send(answer, sender=LEGAL, to=[message["From"]])
    postfix.wait_for_empty_queue()
    assert event_kinds(record_of(postfix, "an answer")) == ["archived"]
    assert not deliveries(postfix, "an answer", LEGAL)


def test_an_archive_copy_that_comes_back_altered_is_archived_and_starts_no_loop(
    forwarding_host: PrivatePostfix,
) -> None:
    before = len(forwarding_host.delivered_to("kept@example.net"))
    forwarding_host.send(b"Subject: altered\n\nThis is altered\n")
    forwarding_host.wait(
        lambda: len(forwarding_host.delivered_to("kept@example.net")) > before,
        "the altered copy is back",
    )
    forwarding_host.wait_for_empty_queue()
    archived = [e for e in forwarding_host.events() if e["event"] == "archived"]
    assert [e["stamp"] for e in archived[-2:]] == ["absent", "altered"]
    assert len(forwarding_host.delivered_to("kept@example.net")) == before + 1


def test_an_outcome_report_mailed_back_to_this_host_starts_no_loop(
    forwarding_host: PrivatePostfix,
) -> None:
    before = len(forwarding_host.delivered_to("kept@example.net"))
    forwarding_host.send(mail("reported"))
    forwarding_host.wait(
        lambda: len(forwarding_host.delivered_to("kept@example.net")) > before,
        "the copy is back",
    )
    forwarding_host.wait_for_empty_queue()
    for _ in range(4):
        process = forwarding_host.run_command("outcomes", "--once")
        assert (process.returncode, process.stderr) == (0, "")
        forwarding_host.wait_for_empty_queue()
    forwarding_host.wait(
        lambda: any(
            b"Subject: Outcome: reported" in delivery.content
            for delivery in forwarding_host.delivered_to("kept@example.net")
        ),
        "the report is back",
    )
    archived = [e["event"] for e in forwarding_host.events()].count("archived")
    forwarding_host.run_command("outcomes", "--once")
    forwarding_host.wait_for_empty_queue()
    assert (
        sum(
            b"Subject: Outcome: reported" in e.content
            for e in forwarding_host.delivered_to("kept@example.net")
        )
        == 1
    )
    kinds = event_kinds(record_of(forwarding_host, "reported"))
    assert kinds.count("archived") == kinds.count("outcome-mailed") == 1
    assert [e["event"] for e in forwarding_host.events()].count("archived") == archived


# --- a content filter behind ours -----------------------------------------------------


class StampingFilter:
    """A content filter that speaks SMTP on both sides and adds a header on top."""

    def __init__(self, next_port: int) -> None:
        self.next_port = next_port

    async def handle_DATA(self, _: object, __: object, envelope: Envelope) -> str:
        """Give the message back to Postfix behind the filter."""
        with Client(self.next_port) as client:
            client.send(
                b"X-Filtered: yes\n" + (envelope.original_content or b""),
                sender=envelope.mail_from or "",
                to=envelope.rcpt_tos,
            )
        return "250 filtered"


@pytest.fixture(scope="module")
def next_filter_host(mode: str) -> Iterator[PrivatePostfix]:
    """An instance with an advanced content filter (FILTER_README) behind ours."""
    filter_port, back_port = free_ports(2)
    controller = Controller(
        StampingFilter(back_port), hostname="127.0.0.1", port=filter_port
    )
    controller.start()
    postfix = PrivatePostfix(
        mode=mode,
        main={"archive_next_filter": f"smtp:[127.0.0.1]:{filter_port}"},
        master=f"127.0.0.1:{back_port} inet n - n - - smtpd\n"
        "  -o content_filter=\n  -o receive_override_options=no_address_mappings\n",
    )
    with postfix:
        yield postfix
    controller.stop()


def test_a_content_filter_behind_the_archive_makes_no_second_copy(
    next_filter_host: PrivatePostfix,
) -> None:
    next_filter_host.send(mail("filtered"))
    next_filter_host.wait_for_empty_queue()
    record = record_of(next_filter_host, "filtered")
    assert event_kinds(record) == ["archived", "mailed"]
    assert (
        b"X-Filtered: yes\n"
        in one_delivery(next_filter_host, "filtered", "bob@example.net").content
    )
    original = b"".join(record_reader.original(str(next_filter_host.store), record))
    assert b"X-Filtered" not in original
    [copy] = next_filter_host.delivered_to(LEGAL)
    assert b"X-Filtered" not in copy.content


def test_stamped_mail_that_comes_by_sendmail_makes_no_second_copy(
    postfix: PrivatePostfix,
) -> None:
    """As simple content filters (FILTER_README) and list managers re-inject it."""
    process = postfix.sendmail(
        send_and_get_stamped(postfix, "injected"),
        sender="list@example.net",
        to=["gina@example.net"],
    )
    assert process.returncode == 0
    postfix.wait(lambda: postfix.delivered_to("gina@example.net"), "it is delivered")
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "injected")
    assert event_kinds(record) == ["archived", "mailed", "supplement"]
