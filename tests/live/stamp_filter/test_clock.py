"""The clock steps, a day or a year, back or forward: still one id for each capture.

The clock of this instance alone: libfaketime below Postfix, the transports and
the commands.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from staged_postfix import StagedPostfix

from postfix_archive.message import dates
from postfix_archive.store import fallback

from mails import LEGAL, deliveries, event_kinds, mail, one_delivery, record_of
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live

DAY = 86400  # seconds
YEAR = 365 * DAY
BEFORE_AND_AFTER = pytest.mark.parametrize(
    ("before", "after"), [(DAY, 0), (YEAR, 0), (0, DAY), (0, YEAR)]
)


class Clock:
    """The clock of one instance: the host's, and so many seconds ahead."""

    def __init__(self, postfix: PrivatePostfix) -> None:
        self.postfix = postfix
        self.offset = 0
        self.file = postfix.directory / "clock"
        self.set(0)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": "/usr/$LIB/faketime/libfaketimeMT.so.1",
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: int) -> None:
        """Let the clock step; what was queued till now keeps the time that it had."""
        for path in self.postfix.queue_files():
            written = os.stat(path).st_mtime
            if written < time.time() + self.offset / 2:  # the disk's clock is not faked
                os.utime(path, (written + self.offset, written + self.offset))
        draft = self.file.with_suffix(".new")
        draft.write_text(f"+{offset}s\n")
        draft.chmod(0o644)
        draft.rename(self.file)
        self.offset = offset

    def day(self) -> str:
        """Today, as it stands in an archive id."""
        return dates.format_rfc3339(time.time() + self.offset)[:10].replace("-", "")


