"""Large mail: up to the very limit, and beyond what memory should hold."""

from __future__ import annotations

import hashlib
import re
import smtplib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from postfix_archive.store import record_reader

import corpora
from private_postfix import DOORS, Client, PrivatePostfix

pytestmark = pytest.mark.live

ARCHIVE = "legal@example.com"
TO = "large@example.net"
LIMIT = 200_000  # message_size_limit of the small instance
HUGE = 200_000_000  # bytes: lines first, then one line that is as long
MEMORY = 64 * 1024  # KiB: what one process of ours may cost
BLOCK = 1 << 20
HEADER = (
    b"From: alice@example.org\r\nSubject: large\r\nMessage-Id: <1@example.org>\r\n"
    b"Date: Sun, 22 Nov 2026 12:53:00 +0100\r\n"
)
SMALL = {
    "message_size_limit": str(LIMIT),
    "smtpd_soft_error_limit": "1000",  # looking for the edge is full of refusals
    "smtpd_hard_error_limit": "1000",
    "smtpd_error_sleep_time": "0",
}
UNLIMITED = {"message_size_limit": "0", "mailbox_size_limit": "0"}

# Put in front of each door: runs the real one and writes down its peak memory.
MEASURE = """#!/usr/bin/python3 -IS
import os, resource, sys
door = {program!r} + "/" + os.path.basename(sys.argv[0])
child = os.posix_spawn(door, [door, *sys.argv[1:]], os.environ)
status = os.waitpid(child, 0)[1]
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
with open(f"{folder}/{{os.path.basename(door)}}.{{os.getpid()}}", "w") as told:
    told.write(str(peak))
sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 75)
"""


def measure_memory(master: str) -> str:
    """Put a measuring launcher in front of each door in master.cf."""
    doors = re.findall(r"argv=(\S+)/(archive(?:-\w+)?)(?=\s)", master)
    program = doors[0][0]
    folder = Path(program).parent / "memory"
    folder.mkdir()
    folder.chmod(0o1777)
    for _, door in doors:
        launcher = folder.parent / "measured" / door
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(MEASURE.format(program=program, folder=str(folder)))
        launcher.chmod(0o755)
    return master.replace(f"argv={program}/", f"argv={launcher.parent}/")


def of_size(size: int) -> bytes:
    """A message of exactly so many bytes on the wire, in lines of 100."""
    start = HEADER + b"\r\n"
    lines, rest = divmod(size - len(start), 100)
    if rest < 3:  # the last line needs its CRLF
        lines, rest = lines - 1, rest + 100
    return start + (b"x" * 98 + b"\r\n") * lines + b"y" * (rest - 2) + b"\r\n"


def is_taken(client: Client, content: bytes, to: str) -> bool:
    """Tell whether smtpd takes the message; False for a reply that it is too large."""
    try:
        client.send(content, to=[to])
    except smtplib.SMTPResponseException as refused:
        assert refused.smtp_code == 552, refused
        return False
    return True


def judge_by_smtpd(master: str) -> str:
    """Let smtpd alone judge the size, by the bytes that the client sends.

    cleanup(8) also counts the queue file's own records, whose length varies with the
    clock: with it in the way no size is exactly the limit twice.
    """
    service = re.compile(r"^(127\.0\.0\.1:\d+ inet n - n - - smtpd)\n", re.MULTILINE)
    own = r"\1\n  -o cleanup_service_name=archive-cleanup\n"
    return service.sub(own, master, count=1)


@pytest.fixture(scope="module")
def exact() -> Iterator[PrivatePostfix]:
    """An instance with a small message_size_limit that smtpd alone holds."""
    with PrivatePostfix(main=SMALL, edit_master=judge_by_smtpd) as running:
        yield running


@pytest.fixture(scope="module")
def usual() -> Iterator[PrivatePostfix]:
    """An instance with a small message_size_limit, for capsules too."""
    with PrivatePostfix(door="capsule", main=SMALL) as running:
        yield running


def largest(postfix: PrivatePostfix) -> int:
    """The size in bytes of the largest message that Postfix takes, found by trying."""
    taken, refused = LIMIT - 2000, LIMIT + 2000
    with Client(postfix.smtp_port) as client:
        assert is_taken(client, of_size(taken), f"try.{taken}@example.net")
        while refused - taken > 1:
            middle = (taken + refused) // 2
            if is_taken(client, of_size(middle), f"try.{middle}@example.net"):
                taken = middle
            else:
                refused = middle
    postfix.settle()
    return taken


def assert_kept(postfix: PrivatePostfix, content: bytes, to: str) -> None:
    """Fail unless the message was delivered, stored and mailed, each once and whole."""
    [delivery] = postfix.delivered_to(to)
    assert delivery.content.endswith(content.replace(b"\r\n", b"\n"))
    line = f"\r\nFinal-Recipient: rfc822; {to}\r\n".encode()
    [stored] = [c for c in map(corpora.unpacked, postfix.stored()) if line in c]
    assert corpora.original_in(stored).endswith(content)
    line = line.replace(b"\r\n", b"\n")
    [mailed] = [c for c in postfix.delivered_to(ARCHIVE) if line in c.content]
    assert content.replace(b"\r\n", b"\n") in mailed.content


