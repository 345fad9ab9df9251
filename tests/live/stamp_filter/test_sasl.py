"""Who logged in is in the report: a real SASL login (Cyrus, sasldb)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postfix_archive.store import record_reader

from private_postfix import Client, PrivatePostfix

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def sasl_host() -> Iterator[PrivatePostfix]:
    """An instance that knows the user alice@example.com."""
    postfix = PrivatePostfix()
    postfix.add_login("alice", "example.com", "secret")
    with postfix:
        yield postfix


def test_the_sasl_user_is_in_the_report(sasl_host: PrivatePostfix) -> None:
    with Client(sasl_host.smtp_port) as client:
        client.smtp.login("alice@example.com", "secret")
        client.send(b"Subject: logged in\n\nhello\n", to=["bob@example.net"])
    sasl_host.wait_for_empty_queue()
    [record] = record_reader.records(str(sasl_host.store), "legal@example.com")
    assert record.envelope.client.sasl_username == b"alice@example.com"
    assert record.envelope.client.sasl_method == b"PLAIN"
