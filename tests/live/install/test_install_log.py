"""Installing says where Postfix logs, and what to do if the archive looks elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_host import HOST, WholeHost, count_records, install

pytestmark = pytest.mark.live

# A syslogd on a /dev of this host's own.
SYSLOGD = """
import os, socket
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
os.chmod("/dev/log", 0o666)
print("ready", flush=True)
with open("/var/log/syslog", "ab", buffering=0) as file:
    while True:
        line = log.recv(65536).partition(b">")[2]
        file.write(b"Nov 30 12:00:00 host " + line + b"\\n")
"""
OWN_DEV = "mount -t tmpfs tmpfs /mnt && cp -a /dev/. /mnt && mount --move /mnt /dev"
STALE = "touch -d '9 hours ago' /var/log/mail.log"
REMEDY = (
    "run postconf -e 'maillog_file = /var/log/postfix.log'; postfix reload; then"
    " postfix-archive install"
)


@pytest.fixture
def host(stock_host: Path, release: Path) -> Iterator[WholeHost]:
    """A host whose Postfix does not run yet."""
    with WholeHost(stock_host, release) as whole_host:
        yield whole_host


def log_line(output: str) -> str:
    """Return what make install says of the log, in its one line."""
    [line] = [each for each in output.splitlines() if each.startswith("Log: ")]
    return line.removeprefix("Log:").strip()


def test_a_log_that_nobody_writes_is_named_and_the_remedy_works(
    host: WholeHost, wheels: Path
) -> None:
    host.run(f"postconf -X maillog_file && {STALE} && postfix start")
    line = log_line(host.output(install(wheels)))
    assert line.startswith("the probe message is not in /var/log/mail.log, where")
    assert "but in no log at all: " in line and line.endswith(REMEDY)
    host.run(REMEDY.removeprefix("run ").replace("then ", ""))
    assert log_line(host.output(install(wheels))) == "/var/log/postfix.log"


def test_another_log_that_is_written_is_named(host: WholeHost, wheels: Path) -> None:
    host.run(OWN_DEV)
    start = f"python3 -c {shlex.quote(SYSLOGD)} >/run/syslogd 2>&1 &"
    host.run(f"{start} until grep -q ready /run/syslogd; do sleep 0.1; done")
    host.run(f"postconf -X maillog_file && {STALE} && postfix start")
    line = log_line(host.output(install(wheels)))
    assert "not in /var/log/mail.log, where" in line
    assert "but in /var/log/syslog: " in line and line.endswith(REMEDY)


def test_a_log_that_goes_to_a_container_s_output(host: WholeHost, wheels: Path) -> None:
    """maillog_file = /dev/stdout: all works but what must read the log."""
    host.run("postconf maillog_file=/dev/stdout")
    host.run("(postfix start-fg | cat >/var/log/stdout) >/dev/null 2>&1 &")
    host.wait("grep -q 'daemon started' /var/log/stdout", "Postfix runs")
    output = host.output(install(wheels))
    assert "/dev/stdout is a device or FIFO" in log_line(output)
    assert "WARNING log-unreadable" in output
    assert "Follower:   none: /dev/stdout is a device or FIFO" in output
    host.send("to a container")
    host.wait_for_empty_queue()
    assert count_records(host) == 1
    for command in ("reconcile", "doctor", "outcomes --once"):
        process = host.run(f"postfix-archive {command}", is_failure_expected=True)
        text = process.stdout + process.stderr
        assert "/dev/stdout is a device or FIFO" in text
        assert "1970" not in text
    assert host.run("postfix-archive verify").stderr == ""
    host.run("postfix-archive bypass on --reason=test")
    host.send("around")
    host.run("postfix-archive bypass off")
    host.wait_for_empty_queue()
    assert count_records(host) == 1
    assert "restored to its state before" in host.output("make uninstall")
    host.wait("grep -q 'relay=archive-stamp' /var/log/stdout", "Postfix logs there")
    host.send("after all")
    host.wait_for_empty_queue()
    assert f"<bob@{HOST}>" in host.output("cat /var/log/stdout")
