"""Who logged in is in the report, and what they say of themselves changes nothing.

A real SASL login (Cyrus, sasldb).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from postfix_archive.message import address
from postfix_archive.store import record_reader

from mails import mail, record_of
from private_postfix import NATIVE_MODES, Client, PrivatePostfix, free_ports

pytestmark = pytest.mark.live
# AUTH= of MAIL (RFC 4954 5), which smtpd(8) logs before the keys of XFORWARD.
HOSTILE = (
    "x, orig_queue_id={queue_id}",
    "x, orig_queue_id={queue_id}, orig_client=localhost[127.0.0.1]",
    "x\n{queue_id}: removed",
    "<>, sasl_username=root> orig_id={queue_id}",
)


@pytest.fixture(scope="module")
def around() -> int:
    """The port of a service that archives nothing."""
    return free_ports(1)[0]


@pytest.fixture(scope="module", params=["pipe", *NATIVE_MODES])
def mode(request: pytest.FixtureRequest) -> str:
    """The mode that mail takes."""
    return str(request.param)


@pytest.fixture(scope="module")
def sasl_host(around: int, mode: str) -> Iterator[PrivatePostfix]:
    """An instance that knows the user alice@example.com, with a way around."""
    postfix = PrivatePostfix(
        mode=mode,
        master=f"127.0.0.1:{around} inet n - n - - smtpd -o content_filter="
        " -o receive_override_options=no_address_mappings\n",
    )
    postfix.add_login("alice", "example.com", "secret")
    with postfix:
        yield postfix


def test_the_sasl_user_is_in_the_report_where_the_transport_knows_it(
    sasl_host: PrivatePostfix, mode: str
) -> None:
    """pipe(8) does, lmtp(8) does not."""
    with Client(sasl_host.smtp_port) as client:
        client.smtp.login("alice@example.com", "secret")
        client.send(b"Subject: logged in\n\nhello\n", to=["bob@example.net"])
    sasl_host.wait_for_empty_queue()
    [record] = record_reader.records(str(sasl_host.store), "legal@example.com")
    login = record.envelope.client
    expected = (b"", b"") if mode == "native" else (b"alice@example.com", b"PLAIN")
    assert (login.sasl_username, login.sasl_method) == expected


def send_logged_in(postfix: PrivatePostfix, port: int, name: str, auth: str) -> str:
    """Send a message with this AUTH= after a login; return its queue id."""
    with Client(port) as client:
        client.smtp.login("alice@example.com", "secret")
        option = f"AUTH={address.xtext(auth.encode()).decode()}"
        return client.send(mail(name), sender="m@example.org", options=(option,))


def unarchived(postfix: PrivatePostfix) -> dict[str, tuple[str, str]]:
    """Return kind and cause of what reconcile says is not archived, by queue id."""
    result: dict[str, Any] = json.loads(
        postfix.run_command("reconcile", "--json").stdout
    )
    assert result["unclear"] == 0
    return {e["queue_id"]: (e["kind"], e["cause"]) for e in result["messages"]}


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_an_auth_parameter_hides_no_message_and_changes_no_outcome(
    sasl_host: PrivatePostfix, around: int, number: int
) -> None:
    archived_id = sasl_host.send(mail(f"archived-{number}"))
    auth = HOSTILE[number].format(queue_id=archived_id)
    honest = send_logged_in(sasl_host, around, f"honest-{number}", "alice")
    hostile = send_logged_in(sasl_host, around, f"hostile-{number}", auth)
    name = f"hostile-but-archived-{number}"
    captured = send_logged_in(sasl_host, sasl_host.smtp_port, name, auth)
    sasl_host.wait_for_empty_queue()
    sasl_host.wait_for_log(rf"{hostile}: client=.*, sasl_sender=\S.*{archived_id}")
    causes = unarchived(sasl_host)
    assert causes[hostile] == causes[honest]
    assert not {archived_id, captured} & set(causes)
    assert sasl_host.run_command("outcomes", "--once").returncode == 0
    for each in (f"archived-{number}", name):
        counts = record_of(sasl_host, each).results.counts_by_kind
        assert counts == {"delivered": 1}
