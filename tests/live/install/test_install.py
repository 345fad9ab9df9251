"""make install and make uninstall on a whole host with Debian's stock configuration."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_host import HOST, WholeHost, count_records, install

pytestmark = pytest.mark.live
ARCHIVE = f"ARCHIVE=legal@{HOST}"
BUILDS = pytest.mark.parametrize("is_built", [False])
JOURNAL = f"/var/lib/postfix-archive/legal@{HOST}/journal/*"
SYSTEMCTL = """#!/bin/sh
# As systemctl(1) for one follower: stops, then starts its command line.
echo "$*" >>/run/told
unit=/etc/systemd/system/postfix-archive-outcomes-postfix.service
# Nobody waits for children here: those that have ended stay as zombies.
is_running() { grep -qs '^State:.[^ZX]' "/proc/$(cat /run/follower)/status"; }
start() {
    sh -c "exec $(sed -n 's/^ExecStart=//p' $unit)" >>/run/said 2>&1 &
    echo $! >/run/follower
}
stop() {
    kill "$(cat /run/follower)"
    while is_running; do sleep 0.1; done
}
case "$*" in
    try-restart*outcomes*) is_running && stop && start ;;
    enable*outcomes*) is_running || start ;;
    disable*outcomes*) is_running && stop ;;
esac
exit 0
"""
# /run is one of its own, as of a host that systemd has started.
SETUP_SYSTEMD = f"""mount -t tmpfs tmpfs /run &&
mkdir -p /run/systemd/system /run/lock &&
mkdir -p /usr/local/bin && printf %s {shlex.quote(SYSTEMCTL)} \
  >/usr/local/bin/systemctl && chmod 755 /usr/local/bin/systemctl"""


@pytest.fixture
def is_built() -> bool:
    """Whether the host has the release: else make install builds it, in seconds."""
    return True


@pytest.fixture
def host(stock_host: Path, release: Path, is_built: bool) -> Iterator[WholeHost]:
    """A host with a running stock Postfix, and mailboxes for bob and the archive."""
    with WholeHost(stock_host, *[release] * is_built) as whole_host:
        whole_host.run("postfix start")
        yield whole_host


@pytest.fixture(scope="module")
def refusing_host(stock_host: Path) -> Iterator[WholeHost]:
    """A host that every refused installation leaves as it is."""
    with WholeHost(stock_host) as whole_host:
        whole_host.run("postfix start")
        yield whole_host


@BUILDS
def test_from_stock_to_archive_and_back(host: WholeHost, wheels: Path) -> None:
    before = host.configuration()
    diff = host.output(f"{install(wheels)} DRY_RUN=1")
    assert f"+archive = legal@{HOST}" in diff
    assert "+archive-stamp unix" in diff
    assert "Store:      /var/lib/postfix-archive would be created" in diff
    assert "Key:        /etc/postfix-archive/postfix.key would be created" in diff
    command = diff.rpartition("Nothing was changed. To install: ")[2]
    assert command == install(wheels).strip()
    assert host.configuration() == before
    host.run("test ! -e /etc/postfix-archive")

    output = host.output(install(wheels))
    assert "Doctor:     OK: " in output
    assert "ADVICE short-queue-ids" in output
    assert "    optional, nothing has to be done: postconf -e" in output
    assert output.count("\n", output.index("\nNow:  ")) == 3
    assert "Probe:" in output
    lib = "/usr/local/lib/postfix-archive"
    mode = host.output(f"stat -c %a:%U {lib}/current/bundles/*")
    assert mode.split() == ["644:root"] * 3
    installed = host.configuration()
    for name in ("./main.cf", "./master.cf", "./archive.cf"):
        assert installed[name] != before.get(name)
    assert host.run("postfix check").stderr == ""
    assert host.output("stat -c %a:%U /etc/postfix-archive/postfix.key") == (
        "600:postfix-archive"
    )
    helo_path = "/etc/postfix-archive/postfix.key.helo"
    assert host.output("postconf -h archive_capsule_helo") == f"texthash:{helo_path}"
    assert host.output(f"stat -c %a:%U {helo_path}") == "600:postfix-archive"

    pages = "/usr/local/share/man/man1/postfix-archive.1 /usr/local/share/man/man5"
    host.run(f"ls {pages}/archive.cf.5")

    host.send("the first")
    host.wait_for_empty_queue()
    assert count_records(host) == 1
    assert "the first" in host.output("cat /var/mail/bob")
    assert "multipart/report" in host.output("cat /var/mail/legal")

    assert host.output(f"{install(wheels)} DRY_RUN=yes") == "Nothing to change."
    assert "nothing to change" in host.output(install(wheels))
    assert host.configuration() == installed

    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == before
    host.run("test ! -e /usr/local/lib/postfix-archive")
    host.run("test ! -e /usr/local/sbin/postfix-archive")
    host.run(f"test ! -e {helo_path}")
    host.send("the second")
    host.wait_for_empty_queue()
    assert "the second" in host.output("cat /var/mail/bob")
    find_copies = "find /var/lib/postfix-archive -name '*.eml.gz'"
    assert host.output(f"{find_copies} ! -name '*.outcome.*' | wc -l") == "3"
    assert host.output(f"{find_copies} -name '*.outcome.*' | wc -l") == "3"


def test_a_python_that_was_upgraded(host: WholeHost, wheels: Path) -> None:
    """Bundles and packages are another version's: mail and commands go on."""
    host.run(install(wheels))
    lib = "/usr/local/lib/postfix-archive"
    release = host.output(f"readlink -f {lib}/current")
    for bundle in ("archive-stamp", "archive"):
        path = f"{release}/bundles/{bundle}"
        host.run(f"printf 'old!' | dd of={path} conv=notrunc bs=4 count=1 status=none")
    packages = f"{release}/commands/lib"
    host.run(f"mv {packages}/python3* {packages}/python3.0")
    host.run(f"mv {release} {lib}/releases/old && ln -sfn releases/old {lib}/current")

    host.send("the first")
    host.wait_for_empty_queue()
    assert count_records(host) == 1
    output = host.run("postfix-archive doctor || test $? = 1").stdout
    what = f"WARNING python-changed: {lib}\n    /usr/bin/python3 is not the version"
    assert what in output

    assert f"Program:    {lib}" in host.output(install(wheels))
    assert host.output(f"readlink -f {lib}/current") == release
    assert "OK: " in host.output("postfix-archive doctor")
    host.run(f"rm -rf {packages}")
    output = host.run("postfix-archive list", is_failure_expected=True).stderr
    assert output.count("\n") == 1
    assert f"postfix-archive: {release}/commands: Python 3." in output
    assert "run make install again" in output


