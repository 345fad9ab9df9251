"""Inspect a host for the doctor: Postfix, the archive's files, tables, instances.

Used by cli.doctor and make install. Changes nothing. What cannot be inspected is left
out of the Host.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import time
from collections.abc import Iterator

from postfix_archive.access import access_service, reader_group
from postfix_archive.bypass import switch
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import DEFAULTS, Settings
from postfix_archive.doctor import (
    capture_map_state,
    instances,
    lookup_results,
    service_users,
    unarchived_reinjection,
)
from postfix_archive.doctor.host import File, Host
from postfix_archive.errors import ArchiveError
from postfix_archive.maillog import location
from postfix_archive.outcomes import follower_state
from postfix_archive.postfix import (
    archive_services,
    capture_maps,
    configuration,
    mail_queue,
    postfix_command,
    reference,
)
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.replicate import bucket, replication_lag
from postfix_archive.rescue import queue_rescue
from postfix_archive.retention import clock
from postfix_archive.seal import seal_lag
from postfix_archive.search import index_lag
from postfix_archive.store import fallback, journal_reader, known_end, record_reader
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.system import (
    failure_log,
    privileges,
    scheduler,
)
from postfix_archive.tables import table_file

CONTENT_FILTER_LIMIT = 2000  # queued messages whose content_filter is read


def inspect_host(directory: str) -> Host:
    """Return the state of the instance with this configuration directory.

    Raises PostfixMissing and PostfixCommandFailed.
    """
    postfix_config = postfix_command.read_configuration(directory)
    settings, settings_error = _load_settings(directory)
    is_running = postfix_command.is_running(directory)
    capture_files = capture_maps.required(
        postfix_config, archive_services.receiving_services(postfix_config)
    )
    stale_tables, tables_error = _stale_tables(settings)
    key_digests, key_error = instances.key_digests(settings)
    fallback_count, fallback_age, fallback_reason = _fallback_state(settings)
    return Host(
        config=postfix_config,
        settings=settings,
        settings_error=settings_error,
        reference_services=reference.reference_services(
            _installed_mode(postfix_config)
        ),
        files={
            path: _inspect_file(path)
            for path in (*_inspected_paths(settings), *capture_files)
        },
        capture_map_problems=capture_map_state.problems(capture_files, settings),
        python_mismatches=dict(service_users.python_mismatches(postfix_config)),
        groups_by_user=service_users.groups(postfix_config),
        blocking_directories=dict(
            service_users.blocked_paths(postfix_config, settings)
        ),
        execute_obstacles=dict(service_users.execute_obstacles(postfix_config)),
        table_texts=lookup_results.table_texts(postfix_config),
        lookup_results=lookup_results.look_up_keys(postfix_config, settings),
        unreachable_ports=(
            tuple(service_users.unreachable_ports(postfix_config)) if is_running else ()
        ),
        unarchived_reinjections=unarchived_reinjection.find_unarchived(
            postfix_config, archive_cf.readable_keys(settings)
        ),
        free_bytes=_free_bytes(postfix_config, settings),
        queued_messages=(
            tuple(mail_queue.list_messages(directory, CONTENT_FILTER_LIMIT))
            if is_running
            else ()
        ),
        stale_tables=stale_tables,
        journal_losses=_journal_losses(settings),
        old_journals=_old_journals(settings),
        tables_error=tables_error,
        key_digests=key_digests,
        key_error=key_error,
        other_instances=tuple(instances.others(directory)),
        bypass=_bypass_period(directory),
        held_count=_held_count(directory),
        last_rescue_age=(
            queue_rescue.last_run_age(settings, time.time()) if settings else None
        ),
        log_error=_log_error(postfix_config, settings),
        follower_file=_follower_file(postfix_config, settings),
        log_read_age=_log_read_age(settings),
        indexer_file=scheduler.INDEXER.installed_file(
            configuration.name_of(postfix_config)
        ),
        index_age=_index_age(settings),
        has_retention=_has_retention(settings),
        purge_age=_purge_age(settings),
        unknown_retention_archives=_unknown_retention_archives(
            postfix_config, settings
        ),
        replicator_file=scheduler.REPLICATOR.installed_file(
            configuration.name_of(postfix_config)
        ),
        replication_age=(
            replication_lag.last_run_age(settings, time.time()) if settings else None
        ),
        object_store_error=_object_store_error(settings),
        unsealed_age=_unsealed_age(settings),
        is_store_shared=_is_store_shared(settings),
        has_access_service=(
            settings is None
            or not settings.archive_reader_group
            or access_service.is_running(settings.archive_access_socket)
        ),
        web_user_problem=_web_user_problem(settings),
        fallback_count=fallback_count,
        fallback_age=fallback_age,
        fallback_reason=fallback_reason,
        last_failure=_last_failure(directory, settings),
        is_running=is_running,
        is_default_instance=directory == archive_cf.DEFAULT_CONFIG_DIRECTORY,
    )


def _load_settings(directory: str) -> tuple[Settings | None, str]:
    try:
        return archive_cf.load(directory), ""
    except ArchiveError as error:
        return None, str(error)


def _installed_mode(postfix_config: Configuration) -> str:
    """Return the installed mode, also if a transport is missing or lost our options."""
    installed = archive_services.installed_mode(postfix_config)
    if installed in archive_services.NATIVE_MODES:
        return installed
    stamp_service = postfix_config.service(f"{archive_services.STAMP_TRANSPORT}/unix")
    return (
        archive_services.LMTP
        if stamp_service and stamp_service.program == "lmtp"
        else archive_services.PIPE
    )


def _inspected_paths(settings: Settings | None) -> Iterator[str]:
    if settings is not None:
        yield settings.archive_key_file
        yield settings.capsule_helo_file
        yield settings.archive_spool_directory
        yield settings.archive_fallback_directory
        if settings.has_store:
            store = settings.archive_store_directory
            yield store
            with contextlib.suppress(ArchiveError):
                yield from (f"{store}/{each}" for each in record_reader.archives(store))


def _inspect_file(path: str) -> File:
    try:
        status = os.stat(path)
    except OSError:
        return File(path)
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    mode = stat.S_IMODE(status.st_mode)
    return File(
        path,
        owner,
        mode,
        stat.S_ISDIR(status.st_mode),
        status.st_dev,
        privileges.has_foreign_link(path),
    )


def _free_bytes(
    postfix_config: Configuration, settings: Settings | None
) -> dict[str, int]:
    """Return the free bytes of the file systems of queue, spool and store."""
    directories = [postfix_config.value("queue_directory")]
    if settings is not None:
        directories.append(settings.archive_spool_directory)
        if settings.has_store:
            directories.append(settings.archive_store_directory)
    free = {}
    for directory in directories:
        with contextlib.suppress(OSError):
            statvfs = os.statvfs(directory)
            free[directory] = statvfs.f_bavail * statvfs.f_frsize
    return free


def _stale_tables(settings: Settings | None) -> tuple[tuple[str, ...], str]:
    """Return the compiled tables that differ from their sources, or the error."""
    if settings is None or not settings.archive_tables:
        return (), ""
    try:
        keys = archive_cf.load_keys(settings)
        tables = table_file.compile_all(settings.archive_tables, keys)
    except ArchiveError as error:
        return (), str(error)
    return tuple(each.path for each in tables if each.needs_write), ""


def _journal_losses(settings: Settings | None) -> dict[str, str]:
    if settings is None or not settings.has_store:
        return {}
    store_directory = settings.archive_store_directory
    known = known_end.read(settings.archive_fallback_directory, store_directory)
    return known_end.losses(known, store_directory)


def _old_journals(settings: Settings | None) -> tuple[str, ...]:
    """Return the paths of journals of store format 1, which are regular files."""
    if settings is None or not settings.has_store:
        return ()
    store_directory = settings.archive_store_directory
    try:
        archives = record_reader.archives(store_directory)
    except ArchiveError:
        return ()
    paths = [journal_reader.path_of(store_directory, each) for each in archives]
    return tuple(each for each in paths if _is_regular_file(each))


def _is_regular_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _held_count(directory: str) -> int:
    try:
        return len(queue_rescue.read_hold_times(directory))
    except ArchiveError:
        return 0


def _fallback_state(settings: Settings | None) -> tuple[int, int, str]:
    """Return count, age in seconds of the oldest and its reason, for the capsules."""
    if settings is None:
        return 0, 0, ""
    directory = settings.archive_fallback_directory
    try:
        capsules = fallback.waiting_capsules(directory)
    except ArchiveError as error:
        return 1, 0, str(error)
    if not capsules:
        return 0, 0, ""
    age = int(abs(time.time() - capsules[0][0]))
    return len(capsules), age, fallback.last_reason(directory)


def _last_failure(directory: str, settings: Settings | None) -> str:
    if settings:
        spool, own_paths = settings.archive_spool_directory, settings.own_paths
    else:
        spool = DEFAULTS["archive_spool_directory"]
        own_paths = (DEFAULTS["archive_fallback_directory"],)
    return failure_log.last(directory, spool, owner_of=own_paths)


def _log_error(postfix_config: Configuration, settings: Settings | None) -> str:
    """Return why the log cannot be read, "" if it can, or if we are not root."""
    if settings is None or os.geteuid():
        return ""
    reason = location.unreadable_reason(postfix_config)
    if reason or not settings.has_store:
        return reason
    with contextlib.suppress(ArchiveError):  # check_store reports that
        archived_at = record_reader.last_arrival(settings.archive_store_directory)
        return location.stale_reason(postfix_config, archived_at)
    return ""


def _follower_file(postfix_config: Configuration, settings: Settings | None) -> str:
    return (
        scheduler.FOLLOWER.installed_file(configuration.name_of(postfix_config))
        if settings is not None
        else ""
    )


def _is_store_shared(settings: Settings | None) -> bool:
    """Return False also for a group that does not exist."""
    if settings is None or not settings.archive_reader_group:
        return True  # check_store looks whether others can read it
    store, group = settings.archive_store_directory, settings.archive_reader_group
    try:
        return reader_group.is_shared(store, group)
    except OSError:
        return True  # check_store reports that
    except ArchiveError:
        return False


def _web_user_problem(settings: Settings | None) -> str:
    if settings is not None:
        with contextlib.suppress(ArchiveError, OSError):  # other checks report that
            return reader_group.web_user_problem(settings)
    return ""


def _has_retention(settings: Settings | None) -> bool:
    return settings is not None and bool(
        settings.archive_retention or os.path.lexists(settings.retention_rules_file)
    )


def _unknown_retention_archives(
    postfix_config: Configuration, settings: Settings | None
) -> tuple[str, ...]:
    """Return the addresses in archive_retention that are no archive, nor will be."""
    if settings is None or not settings.archive_retention:
        return ()
    try:
        archives = record_reader.archives(settings.archive_store_directory)
    except ArchiveError:
        return ()
    archives += archive_services.configured_archives(postfix_config)
    return tuple(sorted({*settings.archive_retention} - {*archives}))


def _purge_age(settings: Settings | None) -> float | None:
    """Return the seconds since the last purge, else since the rules were written."""
    if settings is None:
        return None
    with contextlib.suppress(ArchiveError):
        if not record_reader.archives(settings.archive_store_directory):
            return 0.0  # there is nothing to purge
    times = [clock.last_run(settings)]
    if times == [None]:
        for path in (
            f"{settings.config_directory}/{archive_cf.FILE_NAME}",
            settings.retention_rules_file,
        ):
            with contextlib.suppress(OSError):
                times.append(os.stat(path).st_mtime)
    last = max(filter(None, times), default=None)
    return None if last is None else abs(time.time() - last)


def _index_age(settings: Settings | None) -> float | None:
    return None if settings is None else index_lag.last_run_age(settings, time.time())


def _object_store_error(settings: Settings | None) -> str:
    """Ask the server; "" if nothing is wrong, or no bucket is set."""
    if settings is None or not settings.archive_object_store:
        return ""
    try:
        bucket.of_settings(settings).check()
    except ArchiveError as error:
        return str(error)
    return ""


def _unsealed_age(settings: Settings | None) -> float:
    if settings is None:
        return 0.0
    with contextlib.suppress(ArchiveError):  # check_store reports that
        state = seal_lag.state(settings)
        return state.unsealed_age(time.time()) if state else 0.0
    return 0.0


def _log_read_age(settings: Settings | None) -> float | None:
    if settings is None:
        return None
    return follower_state.last_read_age(
        settings.archive_fallback_directory, time.time()
    )


def _bypass_period(directory: str) -> BypassPeriod | None:
    try:
        record = switch.read_record(directory)
    except ArchiveError as error:
        return BypassPeriod("?", "?", str(error))
    return record.period if record else None
