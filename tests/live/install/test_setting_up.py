"""docs/setting-up.md: its commands, run one after the other, set up a host by hand."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_postfix import NATIVE_MODES, ROOT
from whole_host import HOST, WholeHost

pytestmark = pytest.mark.live
MODES = ("pipe", *NATIVE_MODES)
COMMAND = Path(sys.executable).with_name("postfix-archive")
# In place of the virtual environment, for which pip would ask the package index.
COMMANDS_LINE = re.compile(r"^.*/postfix-archive/commands(?:/bin/pip .*)?$\n", re.M)
COMMANDS_LINK = "/usr/local/lib/postfix-archive/commands/bin/postfix-archive"
ARCHIVE = "archive@example.com"  # of 00-main.cf
MAP = "/etc/postfix/archive-capture"
OTHER = f"other@{HOST}"


def steps(text: str) -> dict[int, str]:
    """Return the commands of a part of the page, by the number of their step."""
    code = "".join(re.findall(r"^    (.*\n)", text, re.M))
    _, *parts = re.split(r"^# (\d)\. ", code, flags=re.M)
    return {int(number): f"# {code}" for number, code in zip(parts[::2], parts[1::2])}


def script(mode: str, numbers: range) -> str:
    """Return the commands of these steps, as the page has them for a mode."""
    page = (ROOT / "docs" / "setting-up.md").read_text()
    head, native = page.split("## Native mode\n")
    commands = steps(head.split("Then send yourself")[0])
    assert sorted(commands) == list(range(1, 8))
    if mode in NATIVE_MODES:
        native_commands = steps(native)
        assert sorted(native_commands) == [4, 5]
        commands |= native_commands
    text = "".join(commands[number] for number in numbers)
    text = COMMANDS_LINE.sub("", text).replace(COMMANDS_LINK, str(COMMAND))
    return text.replace("50-*.cf", "60-*.cf") if mode == "native-pipe" else text


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(stock_host: Path, mode: str) -> Iterator[WholeHost]:
    """A stock host on which the steps of the page were taken while Postfix runs."""
    with WholeHost(stock_host) as whole_host:
        whole_host.run("userdel postfix-archive || true; mkdir -p /etc/cron.d")
        whole_host.run("postfix start")
        whole_host.run("sh -e", stdin=script(mode, range(1, 4)))
        whole_host.run("echo archive_delivery = store >> /etc/postfix/archive.cf")
        whole_host.run("sh -e", stdin=script(mode, range(4, 8)))
        yield whole_host


def archived(host: WholeHost) -> list[tuple[str, str]]:
    """Return archive and recipients of each record."""
    lines = host.output("postfix-archive list --json").splitlines()
    records = map(json.loads, lines)
    return sorted((e["archive"], ",".join(sorted(e["recipients"]))) for e in records)


def test_a_host_set_up_by_hand_archives_and_the_doctor_finds_nothing(
    host: WholeHost, mode: str
) -> None:
    host.send("by SMTP", f"bob@{HOST}", f"legal@{HOST}")
    host.run(f"sendmail bob@{HOST}", stdin="Subject: by hand\n\nhello\n")
    host.wait_for_empty_queue()
    expected = [(ARCHIVE, f"bob@{HOST}"), (ARCHIVE, f"bob@{HOST},legal@{HOST}")]
    assert archived(host) == expected
    assert host.output("grep -c '^Subject: ' /var/mail/bob") == "2"
    assert findings(host, mode) == []
    if mode in NATIVE_MODES:
        assert host.output(f"stat -c %a:%U:%G {MAP}") == "600:root:root"

    go_back(host)
    host.send("afterwards")
    host.wait_for_empty_queue()
    assert host.output("grep -c '^Subject: ' /var/mail/bob") == "3"
    assert archived(host) == expected


@pytest.mark.parametrize("mode", NATIVE_MODES, indirect=True)
def test_a_service_with_another_archive_gets_its_map(
    host: WholeHost, mode: str
) -> None:
    cleanup = f"archive-cleanup.{OTHER}"
    option = f"recipient_bcc_maps=regexp:\\$config_directory/archive-capture.{OTHER}"
    for name, entry in (
        (f"{cleanup}/unix", f"{cleanup} unix n - n - 0 cleanup -o {option}"),
        ("2525/inet", f"2525 inet n - n - - smtpd -o archive={OTHER}"),
    ):
        host.run(f'postconf -M "{name}={entry}"')
    host.run(f"postconf -P 2525/inet/cleanup_service_name={cleanup}")
    host.run("postfix-archive key capture-maps && postfix reload")
    host.send("other", port=2525)
    host.send("main")
    host.wait_for_empty_queue()
    expected = [(ARCHIVE, f"bob@{HOST}"), (OTHER, f"bob@{HOST}")]
    assert archived(host) == sorted(expected)
    assert findings(host, mode) == []
    assert host.output(f"stat -c %a:%U:%G {MAP}.{OTHER}") == "600:root:root"


def findings(host: WholeHost, mode: str) -> list[str]:
    """Return what the doctor finds after the commands of cron, advice aside."""
    jobs = r"^[*\d].* root (postfix-archive [a-z -]+)"
    for command in re.findall(jobs, script(mode, range(7, 8)), re.M):
        host.run(command)
    found = json.loads(host.run("postfix-archive doctor --json || true").stdout)
    harms = [e for e in found["findings"] if e["severity"] != "ADVICE"]
    return [f"{each['check']}: {each['harm']}" for each in harms]


def go_back(host: WholeHost) -> None:
    """Take the installation back as the page says."""
    host.run("postconf -e archive_bypass=yes && postfix reload")
    host.run("postfix-archive status")
    for name in ("main.cf", "master.cf"):
        host.run(f"cp /etc/postfix/{name}.before-archive /etc/postfix/{name}")
    host.run("rm -f /etc/cron.d/postfix-archive /etc/postfix/archive-capture*")
    host.run("postfix reload")
