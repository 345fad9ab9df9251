"""Address mappings work as on the same host without an archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest

from postfix_archive.store import record_reader

from private_postfix import PrivatePostfix, free_ports

pytestmark = pytest.mark.live

MAPPING_PARAMETERS = {
    "myorigin": "$mydomain",
    "virtual_alias_maps": "inline:{sales@example.net=bob@example.net, "
    "sales=bob@example.net, "
    "help@example.net=bob@example.net}",
    "recipient_canonical_maps": "inline:{old@example.net=new@example.net}",
    "sender_canonical_maps": "inline:{alice@internal.example.org=alice@example.org}",
    "always_bcc": "everything@example.net",
    "sender_bcc_maps": "inline:{boss@example.org=assistant@example.net}",
    "recipient_bcc_maps": "inline:{new@example.net=shadow@example.net}",
    "local_header_rewrite_clients": "permit_inet_interfaces",
}
# Native mode needs recipient_bcc_maps for itself: such a copy is an alias there.
NATIVE_PARAMETERS = {
    **MAPPING_PARAMETERS,
    "virtual_alias_maps": MAPPING_PARAMETERS["virtual_alias_maps"].removesuffix("}")
    + ", {new@example.net=new@example.net,shadow@example.net}}",
}
del NATIVE_PARAMETERS["recipient_bcc_maps"]


@pytest.fixture(scope="module", params=["pipe", "native"])
def mode(request: pytest.FixtureRequest) -> str:
    """With address mappings at the last hop, and with one hop."""
    return str(request.param)


@pytest.fixture(scope="module")
def parameters(mode: str) -> dict[str, str]:
    """The maps of both hosts."""
    return NATIVE_PARAMETERS if mode == "native" else MAPPING_PARAMETERS


@pytest.fixture(scope="module")
def archiving_host(mode: str, parameters: dict[str, str]) -> Iterator[PrivatePostfix]:
    """An instance with an archive and many maps."""
    with PrivatePostfix(mode=mode, main=parameters) as running:
        yield running


@pytest.fixture(scope="module")
def plain_host(parameters: dict[str, str]) -> Iterator[PrivatePostfix]:
    """The same without an archive."""
    without_archive = {"receive_override_options": "", **parameters}
    with PrivatePostfix(main=without_archive, archive="") as running:
        yield running


def delivered_values(
    postfix: PrivatePostfix, name: str
) -> list[tuple[str, str, str, bytes]]:
    """Everybody who got that message: sender, recipient, original recipient, header."""
    return sorted(
        (delivery.sender, recipient, original, shared_header(delivery.content))
        for delivery in postfix.deliveries()
        for recipient, original in zip(delivery.recipients, delivery.originals)
        if f"Subject: {name}\n".encode() in delivery.content
        and recipient != "legal@example.com"
    )


def shared_header(content: bytes) -> bytes:
    """The header without what differs between any two runs, and without the stamp."""
    header = content.partition(b"\n\n")[0] + b"\n"
    name = rb"(?:Received|Archive-Stamp|Date|Message-Id)"
    return re.sub(rb"(?m)^" + name + rb":.*\n(?:[ \t].*\n)*", b"", header)


@pytest.mark.parametrize(
    ("name", "sender", "to"),
    [
        ("plain", "alice@example.org", ["bob@example.net"]),
        ("alias", "alice@example.org", ["sales@example.net"]),
        ("twoaliases", "alice@example.org", ["sales@example.net", "help@example.net"]),
        ("canonical", "alice@internal.example.org", ["old@example.net"]),
        ("senderbcc", "boss@example.org", ["carol@example.net"]),
        ("nullsender", "", ["sales@example.net"]),
    ],
)
def test_everybody_gets_what_they_got_without_an_archive(
    archiving_host: PrivatePostfix,
    plain_host: PrivatePostfix,
    name: str,
    sender: str,
    to: list[str],
) -> None:
    content = (
        f"From: alice@internal.example.org\nTo: old@example.net\nSubject: {name}\n\nx\n"
    ).encode()
    for postfix in (archiving_host, plain_host):
        postfix.send(content, sender=sender, to=to)
        postfix.wait_for_empty_queue()
    assert delivered_values(archiving_host, name) == delivered_values(plain_host, name)
    assert len(delivered_values(plain_host, name)) >= 2  # always_bcc is one of them


@pytest.mark.parametrize(
    "to", ["old@example.net", "sales", "bob", "bob+x", '"a b"', "bob@mail.example.com"]
)
def test_mail_from_sendmail_gets_what_it_got_without_an_archive(
    archiving_host: PrivatePostfix, plain_host: PrivatePostfix, to: str
) -> None:
    """Names without a domain, as cron(8) uses them, stay the original recipients."""
    name = f"cron for {to}"
    content = f"From: alice@internal.example.org\nTo: old\nSubject: {name}\n\nx\n"
    for postfix in (archiving_host, plain_host):
        postfix.sendmail(content.encode(), sender="boss@example.org", to=[to])
        postfix.wait(partial(delivered_values, postfix, name), "it is delivered")
        postfix.wait_for_empty_queue()
    values = delivered_values(plain_host, name)
    assert to in [original for _, _, original, _ in values]
    assert delivered_values(archiving_host, name) == values


def test_the_archive_has_the_addresses_that_the_client_sent(
    archiving_host: PrivatePostfix,
) -> None:
    archiving_host.send(b"Subject: said\n\nx\n", to=["sales@example.net"])
    archiving_host.wait_for_empty_queue()
    matching_records = [
        record
        for record in record_reader.records(
            str(archiving_host.store), "legal@example.com"
        )
        if b"Subject: said"
        in record_reader.original_head(str(archiving_host.store), record)
    ]
    [record] = matching_records
    final_recipients = [each.final for each in record.recipients.values()]
    assert final_recipients == [b"sales@example.net"]


def test_archive_copies_go_to_the_archive_alone(archiving_host: PrivatePostfix) -> None:
    archiving_host.send(b"Subject: alone\n\nx\n", to=["bob@example.net"])
    archiving_host.wait_for_empty_queue()
    copies = [
        d for d in archiving_host.deliveries() if b"multipart/report" in d.content
    ]
    assert copies
    assert {r for d in copies for r in d.recipients} == {"legal@example.com"}


def test_aliases_keep_x_original_to() -> None:
    with PrivatePostfix(main=MAPPING_PARAMETERS) as postfix:
        text = (postfix.etc / "master.cf").read_text()
        (postfix.etc / "master.cf").write_text(
            text.replace(
                "flags=q user=nobody:nogroup null_sender=\n  argv="
                + str(postfix.directory / "sink.py"),
                "flags=qO user=nobody:nogroup null_sender=\n  argv="
                + str(postfix.directory / "sink.py"),
            )
        )
        postfix.postconf(sink_destination_recipient_limit="1")
        postfix.reload()
        postfix.send(
            b"Subject: both\n\nx\n", to=["sales@example.net", "help@example.net"]
        )
        postfix.wait_for_empty_queue()
        contents = [d.content for d in postfix.delivered_to("bob@example.net")]
        for alias in (b"sales", b"help"):
            assert sum(b"X-Original-To: " + alias in each for each in contents) == 1


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("always_bcc", "gone@fails.example.net"),
        ("sender_bcc_maps", "inline:{alice@example.org=gone@fails.example.net}"),
        ("recipient_bcc_maps", "inline:{bob@example.net=gone@fails.example.net}"),
    ],
)
def test_a_bcc_address_of_the_host_that_fails_stays_silent(
    parameter: str, value: str
) -> None:
    failing = {
        parameter: value,
        "transport_maps": "inline:{archive-request.invalid=archive-stamp:on-request, "
        "{fails.example.net=error:5.1.1 no such user}}",
    }
    with PrivatePostfix(main=failing) as postfix:
        postfix.send(b"Subject: silent\n\nx\n")
        postfix.wait_for_log("to=<gone@fails.example.net>.*status=bounced")
        postfix.wait_for_empty_queue()
        assert not postfix.delivered_to("alice@example.org")
        assert postfix.delivered_to("bob@example.net")


def test_where_the_host_maps_at_the_first_hop_both_addresses_are_recorded() -> None:
    first_hop = {
        "receive_override_options": "",
        "archive_handback_options": "no_address_mappings,no_unknown_recipient_checks,"
        "no_header_body_checks,no_milters",
        "virtual_alias_maps": MAPPING_PARAMETERS["virtual_alias_maps"],
    }
    with PrivatePostfix(main=first_hop) as postfix:
        postfix.send(b"Subject: expanded\n\nx\n", to=["sales@example.net"])
        postfix.wait_for_empty_queue()
        [copy] = postfix.delivered_to("legal@example.com")
        expected = b"Recipient: bob@example.net, Expanded: sales@example.net\n"
        assert expected in copy.content
        assert b"Original-Recipient: rfc822; sales@example.net\n" in copy.content
        assert len(postfix.delivered_to("bob@example.net")) == 1


@pytest.mark.parametrize("file_name", ["main.cf", "master.cf"])
def test_where_nothing_is_archived_addresses_are_mapped_as_ever(file_name: str) -> None:
    [port_without_archive] = free_ports(1)
    services = f"127.0.0.1:{port_without_archive} inet n - n - - smtpd\n  -o archive=\n"
    archive = "" if file_name == "main.cf" else "legal@example.com"
    with PrivatePostfix(
        main=MAPPING_PARAMETERS, archive=archive, master=services
    ) as postfix:
        port = postfix.smtp_port if file_name == "main.cf" else port_without_archive
        postfix.send(b"Subject: off\n\nx\n", to=["sales@example.net"], port=port)
        postfix.wait_for_empty_queue()
        assert len(postfix.delivered_to("bob@example.net")) == 1
        assert len(postfix.delivered_to("everything@example.net")) == 1
        assert not postfix.stored_files()
