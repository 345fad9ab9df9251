"""make install in a native mode on a whole host: cleanup(8) captures, no filter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_postfix import NATIVE_MODES
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
MAP = "/etc/postfix/archive-capture"
OTHER = f"other@{HOST}"


@pytest.fixture
def host(stock_host: Path, release: Path) -> Iterator[WholeHost]:
    """A stock host with an alias, a service for another archive and one for none."""
    with WholeHost(stock_host, release) as whole_host:
        whole_host.run("useradd --no-create-home other")
        whole_host.run("echo 'team: bob' >> /etc/aliases && newaliases")
        for port, value in ((2525, OTHER), (2526, "")):
            line = f"{port} inet n - n - - smtpd -o archive={value}"
            whole_host.run(f"postconf -M '{port}/inet={line}'")
        whole_host.run("postfix start")
        yield whole_host


def archived(host: WholeHost) -> dict[str, list[str]]:
    """The recipients of what is archived, the probes aside, by archive."""
    found: dict[str, list[str]] = {}
    for line in host.output("postfix-archive list --json").splitlines():
        if "archive-probe.invalid" not in line:
            record = json.loads(line)
            found.setdefault(record["archive"], []).append(
                ",".join(sorted(record["recipients"]))
            )
    return {archive: sorted(found[archive]) for archive in found}


@pytest.mark.parametrize("mode", NATIVE_MODES)
def test_from_stock_to_native_and_back(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    before = host.configuration()
    diff = host.output(install(wheels, f"MODE={mode} DRY_RUN=1"))
    assert f"Map:        {MAP} would be created" in diff
    assert "+recipient_bcc_maps = " in diff and "\n+content_filter" not in diff
    assert host.configuration() == before

    output = host.output(install(wheels, f"MODE={mode}"))
    assert "Doctor:     OK: " in output
    assert "Probe:      a message went through" in output
    for path in (MAP, f"{MAP}.{OTHER}"):
        assert host.output(f"stat -c %a:%U:%G {path}") == "600:root:root"
    host.send("two", f"team@{HOST}", f"bob@{HOST}")
    host.send("other", port=2525)
    host.send("none", port=2526)
    host.run(f"sendmail bob@{HOST}", stdin="Subject: by hand\n\nhello\n")
    host.wait_for_empty_queue()
    assert archived(host) == {
        f"legal@{HOST}": [f"bob@{HOST}", f"bob@{HOST},team@{HOST}"],
        OTHER: [f"bob@{HOST}"],
    }
    assert "archive-stamp" not in host.output("cat /var/log/postfix.log")

    installed = host.configuration()
    assert "nothing to change" in host.output(install(wheels))
    assert host.configuration() == installed
    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == before


SENDER = f"""
import itertools, os, smtplib, time
for number in itertools.count():
    if os.path.exists("/etc/stop"):
        break
    with smtplib.SMTP("127.0.0.1", 25) as peer:
        text = f"Subject: {{number}}\\r\\n\\r\\nx\\r\\n"
        peer.sendmail("alice@example.org", [f"bob+{{number}}@{HOST}"], text)
    time.sleep(0.05)  # the installer needs the machine as well
