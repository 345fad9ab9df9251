"""How hypothesis searches in the unit tests, and fixtures of theirs."""

from __future__ import annotations

import os
import posix

import pytest
from hypothesis import HealthCheck, settings

# Wide enough, and done in seconds.
settings.register_profile(
    "unit",
    deadline=None,
    max_examples=50,
    database=None,
    # Each example writes below a directory of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("unit")


@pytest.fixture
def synced_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that fills with the paths of all that is fsynced."""
    paths: list[str] = []
    fsync = os.fsync

    def recording_fsync(file_descriptor: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{file_descriptor}"))
        fsync(file_descriptor)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(posix, "fsync", recording_fsync)
    return paths
