"""Jobs that systemd, or cron on a host without systemd, runs for each instance.

Used by install, uninstall and the doctor. Raises InstallFailed if systemctl(1) fails.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from postfix_archive.errors import InstallFailed
from postfix_archive.postfix import postfix_command
from postfix_archive.system import files

# This directory exists if systemd is the init system, sd_booted(3).
SYSTEMD_RUNTIME_DIRECTORY = Path("/run/systemd/system")
UNIT_DIRECTORY = Path("/etc/systemd/system")
CRON_DIRECTORY = Path("/etc/cron.d")
FILE_MODE = 0o644
HEADING = "# Made by make install of postfix_archive; make uninstall removes it.\n"


@dataclass(frozen=True)
class ScheduledJob:
    """A job of each instance, as systemd units and as a line of crontab(5).

    In the commands {archive} stands for postfix-archive with its -c option, and
    {postlog} for a command that writes its standard input to Postfix's log. In the
    texts {command} stands for the command, and {user} for the user of a unit that does
    not run as root. In both {directory} stands for the configuration directory.
    """

    name_prefix: str  # of units and cron file; the instance's name follows
    units: Mapping[str, str]  # suffix of each unit -> its text; the first is started
    unit_command: str
    crontab: str
    cron_command: str
    needs_restart: bool = False  # running ones restart: the program may be new

    def install(
        self, instance: str, directory: str, program: str, user: str = ""
    ) -> str:
        """Install and start the job; return its scheduler and file name.

        program: the path of postfix-archive. user: {user} in units that name one.
        Returns "" on a host with neither systemd nor cron. Idempotent.
        """
        path = self._path(instance)
        if path is None:
            return ""
        if not SYSTEMD_RUNTIME_DIRECTORY.is_dir():
            command = shell_command(self.cron_command, directory, program)
            _write(path, self.crontab.format(command=command.replace("%", r"\%")))
            return f"cron, {path}"
        command = shell_command(self.unit_command, directory, program)
        values = {
            "directory": directory,
            "command": quote_argument(command),
            "user": user,
        }
        for unit, text in zip(self._unit_paths(instance), self.units.values()):
            _write(unit, text.format(**values))
        self._start(path)
        return f"systemd, {path.name}"

    def installed_file(self, instance: str) -> str:
        """Return the unit that is started, or the cron file; "" if there is none."""
        path = self._path(instance)
        return str(path) if path is not None and path.exists() else ""

    def missing_file(self, instance: str) -> str:
        """Return the file that install() would create, "" if it exists."""
        path = self._path(instance)
        return "" if path is None or path.exists() else str(path)

    def remove(self, instance: str) -> None:
        """Stop the job and remove its files, if they exist."""
        units = self._unit_paths(instance)
        if any(each.exists() for each in units):
            if SYSTEMD_RUNTIME_DIRECTORY.is_dir():
                _systemctl("disable", "--now", units[0].name)
            for each in units:
                each.unlink(missing_ok=True)
            if SYSTEMD_RUNTIME_DIRECTORY.is_dir():
                _systemctl("daemon-reload")
        self._cron_path(instance).unlink(missing_ok=True)

    def _start(self, unit: Path) -> None:
        _systemctl("daemon-reload")
        if self.needs_restart:
            all_units = sorted(unit.parent.glob(f"{self.name_prefix}*{unit.suffix}"))
            _systemctl("try-restart", *(each.name for each in all_units))
        _systemctl("enable", "--now", unit.name)

    def _path(self, instance: str) -> Path | None:
        if SYSTEMD_RUNTIME_DIRECTORY.is_dir():
            return self._unit_paths(instance)[0]
        return self._cron_path(instance) if CRON_DIRECTORY.is_dir() else None

    def _cron_path(self, instance: str) -> Path:
        return CRON_DIRECTORY / f"{self.name_prefix}{instance}"

    def _unit_paths(self, instance: str) -> list[Path]:
        name = f"{self.name_prefix}{instance}"
        return [UNIT_DIRECTORY / f"{name}.{suffix}" for suffix in self.units]


def shell_command(command: str, directory: str, program: str) -> str:
    """Return a job's command for one instance, for sh(1)."""
    postlog = (postfix_command.find_command("postlog"), "-c", directory)
    return command.format(
        archive=shlex.join((program, "-c", directory)),
        directory=shlex.quote(directory),
        postlog=shlex.join((*postlog, "-t", "postfix-archive", "-p", "warn")),
    )


def quote_argument(text: str) -> str:
    """Quote one argument for a unit file (systemd.service(5), COMMAND LINES)."""
    for character in ("%", "$"):
        text = text.replace(character, character * 2)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(
        str(path), (HEADING + text).encode(), FILE_MODE, failure=InstallFailed
    )


def _systemctl(*arguments: str) -> None:
    """Run systemctl(1); raises InstallFailed with its error output."""
    process = subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, check=False
    )
    if process.returncode:
        output = " ".join(process.stderr.split())
        raise InstallFailed(f"systemctl {' '.join(arguments)}: {output}")


