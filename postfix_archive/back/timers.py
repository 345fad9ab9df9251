"""Schedules rescue, return and status --write every five minutes.

Five minutes, so that an alarm about waiting mail is raised within fifteen. Used by
install and uninstall. Files for each instance:

    /etc/systemd/system/postfix-archive-<instance>.service, .timer   with systemd
    /etc/cron.d/postfix-archive-<instance>                           without
"""

from __future__ import annotations

import shlex

from postfix_archive.back import program, units

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
    if units.SYSTEMD_RUNTIME_DIRECTORY.is_dir():
        values = {"directory": directory, "quoted": units.quote_argument(shell_command)}
        for unit, text in (
            (f"{name}.service", TIMER_SERVICE),
            (f"{name}.timer", TIMER_UNIT),
        ):
            program.replace_text(
                units.UNIT_DIRECTORY / unit, text.format(**values), 0o644
            )
        units.systemctl("daemon-reload")
        units.systemctl("enable", "--now", f"{name}.timer")
        return f"systemd, {name}.timer"
    if units.CRON_DIRECTORY.is_dir():
        text = TIMER_CRONTAB.format(commands=units.escape_for_cron(shell_command))
        program.replace_text(units.CRON_DIRECTORY / name, text, 0o644)
        return f"cron, {units.CRON_DIRECTORY / name}"
    return ""


def missing_timer(instance: str) -> str:
    """Return the file that would be created, "" if it exists."""
    name = f"postfix-archive-{instance}"
    path = units.schedule_file(f"{name}.timer", name)
    return "" if path is None or path.exists() else str(path)


def remove_timer(instance: str) -> None:
    """Stop the timer and remove its files, if they exist."""
    name = f"postfix-archive-{instance}"
    units.remove_units(name, f"{name}.timer", f"{name}.service")


def _timer_command(directory: str, command: str) -> str:
    """Return a shell command that runs all three and fails if any of them fails."""
    command_line = f"{shlex.quote(command)} -c {shlex.quote(directory)}"
    rescue_and_return = (
        f"{command_line} rescue; code=$?; {command_line} return || code=$?"
    )
    return f"{rescue_and_return}; {command_line} status --write && exit $code"
