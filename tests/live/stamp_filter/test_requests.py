"""Where requests come from: main.cf, master.cf, tables; a message has the union."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postfix_archive.message import keyring, request

from mails import (
    archives_of,
    deliveries,
    mail,
    one_delivery,
    recipients_of,
    record_of,
)
from private_postfix import (
    ALL_MODES,
    KEY,
    MODES_AND_CAPSULE,
    PrivatePostfix,
    free_ports,
)

pytestmark = pytest.mark.live
PORTS: dict[str, int] = {}
BEFORE_NEXTHOP = {"pipe": "", "lmtp": "unix:private/archive.", "capsule": ""}
STAMPS = {"native": 0}  # on what is delivered; else one for each archive
KEYS = keyring.parse(KEY, path="test")


def request_recipient_of(address: str) -> str:
    """What ARCHIVE address in a table is compiled to."""
    return "BCC " + request.make_recipient(address, KEYS).decode()


@pytest.fixture(scope="module", params=ALL_MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """All modes, and copies that go as capsules, one after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def many_requests_host(mode: str) -> Iterator[PrivatePostfix]:
    """An instance with requests from everywhere, and services that say otherwise."""
    other_port, off_port, two_port, bypass_port = free_ports(4)
    postfix = PrivatePostfix(
        mode=mode,
        master=f"127.0.0.1:{other_port} inet n - n - - smtpd\n"
        "  -o archive=other@example.com\n"
        f"127.0.0.1:{off_port} inet n - n - - smtpd\n  -o archive=\n"
        f"127.0.0.1:{two_port} inet n - n - - smtpd\n"
        "  -o archive=one@example.com,two@example.com\n"
        f"127.0.0.1:{bypass_port} inet n - n - - smtpd\n"
        "  -o content_filter=\n  -o smtpd_banner=filter.example.net\n"
        "  -o receive_override_options=no_header_body_checks\n",
        edit_master=lambda text: text.replace(
            "pickup unix n - n 1 1 pickup",
            "pickup unix n - n 1 1 pickup\n  -o archive=local@example.com",
        ),
    )
    PORTS.update(other=other_port, off=off_port, two=two_port)
    (postfix.etc / "senders").write_text(
        f"carol@example.org {request_recipient_of('hr@example.com')}\n"
    )
    (postfix.etc / "headers").write_text(
        f"/^Subject: contract/ {request_recipient_of('contracts@example.com')}\n"
        f"/^Subject: around/ FILTER smtp:[127.0.0.1]:{bypass_port}\n"
    )
    (postfix.etc / "bodies").write_text(
        f"/merger/ {request_recipient_of('board@example.com')}\n"
    )
    postfix.postconf(
        smtpd_sender_restrictions=f"check_sender_access texthash:{postfix.etc}/senders",
        header_checks=f"regexp:{postfix.etc}/headers",
        body_checks=f"regexp:{postfix.etc}/bodies",
    )
    with postfix:
        yield postfix


def test_a_service_archives_elsewhere(many_requests_host: PrivatePostfix) -> None:
    many_requests_host.send(mail("elsewhere"), port=PORTS["other"])
    many_requests_host.wait_for_empty_queue()
    assert archives_of(many_requests_host, "elsewhere") == ["other@example.com"]


def test_a_service_archives_to_two(many_requests_host: PrivatePostfix) -> None:
    many_requests_host.send(mail("twice"), port=PORTS["two"])
    many_requests_host.wait_for_empty_queue()
    assert archives_of(many_requests_host, "twice") == [
        "one@example.com",
        "two@example.com",
    ]


def test_a_service_does_not_archive(many_requests_host: PrivatePostfix) -> None:
    many_requests_host.send(mail("off"), port=PORTS["off"])
    many_requests_host.wait_for_empty_queue()
    assert archives_of(many_requests_host, "off") == []
    content = one_delivery(many_requests_host, "off", "bob@example.net").content
    assert b"Archive-Stamp" not in content


def test_pickup_archives_where_its_service_is_configured_to(
    many_requests_host: PrivatePostfix,
) -> None:
    many_requests_host.sendmail(
        mail("pickup"), sender="alice@example.org", to=["bob@example.net"]
    )
    many_requests_host.wait(
        lambda: archives_of(many_requests_host, "pickup"), "it is archived"
    )
    many_requests_host.wait_for_empty_queue()
    assert archives_of(many_requests_host, "pickup") == ["local@example.com"]


