"""make install a second time: after a break, with other words, as an upgrade, and back.

On a whole host with a configuration that somebody has cared for.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_host import HOST, WholeHost, count_records, install

pytestmark = pytest.mark.live
MANUAL_CHANGES = r"""
cat >>/etc/postfix/main.cf <<'END'

# Ours since 2019, do not touch.
transport_maps = inline:{old.example.net=discard:},
    # the second is for tests
    inline:{older.example.net=discard:}
smtpd_recipient_restrictions =
    permit_mynetworks,
    # strangers
    reject_unauth_destination
END
cat >>/etc/postfix/master.cf <<'END'
# Submission, as our manual says.
127.0.0.1:2587 inet n - y - - smtpd
  -o syslog_name=postfix/submission
  # mapped at once
  -o receive_override_options=no_milters
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
END
"""
# The program stays laid down after an uninstall while another instance has a record.
BLOCK_REMOVAL = "mkdir -p /etc/postfix-archive/another.undo"
RECORD = "ls -d /etc/postfix-archive/postfix.undo/record.json ||:"
MAX_RENAMES = 40  # renames of one installation, and more
# Ends itself as kill -9 does, before it gives a file its name for the N-th time.
KILLED_INSTALLATION = f"""ARCHIVE=legal@{HOST} python3 -B -c '
import os, posix, sys
from postfix_archive.install import main as installer
left, rename = [%d], posix.rename
def replace(path, target):
    left[0] -= 1
    if not left[0]: os.kill(os.getpid(), 9)
    return rename(path, target)
posix.rename = os.rename = os.replace = replace
sys.exit(installer.main(["install"]))'"""
# Stands before one of Postfix's commands; at its N-th call ends the installer.
WRAPPER = """cat >/usr/local/sbin/%(command)s <<'END'
#!/bin/sh
n=$(cat /var/tmp/calls); n=$((n + 1)); echo $n >/var/tmp/calls
[ $n = %(call)d ] && { kill -%(signal)s $PPID; sleep 1; exit 1; }
exec /usr/sbin/%(command)s "$@"
END
chmod 755 /usr/local/sbin/%(command)s; echo 0 >/var/tmp/calls"""


@pytest.fixture
def host(stock_host: Path, release: Path) -> Iterator[WholeHost]:
    """A host whose main.cf and master.cf have comments and values on many lines."""
    with WholeHost(stock_host, release) as whole_host:
        whole_host.run(MANUAL_CHANGES)
        yield whole_host


def has_ended_early(host: WholeHost, command: str) -> bool:
    return host.output(f"{command} >/dev/null 2>&1; echo $?") != "0"


@pytest.mark.parametrize("number", [1, 2], ids=["install again", "uninstall"])
def test_whenever_an_installation_is_killed_uninstall_brings_all_back(
    host: WholeHost, wheels: Path, number: int
) -> None:
    """kill -9 before each of its renames; then uninstall or, in turn, install first."""
    before = host.configuration()
    host.run(f"{install(wheels)} && {BLOCK_REMOVAL} && make uninstall")
    assert host.configuration() == before
    changed_count = 0
    while has_ended_early(host, KILLED_INSTALLATION % number):
        assert number < MAX_RENAMES
        has_changed = host.configuration() != before
        changed_count += has_changed
        if number % 2:
            host.run(install(wheels))
        if number % 2 or has_changed or host.output(RECORD):
            assert "restored to its state before" in host.output("make uninstall")
        assert host.configuration() == before, number
        number += 2
    assert changed_count >= 2


CLIENT = """
import os, smtplib
client = smtplib.SMTP("127.0.0.1", 25)
client.noop()
os.mkfifo("/var/tmp/orders")
while (order := open("/var/tmp/orders").read().strip()) != "quit":
    text = f"From: <alice@example.org>\\nSubject: {order}\\n\\nhello\\n"
    client.sendmail("alice@example.org", ["bob@%s"], text)
client.quit()
os.unlink("/var/tmp/orders")
"""


def open_connection(host: WholeHost) -> None:
    """Open an SMTP connection that sends a message for each order, until quit."""
    host.run("cat >/var/tmp/client.py", stdin=CLIENT % HOST)
    host.run("python3 /var/tmp/client.py >/dev/null 2>&1 &")
    host.wait("test -p /var/tmp/orders", "the connection")


CLOSE_CONNECTION = "echo quit >/var/tmp/orders"
IS_CLOSED = "! test -p /var/tmp/orders"