def test_a_message_of_exactly_the_limit_is_archived_and_delivered(
    exact: PrivatePostfix,
) -> None:
    content = of_size(LIMIT)
    assert len(content) == largest(exact) == LIMIT
    exact.send(content, to=["exactly@example.net"])
    exact.settle()
    assert_kept(exact, content, "exactly@example.net")


def test_one_byte_more_is_refused_by_smtpd(exact: PrivatePostfix) -> None:
    with Client(exact.smtp_port) as client:
        assert not is_taken(client, of_size(LIMIT + 1), "more@example.net")
    exact.settle()
    assert not exact.delivered_to("more@example.net")


def test_whatever_postfix_takes_near_the_limit_is_archived_and_delivered(
    usual: PrivatePostfix,
) -> None:
    """Where cleanup(8) counts too: each size about the edge, until it is refused."""
    edge = largest(usual)
    taken = {}
    with Client(usual.smtp_port) as client:
        for size in range(edge - 10, edge + 40):
            to = f"fit.{size}@example.net"  # as long as in largest()
            if is_taken(client, of_size(size), to):
                taken[to] = of_size(size)
    assert 0 < len(taken) < 50, "the sizes do not span the edge"
    usual.settle()
    for to, content in taken.items():
        assert_kept(usual, content, to)


def test_nothing_near_the_limit_bounces_or_waits(
    exact: PrivatePostfix, usual: PrivatePostfix
) -> None:
    for postfix in (exact, usual):
        log = postfix.log()
        assert "status=sent" in log
        assert not re.findall(r"status=(?:bounced|deferred|SOFTBOUNCE)", log)


@pytest.fixture(scope="module", params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    """The door that large mail takes."""
    return str(request.param)


@pytest.fixture(scope="module")
def large(door: str) -> Iterator[PrivatePostfix]:
    """An instance without limits that measures our processes."""
    settings = {"archive_spool_directory": "/var/tmp"}  # the default
    with PrivatePostfix(
        main=UNLIMITED,
        archive_cf=settings,
        edit_master=measure_memory,
        door=door,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def body(large: PrivatePostfix) -> str:
    """The SHA-256 of the body of a message of 200 MB that has passed."""
    total = hashlib.sha256()
    with Client(large.smtp_port) as client:
        client.must("MAIL FROM:<alice@example.org>", 250)
        client.must(f"RCPT TO:<{TO}>", 250)
        client.must("DATA", 354)
        client.smtp.send(HEADER + b"\r\n")
        for block in ((b"x" * 998 + b"\r\n") * 999, b"z" * BLOCK):
            for _ in range(HUGE // 2 // len(block) + 1):
                client.smtp.send(block)
                total.update(block)
        client.smtp.send(b"\r\n")
        total.update(b"\r\n")
        client.must(".", 250)
    large.settle()
    return total.hexdigest()


def test_a_message_of_200_mb_is_stored_byte_for_byte(
    large: PrivatePostfix, body: str
) -> None:
    [kept] = record_reader.records(str(large.store), ARCHIVE)
    assert list(kept.recipients) == [(TO.encode(), TO.encode())]
    [name] = kept.files
    for _ in pieces(large.store / ARCHIVE / name):
        pass  # it is a whole gzip file
    own, below = hashlib.sha256(), hashlib.sha256()
    head = b""
    for piece in record_reader.original(str(large.store), kept):
        own.update(piece)
        if b"\r\n\r\n" in head:
            below.update(piece)
            continue
        head += piece
        below.update(head.partition(b"\r\n\r\n")[2])
    assert below.hexdigest() == body
    assert own.hexdigest() == kept.events[0]["sha256"]


def test_a_message_of_200_mb_is_handed_back_whole(
    large: PrivatePostfix, body: str
) -> None:
    [delivery] = large.delivered_to(TO)
    received = delivery.content.partition(b"\n\n")[2].replace(b"\n", b"\r\n")
    assert len(received) > HUGE
    assert hashlib.sha256(received).hexdigest() == body


def test_200_mb_cost_each_process_of_ours_less_than_64(
    large: PrivatePostfix, body: str, door: str
) -> None:
    """A worker is measured when it ends, once lmtp(8) has let go of it."""
    assert body
    own = {"pipe": "archive-stamp", "lmtp": "archive-lmtp"}[door]
    told = large.folder / "memory"
    large.wait(
        lambda: any(each.read_text() for each in told.glob(f"{own}.*")),
        f"{own} has ended",
    )
    peaks = {path.name: int(path.read_text()) for path in told.iterdir()}
    print(f"KiB at their peak: {peaks}")
    assert max(peaks.values()) < MEMORY, peaks


def pieces(path: Path) -> Iterable[bytes]:
    """Unpack a file of the store in pieces; fails if it is no whole gzip file."""
    unpacker = zlib.decompressobj(31)
    with path.open("rb") as opened:
        while block := opened.read(BLOCK):
            yield unpacker.decompress(block)
    yield unpacker.flush()
    assert unpacker.eof
