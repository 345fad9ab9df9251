"""The service that follows Postfix's log for outcomes: systemd's, or cron's.

Used by install, uninstall and the doctor. One an instance:

    /etc/systemd/system/postfix-archive-outcomes-<instance>.service   where systemd runs
    /etc/cron.d/postfix-archive-outcomes-<instance>                   else

It is no part of postfix.service: when that is stopped, lines are left to be read. Under
cron, what it has to say goes to Postfix's log: a mail every minute helps nobody.
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
Description=Mail archive of Postfix in {directory}: what became of each recipient
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
# What became of each recipient. Whatever it has to say goes to Postfix's log.
* * * * * root {commands}
"""


def obstacle(found: Configuration, *, is_wanted: bool) -> str:
    """Say why there is nothing to follow, or nowhere to tell of it; "" if all is well.

    is_wanted: as the settings have it (Settings.follows).
    """
    if not is_wanted:
        return "archive_delivery = mail, so there is no store that could keep outcomes"
    return maillog.unreadable(found)


def install(instance: str, directory: str, command: str) -> str:
    """Set the service up; return what runs it, "" where the host has neither.

    command is the path of postfix-archive. A follower that runs is started anew, and
    so are those of other instances: the program may be a new one.
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
    """Return the file that install would make, "" if it is there."""
    wanted = _place(instance)
    return "" if wanted is None or wanted.exists() else str(wanted)


def there(instance: str) -> str:
    """Return the file by which the follower is run, "" if there is none."""
    wanted = _place(instance)
    return str(wanted) if wanted is not None and wanted.exists() else ""


def remove(instance: str) -> None:
    """Stop the follower and take its service away, if there is one."""
    name = f"{PREFIX}{instance}"
    units.remove(name, f"{name}.service")


def _place(instance: str) -> Path | None:
    name = f"{PREFIX}{instance}"
    return units.place(f"{name}.service", name)


def _to_log(directory: str) -> str:
    words = (postconf.program("postlog"), "-c", directory, "-t", "postfix-archive")
    return f"{shlex.join(words)} -p warn"
