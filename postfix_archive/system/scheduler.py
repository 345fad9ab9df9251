"""systemd units, or cron files on a host without systemd.

Used for the timer and the follower. Raises InstallFailed if systemctl(1) fails.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from postfix_archive.errors import InstallFailed
from postfix_archive.postfix import postfix_command
from postfix_archive.system import files

SYSTEMD_RUNTIME_DIRECTORY = Path(
    "/run/systemd/system"
)  # exists if systemd is the init system, sd_booted(3)
UNIT_DIRECTORY = Path("/etc/systemd/system")
CRON_DIRECTORY = Path("/etc/cron.d")


def quote_argument(text: str) -> str:
    """Quote one argument for a unit file (systemd.service(5), COMMAND LINES)."""
    for character in ("%", "$"):
        text = text.replace(character, character * 2)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def escape_for_cron(command: str) -> str:
    """Escape a shell command for crontab(5)."""
    return command.replace("%", r"\%")


def schedule_file(unit: str, name: str) -> Path | None:
    """Return the path of the unit, else of the cron file; None without both."""
    path = (
        UNIT_DIRECTORY / unit
        if SYSTEMD_RUNTIME_DIRECTORY.is_dir()
        else CRON_DIRECTORY / name
    )
    return (
        path if SYSTEMD_RUNTIME_DIRECTORY.is_dir() or CRON_DIRECTORY.is_dir() else None
    )


def remove_units(name: str, started_unit: str, *other_units: str) -> None:
    """Stop a unit; remove it, further units, and the cron file of this name."""
    paths = [UNIT_DIRECTORY / each for each in (started_unit, *other_units)]
    if any(each.exists() for each in paths):
        if SYSTEMD_RUNTIME_DIRECTORY.is_dir():
            systemctl("disable", "--now", started_unit)
        for each in paths:
            each.unlink(missing_ok=True)
        if SYSTEMD_RUNTIME_DIRECTORY.is_dir():
            systemctl("daemon-reload")
    (CRON_DIRECTORY / name).unlink(missing_ok=True)


def systemctl(*arguments: str) -> None:
    """Run systemctl(1); raises InstallFailed with its error output."""
    process = subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, check=False
    )
    if process.returncode:
        output = " ".join(process.stderr.split())
        raise InstallFailed(f"systemctl {' '.join(arguments)}: {output}")


TIMER_SERVICE = """\
# Made by make install of postfix_archive; make uninstall removes it.
[Unit]
Description=Mail archive of Postfix in {directory}: waiting copies and status
After=postfix.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c {quoted}
"""
TIMER_UNIT = """\
# Made by make install of postfix_archive; make uninstall removes it.
[Unit]
Description=Mail archive of Postfix in {directory}: every five minutes

[Timer]
OnCalendar=*:0/5
AccuracySec=30s

