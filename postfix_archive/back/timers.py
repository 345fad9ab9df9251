"""The timer that runs rescue, return and status --write: systemd's, or cron's.

Every five minutes: with rescue every fifteen an alarm within fifteen could not be kept.
Used by install and uninstall. One service an instance:

    /etc/systemd/system/postfix-archive-<instance>.service, .timer   where systemd runs
    /etc/cron.d/postfix-archive-<instance>                           else
"""

from __future__ import annotations

import shlex

from postfix_archive.back import program, units

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
    """Return the file of the timer that install would make, "" if it is there."""
    name = f"postfix-archive-{instance}"
    wanted = units.place(f"{name}.timer", name)
    return "" if wanted is None or wanted.exists() else str(wanted)


def remove(instance: str) -> None:
    """Take the timer away, if there is one."""
    name = f"postfix-archive-{instance}"
    units.remove(name, f"{name}.timer", f"{name}.service")


def _commands(directory: str, command: str) -> str:
    """Return a shell command that runs all three; it fails if one of them does."""
    ours = f"{shlex.quote(command)} -c {shlex.quote(directory)}"
    both = f"{ours} rescue; code=$?; {ours} return || code=$?"
    return f"{both}; {ours} status --write && exit $code"
