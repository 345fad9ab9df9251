"""Why a transport failed: in the mail log, and the last reason in a file.

Used by intake/failure, archive_transport and write-through; doctor, status and rescue
read the file. What a transport prints can reach the sender in a DSN, so the reason goes
here: by syslog(3), without /dev/log by postlog(1). postlog(1) refuses a configuration
directory that main.cf does not name (alternate_config_directories), hence the file.
Imports little, since it must work in a broken installation. Raises nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time

from postfix_archive.message import log_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TEMPORARY_FAILURE = "temporary failure"  # all that a transport prints of a failure
LOG_TAG = "postfix/archive"
SYSLOG_SOCKET = "/dev/log"
COMMAND_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin"
COMMAND_TIMEOUT = 10  # seconds
LINE_LIMIT = 900  # characters: syslog(3) then keeps the line whole
DEFAULT_DIRECTORY = "/var/tmp"  # of archive_spool_directory


def record(
    fields: Mapping[str, str], *, config_directory: str, spool_directory: str
) -> None:
    """Write the fields to the mail log and to the file of the last failure."""
    line = _printable(log_fields.build(fields))[:LINE_LIMIT]
    with contextlib.suppress(Exception):
        _write_to_log(line, config_directory)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for directory in (spool_directory, DEFAULT_DIRECTORY):
        with contextlib.suppress(Exception):
            path = _path(config_directory, directory)
            _replace(path, f"time={now} {line}\n")
            return


def last(
    config_directory: str, spool_directory: str, *, owner_of: Iterable[str]
) -> str:
    """Return the line of the last failure, with its time; "" if there was none.

    owner_of: paths that belong to the user of the transports, if they exist. What
    another user has put into a directory such as /var/tmp is not read.
    """
    owner = _owner(owner_of)
    lines = [""]
    for directory in {spool_directory, DEFAULT_DIRECTORY}:
        with contextlib.suppress(OSError):
            path = _path(config_directory, directory, owner)
            lines.append(_read(path, owner))
    return max(lines)  # they begin with the time


def explain(reason: str, last_failure: str) -> str:
    """Return a delay reason of Postfix's queue, with the last failure if it is ours."""
    if TEMPORARY_FAILURE not in reason or not last_failure:
        return reason
    return f"{reason}; last failure: {last_failure}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _write_to_log(line: str, config_directory: str) -> None:
    if os.path.exists(SYSLOG_SOCKET):
        import syslog

        syslog.openlog(LOG_TAG, syslog.LOG_PID, syslog.LOG_MAIL)
        syslog.syslog(syslog.LOG_WARNING, line)
        return
    import subprocess

    subprocess.run(
        ["postlog", "-c", config_directory, "-t", LOG_TAG, "-p", "warn", "--", line],
        env={"PATH": COMMAND_PATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=COMMAND_TIMEOUT,
        check=False,
    )


def remove(
    config_directory: str, spool_directory: str, *, owner_of: Iterable[str]
) -> None:
    """Remove the file with the last failure, if there is one."""
    with contextlib.suppress(OSError):
        os.unlink(_path(config_directory, spool_directory, _owner(owner_of)))


def _owner(paths: Iterable[str]) -> int:
    """Return the owner of the first path that exists, or else of this process."""
    for path in paths:
        with contextlib.suppress(OSError):
            return os.stat(path).st_uid
    return os.geteuid()


def _path(config_directory: str, directory: str, owner: int | None = None) -> str:
    """Return the path of the file of this owner, by default this process's user."""
    name = _name(config_directory)
    with contextlib.suppress(Exception):  # of a broken installation
        from postfix_archive.system import spool

        return spool.own_path(directory, name, owner)
    return f"{directory}/{name}"


def _name(config_directory: str) -> str:
    """Return the name of the file; instances may share a directory."""
    name = hashlib.sha256(os.fsencode(config_directory)).hexdigest()[:16]
    return f".postfix-archive-{name}.last-error"


def _replace(path: str, content: str) -> None:
    draft = f"{path}.{os.urandom(8).hex()}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(draft, flags, 0o600)
    try:
        os.write(descriptor, content.encode("utf-8", "replace"))
        os.rename(draft, path)
    except OSError:
        os.unlink(draft)
        raise
    finally:
        os.close(descriptor)


def _read(path: str, owner: int) -> str:
    """Return the content of a regular file of this owner, else ""."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
            return ""
        content = os.read(descriptor, 4 * LINE_LIMIT + 100)
    finally:
        os.close(descriptor)
    return _printable(content.decode("utf-8", "replace").strip())
