"""Changes an installed archive to another mode.

Used by install/instance. Mail flows and is archived meanwhile: the services of the
former mode stay until no connection and no message in the queue needs them. Between the
native modes nothing does, since capture recipients have no transport before qmgr(8)
looks it up. A queued message names its content filter, and the modes pipe and lmtp use
the same names for different services, so one cannot follow the other in this way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from postfix_archive.errors import InstallRefused
from postfix_archive.install import config_files, install_plan, revert
from postfix_archive.install.config_files import Contents
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.install.undo import UndoRecord
from postfix_archive.postfix import (
    archive_services,
    capture_maps,
    header_rewriting,
    mail_queue,
    postfix_command,
)
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.postfix.queued_message import QueuedMessage


@dataclass(frozen=True)
class Switch:
    """The changes to the configuration without the archive, and what files become."""

    setup: Setup
    original: Configuration  # without the archive, as uninstall would leave it
    changes: tuple[Change, ...]
    prepared: Contents  # with services and parameters of the new mode
    routed: Contents  # mail goes to the new mode; what is queued, to the former
    final: Contents  # without the former mode

    @property
    def has_leftovers(self) -> bool:
        """Tell whether services of the former mode stay for a while."""
        return self.routed != self.final

    def left_over(self, directory: str) -> list[str]:
        """Flush the queue; return the ids of messages that need the former mode."""
        if not self.has_leftovers:
            return []
        is_native = self.setup.mode in archive_services.NATIVE_MODES
        needs = needs_stamp_filter if is_native else needs_capture_transport
        return mail_queue.drain(directory, needs)


def is_needed(config: Configuration, setup: Setup) -> bool:
    """Tell whether the installed mode is another one, or the former is still there."""
    installed = archive_services.installed_mode(config)
    has_both = all(
        config.service(f"{name}/unix")
        for name in (
            archive_services.CAPTURE_TRANSPORT,
            archive_services.STAMP_TRANSPORT,
        )
    )
    is_other = installed not in ("", setup.mode)
    return has_both or is_other and is_possible(installed, setup.mode)


def is_possible(installed: str, mode: str) -> bool:
    """Tell whether a mode can follow the installed one while mail flows."""
    return not {installed, mode}.isdisjoint(archive_services.NATIVE_MODES)


def plan(
    config: Configuration,
    undo_record: UndoRecord,
    setup: Setup,
    reference_entries: Mapping[str, str],
) -> Switch:
    """Return the switch to the mode of setup. Raises InstallRefused."""
    if not undo_record.exists:
        raise InstallRefused(
            f"MODE={setup.mode}: {undo_record.record_directory} is missing, so the"
            " archive was set up by hand; remove it by hand (docs/setting-up.md), then"
            " install"
        )
    if config.value(archive_services.BYPASS_PARAMETER):
        raise InstallRefused(
            f"MODE={setup.mode}: the bypass is on; run postfix-archive bypass off first"
        )
    contents = revert.original_contents(undo_record, config)
    original = _parse(contents, config.directory)
    changes = install_plan.plan_changes(original, setup, reference_entries)
    final = config_files.apply_changes(contents, changes)
    final_config = _parse(final, config.directory)
    current = config_files.read(config.directory)
    routed = final
    if not _is_native(config, setup):
        leftovers = _leftovers(config, final_config, undo_record.changes, setup)
        routed = config_files.apply_changes(final, leftovers)
    prepared = config_files.apply_changes(current, _additions(config, changes))
    return Switch(setup, original, changes, prepared, routed, final)


def _is_native(config: Configuration, setup: Setup) -> bool:
    """Tell whether both modes are native, with no mail left for another one."""
    modes = {archive_services.installed_mode(config), setup.mode}
    has_filter = config.service(f"{archive_services.STAMP_TRANSPORT}/unix") is not None
    return modes <= set(archive_services.NATIVE_MODES) and not has_filter


def _parse(contents: Contents, directory: str) -> Configuration:
    """Return main.cf and master.cf with these contents as postconf(1) prints them."""
    with tempfile.TemporaryDirectory() as private_directory:
        for name, content in contents.items():
            Path(private_directory, name).write_bytes(content)
        config = postfix_command.read_configuration(private_directory)
    parameters = {**config.parameters, "config_directory": directory}
    return replace(config, directory=directory, parameters=parameters)


def _additions(config: Configuration, changes: tuple[Change, ...]) -> Iterator[Change]:
    """Yield the changes that only add what the former mode does not have."""
    for change in changes:
        is_new = (
            change.kind == "service"
            and config.service(change.name) is None
            or change.kind == "main"
            and change.name not in config.main
        )
        if is_new and not change.routes_mail:
            yield change


def _leftovers(
    config: Configuration,
    final: Configuration,
    recorded: list[Change],
    setup: Setup,
) -> Iterator[Change]:
    """Yield what the former mode needs until its mail is gone.

    recorded: the changes of the installation. Mail on connections from before is still
    captured when a native mode ends, by the cleanup services that capture now; what is
    reinjected then must not be.
    """
    for change in recorded:
        if change.kind == "service" and final.service(change.name) is None:
            service = config.service(change.name)
            if service is not None:
                yield Change("service", change.name, service.line)
        elif change.kind == "main" and not change.routes_mail:
            if change.name in config.main and change.name not in final.main:
                yield Change("main", change.name, config.main[change.name])
    if setup.mode in archive_services.NATIVE_MODES:
        return
    for name in (capture_maps.PARAMETER, "transport_maps"):
        if name in config.main:
            yield Change("main", name, config.main[name])
    last = header_rewriting.LAST_CLEANUP
    yield Change("option", f"{last}/{capture_maps.PARAMETER}", "")
    for service in archive_services.receiving_services(config):
        name = header_rewriting.CLEANUP_PARAMETER
        planned = final.service(service.key)
        if planned and name in service.options and name not in planned.options:
            yield Change("option", f"{service.key}/{name}", service.options[name])


def needs_stamp_filter(message: QueuedMessage) -> bool:
    """Tell whether a message waits for a stamp filter."""
    return message.content_filter.startswith(archive_services.STAMP_TRANSPORT)


def needs_capture_transport(message: QueuedMessage) -> bool:
    """Tell whether a message has capture recipients; others come with the filter."""
    has_filter = message.content_filter.startswith(archive_services.OWN_DESTINATIONS)
    return not has_filter and bool(message.internal_recipients)
