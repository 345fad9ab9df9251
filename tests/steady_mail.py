"""Mail at a steady rate, and how long each message takes until it is delivered.

An open loop: a message is sent when it is due, whether or not those before it are
delivered, and its latency counts from then. So a stall of a second shows in all the
messages of that second. Used by bench/load and tests/live/test_outage.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import LifoQueue

from private_postfix import GROUP, USER, Client, PrivatePostfix

SESSIONS = 10  # SMTP sessions: where some wait, others go on
DOMAIN = "delivered.example.com"
DELIVERED_TO = re.compile(rb"^Delivered-To: n\d+@delivered", re.M)
HEAD_SIZE = 1000  # bytes: what virtual(8) puts on top
# Final delivery on this host: to a Maildir, where the time of delivery is in the file.
MAIN = {
    "virtual_mailbox_domains": DOMAIN,
    "virtual_mailbox_maps": "static:Maildir/",
    "virtual_mailbox_limit": "0",
    "virtual_uid_maps": "static:65534",
    "virtual_gid_maps": "static:65534",
    "smtpd_timeout": "1h",  # sessions that are not needed wait
}


@dataclass(frozen=True)
class Sent:
    """A message that Postfix has taken; due is in ns since 1970."""

    due: int
    sha256: str  # of the body, with LF


@dataclass(frozen=True)
class Delivered:
    """A message in the Maildir; at is in ns since 1970."""

    at: int
    sha256: str


def make_mailbox(postfix: PrivatePostfix) -> Path:
    """Make the directory that MAIN needs, of an instance not yet started."""
    directory = postfix.directory / "mailboxes"
    directory.mkdir()
    shutil.chown(directory, USER, GROUP)
    postfix.postconf(virtual_mailbox_base=str(directory))
    return directory / "Maildir"


class SteadyMail:
    """Sends mail to one instance, at a rate, from a thread of its own or in this."""

    def __init__(
        self, postfix: PrivatePostfix, rate: float, contents: Sequence[bytes]
    ) -> None:
        """rate is in messages a second; contents are sent in turn."""
        self.sent: dict[int, Sent] = {}
        self.count = 0  # messages that were due
        self._postfix = postfix
        self._interval = 1 / rate
        self._contents = contents
        self._stop = threading.Event()
        self._clients: LifoQueue[Client] = LifoQueue()
        self._thread = threading.Thread(target=self._run, args=(1 << 60,))
        self._errors: list[BaseException] = []

    def __enter__(self) -> SteadyMail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.check()

    def send(self, count: int) -> None:
        """Send so many messages; return when Postfix has taken the last."""
        self._run(count)
        self.check()

    def check(self) -> None:
        """Raise the error of a message that Postfix has not taken."""
        if self._errors:
            raise self._errors[0]

    def _run(self, count: int) -> None:
        with ExitStack() as stack, ThreadPoolExecutor(SESSIONS) as pool:
            for _ in range(SESSIONS):
                client = Client(self._postfix.smtp_port)
                stack.callback(client.smtp.close)
                self._clients.put(client)
            start, first = time.monotonic(), self.count
            while self.count < first + count and not self._errors:
                at = start + (self.count - first) * self._interval
                if self._stop.wait(max(0.0, at - time.monotonic())):
                    break
                future = pool.submit(self._send, self.count, time.time_ns())
                future.add_done_callback(self._note_error)
                self.count += 1
            pool.shutdown()
            self._clients = LifoQueue()

    def _note_error(self, future: Future[None]) -> None:
        if error := future.exception():
            self._errors.append(error)

    def _send(self, number: int, due: int) -> None:
        body = b"%d\n" % number + self._contents[number % len(self._contents)]
        head = b"Subject: steady\nMessage-Id: <%d@steady.example>\n\n" % number
        client = self._clients.get()
        client.send(head + body, to=[recipient(number)])
        self._clients.put(client)
        self.sent[number] = Sent(due, hashlib.sha256(body).hexdigest())


def recipient(number: int) -> str:
    """Return to whom a message goes."""
    return f"n{number}@{DOMAIN}"


def read_message(content: bytes) -> tuple[int, str]:
    """Return the number and the SHA-256 of the body of a message with LF."""
    body = content.partition(b"\n\n")[2]
    return int(body.partition(b"\n")[0]), hashlib.sha256(body).hexdigest()


def deliveries(maildir: Path) -> dict[int, list[Delivered]]:
    """Return what is in a Maildir, by number; other mail may be there as well."""
    delivered: dict[int, list[Delivered]] = defaultdict(list)
    for path in (maildir / "new").iterdir():
        content = path.read_bytes()
        if DELIVERED_TO.search(content, 0, HEAD_SIZE):
            number, sha256 = read_message(content)
            delivered[number].append(Delivered(path.stat().st_mtime_ns, sha256))
    return delivered


def latencies(
    sent: Mapping[int, Sent], delivered: Mapping[int, Sequence[Delivered]]
) -> Iterator[tuple[int, float]]:
    """Yield when a message was due, and ms from then to its delivery, in order."""
    for number in sorted(sent):
        due = sent[number].due
        yield due, (delivered[number][0].at - due) / 1e6