def test_mail_on_an_open_connection_is_archived_while_uninstall_waits(
    host: WholeHost, wheels: Path
) -> None:
    host.run(f"postfix start && {install(wheels)}")
    open_connection(host)
    with subprocess.Popen(
        host.command("make uninstall"), stdout=subprocess.PIPE, text=True
    ) as process:
        host.wait("! postconf -n | grep -q ^content_filter", "no content_filter")
        host.wait("grep -q 'reload -- version' /var/log/postfix.log", "reloaded")
        host.run("echo late >/var/tmp/orders")
        host.wait("grep -q 'Subject: late' /var/mail/bob", "the late message")
        host.run(CLOSE_CONNECTION)
        output, _ = process.communicate()
    assert process.returncode == 0
    assert "SMTP connections" not in output and "unarchived" not in output
    host.wait_for_empty_queue()
    files = "ls /var/lib/postfix-archive/*/*/*/*/*.eml.gz | grep -v outcome"
    copies = f"zgrep -l 'Subject: late' $({files})"
    assert len(host.output(copies).splitlines()) == 1


def test_a_connection_that_stays_open_is_named(host: WholeHost, wheels: Path) -> None:
    host.run("postfix start")
    open_connection(host)
    output = host.output(install(wheels))
    assert "Mail on:    SMTP connections from before (process ids " in output
    host.run(CLOSE_CONNECTION)
    host.wait(IS_CLOSED, "the connection is closed")
    open_connection(host)
    output = host.output("make uninstall")
    assert "SMTP connections from before (process ids " in output
    host.run("echo late >/var/tmp/orders")
    host.wait("postqueue -p | grep -q 'transport unavailable'", "it waits")
    host.run(CLOSE_CONNECTION)
    host.wait(IS_CLOSED, "the connection is closed")
    host.run(output.partition("ended, run: ")[2].splitlines()[0])
    host.wait_for_empty_queue()
    assert "Subject: late" in host.output("cat /var/mail/bob")


def test_symlinks_stay_symlinks(host: WholeHost, wheels: Path) -> None:
    host.run("postfix start && mkdir -p /var/shared")
    for name in ("main.cf", "master.cf"):
        host.run(f"mv /etc/postfix/{name} /var/shared/{name}.ours")
        host.run(f"ln -s ../../var/shared/{name}.ours /etc/postfix/{name}")
    list_all = "stat -c '%N %a %U' /etc/postfix/*.cf /var/shared/*"
    before = host.output(list_all)
    digests = host.output("sha256sum /var/shared/*")
    assert "Probe:      a message went through" in host.output(install(wheels))
    host.run("postfix-archive bypass on --reason test")
    assert host.output("postconf -h archive_bypass")
    host.run("postfix-archive bypass off")
    assert host.output(f"{list_all} | grep -v archive.cf") == before
    assert "restored to its state before" in host.output("make uninstall")
    assert host.output(list_all) == before
    assert host.output("sha256sum /var/shared/*") == digests


@pytest.mark.parametrize("name", ["main.cf", "master.cf"])
def test_a_file_that_is_mounted_is_refused_before_anything_is_changed(
    host: WholeHost, wheels: Path, name: str
) -> None:
    path = f"/etc/postfix/{name}"
    host.run(f"cp {path} /var/tmp/mounted && mount --bind /var/tmp/mounted {path}")
    before = host.configuration()
    process = host.run(install(wheels), is_failure_expected=True)
    assert f"install: {path} is a mount point" in process.stderr
    assert host.configuration() == before
    host.run("test ! -e /etc/postfix-archive && ! getent passwd postfix-archive")
    host.run(f"umount {path} && {install(wheels)}")
    installed = host.configuration()
    host.run(f"cp {path} /var/tmp/mounted && mount --bind /var/tmp/mounted {path}")
    process = host.run("make uninstall", is_failure_expected=True)
    assert f"uninstall: {path} is a mount point" in process.stderr
    host.run(f"umount {path}")
    assert host.configuration() == installed


@pytest.mark.parametrize("call", [3, 5, 6])
def test_a_killed_installation_under_a_running_postfix(
    host: WholeHost, wheels: Path, call: int
) -> None:
    """kill -9 while it checks or reloads; the next one finishes, mail is archived."""
    host.run("postfix start")
    before = host.configuration()
    host.run(WRAPPER % {"command": "postfix", "call": call, "signal": "KILL"})
    assert has_ended_early(host, install(wheels))
    host.run("rm /usr/local/sbin/postfix")
    assert host.configuration() != before
    assert "Probe:      a message went through" in host.output(install(wheels))
    host.send("after all")
    host.wait_for_empty_queue()
    assert count_records(host) == 1
    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == before


@pytest.mark.parametrize("signal", ["TERM", "HUP"])
def test_a_signal_puts_back_what_was_begun(
    host: WholeHost, wheels: Path, signal: str
) -> None:
    host.run("postfix start")
    before = host.configuration()
    host.run(WRAPPER % {"command": "postfix", "call": 6, "signal": signal})
    # As from a terminal: below nohup(1) it is not to heed SIGHUP.
    heeding = f"env --default-signal={signal} sh -c {shlex.quote(install(wheels))}"
    process = host.run(heeding, is_failure_expected=True)
    host.run("rm /usr/local/sbin/postfix")
    assert f"install: stopped by SIG{signal}; run it again" in process.stderr
    assert host.configuration() == before
    host.run("test ! -e /etc/postfix-archive/postfix.undo")


