"""systemd units, or cron files on a host without systemd.

Used for the timer and the follower. Raises InstallFailed if systemctl(1) fails.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from postfix_archive.core.errors import InstallFailed

RUNS = Path("/run/systemd/system")  # exists if systemd is the init system, sd_booted(3)
UNITS = Path("/etc/systemd/system")
CRON = Path("/etc/cron.d")


def quoted(text: str) -> str:
    """Quote one argument for a unit file (systemd.service(5), COMMAND LINES)."""
    for mark in ("%", "$"):
        text = text.replace(mark, mark * 2)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def cron_line(commands: str) -> str:
    """Escape a shell command for crontab(5)."""
    return commands.replace("%", r"\%")


def place(unit: str, name: str) -> Path | None:
    """Return the path of the unit, else of the cron file; None without both."""
    wanted = UNITS / unit if RUNS.is_dir() else CRON / name
    return wanted if RUNS.is_dir() or CRON.is_dir() else None


def remove(name: str, started: str, *more: str) -> None:
    """Stop a unit; remove it, further units, and the cron file of this name."""
    units = [UNITS / each for each in (started, *more)]
    if any(each.exists() for each in units):
        if RUNS.is_dir():
            systemctl("disable", "--now", started)
        for each in units:
            each.unlink(missing_ok=True)
        if RUNS.is_dir():
            systemctl("daemon-reload")
    (CRON / name).unlink(missing_ok=True)


def systemctl(*words: str) -> None:
    """Run systemctl(1); raises InstallFailed with its error output."""
    done = subprocess.run(
        ["systemctl", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise InstallFailed(f"systemctl {' '.join(words)}: {said}")
