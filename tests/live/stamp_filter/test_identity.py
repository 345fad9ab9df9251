"""One id for each capture: hosts that change their name, queue ids of every kind.

The hard case is a retry: a first run has captured the message and could not hand it
back, and until the second run something has changed that the id is made from.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from staged_postfix import StagedPostfix, replace_once

from postfix_archive.postfix import queue_file_size
from postfix_archive.rescue import queue_rescue

from mails import LEGAL, deliveries, event_kinds, mail, one_delivery, record_of, records
from private_postfix import GROUP, USER, PrivatePostfix

pytestmark = pytest.mark.live

OLD_NAME, NEW_NAME = "mail.example.com", "mx.example.net"
STORE_ONLY = {"archive_delivery": "store"}


# The one that gets a message first, and the mode that has it.
FIRST_TRANSPORTS = pytest.mark.parametrize(
    ("transport", "mode"),
    [("archive-stamp", "pipe"), ("archive-capture", "native-pipe")],
)


@pytest.fixture
def host() -> Iterator[StagedPostfix]:
    """An instance of which anything may be changed."""
    with StagedPostfix() as running:
        yield running


def rename_host(
    postfix: PrivatePostfix, *, main: str = OLD_NAME, archive_cf: str = OLD_NAME
) -> None:
    """Give the host another name in main.cf, in archive.cf, or in both."""
    replace_once(
        postfix.etc / "archive.cf",
        f"myhostname = {OLD_NAME}",
        f"myhostname = {archive_cf}",
    )
    postfix.postconf(myhostname=main)
    postfix.reload()


def assert_archived_once(postfix: PrivatePostfix, name: str) -> None:
    """Fail unless a message has one record and one copy, and was delivered once."""
    assert event_kinds(record_of(postfix, name)) == ["archived", "mailed"]
    assert len(deliveries(postfix, name, LEGAL)) == 1
    one_delivery(postfix, name, "bob@example.net")
    assert postfix.run_command("verify").returncode == 0


# --- the host's name --------------------------------------------------------------

CHANGES = {
    "both": {"main": NEW_NAME, "archive_cf": NEW_NAME},
    "main.cf": {"main": NEW_NAME},
    "archive.cf": {"archive_cf": NEW_NAME},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_retry_after_the_host_has_changed_its_name_is_the_same_capture(
    host: StagedPostfix, change: str
) -> None:
    with host.captured_not_reinjected("renamed"):
        rename_host(host, **CHANGES[change])
    host.retry_all()
    assert_archived_once(host, "renamed")
    assert record_of(host, "renamed").envelope.host == OLD_NAME.encode()


@pytest.mark.parametrize(
    ("transport", "mode"),
    [
        ("archive-stamp", "pipe"),
        ("archive", "pipe"),
        ("archive-capture", "native-pipe"),
    ],
)
def test_what_waits_while_the_host_changes_its_name_is_archived_once(
    transport: str, mode: str
) -> None:
    with StagedPostfix(mode=mode) as host:
        with host.failing_transport(transport):
            host.send(mail("waited"))
            host.wait_until_deferred(transport)
            rename_host(host, main=NEW_NAME, archive_cf=NEW_NAME)
        host.retry_all()
        assert_archived_once(host, "waited")
        record = record_of(host, "waited")
        assert record.envelope.host == OLD_NAME.encode()
        assert record.envelope.arrival is not None


def test_mail_stamped_under_the_old_name_adds_a_supplement_under_the_new(
    host: StagedPostfix,
) -> None:
    host.send(mail("passes"))
    host.wait_for_empty_queue()
    passed_on = one_delivery(host, "passes", "bob@example.net").content
    rename_host(host, main=NEW_NAME, archive_cf=NEW_NAME)
    host.send(passed_on, to=["erin@example.net"])
    host.wait_for_empty_queue()
    assert event_kinds(record_of(host, "passes")) == [
        "archived",
        "mailed",
        "supplement",
    ]
    assert len(host.stored_files()) == 1


@FIRST_TRANSPORTS
@pytest.mark.parametrize("change", ["main.cf", "archive.cf"])
def test_where_archive_cf_has_another_name_than_postfix_mail_is_known_all_the_same(
    change: str, transport: str, mode: str
) -> None:
    """Postfix's own line has the queue id; where postsuper -r was, the next has it."""
    name = {"main.cf": NEW_NAME, "archive.cf": OLD_NAME}[change]
    with StagedPostfix(mode=mode) as host:
        rename_host(host, **CHANGES[change])
        with host.failing_transport(transport):
            queue_id = host.send(mail("misnamed"))
            host.wait_until_deferred(transport)
            host.postsuper("-r")
        host.wait(lambda: host.stored_files(), "it is archived")
        host.retry_all()
        assert_archived_once(host, "misnamed")
        record = record_of(host, "misnamed")
        assert record.envelope.host == name.encode()
        assert record.envelope.queue_id == queue_id.encode()
        assert record.envelope.arrival is not None