print(number)
"""


@pytest.mark.parametrize(
    "modes",
    [
        ("pipe", "native", "native-pipe", "native", "pipe"),
        ("lmtp", "native-pipe", "lmtp"),
    ],
)
def test_through_the_native_modes_and_back_all_mail_is_archived_once(
    host: WholeHost, wheels: Path, modes: tuple[str, ...]
) -> None:
    before = host.configuration()
    former_mode, *other_modes = modes
    host.run(install(wheels, f"MODE={former_mode}"))
    in_former_mode = host.configuration()
    diff = host.output(install(wheels, "MODE=native DRY_RUN=1"))
    assert "\n-archive-stamp unix" in diff and "\n+archive-capture unix" in diff
    with subprocess.Popen(
        host.command("python3 -"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sender:
        assert sender.stdin is not None and sender.stdout is not None
        sender.stdin.write(SENDER.encode())
        sender.stdin.close()
        try:
            for mode in other_modes:
                output = host.output(install(wheels, f"MODE={mode}"))
                assert "Doctor:     OK: " in output
                assert "former mode" not in output
        finally:
            host.run("touch /etc/stop")  # else it sends, and we wait, for ever
        sent = int(sender.stdout.read())
    host.wait_for_empty_queue()
    expected = [f"bob+{number}@{HOST}" for number in range(sent)]
    assert archived(host) == {f"legal@{HOST}": sorted(expected)}
    assert host.output("grep -c '^Subject: ' /var/mail/bob") == str(sent)
    host.run("rm /etc/stop")
    assert host.configuration() == in_former_mode
    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == before


def test_what_passes_a_content_filter_is_archived_once_behind_it(
    host: WholeHost, wheels: Path
) -> None:
    """Captured before the filter, or behind it if addresses are mapped there."""
    host.run("cat > /usr/local/bin/scan && chmod 755 /usr/local/bin/scan", stdin=SCAN)
    host.run(f"postconf -M 'scan/unix={FILTER_ENTRY}'")
    host.run(f"postconf -M '127.0.0.1:10025/inet={REINJECTION_ENTRY}'")
    host.run("postconf -M -X 2525/inet 2526/inet")
    host.run("postconf -e content_filter=scan:all && postfix reload")
    before = host.configuration()
    refused = host.run(install(wheels, "MODE=native"), is_failure_expected=True).stderr
    limit = "scan_destination_recipient_limit = 2000"
    assert f"run postconf -e '{limit}'" in refused
    assert host.configuration() == before
    host.run(f"postconf -e '{limit}'")

    output = host.output(install(wheels, "MODE=native"))
    assert "Doctor:     OK: " in output
    assert "Filter:     scan:all comes before the archive" in output
    host.send("first", f"team@{HOST}", f"bob@{HOST}")
    host.wait_for_empty_queue()
    option = "receive_override_options"
    host.run(f"postconf -e {option}=no_address_mappings")
    refused = host.run(install(wheels), is_failure_expected=True).stderr
    assert "must map there" in refused
    host.run(f"postconf -P -e 127.0.0.1:10025/inet/{option}=no_milters")
    output = host.output(install(wheels))
    assert "Doctor:     OK: " in output
    host.send("second", f"team@{HOST}", f"bob@{HOST}")
    host.wait_for_empty_queue()
    both = f"bob@{HOST},team@{HOST}"
    assert archived(host) == {f"legal@{HOST}": [both, both]}
    assert host.output(f"grep -c '^{SCANNED}' /var/mail/bob") == "4"


LEFT_BEHIND = {  # what the former mode leaves in the queue, while what is deferred
    "capsule": "archive, local",  # and the reinjected message
    "original": "archive, local, archive-stamp",
}


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
def test_what_the_former_mode_left_in_the_queue_may_be_requeued(
    host: WholeHost, wheels: Path, mode: str
) -> None:
    """By postsuper -r: nothing is lost, doubled or taken for a forgery."""
    host.run(install(wheels, f"MODE={mode}"))
    settings = "/etc/postfix/archive.cf"
    host.run(f"echo archive_write_through_time_limit = 0 >> {settings}")
    for number, (name, transports) in enumerate(LEFT_BEHIND.items()):
        host.run(f"postconf -e 'defer_transports = {transports}' && postfix reload")
        host.send(name, f"bob+{name}@{HOST}")
        deferred = "grep -c 'status=deferred (deferred transport)' /var/log/postfix.log"
        host.wait(f"test $({deferred}) = {number + 2}", f"{name} waits")
    host.run(install(wheels, "MODE=native"))
    queue = host.output("postqueue -p")
    assert "capsule@archive-request.invalid" in queue and "bob+original@" in queue
    host.run("postsuper -r ALL && postconf -e defer_transports= && postfix reload")
    host.wait_for_empty_queue()
    assert archived(host) == {
        f"legal@{HOST}": [f"bob+{name}@{HOST}" for name in LEFT_BEHIND]
    }
    assert host.output("grep -c '^Subject: ' /var/mail/bob") == str(len(LEFT_BEHIND))
    assert "alarm=" not in host.output("cat /var/log/postfix.log")
    host.run("postfix-archive verify")
    assert "Doctor:     OK: " in host.output(install(wheels))
