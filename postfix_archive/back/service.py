"""Schedules the follower, which reads delivery outcomes from Postfix's log.

Used by install, uninstall and doctor. One file for each instance:

    /etc/systemd/system/postfix-archive-outcomes-<instance>.service   with systemd
    /etc/cron.d/postfix-archive-outcomes-<instance>                   without

The unit is not part of postfix.service: unread log lines remain when Postfix stops.
Under cron, the output goes to Postfix's log and not into a mail every minute.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from postfix_archive.back import maillog, postconf, program, units
from postfix_archive.core.configuration import Configuration

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


def follow_obstacle(config: Configuration, *, is_wanted: bool) -> str:
    """Return why the follower cannot run, "" if it can.

    is_wanted: Settings.follows.
    """
    if not is_wanted:
        return "archive_delivery = mail: there is no store to keep outcomes in"
    return maillog.unreadable_reason(config)


def install_follower(instance: str, directory: str, command: str) -> str:
    """Install and start the follower; return its scheduler and file name.

    command: the path of postfix-archive. Returns "" on a host with neither systemd nor
    cron. Running followers of all instances restart: the program may be a new release.
    """
    command_line = f"{shlex.quote(command)} -c {shlex.quote(directory)} outcomes"
    name = f"{FOLLOWER_PREFIX}{instance}"
    if units.SYSTEMD_RUNTIME_DIRECTORY.is_dir():
        argument = units.quote_argument(f"exec {command_line} --follow")
        text = FOLLOWER_SERVICE.format(directory=directory, quoted=argument)
        program.replace_text(units.UNIT_DIRECTORY / f"{name}.service", text, 0o644)
        units.systemctl("daemon-reload")
        followers = sorted(units.UNIT_DIRECTORY.glob(f"{FOLLOWER_PREFIX}*.service"))
        units.systemctl("try-restart", *(each.name for each in followers))
        units.systemctl("enable", "--now", f"{name}.service")
        return f"systemd, {name}.service"
    if units.CRON_DIRECTORY.is_dir():
        cron_command = (
            f"{command_line} --once 2>&1 >/dev/null | {_log_command(directory)}"
        )
        text = FOLLOWER_CRONTAB.format(commands=units.escape_for_cron(cron_command))
        program.replace_text(units.CRON_DIRECTORY / name, text, 0o644)
        return f"cron, {units.CRON_DIRECTORY / name}"
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
    units.remove_units(name, f"{name}.service")


def _expected_file(instance: str) -> Path | None:
    name = f"{FOLLOWER_PREFIX}{instance}"
    return units.schedule_file(f"{name}.service", name)


def _log_command(directory: str) -> str:
    arguments = (
        postconf.find_command("postlog"),
        "-c",
        directory,
        "-t",
        "postfix-archive",
    )
    return f"{shlex.join(arguments)} -p warn"
