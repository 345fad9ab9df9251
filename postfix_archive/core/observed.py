"""The state of a host that the doctor's checks get: configuration, files, queue, log.

Used by the checks; doctor.inspection fills it in. A value: no I/O. What could not be
inspected is absent, and a check does not guess it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from postfix_archive.core import configuration, doors, ways
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.settings import Settings


@dataclass(frozen=True)
class File:
    """A file or directory; owner is "" if it does not exist."""

    path: str
    owner: str = ""  # user name
    mode: int = 0  # permission bits
    is_folder: bool = False
    device: int = 0  # st_dev

    @property
    def is_there(self) -> bool:
        """Tell whether the file exists."""
        return bool(self.owner)


@dataclass(frozen=True)
class Waiting:
    """A message in Postfix's queue.

    After the clock was set back, an arrival time can be in the future: its distance
    counts as age then, for Postfix keeps the message until that time.
    """

    queue_id: str
    age: int  # seconds
    sender: str
    recipients: tuple[str, ...]
    reasons: tuple[str, ...]  # delay_reason of each recipient; "" if not yet tried
    content_filter: str = ""
    queue: str = ""  # incoming, active, deferred, hold

    @property
    def is_from_somebody(self) -> bool:
        """False for the null sender, as postqueue(1) writes it."""
        return self.sender not in ("", "<>", "MAILER-DAEMON")

    @property
    def reason(self) -> str:
        """The first delay reason."""
        return next(filter(None, self.reasons), "not tried yet")


@dataclass(frozen=True)
class Neighbour:
    """Another Postfix instance on this host with the archive installed."""

    directory: str  # configuration directory
    archives: tuple[str, ...]
    keys: frozenset[str]  # SHA-256 digests of its site keys


@dataclass(frozen=True)
class Observed:
    """One Postfix instance and its archive, as inspected."""

    found: Configuration
    settings: Settings | None  # None: see settings_error
    trouble: str = ""  # why archive.cf could not be read
    # services of master.cf.d, by name/type
    reference: Mapping[str, Service] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)  # by path
    # program directory -> Python of another version than it was installed for
    pythons: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by user
    # path -> directory that its user cannot search
    closed: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)  # type: path -> text
    # (table, key) -> result of the lookup
    answers: Mapping[tuple[str, str], str] = field(default_factory=dict)
    silent_ports: tuple[str, ...] = ()  # address:port that accepts no connection
    handed_in: tuple[str, ...] = ()  # queue ids; see unarchived_reinjection
    free: Mapping[str, int] = field(default_factory=dict)  # directory -> bytes
    waiting: tuple[Waiting, ...] = ()
    stale: tuple[str, ...] = ()  # compiled tables that differ from their sources
    tables_trouble: str = ""  # why archive_tables cannot be compiled
    keys: frozenset[str] = frozenset()  # SHA-256 digests of the site keys
    neighbours: tuple[Neighbour, ...] = ()
    fallback: int = 0  # capsules in the fallback directory
    fallback_age: int = 0  # seconds, of the oldest
    fallback_why: str = ""  # why the oldest is there
    held: int = 0  # originals that a rescue put on hold
    rescued_age: float | None = None  # seconds since the last rescue
    log_trouble: str = ""  # why Postfix's log cannot be found or read
    follower: str = ""  # path of the unit or cron file that runs outcomes
    followed_age: float | None = None  # seconds since it reached the log's end
    gap: Mapping[str, Any] | None = None  # record of the bypass, if it is on
    is_running: bool = True
    is_default: bool = True  # the instance that commands use without -c

    def doors(self) -> Iterator[Service]:
        """Yield the pipe(8) services that run one of our launchers."""
        yield from (each for each in self.found.services if doors.is_door(each))

    def launched(self) -> Iterator[Service]:
        """Yield the pipe(8) and spawn(8) services that run one of our launchers."""
        yield from filter(doors.is_launched, self.found.services)

    def user(self) -> str:
        """Return the user of the archive services."""
        users = [each.argument("user").partition(":")[0] for each in self.launched()]
        return users[0] if users else "postfix-archive"

    def stamps(self) -> list[Service]:
        """Return the pipe(8) stamp filters: archive-stamp, archive-stamp-2, ..."""
        return [each for each in self.doors() if launcher(each) == ways.STAMP]

    def captures(self) -> list[Service]:
        """Return the stamp filter transports: pipe(8), or lmtp(8) in lmtp mode."""
        services = self.found.services
        return [*self.stamps(), *(e for e in services if doors.is_client(e))]

    def clients(self) -> list[Service]:
        """Return the services that receive mail: smtpd and pickup, without ours."""
        return ways.clients(self.found)

    def number(self, name: str, service: Service | None = None) -> int | None:
        """Return a parameter as a number, in seconds if a time; None if neither."""
        return self.found.seconds(name, service)

    def limit(self, name: str, default: str) -> int:
        """Return a parameter of a transport, or its default parameter if not set."""
        own = self.number(name) if self.found.value(name) else None
        return (self.number(default) or 0) if own is None else own

    def command(self, *words: str) -> str:
        """Return a Postfix command for this instance, quoted for a shell."""
        where = [] if self.is_default else ["-c", self.found.directory]
        return shlex.join([words[0], *where, *words[1:]])

    def ours(self, *words: str) -> str:
        """Return a postfix-archive command for this instance, quoted for a shell."""
        where = [] if self.is_default else ["-c", self.found.directory]
        return shlex.join(["postfix-archive", *where, *words])

    def setting(self, name: str, value: str) -> str:
        """Return the command that sets a parameter of main.cf."""
        return self.command("postconf", "-e", f"{name} = {value}")

    def option(self, service: Service, name: str, value: str) -> str:
        """Return the command that sets an -o option of a service of master.cf."""
        # master.cf cannot have a space in a value; commas mean the same.
        joined = ",".join(configuration.words(value)) if " " in value else value
        return self.command("postconf", "-P", "-e", f"{service.key}/{name} = {joined}")


def launcher(service: Service) -> str:
    """Return the file name of the program that a service runs, "" without one."""
    return service.argument("argv").rpartition("/")[2]
