"""make uninstall: stops archiving, drains the queue, restores the configuration.

Used by install/main. The store, the key and the users remain.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

from postfix_archive.archive_transport import fallback_import
from postfix_archive.archive_transport.recent_captures import RecentCaptures
from postfix_archive.bypass import switch
from postfix_archive.config import archive_cf
from postfix_archive.errors import (
    ArchiveError,
    InstallFailed,
    InstallRefused,
    PostfixMissing,
)
from postfix_archive.install import (
    capture_map_files,
    config_files,
    instance,
    program,
    revert,
    undo,
    web_part,
)
from postfix_archive.install.filter_routes import Change
from postfix_archive.postfix import (
    configuration,
    mail_queue,
    postfix_command,
    server_processes,
)
from postfix_archive.postfix.server_processes import Processes
from postfix_archive.system import failure_log, files, privileges, scheduler


def uninstall(directory: str, prefix: str) -> None:
    """Remove the archive from an instance, and the program if no other needs it."""
    name, has_postfix = _instance_name(directory)
    undo_record = undo.UndoRecord(directory, name)
    if not undo_record.exists:
        raise InstallRefused(
            f"{undo_record.record_directory}: no undo record, so nothing to uninstall"
            f" in {directory}; for another instance run make uninstall"
            " CONFIG_DIRECTORY=DIR"
        )
    installed_prefix = _recorded_prefix(undo_record)
    if has_postfix:
        config_files.check_replaceable(directory)
        if switch.read_record(directory) is not None:
            switch.turn_off(directory)
            print("Bypass was on and is now off; the journals record the period.")
        _revert_installation(directory, undo_record)
    else:
        _restore_without_postfix(directory, undo_record)
    capture_map_files.remove(directory)
    remains = _describe_remains(directory, name)
    scheduler.TIMER.remove(name)
    _remove_follower(directory, name, prefix or installed_prefix)
    _keep_settings(directory, name)
    message = _end_record(directory, undo_record)
    if not _is_prefix_in_use(prefix or installed_prefix):
        program.ProgramFiles(prefix or installed_prefix).remove()
    print(f"{message}.\n{remains}")


def _instance_name(directory: str) -> tuple[str, bool]:
    """Return the name of the instance, and whether Postfix's commands are there."""
    try:
        postfix_config = postfix_command.read_configuration(directory)
    except PostfixMissing:
        return Path(directory).resolve().name, False
    return configuration.name_of(postfix_config), True


def _restore_without_postfix(directory: str, undo_record: undo.UndoRecord) -> None:
    """Restore the files after the postfix package was removed, or purged with them.

    Raises InstallRefused if somebody has changed them since the installation.
    """
    if Path(directory, "main.cf").exists():
        if not undo_record.is_untouched:
            raise InstallRefused(
                f"{directory} was changed since the installation, and Postfix's"
                " postconf is missing, which removes our entries alone: install the"
                " postfix package, then run make uninstall again"
            )
        undo_record.restore()
    print("Postfix is not installed; what is in its queue stays there.")


def _describe_remains(directory: str, name: str) -> str:
    """Return what stays of the archive, and how to read it without the program."""
    lines = ["The archive stays, and make install continues it:"]
    with contextlib.suppress(ArchiveError):
        settings = archive_cf.load(directory)
        if settings.has_store:
            lines += [
                f"  copies    {settings.archive_store_directory}/ARCHIVE/YYYY/MM/DD;"
                " zcat shows one, contrib/verify_archive.py of the source checks all",
            ]
        lines += [f"  key       {settings.archive_key_file}"]
        failure_log.remove(
            directory,
            settings.archive_spool_directory,
            owner_of=settings.own_paths,
        )
        Path(settings.capsule_helo_file).unlink(missing_ok=True)
        with privileges.as_owner(settings.archive_store_directory):
            RecentCaptures(settings).remove()
    lines += [f"  settings  {undo.STATE_DIRECTORY}/{name}.archive.cf"]
    return "\n".join(lines)


def _recorded_prefix(undo_record: undo.UndoRecord) -> str:
    """Return the PREFIX of the recorded installation."""
    lines = [each.after or "" for each in undo_record.changes if each.kind == "service"]
    entries = configuration.parse_services("\n".join(filter(None, lines)))
    return instance.prefix_of(entries) or program.DEFAULT_PREFIX


def _is_prefix_in_use(prefix: str) -> bool:
    """Tell whether another instance has this PREFIX, or a damaged undo record."""
    for directory in undo.STATE_DIRECTORY.glob("*.undo"):
        try:
            undo_record = undo.UndoRecord("", directory.stem)
        except InstallRefused as error:
            print(f"Program stays: {error}")
            return True
        if _recorded_prefix(undo_record) == prefix:
            return True
    return False


