"""The page behind nginx and behind Apache, each with its example of contrib."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import web_mails
from web_browser import Browser
from web_host import HOST_NAME, WebHost

pytestmark = pytest.mark.live
FORGED = "192.0.2.66"
MEGABYTE = 1 << 20
TOO_LONG = b"HTTP/1.1 414 "
ANSWER_SECONDS = 60  # at most
# TLS 1.1 itself must be possible: else its refusal says nothing of the proxy.
OLD_TLS = ("--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")


@pytest.fixture(scope="module", params=["nginx", "apache"])
def host(request: pytest.FixtureRequest) -> Iterator[WebHost]:
    with WebHost(web_mails.fill, proxy=request.param) as instance:
        yield instance


def curl(
    host: WebHost, *arguments: str, body: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Ask the proxy; a body is for the argument ``@-``. Return header and content."""
    command = ["curl", "-sSki", "--resolve", f"{HOST_NAME}:{host.tls_port}:127.0.0.1"]
    process = subprocess.run(
        [*command, *arguments], input=body, capture_output=True, check=False
    )
    return subprocess.CompletedProcess(
        process.args,
        process.returncode,
        process.stdout.decode(errors="replace"),
        process.stderr.decode(errors="replace"),
    )


def test_work_through_the_proxy(host: WebHost, browser: Browser) -> None:
    """A login, a search, a message, an attachment, as the browser gets them."""
    visit = browser.visit(host.url)
    visit.log_in("anna")
    visit.go("/search?q=bcc:carol@example.net")
    visit.page.click("ol.hits a")
    with visit.page.expect_download() as download:
        visit.page.click(f"text={web_mails.ATTACHMENT_NAME}")
    content = Path(download.value.path()).read_bytes()
    assert hashlib.sha256(content).hexdigest() == web_mails.ATTACHMENT_SHA256
    visit.close()
    assert "carol" not in host.log and "/search" not in host.log


def test_answers_are_for_https_alone(host: WebHost) -> None:
    answer = curl(host, f"{host.url}/").stdout
    assert "strict-transport-security: max-age=31536000" in answer.lower()
    # Where it leads is a path of this host, or has its name and port.
    [target] = re.findall(r"(?im)^location: (\S+)", answer)
    assert target.startswith(("/", f"{host.url}/"))
    cookies = re.findall(
        r"(?im)^set-cookie: .*", curl(host, f"{host.url}/login").stdout
    )
    assert cookies and all("Secure" in each for each in cookies)


def test_old_tls_is_refused(host: WebHost) -> None:
    process = curl(host, *OLD_TLS, f"{host.url}/login")
    assert process.returncode and not process.stdout
    assert "alert protocol version" in process.stderr.replace("tlsv1 ", "")


def test_forged_address_of_a_client(host: WebHost) -> None:
    """A client names its own address, and that of the proxy, in vain."""
    headers = [f"X-Forwarded-For: {FORGED}", f"Forwarded: for={FORGED}"]
    headers += ["X-Forwarded-Proto: http", f"X-Real-IP: {FORGED}"]
    options = [word for each in headers for word in ("-H", each)]
    page = curl(host, *options, f"{host.url}/login").stdout
    [cookie] = re.findall(r"(?im)^set-cookie: ([^;]+)", page)
    [token] = re.findall('name="csrf_token" value="([^"]+)"', page)
    fields = ["-d", "name=anna", "-d", "password=wrong", "-d", f"csrf_token={token}"]
    options += ["-b", cookie, "-e", f"{host.url}/login", *fields]
    answer = curl(host, *options, f"{host.url}/login")
    assert " 401 " in answer.stdout.partition("\r\n")[0]
    assert "login-refused user=anna client=127.0.0.1 " in host.log
    assert FORGED not in host.log


@pytest.mark.parametrize("size", [2 * MEGABYTE, 100 * MEGABYTE])
def test_large_body_is_refused_and_logged_nowhere(host: WebHost, size: int) -> None:
    url = f"{host.url}/search?q=secret-word"
    arguments = ("--data-binary", "@-", "-e", url, url)
    answer = curl(host, *arguments, body=b"x" * size).stdout
    assert re.search("413 Request Entity Too Large|413 Payload Too Large", answer)
    assert "secret-word" not in host.log


@pytest.mark.parametrize("size", [MEGABYTE // 16, 100 * MEGABYTE])
def test_large_query_is_refused(host: WebHost, size: int) -> None:
    """At its beginning, and the page is there afterwards."""
    context = ssl.create_default_context(cafile=str(host.directory / "cert.pem"))
    address = ("127.0.0.1", host.tls_port)
    with socket.create_connection(address, ANSWER_SECONDS) as plain:
        with context.wrap_socket(plain, server_hostname=HOST_NAME) as client:
            answer = b""
            # A server that has closed the connection need not be read any more.
            with contextlib.suppress(OSError):
                client.sendall(b"GET /search?q=" + b"x" * size)
                client.sendall(f" HTTP/1.1\r\nHost: {HOST_NAME}\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                answer = client.recv(len(TOO_LONG))
    assert answer == TOO_LONG or size > MEGABYTE and not answer
    assert " 200 " in curl(host, f"{host.url}/login").stdout
    assert "xxxxxx" not in host.log