def test_with_workers_from_stock_to_archive_and_back(
    host: WholeHost, wheels: Path
) -> None:
    before = host.configuration()
    host.run(f"postconf -P -e pickup/unix/archive=local@{HOST}")
    host.run("useradd --no-create-home local")
    configuration_before = host.configuration()
    diff = host.output(install(wheels, "MODE=lmtp DRY_RUN=1"))
    for name in (f"legal@{HOST}", f"local@{HOST}", "on-request"):
        assert f"+archive.{name} unix" in diff
    assert "private/archive.$archive" in diff
    assert host.configuration() == configuration_before != before

    output = host.output(install(wheels, "MODE=lmtp"))
    assert "Doctor:     OK: " in output
    assert "Probe:      a message went through" in output
    host.send("the first")
    host.run(f"sendmail bob@{HOST}", stdin="Subject: by hand\n\nhello\n")
    host.wait_for_empty_queue()
    assert count_records(host) == 2
    assert "multipart/report" in host.output("cat /var/mail/local")
    assert "by hand" in host.output("cat /var/mail/bob")
    assert "archive-stamp/lmtp" in host.output("cat /var/log/postfix.log")

    assert "nothing to change" in host.output(install(wheels))
    refused = host.run(install(wheels, "MODE=pipe"), is_failure_expected=True).stderr
    assert "MODE=pipe: the archive is installed with MODE=lmtp" in refused
    host.run(f"postconf -e archive=other@{HOST}")
    doctor = host.run("postfix-archive doctor", is_failure_expected=True).stdout
    assert "CRITICAL worker-missing: main.cf: content_filter" in doctor
    assert f"master.cf has no service archive.other@{HOST}" in doctor
    host.run(f"useradd --no-create-home other && make install WHEELS={wheels}")
    host.run("postfix-archive doctor")

    host.run(f"make install ARCHIVE=legal@{HOST} WHEELS={wheels}")
    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == configuration_before
    host.send("the second")
    host.wait_for_empty_queue()
    assert "the second" in host.output("cat /var/mail/bob")


@BUILDS
@pytest.mark.parametrize("umask", ["077", "027"])
def test_a_narrow_umask_keeps_nobody_out(
    host: WholeHost, wheels: Path, umask: str
) -> None:
    """Also not where an installation left directories that only root can pass."""
    lib = "/usr/local/lib/postfix-archive"
    host.run(f"mkdir -m 700 /etc/postfix-archive {lib} {lib}/releases")
    output = host.output(f"(umask {umask}; {install(wheels)})")
    assert "Doctor:     OK: " in output
    assert "Probe:      a message went through" in output
    host.run("setpriv --reuid nobody --clear-groups postfix-archive --version")
    host.run(
        "setpriv --reuid nobody --clear-groups man -w postfix-archive || test -r"
        " /usr/local/share/man/man1/postfix-archive.1"
    )
    assert host.output("stat -c %a /etc/postfix-archive") == "755"
    host.run(f"(umask {umask}; make uninstall)")
    host.send("after it")
    host.wait_for_empty_queue()
    assert "after it" in host.output("cat /var/mail/bob")


@BUILDS
def test_prefix_and_options_stay_as_they_were_given(
    host: WholeHost, wheels: Path
) -> None:
    options = "PREFIX=/var/opt/pa PYTHON=python3 ON_REQUEST=yes DRY_RUN=0"
    system = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    assert "Probe:" in host.output(f"{system} {install(wheels, options)}")
    lib = "/var/opt/pa/lib/postfix-archive"
    assert host.output(f"head -n 1 {lib}/archive-stamp") == "#!/usr/bin/python3 -IS"
    assert "on-request" in host.output("postconf -h content_filter")
    host.run(install(wheels))
    assert "on-request" in host.output("postconf -h content_filter")
    host.run(install(wheels, "ON_REQUEST=no"))
    assert "on-request" not in host.output("postconf -h content_filter")
    assert "Nothing to change" in host.output(install(wheels, "DRY_RUN=true"))
    assert f"argv={lib}/archive-stamp" in host.output("postconf -M archive-stamp/unix")
    host.run("test ! -e /usr/local/lib/postfix-archive")
    host.run(f"make uninstall && test ! -e {lib}")
    host.run("test ! -e /var/opt/pa/sbin/postfix-archive")


