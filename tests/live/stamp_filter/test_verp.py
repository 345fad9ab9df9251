"""XVERP: Postfix makes a sender for each recipient; the archive has one record.

In native mode the archive gets the message before Postfix makes these senders.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from mails import LEGAL, mail, one_delivery, record_of
from private_postfix import ALL_MODES, PrivatePostfix

pytestmark = pytest.mark.live
TO = [f"member{number}@example.net" for number in range(300)]
FEW = TO[:5]


@pytest.fixture(scope="module", params=ALL_MODES)
def host(request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    """An instance that keeps its copies in the store."""
    delivery = {"archive_delivery": "store"}
    clients = {"authorized_verp_clients": "127.0.0.1"}
    with PrivatePostfix(
        mode=request.param, main=clients, archive_cf=delivery
    ) as running:
        yield running


def assert_one_record(
    host: PrivatePostfix, name: str, to: list[str], delimiters: str
) -> None:
    """One record with the true sender; each recipient got its own, as without us."""
    host.wait_for_empty_queue()
    record = record_of(host, name)
    [one] = record.passes
    assert one.sender == b"list@example.org"
    assert sorted(each.final.decode() for each in one.recipients.values()) == sorted(to)
    first, second = delimiters[0], delimiters[1]
    for each in (to[0], to[-1]):
        encoded = each.replace("@", second)
        sender = f"list{first}{encoded}@example.org"
        assert one_delivery(host, name, each).sender == sender
    listing = host.run_command("list", "--json", "--archive", LEGAL).stdout
    shown = [json.loads(each) for each in listing.splitlines()]
    [entry] = [each for each in shown if each["id"] == record.archive_id]
    recorded_delimiters = "" if host.is_native else delimiters
    assert (entry["sender"], entry["verp_delimiters"]) == (
        "list@example.org",
        recorded_delimiters,
    )
    page = host.run_command("show", record.archive_id).stdout
    assert "Sender:      list@example.org\n" in page
    assert (f"delimiters {delimiters}\n" in page) != host.is_native
    reconciled = host.run_command("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout


@pytest.mark.parametrize(
    ("option", "to", "delimiters"), [("XVERP", TO, "+="), ("XVERP=-+", FEW, "-+")]
)
def test_a_message_with_xverp_is_one_record_with_its_true_sender(
    host: PrivatePostfix, option: str, to: list[str], delimiters: str
) -> None:
    name = f"verp {delimiters}"
    host.send(mail(name), sender="list@example.org", to=to, options=(option,))
    assert_one_record(host, name, to, delimiters)


def test_sendmail_xv_is_one_record_with_its_true_sender(host: PrivatePostfix) -> None:
    options = ["-C", str(host.etc), "-i", "-XV", "-f", "list@example.org"]
    subprocess.run(
        ["/usr/sbin/sendmail", *options, "--", *FEW],
        input=mail("local verp"),
        env={**os.environ, "MAIL_CONFIG": str(host.etc)},
        check=True,
    )
    host.wait(lambda: host.delivered_to(FEW[-1]), "it is delivered")
    assert_one_record(host, "local verp", FEW, "+=")