def _revert_installation(directory: str, undo_record: undo.UndoRecord) -> None:
    """Stop routing mail to the archive, drain the queue, then revert the rest."""
    is_running = postfix_command.is_running(directory)
    inverse_changes = [each.inverse for each in reversed(undo_record.changes)]
    _revert(
        directory, undo_record, [each for each in inverse_changes if each.routes_mail]
    )
    old_connections: Processes = frozenset()
    if is_running:
        old_connections = server_processes.reload(directory)
        queue_ids = mail_queue.drain(directory)
        if queue_ids:
            raise InstallFailed(
                f"{len(queue_ids)} messages still wait for the archive's services"
                f" ({', '.join(queue_ids[:3])}); new mail is no longer archived; see"
                " postqueue -p, fix the cause and run make uninstall again"
            )
    elif mail_queue.waiting_ids(directory):
        raise InstallFailed(
            "messages wait for the archive's services and Postfix is not running; run"
            " postfix start, then make uninstall again"
        )
    _import_fallback(directory)
    if undo_record.is_untouched:
        undo_record.restore()
    else:
        _revert(
            directory,
            undo_record,
            [each for each in inverse_changes if not each.routes_mail],
        )
    config_files.remove_drafts(directory)
    if is_running:
        postfix_command.reload(directory)
        _release_stragglers(directory, old_connections)


def _release_stragglers(directory: str, old_connections: Processes) -> None:
    """Let what came for the stamp filter after its removal pass unarchived."""
    requeued, _ = mail_queue.requeue(directory)
    if requeued:
        print(
            f"{requeued} messages came for the archive by SMTP connections from before,"
            " after its removal, and are delivered unarchived."
        )
    if remaining := server_processes.wait_for(old_connections, 0):
        print(
            f"{server_processes.describe(remaining)} still send mail to the archive's"
            " services, which are gone. When they have ended, run: postsuper -c"
            f" {shlex.quote(directory)} -r ALL deferred"
        )


def _end_record(directory: str, undo_record: undo.UndoRecord) -> str:
    """Remove the record, but keep originals that were not restored; say which."""
    if not Path(directory, "main.cf").exists():
        undo_record.delete()
        return f"{directory}: main.cf is gone, as after a purge of the package"
    if undo_record.is_restored:
        undo_record.delete()
        return f"{directory}: restored to its state before the installation"
    print(f"Original main.cf and master.cf: {undo_record.keep_originals()}")
    return f"{directory}: changed since the installation; removed only our entries"


def _remove_follower(directory: str, name: str, prefix: str) -> None:
    """Remove all services; record the outcomes that are still in the log."""
    scheduler.INDEXER.remove(name)
    scheduler.PURGER.remove(name)
    scheduler.REPLICATOR.remove(name)
    scheduler.SEALER.remove(name)
    scheduler.ACCESS_SERVICE.remove(name)
    scheduler.WEB_PAGE.remove(name)
    has_follower = scheduler.FOLLOWER.installed_file(name)
    scheduler.FOLLOWER.remove(name)
    if has_follower:
        command = str(program.ProgramFiles(prefix).command_path)
        arguments = [command, "-c", directory, "outcomes", "--once"]
        with contextlib.suppress(OSError):
            subprocess.run(arguments, capture_output=True, check=False)


def _import_fallback(directory: str) -> None:
    """Import the fallback directory into the store; raises InstallFailed."""
    _, remaining, reason = fallback_import.import_capsules(directory)
    if remaining:
        fallback_directory = archive_cf.load(directory).archive_fallback_directory
        raise InstallFailed(
            f"{remaining} archive copies wait in {fallback_directory}: {reason}; new"
            " mail is no longer archived; fix the cause and run make uninstall again"
        )


def _revert(
    directory: str, undo_record: undo.UndoRecord, changes: Iterable[Change]
) -> None:
    """Revert changes, except entries that somebody has changed since."""
    postfix_config = postfix_command.read_configuration(directory)
    is_edited = not undo_record.is_untouched
    selected = revert.select(postfix_config, changes, is_edited=is_edited, report=print)
    before = config_files.read(directory)
    after = config_files.apply_changes(before, selected)
    undo_record.add_states(after)
    config_files.replace_files(directory, after, before)


def _keep_settings(directory: str, name: str) -> None:
    """Move the settings to the state directory, where a later installation reads them.

    Those of the web page can have passwords: only root reads them there.
    """
    for file_name, mode in (
        (archive_cf.FILE_NAME, 0o644),
        (web_part.SETTINGS_FILE, 0o600),
    ):
        path = Path(directory, file_name)
        if path.exists():
            kept_path = f"{undo.STATE_DIRECTORY}/{name}.{file_name}"
            files.replace(kept_path, path.read_bytes(), mode, failure=InstallFailed)
            path.unlink()