def clear_pid_cache() -> None:
    """Remove what libfaketime has left in /dev/shm of processes that are no more.

    Else a later process of the same number and another user cannot start.
    """
    for path in Path("/dev/shm").glob("*faketime_*"):
        if not Path("/proc", path.name.rpartition("_")[2]).exists():
            path.unlink(missing_ok=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clock of a running instance."""
    postfix = StagedPostfix()
    instance_clock = Clock(postfix)
    show_command = ["postconf", "-c", str(postfix.etc), "-h", "import_environment"]
    names = subprocess.check_output(show_command, text=True).split()
    postfix.postconf(
        import_environment=" ".join([*names, *instance_clock.environment()])
    )
    postfix.add_to_environment(**instance_clock.environment())
    for name, value in instance_clock.environment().items():
        monkeypatch.setenv(name, value)
    clear_pid_cache()
    with postfix:
        yield instance_clock
    clear_pid_cache()


@pytest.fixture
def host(clock: Clock) -> StagedPostfix:
    assert isinstance(clock.postfix, StagedPostfix)
    return clock.postfix


def assert_archived_once(postfix: PrivatePostfix, name: str) -> None:
    """Fail unless a message has one record and one copy, and was delivered once."""
    assert event_kinds(record_of(postfix, name)) == ["archived", "mailed"]
    assert len(deliveries(postfix, name, LEGAL)) == 1
    one_delivery(postfix, name, "bob@example.net")
    process = postfix.run_command("verify")
    assert process.returncode == 0, process.stdout


@BEFORE_AND_AFTER
def test_a_clock_that_steps_between_two_tries_of_the_filter_changes_no_id(
    host: StagedPostfix, clock: Clock, before: int, after: int
) -> None:
    clock.set(before)
    day = clock.day()
    with host.captured_not_reinjected("retried"):
        clock.set(after)
    host.retry_all()
    assert_archived_once(host, "retried")
    assert record_of(host, "retried").archive_id.startswith(day)


@BEFORE_AND_AFTER
def test_a_clock_that_steps_between_capture_and_storing_loses_nothing(
    host: StagedPostfix, clock: Clock, before: int, after: int
) -> None:
    """The stamp too is as good as before, also where it is dated in the future."""
    clock.set(before)
    day = clock.day()
    with host.failing_transport("archive"):
        host.send(mail("stored"))
        host.wait_until_deferred("archive")
        clock.set(after)
    host.retry_all()
    assert_archived_once(host, "stored")
    record = record_of(host, "stored")
    assert record.archive_id.startswith(day)
    assert record.events[0]["time"][:10].replace("-", "") == clock.day()
    passed_on = one_delivery(host, "stored", "bob@example.net").content
    host.send(passed_on, to=["erin@example.net"])
    host.retry_all()
    assert event_kinds(record_of(host, "stored"))[-1] == "supplement"
    assert len(host.stored_files()) == 1


def test_a_journal_written_with_a_jumping_clock_is_intact(
    host: StagedPostfix, clock: Clock
) -> None:
    steps = [0, YEAR, DAY, 2 * YEAR, 0]
    days = []
    for number, offset in enumerate(steps):
        clock.set(offset)
        days.append(clock.day())
        host.send(mail(f"step-{number}"))
        host.retry_all()
    for number, day in enumerate(days):
        assert_archived_once(host, f"step-{number}")
        assert record_of(host, f"step-{number}").archive_id.startswith(day)
    times = [str(event["time"]) for event in host.events()]
    assert times != sorted(times)
    assert host.run_command("list").returncode == 0
    assert host.run_command("verify").returncode == 0


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock of a journal."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_a_run_that_the_clock_overtakes_ends_well_and_loses_nothing(
    host: StagedPostfix, clock: Clock
) -> None:
    """It has its draft when the clock jumps a year ahead: the draft looks forgotten.

    The copy has its name in the store by then, which stays.

    Of the process that mail waits for nothing would be left: its message has a capsule.
    """
    host.set_archive_cf(archive_write_through_time_limit="0")
    host.send(mail("first"))
    host.retry_all()
    drafts = host.store / LEGAL / "drafts"
    with locked_file(host.store / LEGAL / "journal.lock"):  # the run must wait for it
        host.send(mail("overtaken"))
        host.wait(lambda: list(drafts.iterdir()), "the run has its draft")
        clock.set(YEAR)
        assert host.run_command("fallback", "import").returncode == 0
        assert not list(drafts.iterdir())
    host.retry_all()
    assert not fallback.waiting_capsules(str(host.fallback))
    assert_archived_once(host, "overtaken")


# Two days, since archive_rescue_after is one. Not a year ahead: what has waited longer
# than its lifetime Postfix gives up at its next failure (docs/limits.md).
WITHIN_A_LIFETIME = pytest.mark.parametrize(
    ("before", "after"), [(2 * DAY, 0), (YEAR, 0), (0, 2 * DAY)]
)


@WITHIN_A_LIFETIME
def test_copies_that_wait_while_the_clock_steps_are_rescued(
    host: StagedPostfix, clock: Clock, before: int, after: int
) -> None:
    """Nobody knows how long they have waited: they might wait for a year to come."""
    clock.set(before)
    with host.failing_transport("archive"):
        host.send(mail("rescued"))
        host.wait_until_deferred("archive")
        clock.set(after)
        assert host.run_command("queue", "rescue").returncode == 1
        assert not host.mailq()
    assert host.run_command("fallback", "import").returncode == 0
    host.retry_all()
    assert_archived_once(host, "rescued")


@WITHIN_A_LIFETIME
def test_mail_at_a_broken_filter_raises_the_alarm_also_when_the_clock_has_stepped(
    host: StagedPostfix, clock: Clock, before: int, after: int
) -> None:
    clock.set(before)
    with host.failing_transport("archive-stamp"):
        host.send(mail("stuck"))
        host.wait_until_deferred("archive-stamp")
        clock.set(after)
        assert host.run_command("queue", "rescue").returncode == 2
        assert "alarm=filter-waits count=1 reason=messages wait" in host.log()
    host.run_command("queue", "rescue")  # releases what it has held
    host.retry_all()
    assert_archived_once(host, "stuck")
    assert host.run_command("queue", "rescue").returncode == 0
