"""Turns termination signals into InstallFailed, so that changes are rolled back.

Used by install and uninstall. Only the first signal counts: a second one, from make(1)
or a lost terminal, must not interrupt the rollback.
"""

from __future__ import annotations

import signal
from types import FrameType

from postfix_archive.core.errors import InstallFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heed() -> None:
    """Install handlers: the first signal that is not ignored raises InstallFailed."""
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(each, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, _nothing)  # not SIG_IGN: child processes would inherit it
    raise InstallFailed(f"stopped by {signal.Signals(number).name}; run it again")


def _nothing(*_: object) -> None:
    """Ignore further signals during the rollback."""
