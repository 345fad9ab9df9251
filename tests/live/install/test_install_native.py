"""make install MODE=native on a whole host: cleanup(8) captures, without a filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_host import HOST, WholeHost, install

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


def test_from_stock_to_native_and_back(host: WholeHost, wheels: Path) -> None:
    before = host.configuration()
    diff = host.output(install(wheels, "MODE=native DRY_RUN=1"))
    assert f"Map:        {MAP} would be created" in diff
    assert "+recipient_bcc_maps = " in diff and "\n+content_filter" not in diff
    assert host.configuration() == before

    output = host.output(install(wheels, "MODE=native"))
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
