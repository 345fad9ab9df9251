"""Signatures of a Milter verify as before, where Postfix rewrites headers.

Canonical_maps and masquerade_domains rewrite headers in cleanup(8), and a Milter signs
what cleanup(8) has rewritten. dkimpy signs, in native mode OpenDKIM; dkimpy verifies.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dkim
import pytest

from private_postfix import ROOT
from whole_host import HOST, WholeHost, count_records, install

pytestmark = pytest.mark.live
MILTER = "inet:127.0.0.1:8891"
SETTINGS = (
    f"smtpd_milters={MILTER} non_smtpd_milters={MILTER}"
    " 'canonical_maps=inline:{alice@inner.example.org=alice@example.org,"
    " old@inner.example.org=old@example.org}'"
    " masquerade_domains=example.org"
    f" 'virtual_alias_maps=inline:{{sales@{HOST}=bob@{HOST}}}'"
    f" always_bcc=all@{HOST}"
)
MESSAGE = """From: Alice <alice@inner.example.org>
To: sales@{host}
Cc: carol@deep.example.org
Subject: {name}
Date: Sun, 22 Nov 2026 12:53:00 +0100
Message-Id: <{name}@example.org>

hello
"""
SMTP = (
    "import smtplib,sys; s = smtplib.SMTP('127.0.0.1', 25);"
    " s.sendmail('alice@inner.example.org', sys.argv[1:], sys.stdin.read()); s.quit()"
)
RECIPIENTS = (f"blind@{HOST}", f"sales@{HOST}")
WAYS = {
    "smtp": f'python3 -c "{SMTP}" {" ".join(RECIPIENTS)}',
    "sendmail": f"sendmail -i -f alice@inner.example.org {' '.join(RECIPIENTS)}",
}
# The sender is recorded as the client sent it, or as cleanup(8) has rewritten it.
SENDERS = {
    "pipe": "alice@inner.example.org",
    "lmtp": "alice@inner.example.org",
    "native": "alice@example.org",
}
OPENDKIM = "/etc/opendkim-of-this-host.conf"
OPENDKIM_CONF = """\
Mode s
Domain example.org
Selector s1
KeyFile {key_file}
RequireSafeKeys no
Canonicalization relaxed/relaxed
OversignHeaders From
Socket inet:8891@127.0.0.1
"""


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dkim") / "key"
    subprocess.run(["openssl", "genrsa", "-out", path, "2048"], check=True)
    return path


@pytest.fixture
def mode() -> str:
    """The mode that will be installed; a test with several has a parameter."""
    return "pipe"


@pytest.fixture
def host(
    stock_host: Path, release: Path, key_file: Path, mode: str
) -> Iterator[WholeHost]:
    """A host that rewrites headers and signs every message."""
    with WholeHost(stock_host, release) as whole_host:
        for user in ("all", "blind"):
            whole_host.run(f"useradd --no-create-home {user}")
        whole_host.run(f"postconf -e {SETTINGS}")
        whole_host.run("postconf -P -e cleanup/unix/header_size_limit=100000")
        configuration = OPENDKIM_CONF.format(key_file=key_file)
        whole_host.run(f"cat > {OPENDKIM}", stdin=configuration)
        program = f"{sys.executable} {ROOT}/tests/signing_milter.py 8891 {key_file}"
        if mode == "native":
            program = f"opendkim -f -x {OPENDKIM}"
        whole_host.run(f"{program} >/dev/null 2>&1 &")
        connect = "import socket; socket.create_connection(('127.0.0.1', 8891))"
        whole_host.wait(f'python3 -c "{connect}"', "the Milter")
        whole_host.run("postfix start")
        yield whole_host


def send(host: WholeHost, name: str) -> None:
    """Send a message by SMTP and one by sendmail(1)."""
    for way, command in WAYS.items():
        host.run(command, stdin=MESSAGE.format(host=HOST, name=f"{name}-{way}"))
    host.wait_for_empty_queue()


def delivered(host: WholeHost, name: str, user: str = "bob") -> list[bytes]:
    """Return the messages with this name in a mailbox, as they were on the wire."""
    text = host.run(f"cat /var/mail/{user}").stdout
    messages = [f"From {each}" for each in text.split("\nFrom ")]
    bodies = [each.partition("\n")[2] for each in messages]
    return [
        f"{each.rstrip()}\n".replace("\n", "\r\n").encode()
        for each in bodies
        if f"\nSubject: {name}\n" in each
    ]


def verifies(message: bytes, key_file: Path) -> bool:
    """Tell whether the signature verifies by the public key."""
    public = ["openssl", "rsa", "-in", str(key_file), "-pubout", "-outform", "DER"]
    der = subprocess.run(public, capture_output=True, check=True).stdout
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)
    return bool(dkim.verify(message, dnsfunc=lambda *_, **__: record))


def check_archived(host: WholeHost, name: str, key_file: Path, mode: str) -> None:
    """Each has one record: its envelope, and what was delivered, signature included."""
    listing = host.output("postfix-archive list --json").splitlines()
    records = [json.loads(e) for e in listing if "archive-probe.invalid" not in e]
    originals = []
    for record in records:
        assert record["sender"] == SENDERS[mode]
        assert sorted(record["recipients"]) == list(RECIPIENTS)
        text = host.run(f"postfix-archive show --original {record['id']}").stdout
        originals.append(text.replace("\n", "\r\n").encode())
    for way in WAYS:
        [message] = delivered(host, f"{name}-{way}")
        [original] = [
            e for e in originals if f"\nSubject: {name}-{way}\r".encode() in e
        ]
        assert message.endswith(original) and verifies(original, key_file)
    assert len(originals) == len(WAYS)


def check(host: WholeHost, name: str, key_file: Path) -> None:
    """Each is delivered once, rewritten, and its one signature verifies."""
    for way in WAYS:
        [message] = delivered(host, f"{name}-{way}")
        assert b"\r\nFrom: Alice <alice@example.org>\r\n" in message
        assert b"\r\nCc: carol@example.org\r\n" in message
        assert f"\r\nX-Original-To: sales@{HOST}\r\n".encode() in message
        assert message.count(b"\nDKIM-Signature: ") == 1
        assert verifies(message, key_file), message.decode()
        for user in ("all", "blind"):
            assert len(delivered(host, f"{name}-{way}", user)) == 1


@pytest.mark.parametrize("mode", SENDERS)
def test_signatures_verify_as_before(
    host: WholeHost, wheels: Path, key_file: Path, mode: str
) -> None:
    send(host, "before")
    check(host, "before", key_file)
    before = host.configuration()
    report = host.output(install(wheels, f"MODE={mode}"))
    assert "Doctor:     OK: " in report
    send(host, "archived")
    check(host, "archived", key_file)
    check_archived(host, "archived", key_file, mode)
    if mode != "native":
        option = "archive-first-cleanup/unix/header_size_limit"
        assert host.output(f"postconf -P {option}").endswith("= 100000")
    assert "nothing to change" in host.output(install(wheels))

    host.run("postfix-archive bypass on --reason test")
    send(host, "bypassed")
    check(host, "bypassed", key_file)
    host.run("postfix-archive bypass off")
    assert count_records(host) == 2

    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == before
    send(host, "after")
    check(host, "after", key_file)


def test_the_doctor_reports_a_milter_that_came_later_and_install_cures_it(
    host: WholeHost, wheels: Path, key_file: Path
) -> None:
    host.run("postconf -X smtpd_milters non_smtpd_milters")
    host.run(install(wheels))
    assert host.output("postconf -h receive_override_options")
    host.run(f"postconf -e {SETTINGS} && postfix reload")
    report = host.run("postfix-archive doctor || :").stdout
    assert "WARNING header-rewriting: master.cf: smtp/inet" in report
    assert "fix: postfix-archive install\n" in report
    send(host, "broken")
    with pytest.raises(AssertionError, match="DKIM-Signature"):
        check(host, "broken", key_file)
    assert "Doctor:     OK: " in host.output(install(wheels))
    send(host, "cured")
    check(host, "cured", key_file)
    # A check that the admin adds to cleanup(8) applies to archived mail as well.
    host.run("postconf -P -e cleanup/unix/header_checks=static:IGNORE")
    report = host.run("postfix-archive doctor || :").stdout
    assert "CRITICAL header-rewriting: master.cf: archive-first-cleanup/unix" in report
    host.run("postconf -P -X cleanup/unix/header_checks && postfix-archive doctor")


def test_an_admin_may_map_all_at_the_first_hop(
    host: WholeHost, wheels: Path, key_file: Path
) -> None:
    """As docs/how-it-works.md says; the next make install leaves it so."""
    host.run("postconf -X smtpd_milters non_smtpd_milters")
    host.run(install(wheels))
    options = "no_unknown_recipient_checks,no_header_body_checks,no_milters"
    host.run(
        "postconf -e receive_override_options="
        f" archive_handback_options={options},no_address_mappings {SETTINGS}"
    )
    configuration = host.configuration()
    assert "nothing to change" in host.output(install(wheels))
    assert host.configuration() == configuration
    host.run("postfix reload")
    for way, command in WAYS.items():
        host.run(command, stdin=MESSAGE.format(host=HOST, name=f"hint-{way}"))
    host.wait_for_empty_queue()
    for way in WAYS:
        [message] = delivered(host, f"hint-{way}")
        assert b"\r\nFrom: Alice <alice@example.org>\r\n" in message
