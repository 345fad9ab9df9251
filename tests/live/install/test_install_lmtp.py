"""make install MODE=lmtp on a whole host that asks for many archives in many ways."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_host import (
    FILTER_ENTRY,
    HOST,
    REINJECTION_ENTRY,
    SCAN,
    SCANNED,
    WholeHost,
    install,
)

pytestmark = pytest.mark.live
A, B, C, T = (f"{name}@{HOST}" for name in ("a", "b", "c", "table"))
LEGAL = f"legal@{HOST}"
SERVICES = {
    2525: f"-o archive={A},{B}",
    2526: "-o archive=",
    2527: f"-o archive={A} -o content_filter=scan:all",
    2528: "-o content_filter=scan:all",
    2529: "-o archive=$mine",
    2530: "-o archive= -o content_filter=scan:all",
}


@pytest.fixture
def host(stock_host: Path, release: Path) -> Iterator[WholeHost]:
    """A stock host with services that ask for other archives, or have a filter."""
    with WholeHost(stock_host, release) as whole_host:
        for name in ("a", "b", "c", "table"):
            whole_host.run(f"useradd --no-create-home {name}")
        whole_host.run(
            "mkdir -p /usr/local/bin && cat > /usr/local/bin/scan", stdin=SCAN
        )
        whole_host.run("chmod 755 /usr/local/bin/scan")
        whole_host.run(f"postconf -e mine={C}")
        whole_host.run(f"postconf -M 'scan/unix={FILTER_ENTRY}'")
        for port, options in SERVICES.items():
            syslog_option = (
                f"-o syslog_name=postfix/s{port}"  # reconcile tells them by it
            )
            line = f"{port} inet n - n - - smtpd {syslog_option} {options}"
            whole_host.run(f"postconf -M '{port}/inet={line}'")
        whole_host.run(f"postconf -M '127.0.0.1:10025/inet={REINJECTION_ENTRY}'")
        whole_host.run(
            "postconf -P -e pickup/unix/content_filter=scan:all && postfix start"
        )
        yield whole_host


def send(host: WholeHost, name: str, port: int = 25) -> None:
    """Send one message to bob, whose address says which it is."""
    host.send(name, f"bob+{name}@{HOST}", port=port)


def archives_by_subject(host: WholeHost) -> dict[str, list[str]]:
    """The names of what is archived, the probes aside, by archive."""
    archives_found: dict[str, list[str]] = {}
    for line in host.output("postfix-archive list --json").splitlines():
        record = json.loads(line)
        if "archive-probe.invalid" not in line:
            [to] = record["recipients"]
            name = to.removeprefix("bob+").partition("@")[0]
            archives_found.setdefault(record["archive"], []).append(name)
    return {archive: sorted(names) for archive, names in archives_found.items()}


def scan_counts(host: WholeHost) -> dict[str, int]:
    """How often each message is in bob's mailbox, and how often scanned."""
    box = host.output("cat /var/mail/bob")
    messages = box.split("\nFrom ")
    return {
        line.removeprefix("Subject: "): message.count(SCANNED)
        for message in messages
        for line in message.splitlines()
        if line.startswith("Subject: ")
    }


def test_every_service_reaches_the_workers_of_its_archives_and_its_filter(
    host: WholeHost, wheels: Path
) -> None:
    before = host.configuration()
    output = host.output(install(wheels, "MODE=lmtp"))
    assert "Doctor:     OK: " in output
    assert "Probe:      a message went through" in output
    for port in SERVICES:
        send(host, str(port), port)
    send(host, "25")
    host.wait_for_empty_queue()
    assert archives_by_subject(host) == {
        A: ["2525", "2527"],
        B: ["2525"],
        C: ["2529"],
        LEGAL: ["25", "2528"],
    }
    scanned = {2527: 1, 2528: 1, 2530: 1}
    assert scan_counts(host) == {
        "25": 0,
        **{str(port): scanned.get(port, 0) for port in SERVICES},
    }
    assert "status=deferred" not in host.output("cat /var/log/postfix.log")

    assert "nothing to change" in host.output(install(wheels))
    host.run(f"postconf -P -e 2528/inet/archive={B}")
    doctor = host.run("postfix-archive doctor", is_failure_expected=True).stdout
    assert f"master.cf has no service archive-2.{B}" in doctor
    host.run(install(wheels))
    host.run("postfix-archive doctor")
    send(host, "alone", 2528)
    host.wait_for_empty_queue()
    assert archives_by_subject(host)[B] == ["2525", "alone"]
    added = host.output("postfix-archive outcomes --once && postfix-archive reconcile")
    assert re.search(r"^missing +0$", added, re.M), added

    host.run(f"postconf -P -e 2528/inet/archive= && {install(wheels)}")
    host.run("postconf -P -X 2528/inet/archive")
    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == before


def test_requests_from_tables_reach_the_workers_of_every_filter(
    host: WholeHost, wheels: Path
) -> None:
    host.run(install(wheels, "MODE=lmtp ON_REQUEST=yes"))
    host.run(f"printf 'alice@example.org ARCHIVE {T}\\n' > /etc/postfix/asking.in")
    host.run(
        "echo 'archive_tables = texthash:/etc/postfix/asking.in' >>"
        " /etc/postfix/archive.cf && postfix-archive tables"
    )
    host.run(
        "postconf -e 'smtpd_sender_restrictions = check_sender_access"
        " texthash:/etc/postfix/asking' && postfix reload"
    )
    for port in (2525, 2526, 2530):
        send(host, str(port), port)
    host.wait_for_empty_queue()
    archives_found = archives_by_subject(host)
    assert archives_found.pop(T) == ["2525", "2526", "2530"]
    assert archives_found == {A: ["2525"], B: ["2525"]}
    assert scan_counts(host) == {"2525": 0, "2526": 0, "2530": 1}
    host.run("postfix-archive doctor")


def test_an_address_that_is_no_socket_is_refused_and_nothing_is_changed(
    host: WholeHost, wheels: Path
) -> None:
    before = host.configuration()
    long = "x" * 80 + f"@{HOST}"
    for command, reason in (
        (f"make install ARCHIVE={long}", "the socket path allows 91; use a shorter"),
        (f"make install ARCHIVE='a#b@{HOST}'", "only letters, digits and"),
        (
            f"postconf -P -e 2527/inet/archive={long} && make install ARCHIVE={LEGAL}",
            "the socket path allows 89; use a shorter",
        ),
    ):
        refused = host.run(
            f"{command} MODE=lmtp WHEELS={wheels}", is_failure_expected=True
        ).stderr
        assert reason in refused and "or MODE=pipe" in refused
    host.run(f"postconf -P -e 2527/inet/archive={A}")
    assert host.configuration() == before
    host.run("test ! -e /usr/local/lib/postfix-archive/current")


SENDMAIL_FILTER = """#!/bin/sh
# A content filter that gives back by sendmail(1).
sender=$1; shift
/usr/sbin/sendmail -G -i -f "$sender" -- "$@"
"""


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
def test_a_filter_that_gives_back_by_sendmail_needs_no_probe(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    """pickup stays free for it, so a message from sendmail(1) is not archived."""
    host.run("cat > /usr/local/bin/scan", stdin=SENDMAIL_FILTER)
    host.run("postconf -P -X pickup/unix/content_filter && postfix reload")
    output = host.output(install(wheels, f"MODE={mode}"))
    assert "Probe:      none, mail from sendmail(1) (pickup) is not archived" in output
    send(host, "one", 2528)
    host.wait_for_empty_queue()
    assert archives_by_subject(host) == {LEGAL: ["one"]}
    assert scan_counts(host) == {"one": 0}
