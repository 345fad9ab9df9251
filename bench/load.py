"""The mail that is sent, and how long it takes until the queue is empty."""

from __future__ import annotations

import base64
import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import usage
import variants
from private_postfix import Client, PrivatePostfix

WORDS = (
    "the of mail and archive letter to sent a was queue we you Friday please".split()
)
HEADER = b"From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: A letter\n"
ATTACHED = (
    b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n"
)
SMALL = 4096  # bytes
WARM = 20  # messages before each run
TEXT_LIMIT = 16384  # bytes; what is larger is an attachment


@dataclass(frozen=True)
class Load:
    """One kind of mail: bytes a message, recipients a message, sessions at once."""

    size: int
    recipients: int
    sessions: int

    @property
    def name(self) -> str:
        """The load in a word."""
        return f"{self.size // 1024} KB, {self.recipients} rcpt, {self.sessions} sess"

    def messages(self, most: int, *, fast: bool = False) -> int:
        """Return how many to send: of heavy ones fewer, or a run takes minutes.

        Of those that are fast three times as many, or a run is too short to be told.
        """
        heavy = (1 + (self.size > TEXT_LIMIT) * 3) * (1 + self.recipients // 25)
        return max(most // heavy, self.sessions) * (3 if fast else 1)


@dataclass(frozen=True)
class Run:
    """What one run has taken."""

    messages: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Messages a second until the queue is empty."""
        return self.messages / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a message, of the whole instance."""
        return 1000 * self.cpu / self.messages


def letter(size: int) -> bytes:
    """Return a message of a size, always the same: prose, or a random attachment."""
    chance = random.Random(size)
    if size <= TEXT_LIMIT:
        prose = "\n".join(
            " ".join(chance.choices(WORDS, k=12)) for _ in range(size // 40)
        )
        return (HEADER + b"\n" + prose.encode())[: size - 1] + b"\n"
    body = base64.encodebytes(chance.randbytes(size * 3 // 4))
    return (HEADER + ATTACHED + b"\n" + body)[: size - 1] + b"\n"


def send(
    postfix: PrivatePostfix, load: Load, messages: int, port: int | None = None
) -> None:
    """Send messages by smtp-source(1), to the usual port or another."""
    path = postfix.folder / f"letter-{load.size}"
    if not path.exists():
        path.write_bytes(letter(load.size))
    numbers = {"-s": load.sessions, "-m": messages, "-r": load.recipients}
    words = [word for name, each in numbers.items() for word in (name, str(each))]
    ends = ["-f", "alice@example.org", "-t", "bob@example.net", "-F", str(path)]
    to = f"127.0.0.1:{port or postfix.smtp_port}"
    # -d: one connection serves many messages, as between busy hosts
    subprocess.run(["smtp-source", "-d", *words, *ends, to], check=True)


def run(
    postfix: PrivatePostfix,
    group: usage.Group,
    load: Load,
    messages: int,
    port: int | None = None,
) -> Run:
    """Send so many messages, wait until the queue is empty.

    Some go before that do not count: on a busy host the processes are there already.
    """
    send(postfix, load, max(WARM, load.sessions), port)
    wait(postfix)
    cpu, begin = group.seconds(postfix), time.monotonic()
    send(postfix, load, messages, port)
    wait(postfix)
    seconds = time.monotonic() - begin
    return Run(messages, seconds, group.seconds(postfix) - cpu)


def send_large(postfix: PrivatePostfix, size: int) -> None:
    """Send one message, half of it in lines, half of it one line; wait for its end."""
    with Client(postfix.smtp_port) as client:
        client.must("MAIL FROM:<alice@example.org>", 250)
        client.must("RCPT TO:<bob@example.net>", 250)
        client.must("DATA", 354)
        client.smtp.send(HEADER.replace(b"\n", b"\r\n") + b"\r\n")
        for block in ((b"x" * 98 + b"\r\n") * 10_000, b"z" * 1_000_000):
            for _ in range(size // len(block) // 2):
                client.smtp.send(block)
        client.smtp.send(b"\r\n")
        client.must(".", 250)
    wait(postfix)


def wait(postfix: PrivatePostfix) -> None:
    """Return when the queue is empty: three looks, since files move about."""
    postfix.wait(
        lambda: not any(postfix.queue_files() for _ in range(3)), "the queue is empty"
    )


def latencies(postfix: PrivatePostfix, size: int, messages: int) -> list[float]:
    """Return milliseconds from MAIL FROM to delivery, one message after the other."""
    content = letter(size)
    with Client(postfix.smtp_port) as client:
        return [_latency(postfix, client, content) for _ in range(messages)]


def _latency(postfix: PrivatePostfix, client: Client, content: bytes) -> float:
    arrived = variants.maildir(postfix) / "new"
    begin = time.time_ns()
    client.send(content, to=[f"bob@{variants.DELIVERED_TO}"])
    delivered = _first(postfix, arrived)
    taken = (delivered.stat().st_mtime_ns - begin) / 1e6
    delivered.unlink()
    wait(postfix)
    return taken


def _first(postfix: PrivatePostfix, arrived: Path) -> Path:
    """Return what has been delivered to a folder, as soon as there is something."""
    found: list[Path] = []

    def is_there() -> bool:
        if arrived.exists():
            found.extend(
                each
                for each in arrived.iterdir()
                if b"Delivered-To: bob@" in each.read_bytes()[:1000]
            )
        return bool(found)

    postfix.wait(is_there, "the message is delivered")
    return found[0]
