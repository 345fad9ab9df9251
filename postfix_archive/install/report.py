"""What make install prints at its end: files, timer, doctor, probe, what to do next.

Used by install/main. Installs timers, follower and indexer, which need the program.
"""

from __future__ import annotations

from dataclasses import replace

from postfix_archive import monitoring
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.doctor import checks, inspection
from postfix_archive.doctor.finding import worst_severity
from postfix_archive.doctor.host import Host
from postfix_archive.errors import InstallFailed, PostfixCommandFailed
from postfix_archive.install import probe, program, web_part
from postfix_archive.install.filter_routes import Change
from postfix_archive.install.instance import Instance
from postfix_archive.maillog import location
from postfix_archive.outcomes import follower_state
from postfix_archive.postfix import (
    archive_services,
    postfix_command,
    server_processes,
)
from postfix_archive.replicate import replication_lag
from postfix_archive.rescue import queue_rescue
from postfix_archive.search import index_lag
from postfix_archive.system import scheduler
from postfix_archive.system.scheduler import ScheduledJob

NO_TIMER = (
    "none, no systemd or cron found: run postfix-archive queue rescue and"
    " postfix-archive fallback import every five minutes"
)
NO_FOLLOWER = (
    "none, no systemd or cron found: run postfix-archive outcomes --once every minute"
)

NO_ACCESS_SERVICE = (
    "none, no systemd or cron found: keep postfix-archive access-service running"
)
NO_REPLICATOR = (
    "none, no systemd or cron found: run postfix-archive replicate --once every minute"
)
NO_INDEXER = (
    "none, no systemd or cron found: run postfix-archive index --once every minute"
)
NO_SEALER = (
    "none, no systemd or cron found: run postfix-archive seal --if-configured every day"
)
NO_WEB_PAGE = "none, no systemd or cron found: keep postfix-archive web running"
NO_PURGER = "none, no systemd or cron found: run postfix-archive purge every day"


def show(
    postfix_instance: Instance,
    changes: tuple[Change, ...],
    program_files: program.ProgramFiles,
) -> None:
    """Print what was installed, run the doctor and send a probe message.

    Raises InstallFailed if the probe did not arrive or the doctor is critical.
    """
    if program_files.parts:
        print(f"Parts:      {', '.join(program_files.parts)}")
    print(f"Settings:   {postfix_instance.archive_cf}")
    print(f"Store:      {postfix_instance.store}")
    command = str(program_files.command_path)
    timer = scheduler.TIMER.install(
        postfix_instance.name, postfix_instance.directory, command
    )
    print(f"Timer:      {timer or NO_TIMER}")
    print(f"Follower:   {_install_follower(postfix_instance, command)}")
    for label, job, without in (
        ("Index", scheduler.INDEXER, NO_INDEXER),
        ("Purge", scheduler.PURGER, NO_PURGER),
        ("Seals", scheduler.SEALER, NO_SEALER),
    ):
        text = _install_job(job, postfix_instance, command) or without
        print(f"{f'{label}:':11} {text}")
    if postfix_instance.current_settings().archive_object_store:
        service = scheduler.REPLICATOR.install(
            postfix_instance.name, postfix_instance.directory, command
        )
        print(f"Bucket:     {service or NO_REPLICATOR}")
    else:
        scheduler.REPLICATOR.remove(postfix_instance.name)
    if postfix_instance.current_settings().archive_reader_group:
        service = scheduler.ACCESS_SERVICE.install(
            postfix_instance.name, postfix_instance.directory, command
        )
        print(f"Readers:    {service or NO_ACCESS_SERVICE}")
    else:
        scheduler.ACCESS_SERVICE.remove(postfix_instance.name)
    if web_part.NAME in program_files.parts:
        service = web_part.install_service(postfix_instance, command)
        print(f"Web page:   {service or NO_WEB_PAGE}")
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
    if filters := _filters_before(postfix_instance):
        print(
            f"Filter:     {filters} comes before the archive: what it discards is not"
            " archived"
        )
    if postfix_instance.former_mode:
        print(
            f"Mode:       {postfix_instance.former_mode} still need the services of the"
            " former mode, which stay until you run make install again."
        )
    _record_first_runs(archive_cf.load(postfix_instance.directory))
    observation = replace(
        inspection.inspect_host(postfix_instance.directory),
        object_store_error="",  # the packages that ask it are the command's
    )
    findings = checks.run(observation)
    _print_lines("Doctor:", checks.format_report(observation, findings))
    _send_probe(observation)
    _print_lines("Now:", _next_steps(observation))
    if worst_severity(findings) == monitoring.CRITICAL:
        raise InstallFailed(
            "installed, but the doctor reports what is critical, see above; fix that,"
            f" then run {observation.archive_command('doctor')}"
        )


def _print_lines(label: str, text: str) -> None:
    print(f"{label:<12}" + text.replace("\n", "\n" + " " * 12))


def _send_probe(host: Host) -> None:
    """Send a probe message, and print where it is or why there is none."""
    obstacle = probe.find_obstacle(host)
    message = probe.Probe(host)
    try:
        if not obstacle:
            message.send()
    except PostfixCommandFailed as error:
        obstacle = str(error)
    if obstacle:
        print(f"Probe:      none, {obstacle}.")
        return
    print("Probe:      a message went through Postfix and is in the archive.")
    print(f"Log:        {message.describe_log()}")


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


def _filters_before(postfix_instance: Instance) -> str:
    """Return the content filters that mail passes before it is archived."""
    config = postfix_command.read_configuration(postfix_instance.directory)
    if archive_services.installed_mode(config) not in archive_services.NATIVE_MODES:
        return ""
    return ", ".join(archive_services.content_filters(config))


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


def _install_job(job: ScheduledJob, postfix_instance: Instance, command: str) -> str:
    """Install a job that works on the store; return its scheduler and file.

    Or why it is not installed, "" without systemd and cron. Those of seals and of purge
    do nothing until a setting gives them something to do.
    """
    name = postfix_instance.name
    if not postfix_instance.current_settings().has_store:
        job.remove(name)
        return "none: archive_delivery has no store"
    return job.install(name, postfix_instance.directory, command)


def _record_first_runs(settings: Settings) -> None:
    """Record all jobs as run just now, so that the doctor does not warn."""
    queue_rescue.record_run(settings)
    index_lag.touch_last_run(settings)
    replication_lag.touch_last_run(settings)
    follower_state.touch_last_read(settings.archive_fallback_directory)
