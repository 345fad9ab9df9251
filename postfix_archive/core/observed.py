"""A host as it was observed: all that the doctor's checks may look at.

Used by the checks; back/observing fills it in. A value: nothing here reads a file or
asks Postfix. What could not be observed is absent, and no check may guess it.
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
    """A file or folder; owner is "" where there is none."""

    path: str
    owner: str = ""
    mode: int = 0  # permission bits
    is_folder: bool = False
    device: int = 0  # of its file system

    @property
    def is_there(self) -> bool:
        """Tell whether it exists."""
        return bool(self.owner)


@dataclass(frozen=True)
class Waiting:
    """A message in the queue.

    One from the future, since the clock was set back, counts as old as it is ahead:
    nobody knows how long it has waited, and Postfix lets it wait till then.
    """

    queue_id: str
    age: int  # seconds
    sender: str
    recipients: tuple[str, ...]
    reasons: tuple[str, ...]  # why each recipient waits; "" if not yet tried
    content_filter: str = ""
    queue: str = ""  # incoming, active, deferred, hold

    @property
    def is_from_somebody(self) -> bool:
        """False for the null sender, as postqueue(1) writes it."""
        return self.sender not in ("", "<>", "MAILER-DAEMON")

    @property
    def reason(self) -> str:
        """Why it waits."""
        return next(filter(None, self.reasons), "not tried yet")


@dataclass(frozen=True)
class Neighbour:
    """Another Postfix instance of this host that has the archive too."""

    directory: str
    archives: tuple[str, ...]
    keys: frozenset[str]  # digests of its keys, to compare


@dataclass(frozen=True)
class Observed:
    """One Postfix instance and its archive."""

    found: Configuration
    settings: Settings | None  # None: see trouble
    trouble: str = ""  # why archive.cf could not be read
    reference: Mapping[str, Service] = field(default_factory=dict)  # master.cf.d
    files: Mapping[str, File] = field(default_factory=dict)  # by path
    pythons: Mapping[str, str] = field(
        default_factory=dict
    )  # program -> unlike its own
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by user
    closed: Mapping[str, str] = field(default_factory=dict)  # path -> folder before it
    tables: Mapping[str, str] = field(default_factory=dict)  # type: path -> its lines
    answers: Mapping[tuple[str, str], str] = field(default_factory=dict)  # table, key
    silent_ports: tuple[str, ...] = ()  # address:port where nobody answers
    handed_in: tuple[str, ...] = ()  # queue ids: by a hand-back port, not by the filter
    free: Mapping[str, int] = field(default_factory=dict)  # path -> bytes
    waiting: tuple[Waiting, ...] = ()
    stale: tuple[str, ...] = ()  # native tables older than their sources
    tables_trouble: str = ""  # why archive_tables cannot be compiled
    keys: frozenset[str] = frozenset()
    neighbours: tuple[Neighbour, ...] = ()
    fallback: int = 0  # capsules in the fallback directory
    fallback_age: int = 0  # seconds, of the oldest
    fallback_why: str = ""
    held: int = 0  # originals that a rescue has put on hold
    rescued_age: float | None = None  # seconds since the last rescue
    log_trouble: str = ""  # why Postfix's log cannot be found or read
    follower: str = ""  # the unit or the file of cron that runs outcomes
    followed_age: float | None = None  # seconds since it read the log to its end
    gap: Mapping[str, Any] | None = None  # the gate past the archive is open
    is_running: bool = True
    is_default: bool = True  # this is the instance that commands take without -c

    def doors(self) -> Iterator[Service]:
        """Give the services of master.cf that run one of our launchers."""
        yield from (each for each in self.found.services if doors.is_door(each))

    def launched(self) -> Iterator[Service]:
        """Give the same and the workers of the lmtp door."""
        yield from filter(doors.is_launched, self.found.services)

    def user(self) -> str:
        """Return the user of the archive services."""
        users = [each.argument("user").partition(":")[0] for each in self.launched()]
        return users[0] if users else "postfix-archive"

    def stamps(self) -> list[Service]:
        """Return the stamp filters: archive-stamp, archive-stamp-2 and so on."""
        return [each for each in self.doors() if launcher(each) == ways.STAMP]

    def captures(self) -> list[Service]:
        """Return all by which mail comes to a stamp filter: these, or lmtp(8)."""
        services = self.found.services
        return [*self.stamps(), *(e for e in services if doors.is_client(e))]

    def clients(self) -> list[Service]:
        """Return the services by which mail comes in: smtpd and pickup, not ours."""
        return ways.clients(self.found)

    def number(self, name: str, service: Service | None = None) -> int | None:
        """Return a parameter as a number, or seconds if a time; None if it is none."""
        return self.found.seconds(name, service)

    def limit(self, name: str, default: str) -> int:
        """Return a parameter of a transport, or what counts where it is not set."""
        own = self.number(name) if self.found.value(name) else None
        return (self.number(default) or 0) if own is None else own

    def command(self, *words: str) -> str:
        """Return a command of Postfix's for this instance, to be typed in a shell."""
        where = [] if self.is_default else ["-c", self.found.directory]
        return shlex.join([words[0], *where, *words[1:]])

    def ours(self, *words: str) -> str:
        """Return a command of postfix-archive for this instance."""
        where = [] if self.is_default else ["-c", self.found.directory]
        return shlex.join(["postfix-archive", *where, *words])

    def setting(self, name: str, value: str) -> str:
        """Return the command that sets a parameter of main.cf."""
        return self.command("postconf", "-e", f"{name} = {value}")

    def option(self, service: Service, name: str, value: str) -> str:
        """Return the command that sets an -o option of a service of master.cf."""
        held = ",".join(configuration.words(value)) if " " in value else value
        return self.command("postconf", "-P", "-e", f"{service.key}/{name} = {held}")


def launcher(service: Service) -> str:
    """Return the name of the program that a pipe(8) service runs, "" without one."""
    return service.argument("argv").rpartition("/")[2]
