"""The child process that extracts text from hostile content, shared by all threads.

Used by the pages that show text of messages. It ends with this process. See
search/extraction_process.
"""

from __future__ import annotations

import atexit
import contextlib
import threading

from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_process import Extractor

_lock = threading.Lock()
_extractor = Extractor()
atexit.register(_extractor.close)


def start() -> None:
    """Start the child. It is ready after some time, which no message waits for then.

    Where it cannot be started now, the first message tries again.
    """
    with _lock, contextlib.suppress(OSError):
        _extractor.start()


def extract(original: bytes) -> MessageContent:
    """Return the content of a message; one thread at a time.

    Raises OSError only if no child can be started.
    """
    with _lock:
        return _extractor.extract(original)