def test_where_root_may_not_run_sendmail_there_is_no_probe(
    host: WholeHost, wheels: Path
) -> None:
    host.run("postconf -e authorized_submit_users=bob")
    output = host.output(install(wheels))
    assert "Probe:      none, sendmail: " in output
    assert "root(0) is not allowed to submit mail" in output
    host.send("by SMTP")
    host.wait_for_empty_queue()
    assert count_records(host) == 1


def test_a_byte_that_is_no_utf8_comes_out_as_it_is(
    host: WholeHost, wheels: Path
) -> None:
    host.run("printf '# Gr\\374\\337e\\n' >> /etc/postfix/main.cf")
    before = host.configuration()
    count_lines = "LC_ALL=C grep -a '^[ +]#' | LC_ALL=C grep -acP 'Gr\\xfc\\xdfe'"
    assert host.output(f"{install(wheels)} DRY_RUN=1 | {count_lines}") == "1"
    host.run(install(wheels))
    assert "restored to its state before" in host.output("make uninstall")
    assert host.configuration() == before


def test_what_others_changed_since_stays(host: WholeHost, wheels: Path) -> None:
    main = host.output("postconf -n | sort")
    services = host.output("postconf -M | sort")
    host.run(install(wheels))
    host.run("postconf -e message_size_limit=12345678")
    host.run("postconf -M -e 'extra/unix=extra unix - - n - - smtp'")
    host.run('postconf -e "$(postconf transport_maps), inline:{x.invalid=error}"')
    host.run(install(wheels, "ON_REQUEST=yes"))
    output = host.output("make uninstall")
    assert "removed only our entries" in output
    assert "restored to its state before" not in output
    remaining = host.output("postconf -n | sort").splitlines()
    assert set(remaining) - set(main.splitlines()) == {
        "message_size_limit = 12345678",
        "transport_maps = inline:{x.invalid=error}",
    }
    assert set(main.splitlines()) <= set(remaining)
    names = {line.split()[0] for line in host.output("postconf -M").splitlines()}
    assert names - {line.split()[0] for line in services.splitlines()} == {"extra"}


def test_uninstalling_ends_the_bypass_and_leaves_nothing(
    host: WholeHost, wheels: Path
) -> None:
    host.run(install(wheels))
    host.run("postfix-archive bypass on --reason 'to see it' && postconf -e biff=no")
    process = host.run(install(wheels), is_failure_expected=True)
    assert "CRITICAL bypass-on" in process.stdout
    assert "install: installed, but the doctor reports what is critical" in (
        process.stderr
    )
    output = host.output("make uninstall")
    assert "Bypass was on and is now off" in output
    assert "left unchanged" not in output
    assert "archive" not in host.output("postconf -n; cat /etc/postfix/main.cf")
    host.run("test ! -e /etc/postfix/archive.bypass")
    host.run("grep -q bypass-ended /var/lib/postfix-archive/*/journal/*")


def test_an_upgrade_under_load_loses_no_mail(host: WholeHost, wheels: Path) -> None:
    host.run(install(wheels))
    before = host.output("readlink /usr/local/lib/postfix-archive/current")
    count = 60

    def load() -> None:
        host.run(
            f"smtp-source -s 2 -m {count} -f alice@example.org -t bob@{HOST}"
            " 127.0.0.1:25"
        )

    sending = threading.Thread(target=load)
    sending.start()
    host.run(
        "cp -r . /var/tmp/newer && cd /var/tmp/newer && rm -rf .venv"
        " && echo '# newer' >> postfix_archive/message/smtp_data.py"
        f" && {install(wheels)}"
    )
    sending.join()
    host.wait_for_empty_queue()
    after = host.output("readlink /usr/local/lib/postfix-archive/current")
    assert after != before
    assert host.output("grep -c '^From alice' /var/mail/bob") == str(count)
    assert count_records(host) == count
    assert "status=bounced" not in host.output("cat /var/log/postfix.log")


def test_a_broken_upgrade_defers_mail(host: WholeHost, wheels: Path) -> None:
    host.run(install(wheels))
    lib = "/usr/local/lib/postfix-archive"
    host.run(f"mv {lib}/current {lib}/away")
    host.send("waits")
    host.wait(
        "grep -q 'status=deferred.*temporary failure' /var/log/postfix.log",
        "deferred",
    )
    host.run(f"mv {lib}/away {lib}/current && postqueue -f")
    host.wait_for_empty_queue()
    assert "waits" in host.output("cat /var/mail/bob")
    assert count_records(host) == 1


def test_mail_passes_by_postfix_commands_where_no_program_can_be_executed(
    host: WholeHost, wheels: Path
) -> None:
    host.run(install(wheels))
    lib = "/usr/local/lib/postfix-archive"
    host.run(f"mount --bind {lib} {lib} && mount -o remount,bind,noexec {lib}")
    host.send("waits")
    host.wait("grep -q 'status=.*Permission denied' /var/log/postfix.log", "waits")
    output = host.run("postfix-archive doctor --json || :").stdout
    finding = json.loads(output)["findings"][0]
    assert (finding["check"], finding["severity"]) == ("program-missing", "CRITICAL")
    assert "its file system is mounted noexec: mail is deferred" in finding["harm"]
    commands = finding["fix"].partition("unarchived: ")[2]
    host.run(commands)
    host.send("passes")
    host.wait_for_empty_queue()
    mailbox = host.output("cat /var/mail/bob")
    assert "Subject: waits" in mailbox and "Subject: passes" in mailbox
    assert "CRITICAL bypass-on" in host.run("postfix-archive doctor || :").stdout

    host.run(f"umount {lib} && postconf -e archive_bypass= && postfix reload")
    host.send("archived")
    host.wait_for_empty_queue()
    assert count_records(host) == 1


