"""A batch of SMTP commands (bsmtp) that exim -bS of Debian reads, a program of others.

Exim is only unpacked, not installed. It queues what it reads and delivers nothing; its
queue is in a directory of the test, and its user exists in a mount namespace alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import corpora
from sample_store import SampleStore

pytestmark = pytest.mark.live

CONFIGURATION = """
spool_directory = {directory}/spool
log_file_path = {directory}/spool/%slog
primary_hostname = reader.example
keep_environment =
received_header_text =
untrusted_set_sender = *
queue_only = true
"""
# Exim insists on its user; root may read another configuration than the compiled one.
AS_EXIM = """
for name in passwd group; do mount --bind $name /etc/$name; done
exec {program} -C {directory}/configuration -odq -bS
"""
HEAD = b"From: a@example.org\r\nTo: b@example.net\r\nSubject: %d\r\n\r\n"
BODIES = (
    b"plain\r\n",
    b".\r\n..\r\n.dot\r\n",
    b"From the start\r\n>From\r\n",
    "Gr\u00fc\u00dfe, 東京\r\n".encode(),
    "\xe9\r\n".encode("latin-1"),
    b"x" * 5000 + b"\r\n",
    b"MAIL FROM:<a@example.org> BODY=8BITMIME\r\nQUIT\r\n",
    b"\r\n\r\n",
)
RECIPIENTS = (b"b@example.net", b"c@example.net", b"hidden@example.net")


def test_exim_reads_a_batch(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache
    package = corpora.unpack_package(
        "exim4-daemon-light", pytestconfig.cache.mkdir("corpora")
    )
    store = SampleStore(tmp_path / "host")
    senders = [b"a%d@example.org" % number for number in range(len(BODIES))]
    senders[1] = b""
    for number, body in enumerate(BODIES):
        content = HEAD % number + body
        store.add(content, sender=senders[number], recipients=RECIPIENTS)
    store.run("export", tmp_path / "out", "--format", "bsmtp")
    batch = (tmp_path / "out" / "messages.bsmtp").read_bytes()
    # exim -bS knows no extension; docs/exporting.md says so.
    batch = re.sub(rb"(?m)^(MAIL FROM:<.*>) BODY=8BITMIME\r$", rb"\1\r", batch)
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)  # Exim reads the configuration as its own user, too
    try:
        queue(directory, package / "usr" / "sbin" / "exim4", batch)
        found = dict(map(queued, (directory / "spool").rglob("*-D")))
    finally:
        shutil.rmtree(directory)
    expected = {}
    for number, body in enumerate(BODIES):
        body = re.sub(rb"(?m)^(MAIL FROM:<.*>) BODY=8BITMIME\r$", rb"\1\r", body)
        recipients = sorted(each.decode() for each in RECIPIENTS)
        sender = senders[number].decode()
        expected[str(number)] = (sender, recipients, body.replace(b"\r\n", b"\n"))
    assert found == expected


def queue(directory: Path, program: Path, batch: bytes) -> None:
    """Let Exim take a batch into the queue in this directory."""
    (directory / "configuration").write_text(CONFIGURATION.format(directory=directory))
    lines = {"passwd": "x:65533:65533::/:/bin/false", "group": "x:65533:"}
    for name, line in lines.items():
        text = Path(f"/etc/{name}").read_text() + f"Debian-exim:{line}\n"
        (directory / name).write_text(text)
    script = AS_EXIM.format(program=program, directory=directory)
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script],
        input=batch,
        cwd=directory,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()


def queued(content: Path) -> tuple[str, tuple[str, list[str], bytes]]:
    """Return subject, sender, recipients and body in Exim's queue file of a message."""
    envelope, _, header = (
        content.with_name(content.name.removesuffix("D") + "H")
        .read_text("utf-8", "replace")
        .partition("\n\n")
    )
    subject = re.search(r"Subject: (.*)", header)
    assert subject
    sender = envelope.splitlines()[2].strip("<>")
    recipients = sorted(re.findall(r"(?m)^\S+@example\.net$", envelope))
    return subject[1], (sender, recipients, content.read_bytes().partition(b"\n")[2])
