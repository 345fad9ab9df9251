"""The follower's service is set up only where there is something to follow."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_archive.errors import LogUnreadable
from postfix_archive.install import web_part
from postfix_archive.maillog import location
from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.system import scheduler
from postfix_archive.system.scheduler import ScheduledJob

from unit.hosts import make_config as stock


def config_with_log(path: object) -> Configuration:
    return replace(stock(), main={"maillog_file": str(path)})


@pytest.fixture(autouse=True)
def isolated_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No log of this host, no systemd, and a cron of our own."""
    (tmp_path / "cron.d").mkdir()
    monkeypatch.setattr(location, "DEFAULT_PATHS", (str(tmp_path / "mail.log"),))
    monkeypatch.setattr(location, "JOURNALD_DIRECTORY", str(tmp_path / "journal"))
    monkeypatch.setattr(scheduler, "CRON_DIRECTORY", tmp_path / "cron.d")
    monkeypatch.setattr(scheduler, "SYSTEMD_RUNTIME_DIRECTORY", tmp_path / "system")
    monkeypatch.setattr(
        postfix_command, "find_command", lambda name: f"/usr/sbin/{name}"
    )
    monkeypatch.setattr(postfix_command, "is_running", lambda directory: True)


def test_a_log_that_can_be_read_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    assert (
        location.follow_obstacle(config_with_log(tmp_path / "log"), is_wanted=True)
        == ""
    )
    (tmp_path / "mail.log").write_text("")
    assert location.follow_obstacle(stock(), is_wanted=True) == ""


def test_no_log_no_store_no_service(tmp_path: Path) -> None:
    missing = config_with_log(tmp_path / "log")
    assert "no such file" in location.follow_obstacle(missing, is_wanted=True)
    assert "directory" in location.follow_obstacle(
        config_with_log(tmp_path), is_wanted=True
    )
    assert "no maillog_file in main.cf" in location.follow_obstacle(
        stock(), is_wanted=True
    )
    (tmp_path / "mail.log").write_text("")
    assert "there is no store" in location.follow_obstacle(stock(), is_wanted=False)


def test_a_log_that_is_a_device_or_fifo_is_named_and_never_opened(
    tmp_path: Path,
) -> None:
    """Reading it would take the lines from whoever reads there, or wait for ever."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/stdout", "/dev/tty", tmp_path / "fifo", tmp_path / "link"):
        obstacle = location.follow_obstacle(config_with_log(path), is_wanted=True)
        assert obstacle.startswith(f"{path} is a device or FIFO")
        assert "set maillog_file in main.cf to a regular file" in obstacle
        with pytest.raises(LogUnreadable, match="is a device or FIFO"):
            location.log_path(config_with_log(path))
    os.mkfifo(tmp_path / "mail.log")
    assert "FIFO" in location.follow_obstacle(stock(), is_wanted=True)


def test_a_postfix_that_does_not_run_has_its_log_yet_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postfix_command, "is_running", lambda directory: False)
    assert (
        location.follow_obstacle(config_with_log(tmp_path / "log"), is_wanted=True)
        == ""
    )
    config = config_with_log(tmp_path / "nowhere" / "log")
    assert "no such file" in location.follow_obstacle(config, is_wanted=True)


def test_systemds_journal_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "journal").mkdir()
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert location.follow_obstacle(stock(), is_wanted=True) == ""


def test_characters_that_cron_and_the_shell_know_are_quoted(tmp_path: Path) -> None:
    program = "/opt/a b/postfix-archive"
    label = scheduler.FOLLOWER.install("postfix", "/etc/pf %", program)
    path = tmp_path / "cron.d" / "postfix-archive-outcomes-postfix"
    assert label == f"cron, {path}"
    *_, line = path.read_text().splitlines()
    assert line == (
        "* * * * * root '/opt/a b/postfix-archive' -c '/etc/pf \\%' outcomes --once"
        " 2>&1 >/dev/null | /usr/sbin/postlog -c '/etc/pf \\%' -t postfix-archive"
        " -p warn"
    )


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that a systemd of our own gets."""
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(scheduler, "UNIT_DIRECTORY", tmp_path / "units")
    commands: list[str] = []
    monkeypatch.setattr(
        scheduler, "_systemctl", lambda *a: commands.append(" ".join(a))
    )
    return commands


