"""Schedules rescue, return and status --write every five minutes.

Five minutes, so that an alarm about waiting mail is raised within fifteen. Used by
install and uninstall. Files for each instance:

    /etc/systemd/system/postfix-archive-<instance>.service, .timer   with systemd
    /etc/cron.d/postfix-archive-<instance>                           without
"""

from __future__ import annotations

import shlex

from postfix_archive.back import program, units

SERVICE = """\
# Made by make install of postfix_archive; make uninstall removes it.
[Unit]
Description=Mail archive of Postfix in {directory}: waiting copies and status
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
# Stores waiting archive copies, writes the status; silent unless something fails.
*/5 * * * * root {commands}
"""


def install(instance: str, directory: str, command: str) -> str:
    """Install and start the timer; return its scheduler and file name.

    command: the path of postfix-archive. Returns "" on a host with neither systemd nor
    cron. Idempotent.
    """
    commands = _commands(directory, command)
    name = f"postfix-archive-{instance}"
    if units.RUNS.is_dir():
        words = {"directory": directory, "quoted": units.quoted(commands)}
        for unit, text in ((f"{name}.service", SERVICE), (f"{name}.timer", TIMER)):
            program.replace(units.UNITS / unit, text.format(**words), 0o644)
        units.systemctl("daemon-reload")
        units.systemctl("enable", "--now", f"{name}.timer")
        return f"systemd, {name}.timer"
    if units.CRON.is_dir():
        text = CRONTAB.format(commands=units.cron_line(commands))
        program.replace(units.CRON / name, text, 0o644)
        return f"cron, {units.CRON / name}"
    return ""


def missing(instance: str) -> str:
    """Return the file that would be created, "" if it exists."""
    name = f"postfix-archive-{instance}"
    wanted = units.place(f"{name}.timer", name)
    return "" if wanted is None or wanted.exists() else str(wanted)


def remove(instance: str) -> None:
    """Stop the timer and remove its files, if they exist."""
    name = f"postfix-archive-{instance}"
    units.remove(name, f"{name}.timer", f"{name}.service")


def _commands(directory: str, command: str) -> str:
    """Return a shell command that runs all three and fails if any of them fails."""
    ours = f"{shlex.quote(command)} -c {shlex.quote(directory)}"
    both = f"{ours} rescue; code=$?; {ours} return || code=$?"
    return f"{both}; {ours} status --write && exit $code"
