"""outcomes --follow as a service: alone, patient, and ended in good order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mail_network import MailNetwork
from outcome_scenarios import ExpectedOutcome, differences, refused

from mails import LEGAL, mail
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
FOREIGN_CHUNKS = 20  # pieces of log that are nothing of ours
REMOTE_DOMAIN = "far.example.net"


class Follower:
    """outcomes --follow as a process; killed at the end, if it runs still."""

    def __init__(self, postfix: PrivatePostfix) -> None:
        self.postfix = postfix
        self.output_path = postfix.directory / "follower.said"
        with open(self.output_path, "wb") as output:
            self.process = postfix.start_command("outcomes", "--follow", output=output)

    def __enter__(self) -> Follower:
        self.wait_for_the_end_of_the_log()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for_the_end_of_the_log(self) -> None:
        """Return when it has read the log to its end, once more."""
        (self.postfix.fallback / "followed").unlink(missing_ok=True)
        self.postfix.wait((self.postfix.fallback / "followed").exists, "it has read on")

    def lines(self) -> list[str]:
        """What it has said so far."""
        return self.output_path.read_text().splitlines()


@pytest.fixture
def postfix() -> Iterator[PrivatePostfix]:
    with PrivatePostfix() as instance:
        yield instance


def recipients_with_outcome(postfix: PrivatePostfix) -> list[str]:
    """The recipients of whom the journal tells, as often as it does."""
    return [
        str(event["recipient"])
        for event in postfix.events()
        if event["event"] == "outcome"
    ]


def deliver(postfix: PrivatePostfix, name: str) -> str:
    """Send a message to a recipient of that name and let it be delivered."""
    address = f"{name}@example.net"
    postfix.send(mail(name), to=[address])
    postfix.wait_for_empty_queue()
    return address


def move_log_away(postfix: PrivatePostfix) -> Path:
    """Where the log is while it is away: not beside itself."""
    return postfix.directory / "log-that-is-away"


def test_a_second_one_is_refused_in_one_sentence(postfix: PrivatePostfix) -> None:
    with Follower(postfix) as first:
        process = postfix.run_command("outcomes", "--once")
        assert (process.returncode, process.stderr) == (
            0,
            "",
        )  # cron mails what is on stderr
        assert (
            process.stdout.count("\n") == 1 and "is already running" in process.stdout
        )
        second = postfix.run_command("outcomes", "--follow")
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr.count("\n") == 1 and "is already running" in second.stderr
        address = deliver(postfix, "bob")
        postfix.wait(
            lambda: recipients_with_outcome(postfix) == [address], "the first goes on"
        )
        assert first.lines() == []


def test_a_quiet_log_counts_as_read(postfix: PrivatePostfix) -> None:
    for _ in range(2):
        process = postfix.run_command("outcomes", "--once")
        assert process.returncode == 0
        (postfix.fallback / "followed").unlink()  # there it was


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name
)
def test_on_sigterm_it_ends_after_a_step(
    postfix: PrivatePostfix, number: signal.Signals
) -> None:
    """Far from the end of the log: what was read stays read, the rest comes later."""
    first = deliver(postfix, "first")
    line = "Nov 25 10:00:00 mail postfix/smtpd[17]: connect from unknown[192.0.2.1]\n"
    with open(postfix.log_path, "a") as log:
        log.write(line * 5000 * FOREIGN_CHUNKS)
    last = deliver(postfix, "last")
    follower = Follower(postfix)
    postfix.wait(lambda: recipients_with_outcome(postfix), "the first piece is judged")
    follower.process.send_signal(number)
    assert follower.process.wait() == 0
    assert follower.lines() == []
    assert recipients_with_outcome(postfix)[0] == first
    assert postfix.run_command("outcomes", "--once").returncode == 0
    assert recipients_with_outcome(postfix) == [first, last]


def test_a_log_that_disappears_is_waited_for_with_one_line(
    postfix: PrivatePostfix,
) -> None:
    one = deliver(postfix, "one")
    with Follower(postfix) as follower:
        postfix.wait(lambda: recipients_with_outcome(postfix) == [one], "it is at work")
        postfix.log_path.rename(move_log_away(postfix))
        postfix.wait(follower.lines, "it says so")
        two = deliver(postfix, "two")  # postlogd(8) has the file open
        move_log_away(postfix).rename(postfix.log_path)
        postfix.wait(
            lambda: recipients_with_outcome(postfix) == [one, two], "it has read on"
        )
        [line] = follower.lines()
        assert str(postfix.log_path) in line and "no such file" in line


def test_a_log_that_is_not_there_yet_is_waited_for(postfix: PrivatePostfix) -> None:
    postfix.log_path.rename(move_log_away(postfix))
    follower = Follower(postfix)
    postfix.wait(follower.lines, "it says so")
    assert not (postfix.fallback / "followed").exists()
    move_log_away(postfix).rename(postfix.log_path)
    address = deliver(postfix, "bob")
    postfix.wait(lambda: recipients_with_outcome(postfix) == [address], "it has begun")
    follower.process.terminate()
    assert follower.process.wait() == 0
    assert len(follower.lines()) == 1


def test_once_reports_a_missing_log_by_its_exit_code(
    postfix: PrivatePostfix,
) -> None:
    one = deliver(postfix, "one")
    assert postfix.run_command("outcomes", "--once").returncode == 0
    postfix.log_path.rename(move_log_away(postfix))
    process = postfix.run_command("outcomes", "--once")
    assert process.returncode == 1
    assert str(postfix.log_path) in process.stderr and process.stderr.count("\n") == 1
    move_log_away(postfix).rename(postfix.log_path)
    two = deliver(postfix, "two")
    process = postfix.run_command("outcomes", "--once")
    assert (process.returncode, process.stderr) == (0, "")
    assert recipients_with_outcome(postfix) == [one, two]


def test_a_missing_store_is_waited_for(postfix: PrivatePostfix) -> None:
    postfix.postconf(defer_transports="sink")
    postfix.reload()
    postfix.send(mail("late"), to=["late@example.net"])
    postfix.wait(lambda: len(postfix.mailq()) == 1, "it is archived and waits")
    with Follower(postfix) as follower:
        moved_store = postfix.store.with_name("unmounted")
        postfix.store.rename(moved_store)
        postfix.postconf(defer_transports="")
        postfix.reload()
        postfix.flush()
        postfix.wait_for_empty_queue()
        postfix.wait(follower.lines, "it says so")
        moved_store.rename(postfix.store)
        postfix.wait(
            lambda: recipients_with_outcome(postfix) == ["late@example.net"],
            "it has read on",
        )
        [line] = follower.lines()
        assert "Failed" in line and str(postfix.store) in line
        assert postfix.run_command("verify").returncode == 0


def test_a_filter_that_is_set_up_later_is_noticed() -> None:
    """Its "250 ok" is no delivery: what it gives back counts."""
    truth: ExpectedOutcome = refused("no-later")
    with MailNetwork() as world, Follower(world) as follower:
        port = world.scanners["silent"].port
        world.postconf(archive_next_filter=f"scan:[127.0.0.1]:{port}")
        world.reload()
        world.send(mail("filtered"), to=[truth.recipient])
        world.wait_for_empty_queue()
        world.wait(
            lambda: truth.recipient in recipients_with_outcome(world),
            "it has an outcome",
        )
        follower.wait_for_the_end_of_the_log()
        outcomes = [e for e in world.events(LEGAL) if e["event"] == "outcome"]
        assert differences(world, truth, outcomes) == []
        assert len(outcomes) == 1
        assert world.scanners["silent"].accepted_for(truth.recipient)


def test_a_setting_that_cannot_be_read_is_waited_for(postfix: PrivatePostfix) -> None:
    with Follower(postfix) as follower:
        postfix.set_archive_cf(archive_time_limit="soon")
        postfix.wait(follower.lines, "it says so")
        postfix.set_archive_cf()
        address = deliver(postfix, "bob")
        postfix.wait(
            lambda: recipients_with_outcome(postfix) == [address], "it has read on"
        )
        [line] = follower.lines()
        assert "archive_time_limit" in line
