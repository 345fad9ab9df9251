"""A failure of a transport: the reply for Postfix, and the reason for the log.

Used by intake/pipe, intake/lmtp_worker and intake/launcher, which import it only then:
also when a module of this program cannot be imported. The reply says nothing about the
archive, since Postfix shows it to the sender in a DSN.
"""

from __future__ import annotations

import contextlib
import os
from _signal import alarm

from postfix_archive.system import failure_log

CONFIG_OPTION = b"--config-directory"
QUEUE_ID_OPTION = b"--queue-id"
OUT_OF_MEMORY_DSN = "4.3.1"
DEFAULT_DSN = "4.3.0"


def report(error: BaseException, *, queue_id: bytes, config_directory: bytes) -> str:
    """Log the failure; return the DSN status and text that the sender may see."""
    alarm(0)  # the deadline must not interrupt this
    directory = os.fsdecode(config_directory)
    directory = directory or os.environ.get("MAIL_CONFIG") or "/etc/postfix"
    failure_log.record(
        {
            "queue_id": queue_id.decode("utf-8", "replace"),
            "error": type(error).__name__,
            "reason": str(error),
        },
        config_directory=directory,
        spool_directory=_spool_directory(directory),
    )
    dsn = getattr(error, "dsn", DEFAULT_DSN)
    if isinstance(error, MemoryError):
        dsn = OUT_OF_MEMORY_DSN
    return f"{dsn} {failure_log.TEMPORARY_FAILURE}"


def report_in_pipe_mode(error: BaseException, arguments: list[bytes]) -> str:
    """Do the same with the arguments of pipe(8)."""
    options = dict(zip(arguments, arguments[1:]))
    return report(
        error,
        queue_id=options.get(QUEUE_ID_OPTION, b""),
        config_directory=options.get(CONFIG_OPTION, b""),
    )


def _spool_directory(config_directory: str) -> str:
    """Return archive_spool_directory; its default if the settings cannot be read."""
    with contextlib.suppress(BaseException):
        from postfix_archive.config import archive_cf

        return archive_cf.load(config_directory).archive_spool_directory
    return failure_log.DEFAULT_DIRECTORY
