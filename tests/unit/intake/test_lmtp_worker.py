"""Claims about the lmtp worker: one message after the other, whatever befalls one."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.errors import PostfixRefused
from postfix_archive.intake import lmtp_worker, pipe
from postfix_archive.stamp_filter import transaction
from postfix_archive.system import failure_log

from unit.intake.test_lmtp_session import BODY, CONTENT, DATA, ENVELOPE, LHLO, XFORWARD

KEY = "test " + "0123456789abcdef" * 4 + "\n"
MESSAGE = XFORWARD + ENVELOPE + DATA + BODY + b".\r\n"
FilterMessage = Callable[[transaction.Transaction], str]


@pytest.fixture
def config_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration directory with a key; no alarm is left behind."""
    monkeypatch.setattr(failure_log, "_write_to_log", lambda *_: None)
    monkeypatch.setattr(failure_log, "DEFAULT_DIRECTORY", str(tmp_path))
    (tmp_path / "archive.key").write_text(KEY)
    (tmp_path / "archive.cf").write_text(f"archive_spool_directory = {tmp_path}\n")
    yield tmp_path
    signal.alarm(0)


def last_failure(etc: Path) -> str:
    return failure_log.last(str(etc), str(etc), owner_of=[str(etc)])


class RecordingFilter:
    """A filter that keeps what it was given, and does as it is told."""

    def __init__(self, filter_message: FilterMessage | None = None) -> None:
        self.transactions: list[transaction.Transaction] = []
        self.contents: list[bytes] = []
        self._filter_message = filter_message or (lambda delivery: "id=ID as=4Zy")

    def __call__(self, run: transaction.Transaction) -> str:
        """Take one message."""
        self.transactions.append(run)
        self.contents.append(b"".join(run.message.chunks()))
        return self._filter_message(run)


def serve(etc: Path, filter_message: FilterMessage, *chunks: bytes) -> list[str]:
    """Send all of it, one read each, hang up, and return the replies' lines."""
    macros, _ = transaction.parse_arguments([b"--config-directory", os.fsencode(etc)])
    macros[b"nexthop"] = b"legal@example.com"
    worker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker_end, client_end:
        for each in chunks:
            client_end.sendall(each)
        client_end.shutdown(socket.SHUT_WR)
        worker_descriptor = worker_end.fileno()
        lmtp_worker.Worker(
            filter_message,
            macros,
            input_descriptor=worker_descriptor,
            output_descriptor=worker_descriptor,
        ).serve()
        worker_end.shutdown(socket.SHUT_WR)
        output = b""
        while chunk := client_end.recv(1 << 16):
            output += chunk
    return output.decode().splitlines()


def replies(lines: list[str]) -> list[str]:
    """The replies to messages: those behind each 354."""
    positions = [n for n, line in enumerate(lines) if line.startswith("354")]
    return [lines[n + 1] for n in positions]


@pytest.mark.parametrize("encoded", [b"a+20b@x.org", b'"a+20b"@x.org'])
def test_what_postfix_says_itself_of_a_quoted_address_is_no_orcpt_of_a_client(
    config_directory: Path, encoded: bytes
) -> None:
    recorder = RecordingFilter()
    mail = b'MAIL FROM:<>\r\nRCPT TO:<"a b"@x.org> ORCPT=rfc822;' + encoded + b"\r\n"
    serve(
        config_directory,
        recorder,
        LHLO,
        XFORWARD + mail + DATA,
        BODY + b".\r\nQUIT\r\n",
    )
    [person] = recorder.transactions[0].recipients
    assert (person.final, person.orcpt) == (b'"a b"@x.org', b"")