[Install]
WantedBy=timers.target
"""
TIMER_CRONTAB = """\
# Made by make install of postfix_archive; make uninstall removes it.
# Stores waiting archive copies, writes the status; silent unless something fails.
*/5 * * * * root {commands}
"""


def install_timer(instance: str, directory: str, command: str) -> str:
    """Install and start the timer; return its scheduler and file name.

    command: the path of postfix-archive. Returns "" on a host with neither systemd nor
    cron. Idempotent.
    """
    shell_command = _timer_command(directory, command)
    name = f"postfix-archive-{instance}"
    if SYSTEMD_RUNTIME_DIRECTORY.is_dir():
        values = {"directory": directory, "quoted": quote_argument(shell_command)}
        for unit, text in (
            (f"{name}.service", TIMER_SERVICE),
            (f"{name}.timer", TIMER_UNIT),
        ):
            _write(UNIT_DIRECTORY / unit, text.format(**values))
        systemctl("daemon-reload")
        systemctl("enable", "--now", f"{name}.timer")
        return f"systemd, {name}.timer"
    if CRON_DIRECTORY.is_dir():
        text = TIMER_CRONTAB.format(commands=escape_for_cron(shell_command))
        _write(CRON_DIRECTORY / name, text)
        return f"cron, {CRON_DIRECTORY / name}"
    return ""


def _write(path: Path, text: str) -> None:
    files.replace(str(path), text.encode(), 0o644, failure=InstallFailed)


def missing_timer(instance: str) -> str:
    """Return the file that would be created, "" if it exists."""
    name = f"postfix-archive-{instance}"
    path = schedule_file(f"{name}.timer", name)
    return "" if path is None or path.exists() else str(path)


def remove_timer(instance: str) -> None:
    """Stop the timer and remove its files, if they exist."""
    name = f"postfix-archive-{instance}"
    remove_units(name, f"{name}.timer", f"{name}.service")


def _timer_command(directory: str, command: str) -> str:
    """Return a shell command that runs all three and fails if any of them fails."""
    command_line = f"{shlex.quote(command)} -c {shlex.quote(directory)}"
    rescue_and_return = (
        f"{command_line} rescue; code=$?; {command_line} return || code=$?"
    )
    return f"{rescue_and_return}; {command_line} status --write && exit $code"


FOLLOWER_PREFIX = "postfix-archive-outcomes-"
FOLLOWER_SERVICE = """\
# Made by make install of postfix_archive; make uninstall removes it.
[Unit]
Description=Mail archive of Postfix in {directory}: delivery outcomes
After=postfix.service
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh -c {quoted}
Restart=always
RestartSec=10s
Nice=5

[Install]
WantedBy=multi-user.target
"""
FOLLOWER_CRONTAB = """\
# Made by make install of postfix_archive; make uninstall removes it.
# Reads delivery outcomes from Postfix's log; output goes to that log.
* * * * * root {commands}
"""


def install_follower(instance: str, directory: str, command: str) -> str:
    """Install and start the follower; return its scheduler and file name.

    command: the path of postfix-archive. Returns "" on a host with neither systemd nor
    cron. Running followers of all instances restart: the program may be a new release.
    """
    command_line = f"{shlex.quote(command)} -c {shlex.quote(directory)} outcomes"
    name = f"{FOLLOWER_PREFIX}{instance}"
    if SYSTEMD_RUNTIME_DIRECTORY.is_dir():
        argument = quote_argument(f"exec {command_line} --follow")
        text = FOLLOWER_SERVICE.format(directory=directory, quoted=argument)
        _write(UNIT_DIRECTORY / f"{name}.service", text)
        systemctl("daemon-reload")
        followers = sorted(UNIT_DIRECTORY.glob(f"{FOLLOWER_PREFIX}*.service"))
        systemctl("try-restart", *(each.name for each in followers))
        systemctl("enable", "--now", f"{name}.service")
        return f"systemd, {name}.service"
    if CRON_DIRECTORY.is_dir():
        cron_command = (
            f"{command_line} --once 2>&1 >/dev/null | {_log_command(directory)}"
        )
        text = FOLLOWER_CRONTAB.format(commands=escape_for_cron(cron_command))
        _write(CRON_DIRECTORY / name, text)
        return f"cron, {CRON_DIRECTORY / name}"
    return ""


def missing_follower(instance: str) -> str:
    """Return the file that would be created, "" if it exists."""
    path = _expected_file(instance)
    return "" if path is None or path.exists() else str(path)


def follower_file(instance: str) -> str:
    """Return the unit or cron file of the follower, "" if there is none."""
    path = _expected_file(instance)
    return str(path) if path is not None and path.exists() else ""


def remove_follower(instance: str) -> None:
    """Stop the follower and remove its unit or cron file, if it exists."""
    name = f"{FOLLOWER_PREFIX}{instance}"
    remove_units(name, f"{name}.service")


def _expected_file(instance: str) -> Path | None:
    name = f"{FOLLOWER_PREFIX}{instance}"
    return schedule_file(f"{name}.service", name)


def _log_command(directory: str) -> str:
    arguments = (
        postfix_command.find_command("postlog"),
        "-c",
        directory,
        "-t",
        "postfix-archive",
    )
    return f"{shlex.join(arguments)} -p warn"
