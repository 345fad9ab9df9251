"""A whole Postfix instance of its own, for tests and the demonstration.

Own configuration, queue, data, log and free ports in one temporary directory; nothing
of the host's own mail is touched. Needs root, since Postfix does.

    with PrivatePostfix(archive="legal@example.com") as postfix:
        postfix.send(b"Subject: hello", to=["bob@example.net"])
        postfix.settle()
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import journal_lines

if TYPE_CHECKING:
    from typing import IO, Self

ROOT = Path(__file__).resolve().parent.parent
USER = "nobody"  # pipe(8) wants a user that is neither root nor Postfix's own
GROUP = "nogroup"
DAEMON_DIRECTORY = "/usr/lib/postfix/sbin"
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
TIMEOUT = 180.0  # seconds until a condition that should come counts as never coming
# Postfix's commands name their reasons on standard error only if that is a terminal.
CHECK = ("timeout", "60", "script", "--quiet", "--return", "/dev/null", "--command")
KEY = "test 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
RESERVED_PORTS: dict[int, int] = (
    {}
)  # by free_ports(): port -> descriptor that keeps it for us
PORT_RANGE = range(11000, 32000)
MAX_TEST_WORKERS = 16  # processes of one run of tests, at most
MODES = ("pipe", "lmtp")
MODES_AND_CAPSULE = (
    *MODES,
    "capsule",
)  # the pipe mode, with every copy in a queue file of its own
NATIVE_MODES = ("native", "native-pipe")
ALL_MODES = (*MODES_AND_CAPSULE, "native")
WITHOUT_WRITE_THROUGH = {"archive_write_through_time_limit": "0"}
MODE_MASTER_CF = {
    "pipe": "10-archive-stamp.cf",
    "lmtp": "40-archive-lmtp.cf",
    "native": "50-archive-capture.cf",
    "native-pipe": "60-archive-capture-pipe.cf",
}  # the file of master.cf.d that only this mode has
CAPTURE_TABLE = "archive-capture"
# Parameters of 00-main.cf that native mode has not.
CONTENT_FILTER_PARAMETERS = ("content_filter", "receive_override_options")
DEFAULT_PORTS = (10026, 10027, 10028, 10029, 10030)
PORT_SETTINGS = (
    "archive_handback_address",
    "archive_capsule_address",
    "archive_copy_address",
    "archive_relay_address",
    "archive_refused_address",
)

MAIN = {
    "compatibility_level": "3.6",
    "command_directory": "/usr/sbin",
    "daemon_directory": DAEMON_DIRECTORY,
    "mail_owner": "postfix",
    "setgid_group": "postdrop",
    "myhostname": "mail.example.com",
    "mydomain": "example.com",
    "mydestination": "",
    "inet_interfaces": "loopback-only",
    "inet_protocols": "ipv4",
    "mynetworks": "127.0.0.0/8",
    "alias_maps": "",
    "local_recipient_maps": "",
    "default_transport": "sink:",
    "relay_domains": "",
    "smtpd_recipient_limit": "100000",
    "smtpd_relay_restrictions": "permit_mynetworks,reject",
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "queue_run_delay": "1s",
    # Else Postfix waits a minute with a service, of which a process was killed.
    "service_throttle_time": "1s",
    "transport_retry_time": "1s",
    "smtputf8_enable": "yes",
    "enable_long_queue_ids": "yes",
    "sink_destination_recipient_limit": "1000",
    "biff": "no",
}

MASTER = """
127.0.0.1:{smtp} inet n - n - - smtpd
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
sink unix - n n - 10 pipe
  flags=q user={user} null_sender=
  argv={sink} {directory}/sink {{${{queue_id}}}} {{${{sender}}}}
  {{${{recipient}}}} {{${{original_recipient}}}}