def test_the_filter_is_given_all_that_the_session_has_read(
    config_directory: Path,
) -> None:
    recorder = RecordingFilter()
    mail = (
        b"MAIL FROM:<ann@example.org> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+20b\r\n"
        b"RCPT TO:<bob@example.com> ORCPT=rfc822;bob@example.com\r\n"
        b"RCPT TO:<eve@example.com> NOTIFY=NEVER ORCPT=rfc822;sales@example.com\r\n"
    )
    lines = serve(
        config_directory,
        recorder,
        LHLO,
        XFORWARD + mail + DATA,
        BODY + b".\r\nQUIT\r\n",
    )
    assert lines[-3:] == ["250 2.0.0 id=ID as=4Zy"] * 2 + ["221 2.0.0 Bye"]
    [given] = recorder.transactions
    assert recorder.contents == [CONTENT]
    assert given.macros[b"nexthop"] == b"legal@example.com"
    assert given.macros[b"sender"] == b"ann@example.org"
    assert given.macros[b"envid"] == b"a b"
    assert given.macros[b"queue-id"] == b"4Zx"
    assert (given.ret, given.smtputf8, given.is_local) == (b"HDRS", True, False)
    assert given.is_8bitmime
    assert given.client.address == b"192.0.2.7"
    assert [(e.final, e.original, e.notify, e.orcpt) for e in given.recipients] == [
        (b"bob@example.com", b"bob@example.com", b"", b""),
        (
            b"eve@example.com",
            b"eve@example.com",
            b"NEVER",
            b"rfc822;sales@example.com",
        ),
    ]


def test_a_client_that_postfix_calls_unknown_has_no_name(
    config_directory: Path,
) -> None:
    recorder = RecordingFilter()
    forward = b"XFORWARD NAME=unknown HELO=unknown IDENT=4Zx SOURCE=REMOTE\r\n"
    serve(config_directory, recorder, LHLO, forward + ENVELOPE + DATA, b".\r\n")
    assert (
        recorder.transactions[0].client.hostname
        == recorder.transactions[0].client.helo
        == b""
    )


def test_mail_from_sendmail_has_its_queue_id_in_postfix_s_own_line(
    config_directory: Path,
) -> None:
    recorder = RecordingFilter()
    received = b"Received: by mail (Postfix, from userid 0)\r\n\tid 4Zlocal; now\r\n"
    forward = b"XFORWARD SOURCE=LOCAL\r\n"
    serve(
        config_directory,
        recorder,
        LHLO,
        forward + ENVELOPE + DATA,
        received + BODY + b".\r\n",
    )
    assert recorder.transactions[0].macros[b"queue-id"] == b"4Zlocal"
    assert recorder.transactions[0].is_local is True


def test_without_xforward_mail_waits_and_the_log_gives_the_reason(
    config_directory: Path,
) -> None:
    recorder = RecordingFilter()
    [line] = replies(
        serve(config_directory, recorder, LHLO, ENVELOPE + DATA, BODY + b".\r\n")
    )
    assert line == "451 4.3.5 temporary failure"
    assert "lmtp_send_xforward_command" in last_failure(config_directory)
    assert not recorder.transactions


def raising_filter(error: BaseException) -> FilterMessage:
    """A filter that fails with its first message, and only then."""
    errors = [error]

    def filter_message(run: transaction.Transaction) -> str:
        if errors:
            raise errors.pop()
        return "done"

    return filter_message


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (
            PostfixRefused("port says no"),
            "451 4.3.0",
        ),
        (MemoryError(), "452 4.3.1"),
        (ZeroDivisionError("1/0"), "451 4.3.0"),
        (
            OSError(28, "No space left"),
            "451 4.3.0",
        ),
        (
            RecursionError("a\r\n250 b"),
            "451 4.3.0",
        ),
    ],
)
def test_a_failure_with_one_message_defers_that_one_alone(
    config_directory: Path, error: Exception, reply: str
) -> None:
    lines = serve(config_directory, raising_filter(error), LHLO, *[MESSAGE] * 2)
    first, second = replies(lines)
    assert first == f"{reply} temporary failure"
    reason = " ".join(str(error).split())
    line = f" queue_id=4Zx error={type(error).__name__} reason={reason}"
    assert last_failure(config_directory).endswith(line.removesuffix(" reason="))
    assert second == "250 2.0.0 done"
    assert not any(line.startswith("5") for line in lines)
    assert len([line for line in lines if line.startswith("250 b")]) == 0


def test_a_message_that_takes_too_long_waits(config_directory: Path) -> None:
    """The alarm comes by hand: no test waits for the clock."""

    def slow(run: transaction.Transaction) -> str:
        signal.raise_signal(signal.SIGALRM)
        raise AssertionError("not reached")

    [line] = replies(serve(config_directory, slow, LHLO, MESSAGE))
    assert line == "451 4.4.7 temporary failure"
    assert "queue_id=4Zx error=DeadlineExceeded reason=" in last_failure(
        config_directory
    )


