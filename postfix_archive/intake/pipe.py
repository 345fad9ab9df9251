"""Pipe mode: pipe(8) starts one process a message, for all transports.

Used by intake/launcher. Parses the arguments that pipe(8) makes of our master.cf
entries, reads stdin to its end, prints one line and returns an exit code: 0 when the
message is done durably, else 75 (EX_TEMPFAIL). There is no third, since pipe(8) bounces
on nearly every other code; master.cf.d sets soft_bounce=yes as well.
"""

from __future__ import annotations

import posix as os

from postfix_archive.archive_transport import transport
from postfix_archive.archive_transport.archive_job import ArchiveJob
from postfix_archive.errors import ArchiveError
from postfix_archive.stamp_filter.transaction import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFER = 75  # EX_TEMPFAIL, sysexits(3)
OUTPUT_LIMIT = 900  # bytes: Postfix then keeps the log line whole


def main(handler: Callable[[Transaction], str], arguments: list[bytes]) -> int:
    """Handle one message, print one line for Postfix's log, return 0 or 75."""
    try:
        output, exit_code = handler(Transaction(arguments)), 0
    except (ArchiveError, MemoryError) as error:
        from postfix_archive.intake import failure

        output, exit_code = failure.report_in_pipe_mode(error, arguments), DEFER
    os.write(1, output.encode("utf-8", "replace")[:OUTPUT_LIMIT] + b"\n")
    return exit_code


def filter_message(transaction: Transaction) -> str:
    """Capture and reinject one message; return the line for Postfix's log.

    Raises MessageIncomplete if stdin ended before the message did.
    """
    # Imported here: the archive transport does not need it.
    from postfix_archive.stamp_filter import capture

    _require_complete(transaction)
    return capture.filter_message(transaction)


def archive_message(transaction: Transaction) -> str:
    """Archive one message in native-pipe mode; return the line for Postfix's log.

    Raises MessageIncomplete if stdin ended before the message did.
    """
    # Imported here: the archive transport does not need it.
    from postfix_archive.stamp_filter import native_capture

    _require_complete(transaction)
    return native_capture.archive_in_time(transaction)


def _require_complete(transaction: Transaction) -> None:
    # Imported here: the archive transport does not need it.
    from postfix_archive.intake import end_of_file

    end_of_file.require_complete(
        transaction.message,
        transaction.macros[b"size"],
        transaction.settings.config_directory,
    )


def archive_capsule(transaction: Transaction) -> str:
    """Archive the capsule that Postfix hands in; return the line for Postfix's log.

    The capsule says its own length, so that the end of file needs no check.
    """
    return transport.archive_capsule(
        ArchiveJob(
            transaction.message, transaction.settings, transaction.keys, transaction.now
        )
    )
