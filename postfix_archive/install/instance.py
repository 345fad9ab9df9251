"""Installs the archive into one Postfix instance.

Used by install/main. Raises InstallRefused before it changes anything; after a failure
it restores main.cf, master.cf and archive.cf byte for byte.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from postfix_archive.config import archive_cf, key_file, settings, template
from postfix_archive.config.settings import Settings
from postfix_archive.errors import InstallRefused
from postfix_archive.install import (
    capture_map_files,
    config_files,
    host_setup,
    install_plan,
    mode_switch,
    undo,
)
from postfix_archive.install.config_files import Contents
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.postfix import (
    archive_services,
    configuration,
    local_clients,
    postfix_command,
    reference,
    server_processes,
)
from postfix_archive.postfix.configuration import Service
from postfix_archive.postfix.server_processes import Processes

MINIMUM_VERSION = (3, 4)
LAUNCHERS = (archive_services.STAMP_TRANSPORT, archive_services.WORKER_LAUNCHER)
LAUNCHER_PATH = re.compile(rf"(.*)/lib/postfix-archive/(?:{'|'.join(LAUNCHERS)})")


class Instance:
    """A Postfix instance into which the archive is installed.

    Raises InstallRefused if Postfix is too old or the directory is not writable.
    """

    def __init__(self, directory: str, store: str) -> None:
        self.directory = directory
        self.config = postfix_command.read_configuration(self.directory)
        self.name = configuration.name_of(self.config)
        self.undo_record = undo.UndoRecord(self.directory, self.name)
        self.archive_cf = Path(self.directory, archive_cf.FILE_NAME)
        self._kept_archive_cf = undo.STATE_DIRECTORY / f"{self.name}.archive.cf"
        self.kept_web_settings = undo.STATE_DIRECTORY / f"{self.name}.archive-web.cf"
        self.settings = self._existing_settings()
        self.store = self._store_directory(store)
        self.old_connections: Processes = frozenset()
        self.former_mode = ""  # what still needs the services of the former mode
        self._switch: mode_switch.Switch | None = None
        self._maps: dict[str, str] = {}  # file name -> archive value of capture maps
        if self.config.version < MINIMUM_VERSION:
            raise InstallRefused(
                f"Postfix {self.config.raw('mail_version')} is older than 3.4; upgrade"
                " Postfix first"
            )
        config_files.check_replaceable(self.directory)
        postfix_command.check(self.directory)

    def read_settings(self) -> None:
        """Read the settings again, after archive.cf was changed."""
        self.settings = self._existing_settings()

    def plan(self, setup: Setup) -> tuple[Change, ...]:
        """Return the changes; raises InstallRefused, for example for a port in use."""
        self._check_fixed_options(setup)
        reference_entries: dict[str, str] = {}
        for text in reference.master_cf_texts(setup.mode):
            reference_entries.update(reference.parse_entries(text))
        own_services = [
            each for each in self.config.services if archive_services.is_ours(each)
        ]
        own_ports = [
            each.name.rpartition(":")[2] for each in own_services if each.kind == "inet"
        ]
        config = self.config
        if mode_switch.is_needed(config, setup):
            self._switch = mode_switch.plan(
                config, self.undo_record, setup, reference_entries
            )
            config = self._switch.original
        self._maps = install_plan.map_values(config, setup)
        capture_map_files.check(self.directory, self._maps)
        ports = install_plan.required_ports(config, setup)
        host_setup.check_ports(ports, map(int, own_ports))
        self.ports = ports
        if self._switch is not None:
            return self._switch.changes
        return install_plan.plan_changes(config, setup, reference_entries)

    def contents_after(self, changes: tuple[Change, ...]) -> Contents:
        """Return main.cf and master.cf as they are after the installation."""
        if self._switch is not None:
            return self._switch.final
        return config_files.apply_changes(config_files.read(self.directory), changes)

    def check(self, setup: Setup) -> None:
        """Raise InstallRefused if the user or a directory could not be used."""
        host_setup.check_user(setup.user)
        config_option = f"CONFIG_DIRECTORY={self.directory}"
        host_setup.check_search_permission(
            config_option, str(self.archive_cf), setup.user
        )
        current_settings = self.current_settings()
        fallback = current_settings.archive_fallback_directory
        for option, path in (
            (f"STORE={self.store}", self.store),
            (f"archive.cf: archive_fallback_directory = {fallback}", fallback),
        ):
            host_setup.check_directory(option, path)
            host_setup.check_search_permission(option, path, setup.user)

    def missing(self, setup: Setup) -> Iterator[tuple[str, str]]:
        """Yield what apply would create besides its changes: label and name."""
        current_settings = self.current_settings()
        if not host_setup.has_user(setup.user):
            yield "User", setup.user
        for name, path in (
            ("Settings", str(self.archive_cf)),
            ("Store", self.store),
            ("Fallback", current_settings.archive_fallback_directory),
            ("Key", current_settings.archive_key_file),
            *(("Map", f"{self.directory}/{name}") for name in self._maps),
        ):
            if not os.path.exists(path):
                yield name, path

    def apply(self, setup: Setup, changes: tuple[Change, ...]) -> None:
        """Apply the changes, services first, mail routing last; roll back on failure.

        The undo record is durable before the first change. After a crash, install
        continues from there and uninstall restores the original files.
        """
        if not changes and not self.undo_record.is_unfinished:
            self._create_missing(setup)
            self._write_maps()
            return
        maps_before = capture_map_files.read(self.directory)
        before = config_files.read(self.directory)
        if self._switch is None:
            prepared = config_files.apply_changes(
                before, [each for each in changes if not each.routes_mail]
            )
            routed = self.contents_after(changes)
        else:
            prepared, routed = self._switch.prepared, self._switch.routed
        has_archive_cf = self.archive_cf.exists()
        archive_cf_content = self.archive_cf.read_bytes() if has_archive_cf else None
        try:
            states = [prepared, routed, self.contents_after(changes)]
            self.undo_record.begin(changes, states)
            self._create_missing(setup)
            self._activate(prepared, before)
            self._write_maps()
            processes = self._activate(routed, prepared)
            if self._changes_capture(prepared, routed):
                self.old_connections = server_processes.wait_for(processes)
        except BaseException:
            self._roll_back(archive_cf_content, maps_before)
            raise
        self.undo_record.mark_complete()
        if self._switch is not None:
            self._end_former_mode(self._switch)
        if not self.former_mode:
            capture_map_files.remove(self.directory, self._maps)

    def _changes_capture(self, prepared: Contents, routed: Contents) -> bool:
        """Tell whether mail on connections from before is captured in another way."""
        is_same = self._switch is not None and not self._switch.has_leftovers
        return routed != prepared and not is_same

    def _end_former_mode(self, switch: mode_switch.Switch) -> None:
        """Remove the services of the former mode unless something needs them."""
        if self.old_connections:
            self.former_mode = server_processes.describe(self.old_connections)
        elif queue_ids := switch.left_over(self.directory):
            self.former_mode = f"{len(queue_ids)} messages ({', '.join(queue_ids[:3])})"
        elif switch.has_leftovers:
            self._activate(switch.final, switch.routed)

    def _write_maps(self) -> None:
        """Write the capture maps of a native mode where they differ."""
        if self._maps:
            keys = archive_cf.load_keys(archive_cf.load(self.directory))
            capture_map_files.write(self.directory, self._maps, keys)

    def _roll_back(
        self, archive_cf_content: bytes | None, maps: dict[str, bytes]
    ) -> None:
        """Restore main.cf, master.cf, archive.cf and maps; None removes archive.cf."""
        self.undo_record.roll_back()
        capture_map_files.restore(self.directory, maps)
        capture_map_files.remove(self.directory, maps)
        if archive_cf_content is None:
            self.archive_cf.unlink(missing_ok=True)
        else:
            config_files.replace_content(self.archive_cf, archive_cf_content)
        if postfix_command.is_running(self.directory):
            postfix_command.reload(self.directory)

    def _activate(self, after: Contents, before: Contents) -> Processes:
        """Replace main.cf and master.cf; return when Postfix has loaded them.

        Returns the processes that may keep the former configuration.
        """
        config_files.replace_files(self.directory, after, before)
        postfix_command.check(self.directory)
        if not postfix_command.is_running(self.directory):
            return frozenset()
        processes = server_processes.with_clients(self.directory)
        postfix_command.reload(self.directory)
        host_setup.wait_for_ports(self.ports)
        return processes

    def _create_missing(self, setup: Setup) -> None:
        """Create user, store, archive.cf and key unless they exist."""
        host_setup.create_user(setup.user, self.store)
        undo.STATE_DIRECTORY.mkdir(exist_ok=True)
        undo.STATE_DIRECTORY.chmod(0o755)  # the archive's user reads the key in it
        host_setup.create_private_directory(self.store, setup.user)
        self._write_settings(setup)
        current_settings = archive_cf.load(self.directory)
        host_setup.create_private_directory(
            current_settings.archive_fallback_directory, setup.user
        )
        key_path = current_settings.archive_key_file
        if not os.path.exists(key_path):
            key_file.create(key_path, key_file.new_key_id(), setup.user)
        is_new = key_file.create_helo(current_settings.capsule_helo_file, setup.user)
        if is_new and postfix_command.is_running(self.directory):
            postfix_command.reload(self.directory)

    def _write_settings(self, setup: Setup) -> None:
        """Create archive.cf, or correct only the port settings of an existing one."""
        if not self.archive_cf.exists():
            has_kept = self._kept_archive_cf.exists()
            text = (
                self._kept_archive_cf.read_text("utf-8")
                if has_kept
                else self._new_archive_cf()
            )
            config_files.replace_content(self.archive_cf, text.encode())
        current_settings = archive_cf.load(self.directory)
        corrections = {
            name: f"{archive_services.LOOPBACK_ADDRESS}:{port}"
            for port, name in enumerate(template.PORT_SETTINGS, setup.port)
            if getattr(current_settings, name)
            != (archive_services.LOOPBACK_ADDRESS, port)
        }
        text = template.update(self.archive_cf.read_text("utf-8"), corrections)
        config_files.replace_content(self.archive_cf, text.encode())

    @property
    def first_port(self) -> int:
        """The first port of the services, else of archive.cf; 0 if there is none."""
        installed_port = install_plan.installed_first_port(self.config)
        if installed_port or self.settings is None:
            return installed_port
        return self.settings.archive_handback_address[1]

    def _check_fixed_options(self, setup: Setup) -> None:
        """Raise InstallRefused for options that only a new installation can change."""
        installed_port = install_plan.installed_first_port(self.config) or setup.port
        installed_position = (
            install_plan.installed_position(self.config) or setup.position
        )
        directory = (
            ""
            if self.directory == archive_cf.DEFAULT_CONFIG_DIRECTORY
            else self.directory
        )
        directory_option = f" CONFIG_DIRECTORY={directory}" if directory else ""
        for option, value, installed in (
            ("PORT", setup.port, installed_port),
            ("ARCHIVE_POSITION", setup.position, installed_position),
            ("MODE", setup.mode, self._fixed_mode(setup)),
        ):
            if value != installed:
                raise InstallRefused(
                    f"{option}={value}: the archive is installed with"
                    f" {option}={installed}; to change it, run make"
                    f" uninstall{directory_option}, then make install with"
                    f" {option}={value}"
                )

    def _fixed_mode(self, setup: Setup) -> str:
        """Return the installed mode if only a new installation can change it."""
        installed = archive_services.installed_mode(self.config) or setup.mode
        can_switch = mode_switch.is_possible(installed, setup.mode)
        return setup.mode if can_switch else installed

    def _existing_settings(self) -> Settings | None:
        """Return the settings of archive.cf, else of a kept one; None without both."""
        for path in (self.archive_cf, self._kept_archive_cf):
            if path.exists():
                return archive_cf.load(self.directory, str(path))
        return None

    def _store_directory(self, requested: str) -> str:
        """Return the store; raises InstallRefused if archive.cf names another."""
        if self.settings is None:
            return requested or self._default_directory("archive_store_directory")
        configured = self.settings.archive_store_directory
        if requested and os.path.normpath(requested) != os.path.normpath(configured):
            path = (
                self.archive_cf if self.archive_cf.exists() else self._kept_archive_cf
            )
            raise InstallRefused(
                f"STORE={requested}: {path} has archive_store_directory = {configured};"
                " to change it, see docs/operating.md, Moving the store"
            )
        return configured

    def _default_directory(self, setting: str) -> str:
        default = settings.DEFAULTS[setting]
        return default if self.name == "postfix" else f"{default}-{self.name}"

    def current_settings(self) -> Settings:
        """Return the existing settings, else those of the archive.cf to create."""
        return self.settings or settings.parse(
            self._new_archive_cf(),
            path=str(self._kept_archive_cf),
            config_directory=self.directory,
            myhostname=self.config.value("myhostname"),
        )

    def _new_archive_cf(self) -> str:
        values = {
            "myhostname": self.config.value("myhostname"),
            "archive_store_directory": self.store,
            "archive_fallback_directory": self._default_directory(
                "archive_fallback_directory"
            ),
            "archive_key_file": str(undo.STATE_DIRECTORY / f"{self.name}.key"),
        }
        clients, _ = local_clients.from_configuration(self.config)
        if clients != local_clients.LOOPBACK_NETWORKS:
            values["archive_local_clients"] = ", ".join(clients)
        if self.config.value("mail_owner") != settings.DEFAULTS["mail_owner"]:
            values["mail_owner"] = self.config.value("mail_owner")
        return template.render(values)


def prefix_of(entries: Iterable[Service]) -> str:
    """Return the PREFIX of the launchers that these services run, "" if none."""
    for service in entries:
        match = LAUNCHER_PATH.fullmatch(service.argument("argv"))
        if match and archive_services.has_launcher(service):
            return match.group(1)
    return ""
