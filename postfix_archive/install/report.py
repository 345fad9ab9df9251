"""What make install prints at its end: files, timer, doctor, probe, what to do next.

Used by install/main. Installs timer, follower and indexer, which need the program.
"""

from __future__ import annotations

import shlex

from postfix_archive import monitoring
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.doctor import checks, inspection
from postfix_archive.doctor.finding import worst_severity
from postfix_archive.doctor.host import Host
from postfix_archive.errors import InstallFailed, PostfixCommandFailed
from postfix_archive.install import host_setup, program
from postfix_archive.install.filter_routes import Change
from postfix_archive.install.instance import Instance
from postfix_archive.maillog import location
from postfix_archive.outcomes import follower_state
from postfix_archive.postfix import archive_services, mail_queue, server_processes
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.rescue import queue_rescue
from postfix_archive.search import index_lag
from postfix_archive.status import collect
from postfix_archive.system import scheduler

NO_TIMER = (
    "none, no systemd or cron found: run postfix-archive queue rescue and"
    " postfix-archive fallback import every five minutes"
)
NO_FOLLOWER = (
    "none, no systemd or cron found: run postfix-archive outcomes --once every minute"
)

NO_INDEXER = (
    "none, no systemd or cron found: run postfix-archive index --once every minute"
)


def show(
    postfix_instance: Instance,
    changes: tuple[Change, ...],
    program_files: program.ProgramFiles,
) -> None:
    """Print what was installed, run the doctor and send a probe message.

    Raises InstallFailed if the probe did not arrive or the doctor is critical.
    """
    print(f"Settings:   {postfix_instance.archive_cf}")
    print(f"Store:      {postfix_instance.store}")
    timer = scheduler.TIMER.install(
        postfix_instance.name,
        postfix_instance.directory,
        str(program_files.command_path),
    )
    print(f"Timer:      {timer or NO_TIMER}")
    print(
        "Follower:  "
        f" {_install_follower(postfix_instance, str(program_files.command_path))}"
    )
    indexer = _install_indexer(postfix_instance, str(program_files.command_path))
    print(f"Index:      {indexer}")
    print(
        "Undo:       postfix-archive uninstall (undo record:"
        f" {postfix_instance.undo_record.record_directory})"
    )
    if not changes:
        print("Postfix:    nothing to change.")
    if postfix_instance.old_connections:
        print(
            "Mail on:   "
            f" {server_processes.describe(postfix_instance.old_connections)} passes as"
            " before the installation until they end."
        )
    _record_first_runs(archive_cf.load(postfix_instance.directory))
    observation = inspection.inspect_host(postfix_instance.directory)
    findings = checks.run(observation)
    _print_lines("Doctor:", checks.format_report(observation, findings))
    obstacle = _probe_obstacle(observation) or _send_probe(postfix_instance.directory)
    if obstacle:
        print(f"Probe:      none, {obstacle}.")
    else:
        print("Probe:      a message went through Postfix and is in the archive.")
    _print_lines("Now:", _next_steps(observation))
    if worst_severity(findings) == monitoring.CRITICAL:
        raise InstallFailed(
            "installed, but the doctor reports what is critical, see above; fix that,"
            f" then run {observation.archive_command('doctor')}"
        )


def _print_lines(label: str, text: str) -> None:
    print(f"{label:<12}" + text.replace("\n", "\n" + " " * 12))


def _probe_obstacle(host: Host) -> str:
    """Return why no probe message can be sent, "" if one can."""
    if not host.is_running:
        return f"Postfix is not running: run {host.postfix_command('postfix', 'start')}"
    if host.bypass is not None:
        return f"bypass is on: run {host.archive_command('bypass', 'off')}"
    if not _is_pickup_archived(host.config):
        return "mail from sendmail(1) (pickup) is not archived"
    if host.settings is None or not host.settings.has_store:
        return "there is no store to find it in"
    return ""


def _send_probe(directory: str) -> str:
    """Send a probe message; return why Postfix did not accept it, "" if it is stored.

    Raises InstallFailed if it was accepted and is not stored.
    """
    store = archive_cf.load(directory).archive_store_directory
    try:
        is_stored = host_setup.send_probe(directory, store)
    except PostfixCommandFailed as error:
        return str(error)
    if not is_stored:
        raise InstallFailed(probe_failure(directory))
    collect.save_journal_ends(archive_cf.load(directory))
    return ""


def _next_steps(host: Host) -> str:
    """Return what an administrator does next, in three lines."""
    assert host.settings is not None
    store = host.settings.archive_store_directory if host.settings.has_store else ""
    kept = " and ".join(filter(None, (host.settings.archive_key_file, store)))
    return (
        f"{host.archive_command('list')} shows what is archived.\n"
        f"Let your monitoring run {host.archive_command('status')} and"
        f" {host.archive_command('doctor')}.\n"
        f"Back up {kept}; see postfix-archive(1)."
    )


def _is_pickup_archived(postfix_config: Configuration) -> bool:
    """Tell whether pickup, which receives the probe message, has a stamp filter."""
    return any(
        postfix_config.value("content_filter", each).startswith(
            archive_services.STAMP_TRANSPORT
        )
        and postfix_config.value("archive", each)
        for each in archive_services.receiving_services(postfix_config)
        if each.program == "pickup"
    )


def _install_follower(postfix_instance: Instance, command: str) -> str:
    """Install the follower; return its scheduler and file, or why there is none."""
    reason = location.follow_obstacle(
        postfix_instance.config,
        is_wanted=postfix_instance.current_settings().needs_follower,
    )
    if reason:
        scheduler.FOLLOWER.remove(postfix_instance.name)
        return f"none: {reason}"
    return (
        scheduler.FOLLOWER.install(
            postfix_instance.name, postfix_instance.directory, command
        )
        or NO_FOLLOWER
    )


def _install_indexer(postfix_instance: Instance, command: str) -> str:
    """Install the indexer; return its scheduler and file, or why there is none."""
    name = postfix_instance.name
    if not postfix_instance.current_settings().has_store:
        scheduler.INDEXER.remove(name)
        return "none: archive_delivery has no store"
    return (
        scheduler.INDEXER.install(name, postfix_instance.directory, command)
        or NO_INDEXER
    )


def _record_first_runs(settings: Settings) -> None:
    """Record all jobs as run just now, so that the doctor does not warn."""
    queue_rescue.record_run(settings)
    index_lag.touch_last_run(settings)
    follower_state.touch_last_read(settings.archive_fallback_directory)


def probe_failure(directory: str) -> str:
    """Return the error message if the probe message is not in the store."""
    queued = mail_queue.list_messages(directory)
    is_default = directory == archive_cf.DEFAULT_CONFIG_DIRECTORY
    option = "" if is_default else f" -c {shlex.quote(directory)}"
    command = f"postfix-archive{option}"
    if any(
        each.content_filter.startswith(archive_services.STAMP_TRANSPORT)
        for each in queued
    ):
        return (
            "ALL MAIL WAITS in Postfix's queue: the stamp filter did not process the"
            f" probe message; to deliver mail unarchived, run {command} bypass on"
            " --reason=WHY, or if that does not run:"
            f" {archive_services.bypass_commands(option)}; see Postfix's log, fix the"
            " cause and run bypass off, or run make uninstall"
        )
    return (
        "mail is delivered, but archive copies wait: the probe message did not reach"
        f" the store; see {command} status, mailq and Postfix's log; make uninstall"
        " removes the archive"
    )
