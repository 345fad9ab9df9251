"""Whether the kernel's clock is synchronised: adjtimex(2).

Used by retention/clock. Time services such as chronyd(8) tell the kernel so.
Whoever sets the clock by hand takes it back.
"""

from __future__ import annotations

import ctypes
import ctypes.util

TIMEX_SIZE = 1024  # bytes: more than any struct timex; modes = 0 changes nothing
TIME_ERROR = 5  # <sys/timex.h>: not synchronised


def is_synchronised() -> bool:
    """Tell whether a time service keeps the clock right; False where nobody knows."""
    try:
        adjtimex = ctypes.CDLL(ctypes.util.find_library("c")).adjtimex
    except (OSError, AttributeError):
        return False
    state = adjtimex(ctypes.create_string_buffer(TIMEX_SIZE))
    return 0 <= int(state) < TIME_ERROR