# --- queue ids --------------------------------------------------------------------


KINDS = pytest.mark.parametrize(("first", "second"), [("yes", "no"), ("no", "yes")])


def set_long_ids(postfix: PrivatePostfix, value: str) -> None:
    postfix.postconf(enable_long_queue_ids=value)
    postfix.reload()


@KINDS
def test_a_retry_after_queue_ids_became_long_or_short_is_the_same_capture(
    host: StagedPostfix, first: str, second: str
) -> None:
    set_long_ids(host, first)
    with host.captured_not_reinjected("retried") as queue_id:
        set_long_ids(host, second)
    host.retry_all()
    assert_archived_once(host, "retried")
    assert record_of(host, "retried").envelope.queue_id == queue_id.encode()


@KINDS
def test_what_is_requeued_when_queue_ids_became_long_or_short_is_archived_once(
    host: StagedPostfix, first: str, second: str
) -> None:
    """Original and capsule each get a queue id of the other kind."""
    set_long_ids(host, first)
    queue_ids = {}
    with host.failing_transport("archive"):
        queue_ids["capsule"] = host.send(mail("capsule"))
        host.wait_until_deferred("archive")
        with host.failing_transport("archive-stamp"):
            queue_ids["original"] = host.send(mail("original"))
            host.wait_until_deferred("archive-stamp")
            set_long_ids(host, second)
            host.postsuper("-r")
            host.wait_for_log("pickup.* orig_id=", 2)
    host.retry_all()
    for name, queue_id in queue_ids.items():
        assert_archived_once(host, name)
        assert record_of(host, name).envelope.queue_id == queue_id.encode()


@KINDS
def test_what_native_mode_captures_is_archived_once_when_queue_ids_become_others(
    first: str, second: str
) -> None:
    """Requeued, or renamed by Postfix because its file is on another disk."""
    transport = "archive-capture"
    with StagedPostfix(mode="native-pipe") as host:
        set_long_ids(host, first)
        with host.failing_transport(transport):
            requeued = host.send(mail("requeued"))
            host.wait_until_deferred(transport)
            set_long_ids(host, second)
            host.postsuper("-r")
            host.wait_for_log("pickup.* orig_id=")
            set_long_ids(host, "no")
            moved = host.send(mail("moved"))
            host.wait_until_deferred(transport)
            host.stop()
            move_to_another_disk(host)
            shutil.chown(host.log_path, "postfix")  # postlogd(8) is down
            host.start()
            host.wait_for_log("Renamed to match inode number")
        host.retry_all()
        for name, queue_id in (("requeued", requeued), ("moved", moved)):
            assert_archived_once(host, name)
            assert record_of(host, name).envelope.queue_id == queue_id.encode()


def received_header(
    queue_id: str, second: int = 0, *, host_name: str = OLD_NAME
) -> bytes:
    """Return the line that Postfix puts on top of a message."""
    return (
        "Received: from client.example.org (localhost [127.0.0.1])\n"
        f"\tby {host_name} (Postfix) with ESMTP id {queue_id}\n"
        f"\tfor <bob@example.net>; Sun, 22 Nov 2026 12:53:{second:02} +0000 (UTC)\n"
    ).encode()


def run_filter(
    postfix: PrivatePostfix, queue_id: str, content: bytes, *, to: str
) -> None:
    """Run the stamp filter on a queue file of this id, as pipe(8) does."""
    launcher = [str(postfix.program_directory / "archive-stamp")]
    options = ["--config-directory", str(postfix.etc)]
    options += ["--nexthop", LEGAL, "--queue-id", queue_id, "--sender", "a@example.org"]
    canonical = content.replace(b"\n", b"\r\n")
    options += ["--size", str(queue_file_size.content_size([canonical])[0])]
    subprocess.run(
        [*launcher, *options, "--", to, to],
        input=content,
        user=USER,
        group=GROUP,
        extra_groups=[],
        check=True,
    )
    postfix.wait_for_empty_queue()


