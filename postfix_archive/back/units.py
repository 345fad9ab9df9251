"""systemd units, or cron files on a host without systemd.

Used for the timer and the follower. Raises InstallFailed if systemctl(1) fails.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from postfix_archive.core.errors import InstallFailed

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
