"""The probe message of make install, which must reach the archive and Postfix's log.

Used by install/report. Raises InstallFailed if the archive does not get it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import time

from postfix_archive.config import archive_cf
from postfix_archive.doctor import check_queue
from postfix_archive.doctor.host import Host
from postfix_archive.errors import InstallFailed, JournalFailed, LogUnreadable
from postfix_archive.install import host_setup
from postfix_archive.maillog import journald, location, log_reader
from postfix_archive.postfix import (
    archive_services,
    capture_maps,
    mail_queue,
    postfix_command,
)
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.status import collect
from postfix_archive.store import journal_reader, record_reader

DOMAIN = "archive-probe.invalid"
LOG_TIMEOUT = 10.0  # seconds; a syslogd writes at once
# Where a syslogd may write Postfix's lines besides location.DEFAULT_PATHS.
OTHER_LOGS = ("/var/log/syslog", "/var/log/messages")


def find_obstacle(host: Host) -> str:
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


def _is_pickup_archived(postfix_config: Configuration) -> bool:
    """Tell whether the mail of pickup, which gets the probe message, is archived."""
    return any(
        (
            postfix_config.value("content_filter", each).startswith(
                archive_services.STAMP_TRANSPORT
            )
            or capture_maps.map_of(postfix_config, each)
        )
        and postfix_config.value("archive", each)
        for each in archive_services.receiving_services(postfix_config)
        if each.program == "pickup"
    )


class Probe:
    """A message to a recipient that nobody else has.

    Its domain cannot exist (RFC 2606), and transport_maps routes it to discard(8).
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._name = f"probe-{secrets.token_hex(8)}"
        self._sent_at = time.time()
        self._log_sizes: dict[str, int] = {}

    def send(self) -> None:
        """Send it; return when it is in the store.

        Raises PostfixCommandFailed if sendmail(1) does not accept it
        (authorized_submit_users), and InstallFailed if it is not stored in time.
        """
        self._sent_at = time.time()
        self._log_sizes = {path: _size(path) for path in self._log_paths()}
        directory = self._host.config.directory
        settings = archive_cf.load(directory)
        if not send_message(directory, settings.archive_store_directory, self._name):
            raise InstallFailed(failure_text(directory))
        collect.save_journal_ends(settings)

    def describe_log(self) -> str:
        """Return the log that has it, or which one should and what to do about that."""
        try:
            path = location.log_path(self._host.config)
            with contextlib.suppress(InstallFailed):
                host_setup.wait_until(
                    lambda: self._is_in_log(path), "", timeout=LOG_TIMEOUT
                )
                return _name(path)
        except LogUnreadable as error:
            return f"{error}; then {self._host.install_command()}"
        found = [each for each in (*self._log_paths(), "") if self._is_in_log(each)]
        if path in found:
            return _name(path)
        return (
            f"the probe message is not in {_name(path)}, where the archive looks for"
            f" outcomes, but in {_name(found[0]) if found else 'no log at all'}: run"
            f" {check_queue.set_log_commands(self._host)}"
        )

    def _log_paths(self) -> list[str]:
        """Return the files that may be Postfix's log: regular files alone."""
        own = self._host.config.value("maillog_file")
        paths = (own, *location.DEFAULT_PATHS, *OTHER_LOGS)
        return [each for each in dict.fromkeys(paths) if os.path.isfile(each)]

    def _is_in_log(self, path: str) -> bool:
        """Tell whether a log has it: a file, or "" for systemd's journal."""
        if not path:
            return self._is_in_journal()
        start = self._log_sizes.get(path, 0)
        try:
            with open(path, "rb") as log:
                log.seek(start if _size(path) >= start else 0)  # rotated
                return self._name.encode() in log.read(log_reader.LATEST_SIZE)
        except OSError:
            return False

    def _is_in_journal(self) -> bool:
        option = f"--since=@{int(self._sent_at)}"
        with contextlib.suppress(LogUnreadable):
            with contextlib.closing(journald.Journal(option)) as journal:
                while not journal.is_at_end:
                    entries = journal.entries(log_reader.LATEST_ENTRIES)
                    if any(self._name in each.line for each in entries):
                        return True
        return False


def _name(path: str) -> str:
    return path or "systemd's journal"


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def send_message(directory: str, store: str, name: str) -> bool:
    """Send a probe message through Postfix; tell whether it reached the store."""
    text = (
        f"From: <{name}@{DOMAIN}>\nTo: <{name}@{DOMAIN}>\n"
        "Subject: postfix_archive: installation probe\n\n"
        "make install sent this message to test the archive. Postfix discards it.\n"
    )
    ends = _journal_sizes(store)
    postfix_command.submit(directory, f"{name}@{DOMAIN}", text.encode())

    def is_stored() -> bool:
        for path in _journal_sizes(store):
            with contextlib.suppress(JournalFailed):  # of another archive
                for line in journal_reader.lines(path, ends.get(path, 0)):
                    ends[path] = line.end
                    if name.encode() in line.content:
                        return True
        return False

    try:
        host_setup.wait_until(is_stored, "the probe message in the store")
    except InstallFailed:
        return False
    return True


def _journal_sizes(store: str) -> dict[str, int]:
    """Return the size of each journal in bytes, by path."""
    sizes = {}
    for archive in record_reader.archives(store):
        path = journal_reader.path_of(store, archive)
        with contextlib.suppress(JournalFailed):
            sizes[path] = journal_reader.end_offset(path)
    return sizes


def failure_text(directory: str) -> str:
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
