"""Native mode puts no stamp on mail: what comes back is recognised by its content."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator

import pytest
from smtp_peer import Peer

from mails import event_kinds, mail, one_delivery, recipients_of, record_of, records
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
HOP = (
    b"Received: from mail.example.com (mail.example.com [127.0.0.1])\r\n"
    b"\tby away.example (8.17/8.17) with ESMTP id 9AB;\r\n"
    b"\tSun, 22 Nov 2026 11:53:30 GMT\r\n"
)
TRACE = HOP + b"Delivered-To: bob@away.example\r\nX-Away: yes\r\n"


class Host(PrivatePostfix):
    """An instance that sends mail to away.example to another server."""

    def __init__(self, mode: str) -> None:
        super().__init__(mode=mode, archive_cf={"archive_delivery": "store"})
        self.peer = Peer(lambda transaction, address: "250 2.0.0 taken")
        main_cf = (self.etc / "main.cf").read_text()
        [maps] = re.findall(r"^transport_maps = (.*)$", main_cf, re.M)
        away = f"inline:{{away.example=smtp:[127.0.0.1]:{self.peer.port}}}"
        self.postconf(transport_maps=f"{maps} {away}")

    def send_and_get_back(self, content: bytes, to: list[str], footer: bytes) -> None:
        """Send a message, and once it is archived get it back from the other server."""
        self.send(content, to=to)
        self.wait_for_empty_queue()
        [taken] = self.peer.accepted_for(to[0])
        with smtplib.SMTP("127.0.0.1", self.smtp_port) as smtp:
            returned = TRACE + taken.content + footer
            smtp.sendmail("bounces@away.example", ["carol@example.net"], returned)
        self.wait_for_empty_queue()


@pytest.fixture(scope="module", params=["native", "native-pipe"])
def postfix(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host(request.param)
    with host.peer, host:
        yield host


def test_mail_that_another_server_sends_back_is_a_supplement(
    postfix: Host,
) -> None:
    content = mail("forwarded") + b"\n.leading dot\n\xc3\xbc\n"
    to = ["bob@away.example", "dan@example.net"]
    postfix.send_and_get_back(content, to, b"")
    one_delivery(postfix, "forwarded", "carol@example.net")
    record = record_of(postfix, "forwarded")
    assert event_kinds(record) == ["archived", "supplement"]
    supplement = record.events[1]
    assert supplement["stamp"] == "content"
    above = supplement["above"].encode()
    assert above.endswith(TRACE) and above.count(b"Received: ") == 2
    first, again = record.passes
    assert (first.envelope.sender, again.envelope.sender) == (
        b"alice@example.org",
        b"bounces@away.example",
    )
    assert recipients_of(record) == [
        "bob@away.example",
        "carol@example.net",
        "dan@example.net",
    ]


def test_mail_that_comes_back_with_a_footer_is_a_record_of_its_own(
    postfix: Host,
) -> None:
    footer = b"-- \r\nthe list\r\n"
    postfix.send_and_get_back(mail("post"), ["list@away.example"], footer)
    one_delivery(postfix, "post", "carol@example.net")
    found = records(postfix, "post")
    assert list(map(event_kinds, found)) == [["archived"], ["archived"]]
    assert [each.events[0]["stamp"] for each in found] == ["absent", "absent"]


def test_the_store_verifies_with_both(postfix: Host) -> None:
    assert postfix.run_command("verify").returncode == 0
