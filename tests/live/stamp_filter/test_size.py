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
from mails import mail, one_delivery, recipients_of, record_of
from private_postfix import MODES, Client, PrivatePostfix

pytestmark = pytest.mark.live

ARCHIVE = "legal@example.com"
RECIPIENT = "large@example.net"
SIZE_LIMIT = 200_000  # message_size_limit of the small instance
HUGE_SIZE = 200_000_000  # bytes: lines first, then one line that is as long
MEMORY_LIMIT = 64 * 1024  # KiB: what one process of ours may cost
BLOCK_SIZE = 1 << 20
HEADER = (
    b"From: alice@example.org\r\nSubject: large\r\nMessage-Id: <1@example.org>\r\n"
    b"Date: Sun, 22 Nov 2026 12:53:00 +0100\r\n"
)
SMALL_LIMITS = {
    "message_size_limit": str(SIZE_LIMIT),
    "smtpd_soft_error_limit": "1000",  # looking for the edge is full of refusals
    "smtpd_hard_error_limit": "1000",
    "smtpd_error_sleep_time": "0",
}
UNLIMITED = {"message_size_limit": "0", "mailbox_size_limit": "0"}

# Put in front of each program: runs the real one and writes down its peak memory.
MEASURING_LAUNCHER = """#!/usr/bin/python3 -IS
import os, resource, sys
program = {program!r} + "/" + os.path.basename(sys.argv[0])
child = os.posix_spawn(program, [program, *sys.argv[1:]], os.environ)
status = os.waitpid(child, 0)[1]
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
with open(f"{directory}/{{os.path.basename(program)}}.{{os.getpid()}}", "w") as file:
    file.write(str(peak))
sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 75)
"""


def with_memory_measurement(master: str) -> str:
    """Put a measuring launcher in front of each transport program in master.cf."""
    launchers = re.findall(r"argv=(\S+)/(archive(?:-\w+)?)(?=\s)", master)
    program = launchers[0][0]
    directory = Path(program).parent / "memory"
    directory.mkdir()
    directory.chmod(0o1777)
    for _, program_name in launchers:
        launcher = directory.parent / "measured" / program_name
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(
            MEASURING_LAUNCHER.format(program=program, directory=str(directory))
        )
        launcher.chmod(0o755)
    return master.replace(f"argv={program}/", f"argv={launcher.parent}/")


def message_of_size(size: int) -> bytes:
    """A message of exactly so many bytes on the wire, in lines of 100."""
    start = HEADER + b"\r\n"
    lines, remainder = divmod(size - len(start), 100)
    if remainder < 3:  # the last line needs its CRLF
        lines, remainder = lines - 1, remainder + 100
    return start + (b"x" * 98 + b"\r\n") * lines + b"y" * (remainder - 2) + b"\r\n"


def is_accepted(client: Client, content: bytes, to: str) -> bool:
    """Tell whether smtpd takes the message; False for a reply that it is too large."""
    try:
        client.send(content, to=[to])
    except smtplib.SMTPResponseException as refused:
        assert refused.smtp_code == 552, refused
        return False
    return True


def with_smtpd_size_check(master: str) -> str:
    """Let smtpd alone judge the size, by the bytes that the client sends.

    cleanup(8) also counts the queue file's own records, whose length varies with the
    clock: with it in the way no size is exactly the limit twice.
    """
    service = re.compile(r"^(127\.0\.0\.1:\d+ inet n - n - - smtpd)\n", re.MULTILINE)
    replacement = r"\1\n  -o cleanup_service_name=archive-cleanup\n"
    return service.sub(replacement, master, count=1)


