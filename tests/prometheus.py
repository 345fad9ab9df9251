"""Prometheus' own judges of our numbers: promtool, and node_exporter's collector.

Each is one program out of a Debian package that is not installed, since prometheus
would bring 100 MB and a running server. Kept in pytest's cache.
"""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import corpora

PATIENCE = 60  # seconds


def program(package: str, name: str, cache: Path) -> Path:
    """Return /usr/bin/NAME of a Debian package."""
    path = cache / name
    if not path.exists():
        packed = corpora.downloaded(package, cache)
        draft = path.with_suffix(".draft")
        taken = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/bin/$2" >"$3"'
        words = ["sh", "-c", taken, "sh", str(packed), name, str(draft)]
        subprocess.run(words, check=True)
        draft.chmod(0o755)
        draft.rename(path)
        packed.unlink()
    return path


@contextmanager
def node_exporter(path: Path, port: int, folder: Path) -> Iterator[str]:
    """Run node_exporter with its textfile collector alone; give its address."""
    words = [str(path), f"--web.listen-address=127.0.0.1:{port}"]
    words += ["--collector.disable-defaults", "--collector.textfile"]
    words += [f"--collector.textfile.directory={folder}"]
    url = f"http://127.0.0.1:{port}/metrics"
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as running:
        try:
            end = time.monotonic() + PATIENCE
            while not scraped(url) and time.monotonic() < end:
                time.sleep(0.05)
            yield url
        finally:
            running.terminate()


def scraped(url: str) -> str:
    """Return what Prometheus would scrape, "" if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""
