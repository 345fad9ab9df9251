"""A deadline for the work on one message, by SIGALRM.

Used by intake and stamp_filter. Work that overruns raises DeadlineExceeded.
"""

from __future__ import annotations

from _signal import SIGALRM, alarm, signal

from postfix_archive.errors import DeadlineExceeded


def set_deadline(seconds: int) -> None:
    """Raise DeadlineExceeded after seconds.

    That must come before pipe(8)'s own command_time_limit, after which it bounces.
    """

    def give_up(*_: object) -> None:
        raise DeadlineExceeded(
            f"archive_time_limit = {seconds}s exceeded; check the disks and the"
            " internal ports"
        )

    signal(SIGALRM, give_up)
    alarm(seconds)
