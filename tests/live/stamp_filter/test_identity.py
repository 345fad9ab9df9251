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
from stages import StagedPostfix, edit

from postfix_archive.postfix import queue_file_size
from postfix_archive.rescue import queue_rescue

from mails import LEGAL, delivered, deliveries, mail, record_of, records, words
from private_postfix import GROUP, USER, PrivatePostfix

pytestmark = pytest.mark.live

OLD, NEW = "mail.example.com", "mx.example.net"
STORE = {"archive_delivery": "store"}


@pytest.fixture
def host() -> Iterator[StagedPostfix]:
    """An instance of which anything may be changed."""
    with StagedPostfix() as running:
        yield running


def renamed(postfix: PrivatePostfix, *, main: str = OLD, archive_cf: str = OLD) -> None:
    """Give the host another name in main.cf, in archive.cf, or in both."""
    edit(
        postfix.etc / "archive.cf", f"myhostname = {OLD}", f"myhostname = {archive_cf}"
    )
    postfix.postconf(myhostname=main)
    postfix.reload()


def is_archived_once(postfix: PrivatePostfix, name: str) -> None:
    """Fail unless a message has one record and one copy, and was delivered once."""
    assert words(record_of(postfix, name)) == ["archived", "mailed"]
    assert len(deliveries(postfix, name, LEGAL)) == 1
    delivered(postfix, name, "bob@example.net")
    assert postfix.command("verify").returncode == 0


# --- the host's name --------------------------------------------------------------

