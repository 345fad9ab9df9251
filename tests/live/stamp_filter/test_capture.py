"""One message in, one record out: the envelope, the stamp, the copy."""

from __future__ import annotations

import gzip

import pytest

from private_postfix import ALL_MODES, PrivatePostfix

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=ALL_MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """All modes, and copies that go as capsules, one after the other."""
    return str(request.param)


MESSAGE = (
    b"From: alice@example.org\nSubject: first\nMessage-Id: <1@example.org>\n\nhello\n"
)


def test_one_message_makes_one_record_and_one_delivery(
    postfix: PrivatePostfix, mode: str
) -> None:
    queue_id = postfix.send(MESSAGE, to=["bob@example.net"])
    postfix.wait_for_empty_queue()
    [delivery] = postfix.delivered_to("bob@example.net")
    assert delivery.sender == "alice@example.org"
    is_reinjected = mode != "native"
    assert delivery.content.count(b"Archive-Stamp:") == is_reinjected
    [stored] = postfix.stored_files("legal@example.com")
    copy = gzip.decompress(stored.read_bytes())
    assert f"X-Postfix-Queue-ID: {queue_id}\r\n".encode() in copy
    assert b"Final-Recipient: rfc822; bob@example.net\r\n" in copy
    [mailed] = postfix.delivered_to("legal@example.com")
    assert mailed.sender == ""
