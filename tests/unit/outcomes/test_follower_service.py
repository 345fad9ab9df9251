"""The follower service looks for the log anew when nothing comes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postfix_archive.maillog import location
from postfix_archive.outcomes import follower_service, follower_state
from postfix_archive.outcomes.follower_service import FollowerService

PATIENCE = 60.0  # seconds after which the service is stopped: the test then fails


@contextmanager
def write_when_followed(
    log: Path, fallback: Path, stop: Callable[[], None]
) -> Iterator[None]:
    """Make a log the newest as soon as a log is followed; stop after PATIENCE."""
    is_over = threading.Event()
    deadline = time.monotonic() + PATIENCE

    def run() -> None:
        while not (fallback / follower_state.LAST_READ_FILE).exists():
            if is_over.wait(0.01) or time.monotonic() > deadline:
                break
        newer = time.time() + 60
        os.utime(log, (newer, newer))
        if not is_over.wait(PATIENCE):
            stop()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    is_over.set()
    thread.join()


def test_the_service_follows_another_log_when_that_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [tmp_path / "mail.log", tmp_path / "maillog"]
    for age, log in enumerate(logs):
        log.write_text("")
        os.utime(log, (time.time() - age, time.time() - age))
    monkeypatch.setattr(location, "DEFAULT_PATHS", tuple(map(str, logs)))
    monkeypatch.setattr(follower_service, "LOCATE_SECONDS", 0.0)
    monkeypatch.setattr(follower_service, "POLL_SECONDS", 0.01)
    for name in ("store", "fallback"):
        (tmp_path / name).mkdir()
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("")
    (tmp_path / "archive.cf").write_text(
        f"archive_store_directory = {tmp_path}/store\n"
        f"archive_fallback_directory = {tmp_path}/fallback\n"
    )
    warnings: list[str] = []
    service = FollowerService(str(tmp_path), warnings.append)

    def stop() -> None:
        service._is_stopped = True

    with write_when_followed(logs[1], tmp_path / "fallback", stop):
        service._follow()
    assert not service._is_stopped
    assert warnings == []