CHANGES = {
    "both": {"main": NEW, "archive_cf": NEW},
    "main.cf": {"main": NEW},
    "archive.cf": {"archive_cf": NEW},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_retry_after_the_host_has_changed_its_name_is_the_same_capture(
    host: StagedPostfix, change: str
) -> None:
    with host.captured("renamed"):
        renamed(host, **CHANGES[change])
    host.go_on()
    is_archived_once(host, "renamed")
    assert record_of(host, "renamed").envelope.host == OLD.encode()


@pytest.mark.parametrize("transport", ["archive-stamp", "archive"])
def test_what_waits_while_the_host_changes_its_name_is_archived_once(
    host: StagedPostfix, transport: str
) -> None:
    with host.held_up(transport):
        host.send(mail("waited"))
        host.tried(transport)
        renamed(host, main=NEW, archive_cf=NEW)
    host.go_on()
    is_archived_once(host, "waited")
    record = record_of(host, "waited")
    assert record.envelope.host == OLD.encode()
    assert record.envelope.arrival is not None


def test_mail_stamped_under_the_old_name_adds_a_supplement_under_the_new(
    host: StagedPostfix,
) -> None:
    host.send(mail("passes"))
    host.settle()
    passed_on = delivered(host, "passes", "bob@example.net").content
    renamed(host, main=NEW, archive_cf=NEW)
    host.send(passed_on, to=["erin@example.net"])
    host.settle()
    assert words(record_of(host, "passes")) == ["archived", "mailed", "supplement"]
    assert len(host.stored()) == 1


@pytest.mark.parametrize("change", ["main.cf", "archive.cf"])
def test_where_archive_cf_has_another_name_than_postfix_mail_is_known_all_the_same(
    host: StagedPostfix, change: str
) -> None:
    """Postfix's own line has the queue id; where postsuper -r was, the next has it."""
    renamed(host, **CHANGES[change])
    name = {"main.cf": NEW, "archive.cf": OLD}[change]
    with host.held_up("archive-stamp"):
        queue_id = host.send(mail("misnamed"))
        host.tried("archive-stamp")
        host.postsuper("-r")
    host.wait(lambda: host.stored(), "it is archived")
    host.go_on()
    is_archived_once(host, "misnamed")
    record = record_of(host, "misnamed")
    assert record.envelope.host == name.encode()
    assert record.envelope.queue_id == queue_id.encode()
    assert record.envelope.arrival is not None


# --- queue ids --------------------------------------------------------------------


KINDS = pytest.mark.parametrize(("first", "second"), [("yes", "no"), ("no", "yes")])


def with_long_ids(postfix: PrivatePostfix, yes_or_no: str) -> None:
    postfix.postconf(enable_long_queue_ids=yes_or_no)
    postfix.reload()


@KINDS
def test_a_retry_after_queue_ids_became_long_or_short_is_the_same_capture(
    host: StagedPostfix, first: str, second: str
) -> None:
    with_long_ids(host, first)
    with host.captured("retried") as queue_id:
        with_long_ids(host, second)
    host.go_on()
    is_archived_once(host, "retried")
    assert record_of(host, "retried").envelope.queue_id == queue_id.encode()


@KINDS
def test_what_is_requeued_when_queue_ids_became_long_or_short_is_archived_once(
    host: StagedPostfix, first: str, second: str
) -> None:
    """Original and capsule each get a queue id of the other kind."""
    with_long_ids(host, first)
    sent = {}
    with host.held_up("archive"):
        sent["capsule"] = host.send(mail("capsule"))
        host.tried("archive")
        with host.held_up("archive-stamp"):
            sent["original"] = host.send(mail("original"))
            host.tried("archive-stamp")
            with_long_ids(host, second)
            host.postsuper("-r")
            host.wait_for_log("pickup.* orig_id=", 2)
    host.go_on()
    for name, queue_id in sent.items():
        is_archived_once(host, name)
        assert record_of(host, name).envelope.queue_id == queue_id.encode()


def received(queue_id: str, second: int = 0, *, by: str = OLD) -> bytes:
    """Return the line that Postfix puts on top of a message."""
    return (
        "Received: from client.example.org (localhost [127.0.0.1])\n"
        f"\tby {by} (Postfix) with ESMTP id {queue_id}\n"
        f"\tfor <bob@example.net>; Sun, 22 Nov 2026 12:53:{second:02} +0000 (UTC)\n"
    ).encode()


def filtered(
    postfix: PrivatePostfix, queue_id: str, content: bytes, *, to: str
) -> None:
    """Run the stamp filter on a queue file of this id, as pipe(8) does."""
    door = [str(postfix.program / "archive-stamp")]
    said = ["--config-directory", str(postfix.etc)]
    said += ["--nexthop", LEGAL, "--queue-id", queue_id, "--sender", "a@example.org"]
    canonical = content.replace(b"\n", b"\r\n")
    said += ["--size", str(queue_file_size.content_size([canonical])[0])]
    subprocess.run(
        [*door, *said, "--", to, to],
        input=content,
        user=USER,
        group=GROUP,
        extra_groups=[],
        check=True,
    )
    postfix.settle()


def test_a_queue_id_that_is_used_again_names_another_capture(
    postfix: PrivatePostfix,
) -> None:
    first = received("3A5C7E9B1D") + mail("reused-first")
    other = received("3A5C7E9B1D") + mail("reused-other")
    for content in (first, other, first):  # the last is a retry of the first
        filtered(postfix, "3A5C7E9B1D", content, to="bob@example.net")
    for name in ("reused-first", "reused-other"):
        assert words(record_of(postfix, name)) == ["archived", "mailed"]
        assert record_of(postfix, name).envelope.queue_id == b"3A5C7E9B1D"


def test_the_same_message_under_a_queue_id_that_is_used_again_is_two_captures(
    postfix: PrivatePostfix,
) -> None:
    """Sent twice byte for byte: Postfix's own line tells the one from the other."""
    for second in (1, 2, 1):
        content = received("4B6D8F0A2C", second) + mail("sent-again")
        filtered(postfix, "4B6D8F0A2C", content, to="bob@example.net")
    found = records(postfix, "sent-again")
    assert [words(each) for each in found] == [["archived", "mailed"]] * 2
    assert found[0].archive_id != found[1].archive_id


def test_two_hosts_with_one_key_and_one_queue_id_in_one_second_are_two_captures() -> (
    None
):
    """Two hosts, one key, one store; the same message, the same short queue id."""
    with PrivatePostfix(archive_cf=STORE) as one:
        two = {**STORE, "myhostname": NEW}
        with PrivatePostfix(
            main={"myhostname": NEW}, archive_cf=two, store=one.store
        ) as other:
            for each, by in ((one, OLD), (other, NEW), (other, NEW), (one, OLD)):
                content = received("5C7E9B1D3A", by=by) + mail("coincidence")
                filtered(each, "5C7E9B1D3A", content, to="bob@example.net")
            found = records(one, "coincidence")
            assert [words(each) for each in found] == [["archived"]] * 2
            assert [each.envelope.host.decode() for each in found] == [OLD, NEW]
            assert len({each.archive_id for each in found}) == 2
            assert one.command("verify").returncode == 0


def moved_to_another_disk(postfix: PrivatePostfix) -> None:
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
    with host.held_up("archive-stamp"):
        host.send(mail("held"))
        host.tried("archive-stamp")
        host.wait(
            lambda: host.command("queue", "rescue")
            and queue_rescue.read_hold_times(str(host.etc)),
            "hold",
        )
    host.postconf(maximal_queue_lifetime="5d")
    host.reload()
    with host.captured("retried") as queue_id:
        host.stop()
        moved_to_another_disk(host)
        shutil.chown(host.logfile, "postfix")  # postlogd(8) is down: postsuper(1) does
        host.start()
        host.wait_for_log("Renamed to match inode number: 2 messages")
    assert "1 messages released" in host.command("queue", "rescue").stdout
    assert not queue_rescue.read_hold_times(str(host.etc))
    host.go_on()
    is_archived_once(host, "held")
    is_archived_once(host, "retried")
    assert record_of(host, "retried").envelope.queue_id == queue_id.encode()
