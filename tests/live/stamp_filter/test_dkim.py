"""Signatures outlive the archive: in the mail delivered and in what is stored.

dkimpy signs before, and judges after; nothing of ours takes part in either.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator

import dkim
import pytest

import corpora
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live

SELECTOR, DOMAIN = b"s1", b"example.org"
FORMS = {"relaxed": (b"relaxed", b"relaxed"), "simple": (b"simple", b"simple")}
HEADER = (
    b"From: Alice  <alice@example.org>\r\n"
    b"To: bob@example.net,\r\n\tcarol@example.net\r\n"
    b"Subject: signed   and\r\n  folded\r\nDate: Sun, 22 Nov 2026 12:53:00 +0100\r\n"
    b"Message-Id: <signed@example.org>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
)
BODIES = {
    "plain": b"hello\r\n",
    "empty": b"",
    "dots": b".\r\n..\r\n.hello\r\n",
    "white space": b"hello  \t world \r\n \r\n\t\r\n",
    "empty lines at the end": b"hello\r\n\r\n\r\n\r\n",
    "8-bit": "Grüße aus Köln\r\n".encode() + b"\xff\xfe\r\n",
    "From line": b"From here to there\r\n>From\r\n",
    "long line": b"x" * 990 + b"\r\n" + b"y" * 990 + b"\r\n",
    "three thousand lines": b"one of many\r\n" * 3000,
}
CASES = [(form, body) for form in FORMS for body in BODIES]


@pytest.fixture(scope="module", params=["pipe", "native"])
def mode(request: pytest.FixtureRequest) -> str:
    """With reinjection and a stamp, and without."""
    return str(request.param)


@pytest.fixture(scope="module")
def key() -> bytes:
    """An RSA key for this run."""
    return subprocess.run(
        ["openssl", "genrsa", "2048"], capture_output=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def record(key: bytes) -> bytes:
    """The DNS record with the key's public half."""
    public = subprocess.run(
        ["openssl", "rsa", "-pubout", "-outform", "DER"],
        input=key,
        capture_output=True,
        check=True,
    ).stdout
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@pytest.fixture(scope="module")
def signed_by_case(
    postfix: PrivatePostfix, key: bytes
) -> Iterator[dict[tuple[str, str], bytes]]:
    """One signed message for each case, sent to an address of its own."""
    signed_messages = {}
    for number, (form, body) in enumerate(CASES):
        message = HEADER + b"\r\n" + BODIES[body]
        signature = dkim.sign(
            message, SELECTOR, DOMAIN, key, canonicalize=FORMS[form], logger=None
        )
        signed_messages[form, body] = signature + message
        postfix.send(signed_messages[form, body], to=[f"bob.{number}@example.net"])
    postfix.wait_for_empty_queue()
    yield signed_messages


def verifies(message: bytes, record: bytes) -> bool:
    """Tell whether dkimpy takes the signature for good."""

    def dns(name: bytes | str, timeout: int = 5) -> bytes:
        queried = name.encode() if isinstance(name, str) else name
        assert queried.rstrip(b".") == SELECTOR + b"._domainkey." + DOMAIN
        return record

    return bool(dkim.verify(message, dnsfunc=dns))


def delivered_content(postfix: PrivatePostfix, form: str, body: str) -> bytes:
    """What the recipient got, as it stands on the wire."""
    address = f"bob.{CASES.index((form, body))}@example.net"
    [delivery] = postfix.delivered_to(address)
    return delivery.content.replace(b"\n", b"\r\n")


def original(postfix: PrivatePostfix, form: str, body: str) -> bytes:
    """The original out of the archive copy."""
    address = f"bob.{CASES.index((form, body))}@example.net"
    [copy] = [
        copy
        for copy in map(corpora.read_copy, postfix.stored_files())
        if f"\nFinal-Recipient: rfc822; {address}\r\n" in corpora.status_part(copy)
    ]
    return corpora.extract_original(copy)


@pytest.mark.parametrize(("form", "body"), CASES)
def test_a_signed_message_verifies_when_it_is_delivered(
    postfix: PrivatePostfix,
    mode: str,
    signed_by_case: dict[tuple[str, str], bytes],
    record: bytes,
    form: str,
    body: str,
) -> None:
    assert verifies(
        signed_by_case[form, body], record
    ), "the message was never well signed"
    content = delivered_content(postfix, form, body)
    assert (b"\r\nArchive-Stamp: " in content) == (mode != "native")
    assert verifies(content, record)


@pytest.mark.parametrize(("form", "body"), CASES)
def test_a_signed_message_verifies_out_of_the_archive_copy(
    postfix: PrivatePostfix,
    signed_by_case: dict[tuple[str, str], bytes],
    record: bytes,
    form: str,
    body: str,
) -> None:
    content = original(postfix, form, body)
    assert content.endswith(signed_by_case[form, body])
    assert verifies(content, record)


@pytest.mark.parametrize("form", FORMS)
def test_the_verifier_detects_a_changed_body_and_a_changed_header(
    postfix: PrivatePostfix,
    signed_by_case: dict[tuple[str, str], bytes],
    record: bytes,
    form: str,
) -> None:
    assert signed_by_case
    content = delivered_content(postfix, form, "plain")
    assert not verifies(content.replace(b"hello\r\n", b"hallo\r\n"), record)
    assert not verifies(content.replace(b"Subject: ", b"Subject: Re: "), record)
