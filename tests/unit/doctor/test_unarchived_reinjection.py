"""Claims about mail at the hand-back ports, by lines of a real log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postfix_archive.doctor import unarchived_reinjection
from postfix_archive.maillog.queue_tracker import QueueTracker

NAMES = ("postfix/archive-handback", "postfix/archive-refused")
LINE_START = "Nov 25 01:53:37 mail "
REINJECTED = (
    LINE_START + "postfix/archive-handback/smtpd[1748]: 4jZ2lP48DqzJqHs:"
    " client=localhost[127.0.0.1], orig_queue_id=4jZ2hD5JfhzJpKg,"
    " orig_client=client.example.org[192.0.2.1]"
)
REFUSED = (
    LINE_START
    + "postfix/archive-refused/qmqpd[9]: 4jZ2lQ1NDqzJqHs: client=localhost[127.0.0.1]"
)
QUEUED = (
    LINE_START + "postfix/qmgr[1]: {}: from=<a@b>, size=712, nrcpt=1 (queue active)"
)
ARCHIVED_AS = "id=20261125-7422a45709fb5ef279c0966dbad94870bb986930 as="


def delivery_line(
    reply: str, *, status: str = "sent", to: str = "n@load.example.net"
) -> str:
    return (
        f"{LINE_START}postfix/pipe[32752]: 4jZ2hD5JfhzJpKg: to=<{to}>,"
        " relay=archive-stamp,"
        f" delay=165, delays=24/141/0/0.2, dsn=2.0.0, status={status}"
        f" (delivered via archive-stamp service ({reply[:100]}))"
    )


def parse_lines(*lines: str) -> QueueTracker:
    """Read these lines, and behind each of a port's that of qmgr(8)."""
    lines_with_times = []
    for line in lines:
        lines_with_times.append(line)
        if ": client=" in line:
            queue_id = line.partition("]: ")[2].partition(":")[0]
            lines_with_times.append(QUEUED.format(queue_id))
    return read_only(*lines_with_times)


def read_only(*lines: str) -> QueueTracker:
    numbered = ((line, float(number)) for number, line in enumerate(lines))
    return unarchived_reinjection.read(numbered, QueueTracker())


def unclaimed_messages(*lines: str, queued: tuple[str, ...] = ()) -> list[str]:
    events = parse_lines(*lines)
    return unarchived_reinjection.unreported(events, queued, events, NAMES)


def test_what_the_filter_reports_as_reinjected_is_in_order() -> None:
    assert (
        unclaimed_messages(REINJECTED, delivery_line(ARCHIVED_AS + "4jZ2lP48DqzJqHs"))
        == []
    )
    assert (
        unclaimed_messages(REFUSED, delivery_line(ARCHIVED_AS + "4jZ2lQ1NDqzJqHs"))
        == []
    )


BY_LMTP = (
    "Nov 25 11:06:58 mail postfix/archive-stamp/lmtp[31733]: 4jZ2hD5JfhzJpKg:"
    " to=<bob@example.net>, relay=mail.example.com[private/archive.{}], conn_use=2,"
    " delay=0.11, delays=0.01/0/0/0.1, dsn=2.0.0, status=sent (250 2.0.0 {})"
)


@pytest.mark.parametrize("archive", ["legal@example.com", "one@x.org,two@x.org"])
@pytest.mark.parametrize("alarm", ["", " alarm=forged"])
def test_what_a_worker_reports_as_reinjected_is_in_order(
    archive: str, alarm: str
) -> None:
    line = BY_LMTP.format(archive, f"{ARCHIVED_AS}4jZ2lP48DqzJqHs{alarm} result=done")
    assert unclaimed_messages(REINJECTED, line) == []
    assert unclaimed_messages(REINJECTED, REFUSED, line) == ["4jZ2lQ1NDqzJqHs"]


def test_what_no_filter_reports_is_named() -> None:
    assert unclaimed_messages(REINJECTED, REFUSED) == [
        "4jZ2lP48DqzJqHs",
        "4jZ2lQ1NDqzJqHs",
    ]
    foreign_line = REINJECTED.partition(", orig_queue_id")[0]
    assert unclaimed_messages(foreign_line, delivery_line(ARCHIVED_AS + "4other")) == [
        "4jZ2lP48DqzJqHs"
    ]