@pytest.mark.parametrize("is_purged", [False, True])
def test_uninstall_after_the_postfix_package_was_removed(
    host: WholeHost, wheels: Path, is_purged: bool
) -> None:
    before = host.configuration()
    instance = hashlib.sha256(b"/etc/postfix").hexdigest()[:16]
    last_error = f"/var/tmp/.postfix-archive-{instance}.last-error"
    leave_error = f"install -o postfix-archive -m 600 /dev/null {last_error}"
    host.run(f"{install(wheels)} && postfix stop && {leave_error}")
    if is_purged:
        host.run("rm /etc/postfix/main.cf /etc/postfix/master.cf")
    output = host.output(
        "unshare -m sh -c 'mount -t tmpfs none /usr/sbin && make uninstall'"
    )
    assert "Postfix is not installed; what is in its queue stays there." in output
    assert "copies    /var/lib/postfix-archive/ARCHIVE/YYYY/MM/DD; zcat" in output
    if not is_purged:
        assert host.configuration() == before
    host.run(f"test ! -e {last_error} && ! find /usr/local /etc/cron.d | grep archive")
    assert host.output("ls /etc/postfix-archive").split() == [
        "postfix.archive.cf",
        "postfix.key",
    ]


def test_uninstall_waits_for_what_the_archive_still_holds(
    host: WholeHost, wheels: Path
) -> None:
    before = host.configuration()
    host.run(install(wheels))
    directories = "/var/lib/postfix-archive /var/spool/postfix-archive"
    host.run(f"chmod 0 {directories} && postfix stop && postfix start")
    host.run(f"chown root {directories}")
    host.send("captured")
    host.wait("grep -q 'status=deferred' /var/log/postfix.log", "the copy waits")

    def heal() -> None:
        is_drained = "! postconf -h content_filter | grep -q archive-stamp"
        host.wait(is_drained, "make uninstall waits for the queue")
        host.run(f"chown postfix-archive {directories} && chmod 700 {directories}")

    healing = threading.Thread(target=heal)
    healing.start()
    host.run("make uninstall")
    healing.join()
    assert host.configuration() == before
    assert "captured" in host.output("cat /var/mail/bob")
    records = host.output("cat /var/lib/postfix-archive/*/journal/* | grep -c archived")
    assert records == "2"


def test_uninstall_waits_for_mailed_copies_that_no_store_has(
    host: WholeHost, wheels: Path
) -> None:
    host.run(install(wheels, "ARCHIVE=far@example.net"))
    host.run("echo archive_delivery = mail >>/etc/postfix/archive.cf")
    host.run("postconf -e relayhost=[127.0.0.1]:2 && postfix reload")
    host.send("to be kept")
    host.wait("grep -q 'to=<far@example.net>.*deferred' /var/log/postfix.log", "kept")
    status = json.loads(host.run("postfix-archive status --json || :").stdout)
    assert status["queue"]["count"] == 1

    def heal() -> None:
        is_drained = "! postconf -h content_filter | grep -q archive-stamp"
        host.wait(is_drained, "make uninstall waits for the queue")
        host.run("smtp-sink -u bob 127.0.0.1:2 100 >/dev/null 2>&1 &")

    healing = threading.Thread(target=heal)
    healing.start()
    host.run("make uninstall")
    healing.join()
    host.run("grep -q 'to=<far@example.net>.*status=sent' /var/log/postfix.log")
    host.wait_for_empty_queue()


def test_uninstall_empties_the_fallback_directory(
    host: WholeHost, wheels: Path
) -> None:
    host.run(install(wheels))
    host.run("chmod 0 /var/lib/postfix-archive && chown root /var/lib/postfix-archive")
    host.send("set-aside")
    host.wait("ls /var/spool/postfix-archive | grep -q capsule", "it is set aside")
    assert (
        "copies wait in /var/spool"
        in host.run("make uninstall", is_failure_expected=True).stderr
    )
    host.run("chown postfix-archive /var/lib/postfix-archive")
    host.run("chmod 700 /var/lib/postfix-archive && make uninstall")
    host.run("! ls /var/spool/postfix-archive | grep capsule")
    records = host.output("cat /var/lib/postfix-archive/*/journal/* | grep -c archived")
    assert records == "2"  # and the probe


def test_a_timer_runs_rescue_and_return(host: WholeHost, wheels: Path) -> None:
    """By cron where systemd does not run; its very command line, as cron would."""
    host.run("mkdir -p /etc/cron.d")
    assert "Timer:      cron, /etc/cron.d/" in host.output(install(wheels))
    line = host.output("grep '^[^#]' /etc/cron.d/postfix-archive-postfix")
    assert line.startswith("*/5 * * * * root ")
    host.run("echo postfix-test > /var/spool/postfix-archive/aa.capsule")
    host.run("chown postfix-archive /var/spool/postfix-archive/aa.capsule")
    command = line.partition(" root ")[2]
    assert "Messages left" in host.run(command, is_failure_expected=True).stderr
    host.run("rm /var/spool/postfix-archive/aa.capsule")
    assert host.output(command) == ""
    host.run("make uninstall && ! ls /etc/cron.d/postfix-archive-postfix")


