"""Nothing expires unseen: copies are taken out of the queue, originals put on hold.

With queue lifetimes of a minute or two instead of five days.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.message import queue_ids
from postfix_archive.postfix import postfix_command
from postfix_archive.rescue import queue_rescue
from postfix_archive.store import fallback

from mails import LEGAL, deliveries, mail, one_delivery, record_of
from private_postfix import NATIVE_MODES, PrivatePostfix

pytestmark = pytest.mark.live


@pytest.fixture
def short_queue_host() -> Iterator[PrivatePostfix]:
    """An instance whose queue forgets soon, and has all copies."""
    lifetimes = {"bounce_queue_lifetime": "90s", "maximal_queue_lifetime": "90s"}
    with PrivatePostfix(mode="capsule", main=lifetimes) as running:
        yield running


def break_program(postfix: PrivatePostfix, program_name: str) -> Path:
    """Take a launcher away; return where it is meanwhile."""
    path = postfix.program_directory / program_name
    return path.rename(path.with_suffix(".away"))


def repair_program(moved_program: Path) -> None:
    moved_program.rename(moved_program.with_suffix(""))


def waiting(postfix: PrivatePostfix) -> int:
    return len(fallback.waiting_capsules(str(postfix.fallback)))


def wait_for_deferred(postfix: PrivatePostfix, count: int) -> None:
    """Return when so many messages wait, each with its reason."""

    def all_wait() -> bool:
        entries = postfix.mailq()
        tried = [each for each in entries if "delay_reason" in json.dumps(each)]
        return len(tried) == count == len(entries)

    postfix.wait(all_wait, f"{count} messages are deferred")


def test_copies_are_rescued_before_the_queue_forgets_them(
    short_queue_host: PrivatePostfix,
) -> None:
    moved_program = break_program(short_queue_host, "archive")
    for number in range(5):
        short_queue_host.send(mail(f"rescued-{number}"))
    wait_for_deferred(short_queue_host, 5)
    assert short_queue_host.run_command("status").returncode == 1
    short_queue_host.wait(
        lambda: short_queue_host.run_command("queue", "rescue").returncode == 1
        and waiting(short_queue_host) == 5,
        "the copies are rescued",
    )
    alarm_counts = re.findall(
        r"alarm=copies-moved count=(\d) reason=archive copies moved from the queue",
        short_queue_host.log(),
    )
    assert sum(map(int, alarm_counts)) == 5
    assert not short_queue_host.mailq()
    repair_program(moved_program)
    assert short_queue_host.run_command("fallback", "import").returncode == 0
    short_queue_host.wait_for_empty_queue()
    for number in range(5):
        record = record_of(short_queue_host, f"rescued-{number}")
        kinds = [each["event"] for each in record.events]
        assert kinds == ["archived", "mailed"]
        one_delivery(short_queue_host, f"rescued-{number}", "bob@example.net")
    assert short_queue_host.run_command("queue", "rescue").returncode == 0
    assert short_queue_host.run_command("verify").returncode == 0


def test_a_rescue_that_crashed_is_finished_by_the_next(
    short_queue_host: PrivatePostfix,
) -> None:
    """Between hold and the file, and between the file and the deletion."""
    moved_program = break_program(short_queue_host, "archive")
    short_queue_host.send(mail("crashed"))
    wait_for_deferred(short_queue_host, 1)
    [entry] = short_queue_host.mailq()
    queue_id = str(entry["queue_id"])
    assert queue_ids.arrival(queue_id.encode()) == entry["arrival_time"]
    etc = str(short_queue_host.etc)
    for ids, is_shown in ([queue_id, "ABCDEF0"], True), (["ABCDEF0", queue_id], False):
        records, is_complete = postfix_command.read_envelopes(etc, ids)
        assert ("content_filter: archive:" in records, is_complete) == (is_shown, False)
    assert postfix_command.read_envelopes(etc, [queue_id])[1]
    subprocess.run(
        ["postsuper", "-c", short_queue_host.etc, "-h", queue_id], check=True
    )
    assert short_queue_host.run_command("queue", "rescue").returncode == 1
    assert waiting(short_queue_host) == 1
    assert not short_queue_host.mailq()
    repair_program(moved_program)
    assert short_queue_host.run_command("fallback", "import").returncode == 0
    record_of(short_queue_host, "crashed")


def test_a_fallback_that_is_full_leaves_the_copy_in_the_queue(
    short_queue_host: PrivatePostfix,
) -> None:
    short_queue_host.set_archive_cf(archive_rescue_after="1s")
    options = "size=8k,mode=700,uid=65534,gid=65534"
    mount = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        options,
        "tmpfs",
        str(short_queue_host.fallback),
    ]
    moved_program = break_program(short_queue_host, "archive")
    short_queue_host.send(mail("no-room") + b"x" * 20000)
    wait_for_deferred(short_queue_host, 1)
    subprocess.run(mount, check=True)
    try:
        short_queue_host.wait(
            lambda: "No space left"
            in short_queue_host.run_command("queue", "rescue").stdout,
            "the alarm",
        )
        [entry] = short_queue_host.mailq()
        assert entry["queue_name"] in ("deferred", "active", "incoming")
        assert (
            "alarm=copies-left count=1 reason=archive copies stay in the queue"
            in short_queue_host.log()
        )
    finally:
        subprocess.run(["umount", "-l", str(short_queue_host.fallback)], check=True)
    repair_program(moved_program)
    short_queue_host.wait_for_empty_queue()
    record_of(short_queue_host, "no-room")


def test_copies_over_their_lifetime_stay_on_hold_while_no_place_takes_them() -> None:
    """Store and fallback directory away, past bounce_queue_lifetime."""
    lifetimes = {"bounce_queue_lifetime": "20s", "maximal_queue_lifetime": "20s"}
    with PrivatePostfix(mode="capsule", main=lifetimes) as postfix:
        moved_program = break_program(postfix, "archive")
        for number in range(3):
            postfix.send(mail(f"late-{number}"))
        wait_for_deferred(postfix, 3)
        away = postfix.fallback.rename(postfix.fallback.with_suffix(".away"))
        postfix.wait(
            lambda: postfix.run_command("queue", "rescue").returncode == 1
            and {each["queue_name"] for each in postfix.mailq()} == {"hold"},
            "all are on hold",
        )
        arrivals = [int(str(each["arrival_time"])) for each in postfix.mailq()]
        postfix.wait(lambda: time.time() > max(arrivals) + 20, "they are over age")
        for _ in range(3):
            assert postfix.run_command("queue", "rescue").returncode == 1
            postfix.flush()
            assert [e["queue_name"] for e in postfix.mailq()] == ["hold"] * 3
        away.rename(postfix.fallback)
        assert postfix.run_command("queue", "rescue").returncode == 1
        assert (waiting(postfix), postfix.mailq()) == (3, [])
        repair_program(moved_program)
        assert postfix.run_command("fallback", "import").returncode == 0
        for number in range(3):
            record_of(postfix, f"late-{number}")


def test_what_rescue_takes_is_the_capsule_byte_for_byte(
    short_queue_host: PrivatePostfix,
) -> None:
    short_queue_host.set_archive_cf(archive_rescue_after="1s")
    moved_program = break_program(short_queue_host, "archive")
    body = bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") + b"x" * 5000
    short_queue_host.send(mail("exact") + body + b"\n.\n..\n")
    wait_for_deferred(short_queue_host, 1)
    short_queue_host.wait(
        lambda: short_queue_host.run_command("queue", "rescue").returncode == 1
        and waiting(short_queue_host) == 1,
        "the copy is rescued",
    )
    repair_program(moved_program)
    assert short_queue_host.run_command("fallback", "import").returncode == 0
    record = record_of(short_queue_host, "exact")  # its digest is the sealed one
    assert "altered" not in short_queue_host.log()
    assert len(record.events[0]["sha256"]) == 64
    assert short_queue_host.run_command("verify").returncode == 0


def test_mail_at_a_broken_filter_is_held_and_released(
    short_queue_host: PrivatePostfix,
) -> None:
    moved_program = break_program(short_queue_host, "archive-stamp")
    short_queue_host.send(mail("held"))
    short_queue_host.send(mail("held-too"), sender="")
    wait_for_deferred(short_queue_host, 2)
    directory = str(short_queue_host.etc)
    short_queue_host.wait(
        lambda: short_queue_host.run_command("queue", "rescue").returncode == 2,
        "the alarm, before the hold",
    )
    assert "wait to be archived" in short_queue_host.log()
    short_queue_host.wait(
        lambda: short_queue_host.run_command("queue", "rescue")
        and len(queue_rescue.read_hold_times(directory)) == 2,
        "both are on hold",
    )
    assert {each["queue_name"] for each in short_queue_host.mailq()} == {"hold"}
    status = short_queue_host.run_command("status", "--json")
    assert status.returncode == 2
    assert len(json.loads(status.stdout)["on_hold"]) == 2
    assert (
        "ON HOLD before expiry: 2, since "
        in short_queue_host.run_command("status").stdout
    )
    assert (
        short_queue_host.run_command("queue", "rescue").returncode == 2
    )  # again: nothing more to do
    repair_program(moved_program)
    assert (
        "2 messages released" in short_queue_host.run_command("queue", "rescue").stdout
    )
    short_queue_host.wait_for_empty_queue()
    assert not queue_rescue.read_hold_times(directory)
    for name in ("held", "held-too"):
        record_of(short_queue_host, name)
        one_delivery(short_queue_host, name, "bob@example.net")
    assert "status=bounced" not in short_queue_host.log()
    assert "status=expired" not in short_queue_host.log()
    assert len(short_queue_host.stored_files(LEGAL)) == 2


def test_what_the_postmaster_has_held_stays_held(
    short_queue_host: PrivatePostfix,
) -> None:
    moved_program = break_program(short_queue_host, "archive-stamp")
    short_queue_host.send(mail("theirs"))
    wait_for_deferred(short_queue_host, 1)
    [entry] = short_queue_host.mailq()
    subprocess.run(
        ["postsuper", "-c", short_queue_host.etc, "-h", str(entry["queue_id"])],
        check=True,
    )
    repair_program(moved_program)
    assert short_queue_host.run_command("queue", "rescue").returncode == 0
    [entry] = short_queue_host.mailq()
    assert entry["queue_name"] == "hold"
    subprocess.run(["postsuper", "-c", short_queue_host.etc, "-d", "ALL"], check=True)


def test_a_mailed_copy_without_a_store_stays_in_the_queue() -> None:
    """archive_delivery = mail: nothing else keeps it, so it must not expire."""
    with PrivatePostfix(
        main={"bounce_queue_lifetime": "60s", "archive_relay": "archive-local:"},
        archive_cf={"archive_delivery": "mail"},
    ) as postfix:
        aliases = postfix.etc / "aliases"
        aliases.write_text("")
        postfix.postconf(mydestination="example.com", local_recipient_maps="")
        postfix.postconf(alias_maps=f"texthash:{aliases}")
        postfix.reload()
        postfix.send(mail("renewed"))
        postfix.wait(
            lambda: "mailed copies cannot be delivered"
            in postfix.run_command("queue", "rescue").stdout,
            "the copy is requeued",
        )
        aliases.write_text("legal carol@example.net\n")
        postfix.reload()
        postfix.wait_for_empty_queue()
        assert len(postfix.delivered_to("carol@example.net")) == 1
        assert "status=expired" not in postfix.log()


def test_the_same_capsule_twice_is_one_record(short_queue_host: PrivatePostfix) -> None:
    """A rescue while the transport was at work on it."""
    short_queue_host.set_archive_cf(archive_rescue_after="1s")
    moved_program = break_program(short_queue_host, "archive")
    short_queue_host.send(mail("twice"))
    short_queue_host.wait(
        lambda: short_queue_host.run_command("queue", "rescue").returncode == 1
        and waiting(short_queue_host) == 1,
        "the copy is rescued",
    )
    repair_program(moved_program)
    [(_, path)] = fallback.waiting_capsules(str(short_queue_host.fallback))
    content = Path(path).read_bytes()
    for _ in range(2):
        Path(path).write_bytes(content)
        assert short_queue_host.run_command("fallback", "import").returncode == 0
        assert waiting(short_queue_host) == 0
    short_queue_host.wait_for_empty_queue()
    record = record_of(short_queue_host, "twice")
    assert [each["event"] for each in record.events] == ["archived", "mailed"]
    assert len(short_queue_host.delivered_to(LEGAL)) == 1


# --- native modes ---------------------------------------------------------------------


@pytest.fixture(params=NATIVE_MODES)
def native_host(request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    """An instance in a native mode whose queue forgets soon."""
    lifetimes = {"bounce_queue_lifetime": "40s", "maximal_queue_lifetime": "40s"}
    with PrivatePostfix(mode=request.param, main=lifetimes) as running:
        yield running


def test_captures_are_rescued_and_nobody_waits_for_them(
    native_host: PrivatePostfix,
) -> None:
    """No process can start; the copies are in the store later, once."""
    native_host.set_archive_cf(archive_rescue_after="1s")
    names = ("archive-lmtp", "archive-capture")
    moved_programs = [break_program(native_host, each) for each in names]
    native_host.send(mail("captured"), to=["bob@example.net", '"a b"@example.net'])
    native_host.send(mail("bounced"), sender="")
    wait_for_deferred(native_host, 2)
    subjects = ("captured", "bounced")
    native_host.wait(
        lambda: all(
            deliveries(native_host, each, "bob@example.net") for each in subjects
        ),
        "both are delivered",
    )
    for name in subjects:
        one_delivery(native_host, name, "bob@example.net")
    native_host.wait(
        lambda: bool(native_host.run_command("queue", "rescue").returncode)
        and waiting(native_host) == 2
        and not native_host.mailq(),
        "the copies are rescued",
    )
    for each in moved_programs:
        repair_program(each)
    assert native_host.run_command("fallback", "import").returncode == 0
    record = record_of(native_host, "captured")
    finals = sorted(each.final for each in record.recipients.values())
    assert finals == [b'"a b"@example.net', b"bob@example.net"]
    assert record.envelope.client.address == b"127.0.0.1"
    assert record_of(native_host, "bounced").envelope.sender == b""
    assert native_host.run_command("verify").returncode == 0


def test_a_capture_beside_mail_that_waits_is_saved_before_it_expires(
    native_host: PrivatePostfix,
) -> None:
    """The other recipient stays in the queue until its own time is over."""
    native_host.postconf(defer_transports="archive-capture sink")
    native_host.reload()
    queue_id = native_host.send(mail("both"), to=["bob@away.example.net"])

    def is_queued() -> bool:
        return queue_id in [each["queue_id"] for each in native_host.mailq()]

    native_host.wait(
        lambda: bool(native_host.run_command("queue", "rescue").returncode)
        and waiting(native_host) == 1,
        "the copy is saved",
    )
    assert is_queued()
    native_host.wait_for_log("alarm=copies-saved count=1 ")
    native_host.wait(lambda: not is_queued(), "its time is over")
    assert waiting(native_host) == 1
    assert native_host.run_command("fallback", "import").returncode == 0
    record = record_of(native_host, "both")
    assert [each.final for each in record.recipients.values()] == [
        b"bob@away.example.net"
    ]
