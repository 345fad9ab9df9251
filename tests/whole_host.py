"""A whole Debian host for tests: this machine's, in namespaces of its own.

/etc, /var and /usr/local are overlays that vanish with it; the network is a loopback
of its own. Postfix has the configuration that Debian's package gives a fresh host.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from private_postfix import CHECK, ROOT, TIMEOUT

HOST = "host.example.com"
OVERLAID = ("etc", "var", "usr/local")
# Layers are tar files of what the overlays' upper directories hold.
MOUNTED = """
set -e
mount -t tmpfs tmpfs {directory}
for path in {paths}; do mkdir -p {directory}/upper/$path {directory}/work/$path; done
for layer in {layers}; do
    tar -C {directory}/upper --xattrs --xattrs-include='trusted.overlay.*' -xf $layer
done
for path in {paths}; do
    mount -t overlay overlay /$path \\
      -o lowerdir=/$path,upperdir={directory}/upper/$path,workdir={directory}/work/$path
done
ip link set lo up
# As systemd sets it. With the kernel's 10, Postfix's own log socket can fill up while
# postlogd(8) restarts, and all that logs stands still.
echo 512 > /proc/sys/net/unix/max_dgram_qlen
echo ready
exec sleep infinity
"""
STOCK = f"""
set -e
rm -rf /usr/local/lib/postfix-archive /usr/local/sbin/postfix-archive
rm -rf /etc/postfix-archive /var/lib/postfix-archive /etc/postfix/archive.*
rm -f /etc/postfix/main.cf /var/spool/postfix/pid/* /var/lib/postfix/master.lock
cp /etc/postfix/master.cf.proto /etc/postfix/master.cf
echo "postfix postfix/main_mailer_type select Internet Site" | debconf-set-selections
echo "postfix postfix/mailname string {HOST}" | debconf-set-selections
DEBIAN_FRONTEND=noninteractive dpkg-reconfigure postfix >/dev/null 2>&1
postconf -e myhostname={HOST} maillog_file=/var/log/postfix.log
useradd --no-create-home bob
useradd --no-create-home legal
"""
# A content filter that adds a header line, and its services.
SCANNED = "X-Scanned: yes"
SCAN = f"""#!/usr/bin/python3
# A content filter that gives back by SMTP.
import smtplib, sys
with smtplib.SMTP("127.0.0.1", 10025) as peer:
    text = b"{SCANNED}\\r\\n" + sys.stdin.buffer.read().replace(b"\\n", b"\\r\\n")
    peer.sendmail(sys.argv[1], sys.argv[2:], text)
"""
REINJECTION_ENTRY = "127.0.0.1:10025 inet n - n - - smtpd -o content_filter="
REINJECTION_ENTRY += " -o syslog_name=postfix/back"
FILTER_ENTRY = "scan unix - n n - 4 pipe flags=Rq user=bob null_sender="
FILTER_ENTRY += " argv=/usr/local/bin/scan {${sender}} {${recipient}}"
# What make test says to a make below it, and a user's make is not told.
MAKE_VARIABLES = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


class WholeHost:
    """Namespaces with a Debian host in them; Postfix is not yet started.

    The layers are made by save(): stock_host and release of conftest.py.
    """

    def __init__(self, *layers: Path) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="pfa-host-", dir="/tmp"))
        script = MOUNTED.format(
            directory=self._directory,
            paths=" ".join(OVERLAID),
            layers=" ".join(map(str, layers)),
        )
        self._process = subprocess.Popen(
            ["unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc"]
            + ["sh", "-c", f"exec 2>&1\n{script}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if first != "ready\n":
            reasons = first + self._process.stdout.read()
            self.close()
            raise RuntimeError(f"the namespaces could not be made: {reasons}")
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._nsenter = ["nsenter", "-t", children[0], "-m", "-n", "-p", "--"]

    def __enter__(self) -> WholeHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process in there; the overlays go with them."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(
        self, command: str, *, stdin: str = "", is_failure_expected: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in there, from the checkout; it must succeed or fail."""
        process = subprocess.run(
            self.command(command),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert bool(process.returncode) == is_failure_expected, (
            process.stdout + process.stderr + self.log()
        )
        return process

    def command(self, command: str) -> list[str]:
        """Return the command line that runs a shell command in there."""
        unset = [f"--unset={name}" for name in sorted(MAKE_VARIABLES)]
        script = f"cd {ROOT} && {command}"
        return ["env", *unset, *self._nsenter, "sh", "-c", script]

    def output(self, command: str) -> str:
        """Return what a command prints that must succeed."""
        return self.run(command).stdout.strip()

    def log(self) -> str:
        """Return the end of Postfix's log, what is queued, what postfix check says."""
        check = f"{shlex.join(CHECK)} 'postfix check'"
        command = f"tail -n 60 /var/log/postfix.log; postqueue -p; date; {check}"
        process = subprocess.run(
            [*self._nsenter, "sh", "-c", command],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        return process.stdout

    def save(self, layer: Path, path: str = "") -> None:
        """Write what is changed on this host, or below a path, as a layer."""
        self.run(
            f"tar -C {self._directory}/upper --xattrs"
            f" --xattrs-include='trusted.overlay.*' -cf {layer} {path or '.'}"
        )

    def configuration(self) -> dict[str, str]:
        """Return mode, owner and digest of every file of Postfix's configuration."""
        listing = self.output(
            "cd /etc/postfix && find . -type f -printf '%p %m %U:%G ' "
            "-exec sha256sum {} \\; | sort"
        )
        return dict(line.split(" ", 1) for line in listing.splitlines())

    def send(self, subject: str, *to: str, port: int = 25) -> None:
        """Send one message by SMTP, to bob unless somebody else is named."""
        message = f"From: <alice@example.org>\nSubject: {subject}\n\nhello\n"
        program = (
            "import smtplib,sys; s = smtplib.SMTP('127.0.0.1', sys.argv[1]);"
            " s.sendmail('alice@example.org', sys.argv[2:],"
            " sys.stdin.read()); s.quit()"
        )
        recipients = " ".join(to or (f"bob@{HOST}",))
        self.run(f'python3 -c "{program}" {port} {recipients}', stdin=message)

    def wait(self, command: str, description: str) -> None:
        """Return when a shell command succeeds; fail with the log if it never does."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            process = subprocess.run(
                [*self._nsenter, "sh", "-c", command], capture_output=True, check=False
            )
            if not process.returncode:
                return
            time.sleep(0.1)
        raise AssertionError(f"never came: {description}\n{self.log()}")

    def wait_for_empty_queue(self) -> None:
        """Return when the queue is empty, three looks in a row.

        Flushes: what qmgr(8) finds locked by the delivery before, it would let wait for
        five minutes.
        """
        empty = "postqueue -j | wc -l | grep -qx 0"
        command = f"{empty} && {empty} && {empty} || {{ postqueue -f; false; }}"
        self.wait(command, "the queue is empty")


def install(wheels: Path, options: str = "") -> str:
    """Return the command that archives to legal@HOST, without a package index."""
    return f"make install ARCHIVE=legal@{HOST} WHEELS={wheels} {options}"


def count_records(host: WholeHost) -> int:
    """Return how many records the archive has, the probes aside."""
    listing = host.output("postfix-archive list --json")
    return sum("archive-probe.invalid" not in line for line in listing.splitlines())