def test_an_incomplete_message_never_reaches_the_filter(config_directory: Path) -> None:
    content = LHLO + MESSAGE
    data_start = len(content) - len(BODY) - 3
    for end in range(data_start, len(content)):
        recorder = RecordingFilter()
        serve(
            config_directory,
            recorder,
            content[:data_start],
            *[content[data_start:end]] * (end > data_start),
        )
        assert not recorder.transactions


def test_after_a_message_that_hangs_up_no_file_stays_open(
    config_directory: Path,
) -> None:
    before = os.listdir("/proc/self/fd")
    half = b"x" * 50_000 + b"\r\n"
    serve(config_directory, RecordingFilter(), LHLO, XFORWARD + ENVELOPE + DATA, half)
    serve(config_directory, RecordingFilter(), LHLO, *[MESSAGE] * 20)
    assert os.listdir("/proc/self/fd") == before


def test_a_full_spool_defers_the_message_and_the_next_is_served(
    config_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postfix_archive.system.spool.MEMORY_LIMIT", 40_000)
    (config_directory / "archive.cf").write_text(
        f"archive_spool_directory = {config_directory}/missing\n"
    )
    large = [b"x" * 30_000 + b"\r\n"] * 3
    lines = serve(
        config_directory,
        RecordingFilter(),
        LHLO,
        XFORWARD + ENVELOPE + DATA,
        *large,
        b".\r\n",
        MESSAGE,
    )
    first, second = replies(lines)
    assert first == "451 4.3.0 temporary failure"
    reason = "queue_id=4Zx error=SpoolFailed reason=.*archive_spool_directory"
    assert re.search(reason, last_failure(config_directory))
    assert second.startswith("250 ")


def test_wrong_settings_defer_each_message_until_they_are_right(
    config_directory: Path,
) -> None:
    correct_text = (config_directory / "archive.cf").read_text()
    (config_directory / "archive.cf").write_text("archive_delivery = nowhere\n")
    recorder = RecordingFilter()
    [line] = replies(serve(config_directory, recorder, LHLO, MESSAGE))
    assert line == "451 4.3.5 temporary failure"
    assert "queue_id=4Zx error=SettingInvalid reason=" in last_failure(config_directory)
    assert not recorder.transactions
    (config_directory / "archive.cf").write_text(correct_text)
    [line] = replies(serve(config_directory, recorder, LHLO, MESSAGE))
    assert line.startswith("250 ")


def changing_filter(path: Path) -> FilterMessage:
    """A filter during whose work a file is replaced."""

    def filter_message(run: transaction.Transaction) -> str:
        path.write_text(path.read_text() + "\n")
        return "done"

    return filter_message


@pytest.mark.parametrize("name", ["archive.cf", "archive.key", "module.py"])
def test_a_worker_ends_after_the_message_when_what_it_has_read_has_changed(
    config_directory: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config_directory / "module.py").write_text("code")
    monkeypatch.setattr(
        lmtp_worker, "_program_files", lambda: [str(config_directory / "module.py")]
    )
    half, rest = MESSAGE[:-20], MESSAGE[-20:]
    recorder = RecordingFilter(changing_filter(config_directory / name))
    lines = serve(config_directory, recorder, LHLO, half, rest, b"RSET\r\n" + MESSAGE)
    assert replies(lines) == ["250 2.0.0 done"]
    assert lines[-1].startswith("421 4.3.2 ")
    assert len(recorder.transactions) == 1


def test_a_worker_whose_time_is_up_ends_between_messages_only(
    config_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is looked at before each read between messages, and goes on then."""
    ticks = iter(range(0, 10 * lmtp_worker.LIFETIME, lmtp_worker.LIFETIME // 3))
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    in_three = [MESSAGE[:-20], MESSAGE[-20:-10], MESSAGE[-10:]]
    lines = serve(
        config_directory, RecordingFilter(), LHLO, b"NOOP\r\n", *in_three, MESSAGE
    )
    assert len(replies(lines)) == 1
    assert lines[-1].startswith("421 4.3.2 ")


def test_the_files_of_this_program_are_watched() -> None:
    files = lmtp_worker._program_files()
    assert lmtp_worker.__file__ in files
    assert pipe.__file__ in files
    assert files[-1].endswith("/current")


def test_capsules_go_to_the_archive_transport_and_all_else_to_the_filter() -> None:
    from postfix_archive.stamp_filter import capture

    assert lmtp_worker._message_handler(b"capsule") == pipe.archive_capsule
    assert lmtp_worker._message_handler(b"legal@example.com") == capture.filter_message
