"""make install WITH=web on a whole host: the user, the settings, the service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_host import WholeHost, install

pytestmark = pytest.mark.live
UNIT = "postfix-archive-web-postfix.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
USER = "postfix-archive-web"
# systemctl(1) notes what it is told. /run is one of its own.
SETUP_SYSTEMD = """mount -t tmpfs tmpfs /run &&
mkdir -p /run/systemd/system /run/lock &&
mkdir -p /usr/local/bin && printf '#!/bin/sh\\necho "$*" >>/run/told\\n' \
  >/usr/local/bin/systemctl && chmod 755 /usr/local/bin/systemctl"""
HIGHEST_EXPOSURE = 3.0  # of systemd-analyze security, from 0 to 10; below 4 is its OK
# As the user of the page, who gets nothing but what the unit gives.
AS_USER = f"setpriv --reuid={USER} --regid={USER} --init-groups"
FETCH = (
    "python3 -c 'import urllib.request;"
    ' print(urllib.request.urlopen("http://127.0.0.1:8090/login").read().decode())\''
)
STORE = "/var/lib/postfix-archive"
REFUSED = (
    f"touch {STORE}/x",
    f"rm -f {STORE}/legal@*/journal.last",
    f"chmod 666 {STORE}/legal@*/journal.last",
    f"sh -c 'echo >> $(ls {STORE}/legal@*/journal/*)'",
    f"sh -c 'echo >> $(ls {STORE}/legal@*/access/*)'",
    f"rm -rf {STORE}/index",
    f"touch {STORE}/index/x",
    "cat /etc/postfix-archive/postfix.key",
    "sh -c 'echo >> /etc/postfix/archive.cf'",
    "sh -c 'echo >> /etc/postfix/archive-web.cf'",
)


@pytest.fixture(scope="module")
def host(stock_host: Path, wheels: Path) -> Iterator[WholeHost]:
    with WholeHost(stock_host) as whole_host:
        whole_host.run(f"{SETUP_SYSTEMD} && postfix start")
        whole_host.run(f"{install(wheels)} WITH=web >/run/installed")
        whole_host.send("for bob")
        whole_host.run("postfix-archive index --once && postfix-archive list --json")
        yield whole_host


def test_what_is_installed(host: WholeHost, wheels: Path) -> None:
    assert f"Web page:   systemd, {UNIT}" in host.output("cat /run/installed")
    assert f"enable --now {UNIT}" in host.output("cat /run/told")
    assert "archive-readers" in host.output(f"id -nG {USER}").split()
    mode = "stat -c '%a %U %G'"
    assert host.output(f"{mode} /etc/postfix/archive-web.cf") == f"640 root {USER}"
    assert host.output(f"{mode} /var/lib/{USER}") == f"700 {USER} {USER}"
    assert f"archive_web_user = {USER}\n" in host.output("cat /etc/postfix/archive.cf")
    assert host.output(f"{install(wheels)} DRY_RUN=yes") == "Nothing to change."


def test_systemd_finds_the_unit_safe(host: WholeHost) -> None:
    assert host.run(f"systemd-analyze verify --man=no {UNIT_PATH}").stderr == ""
    text = host.output(f"systemd-analyze security --offline=yes --no-pager {UNIT_PATH}")
    [exposure] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert float(exposure) < HIGHEST_EXPOSURE, text


def test_the_command_of_the_unit_serves_the_page(host: WholeHost) -> None:
    """As its user, as systemd starts it."""
    host.run(
        "echo 'a good password' | postfix-archive user add anna --role auditor"
        " --password-stdin"
    )
    command = host.output(f"sed -n 's/^ExecStart=//p' {UNIT_PATH}")
    host.run(f"({AS_USER} {command} >/run/web.log 2>&1 &)")
    host.wait(f"{FETCH} >/dev/null", "the page")
    assert 'name="password"' in host.output(FETCH)
    assert host.output("cat /run/web.log") == "listening on 127.0.0.1:8090"


@pytest.mark.parametrize("command", REFUSED)
def test_the_system_refuses_what_the_user_must_not_do(
    host: WholeHost, command: str
) -> None:
    process = host.run(f"{AS_USER} {command}", is_failure_expected=True)
    assert "Permission denied" in process.stderr or "Operation not" in process.stderr
    assert host.run("postfix-archive verify").returncode == 0


def test_users_stay_after_uninstall(host: WholeHost, wheels: Path) -> None:
    """And come back with the next installation. The last test of this module."""
    host.run("echo 'web_language = de' >> /etc/postfix/archive-web.cf")
    host.run(f"make uninstall && test ! -e {UNIT_PATH} -a -e /var/lib/{USER}/web.db")
    assert f"disable --now {UNIT}" in host.output("cat /run/told")
    kept = "/etc/postfix-archive/postfix.archive-web.cf"
    assert host.output(f"stat -c '%a %U' {kept}") == "600 root"
    host.run("test ! -e /etc/postfix/archive-web.cf")
    host.run(f"{install(wheels)} WITH=web")
    host.run("grep -q 'web_language = de' /etc/postfix/archive-web.cf")
    assert "anna" in host.output("postfix-archive user list")