def test_a_run_that_is_still_going_on_is_waited_for() -> None:
    assert unclaimed_messages(REINJECTED, queued=("4jZ2hD5JfhzJpKg",)) == []


def test_a_run_that_ended_between_two_looks_is_in_order() -> None:
    before = parse_lines(REINJECTED)
    after = parse_lines(REINJECTED, delivery_line(ARCHIVED_AS + "4jZ2lP48DqzJqHs"))
    assert unarchived_reinjection.unreported(before, (), after, NAMES) == []


def test_a_run_whose_line_was_truncated_is_in_order() -> None:
    alarms = " alarm=forged,incomplete forged=12 result=done"
    assert len(ARCHIVED_AS + "4jZ2lP48DqzJqHs" + alarms) > 100
    assert (
        unclaimed_messages(
            REINJECTED, delivery_line(f"{ARCHIVED_AS}4jZ2lP48DqzJqHs{alarms}")
        )
        == []
    )


def test_a_session_that_gave_nothing_is_no_message() -> None:
    """smtpd(8) names a queue id at the first RCPT, qmqpd(8) when it is connected to."""
    events = read_only(REINJECTED, REFUSED)
    assert unarchived_reinjection.unreported(events, (), events, NAMES) == []


def test_a_process_that_died_leaves_what_it_had_reinjected() -> None:
    """The window: Postfix delivers that message twice."""
    died = delivery_line("killed by signal 9", status="deferred")
    retry_line = delivery_line(ARCHIVED_AS + "4later")
    assert unclaimed_messages(REINJECTED, died, retry_line) == ["4jZ2lP48DqzJqHs"]


@pytest.mark.parametrize("agent", ["smtp[1]", "pipe[2]"])
def test_a_recipient_cannot_speak_for_the_filter(agent: str) -> None:
    to = f'"{delivery_line(ARCHIVED_AS + "4jZ2lP48DqzJqHs")}"@b.example'
    line = (
        f"{LINE_START}postfix/{agent}: 4A: to=<{to}>, relay=other, delay=1,"
        " status=sent (x)"
    )
    assert unclaimed_messages(REINJECTED, line) == ["4jZ2lP48DqzJqHs"]


@pytest.mark.parametrize(
    "line", ["", "x", REINJECTED[:70], REINJECTED[:90], delivery_line("")[:80]]
)
def test_torn_lines_name_nobody(line: str) -> None:
    files = read_only(line).queue_files.by_key.values()
    assert {each.queue_id for each in files} <= {"4jZ2lP48DqzJqHs"}
    assert not [each for each in files if each.is_reported]


RFC_5424 = (
    "<22>1 2026-11-25T01:53:37.123456+00:00 mail {}/{} {} - - 4jZ2lP48DqzJqHs: {}"
)


def test_what_syslog_ng_writes_is_read_too() -> None:
    """RFC 5424, and RFC 3339 times with a time zone."""
    client = "client=localhost[127.0.0.1]"
    taken = RFC_5424.format("postfix/archive-handback", "smtpd", 1748, client)
    queued = RFC_5424.format(
        "postfix", "qmgr", 1, "from=<a@b>, size=712, nrcpt=1 (queue active)"
    )
    seen = read_only(taken, queued)
    unreported = unarchived_reinjection.unreported(seen, (), seen, NAMES)
    assert unreported == ["4jZ2lP48DqzJqHs"]


def test_a_long_log_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reported goes; what is not, and its origin, stays."""
    monkeypatch.setattr(unarchived_reinjection, "PRUNE_LINES", 10)

    def lines() -> Iterator[tuple[str, float]]:
        yield REINJECTED, 0.0
        yield QUEUED.format("4jZ2lP48DqzJqHs"), 0.0
        for number in range(1000):
            queue_id = f"4jZFG7{number:04d}zK5b4"
            client = f"{queue_id}: client=a[1.2.3.4]"
            yield f"{LINE_START}postfix/smtpd[7]: {client}", number * 10.0
            yield f"{LINE_START}postfix/qmgr[1]: {queue_id}: removed", number * 10.0

    seen = unarchived_reinjection.read(lines(), QueueTracker())
    assert len(seen.queue_files.by_key) < 100
    unreported = unarchived_reinjection.unreported(seen, (), seen, NAMES)
    assert unreported == ["4jZ2lP48DqzJqHs"]