def test_changes_after_an_interruption_stay_and_the_originals_are_saved(
    host: WholeHost, wheels: Path
) -> None:
    original = host.output("sha256sum </etc/postfix/main.cf")
    host.run(f"{install(wheels)} && make uninstall")
    host.run(WRAPPER % {"command": "postfix", "call": 4, "signal": "KILL"})
    assert has_ended_early(host, install(wheels))
    host.run("rm /usr/local/sbin/postfix && postconf -e message_size_limit=12345678")
    output = host.output(f"{install(wheels)} >/dev/null && make uninstall")
    assert "removed only our entries" in output
    assert "left unchanged" not in output
    assert "archive" not in host.output("postconf -n; postconf -M")
    assert host.output("postconf -h message_size_limit") == "12345678"
    saved_main_cf = "/etc/postfix-archive/postfix.before-*/main.cf"
    assert host.output(f"cat {saved_main_cf} | sha256sum") == original


def test_ports_stay_and_are_never_partly_changed(host: WholeHost, wheels: Path) -> None:
    host.run("postfix start")
    before = host.configuration()
    host.run(f"{install(wheels)} && make uninstall")
    host.run("postfix stop")
    assert "Probe:      none, Postfix is not running" in host.output(install(wheels))
    host.run("postfix start && postfix-archive doctor && make uninstall")
    output = host.output(install(wheels, "PORT=10126"))
    assert "Doctor:     OK: " in output and "Probe:      a message" in output
    copies = "archive_copy_address = 127.0.0.1:10128"
    assert copies in host.output("cat /etc/postfix/archive.cf")
    installed = host.configuration()
    assert "nothing to change" in host.output(install(wheels))
    process = host.run(install(wheels, "PORT=10026"), is_failure_expected=True)
    assert "installed with PORT=10126; to change it, run make un" in process.stderr
    assert host.configuration() == installed
    host.run("make uninstall")
    assert host.configuration() == before
    assert "Probe:      a message went" in host.output(install(wheels))
    assert copies in host.output("cat /etc/postfix/archive.cf")
    host.run("postconf -M 127.0.0.1:10126/inet | grep -q handback")


def test_the_store_is_the_one_that_archive_cf_names(
    host: WholeHost, wheels: Path
) -> None:
    output = host.output(install(wheels, "STORE=/srv/first"))
    assert "Store:      /srv/first" in output
    assert "Store:      /srv/first" in host.output(install(wheels))
    host.run(install(wheels, "STORE=/srv/first/"))
    refused = host.run(install(wheels, "STORE=/srv/arch"), is_failure_expected=True)
    assert "archive_store_directory = /srv/first; to change it" in refused.stderr
    host.run("make uninstall")
    refused = host.run(install(wheels, "STORE=/srv/arch"), is_failure_expected=True)
    assert "/etc/postfix-archive/postfix.archive.cf has archive" in refused.stderr
    host.run("test ! -e /srv/arch")


def test_an_upgrade_keeps_the_position(host: WholeHost, wheels: Path) -> None:
    host.run(
        "postconf -e content_filter=scan:[127.0.0.1]:10024 && postconf -M -e"
        " 'scan/unix=scan unix - - n - - smtp' '127.0.0.1:10025/inet="
        "127.0.0.1:10025 inet n - n - - smtpd -o content_filter='"
    )
    host.run(install(wheels, "ARCHIVE_POSITION=after"))
    assert "Nothing to change" in host.output(install(wheels, "DRY_RUN=1"))
    assert "nothing to change" in host.output(install(wheels))
    assert host.output("postconf -h content_filter") == "scan:[127.0.0.1]:10024"
    refused = host.run(
        install(wheels, "ARCHIVE_POSITION=before"), is_failure_expected=True
    )
    assert (
        "installed with ARCHIVE_POSITION=after; to change it, run make un"
        in refused.stderr
    )


def test_stock_install_upgrade_and_back_in_one_go(
    host: WholeHost, wheels: Path
) -> None:
    host.run("postfix start")
    before = host.configuration()
    host.run(install(wheels))
    host.send("the first")
    host.send("the second", port=2587)
    host.wait_for_empty_queue()
    assert count_records(host) == 2
    newer = "cp -r . /var/tmp/newer && cd /var/tmp/newer && rm -rf .venv"
    newer += " && echo '# newer' >>postfix_archive/message/smtp_data.py"
    host.run(f"{newer} && {install(wheels)}")
    host.send("the third")
    host.wait_for_empty_queue()
    assert count_records(host) == 3
    routes = host.output("postconf -h transport_maps")
    assert "archive-request" in routes and "older.example.net" in routes
    output = host.output("cd /var/tmp/newer && make uninstall")
    assert "restored to its state before" in output
    assert host.configuration() == before
    host.send("the fourth")
    host.wait_for_empty_queue()
    mailbox = host.output("cat /var/mail/bob")
    for subject in ("first", "second", "third", "fourth"):
        assert mailbox.count(f"Subject: the {subject}") == 1