JOBS = {
    "timer": scheduler.TIMER,
    "follower": scheduler.FOLLOWER,
    "indexer": scheduler.INDEXER,
    "purger": scheduler.PURGER,
    "replicator": scheduler.REPLICATOR,
    "sealer": scheduler.SEALER,
    "web page": scheduler.WEB_PAGE,
}
TIMER_LINE = (
    "/x -c /etc/postfix queue rescue & rescue=$!; /x -c /etc/postfix fallback import &"
    " import=$!; /x -c /etc/postfix status --write; code=$?; wait $import || code=$?;"
    " wait $rescue || code=$?; exit $code"
)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_cron_file_is_missing_until_it_is_installed(job: ScheduledJob) -> None:
    path = str(scheduler.CRON_DIRECTORY / f"{job.name_prefix}postfix")
    assert (job.missing_file("postfix"), job.installed_file("postfix")) == (path, "")
    assert job.install("postfix", "/etc/postfix", "/x") == f"cron, {path}"
    assert (job.missing_file("postfix"), job.installed_file("postfix")) == ("", path)
    job.remove("postfix")
    assert list(scheduler.CRON_DIRECTORY.iterdir()) == []
    job.remove("postfix")


def test_the_timer_runs_three_commands_under_cron() -> None:
    scheduler.TIMER.install("postfix", "/etc/postfix", "/x")
    path = scheduler.CRON_DIRECTORY / "postfix-archive-postfix"
    *_, line = path.read_text().splitlines()
    assert line == f"*/5 * * * * root {TIMER_LINE}"


FAKE_COMMAND = """\
#!/bin/sh
case "$3 $4" in
  "queue rescue") exec {rescue} ;;
  "fallback import") echo import ;;
  *) echo status; kill $(cat {pid}) ;;
esac
"""


def test_a_command_of_the_timer_that_hangs_stops_no_other(tmp_path: Path) -> None:
    """The rescue ends here only when the others have run."""
    program, pid = tmp_path / "program", tmp_path / "pid"
    os.mkfifo(pid)
    rescue = f"sh -c 'echo $$ >{pid}; exec sleep infinity'"
    program.write_text(FAKE_COMMAND.format(rescue=rescue, pid=pid))
    program.chmod(0o755)
    command = scheduler.shell_command(scheduler.TIMER_COMMAND, "/d", str(program))
    process = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False
    )
    assert sorted(process.stdout.split()) == ["import", "status"]
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("failing", ["queue", "fallback", "status", ""])
def test_the_timer_fails_with_any_of_its_commands(tmp_path: Path, failing: str) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\n[ "$3" != "{failing}" ] || exit 3\n')
    program.chmod(0o755)
    command = scheduler.shell_command(scheduler.TIMER_COMMAND, "/d", str(program))
    process = subprocess.run(["/bin/sh", "-c", command], check=False)
    assert process.returncode == (3 if failing else 0)


def test_systemd_starts_the_timer_of_a_service(
    tmp_path: Path, systemctl: list[str]
) -> None:
    label = scheduler.TIMER.install("postfix", "/etc/postfix", "/x")
    assert label == "systemd, postfix-archive-postfix.timer"
    unit = tmp_path / "units" / "postfix-archive-postfix.service"
    *_, line = unit.read_text().splitlines()
    assert line == f"ExecStart=/bin/sh -c {scheduler.quote_argument(TIMER_LINE)}"
    enable = "enable --now postfix-archive-postfix.timer"
    assert systemctl == ["daemon-reload", enable]
    systemctl.clear()
    scheduler.TIMER.remove("postfix")
    disable = "disable --now postfix-archive-postfix.timer"
    assert systemctl == [disable, "daemon-reload"]
    assert list(unit.parent.iterdir()) == []


def test_web_page_may_write_its_directory_whatever_its_user(
    tmp_path: Path, systemctl: list[str]
) -> None:
    scheduler.WEB_PAGE.install("postfix", "/etc/postfix", "/x", "other")
    unit = tmp_path / "units" / "postfix-archive-web-postfix.service"
    lines = unit.read_text().splitlines()
    name = Path(web_part.WEB_DIRECTORY).name
    assert {f"StateDirectory={name}", f"ReadWritePaths=-/run/{name}"} < {*lines}
    assert "User=other" in lines
    # What extraction_child gives up needs both (systemd.exec(5)).
    assert "RestrictNamespaces=user net" in lines


def test_followers_of_all_instances_restart_under_systemd(systemctl: list[str]) -> None:
    for instance in ("a", "b"):
        scheduler.FOLLOWER.install(instance, f"/etc/{instance}", "/x")
    a, b = (f"postfix-archive-outcomes-{name}.service" for name in "ab")
    assert f"try-restart {a} {b}" in systemctl
    assert systemctl[-1] == f"enable --now {b}"


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_host_with_neither_gets_none(job: ScheduledJob) -> None:
    scheduler.CRON_DIRECTORY.rmdir()
    assert job.install("postfix", "/etc/postfix", "/x") == ""
    assert (job.missing_file("postfix"), job.installed_file("postfix")) == ("", "")
