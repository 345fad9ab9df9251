"""A message that is delivered again from the page reaches Postfix's next recipient."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator

import pytest

from postfix_archive.access import access_service

import web_site
from mails import LEGAL, mail
from private_postfix import PrivatePostfix, free_ports, release_ports
from web_browser import Browser
from web_host import READERS, WEB_USER

pytestmark = pytest.mark.live
AUDITOR, OTHER = "auditor@example.net", "other@example.net"
LONG_LINE = b"Gr\xfc\xdfe " * 200  # 8-bit, and longer than a line of SMTP may be


@pytest.fixture
def postfix() -> Iterator[PrivatePostfix]:
    """A Postfix with one archived message, and what the page needs of it."""
    with PrivatePostfix() as postfix:
        postfix.directory.chmod(0o755)
        socket_path = f"{postfix.directory}/run/access"
        postfix.set_archive_cf(
            archive_access_socket=socket_path,
            archive_reader_group=READERS,
            archive_web_user=WEB_USER,
            archive_replay_to=f"{AUDITOR} {OTHER}",
            archive_web_decisions="replay",
        )
        postfix.send(mail("contract") + LONG_LINE)
        postfix.wait_for_empty_queue()
        for command in (("index", "--once"), ("readers",)):
            assert postfix.run_command(*command).returncode == 0
        process = postfix.start_command("access-service")
        while not access_service.is_running(socket_path):
            assert process.poll() is None
        yield postfix


@pytest.fixture
def url(postfix: PrivatePostfix) -> Iterator[str]:
    """The page of that Postfix, without a proxy."""
    account = pwd.getpwnam(WEB_USER)
    directory = postfix.directory / "web"
    directory.mkdir(mode=0o700)
    (directory / "web.db").write_bytes(web_site.users_database())
    for path in (directory, directory / "web.db"):
        os.chown(path, account.pw_uid, account.pw_gid)
    [port] = free_ports(1)
    (postfix.etc / "archive-web.cf").write_text(
        f"web_directory = {directory}\nweb_listen = 127.0.0.1:{port}\n"
    )
    process = postfix.start_command("web")
    with socket.socket() as client:
        while client.connect_ex(("127.0.0.1", port)):
            assert process.poll() is None
    yield f"http://127.0.0.1:{port}"
    release_ports([port])


def test_message_is_delivered_again(
    postfix: PrivatePostfix, url: str, browser: Browser
) -> None:
    """Unchanged, once, to the address that was chosen, and it is not archived again."""
    [event] = [e for e in postfix.events() if e["event"] == "archived"]
    [first] = postfix.delivered_to("bob@example.net")
    visit = browser.visit(url)
    visit.log_in("anna")
    visit.go("/search?q=subject:contract")
    visit.page.click("ol.hits a")
    visit.page.click("text=Deliver again")
    visit.page.select_option("#to", AUDITOR)
    visit.page.fill("#reason", "case 7")
    visit.page.click("main form button.main")
    text = visit.page.inner_text("[role=status]")
    visit.close()

    postfix.wait_for_empty_queue()
    [delivery] = postfix.delivered_to(AUDITOR)
    assert delivery.recipients == (AUDITOR,)
    assert f"queue id {delivery.queue_id}" in text
    assert delivery.content.endswith(first.content.partition(b"\n\n")[2])
    assert not postfix.delivered_to(OTHER)
    assert [e["id"] for e in postfix.events() if e["event"] == "archived"] == [
        event["id"]
    ]
    history = postfix.run_command("history", str(event["id"])).stdout
    assert f"replay  {LEGAL}" in history and f"query='to {AUDITOR}'" in history
    assert "anna on the web page" in history and "reason='case 7'" in history