def test_three_different_requests_make_three_copies_one_an_archive(
    many_requests_host: PrivatePostfix, mode: str
) -> None:
    content = mail("contract") + b"about the merger\n"
    many_requests_host.send(content, sender="carol@example.org")
    many_requests_host.wait_for_empty_queue()
    expected = ["board@example.com", "contracts@example.com", "hr@example.com"]
    assert archives_of(many_requests_host, "contract") == sorted(
        [*expected, "legal@example.com"]
    )
    for archive in expected:
        assert one_delivery(many_requests_host, "contract", archive).sender == ""
    content = one_delivery(many_requests_host, "contract", "bob@example.net").content
    assert content.count(b"Archive-Stamp:") == STAMPS.get(mode, 4)
    assert b"archive-request" not in content


def test_a_request_recipient_never_leaves_the_host(
    many_requests_host: PrivatePostfix,
) -> None:
    recipients = {
        r for each in many_requests_host.deliveries() for r in each.recipients
    }
    assert recipients
    assert not [r for r in recipients if r.endswith("archive-request.invalid")]


def test_a_forged_request_archives_nothing_and_is_logged(
    many_requests_host: PrivatePostfix,
) -> None:
    forged = f"{'0' * 32}.{b'ceo@example.com'.hex()}@archive-request.invalid"
    many_requests_host.send(mail("forgery"), to=["bob@example.net", forged])
    many_requests_host.wait_for_empty_queue()
    assert archives_of(many_requests_host, "forgery") == ["legal@example.com"]
    assert "alarm=forged forged=1" in many_requests_host.log()


def test_tables_alone_archive_what_they_name_and_nothing_else(mode: str) -> None:
    main = {}
    if mode != "native":
        nexthop = "archive-stamp:" + BEFORE_NEXTHOP[mode]
        main["content_filter"] = nexthop + "${archive?{$archive}:{on-request}}"
        main["receive_override_options"] = "no_address_mappings"
    with PrivatePostfix(mode=mode, archive="", main=main) as postfix:
        (postfix.etc / "headers").write_text(
            f"/^Subject: wanted/ {request_recipient_of('legal@example.com')}\n"
        )
        postfix.postconf(header_checks=f"regexp:{postfix.etc}/headers")
        postfix.reload()
        postfix.send(mail("wanted"))
        postfix.send(mail("unwanted"))
        postfix.wait_for_empty_queue()
        assert archives_of(postfix, "wanted") == ["legal@example.com"]
        assert archives_of(postfix, "unwanted") == []
        for name, stamps in (("wanted", STAMPS.get(mode, 1)), ("unwanted", 0)):
            content = one_delivery(postfix, name, "bob@example.net").content
            assert content.count(b"Archive-Stamp:") == stamps


def test_mail_that_a_filter_action_took_around_is_noticed(
    many_requests_host: PrivatePostfix, mode: str
) -> None:
    many_requests_host.send(
        mail("around") + b"about the merger\n", sender="carol@example.org"
    )
    if mode == "native":  # the capture recipients went along, and are archived after it
        many_requests_host.wait_for_empty_queue()
        for archive in archives_of(many_requests_host, "around"):
            record = record_of(many_requests_host, "around", archive)
            assert recipients_of(record) == ["bob@example.net"]
        return
    many_requests_host.wait_for_log("alarm=incomplete")
    many_requests_host.wait_for_empty_queue()
    assert "hr@example.com" in archives_of(many_requests_host, "around")
    copies = deliveries(many_requests_host, "around", "hr@example.com")
    assert all(b"Archive-Envelope: incomplete" in each.content for each in copies)
    content = one_delivery(many_requests_host, "around", "bob@example.net").content
    assert b"Archive-Stamp:" not in content


@pytest.mark.parametrize("mode", MODES_AND_CAPSULE, indirect=True, scope="module")
def test_an_unusable_archive_address_defers_with_the_reason(mode: str) -> None:
    with PrivatePostfix(mode=mode, archive="not-an-address") as postfix:
        postfix.send(mail("waiting"))
        postfix.wait_for_failure(
            "error=RequestInvalid .*'not-an-address' is not an archive address"
        )
        postfix.postconf(archive="legal@example.com")
        postfix.reload()
        assert len(postfix.mailq()) == 1
        assert not postfix.deliveries()
