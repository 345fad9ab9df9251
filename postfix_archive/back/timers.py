"""The timer that runs rescue, return and status --write: systemd's, or cron's.

Every five minutes: with rescue every fifteen an alarm within fifteen could not be kept.
Used by install and uninstall. One service an instance:

    /etc/systemd/system/postfix-archive-<instance>.service, .timer   where systemd runs
    /etc/cron.d/postfix-archive-<instance>                           else
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from postfix_archive.back import program
from postfix_archive.core.errors import InstallFailed

RUNS = Path("/run/systemd/system")  # there when systemd is the init, sd_booted(3)
UNITS = Path("/etc/systemd/system")
CRON = Path("/etc/cron.d")
SERVICE = """\
# Made by make install of postfix_archive; make uninstall removes it.
[Unit]
Description=Mail archive of Postfix in {directory}: copies that wait
After=postfix.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c {quoted}
"""
TIMER = """\
# Made by make install of postfix_archive; make uninstall removes it.
[Unit]
Description=Mail archive of Postfix in {directory}: every five minutes

[Timer]
OnCalendar=*:0/5
AccuracySec=30s

[Install]
WantedBy=timers.target
"""
CRONTAB = """\
# Made by make install of postfix_archive; make uninstall removes it.
# Copies that wait: out of Postfix's queue, into the store. Silent when all is well.
*/5 * * * * root {commands}
"""


def install(instance: str, directory: str, command: str) -> str:
    """Set the timer up; return what runs it, "" where the host has neither.

    command is the path of postfix-archive. Twice is the same as once.
    """
    commands = _commands(directory, command)
    name = f"postfix-archive-{instance}"
    if RUNS.is_dir():
        words = {"directory": directory, "quoted": _for_systemd(commands)}
        program.replace(UNITS / f"{name}.service", SERVICE.format(**words), 0o644)
        program.replace(UNITS / f"{name}.timer", TIMER.format(**words), 0o644)
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", f"{name}.timer")
        return f"systemd, {name}.timer"
    if CRON.is_dir():
        text = CRONTAB.format(commands=commands.replace("%", r"\%"))
        program.replace(CRON / name, text, 0o644)
        return f"cron, {CRON / name}"
    return ""


def missing(instance: str) -> str:
    """Return the file of the timer that install would make, "" if it is there."""
    if RUNS.is_dir():
        wanted = UNITS / f"postfix-archive-{instance}.timer"
    else:
        wanted = CRON / f"postfix-archive-{instance}"
    return "" if wanted.exists() or not wanted.parent.is_dir() else str(wanted)


def remove(instance: str) -> None:
    """Take the timer away, if there is one."""
    name = f"postfix-archive-{instance}"
    units = [UNITS / f"{name}.timer", UNITS / f"{name}.service"]
    if any(each.exists() for each in units):
        if RUNS.is_dir():
            _systemctl("disable", "--now", f"{name}.timer")
        for each in units:
            each.unlink(missing_ok=True)
        if RUNS.is_dir():
            _systemctl("daemon-reload")
    (CRON / name).unlink(missing_ok=True)


def _commands(directory: str, command: str) -> str:
    """Return a shell command that runs all three; it fails if one of them does."""
    ours = f"{shlex.quote(command)} -c {shlex.quote(directory)}"
    both = f"{ours} rescue; code=$?; {ours} return || code=$?"
    return f"{both}; {ours} status --write && exit $code"


def _for_systemd(text: str) -> str:
    """Quote a word for a unit file (systemd.service(5), COMMAND LINES)."""
    for mark in ("%", "$"):
        text = text.replace(mark, mark * 2)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _systemctl(*words: str) -> None:
    done = subprocess.run(
        ["systemctl", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise InstallFailed(f"systemctl {' '.join(words)}: {said}")