def test_a_queue_id_that_is_used_again_names_another_capture(
    postfix: PrivatePostfix,
) -> None:
    first = received_header("3A5C7E9B1D") + mail("reused-first")
    other = received_header("3A5C7E9B1D") + mail("reused-other")
    for content in (first, other, first):  # the last is a retry of the first
        run_filter(postfix, "3A5C7E9B1D", content, to="bob@example.net")
    for name in ("reused-first", "reused-other"):
        assert event_kinds(record_of(postfix, name)) == ["archived", "mailed"]
        assert record_of(postfix, name).envelope.queue_id == b"3A5C7E9B1D"


def test_the_same_message_under_a_queue_id_that_is_used_again_is_two_captures(
    postfix: PrivatePostfix,
) -> None:
    """Sent twice byte for byte: Postfix's own line tells the one from the other."""
    for second in (1, 2, 1):
        content = received_header("4B6D8F0A2C", second) + mail("sent-again")
        run_filter(postfix, "4B6D8F0A2C", content, to="bob@example.net")
    found_records = records(postfix, "sent-again")
    assert [event_kinds(each) for each in found_records] == [["archived", "mailed"]] * 2
    assert found_records[0].archive_id != found_records[1].archive_id


def test_two_hosts_with_one_key_and_one_queue_id_in_one_second_are_two_captures() -> (
    None
):
    """Two hosts, one key, one store; the same message, the same short queue id."""
    with PrivatePostfix(archive_cf=STORE_ONLY) as one:
        two = {**STORE_ONLY, "myhostname": NEW_NAME}
        with PrivatePostfix(
            main={"myhostname": NEW_NAME}, archive_cf=two, store=one.store
        ) as other:
            for instance, host_name in (
                (one, OLD_NAME),
                (other, NEW_NAME),
                (other, NEW_NAME),
                (one, OLD_NAME),
            ):
                content = received_header("5C7E9B1D3A", host_name=host_name) + mail(
                    "coincidence"
                )
                run_filter(instance, "5C7E9B1D3A", content, to="bob@example.net")
            found_records = records(one, "coincidence")
            assert [event_kinds(instance) for instance in found_records] == [
                ["archived"]
            ] * 2
            assert [instance.envelope.host.decode() for instance in found_records] == [
                OLD_NAME,
                NEW_NAME,
            ]
            assert len({instance.archive_id for instance in found_records}) == 2
            assert one.run_command("verify").returncode == 0


def move_to_another_disk(postfix: PrivatePostfix) -> None:
    """Copy all queue files, as rsync does: each has another inode number after."""
    for path in map(Path, postfix.queue_files()):
        copy = path.with_name(f"{path.name}.copy")
        shutil.copy2(path, copy)
        shutil.chown(copy, "postfix", "postfix")
        copy.rename(path)


def test_a_queue_that_was_moved_keeps_its_captures_and_what_a_rescue_has_held(
    host: StagedPostfix,
) -> None:
    """Postfix gives queue files with short ids other names when it starts there."""
    host.postconf(enable_long_queue_ids="no", maximal_queue_lifetime="1s")
    host.reload()
    with host.failing_transport("archive-stamp"):
        host.send(mail("held"))
        host.wait_until_deferred("archive-stamp")
        host.wait(
            lambda: host.run_command("queue", "rescue")
            and queue_rescue.read_hold_times(str(host.etc)),
            "hold",
        )
    host.postconf(maximal_queue_lifetime="5d")
    host.reload()
    with host.captured_not_reinjected("retried") as queue_id:
        host.stop()
        move_to_another_disk(host)
        shutil.chown(host.log_path, "postfix")  # postlogd(8) is down: postsuper(1) does
        host.start()
        host.wait_for_log("Renamed to match inode number: 2 messages")
    assert "1 messages released" in host.run_command("queue", "rescue").stdout
    assert not queue_rescue.read_hold_times(str(host.etc))
    host.retry_all()
    assert_archived_once(host, "held")
    assert_archived_once(host, "retried")
    assert record_of(host, "retried").envelope.queue_id == queue_id.encode()
