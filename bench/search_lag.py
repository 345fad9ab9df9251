"""How far the index is behind while 50 messages a second are added to a store.

The store's own code adds them, with its fsyncs, and no Postfix: what is measured is the
time from the line in the journal to the commit in the index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from postfix_archive.search import archive_index
from postfix_archive.store import journal_format, journal_reader

import fill_store
import search_fill
import search_process

RATE = 50.0  # messages a second
BEFORE = 100  # messages that are indexed before
INTERVAL = 0.02  # seconds between two looks at the index
TIMEOUT = 120.0  # seconds without which it does not catch up


def measure(directory: Path, count: int) -> dict[str, object]:
    """Return the lag in seconds at each look, the rate, and what the indexer used."""
    shutil.rmtree(directory, ignore_errors=True)
    store, index = directory / "store", directory / "index"
    etc = search_process.configure(directory / "etc", store, index)
    search_process.fill(store, BEFORE)
    fill_store.make_store_directory(index)
    path = search_fill.archive_of(store).path(journal_format.NAME)
    command = [sys.executable, "-m", "postfix_archive", "-c", str(etc)]
    indexer = search_process.Watched([*command, "index", "--follow"])
    try:
        _positions_until(index, journal_reader.end_offset(path))
        lines, positions = _add(store, index, path, count)
        indexer.look()
    finally:
        indexer.process.terminate()
    usage = indexer.wait()
    seconds = lines[-1][0] - lines[0][0]
    return {
        **usage._asdict(),
        "messages": count,
        "rate": (count - 1) / seconds,
        "lags": [round(each, 3) for each in _lags(lines, positions)],
    }


def _add(
    store: Path, index: Path, path: str, count: int
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """Add messages; return when journal and index came to what offset."""
    command = [
        sys.executable,
        search_fill.__file__,
        str(store),
        str(count),
        str(RATE),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    positions: list[tuple[float, int]] = []
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, env=environment, stdout=output) as process,
    ):
        while process.poll() is None:
            positions.append((time.monotonic(), _position(index)))
            time.sleep(INTERVAL)
        output.seek(0)
        words = [line.split() for line in output]
    lines = [(float(when), int(end)) for when, end in words]
    positions += _positions_until(index, journal_reader.end_offset(path))
    return lines, positions


def _positions_until(index: Path, end: int) -> list[tuple[float, int]]:
    """Wait until the index is at an offset; return when it was where."""
    positions = [(time.monotonic(), _position(index))]
    deadline = time.monotonic() + TIMEOUT
    while positions[-1][1] < end:
        if time.monotonic() > deadline:
            raise SystemExit("the index does not catch up")
        time.sleep(INTERVAL)
        positions.append((time.monotonic(), _position(index)))
    return positions


def _position(index: Path) -> int:
    state = archive_index.read_state(str(index / search_fill.ARCHIVE))
    return state.position if state else 0


def _lags(
    lines: list[tuple[float, int]], positions: list[tuple[float, int]]
) -> list[float]:
    """Return at each look the age of the oldest message that is not indexed."""
    lags = []
    place = 0
    for now, position in positions:
        while place < len(lines) and lines[place][1] <= position:
            place += 1
        is_waiting = place < len(lines) and lines[place][0] <= now
        lags.append(now - lines[place][0] if is_waiting else 0.0)
    return lags