"""


@dataclass(frozen=True)
class Delivery:
    """One delivery that the sink has seen; content has LF line ends, from pipe(8)."""

    queue_id: str
    sender: str
    recipients: tuple[str, ...]
    originals: tuple[str, ...]
    content: bytes


class WaitTimeout(AssertionError):
    """A condition did not come true; the log's end is in the text."""


class PrivatePostfix:
    """One running Postfix instance, with the archive in it if has_archive.

    Copies go straight into the store; with the mode "capsule", a pipe mode, they go
    through the queue.
    """

    def __init__(
        self,
        *,
        archive: str = "legal@example.com",
        main: dict[str, str] | None = None,
        archive_cf: dict[str, str] | None = None,
        master: str = "",
        store: Path | None = None,
        edit_master: Callable[[str], str] | None = None,
        has_archive: bool = True,
        mode: str = "pipe",
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pfa-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.etc = self.directory / "etc"
        self.queue_directory = self.directory / "queue"
        self.log_path = self.directory / "log" / "maillog"
        self.program_directory = self.directory / "lib"
        self.store = store or self.directory / "store"
        self.fallback = self.directory / "fallback"
        self.sink_directory = self.directory / "sink"
        self.ports = free_ports(1 + len(DEFAULT_PORTS))
        self.smtp_port = self.ports[0]
        self._archive = archive
        self._has_archive = has_archive
        self._mode = "pipe" if mode == "capsule" else mode
        self._main = main or {}
        self._archive_cf = archive_cf or {}
        if mode == "capsule":
            self._archive_cf = {**WITHOUT_WRITE_THROUGH, **self._archive_cf}
        self._master = master
        self._edit_master = edit_master or (lambda text: text)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_directory_kept = False
        self._build()

    # --- life ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, exc_type: object, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        if self._is_running():
            self.kill()
        release_ports(self.ports)
        self._is_directory_kept = exc_type is not None and bool(os.environ.get("KEEP"))
        if self._is_directory_kept:
            print(f"kept for a look: {self.directory}")
        self.remove()

    def remove(self) -> None:
        """Remove what is left of it: once more for whoever had mounted something."""
        if not self._is_directory_kept:
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start Postfix; return when it answers on its SMTP port."""
        self._run_postfix("start")
        try:
            self.wait(self._is_answering, "Postfix answers on its SMTP port")
        except WaitTimeout as error:
            raise WaitTimeout(f"{error}\n{self._checked()}") from None

    def stop(self) -> None:
        """Stop Postfix in good order."""
        self._run_postfix("stop")
        self.wait(lambda: not self._is_running(), "Postfix has stopped")

    def reload(self, *, has_busy_processes: bool = False) -> None:
        """Make Postfix read its configuration again.

        Returns when no process is left that has read the old one, since one that is
        idle may take a client yet before it ends; busy ones are not waited for.
        """
        count_before = self.log().count("postfix/master[")
        old_pids = descendants(self.master_pid)
        self._run_postfix("reload")
        self.wait(
            lambda: self.log().count("postfix/master[") > count_before,
            "Postfix has reloaded",
        )
        if not has_busy_processes:
            self.wait(
                lambda: not set(old_pids) & set(descendants(self.master_pid)),
                "all processes are new",
            )

    def kill(self) -> None:
        """Kill every process of this instance at once, as a power cut would."""
        master_pid = self.master_pid
        for pid in [master_pid, *descendants(master_pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.wait(lambda: not self._is_running(), "Postfix is dead")

    @property
    def master_pid(self) -> int:
        """The process id of this instance's master(8)."""
        return int((self.queue_directory / "pid" / "master.pid").read_text())

    # --- mail in --------------------------------------------------------------------

    def send(
        self,
        content: bytes,
        *,
        sender: str = "alice@example.org",
        to: Iterable[str] = ("bob@example.net",),
        port: int | None = None,
        options: tuple[str, ...] = (),
        rcpt_options: tuple[str, ...] = (),
        helo: str = "client.example.org",
    ) -> str:
        """Send a message over SMTP; return Postfix's queue id. Line ends may be LF."""
        with Client(port or self.smtp_port, helo) as client:
            return client.send(
                content,
                sender=sender,
                to=to,
                options=options,
                rcpt_options=rcpt_options,
            )

    def sendmail(
        self, content: bytes, *, sender: str | None = None, to: Iterable[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Give a message to sendmail(1)."""
        command = ["/usr/sbin/sendmail", "-C", str(self.etc), "-i"]
        if sender is not None:
            command += ["-f", sender]
        return subprocess.run(
            [*command, "--", *to],
            input=content,
            env={**os.environ, "MAIL_CONFIG": str(self.etc)},
            capture_output=True,
            check=False,
        )

    # --- what has come of it ----------------------------------------------------------

    def log(self) -> str:
        """Return Postfix's log."""
        return (
            self.log_path.read_text("utf-8", "replace")
            if self.log_path.exists()
            else ""
        )

    def mailq(self) -> list[dict[str, object]]:
        """Return the queue as postqueue -j tells it, when two looks agree.

        showq(8) reads one queue after the other: a message that moves between two of
        them meanwhile is told of twice or not at all. A queue in which mail moves all
        the time is told as the last of fifty looks saw it.
        """
        listing = self._read_mailq()
        for _ in range(50):
            previous, listing = listing, self._read_mailq()
            if _queue_names(previous) == _queue_names(listing):
                break
        return listing

    def _read_mailq(self) -> list[dict[str, object]]:
        process = subprocess.run(
            ["postqueue", "-c", str(self.etc), "-j"], capture_output=True, check=True
        )
        return [json.loads(line) for line in process.stdout.splitlines()]

    def last_failure(self) -> str:
        """Return the reason of the last failure of a transport."""
        from postfix_archive.system import failure_log

        return failure_log.last(
            str(self.etc),
            str(self.directory / "spool"),
            owner_of=(str(self.fallback), str(self.etc / "archive.key")),
        )

    def queue_files(self) -> list[str]:
        """Return the paths of all queue files."""
        paths = []
        for queue in QUEUES:
            for directory, _, names in os.walk(self.queue_directory / queue):
                paths += [os.path.join(directory, name) for name in names]
        return paths

    def deliveries(self) -> list[Delivery]:
        """Return all that the sink has been given so far."""
        return [
            _read_delivery(path)
            for path in sorted(self.sink_directory.glob("*.delivered"))
        ]

    def delivered_to(self, address: str) -> list[Delivery]:
        """Return the deliveries in which this recipient was."""
        return [each for each in self.deliveries() if address in each.recipients]

    def stored_files(self, archive: str | None = None) -> list[Path]:
        """Return the files of the store, of one archive or of all."""
        directory = self.store / archive if archive else self.store
        return sorted(directory.rglob("*.eml.gz"))

    def events(self, archive: str | None = None) -> list[dict[str, object]]:
        """Return the journal of an archive."""
        return journal_lines.events(self.store / (archive or self._archive))

    def run_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run postfix-archive on this instance; it never shows a traceback."""
        process = subprocess.run(
            self._command_line(*arguments),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in process.stderr, process.stderr
        return process

    def start_command(
        self, *arguments: str, output: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Begin a command of postfix-archive; it ends with this instance or before."""
        command = self._command_line(*arguments)
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        self._processes.append(process)
        return process

    def _command_line(self, *arguments: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "postfix_archive",
            "-c",
            str(self.etc),
            *arguments,
        ]

    # --- time -----------------------------------------------------------------------

    def wait(self, condition: Callable[[], object], description: str) -> None:
        """Return when the condition is true; raise NotInTime if it never is."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                log_tail = "\n".join(self.log().splitlines()[-40:])
                raise WaitTimeout(f"never came: {description}\n{log_tail}")
            time.sleep(0.02)

    def wait_for_empty_queue(self) -> None:
        """Return when all queues are empty: several looks, since files move about."""
        self.wait(
            lambda: not any(self.queue_files() for _ in range(3))
            and not self.mailq()
            and not self.queue_files(),
            "the queue is empty",
        )

    def wait_for_log(self, pattern: str, count: int = 1) -> None:
        """Return when a regular expression stands in the log so often."""
        self.wait(
            lambda: len(re.findall(pattern, self.log())) >= count,
            f"{count} times {pattern} in the log",
        )

    def wait_for_failure(self, pattern: str) -> str:
        """Return the reason of a transport's last failure when it is that one."""
        self.wait(lambda: re.search(pattern, self.last_failure()), f"{pattern} failed")
        return self.last_failure()

    def flush(self) -> None:
        """Make Postfix try all deferred mail now."""
        subprocess.run(["postqueue", "-c", str(self.etc), "-f"], check=True)

    # --- configuration ----------------------------------------------------------------

    def postconf(self, **values: str) -> None:
        """Set main.cf parameters; takes effect with reload()."""
        pairs = [f"{name}={value}" for name, value in values.items()]
        subprocess.run(["postconf", "-c", str(self.etc), "-e", *pairs], check=True)

    def add_to_environment(self, **values: str) -> None:
        """Export variables to all commands that Postfix runs; before start().

        Services of master.cf may have an export_environment of their own.
        """
        postconf = ["postconf", "-c", str(self.etc)]
        added = ",".join(f"{name}={value}" for name, value in values.items())
        added = added.replace("$", "$$")
        shown = [["export_environment"], ["-P", "*/*/export_environment"]]
        for arguments in shown:
            output = subprocess.check_output([*postconf, *arguments], text=True)
            for line in output.splitlines():
                name, _, value = line.partition(" = ")
                names = ",".join(value.replace(",", " ").split())
                option = ["-P"] if "/" in name else []
                pair = f"{name}={names},{added}"
                subprocess.run([*postconf, *option, "-e", pair], check=True)

    def add_login(self, user: str, domain: str, password: str) -> None:
        """Let a user log in, by Cyrus SASL; before start()."""
        database = self.directory / "sasldb2"
        subprocess.run(
            ["saslpasswd2", "-p", "-c", "-f", database, "-u", domain, user],
            input=password.encode(),
            check=True,
        )
        database.chmod(0o644)
        (self.etc / "sasl").mkdir()
        (self.etc / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN\n"
            f"sasldb_path: {database}\n"
        )
        self.postconf(
            smtpd_sasl_auth_enable="yes", cyrus_sasl_config_path=f"{self.etc}/sasl"
        )

    def delete_messages(self, queue_ids: Iterable[str]) -> None:
        """Delete messages from the queue."""
        command = ["postsuper", "-c", str(self.etc), "-d", "-"]
        text = "".join(f"{each}\n" for each in queue_ids)
        subprocess.run(command, input=text.encode(), check=True, capture_output=True)

    def set_archive_cf(self, **values: str) -> None:
        """Write archive.cf anew with these settings besides the instance's own."""
        ports = zip(PORT_SETTINGS, self.ports[1:])
        settings = {
            "myhostname": "mail.example.com",
            "archive_store_directory": str(self.store),
            "archive_spool_directory": str(self.directory / "spool"),
            "archive_fallback_directory": str(self.fallback),
            **{name: f"127.0.0.1:{port}" for name, port in ports},
            **self._archive_cf,
            **values,
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.etc / "archive.cf").write_text(text)

    def _build(self) -> None:
        for directory in (
            self.etc,
            self.queue_directory,
            self.directory / "data",
            self.log_path.parent,
        ):
            directory.mkdir()
        shutil.chown(self.directory / "data", "postfix")
        # postsuper(1) writes into the log as mail_owner where no postlogd(8) runs: what
        # a killed cleanup(8) leaves would keep Postfix from starting.
        self.log_path.touch()
        shutil.chown(self.log_path, "postfix")
        for directory in (
            self.store,
            self.fallback,
            self.sink_directory,
            self.directory / "spool",
        ):
            directory.mkdir(exist_ok=True)
            shutil.chown(directory, USER, GROUP)
            directory.chmod(0o700)
        shutil.copy(ROOT / "tests" / "sink.py", self.directory / "sink.py")
        (self.directory / "sink.py").chmod(0o755)
        (self.etc / "main.cf").write_text("".join(self._main_lines()))
        master = self._with_workers(self._edit_master(self._master_text()))
        master = self._with_capture_tables(master)
        (self.etc / "master.cf").write_text(master)
        if self._has_archive:
            self._build_archive()
        for link in ("dynamicmaps.cf", "dynamicmaps.cf.d", "postfix-files"):
            (self.etc / link).symlink_to(f"/etc/postfix/{link}")

    def _build_archive(self) -> None:
        install_program(self.program_directory)
        key = self.etc / "archive.key"
        key.touch(0o600)
        key.write_text(KEY)
        shutil.chown(key, USER, GROUP)
        if self._is_native:
            value = self._main.get("archive", self._archive)
            self._write_capture_table(CAPTURE_TABLE, value or "on-request")
        self.set_archive_cf()

    def _main_lines(self) -> Iterator[str]:
        values = {
            **MAIN,
            "queue_directory": str(self.queue_directory),
            "data_directory": str(self.directory / "data"),
            "maillog_file": str(self.log_path),
            "maillog_file_prefixes": str(self.directory),
            **(self._archive_main() if self._has_archive else {}),
            **self._main,
        }
        for name, value in values.items():
            yield f"{name} = {value}\n"

    def _archive_main(self) -> dict[str, str]:
        parameters = {**_archive_parameters(), "archive": self._archive}
        text = (ROOT / "master.cf.d" / MODE_MASTER_CF[self._mode]).read_text()
        parameters.update(re.findall(r"^#   ([\w-]+) = (.*)$", text, re.M))
        if self._is_native:
            for each in CONTENT_FILTER_PARAMETERS:
                del parameters[each]
            if not self._archive:  # as the installer does for lookup tables alone
                [tables] = re.findall(
                    r"{archive\?{(.*)}}}}$", parameters["recipient_bcc_maps"]
                )
                parameters["recipient_bcc_maps"] = tables
        return parameters

    @property
    def _is_native(self) -> bool:
        return self._mode.startswith("native")

    def _with_capture_tables(self, master: str) -> str:
        """Give each service with -o archive=value the cleanup(8) service it needs."""
        if not (self._has_archive and self._is_native):
            return master
        for value in dict.fromkeys(
            re.findall(r"^[^#\n]*-o archive=(\S*)", master, re.M)
        ):
            name = f"archive-cleanup.{value or 'none'}"
            # A comma would end the name of the table.
            table_name = f"{CAPTURE_TABLE}.{value.replace(',', ':')}"
            table = f"regexp:$config_directory/{table_name}" if value else ""
            master = re.sub(
                rf"^[^#\n]*-o archive={re.escape(value)}(?=\s)",
                rf"\g<0> -o cleanup_service_name={name}",
                master,
                flags=re.M,
            )
            master += f"{name} unix n - n - 0 cleanup -o recipient_bcc_maps={table}\n"
            if value:
                self._write_capture_table(table_name, value)
        return master

    def _write_capture_table(self, name: str, archive: str) -> None:
        from postfix_archive.message import keyring, request

        path = self.etc / name
        path.touch(0o600)
        path.write_text(request.capture_table(archive, keyring.parse(KEY, path="KEY")))

    def _with_workers(self, master: str) -> str:
        """Give each archive that is asked for its spawn(8) service, as install does."""
        if not self._has_archive or self._mode != "lmtp":
            return master
        own_service = f"archive.{self._archive}"
        [entry] = re.findall(
            rf"^{re.escape(own_service)} .*\n(?:  .*\n)+", master, re.M
        )
        archives = re.findall(r"-o archive=([^\s/]+)$", master, re.M)
        if value := self._main.get("archive"):
            archives.append(value)
        for archive in dict.fromkeys(archives):
            if not re.search(rf"^archive\.{re.escape(archive)} ", master, re.M):
                worker = entry.replace(own_service, f"archive.{archive}", 1)
                old, new = f"--nexthop {self._archive}\n", f"--nexthop {archive}\n"
                master += worker.replace(old, new)
        return master

    def _master_text(self) -> str:
        text = MASTER.format(
            smtp=self.smtp_port,
            user=f"{USER}:{GROUP}",
            sink=self.directory / "sink.py",
            directory=self.directory,
        )
        if not self._has_archive:
            return text + self._master
        others = {"00-main.cf", *MODE_MASTER_CF.values()}
        others.remove(MODE_MASTER_CF[self._mode])
        for path in sorted((ROOT / "master.cf.d").glob("*.cf")):
            if path.name not in others:
                text += path.read_text()
        for default_port, free_port in zip(DEFAULT_PORTS, self.ports[1:]):
            text = text.replace(f"127.0.0.1:{default_port} ", f"127.0.0.1:{free_port} ")
        text = text.replace("user=postfix-archive", f"user={USER}:{GROUP}")
        text = text.replace(
            "/usr/local/lib/postfix-archive", str(self.program_directory)
        )
        text = text.replace("archive@example.com", self._archive)
        return text + self._master

    def _run_postfix(self, verb: str) -> None:
        process = subprocess.run(
            ["postfix", "-c", str(self.etc), verb],
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            reasons = process.stderr[-2000:], self.log()[-2000:], self._checked()
            raise RuntimeError("\n".join((f"postfix {verb} failed:", *reasons)))

    def _checked(self) -> str:
        """Return what postfix check has to say."""
        run = subprocess.run(
            [*CHECK, f"postfix -c {self.etc} check"], capture_output=True, check=False
        )
        return f"postfix check: {run.stdout[-2000:].decode(errors='replace')}"

    def _is_answering(self) -> bool:
        try:
            with socket.create_connection(
                ("127.0.0.1", self.smtp_port), 5
            ) as connection:
                return connection.recv(4).startswith(b"220")
        except OSError:
            return False

    def _is_running(self) -> bool:
        process = subprocess.run(
            ["postfix", "-c", str(self.etc), "status"], capture_output=True, check=False
        )
        return process.returncode == 0


class Client:
    """An SMTP client that sends bytes as they are."""

    def __init__(self, port: int, helo: str = "client.example.org") -> None:
        self.smtp = smtplib.SMTP(
            "127.0.0.1", port, local_hostname=helo, timeout=TIMEOUT
        )
        self.smtp.ehlo()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.smtp.close()

    def send(
        self,
        content: bytes,
        *,
        sender: str = "alice@example.org",
        to: Iterable[str] = ("bob@example.net",),
        options: tuple[str, ...] = (),
        rcpt_options: tuple[str, ...] = (),
    ) -> str:
        """Send one message; return its queue id, or raise what the server says."""
        self.command(" ".join((f"MAIL FROM:<{sender}>", *options)), 250)
        recipients = list(to)
        for offset in range(0, len(recipients), 100):
            batch = recipients[offset : offset + 100]
            lines = [" ".join((f"RCPT TO:<{r}>", *rcpt_options)) for r in batch]
            self.smtp.send("".join(line + "\r\n" for line in lines).encode())
            for _ in batch:
                self._check_reply(self.smtp.getreply(), 250)
        self.command("DATA", 354)
        self.smtp.send(dot_stuffed(content))
        reply = self.smtp.getreply()
        self._check_reply(reply, 250)
        return reply[1].decode().rpartition("queued as ")[2]

    def command(self, command: str, code: int) -> bytes:
        """Send one command line; return the reply's text, raise if it is another."""
        self.smtp.send(command.encode() + b"\r\n")
        reply = self.smtp.getreply()
        self._check_reply(reply, code)
        return reply[1]

    @staticmethod
    def _check_reply(reply: tuple[int, bytes], code: int) -> None:
        if reply[0] != code:
            raise smtplib.SMTPResponseException(*reply)


def dot_stuffed(content: bytes) -> bytes:
    """Return content as it stands after DATA: CRLF, dots doubled, final dot."""
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    return b"".join(line + b"\r\n" for line in stuffed) + b".\r\n"


def install_program(directory: Path) -> None:
    """Lay down the package and its launchers as an installation does."""
    shutil.copytree(_built_program(), directory)  # with its mtimes: see load_bundle()


@functools.cache
def _built_program() -> Path:
    """Return a directory with the program, compiled once for this process."""
    directory = Path(tempfile.mkdtemp(prefix="pfa-program-", dir="/tmp"))
    atexit.register(shutil.rmtree, directory)
    _build_program(directory / "lib")
    return directory / "lib"


def _build_program(directory: Path) -> None:
    shutil.copytree(
        ROOT / "postfix_archive",
        directory / "postfix_archive",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for launcher in ("archive-stamp", "archive-capture", "archive", "archive-lmtp"):
        shutil.copy(
            ROOT / "postfix_archive" / "intake" / "launcher.py", directory / launcher
        )
        (directory / launcher).chmod(0o755)
    reference = ROOT / "postfix_archive" / "master.cf.d"
    shutil.copy(reference / "delivery-status-filter", directory)
    bundle = directory / "postfix_archive" / "system" / "import_bundle.py"
    for command in (["-m", "compileall", "-q", directory], [bundle, directory]):
        subprocess.run(["/usr/bin/python3", "-I", *command], check=True)


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens, none of them twice, by whatever run.

    Each process of a run has a range of its own, below those that the kernel gives to
    clients (ip(7), ip_local_port_range). Of several runs at once each keeps a name for
    a port until it gives it back: else mail of one would go to the other.
    """
    worker_number = (
        int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % MAX_TEST_WORKERS
    )
    first = PORT_RANGE.start + worker_number * len(PORT_RANGE) // MAX_TEST_WORKERS
    last = PORT_RANGE.start + (worker_number + 1) * len(PORT_RANGE) // MAX_TEST_WORKERS
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(first, last)
        if _is_free(port) and _can_reserve(port):
            ports.append(port)
    return ports


def _can_reserve(port: int) -> bool:
    lock_socket = socket.socket(socket.AF_UNIX)
    try:
        lock_socket.bind(f"\0postfix-archive-tests-{port}")  # unix(7), abstract
    except OSError:
        lock_socket.close()
        return False
    RESERVED_PORTS[port] = lock_socket.detach()
    return True


def release_ports(ports: Iterable[int]) -> None:
    """Let others have ports again that free_ports() has given."""
    for each in ports:
        os.close(RESERVED_PORTS.pop(each))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _archive_parameters() -> dict[str, str]:
    """Return the parameters of master.cf.d/00-main.cf."""
    parameters = {}
    for line in (ROOT / "master.cf.d" / "00-main.cf").read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            parameters[name.strip()] = value.strip()
    return parameters


def _queue_names(listing: list[dict[str, object]]) -> list[tuple[str, str]]:
    return sorted((str(each["queue_id"]), str(each["queue_name"])) for each in listing)


def _read_delivery(path: Path) -> Delivery:
    envelope, _, content = path.read_bytes().partition(b"\0\0\0")
    sender, *addresses = envelope.decode("utf-8", "surrogateescape").split("\0")
    half = len(addresses) // 2
    return Delivery(
        path.name.partition(".")[0],
        sender,
        tuple(addresses[:half]),
        tuple(addresses[half:]),
        content,
    )


def descendants(pid: int) -> list[int]:
    """Return the pids of all processes below one."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children[parent].append(int(path.parent.name))
    pids = [pid]
    for each in pids:
        pids += children[each]
    return pids[1:]