def test_a_timer_of_systemd_where_that_runs(host: WholeHost, wheels: Path) -> None:
    """systemctl(1) notes what it is told; systemd itself judges the units."""
    host.run(SETUP_SYSTEMD)
    assert "Timer:      systemd, postfix-archive-postfix.timer" in host.output(
        install(wheels)
    )
    directory = "/etc/systemd/system"
    units = f"{directory}/postfix-archive-postfix"
    calls = host.output("grep -v outcomes /run/told").splitlines()
    assert calls[0] == "daemon-reload"
    for job in ("", "purge-", "seal-"):
        name = f"postfix-archive-{job}postfix"
        files = f"{directory}/{name}.service {directory}/{name}.timer"
        host.run(f"systemd-analyze verify --man=no {files}")
        assert f"enable --now {name}.timer" in calls
    host.run(f"make uninstall && ! ls {units}.timer {units}.service")
    assert "disable --now postfix-archive-postfix.timer" in host.output("cat /run/told")


CRONTAB = "/etc/cron.d/postfix-archive-outcomes-postfix"
UNIT = "postfix-archive-outcomes-postfix.service"
INDEX_CRONTAB = "/etc/cron.d/postfix-archive-index-postfix"
SEAL_CRONTAB = "/etc/cron.d/postfix-archive-seal-postfix"
OUTCOME = f'"event":"outcome".*"recipient":"bob@{HOST}"'


def outcomes(host: WholeHost) -> int:
    """How many outcomes of bob's mail the journal has."""
    return int(host.output(f"cat {JOURNAL} | grep -c '{OUTCOME}' || true"))


def test_cron_follows_the_log_every_minute(host: WholeHost, wheels: Path) -> None:
    """Its very command line, as cron would run it; what it says goes to the log."""
    host.run("mkdir -p /etc/cron.d")
    planned_line = f"Follower:   {CRONTAB} would be created"
    assert planned_line in host.output(f"{install(wheels)} DRY_RUN=yes")
    host.run(f"test ! -e {CRONTAB}")
    assert f"Follower:   cron, {CRONTAB}" in host.output(install(wheels))
    assert host.output(f"{install(wheels)} DRY_RUN=yes") == "Nothing to change."
    line = host.output(f"grep '^[^#]' {CRONTAB}")
    assert line.startswith("* * * * * root ")
    host.send("for bob")
    host.wait_for_empty_queue()
    assert outcomes(host) == 0
    command = line.partition(" root ")[2]
    assert run_by_cron(host, command) == ""
    assert outcomes(host) == 1
    assert run_by_cron(host, command) == ""
    assert outcomes(host) == 1
    check_index_by_cron(host)
    check_seal_by_cron(host)
    lock = "/var/spool/postfix-archive/outcomes.lock"
    assert run_by_cron(host, f"flock {lock} sh -c {shlex.quote(command)}") == ""
    host.run("mv /var/log/postfix.log /var/log/away")
    assert run_by_cron(host, command) == ""
    host.run("grep -q 'warning: .*no such file' /var/log/away /var/log/postfix.log")
    host.run("mv /var/log/away /var/log/postfix.log")
    host.send("again for bob")
    host.wait_for_empty_queue()
    host.run(f"make uninstall && test ! -e {CRONTAB} && test ! -e {SEAL_CRONTAB}")
    assert outcomes(host) == 2


def check_index_by_cron(host: WholeHost) -> None:
    """Cron's line indexes what came, as the archive's user, who alone may read it."""
    line = host.output(f"grep '^[^#]' {INDEX_CRONTAB}")
    assert run_by_cron(host, line.partition(" root ")[2]) == ""
    assert host.output(f"postfix-archive search --count rcpt:bob@{HOST}") == "1"
    index = "/var/lib/postfix-archive/index"
    assert host.output(f"find {index} -name '*.db'")
    assert host.output(f"find {index} ! -user postfix-archive -o -perm /027") == ""
    assert host.output("stat -c %a /var/lib/postfix-archive") == "700"
    assert "index-late" not in host.run("postfix-archive doctor").stdout


def check_seal_by_cron(host: WholeHost) -> None:
    """Cron's line seals where that is configured; a mailed seal is not archived."""
    line = host.output(f"grep '^[^#]' {SEAL_CRONTAB}")
    command = line.partition(" root ")[2]
    assert line.startswith("41 3 * * * root ") and run_by_cron(host, command) == ""
    seals, kept = "/var/lib/postfix-archive/seals", "/var/local/seals"
    host.run(f"test ! -e {seals} && install -d -o postfix-archive {kept}")
    settings = f"archive_seal_file = {kept}/file\narchive_seal_to = bob@{HOST}\n"
    host.run(f"printf {shlex.quote(settings)} >>/etc/postfix/archive.cf")
    count = "postfix-archive list --json | wc -l"
    before = host.output(count)
    for _ in range(2):
        assert run_by_cron(host, command) == ""
        host.wait_for_empty_queue()
    assert host.output(count) == before
    assert host.output(f"ls {seals}/*.json | wc -l") == "1"
    assert host.output(f"find {seals} {kept} ! -user postfix-archive") == ""
    host.run(f"cmp {seals}/*.json {kept}/file")
    host.run(f"postfix-archive verify --seal-file {kept}/file")
    host.run("grep -q 'Subject: Seal 1 of the mail archive' /var/mail/bob")


