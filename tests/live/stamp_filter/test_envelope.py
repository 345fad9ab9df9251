"""The whole envelope in one record, however Postfix delivers the message."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor

import pytest

from mails import mail, one_delivery, recipients_of, record_of
from private_postfix import ALL_MODES, PrivatePostfix

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=ALL_MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """All modes, and copies that go as capsules, one after the other."""
    return str(request.param)


def test_hundred_bcc_of_two_hundred_stay_blind(postfix: PrivatePostfix) -> None:
    visible = [f"to{n}@example.net" for n in range(100)]
    blind = [f"hidden{n}@example.net" for n in range(100)]
    header = ("To: " + ",\n\t".join(visible) + "\n").encode()
    postfix.send(header + mail("blind"), to=visible + blind)
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "blind")
    assert recipients_of(record) == sorted(visible + blind)
    copy = one_delivery(postfix, "blind", "legal@example.com").content
    assert all(f"Recipient: {each}\n".encode() in copy for each in blind)
    for recipient in ("to0@example.net", "hidden0@example.net"):
        assert b"hidden" not in one_delivery(postfix, "blind", recipient).content


def test_five_thousand_recipients_over_forty_domains_make_one_record(
    postfix: PrivatePostfix,
) -> None:
    recipients = [f"person{n}@domain{n % 40}.example.net" for n in range(5000)]
    postfix.send(mail("crowd"), to=recipients)
    postfix.wait_for_empty_queue()
    assert recipients_of(record_of(postfix, "crowd")) == sorted(recipients)
    delivered_recipients = [
        r
        for d in postfix.deliveries()
        if b"is crowd" in d.content
        for r in d.recipients
    ]
    assert sorted(
        r for r in delivered_recipients if r != "legal@example.com"
    ) == sorted(recipients)


@pytest.mark.parametrize("mode", ["pipe", "native"], indirect=True, scope="module")
def test_four_messages_to_nine_thousand_at_once_make_four_records(
    postfix: PrivatePostfix,
) -> None:
    recipients_by_name = {
        f"crowd{c}": [f"p{n}@c{c}.example.net" for n in range(9000)] for c in range(4)
    }
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda item: postfix.send(mail(item[0]), to=item[1]),
                recipients_by_name.items(),
            )
        )
    postfix.wait_for_empty_queue()
    for name, recipients in recipients_by_name.items():
        assert recipients_of(record_of(postfix, name)) == sorted(recipients)
        delivered_recipients = [
            recipient
            for delivery in postfix.deliveries()
            if b"is %s." % name.encode() in delivery.content
            for recipient in delivery.recipients
            if recipient != "legal@example.com"
        ]
        assert sorted(delivered_recipients) == sorted(recipients)


def test_the_null_sender_stays_null(postfix: PrivatePostfix) -> None:
    postfix.send(mail("bounce"), sender="", to=["bob@example.net"])
    postfix.wait_for_empty_queue()
    assert record_of(postfix, "bounce").envelope.sender == b""
    assert one_delivery(postfix, "bounce", "bob@example.net").sender == ""


ODD_ADDRESSES = [
    "plus+tag@example.net",
    "a=b@example.net",
    '"quoted local"@example.net',
    '"quo\\"te"@example.net',
    '"back\\\\slash"@example.net',
    '"a@b"@example.net',
    "per%cent@example.net",
    '"semi;colon"@example.net',
    "x" * 200 + "@example.net",
    "'apostrophe@example.net",
    "{brace}$dollar`tick|pipe@example.net",
    "UPPER@Example.NET",
]


@pytest.mark.parametrize("address", ODD_ADDRESSES)
def test_odd_addresses_arrive_and_are_recorded_exactly(
    postfix: PrivatePostfix, address: str
) -> None:
    name = f"odd{ODD_ADDRESSES.index(address)}"
    postfix.send(mail(name), sender=address, to=[address])
    postfix.wait_for_empty_queue()
    record = record_of(postfix, name)
    assert recipients_of(record) == [address]
    assert record.envelope.sender.decode() == address
    [delivery] = [
        d
        for d in postfix.deliveries()
        if f"is {name}.".encode() in d.content and "legal" not in d.recipients[0]
    ]
    assert (delivery.sender, delivery.recipients) == (address, (address,))


def test_addresses_that_begin_with_a_dash_pass_where_the_host_allows_them(
    mode: str,
) -> None:
    with PrivatePostfix(mode=mode, main={"allow_min_user": "yes"}) as postfix:
        postfix.send(mail("dash"), sender="-s@example.org", to=["-dash@example.net"])
        postfix.wait_for_empty_queue()
        record = record_of(postfix, "dash")
        assert recipients_of(record) == ["-dash@example.net"]
        assert record.envelope.sender == b"-s@example.org"
        [delivery] = postfix.delivered_to("-dash@example.net")
        assert delivery.sender == "-s@example.org"


def test_utf8_addresses_keep_smtputf8_until_delivery(postfix: PrivatePostfix) -> None:
    postfix.send(
        mail("utf8"),
        sender="ålice@exämple.org",
        to=["bøb@example.net"],
        options=("SMTPUTF8", "BODY=8BITMIME"),
    )
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "utf8")
    assert recipients_of(record) == ["bøb@example.net"]
    assert record.envelope.sender.decode() == "ålice@exämple.org"
    copy = gzip.decompress(
        (postfix.store / "legal@example.com" / record.files[0]).read_bytes()
    )
    assert "Final-Recipient: utf-8; bøb@example.net\r\n".encode() in copy
    [delivery] = postfix.delivered_to("bøb@example.net")
    assert b"with UTF8SMTP" in delivery.content.partition(b"Archive-Stamp")[0]


def test_the_real_client_is_in_the_report(postfix: PrivatePostfix) -> None:
    postfix.send(mail("client"), helo="laptop.example.org")
    postfix.wait_for_empty_queue()
    client = record_of(postfix, "client").envelope.client
    assert client.address == b"127.0.0.1"
    assert client.helo == b"laptop.example.org"
    assert client.protocol == b"ESMTP"
    assert client.port.isdigit()


def test_the_first_queue_id_and_arrival_are_in_the_report(
    postfix: PrivatePostfix, mode: str
) -> None:
    queue_id = postfix.send(mail("queueid"))
    postfix.wait_for_empty_queue()
    envelope = record_of(postfix, "queueid").envelope
    assert envelope.queue_id.decode() == queue_id
    assert envelope.arrival is not None
    assert envelope.archive_id[:8].isdigit()
    is_reinjected = f"orig_queue_id={queue_id}" in postfix.log()
    assert is_reinjected == (mode != "native")


def test_mail_from_sendmail_is_archived_as_well(postfix: PrivatePostfix) -> None:
    process = postfix.sendmail(
        mail("local"), sender="alice@example.org", to=["bob@example.net"]
    )
    assert process.returncode == 0
    postfix.wait_for_log("archive-(stamp|capture).*id=")
    postfix.wait_for_empty_queue()
    record = record_of(postfix, "local")
    assert recipients_of(record) == ["bob@example.net"]
    assert record.envelope.client.address == b""
