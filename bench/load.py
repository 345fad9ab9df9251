"""The mail that is sent, and how long it takes until the queue is empty."""

from __future__ import annotations

import base64
import random
import shutil
import subprocess
import time
from dataclasses import dataclass

import resource_usage
import steady_mail
import variants
from private_postfix import Client, PrivatePostfix

VOCABULARY = (
    "the of mail and archive letter to sent a was queue we you Friday please".split()
)
HEADER = b"From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: A letter\n"
ATTACHMENT_HEADER = (
    b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n"
)
SMALL_SIZE = 4096  # bytes
WARM_UP_MESSAGES = 20  # messages before each run
TEXT_LIMIT = 16384  # bytes; what is larger is an attachment
# Messages a second whose latency is taken: about half of what a variant can, or less.
RATE = 10.0
FAST_RATE = 40.0  # of variants.FAST


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

    def messages(self, count: int, *, is_fast: bool = False) -> int:
        """Return how many to send: of heavy ones fewer, or a run takes minutes.

        Of those that are fast three times as many, or a run is too short to be told.
        """
        divisor = (1 + (self.size > TEXT_LIMIT) * 3) * (1 + self.recipients // 25)
        return max(count // divisor, self.sessions) * (3 if is_fast else 1)


@dataclass(frozen=True)
class Run:
    """What one run has taken."""

    messages: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Messages a second until the queue is empty."""
        return self.messages / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a message, of the whole instance."""
        return 1000 * self.cpu_seconds / self.messages


def make_message(size: int) -> bytes:
    """Return a message of a size, always the same: prose, or a random attachment."""
    generator = random.Random(size)
    if size <= TEXT_LIMIT:
        text = "\n".join(
            " ".join(generator.choices(VOCABULARY, k=12)) for _ in range(size // 40)
        )
        return (HEADER + b"\n" + text.encode())[: size - 1] + b"\n"
    body = base64.encodebytes(generator.randbytes(size * 3 // 4))
    return (HEADER + ATTACHMENT_HEADER + b"\n" + body)[: size - 1] + b"\n"


def send(
    postfix: PrivatePostfix, load: Load, messages: int, port: int | None = None
) -> None:
    """Send messages by smtp-source(1), to the usual port or another."""
    path = postfix.directory / f"letter-{load.size}"
    if not path.exists():
        path.write_bytes(make_message(load.size))
    values = {"-s": load.sessions, "-m": messages, "-r": load.recipients}
    options = [word for name, each in values.items() for word in (name, str(each))]
    arguments = ["-f", "alice@example.org", "-t", "bob@example.net", "-F", str(path)]
    address = f"127.0.0.1:{port or postfix.smtp_port}"
    # -d: one connection serves many messages, as between busy hosts
    subprocess.run(["smtp-source", "-d", *options, *arguments, address], check=True)


def run(
    postfix: PrivatePostfix,
    group: resource_usage.ControlGroup,
    load: Load,
    messages: int,
    port: int | None = None,
) -> Run:
    """Send so many messages, wait until the queue is empty.

    Some go before that do not count: on a busy host the processes are there already.
    """
    send(postfix, load, max(WARM_UP_MESSAGES, load.sessions), port)
    wait_for_empty_queue(postfix)
    cpu, start = group.seconds(postfix), time.monotonic()
    send(postfix, load, messages, port)
    wait_for_empty_queue(postfix)
    seconds = time.monotonic() - start
    return Run(messages, seconds, group.seconds(postfix) - cpu)


def send_large(postfix: PrivatePostfix, size: int) -> None:
    """Send one message, half of it in lines, half of it one line; wait for its end."""
    with Client(postfix.smtp_port) as client:
        client.command("MAIL FROM:<alice@example.org>", 250)
        client.command("RCPT TO:<bob@example.net>", 250)
        client.command("DATA", 354)
        client.smtp.send(HEADER.replace(b"\n", b"\r\n") + b"\r\n")
        for block in ((b"x" * 98 + b"\r\n") * 10_000, b"z" * 1_000_000):
            for _ in range(size // len(block) // 2):
                client.smtp.send(block)
        client.smtp.send(b"\r\n")
        client.command(".", 250)
    wait_for_empty_queue(postfix)


def wait_for_empty_queue(postfix: PrivatePostfix) -> None:
    """Return when the queue is empty: three looks, since files move about."""
    postfix.wait(
        lambda: not any(postfix.queue_files() for _ in range(3)), "the queue is empty"
    )


def latency_rate(name: str) -> float:
    """Return how many messages a second a variant gets whose latency is taken."""
    return FAST_RATE if name in variants.FAST else RATE


def latencies(
    name: str, postfix: PrivatePostfix, size: int, messages: int
) -> list[float]:
    """Return ms from when a message is due to its delivery, at the variant's rate.

    Of large messages a fifth are sent. Some go before that do not count.
    """
    maildir = variants.maildir(postfix)
    shutil.rmtree(maildir, ignore_errors=True)
    mail = steady_mail.SteadyMail(postfix, latency_rate(name), [make_message(size)])
    mail.send(WARM_UP_MESSAGES + messages // (1 if size <= TEXT_LIMIT else 5))
    wait_for_empty_queue(postfix)
    delivered = steady_mail.deliveries(maildir)
    values = [ms for _, ms in steady_mail.latencies(mail.sent, delivered)]
    return values[WARM_UP_MESSAGES:]