def run_by_cron(host: WholeHost, command: str) -> str:
    """Run a command with what cron(8) gives it; return what it would mail."""
    bare = "env -i PATH=/usr/bin:/bin HOME=/root SHELL=/bin/sh sh -c"
    process = host.run(f"{bare} {shlex.quote(command)} </dev/null")
    return process.stdout + process.stderr


def test_systemd_follows_the_log_where_that_runs(host: WholeHost, wheels: Path) -> None:
    """systemctl(1) runs the unit's command line; systemd itself judges the unit."""
    host.run(SETUP_SYSTEMD)
    planned_line = f"Follower:   /etc/systemd/system/{UNIT} would be created"
    assert planned_line in host.output(f"{install(wheels)} DRY_RUN=yes")
    assert f"Follower:   systemd, {UNIT}" in host.output(install(wheels))
    assert host.output(f"{install(wheels)} DRY_RUN=yes") == "Nothing to change."
    path = f"/etc/systemd/system/{UNIT}"
    assert host.run(f"systemd-analyze verify --man=no {path}").stderr == ""
    assert f"enable --now {UNIT}" in host.output("cat /run/told")
    host.send("for bob")
    host.wait(f"cat {JOURNAL} | grep -q '{OUTCOME}'", "the outcome")

    before = host.output("cat /run/follower")
    newer = "cp -r . /var/tmp/newer && cd /var/tmp/newer && rm -rf .venv"
    host.run(f"{newer} && echo '# newer' >> postfix_archive/message/smtp_data.py")
    host.run(f"cd /var/tmp/newer && {install(wheels)}")
    after = host.output("cat /run/follower")
    assert before != after
    is_running = "grep -qs '^State:.[^ZX]' /proc/{}/status"
    host.run(f"! {is_running.format(before)} && {is_running.format(after)}")
    host.send("again for bob")
    has_two_outcomes = f"cat {JOURNAL} | grep -c '{OUTCOME}' | grep -qx 2"
    host.wait(has_two_outcomes, "the new program follows")

    host.run("make uninstall")
    host.run(f"test ! -e {path} && ! {is_running.format(after)}")
    assert f"disable --now {UNIT}" in host.output("cat /run/told")


@pytest.mark.parametrize("missing", ["no log", "no store"])
def test_no_follower_where_there_is_nothing_to_follow(
    host: WholeHost, wheels: Path, missing: str
) -> None:
    host.run(f"mkdir -p /etc/cron.d && {install(wheels)} && test -e {CRONTAB}")
    if missing == "no log":
        host.run("postconf maillog_file_prefixes=/ maillog_file=/nowhere/log")
        reason = "/nowhere/log: no such file"
    else:
        host.run("echo archive_delivery = mail >>/etc/postfix/archive.cf")
        host.run(
            "postconf archive_relay=archive-local:"
        )  # legal is a user of this host
        reason = "archive_delivery = mail: there is no store"
    output = host.output(install(wheels))
    assert f"Follower:   none: {reason}" in output
    host.run(f"test ! -e {CRONTAB}")
    assert ("log-unreadable" in output) == (missing == "no log")
    assert "outcomes-late" not in output


