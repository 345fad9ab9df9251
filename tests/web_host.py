"""The web page as a host serves it: its own user, the access service, TLS by a proxy.

    with WebHost(fill) as host:
        host.url        https://archive.example.com:PORT, on 127.0.0.1
        host.run_command("history")

``fill`` adds messages to a sample store, which then belongs to ARCHIVE_USER; the page
runs as WEB_USER and reads it by the group READERS. The proxy is Debian's nginx or
apache2, with the example of contrib. Users and passwords are those of web_site. Needs
root.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import web_site
from private_postfix import free_ports
from sample_store import SampleStore

if TYPE_CHECKING:
    from typing import Self

ROOT = Path(__file__).resolve().parent.parent
# Users and a group of every Debian; the first group of WEB_USER is READERS.
ARCHIVE_USER, WEB_USER, READERS = "news", "uucp", "uucp"
HOST_NAME = "archive.example.com"
START_SECONDS = 60  # at most
SETTINGS = """\
archive_reader_group = {group}
archive_web_user = {user}
archive_access_socket = {directory}/run/access
archive_web_decisions = hold-add, hold-release, erase-request, erase-approve,
    erase-withdraw, replay
"""
WEB_SETTINGS = """\
web_directory = {directory}/web
web_listen = 127.0.0.1:{port}
web_url = https://{name}:{tls_port}
"""
NGINX = """\
daemon off;
pid {directory}/nginx.pid;
error_log stderr warn;
user {user};
events {{ }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    access_log {directory}/log;
    {server}
}}
"""
# With an access log of all hosts, as Debian has one.
APACHE = """\
ServerRoot {directory}
DefaultRuntimeDir {directory}
PidFile {directory}/apache2.pid
User {user}
Group {group}
Listen 127.0.0.1:{tls_port}
ServerName {name}
{modules}
ErrorLog {directory}/log
CustomLog {directory}/log combined
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\"" combined
{server}
"""
APACHE_MODULES = (
    *("mpm_event", "authz_core", "socache_shmcb", "alias"),
    *("ssl", "headers", "proxy", "proxy_http"),
)
CERTIFICATE = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
)


class WebHost:
    """A page over a sample store, and all processes that it needs."""

    def __init__(
        self,
        fill: Callable[[SampleStore], None],
        settings: str = "",
        *,
        proxy: str = "nginx",
    ) -> None:
        """Add messages with fill; settings are further lines of archive-web.cf.

        proxy: nginx or apache.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="pfa-web-"))
        self.port, self.tls_port = free_ports(2)
        self.url = f"https://{HOST_NAME}:{self.tls_port}"
        self._fill = fill
        self._settings = settings
        self._proxy = proxy
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for each in reversed(self._processes):
            each.terminate()
            each.wait()
        shutil.rmtree(self.directory)

    def run_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run postfix-archive on this instance; it never shows a traceback."""
        process = subprocess.run(
            self._command_line(*arguments), capture_output=True, text=True, check=False
        )
        assert "Traceback" not in process.stderr, process.stderr
        return process

    def actions(self, user: str) -> list[str]:
        """Return what the access journals say that somebody did, oldest first."""
        lines = self.run_command("history", "--user", user, "--json").stdout
        return [json.loads(each)["action"] for each in lines.splitlines()]

    @property
    def log(self) -> str:
        """What the processes have printed."""
        return (self.directory / "log").read_text(errors="replace")

    def memory(self) -> tuple[int, int]:
        """Return what the server of the page has in memory, and had at most, in kB."""
        status = Path(f"/proc/{self._server.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmRSS"].split()[0]), int(fields["VmHWM"].split()[0])

    def _command_line(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "postfix_archive", "-c", str(self.directory)]
        return [*command, *arguments]

    def _start(self) -> None:
        self.directory.chmod(0o755)
        self.store = SampleStore(self.directory)
        values = {
            "directory": self.directory,
            "group": READERS,
            "name": HOST_NAME,
            "port": self.port,
            "tls_port": self.tls_port,
            "user": WEB_USER,
        }
        with open(self.directory / "archive.cf", "a") as file:
            file.write(SETTINGS.format(**values))
        (self.directory / "archive-web.cf").write_text(
            WEB_SETTINGS.format(**values) + self._settings
        )
        self._fill(self.store)
        self.store.run("index", "--once")
        self._change_owner(self.directory / "store", ARCHIVE_USER)
        self._change_owner(self.directory / "index", ARCHIVE_USER)
        self.store.run("readers")
        (self.directory / "web").mkdir(mode=0o700)
        (self.directory / "web" / "web.db").write_bytes(web_site.users_database())
        self._change_owner(self.directory / "web", WEB_USER)
        self._run("access-service", ready=str(self.directory / "run" / "access"))
        self._server = self._run("web", ready=("127.0.0.1", self.port))
        self._make_certificate()
        if self._proxy == "nginx":
            self._run_nginx(values)
        else:
            self._run_apache(values)

    def _change_owner(self, directory: Path, user: str) -> None:
        account = pwd.getpwnam(user)
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, account.pw_uid, account.pw_gid)

    def _run(
        self, command: str, ready: str | tuple[str, int]
    ) -> subprocess.Popen[bytes]:
        return self._spawn(self._command_line(command), ready)

    def _make_certificate(self) -> None:
        subprocess.run(
            ["openssl", *CERTIFICATE.split(), "-subj", f"/CN={HOST_NAME}"]
            + ["-addext", f"subjectAltName=DNS:{HOST_NAME}"]
            + ["-keyout", str(self.directory / "key.pem")]
            + ["-out", str(self.directory / "cert.pem")],
            check=True,
            capture_output=True,
        )

    def _run_nginx(self, values: dict[str, object]) -> None:
        server = self._example(
            "web-nginx.conf",
            (r"listen 443 ssl;", f"listen 127.0.0.1:{self.tls_port} ssl;"),
            (r"listen \[::\]:443 ssl;", ""),
            (r"(?<=ssl_certificate)( +)/\S+;", rf"\1{self.directory}/cert.pem;"),
            (r"(?<=ssl_certificate_key)( +)/\S+;", rf"\1{self.directory}/key.pem;"),
            (r"error_log /\S+", "error_log stderr"),
            (r"127\.0\.0\.1:8090", f"127.0.0.1:{self.port}"),
        )
        path = self.directory / "nginx.conf"
        path.write_text(NGINX.format(**values, server=server))
        command = ["nginx", "-e", "stderr", "-p", str(self.directory), "-c", str(path)]
        self._spawn(command, ("127.0.0.1", self.tls_port))

    def _run_apache(self, values: dict[str, object]) -> None:
        server = self._example(
            "web-apache.conf",
            (r"(?<=VirtualHost \*:)443", str(self.tls_port)),
            (r"(?<=SSLCertificateFile)( +)/\S+", rf"\1{self.directory}/cert.pem"),
            (r"(?<=SSLCertificateKeyFile)( +)/\S+", rf"\1{self.directory}/key.pem"),
            (r"(?<=ProxyPass)( +/ http://127\.0\.0\.1:)8090", rf"\g<1>{self.port}"),
            (
                r"(?<=ProxyPassReverse)( / http://127\.0\.0\.1:)8090",
                rf"\g<1>{self.port}",
            ),
        )
        modules = "\n".join(
            f"LoadModule {each}_module /usr/lib/apache2/modules/mod_{each}.so"
            for each in APACHE_MODULES
        )
        path = self.directory / "apache2.conf"
        path.write_text(APACHE.format(**values, server=server, modules=modules))
        command = ["apache2", "-D", "FOREGROUND", "-f", str(path)]
        self._spawn(command, ("127.0.0.1", self.tls_port))

    def _example(self, name: str, *changes: tuple[str, str]) -> str:
        """Return an example of contrib, with the paths and ports of this host."""
        text = (ROOT / "contrib" / name).read_text()
        for pattern, replacement in changes:
            text, count = re.subn(pattern, replacement, text)
            assert count == 1, pattern
        return text

    def _spawn(
        self, command: list[str], address: str | tuple[str, int]
    ) -> subprocess.Popen[bytes]:
        """Start a process, wait until it listens, and return it."""
        with open(self.directory / "log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self._processes.append(process)
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket(family) as client:
                if not client.connect_ex(address):
                    return process
            assert process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.05)
