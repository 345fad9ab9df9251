"""Runs message_html in a process of its own, with limits on CPU time and memory.

Some HTML of 100 KB keeps every parser busy for minutes, or ends its process. Used by
message_page. Raises HtmlRefused if the process does not cope.
"""

from __future__ import annotations

import base64
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from postfix_archive.search import extraction_child, extraction_process
from postfix_archive.web import message_html
from postfix_archive.web.message_html import SafeHtml

CPU_LIMIT = 2  # seconds
TIME_LIMIT = 20.0  # seconds, on a busy host
MEMORY_LIMIT = 512 << 20  # bytes
PROCESS_LIMIT = 2  # at once
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:];"
    " from postfix_archive.web.html_process import main; main(int(sys.argv[1]))"
)
_processes = threading.BoundedSemaphore(PROCESS_LIMIT)


class HtmlRefused(Exception):
    """HTML is not shown: it takes too long, or it ended the process."""


def clean(source: str, images: Mapping[str, bytes], leads_to: str) -> SafeHtml:
    """Return HTML made safe; see message_html.clean(). images are by Content-ID."""
    request = {
        "source": source,
        "images": {key: base64.b64encode(e).decode() for key, e in images.items()},
        "leads_to": leads_to,
    }
    arguments = [str(CPU_LIMIT), *filter(None, sys.path)]
    try:
        with _processes:
            done = subprocess.run(
                [sys.executable, "-I", "-B", "-c", PROGRAM, *arguments],
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                timeout=TIME_LIMIT,
                **extraction_process.child_rights(),
            )
        return _parse(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise HtmlRefused from error


def _parse(reply: bytes) -> SafeHtml:
    """Return the reply of the process. Raises ValueError for anything else."""
    fields: Any = json.loads(reply)
    if not isinstance(fields, list) or len(fields) != len(SafeHtml._fields):
        raise ValueError("not a reply")
    html, remote, refused, is_cut = fields
    hosts = {str(host): int(count) for host, count in dict(remote).items()}
    return SafeHtml(str(html), hosts, int(refused), bool(is_cut))


def main(cpu: int) -> None:
    """Read a request from standard input, print the reply, end. cpu: seconds."""
    extraction_child.give_up_rights(MEMORY_LIMIT)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    request = json.load(sys.stdin.buffer)
    images = {key: base64.b64decode(each) for key, each in request["images"].items()}
    result = message_html.clean(request["source"], images.get, request["leads_to"])
    sys.stdout.buffer.write(json.dumps(result).encode("utf-8", "replace"))