REFUSED = {
    "no address": ("make install", "no archive address: run make install ARCHIVE="),
    "a word": ("make install ARCHIVE=legal", "ARCHIVE=legal: not an email address"),
    "spaces": ("make install 'ARCHIVE=a@x.org, b@x.org'", "not an email address"),
    "not root": (
        "setpriv --reuid nobody --clear-groups" f" make install {ARCHIVE}",
        "must run as root",
    ),
    "no Postfix": (
        f"unshare -m sh -c 'mount -t tmpfs none /usr/sbin && make install {ARCHIVE}'",
        "install your system's postfix package",
    ),
    "old Postfix": (
        "unshare -m sh -c 'mount -t tmpfs none /usr/local && mkdir /usr/local/sbin &&"
        ' printf "#!/bin/sh\\n/usr/sbin/postconf \\"\\$@\\" |'
        ' sed \\"s/^mail_version = .*/mail_version = 3.3.9/\\"\\n"'
        " >/usr/local/sbin/postconf && chmod 755 /usr/local/sbin/postconf &&"
        f" make install {ARCHIVE}'",
        "Postfix 3.3.9 is older than 3.4",
    ),
    "a stranger": (
        "unshare -m sh -c 'cp -a /etc/postfix /var/tmp/pf && mount --bind /var/tmp/pf"
        ' /etc/postfix && printf "archive unix - n n - - pipe user=bob argv=/x\\n"'
        f" >>/etc/postfix/master.cf && make install {ARCHIVE}'",
        "service archive/unix exists and does not belong to postfix-archive",
    ),
    "a port in use": (
        "python3 -c 'import socket,subprocess,sys;"
        ' s = socket.create_server(("127.0.0.1", 10028));'
        f' sys.exit(subprocess.call(["make", "install", "{ARCHIVE}"]))\'',
        "127.0.0.1:10028 is in use; choose another first port, PORT=10126",
    ),
    "read-only": (
        "unshare -m sh -c 'mount --bind /etc/postfix /etc/postfix && mount -o"
        f" remount,bind,ro /etc/postfix && make install {ARCHIVE}'",
        "/etc/postfix is not writable",
    ),
    "postfix check": (
        "unshare -m sh -c 'cp -a /etc/postfix /var/tmp/pg && mount --bind /var/tmp/pg"
        ' /etc/postfix && printf "broken unix\\n" >>/etc/postfix/master.cf &&'
        f" make install {ARCHIVE}'",
        "postfix",
    ),
    "no way after": (
        f"make install {ARCHIVE} ARCHIVE_POSITION=after",
        "master.cf has no reinjection port",
    ),
    "PREFIX": (f"make install {ARCHIVE} PREFIX=relative", "not an absolute path"),
    "closed PREFIX": (
        f"mkdir -p -m 700 /var/tmp/mine && make install {ARCHIVE} PREFIX=/var/tmp/mine",
        "user postfix-archive has no search permission on /var/tmp/mine, so all mail",
    ),
    "PREFIX without programs": (
        "unshare -m sh -c 'mkdir -p /var/tmp/data && mount -t tmpfs -o noexec tmpfs"
        f" /var/tmp/data && make install {ARCHIVE} PREFIX=/var/tmp/data/new'",
        "PREFIX=/var/tmp/data/new: the file system of /var/tmp/data is mounted noexec",
    ),
    "full PREFIX": (
        "unshare -m sh -c 'mkdir -p /var/tmp/full && mount -t tmpfs -o size=8m tmpfs"
        f" /var/tmp/full && make install {ARCHIVE} PREFIX=/var/tmp/full'",
        "PREFIX=/var/tmp/full: 8 MiB free on the file system of /var/tmp/full, and",
    ),
    "STORE is a file": (
        f"make install {ARCHIVE} STORE=/etc/hostname",
        "is not a directory",
    ),
    "STORE in a file": (
        f"make install {ARCHIVE} STORE=/dev/null/x",
        "/dev/null is not a directory; choose another directory",
    ),
    "no folder": (
        f"make install {ARCHIVE} CONFIG_DIRECTORY=/nonexistent",
        "/nonexistent: no main.cf in this directory",
    ),
    "no folder to take it out of": (
        "make uninstall CONFIG_DIRECTORY=/nonexistent",
        "/nonexistent: no main.cf in this directory",
    ),
    "PORT": (f"make install {ARCHIVE} PORT=80000", "PORT=80000: must be the first"),
    "PORT a word": (f"make install {ARCHIVE} PORT=abc", "PORT=abc: must be the first"),
    "neither before nor after": (
        f"make install {ARCHIVE} ARCHIVE_POSITION=middle",
        "must be before or after",
    ),
    "no mode": (
        f"make install {ARCHIVE} MODE=spawn",
        "must be pipe, lmtp, native or native-pipe",
    ),
    "no name of a service": (
        "make install ARCHIVE=a=b@x.org MODE=lmtp",
        "cannot be a service name in master.cf",
    ),
    "a word that is no option": (
        f"make install {ARCHIVE} DRYRUN=yes",
        "DRYRUN: there is no such option; did you mean DRY_RUN? docs/installing.md",
    ),
    "a word that is no option, back": (
        "make uninstall PREFX=/opt",
        "PREFX: there is no such option; did you mean PREFIX?",
    ),
    "neither yes nor no": (
        f"make install {ARCHIVE} DRY_RUN=maybe",
        "must be yes or no",
    ),
    "PYTHON": (f"make install {ARCHIVE} PYTHON=python9", "not Python 3.11 or later"),
    "WHEELS": (f"make install {ARCHIVE} WHEELS=/nonexistent", "no such directory"),
    "our own domain": (
        "make install ARCHIVE=legal@archive-request.invalid",
        "this domain is internal to postfix-archive",
    ),
    "a command in an address": (
        "make install 'ARCHIVE=a`touch /etc/postfix-archive`@x.org'",
        "not an email address",
    ),
    "quotes in an address": (
        """make install 'ARCHIVE=a";touch /etc/postfix-archive;"@x.org'""",
        "not an email address",
    ),
    "another at work": (
        f"flock /etc/postfix make install {ARCHIVE}",
        "/etc/postfix: another make install or make uninstall is running",
    ),
    "another at work, back": (
        "flock /etc/postfix make uninstall",
        "/etc/postfix: another make install or make uninstall is running",
    ),
    "nothing to undo": ("make uninstall", "no undo record, so nothing to uninstall"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_with_one_sentence_and_nothing_changed(
    refusing_host: WholeHost, reason: str
) -> None:
    before = refusing_host.configuration()
    command, sentence = REFUSED[reason]
    process = refusing_host.run(command, is_failure_expected=True)
    error_lines = [
        line for line in process.stderr.splitlines() if "make: ***" not in line
    ]
    assert (
        len([line for line in error_lines if "install: " in line]) == 1
    ), process.stderr
    assert sentence in " ".join(error_lines)
    assert "Traceback" not in process.stderr
    assert refusing_host.configuration() == before
    refusing_host.run("test ! -e /usr/local/lib/postfix-archive")
    refusing_host.run("test ! -e /etc/postfix-archive")
    refusing_host.run("! getent passwd postfix-archive")


def test_what_a_failed_installation_changed_is_restored(
    host: WholeHost, wheels: Path
) -> None:
    before = host.configuration()
    host.run(
        'printf \'#!/bin/sh\\n/usr/sbin/postfix "$@" || exit\\n'
        "! grep -q archive-stamp /etc/postfix/main.cf\\n' >/usr/local/sbin/postfix"
        " && chmod 755 /usr/local/sbin/postfix"
    )
    host.run(install(wheels), is_failure_expected=True)
    host.run("rm /usr/local/sbin/postfix")
    assert host.configuration() == before
    host.run("test ! -e /usr/local/lib/postfix-archive")
    host.send("goes on")
    host.wait_for_empty_queue()
    assert "goes on" in host.output("cat /var/mail/bob")


def test_a_package_lays_down_files_and_touches_no_postfix(
    refusing_host: WholeHost, wheels: Path
) -> None:
    before = refusing_host.configuration()
    refusing_host.run(
        f"make install DESTDIR=/var/tmp/package PREFIX=/usr WHEELS={wheels}"
    )
    assert refusing_host.configuration() == before
    lib = "/var/tmp/package/usr/lib/postfix-archive"
    refusing_host.run(f"test -x {lib}/archive-stamp && test -d {lib}/current/commands")
    refusing_host.run(
        f"grep -q /usr/lib/postfix-archive/releases {lib}/current/bundles/archive"
    )
    refusing_host.run(f"! grep /var/tmp/package {lib}/current/bundles/*")
    refusing_host.run("test ! -e /etc/postfix-archive")
    refusing_host.run("! ls /etc/cron.d /etc/systemd/system | grep postfix-archive")


WITHOUT_POSTFIX = """unshare -m sh -c '
mount -t tmpfs none /var/tmp && mkdir /var/tmp/upper /var/tmp/work &&
mount -t overlay overlay /usr \\
  -o lowerdir=/usr,upperdir=/var/tmp/upper,workdir=/var/tmp/work || exit 1
dpkg --purge --force-depends postfix postfix-pcre >/dev/null 2>&1
cp {debs}/*.deb /var/cache/apt/archives/
{install} && exit 1
{install} INSTALL_POSTFIX=yes && postfix start && postconf -h archive'
"""


def test_a_host_without_postfix_gets_it_if_wanted(
    stock_host: Path, wheels: Path, tmp_path: Path
) -> None:
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "download", "postfix"], cwd=tmp_path, check=True)
    command = WITHOUT_POSTFIX.format(debs=tmp_path, install=install(wheels))
    with WholeHost(stock_host) as host:
        process = host.run(command)
    assert "Debian: apt-get install postfix" in process.stderr
    assert "INSTALL_POSTFIX=yes" in process.stderr
    assert "Installing Debian's postfix package." in process.stdout
    assert process.stdout.strip().endswith(f"legal@{HOST}")


