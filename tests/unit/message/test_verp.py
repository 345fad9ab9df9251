"""Claims about senders that Postfix made for one recipient (VERP_README)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import verp
from postfix_archive.message.envelope import Recipient

LOCAL = st.text("ab.+-=_\xe9", min_size=1, max_size=9).map(str.encode)
DOMAIN = st.text("ab.-", min_size=1, max_size=9).map(str.encode)
DELIMITER = st.sampled_from([b"-", b"=", b"+"])


@given(LOCAL, DOMAIN, LOCAL, DOMAIN, DELIMITER, DELIMITER)
def test_the_true_sender_is_found(
    local: bytes, origin: bytes, name: bytes, domain: bytes, first: bytes, second: bytes
) -> None:
    made = local + first + name + second + domain + b"@" + origin
    found = verp.decode(made, (Recipient(name + b"@" + domain),))
    assert (found.sender, found.delimiters) == (local + b"@" + origin, first + second)


def test_postfix_encodes_the_recipient_before_mapping() -> None:
    made = b"list+bob=example.net@example.com"
    mapped = Recipient(b"b@mbox.example", b"bob@example.net")
    assert verp.decode(made, (mapped,)).sender == b"list@example.com"


@pytest.mark.parametrize(
    ("sender", "recipients"),
    [
        (b"", [b"bob@example.net"]),
        (b"list@example.com", [b"bob@example.net"]),
        (b"list+bob=example.net@example.com", [b"eve@example.net"]),
        (b"list+bob=example.net@example.com", [b"bob@example.net", b"eve@x"]),
        (b"list+bob=example.net@example.com", []),
        (b"+bob=example.net@example.com", [b"bob@example.net"]),
        (b"listxbob=example.net@example.com", [b"bob@example.net"]),
        (b"list+bob@example.com", [b"bob"]),
        (b"list+=@example.com", [b""]),
    ],
)
def test_any_other_sender_is_left_as_it_is(
    sender: bytes, recipients: list[bytes]
) -> None:
    assert verp.decode(sender, tuple(map(Recipient, recipients))) is verp.NONE
