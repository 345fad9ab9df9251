"""Turns termination signals into InstallFailed, so that changes are rolled back.

Used by install and uninstall. Only the first signal counts: a second one, from make(1)
or a lost terminal, must not interrupt the rollback.
"""

from __future__ import annotations

import signal
from types import FrameType

from postfix_archive.core.errors import InstallFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_on_signals() -> None:
    """Install handlers: the first signal that is not ignored raises InstallFailed."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _raise_once)


def _raise_once(number: int, _: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, _ignore)  # not SIG_IGN: child processes would inherit it
    raise InstallFailed(f"stopped by {signal.Signals(number).name}; run it again")


def _ignore(*_: object) -> None:
    """Ignore further signals during the rollback."""