def test_two_instances_are_archived_separately(host: WholeHost, wheels: Path) -> None:
    host.run(
        "postmulti -e init && postmulti -I postfix-out -G out -e create &&"
        " cd /etc/postfix-out && postconf -c . -X master_service_disable"
        " authorized_submit_users && postconf -c . -M -e"
        " '2525/inet=2525 inet n - n - - smtpd' && postconf -c . -M -X smtp/inet &&"
        f" postconf -c . -e myhostname={HOST} inet_interfaces=loopback-only"
        " maillog_file=/var/log/postfix-out.log 'authorized_submit_users=static:all' &&"
        " postmulti -i postfix-out -e enable && postfix -c /etc/postfix-out start"
    )
    host.run(f"useradd --no-create-home second && {install(wheels)}")
    second = f"CONFIG_DIRECTORY=/etc/postfix-out ARCHIVE=second@{HOST}"
    refused = host.run(
        f"make install {second} WHEELS={wheels}", is_failure_expected=True
    )
    assert "PORT=10126" in refused.stderr
    host.run(f"make install {second} WHEELS={wheels} PORT=10126")
    host.send("by the first")
    host.send("by the second", port=2525)
    host.wait_for_empty_queue()
    host.wait(
        "postfix-archive -c /etc/postfix-out list | grep -q 'by the second'",
        "the second archive",
    )
    assert count_records(host) == 1
    assert "by the second" not in host.output("postfix-archive list")

    doctor = "postfix-archive -c /etc/postfix-out doctor"
    assert "OK: " in host.output(doctor)
    host.run(f"postconf -c /etc/postfix-out -e archive=legal@{HOST}")
    report = host.run(doctor, is_failure_expected=True).stdout
    assert f"WARNING different-keys: /etc/postfix: archive = legal@{HOST}" in report
    # Both keys may have the same id, as those of one day had.
    host.run("sed -i 's/^[0-9][^ ]*/20261130/' /etc/postfix-archive/*.key")
    findings = json.loads(host.run(f"{doctor} --json || :").stdout)["findings"]
    assert findings[0]["check"] == "different-keys"
    host.run(findings[0]["fix"])
    assert "OK: " in host.output(doctor)
    assert "OK: " in host.output("postfix-archive doctor")
    host.send("after the cure, first")
    host.send("after the cure, second", port=2525)
    host.wait_for_empty_queue()
    mailbox = host.output("cat /var/mail/bob")
    assert mailbox.count("Subject: after the cure") == 2
    for directory in ("/etc/postfix", "/etc/postfix-out"):
        host.wait(
            f"postfix-archive -c {directory} list | grep -q 'after the cure'",
            f"the archive of {directory}",
        )
    host.run("make uninstall")
    host.run("postfix-archive -c /etc/postfix-out list | grep -q 'by the second'")
