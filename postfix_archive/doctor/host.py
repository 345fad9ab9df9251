"""The state of a host that the doctor's checks get: configuration, files, queue, log.

Used by the checks; doctor.inspection fills it in. A value: no I/O. What could not be
inspected is absent, and a check does not guess it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from postfix_archive.config.settings import Settings
from postfix_archive.postfix import archive_services, capture_maps, configuration
from postfix_archive.postfix.configuration import Configuration, Service
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.store.bypass_period import BypassPeriod


@dataclass(frozen=True)
class File:
    """A file or directory; owner is "" if it does not exist."""

    path: str
    owner: str = ""  # user name
    mode: int = 0  # permission bits
    is_directory: bool = False
    device: int = 0  # st_dev
    has_foreign_link: bool = False  # a symlink that another user can have made

    @property
    def exists(self) -> bool:
        """Tell whether the file exists."""
        return bool(self.owner)


@dataclass(frozen=True)
class OtherInstance:
    """Another Postfix instance on this host with the archive installed."""

    directory: str  # configuration directory
    archives: tuple[str, ...]
    key_file: str = ""  # path
    key_digests: frozenset[str] = frozenset()  # SHA-256 digests of its site keys


@dataclass(frozen=True)
class Host:
    """One Postfix instance and its archive, as inspected."""

    config: Configuration
    settings: Settings | None  # None: see settings_error
    settings_error: str = ""  # why archive.cf could not be read
    # services of master.cf.d, by name/type
    reference_services: Mapping[str, Service] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)  # by path
    # program directory -> Python of another version than it was installed for
    python_mismatches: Mapping[str, str] = field(default_factory=dict)
    groups_by_user: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # by user
    # path -> directory that its user cannot search
    blocking_directories: Mapping[str, str] = field(default_factory=dict)
    # (program, user) -> why the user cannot execute it
    execute_obstacles: Mapping[tuple[str, str], str] = field(default_factory=dict)
    table_texts: Mapping[str, str] = field(default_factory=dict)  # type: path -> text
    # (table, key) -> result of the lookup
    lookup_results: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # capture map -> what is wrong with its content, "" if nothing is
    capture_map_problems: Mapping[str, str] = field(default_factory=dict)
    unreachable_ports: tuple[str, ...] = ()  # address:port that accepts no connection
    unarchived_reinjections: tuple[
        str, ...
    ] = ()  # queue ids; see unarchived_reinjection
    free_bytes: Mapping[str, int] = field(default_factory=dict)  # directory -> bytes
    queued_messages: tuple[QueuedMessage, ...] = ()
    stale_tables: tuple[str, ...] = ()  # compiled tables that differ from their sources
    # archive -> what its journal has lost since the last look
    journal_losses: Mapping[str, str] = field(default_factory=dict)
    old_journals: tuple[str, ...] = ()  # paths of journals of store format 1
    tables_error: str = ""  # why archive_tables cannot be compiled
    key_digests: frozenset[str] = frozenset()  # SHA-256 digests of the site keys
    key_error: str = ""  # why the key file cannot be parsed
    other_instances: tuple[OtherInstance, ...] = ()
    fallback_count: int = 0  # capsules in the fallback directory
    fallback_age: int = 0  # seconds, of the oldest
    fallback_reason: str = ""  # why the oldest is there
    last_failure: str = ""  # the last failure of a transport
    held_count: int = 0  # originals that a rescue put on hold
    last_rescue_age: float | None = None  # seconds since the last rescue
    log_error: str = ""  # why Postfix's log cannot be found or read
    follower_file: str = ""  # path of the unit or cron file that runs outcomes
    log_read_age: float | None = None  # seconds since it reached the log's end
    indexer_file: str = ""  # path of the unit or cron file that runs index
    index_age: float | None = None  # seconds since it reached the journals' ends
    has_retention: bool = False  # there may be retention rules
    purge_age: float | None = None  # seconds since the last purge, or since the rules
    unknown_retention_archives: tuple[str, ...] = ()  # in archive_retention
    retention_error: str = ""  # why the retention rules cannot be read
    replicator_file: str = ""  # path of the unit or cron file that runs replicate
    replication_age: float | None = None  # seconds since the bucket had all
    object_store_error: str = ""  # why the bucket cannot be used
    unsealed_age: float = 0.0  # seconds, of the first line that no seal covers
    is_store_shared: bool = True  # as archive_reader_group says, with whom
    has_access_service: bool = True  # it answers, or nobody needs it
    web_user_problem: str = ""  # what is wrong with archive_web_user
    bypass: BypassPeriod | None = None  # the current one
    is_running: bool = True
    is_default_instance: bool = True  # the instance that commands use without -c

    def pipe_services(self) -> Iterator[Service]:
        """Yield the pipe(8) services that run one of our launchers."""
        yield from (
            each
            for each in self.config.services
            if archive_services.is_pipe_service(each)
        )

    def launcher_services(self) -> Iterator[Service]:
        """Yield the pipe(8) and spawn(8) services that run one of our launchers."""
        yield from filter(archive_services.has_launcher, self.config.services)

    def archive_user(self) -> str:
        """Return the user of the archive services."""
        users = [
            each.argument("user").partition(":")[0] for each in self.launcher_services()
        ]
        return users[0] if users else "postfix-archive"

    def pipe_transports(self) -> list[Service]:
        """Return what captures by pipe(8): archive-stamp, -2, ..., archive-capture."""
        return [e for e in self.pipe_services() if launcher_name(e) != "archive"]

    def capture_transports(self) -> list[Service]:
        """Return what captures mail, by pipe(8) or by lmtp(8) and workers."""
        services = self.config.services
        return [
            *self.pipe_transports(),
            *(e for e in services if archive_services.is_lmtp_client(e)),
        ]

    def is_native(self) -> bool:
        """Tell whether mail is captured by capture maps, in a native mode."""
        installed = archive_services.installed_mode(self.config)
        return installed in archive_services.NATIVE_MODES

    def is_archived(self, service: Service) -> bool:
        """Tell whether the mail of a service goes to the archive from there."""
        content_filter = self.config.value("content_filter", service)
        return content_filter.startswith(archive_services.STAMP_TRANSPORT) or bool(
            capture_maps.map_of(self.config, service)
        )

    def receiving_services(self) -> list[Service]:
        """Return the services that receive mail: smtpd and pickup, without ours."""
        return archive_services.receiving_services(self.config)

    def number(self, name: str, service: Service | None = None) -> int | None:
        """Return a parameter as a number, in seconds if a time; None if neither."""
        return self.config.seconds(name, service)

    def transport_limit(self, name: str, default: str) -> int:
        """Return a parameter of a transport, or its default parameter if not set."""
        value = self.number(name) if self.config.value(name) else None
        return (self.number(default) or 0) if value is None else value

    def postfix_command(self, *arguments: str) -> str:
        """Return a Postfix command for this instance, quoted for a shell."""
        options = [] if self.is_default_instance else ["-c", self.config.directory]
        return shlex.join([arguments[0], *options, *arguments[1:]])

    def archive_command(self, *arguments: str) -> str:
        """Return a postfix-archive command for this instance, quoted for a shell."""
        options = [] if self.is_default_instance else ["-c", self.config.directory]
        return shlex.join(["postfix-archive", *options, *arguments])

    def install_command(self) -> str:
        """Return the command that installs again what is missing, quoted."""
        return self.archive_command("install")

    def bypass_commands(self) -> str:
        """Return commands that let mail pass unarchived without a program of ours."""
        directory = shlex.quote(self.config.directory)
        option = "" if self.is_default_instance else f" -c {directory}"
        return archive_services.bypass_commands(option)

    def parameter_command(self, name: str, value: str) -> str:
        """Return the command that sets a parameter of main.cf."""
        return self.postfix_command("postconf", "-e", f"{name} = {value}")

    def option_command(self, service: Service, name: str, value: str) -> str:
        """Return the command that sets an -o option of a service of master.cf."""
        # master.cf cannot have a space in a value; commas mean the same.
        joined = ",".join(configuration.split_list(value)) if " " in value else value
        return self.postfix_command(
            "postconf", "-P", "-e", f"{service.key}/{name} = {joined}"
        )


def launcher_name(service: Service) -> str:
    """Return the file name of the program that a service runs, "" without one."""
    return service.argument("argv").rpartition("/")[2]
