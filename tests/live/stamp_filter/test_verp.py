"""XVERP: Postfix makes a sender for each recipient; the archive has one record."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from mails import LEGAL, mail, one_delivery, record_of
from private_postfix import MODES_AND_CAPSULE, PrivatePostfix

pytestmark = pytest.mark.live
TO = [f"member{number}@example.net" for number in range(5)]


@pytest.fixture(scope="module", params=MODES_AND_CAPSULE)
def host(request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    """An instance that keeps its copies in the store."""
    delivery = {"archive_delivery": "store"}
    clients = {"authorized_verp_clients": "127.0.0.1"}
    with PrivatePostfix(
        mode=request.param, main=clients, archive_cf=delivery
    ) as running:
        yield running


def assert_one_record(host: PrivatePostfix, name: str, delimiters: str) -> None:
    """One record with the true sender; each recipient got its own, as without us."""
    host.wait_for_empty_queue()
    record = record_of(host, name)
    [one] = record.passes
    assert one.sender == b"list@example.org"
    assert sorted(each.final.decode() for each in one.recipients.values()) == TO
    first, second = delimiters[0], delimiters[1]
    for each in TO:
        encoded = each.replace("@", second)
        sender = f"list{first}{encoded}@example.org"
        assert one_delivery(host, name, each).sender == sender
    listing = host.run_command("list", "--json", "--archive", LEGAL).stdout
    shown = [json.loads(each) for each in listing.splitlines()]
    [entry] = [each for each in shown if each["id"] == record.archive_id]
    assert (entry["sender"], entry["verp_delimiters"]) == (
        "list@example.org",
        delimiters,
    )
    page = host.run_command("show", record.archive_id).stdout
    assert "Sender:      list@example.org\n" in page
    assert f"delimiters {delimiters}\n" in page
    reconciled = host.run_command("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout


@pytest.mark.parametrize(
    ("option", "delimiters"), [("XVERP", "+="), ("XVERP=-+", "-+")]
)
def test_a_message_with_xverp_is_one_record_with_its_true_sender(
    host: PrivatePostfix, option: str, delimiters: str
) -> None:
    name = f"verp {delimiters}"
    host.send(mail(name), sender="list@example.org", to=TO, options=(option,))
    assert_one_record(host, name, delimiters)


def test_sendmail_xv_is_one_record_with_its_true_sender(host: PrivatePostfix) -> None:
    options = ["-C", str(host.etc), "-i", "-XV", "-f", "list@example.org"]
    subprocess.run(
        ["/usr/sbin/sendmail", *options, "--", *TO],
        input=mail("local verp"),
        env={**os.environ, "MAIL_CONFIG": str(host.etc)},
        check=True,
    )
    host.wait(lambda: host.delivered_to(TO[-1]), "it is delivered")
    assert_one_record(host, "local verp", "+=")
