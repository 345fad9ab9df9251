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

TIMEOUT = 60  # seconds


def download_program(package: str, name: str, cache: Path) -> Path:
    """Return /usr/bin/NAME of a Debian package."""
    path = cache / name
    if not path.exists():
        package_file = corpora.download_package(package, cache)
        draft = path.with_suffix(".draft")
        script = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/bin/$2" >"$3"'
        arguments = ["sh", "-c", script, "sh", str(package_file), name, str(draft)]
        subprocess.run(arguments, check=True)
        draft.chmod(0o755)
        draft.rename(path)
        package_file.unlink()
    return path


@contextmanager
def node_exporter(path: Path, port: int, directory: Path) -> Iterator[str]:
    """Run node_exporter with its textfile collector alone; give its address."""
    arguments = [str(path), f"--web.listen-address=127.0.0.1:{port}"]
    arguments += ["--collector.disable-defaults", "--collector.textfile"]
    arguments += [f"--collector.textfile.directory={directory}"]
    url = f"http://127.0.0.1:{port}/metrics"
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + TIMEOUT
            while not scrape(url) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def scrape(url: str) -> str:
    """Return what Prometheus would scrape, "" if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return str(response.read().decode())
    except urllib.error.URLError:
        return ""