@pytest.fixture(scope="module", params=["pipe", "native"])
def smtpd_limit_host(request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    """An instance with a small message_size_limit that smtpd alone holds."""
    with PrivatePostfix(
        mode=request.param, main=SMALL_LIMITS, edit_master=with_smtpd_size_check
    ) as running:
        yield running


@pytest.fixture(scope="module", params=["capsule", "native"])
def size_limit_host(request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    """An instance with a small message_size_limit, for capsules too."""
    with PrivatePostfix(mode=request.param, main=SMALL_LIMITS) as running:
        yield running


def largest_accepted(postfix: PrivatePostfix) -> int:
    """The size in bytes of the largest message that Postfix takes, found by trying."""
    accepted, refused = SIZE_LIMIT - 2000, SIZE_LIMIT + 2000
    with Client(postfix.smtp_port) as client:
        assert is_accepted(
            client, message_of_size(accepted), f"try.{accepted}@example.net"
        )
        while refused - accepted > 1:
            middle = (accepted + refused) // 2
            if is_accepted(
                client, message_of_size(middle), f"try.{middle}@example.net"
            ):
                accepted = middle
            else:
                refused = middle
    postfix.wait_for_empty_queue()
    return accepted


def assert_archived(postfix: PrivatePostfix, content: bytes, to: str) -> None:
    """Fail unless the message was delivered, stored and mailed, each once and whole."""
    [delivery] = postfix.delivered_to(to)
    assert delivery.content.endswith(content.replace(b"\r\n", b"\n"))
    line = f"\r\nFinal-Recipient: rfc822; {to}\r\n".encode()
    [stored] = [c for c in map(corpora.read_copy, postfix.stored_files()) if line in c]
    assert corpora.extract_original(stored).endswith(content)
    line = line.replace(b"\r\n", b"\n")
    [mailed] = [c for c in postfix.delivered_to(ARCHIVE) if line in c.content]
    assert content.replace(b"\r\n", b"\n") in mailed.content


def test_a_message_of_exactly_the_limit_is_archived_and_delivered(
    smtpd_limit_host: PrivatePostfix,
) -> None:
    content = message_of_size(SIZE_LIMIT)
    assert len(content) == largest_accepted(smtpd_limit_host) == SIZE_LIMIT
    smtpd_limit_host.send(content, to=["exactly@example.net"])
    smtpd_limit_host.wait_for_empty_queue()
    assert_archived(smtpd_limit_host, content, "exactly@example.net")
    assert_nothing_has_bounced_or_waited(smtpd_limit_host)


def test_one_byte_more_is_refused_by_smtpd(smtpd_limit_host: PrivatePostfix) -> None:
    with Client(smtpd_limit_host.smtp_port) as client:
        assert not is_accepted(
            client, message_of_size(SIZE_LIMIT + 1), "more@example.net"
        )
    smtpd_limit_host.wait_for_empty_queue()
    assert not smtpd_limit_host.delivered_to("more@example.net")


def test_whatever_postfix_takes_near_the_limit_is_archived_and_delivered(
    size_limit_host: PrivatePostfix,
) -> None:
    """Where cleanup(8) counts too: each size about the edge, until it is refused."""
    edge = largest_accepted(size_limit_host)
    accepted = {}
    with Client(size_limit_host.smtp_port) as client:
        for size in range(edge - 10, edge + 40):
            to = f"fit.{size}@example.net"  # as long as in largest()
            if is_accepted(client, message_of_size(size), to):
                accepted[to] = message_of_size(size)
    assert 0 < len(accepted) < 50, "the sizes do not span the edge"
    size_limit_host.wait_for_empty_queue()
    for to, content in accepted.items():
        assert_archived(size_limit_host, content, to)
    assert_nothing_has_bounced_or_waited(size_limit_host)


def assert_nothing_has_bounced_or_waited(postfix: PrivatePostfix) -> None:
    log = postfix.log()
    assert "status=sent" in log
    assert not re.findall(r"status=(?:bounced|deferred|SOFTBOUNCE)", log)


def test_capture_recipients_count_as_content_in_native_mode() -> None:
    """cleanup(8) counts the queue file. What is too large the client learns at once."""
    to = [f"person{number}@example.net" for number in range(300)]
    with PrivatePostfix(mode="native", main=SMALL_LIMITS) as postfix:
        postfix.send(message_of_size(SIZE_LIMIT - 400 * len(to)), to=to)
        with pytest.raises(smtplib.SMTPResponseException, match="552"):
            postfix.send(message_of_size(SIZE_LIMIT - 100 * len(to)), to=to)
        postfix.wait_for_empty_queue()
        [record] = record_reader.records(str(postfix.store), ARCHIVE)
        assert recipients_of(record) == sorted(to)


@pytest.fixture(scope="module", params=[*MODES, "native"])
def mode(request: pytest.FixtureRequest) -> str:
    """The mode that large mail takes."""
    return str(request.param)


@pytest.fixture(scope="module")
def unlimited_host(mode: str) -> Iterator[PrivatePostfix]:
    """An instance without limits that measures our processes."""
    settings = {"archive_spool_directory": "/var/tmp"}  # the default
    with PrivatePostfix(
        main=UNLIMITED,
        archive_cf=settings,
        edit_master=with_memory_measurement,
        mode=mode,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def body_sha256(unlimited_host: PrivatePostfix) -> str:
    """The SHA-256 of the body of a message of 200 MB that has passed."""
    total = hashlib.sha256()
    with Client(unlimited_host.smtp_port) as client:
        client.command("MAIL FROM:<alice@example.org>", 250)
        client.command(f"RCPT TO:<{RECIPIENT}>", 250)
        client.command("DATA", 354)
        client.smtp.send(HEADER + b"\r\n")
        for block in ((b"x" * 998 + b"\r\n") * 999, b"z" * BLOCK_SIZE):
            for _ in range(HUGE_SIZE // 2 // len(block) + 1):
                client.smtp.send(block)
                total.update(block)
        client.smtp.send(b"\r\n")
        total.update(b"\r\n")
        client.command(".", 250)
    unlimited_host.wait_for_empty_queue()
    return total.hexdigest()


def test_a_message_of_200_mb_is_stored_byte_for_byte(
    unlimited_host: PrivatePostfix, body_sha256: str
) -> None:
    [record] = record_reader.records(str(unlimited_host.store), ARCHIVE)
    assert recipients_of(record) == [RECIPIENT]
    [name] = record.files
    for _ in chunks_of(unlimited_host.store / ARCHIVE / name):
        pass  # it is a whole gzip file
    sent_digest, stored_digest = hashlib.sha256(), hashlib.sha256()
    head = b""
    for chunk in record_reader.original(str(unlimited_host.store), record):
        sent_digest.update(chunk)
        if b"\r\n\r\n" in head:
            stored_digest.update(chunk)
            continue
        head += chunk
        stored_digest.update(head.partition(b"\r\n\r\n")[2])
    assert stored_digest.hexdigest() == body_sha256
    assert sent_digest.hexdigest() == record.events[0]["sha256"]


def test_a_message_of_200_mb_is_delivered_unchanged(
    unlimited_host: PrivatePostfix, body_sha256: str
) -> None:
    [delivery] = unlimited_host.delivered_to(RECIPIENT)
    received = delivery.content.partition(b"\n\n")[2].replace(b"\n", b"\r\n")
    assert len(received) > HUGE_SIZE
    assert hashlib.sha256(received).hexdigest() == body_sha256


def test_200_mb_cost_each_process_of_ours_less_than_64(
    unlimited_host: PrivatePostfix, body_sha256: str, mode: str
) -> None:
    """A worker is measured when it ends, once lmtp(8) has let go of it."""
    assert body_sha256
    launcher = "archive-stamp" if mode == "pipe" else "archive-lmtp"
    memory_directory = unlimited_host.directory / "memory"
    unlimited_host.wait(
        lambda: any(
            each.read_text() for each in memory_directory.glob(f"{launcher}.*")
        ),
        f"{launcher} has ended",
    )
    peaks = {path.name: int(path.read_text()) for path in memory_directory.iterdir()}
    print(f"KiB at their peak: {peaks}")
    assert max(peaks.values()) < MEMORY_LIMIT, peaks


def chunks_of(path: Path) -> Iterable[bytes]:
    """Unpack a file of the store in pieces; fails if it is no whole gzip file."""
    unpacker = zlib.decompressobj(31)
    with path.open("rb") as file:
        while block := file.read(BLOCK_SIZE):
            yield unpacker.decompress(block)
    yield unpacker.flush()
    assert unpacker.eof


def test_a_message_within_a_high_hopcount_limit_passes() -> None:
    """The internal services have no limit of their own: the first hop has one."""
    with PrivatePostfix(main={"hopcount_limit": "3000"}) as postfix:
        hops = b"".join(b"Received: from x by y; %d\n" % n for n in range(2500))
        postfix.send(hops + mail("far-travelled"), to=[RECIPIENT])
        postfix.wait_for_empty_queue()
        one_delivery(postfix, "far-travelled", RECIPIENT)
        record_of(postfix, "far-travelled")
