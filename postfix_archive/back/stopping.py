"""Turns signals that end a program into a failure, so that what was begun is put back.

Used by install and uninstall. Only the first signal counts: the work of putting back is
not to be stopped by the second that make(1) or a lost terminal sends.
"""

from __future__ import annotations

import signal
from types import FrameType

from postfix_archive.core.errors import InstallFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heed() -> None:
    """Raise InstallFailed, from now on, on the first signal that is not ignored."""
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(each, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, _nothing)  # no SIG_IGN: the commands we run inherit that
    raise InstallFailed(f"stopped by {signal.Signals(number).name}: run it again")


def _nothing(*_: object) -> None:
    """Do nothing: we are stopping already."""
