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

PREFIX = "postfix-archive-outcomes-"
SERVICE = """\
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
CRONTAB = """\
# Made by make install of postfix_archive; make uninstall removes it.
# Reads delivery outcomes from Postfix's log; output goes to that log.
* * * * * root {commands}
"""


def obstacle(found: Configuration, *, is_wanted: bool) -> str:
    """Return why the follower cannot run, "" if it can.

    is_wanted: Settings.follows.
    """
    if not is_wanted:
        return "archive_delivery = mail: there is no store to keep outcomes in"
    return maillog.unreadable(found)


def install(instance: str, directory: str, command: str) -> str:
    """Install and start the follower; return its scheduler and file name.

    command: the path of postfix-archive. Returns "" on a host with neither systemd nor
    cron. Running followers of all instances restart: the program may be a new release.
    """
    ours = f"{shlex.quote(command)} -c {shlex.quote(directory)} outcomes"
    name = f"{PREFIX}{instance}"
    if units.RUNS.is_dir():
        quoted = units.quoted(f"exec {ours} --follow")
        text = SERVICE.format(directory=directory, quoted=quoted)
        program.replace(units.UNITS / f"{name}.service", text, 0o644)
        units.systemctl("daemon-reload")
        followers = sorted(units.UNITS.glob(f"{PREFIX}*.service"))
        units.systemctl("try-restart", *(each.name for each in followers))
        units.systemctl("enable", "--now", f"{name}.service")
        return f"systemd, {name}.service"
    if units.CRON.is_dir():
        commands = f"{ours} --once 2>&1 >/dev/null | {_to_log(directory)}"
        text = CRONTAB.format(commands=units.cron_line(commands))
        program.replace(units.CRON / name, text, 0o644)
        return f"cron, {units.CRON / name}"
    return ""


def missing(instance: str) -> str:
    """Return the file that would be created, "" if it exists."""
    wanted = _place(instance)
    return "" if wanted is None or wanted.exists() else str(wanted)


def there(instance: str) -> str:
    """Return the unit or cron file of the follower, "" if there is none."""
    wanted = _place(instance)
    return str(wanted) if wanted is not None and wanted.exists() else ""


def remove(instance: str) -> None:
    """Stop the follower and remove its unit or cron file, if it exists."""
    name = f"{PREFIX}{instance}"
    units.remove(name, f"{name}.service")


def _place(instance: str) -> Path | None:
    name = f"{PREFIX}{instance}"
    return units.place(f"{name}.service", name)


def _to_log(directory: str) -> str:
    words = (postconf.program("postlog"), "-c", directory, "-t", "postfix-archive")
    return f"{shlex.join(words)} -p warn"
