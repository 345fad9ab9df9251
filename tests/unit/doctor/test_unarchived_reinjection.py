"""Claims about mail at the hand-back ports, by lines of a real log."""

from __future__ import annotations

import pytest

from postfix_archive.doctor import unarchived_reinjection

NAMES = ("postfix/archive-handback", "postfix/archive-refused")
DAY = "Nov 25 01:53:37 mail "
TAKEN = (
    DAY + "postfix/archive-handback/smtpd[1748]: 4jZ2lP48DqzJqHs:"
    " client=localhost[127.0.0.1], orig_queue_id=4jZ2hD5JfhzJpKg,"
    " orig_client=client.example.org[192.0.2.1]"
)
REFUSED = DAY + "postfix/archive-refused/qmqpd[9]: 4jZ2lQ1: client=localhost[127.0.0.1]"
QUEUED = DAY + "postfix/qmgr[1]: {}: from=<a@b>, size=712, nrcpt=1 (queue active)"
SAID = "id=20261125-7422a45709fb5ef279c0966dbad94870bb986930 as="


def run(said: str, *, status: str = "sent", to: str = "n@load.example.net") -> str:
    return (
        f"{DAY}postfix/pipe[32752]: 4jZ2hD5JfhzJpKg: to=<{to}>, relay=archive-stamp,"
        f" delay=165, delays=24/141/0/0.2, dsn=2.0.0, status={status}"
        f" (delivered via archive-stamp service ({said[:100]}))"
    )


def read(*lines: str) -> unarchived_reinjection.ReinjectionEvents:
    """Read these lines, and behind each of a port's that of qmgr(8)."""
    told = []
    for line in lines:
        told.append(f"{line}\n")
        if ": client=" in line:
            queue_id = line.partition("]: ")[2].partition(":")[0]
            told.append(QUEUED.format(queue_id) + "\n")
    return unarchived_reinjection.parse(told, NAMES)


def unclaimed(*lines: str, queued: tuple[str, ...] = ()) -> list[str]:
    seen = read(*lines)
    return unarchived_reinjection.unreported(seen, queued, seen)


def test_what_the_filter_says_to_have_handed_back_is_in_order() -> None:
    assert unclaimed(TAKEN, run(SAID + "4jZ2lP48DqzJqHs")) == []
    assert unclaimed(REFUSED, run(SAID + "4jZ2lQ1")) == []


BY_LMTP = (
    "Nov 25 11:06:58 mail postfix/archive-stamp/lmtp[31733]: 4jZ2hD5JfhzJpKg:"
    " to=<bob@example.net>, relay=mail.example.com[private/archive.{}], conn_use=2,"
    " delay=0.11, delays=0.01/0/0/0.1, dsn=2.0.0, status=sent (250 2.0.0 {})"
)


@pytest.mark.parametrize("archive", ["legal@example.com", "one@x.org,two@x.org"])
@pytest.mark.parametrize("loud", ["", " alarm=forged"])
def test_what_a_worker_says_to_have_handed_back_is_in_order(
    archive: str, loud: str
) -> None:
    line = BY_LMTP.format(archive, f"{SAID}4jZ2lP48DqzJqHs{loud} result=done")
    assert unclaimed(TAKEN, line) == []
    assert unclaimed(TAKEN, REFUSED, line) == ["4jZ2lQ1"]


def test_what_nobody_says_is_named() -> None:
    assert unclaimed(TAKEN, REFUSED) == ["4jZ2lP48DqzJqHs", "4jZ2lQ1"]
    by_hand = TAKEN.partition(", orig_queue_id")[0]
    assert unclaimed(by_hand, run(SAID + "4other")) == ["4jZ2lP48DqzJqHs"]


def test_a_run_that_is_still_going_on_is_waited_for() -> None:
    assert unclaimed(TAKEN, queued=("4jZ2hD5JfhzJpKg",)) == []


def test_a_run_that_ended_between_two_looks_is_in_order() -> None:
    before = read(TAKEN)
    after = read(TAKEN, run(SAID + "4jZ2lP48DqzJqHs"))
    assert unarchived_reinjection.unreported(before, (), after) == []


def test_a_run_whose_line_was_truncated_is_in_order() -> None:
    alarms = " alarm=forged,incomplete forged=12 result=done"
    assert len(SAID + "4jZ2lP48DqzJqHs" + alarms) > 100
    assert unclaimed(TAKEN, run(f"{SAID}4jZ2lP48DqzJqHs{alarms}")) == []


def test_a_session_that_gave_nothing_is_no_message() -> None:
    """smtpd(8) names a queue id at the first RCPT, qmqpd(8) when it is connected to."""
    seen = unarchived_reinjection.parse([TAKEN, REFUSED], NAMES)
    assert unarchived_reinjection.unreported(seen, (), seen) == []


def test_a_run_that_died_leaves_what_it_had_handed_back() -> None:
    """The window: Postfix delivers that message twice."""
    died = run("killed by signal 9", status="deferred")
    again = run(SAID + "4later")
    assert unclaimed(TAKEN, died, again) == ["4jZ2lP48DqzJqHs"]


@pytest.mark.parametrize("agent", ["smtp[1]", "pipe[2]"])
def test_a_recipient_cannot_speak_for_the_filter(agent: str) -> None:
    to = f'"{run(SAID + "4jZ2lP48DqzJqHs")}"@b.example'
    line = f"{DAY}postfix/{agent}: 4A: to=<{to}>, relay=other, delay=1, status=sent (x)"
    assert unclaimed(TAKEN, line) == ["4jZ2lP48DqzJqHs"]


@pytest.mark.parametrize("line", ["", "x", TAKEN[:70], TAKEN[:90], run("")[:80]])
def test_torn_lines_name_nobody(line: str) -> None:
    seen = unarchived_reinjection.parse([line], NAMES)
    assert set(seen.accepted) <= {"4jZ2lP48DqzJqHs"}
    assert not seen.reinjected
