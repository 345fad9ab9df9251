"""Writes a text file durably, in one step.

Used by commands that root runs, in directories that only root can write.
"""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str, mode: int) -> None:
    """Replace a file atomically and durably; equal text is not written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_text() == text:
        path.chmod(mode)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Call fsync(2) on a file, or on a directory for the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
