"""What the written procedure says of an instance: configuration, runs, what is missing.

Used by procedure.document. Reads what status and the doctor read; changes nothing.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postfix_archive.access import access_entry
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.doctor import checks, inspection
from postfix_archive.doctor.finding import Finding
from postfix_archive.errors import NotRoot
from postfix_archive.message import dates
from postfix_archive.postfix import archive_services, configuration
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.retention import holds, rules
from postfix_archive.retention.holds import Hold
from postfix_archive.retention.rules import Rule
from postfix_archive.status import collect
from postfix_archive.status.overview import Snapshot
from postfix_archive.system import scheduler
from postfix_archive.tables import explain_plan

# Name of each job, as the templates have it.
JOBS = {
    "timer": scheduler.TIMER,
    "outcomes": scheduler.FOLLOWER,
    "index": scheduler.INDEXER,
    "purge": scheduler.PURGER,
    "seal": scheduler.SEALER,
    "replicate": scheduler.REPLICATOR,
    "access": scheduler.ACCESS_SERVICE,
}


@dataclass(frozen=True)
class Service:
    """A service of Postfix that receives mail, and what it asks to be archived."""

    name: str  # of master.cf: smtp/inet
    parameter: str  # place and value of the parameter archive
    archives: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """The state of an instance at one time. Texts are as configured."""

    time: str  # RFC 3339
    author: str  # who made the document
    config: Configuration
    settings: Settings
    mode: str  # of archive_services.MODES, "" without an installation
    services: Sequence[Service]
    snapshot: Snapshot
    findings: Sequence[Finding]  # of the doctor, the worst first
    archive_user: str
    readers: Sequence[str]  # members of archive_reader_group
    rules: Sequence[Rule]  # of archive.retention
    holds: Sequence[Hold]  # those that are open
    jobs: dict[str, str]  # by name in JOBS: the unit or cron file, "" for none

    @property
    def is_native(self) -> bool:
        """Whether cleanup(8) captures, without a stamp filter."""
        return self.mode in archive_services.NATIVE_MODES

    @property
    def has_login(self) -> bool:
        """Whether records have the SASL login of the client."""
        return self.mode in (archive_services.PIPE, archive_services.NATIVE_PIPE)

    @property
    def content_filters(self) -> tuple[str, ...]:
        """Content filters of this host other than the stamp filter."""
        return archive_services.content_filters(self.config)


def collect_facts(directory: str) -> Facts:
    """Return the facts about the instance with this configuration directory.

    Raises NotRoot, and ArchiveError where status or the doctor cannot read something.
    """
    if os.geteuid():
        raise NotRoot(
            "only root may read store, queue and configuration: sudo postfix-archive"
            " procedure"
        )
    settings = archive_cf.load(directory)
    host = inspection.inspect_host(directory)
    user = access_entry.current_user()
    instance = configuration.name_of(host.config)
    return Facts(
        time=dates.format_rfc3339(time.time()),
        author=user.sudo_user or user.login or user.name,
        config=host.config,
        settings=settings,
        mode=archive_services.installed_mode(host.config),
        services=tuple(_services(host.config)),
        snapshot=collect.snapshot(directory, settings),
        findings=checks.run(host),
        archive_user=_owner(settings.archive_store_directory),
        readers=_members(settings.archive_reader_group),
        rules=rules.load(settings).rules,
        holds=[each for each in holds.read(settings) if each.is_open],
        jobs={name: job.installed_file(instance) for name, job in JOBS.items()},
    )


def _services(config: Configuration) -> Iterator[Service]:
    for service in archive_services.receiving_services(config):
        parameter, archives = explain_plan.default_request(config, service)
        yield Service(service.key, parameter, archives)


def _owner(directory: str) -> str:
    """Return the name of a directory's owner, "" if there is no directory."""
    with contextlib.suppress(OSError, KeyError):
        return pwd.getpwuid(os.stat(directory).st_uid).pw_name
    return ""


def _members(group: str) -> tuple[str, ...]:
    """Return the members of a group, those included of whom it is the primary one."""
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return ()
    primary = [each.pw_name for each in pwd.getpwall() if each.pw_gid == entry.gr_gid]
    return tuple(sorted({*entry.gr_mem, *primary}))
