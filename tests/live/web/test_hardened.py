"""The page's server under the restrictions of its systemd unit, without systemd.

As ProtectSystem=strict, PrivateTmp=, NoNewPrivileges= and CapabilityBoundingSet= have
it: all file systems are read-only to it but its own directory, and it is its own user
for ever. Not here: its system calls, address families and namespaces.
"""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import web_host
import web_mails
from web_browser import Browser
from web_host import WEB_USER, WebHost

pytestmark = pytest.mark.live
DROP_RIGHTS = (
    f"setpriv --reuid={WEB_USER} --regid={WEB_USER} --init-groups --no-new-privs"
    " --bounding-set=-all --inh-caps=-all"
)
# A bind mount of / has none of the file systems below it: these become read-only, too.
RESTRICTED = f"""set -e
mount --make-rprivate /
mount --bind {{0}} {{0}} && mount --bind {{0}}/web {{0}}/web
for each in $(findmnt -rno TARGET | grep -vE '^/(dev|proc|sys)(/|$)')
do mount -o remount,ro,bind $each
done
mount -o remount,rw,bind {{0}}/web
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
cd {web_host.ROOT}
exec {DROP_RIGHTS} "$@"
"""
READ_ONLY, DENIED = "Read-only file system", "Permission denied"
REFUSED = (
    "touch store/x",
    "rm -f store/legal@example.com/journal.last",
    "unlink $(ls -d store/*/journal/* | head -n 1)",
    "chmod 666 $(ls -d store/*/journal/* | head -n 1)",
    "echo >> $(ls -d store/*/journal/* | head -n 1)",
    "touch index/x",
    "rm -r index",
    "echo >> archive.cf",
)


class HardenedHost(WebHost):
    """A host whose page is started as its unit has it."""

    def _run(
        self, command: str, ready: str | tuple[str, int]
    ) -> subprocess.Popen[bytes]:
        line = self._command_line(command)
        if command == "web":
            script = RESTRICTED.format(self.directory)
            line = ["unshare", "--mount", "sh", "-c", script, "sh", *line]
        return self._spawn(line, ready)

    def run_beside_server(self, command: str, rights: str) -> str:
        """Run a shell command that fails where the server runs; return its error."""
        process = subprocess.run(
            ["nsenter", f"--target={self._server.pid}", "--mount", *rights.split()]
            + ["sh", "-c", f"cd {self.directory} && {command}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode, command
        return process.stderr

    def children(self) -> str:
        """Return the process ids of the server's child processes."""
        pid = self._server.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()

    def status(self) -> dict[str, str]:
        """Return the rights of the server's process; see proc(5)."""
        lines = Path(f"/proc/{self._server.pid}/status").read_text().splitlines()
        return {
            key: value.strip() for key, _, value in (e.partition(":") for e in lines)
        }


@pytest.fixture(scope="module")
def host() -> Iterator[HardenedHost]:
    with HardenedHost(web_mails.fill) as instance:
        yield instance


def test_server_has_a_process_for_the_first_message(
    host: HardenedHost, browser: Browser
) -> None:
    """A first search would have hits without text: it takes longer than a page may."""
    visit = browser.visit(host.url)
    visit.go("/login")
    assert host.children()
    visit.close()


def test_server_can_do_its_work(host: HardenedHost, browser: Browser) -> None:
    """Search, a message, its HTML, an export and a hold."""
    visit = browser.visit(host.url)
    visit.log_in("otto")
    visit.go("/search?q=offer")
    assert "See our offer" in visit.page.inner_text("ol.hits p.text")
    visit.page.click("ol.hits a")
    visit.page.wait_for_selector("h2:has-text('Integrity')")
    visit.go("/exports?q=contract")
    visit.page.click("main form.work button")
    with visit.page.expect_download() as download:
        visit.page.click("text=messages.zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert web_mails.contract() in map(archive.read, archive.namelist())
    visit.go("/new-hold?query=subject:offer")
    visit.page.fill("#name", "smith")
    visit.page.fill("#reason", "court order")
    visit.page.click("text=Set the hold")
    assert "1 message in your archives" in visit.page.inner_text("main")
    visit.close()
    status = host.status()
    assert status["NoNewPrivs"] == "1"
    assert {int(status[f"Cap{each}"], 16) for each in ("Prm", "Eff", "Bnd")} == {0}


@pytest.mark.parametrize("command", REFUSED)
def test_server_can_change_nothing(host: HardenedHost, command: str) -> None:
    """Not even as root; and nothing has changed."""
    error = host.run_beside_server(command, DROP_RIGHTS)
    assert DENIED in error or READ_ONLY in error
    assert READ_ONLY in host.run_beside_server(command, "")
    assert host.run_command("verify").returncode == 0