# Runs all three at a time, so that none waits for another; fails if one of them fails.
TIMER_COMMAND = (
    "{archive} queue rescue & rescue=$!; {archive} fallback import & import=$!;"
    " {archive} status --write; code=$?; wait $import || code=$?;"
    " wait $rescue || code=$?; exit $code"
)
TIMER = ScheduledJob(
    name_prefix="postfix-archive-",
    units={
        "timer": """\
[Unit]
Description=Mail archive of Postfix in {directory}: every five minutes

[Timer]
OnCalendar=*:0/5
AccuracySec=30s

[Install]
WantedBy=timers.target
""",
        "service": """\
[Unit]
Description=Mail archive of Postfix in {directory}: waiting copies and status
After=postfix.service

[Service]
Type=oneshot
TimeoutStartSec=15min
ExecStart=/bin/sh -c {command}
""",
    },
    unit_command=TIMER_COMMAND,
    crontab="""\
# Stores waiting archive copies, writes the status; silent unless something fails.
*/5 * * * * root {command}
""",
    cron_command=TIMER_COMMAND,
)


def _service(
    name: str, purpose: str, comment: str, follow: str, once: str
) -> ScheduledJob:
    """Return a job that runs all the time; by cron once a minute."""
    return ScheduledJob(
        name_prefix=f"postfix-archive-{name}-",
        units={"service": f"""\
[Unit]
Description=Mail archive of Postfix in {{directory}}: {purpose}
After=postfix.service
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh -c {{command}}
Restart=always
RestartSec=10s
Nice=5

[Install]
WantedBy=multi-user.target
"""},
        unit_command=f"exec {{archive}} {follow}",
        crontab=f"# {comment}\n* * * * * root {{command}}\n",
        cron_command=f"{{archive}} {once}",
        needs_restart=True,
    )


FOLLOWER = _service(
    "outcomes",
    "delivery outcomes",
    "Reads delivery outcomes from Postfix's log; output goes to that log.",
    "outcomes --follow",
    "outcomes --once 2>&1 >/dev/null | {postlog}",
)
INDEXER = _service(
    "index",
    "index for searching",
    "Brings the index for searching up to date; output goes to Postfix's log.",
    "index --follow",
    "index --once 2>&1 >/dev/null | {postlog}",
)
REPLICATOR = _service(
    "replicate",
    "object storage",
    "Uploads what is new in the store; output goes to Postfix's log.",
    "replicate --follow",
    "replicate --once 2>&1 >/dev/null | {postlog}",
)
SEALER = ScheduledJob(
    name_prefix="postfix-archive-seal-",
    units={
        "timer": """\
[Unit]
Description=Mail archive of Postfix in {directory}: a seal every day

[Timer]
OnCalendar=daily
RandomizedDelaySec=3h
Persistent=true

[Install]
WantedBy=timers.target
""",
        "service": """\
[Unit]
Description=Mail archive of Postfix in {directory}: seal the store
After=network-online.target postfix.service
Wants=network-online.target

[Service]
Type=oneshot
TimeoutStartSec=1h
ExecStart=/bin/sh -c {command}
""",
    },
    unit_command="exec {archive} seal --if-configured",
    crontab="""\
# Has the ends of the journals witnessed, if so configured; errors go to Postfix's log.
41 3 * * * root {command}
""",
    cron_command="{archive} seal --if-configured 2>&1 >/dev/null | {postlog}",
)
ACCESS_SERVICE = _service(
    "access",
    "records who reads it",
    "Records what members of archive_reader_group read; ends at once if it runs.",
    "access-service",
    "access-service >/dev/null",
)
PURGER = ScheduledJob(
    name_prefix="postfix-archive-purge-",
    units={
        "timer": """\
[Unit]
Description=Mail archive of Postfix in {directory}: purge every day

[Timer]
OnCalendar=*-*-* 02:17
RandomizedDelaySec=1h
Persistent=true

[Install]
WantedBy=timers.target
""",
        "service": """\
[Unit]
Description=Mail archive of Postfix in {directory}: mail that is kept no longer
After=postfix.service

[Service]
Type=oneshot
Nice=5
ExecStart=/bin/sh -c {command}
""",
    },
    unit_command="exec {archive} purge",
    crontab="""\
# Removes what the retention rules keep no longer; output goes to Postfix's log.
17 2 * * * root {command}
""",
    cron_command="{archive} purge 2>&1 | {postlog}",
)
# The user may write its own directory and connect to the access service: no more. No
# PrivateNetwork, for the proxy, LDAP and OpenID Connect. Processes that read hostile
# content take a namespace without a network (extraction_child).
WEB_PAGE = ScheduledJob(
    name_prefix="postfix-archive-web-",
    units={"service": """\
[Unit]
Description=Mail archive of Postfix in {directory}: web page
After=network.target postfix.service

[Service]
ExecStart=/bin/sh -c {command}
Restart=on-failure
RestartSec=10s
User={user}
UMask=0077
MemoryMax=2G
OOMPolicy=continue
StateDirectory=postfix-archive-web
StateDirectoryMode=0700
ReadWritePaths=-/run/postfix-archive-web
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=user net
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""},
    unit_command="exec {archive} web",
    crontab="""\
# Keeps the web page running; output goes to Postfix's log.
* * * * * root {command}
""",
    cron_command=(
        "flock -n -E 0 {directory}/archive-web.cf {archive} web 2>&1 | {postlog}"
    ),
    needs_restart=True,
)
