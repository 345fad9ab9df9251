"""Runs safe_html and safe_images in a process of its own, with limits.

Some HTML of 100 KB keeps every parser busy for minutes, or ends its process; so do some
images. Used by files_page. Raises HtmlRefused or ImageRefused if the process does
not cope.
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
from postfix_archive.web.message import safe_html, safe_images
from postfix_archive.web.message.safe_html import SafeHtml
from postfix_archive.web.message.safe_images import ImageRefused

CPU_LIMIT = 2  # seconds
TIME_LIMIT = 20.0  # seconds, on a busy host
MEMORY_LIMIT = 512 << 20  # bytes
REPLY_LIMIT = 40 << 20  # bytes
PROCESS_LIMIT = 2  # at once
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:];"
    " from postfix_archive.web.message.html_process import main; main(int(sys.argv[1]))"
)
_processes = threading.BoundedSemaphore(PROCESS_LIMIT)


class HtmlRefused(Exception):
    """HTML is not shown: it takes too long, or it ended the process."""


def clean(source: str, images: Mapping[str, bytes], leads_to: str) -> SafeHtml:
    """Return HTML made safe; see safe_html.clean(). images are by Content-ID."""
    request = {
        "source": source,
        "images": {key: base64.b64encode(e).decode() for key, e in images.items()},
        "leads_to": leads_to,
    }
    try:
        return _parse(_ask(request))
    except (OSError, ValueError) as error:
        raise HtmlRefused from error


def encode_image(content: bytes) -> bytes:
    """Return an image made anew; see safe_images.encode()."""
    if len(content) > safe_images.CONTENT_LIMIT:
        raise ImageRefused(f"more than {safe_images.CONTENT_LIMIT >> 20} MB")
    try:
        fields: Any = json.loads(_ask({"image": base64.b64encode(content).decode()}))
        image, reason = map(str, fields)
        encoded = base64.b64decode(image)
    except (OSError, ValueError, TypeError) as error:
        raise ImageRefused("it takes too long or too much memory") from error
    if reason:
        raise ImageRefused(reason)
    return encoded


def _ask(request: Mapping[str, Any]) -> bytes:
    """Return the reply of a process to a request. Raises OSError and ValueError."""
    arguments = [str(CPU_LIMIT), *filter(None, sys.path)]
    with (
        _processes,
        subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            **extraction_process.child_rights(),
        ) as process,
    ):
        assert process.stdin and process.stdout
        timer = threading.Timer(TIME_LIMIT, process.kill)
        timer.start()
        try:
            # It reads all before it writes.
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
            reply: bytes = process.stdout.read(REPLY_LIMIT + 1)
        finally:
            timer.cancel()
            process.kill()
    if len(reply) > REPLY_LIMIT:
        raise ValueError("a reply that is too long")
    return reply


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
    result: object
    if "image" in request:
        result = _image(base64.b64decode(request["image"]))
    else:
        result = _html(request)
    sys.stdout.buffer.write(json.dumps(result).encode("utf-8", "replace"))


def _image(content: bytes) -> tuple[str, str]:
    """Return an image made anew, in base64, and why it is refused."""
    try:
        return base64.b64encode(safe_images.encode(content)).decode(), ""
    except ImageRefused as error:
        return "", str(error)


def _html(request: Mapping[str, Any]) -> SafeHtml:
    images = {key: base64.b64decode(each) for key, each in request["images"].items()}
    return safe_html.clean(request["source"], images.get, request["leads_to"])
