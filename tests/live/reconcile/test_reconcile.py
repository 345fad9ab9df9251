"""postfix-archive reconcile: what went around the archive is found, and the way named.

Mail that is let around on purpose bears the way in its sender's address.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from repeated_log import RepeatedLog

import journal_lines
from mails import mail
from private_postfix import (
    ROOT,
    WITHOUT_WRITE_THROUGH,
    Client,
    PrivatePostfix,
    free_ports,
)

pytestmark = pytest.mark.live
SESSIONS = 8
NULL_SENDER = (
    "MAILER-DAEMON"  # as postqueue(1) writes the null sender, which capsules have
)
MASTER = """
127.0.0.1:{around} inet n - n - - smtpd
  -o syslog_name=postfix/around -o content_filter=
127.0.0.1:{unnamed} inet n - n - - smtpd -o content_filter=
127.0.0.1:{unasked} inet n - n - - smtpd -o syslog_name=postfix/unasked -o archive=
"""
SHORT_TIMEOUTS = """
from postfix_archive.cli import main as cli
from postfix_archive.cli import reconcile
from postfix_archive.reconcile import reconciliation
reconcile.PROGRESS_DELAY, reconciliation.LINES_PER_STEP = 0.0, 10
cli.main()
"""
SENDER_ACCESS = """
/^filter-/ FILTER sink:elsewhere
/^redirect-/ REDIRECT yes@redirected.example.net
/^throw-/ DISCARD thrown away at the door
/^hold-/ HOLD to be looked at
"""
HEADER_CHECKS = """
/^X-Do: filter/ FILTER sink:elsewhere
/^X-Do: discard/ DISCARD such a header
"""


class Host(PrivatePostfix):
    """An instance with five ways around the archive, and some that are in order."""

    def __init__(self, **options: Any) -> None:
        names = ("around", "unnamed", "unasked")
        self.port_of = dict(zip(names, free_ports(len(names)), strict=True))
        super().__init__(
            master=MASTER.format(**self.port_of),
            edit_master=lambda text: text.replace(
                " 1 1 pickup\n", " 1 1 pickup -o content_filter=\n"
            ),
            archive_cf={"archive_delivery": "store"},
            main={
                "smtpd_client_connection_count_limit": "0",
                "in_flow_delay": "0",
                **options,
            },
        )
        for name, text in (("senders", SENDER_ACCESS), ("headers", HEADER_CHECKS)):
            (self.etc / name).write_text(text)
        self.postconf(
            smtpd_sender_restrictions=f"check_sender_access regexp:{self.etc}/senders",
            header_checks=f"regexp:{self.etc}/headers",
        )

    @property
    def reinjection_port(self) -> int:
        """The port by which the stamp filter gives mail back."""
        return self.ports[1]

    def reconcile(self, *arguments: str) -> dict[str, Any]:
        """Return what a run says; its numbers add up."""
        process = self.run_command("reconcile", "--json", *arguments)
        assert process.stderr == ""
        result: dict[str, Any] = json.loads(process.stdout)
        kinds = ("archived", "waiting", "rescued", "not_requested", "missing")
        assert result["unclear"] == 0
        assert sum(result[kind] for kind in kinds) == result["accepted"]
        expected_code = {"OK": 0, "WARNING": 1, "CRITICAL": 2}[result["status"]]
        assert process.returncode == expected_code
        return result

    def postsuper(self, option: str, queue_id: str) -> None:
        """Run postsuper(1) on one message."""
        command = ["postsuper", "-c", str(self.etc), option, queue_id]
        subprocess.run(command, check=True, capture_output=True)


def by_filter_action(host: Host, client: Client, name: str) -> None:
    client.send(mail(name), sender=f"filter-{name}@example.org")


def by_header_checks(host: Host, client: Client, name: str) -> None:
    client.send(b"X-Do: filter\n" + mail(name), sender=f"header-{name}@example.org")


def by_service(host: Host, client: Client, name: str) -> None:
    host.send(mail(name), sender=f"service-{name}@x.org", port=host.port_of["around"])


def by_pickup(host: Host, client: Client, name: str) -> None:
    host.sendmail(mail(name), sender=f"pickup-{name}@x.org", to=["bob@example.net"])


def by_reinjection_port(host: Host, client: Client, name: str) -> None:
    host.send(mail(name), sender=f"reinjected-{name}@x.org", port=host.reinjection_port)


SendAround = Callable[[Host, Client, str], None]
ROUTES_AROUND: dict[str, tuple[SendAround, str, str]] = (
    {  # how, the way's name, what the cause says
        "filter": (
            by_filter_action,
            "filter-action",
            "FILTER sink:elsewhere by an access table or policy server",
        ),
        "header": (
            by_header_checks,
            "filter-action",
            "FILTER sink:elsewhere by header_checks",
        ),
        "service": (
            by_service,
            "other-content-filter",
            "accepted by 127.0.0.1:{around}/inet (content_filter is empty);"
            " sent to sink",
        ),
        "pickup": (
            by_pickup,
            "other-content-filter",
            "accepted by pickup/unix (content_filter is empty); sent to sink",
        ),
        "reinjected": (
            by_reinjection_port,
            "foreign-reinjection",
            "sent to the reinjection service archive-handback, not by the stamp filter",
        ),
    }
)


def is_shorter(host: Host, length: int) -> bool:
    return len(host.queue_files()) < length


def send_and_reconcile(host: Host, count: int, bypassing: int) -> dict[str, Any]:
    """Send count messages, some around in each way by turns; return what is found."""
    generator = random.Random(count)
    numbers = sorted(generator.sample(range(count), bypassing))
    routes = {
        number: list(ROUTES_AROUND)[index % len(ROUTES_AROUND)]
        for index, number in enumerate(numbers)
    }

    def session(first: int) -> None:
        with Client(host.smtp_port) as client:
            for number in range(first, count, SESSIONS):
                if number in routes:
                    ROUTES_AROUND[routes[number]][0](host, client, str(number))
                else:
                    client.send(mail(f"m{number}"), to=[f"n{number}@example.net"])

    with ThreadPoolExecutor(SESSIONS) as pool:
        list(pool.map(session, range(SESSIONS)))
    while length := len(host.queue_files()):
        is_now_shorter = partial(is_shorter, host, length)
        host.wait(is_now_shorter, f"the queue is shorter than {length}")
    host.wait_for_empty_queue()
    result = host.reconcile()
    assert result["accepted"] == count
    assert result["archived"] == count - bypassing
    assert result["missing"] == bypassing
    assert [message["kind"] for message in result["messages"]] == [
        "missing"
    ] * bypassing
    reported = {}
    for message in result["messages"]:
        route, number = message["sender"].partition("@")[0].split("-")
        reported[int(number)] = (
            route,
            message["cause"],
            message["explanation"],
            message["recipients"],
        )
    assert reported == {
        number: (
            route,
            ROUTES_AROUND[route][1],
            ROUTES_AROUND[route][2].format(**host.port_of),
            1,
        )
        for number, route in routes.items()
    }
    return result


def test_exactly_the_bypassing_mail_is_found_with_its_route() -> None:
    with Host() as host:
        result = send_and_reconcile(host, 240, 17)
        assert sum(result["causes"].values()) == 17
        process = host.run_command("reconcile")
        assert process.returncode == 2
        assert "Totals match." in process.stdout
        assert process.stdout.count("  filter-action: FILTER sink:elsewhere by ") == 8
        assert re.search(r"^missing +17  8 filter-action; ", process.stdout, re.M)
        status = host.run_command("status")
        assert status.returncode == 1
        assert "17 MISSING of 240 accepted" in status.stdout
        numbers = host.run_command("status", "--prometheus").stdout
        assert re.search(r'reconciled_messages.*result="missing"} 17\n', numbers)
        run_file = host.fallback / "reconciled"
        assert run_file.stat().st_uid == host.fallback.stat().st_uid


@pytest.mark.slow
def test_of_five_thousand_exactly_the_37_bypassing_messages_are_found() -> None:
    with Host() as host:
        send_and_reconcile(host, 5000, 37)


TRANSPORT_TABLE = """\
archive-request.invalid archive-stamp:on-request
no.example.net error:5.1.1 no such user
"""


@pytest.fixture(scope="module")
def reconciled_host() -> Iterator[tuple[Host, dict[str, Any]]]:
    """A host on which everything has happened, and what reconcile says of it."""
    with Host() as host:
        (host.etc / "routes").write_text(TRANSPORT_TABLE)
        host.postconf(
            transport_maps=f"texthash:{host.etc}/routes",
            smtpd_reject_unlisted_recipient="no",
        )
        host.reload()
        send_ending_mail(host)
        send_waiting_mail(host)
        yield host, host.reconcile()


def send_named(host: Host, name: str, *, header: str = "", **options: Any) -> str:
    """Send a message whose sender bears its name; return its queue id."""
    content = header.encode() + mail(name)
    return host.send(content, sender=f"{name}@example.org", **options)


def wait_for_queued(host: Host, sender: str, *excluded: str) -> str:
    """Return the queue id of what waits of a sender, when it does, but for some."""
    queue_ids: list[str] = []

    def is_queued() -> bool:
        ids = [str(e["queue_id"]) for e in host.mailq() if e["sender"] == sender]
        queue_ids.extend(each for each in ids if each not in excluded)
        return bool(queue_ids)

    host.wait(is_queued, f"something of {sender} waits")
    return queue_ids[0]


def send_waiting(host: Host, name: str) -> str:
    """Send a message that cannot go on; return its queue id when it waits."""
    send_named(host, name)
    return wait_for_queued(host, f"{name}@example.org")


def set_deferred_transports(host: Host, transports: str) -> None:
    """Let mail wait for some transports; a reload leaves qmgr(8) its time."""
    host.stop()
    host.set_archive_cf(**(WITHOUT_WRITE_THROUGH if transports == "archive" else {}))
    host.postconf(defer_transports=transports)
    host.start()


def wait_for_next_second(host: Host) -> None:
    """Return when what the log says next has another time: it tells whole seconds."""
    now = int(time.time())
    host.wait(lambda: int(time.time()) > now, "another second")


def send_ending_mail(host: Host) -> None:
    """Send mail to which something happens, and let all of it end."""
    send_named(host, "usual")
    send_named(host, "many", to=[f"n{number}@example.net" for number in range(50)])
    send_named(
        host, "bounced", to=["x@no.example.net"]
    )  # the notification is Postfix's own
    send_named(host, "throw-a")
    send_named(host, "discarded-a", header="X-Do: discard\n")
    send_named(host, "redirect-a")
    send_named(host, "unasked-a", port=host.port_of["unasked"])
    send_named(host, "unnamed-a", port=host.port_of["unnamed"])
    probe = ["/usr/sbin/sendmail", "-C", str(host.etc), "-bv", "bob@example.net"]
    subprocess.run(probe, check=True)
    host.wait_for_empty_queue()
    set_deferred_transports(host, "archive-stamp")
    send_waiting(host, "stuck-a")  # the gate lets it go, too
    wait_for_next_second(host)
    reason = ["--reason", "ticket 17"]
    assert host.run_command("bypass", "on", *reason).returncode == 0
    send_named(host, "bypassed-a")
    send_named(host, "unasked-b", port=host.port_of["unasked"])
    host.wait_for_empty_queue()
    assert host.run_command("bypass", "off").returncode == 0
    set_deferred_transports(host, "")
    wait_for_next_second(host)
    moved_store = host.store.rename(host.directory / "aside")
    send_named(host, "rescued-a")
    host.wait_for_empty_queue()
    moved_store.rename(host.store)


def send_waiting_mail(host: Host) -> None:
    """Send mail that waits, or that somebody deletes while it does."""
    set_deferred_transports(host, "archive-stamp")
    host.postsuper("-d", send_waiting(host, "deleted-a"))
    host.postsuper("-h", send_waiting(host, "uncaptured-a"))
    set_deferred_transports(host, "archive")
    send_named(host, "hold-a")
    send_named(host, "lost-a")
    host.postsuper("-d", wait_for_queued(host, NULL_SENDER))
    send_named(host, "waits-a")
    capsule = wait_for_queued(host, NULL_SENDER)
    send_named(host, "requeued-a")
    host.postsuper("-r", wait_for_queued(host, NULL_SENDER, capsule))
    host.wait_for_log("capsule=.* result=requeued")
    host.wait(
        lambda: Counter(str(e["queue_name"]) for e in host.mailq())
        == {"deferred": 2, "hold": 2},
        "two capsules wait and two messages are on hold",
    )


def test_every_message_is_counted_once_and_for_what_became_of_it(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    _, result = reconciled_host
    reported = {
        message["sender"].partition("@")[0]: (
            message["kind"],
            message.get("cause", ""),
            message.get("queue", "").replace("active", "deferred"),  # it is tried again
        )
        for message in result["messages"]
    }
    assert reported == {
        "redirect-a": ("missing", "redirect-action", ""),
        "unnamed-a": ("missing", "other-content-filter", ""),
        "bypassed-a": ("missing", "bypass-on", ""),
        "stuck-a": ("missing", "bypass-on", ""),
        "deleted-a": ("missing", "deleted", ""),
        "lost-a": ("missing", "capsule-missing", ""),
        "rescued-a": ("rescued", "", ""),
        "uncaptured-a": ("waiting", "", "hold"),
        "hold-a": ("waiting", "", "hold"),
        "waits-a": ("waiting", "", "deferred"),
        "requeued-a": ("waiting", "", "deferred"),
    }
    assert result["archived"] == 3
    assert result["not_requested"] == 4
    assert result["accepted"] == 3 + 4 + len(reported)
    assert result["queued_before_log"] == result["unreadable_lines"] == 0


def test_the_rule_by_which_a_message_was_not_requested_is_named(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    host, result = reconciled_host
    assert result["rules"] == {
        "DISCARD by an access table or policy server (RCPT)": 1,
        "DISCARD by header_checks": 1,
        f"127.0.0.1:{host.port_of['unasked']}/inet -o archive=": 2,
    }


def test_a_cause_names_what_to_check(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    host, result = reconciled_host
    cause = {
        each["sender"].partition("@")[0]: each["explanation"]
        for each in result["messages"]
    }
    unnamed = f"127.0.0.1:{host.port_of['unnamed']}/inet (content_filter is empty)"
    assert cause["unnamed-a"] == f"probably accepted by {unnamed}; sent to sink"
    assert "REDIRECT yes@redirected.example.net by an access" in cause["redirect-a"]
    assert "ticket 17" in cause["bypassed-a"]
    assert "deleted by postsuper -d before it was archived" in cause["deleted-a"]
    assert "was deleted by postsuper -d" in cause["lost-a"]
    assert "not captured yet" in cause["uncaptured-a"]


def test_what_was_missed_stays_found_when_the_rest_has_been_archived(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    host, before = reconciled_host
    set_deferred_transports(host, "")
    for each in ("uncaptured-a", "hold-a"):
        host.postsuper("-H", wait_for_queued(host, f"{each}@example.org"))
    host.flush()
    host.wait_for_empty_queue()
    assert host.run_command("fallback", "import").returncode == 0
    result = host.reconcile()
    assert result["waiting"] == result["rescued"] == 0
    assert result["archived"] == 8
    assert result["missing"] == before["missing"]
    assert result["accepted"] == before["accepted"]


def test_a_rotated_or_moved_log_gives_the_same_result(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    host, _ = reconciled_host
    before = host.reconcile()
    text = host.log_path.read_bytes()
    half = text.index(b"\n", len(text) // 2) + 1
    rotated = host.log_path.with_name("maillog.1.gz")
    rotated.write_bytes(gzip.compress(text[:half]))
    moved_log = host.directory / "laid.log"
    moved_log.write_bytes(text[half:])
    files = ["--log", str(rotated), "--log", str(moved_log)]
    assert host.reconcile(*files)["messages"] == before["messages"]
    host.log_path.write_bytes(text[half:])
    after = host.reconcile()
    assert after["messages"] == before["messages"]
    assert after["accepted"] == before["accepted"]


def test_what_cannot_be_read_is_unknown(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    host, _ = reconciled_host
    process = host.run_command("reconcile", "--log", "/nowhere/mail.log")
    assert process.returncode == 3
    assert process.stdout.startswith("UNKNOWN: /nowhere/mail.log: No such file")
    process = host.run_command("reconcile", "--json", "--log", "/nowhere/mail.log")
    assert json.loads(process.stdout)["status"] == "UNKNOWN"
    assert host.run_command("reconcile", "--since", "soon").returncode == 2
    before = (host.etc / "main.cf").read_bytes()
    host.postconf(maillog_file="/dev/stdout")
    process = host.run_command("reconcile")
    (host.etc / "main.cf").write_bytes(before)
    assert process.returncode == 3
    assert process.stdout.startswith("UNKNOWN: /dev/stdout is a device or FIFO")


def test_on_a_terminal_a_bar_shows_how_far_it_is(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    """Where it takes long, and apart from what a program reads."""
    host, _ = reconciled_host
    assert re.search(rb"log +\[#+", run_on_a_terminal(host))


def run_on_a_terminal(host: Host) -> bytes:
    """Return what the command shows on a terminal."""
    terminal, slave_end = pty.openpty()
    command = [sys.executable, "-c", SHORT_TIMEOUTS, "-c", str(host.etc), "reconcile"]
    process = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=slave_end, check=False
    )
    os.close(slave_end)
    assert b"accepted" in process.stdout
    output = b""
    with contextlib.suppress(OSError):  # EIO is the end of what a terminal shows
        while chunk := os.read(terminal, 1000):
            output += chunk
    os.close(terminal)
    return output


def test_a_given_period_has_only_what_arrived_in_it(
    reconciled_host: tuple[Host, dict[str, Any]],
) -> None:
    host, _ = reconciled_host
    assert host.reconcile("--since", "2100-01-01")["accepted"] == 0
    assert host.reconcile("--until", "2001-01-01")["accepted"] == 0


LINE_COUNT = 1_000_000
CPU_LIMIT, MEMORY_LIMIT = 30, 200  # seconds, MB


@pytest.mark.slow
def test_a_log_of_a_million_lines_is_read_fast_and_needs_little_memory() -> None:
    with Host() as host:
        send_and_reconcile(host, 200, 5)
        host.stop()
        journal = journal_lines.segment(host.store / "legal@example.com")
        repeated_log = RepeatedLog(
            host.log_path.read_bytes(), journal.read_bytes(), LINE_COUNT
        )
        lines = repeated_log.write_log(host.log_path)
        repeated_log.write_journal(journal)
        host.start()
        result, seconds, megabytes = measure(host)
        assert result["archived"] == 195 * repeated_log.repeats
        assert result["missing"] == 5 * repeated_log.repeats
        assert result["accepted"] == 200 * repeated_log.repeats
        print(
            f"{lines} lines, {result['accepted']} messages,"
            f" {result['missing']} missing: {seconds} s of CPU, {megabytes} MB"
        )
        assert lines >= LINE_COUNT
        assert sum(seconds) < CPU_LIMIT
        assert megabytes < MEMORY_LIMIT


def measure(host: Host) -> tuple[dict[str, Any], tuple[float, float], float]:
    """Return what a run says, its seconds of CPU (user, system) and its peak in MB."""
    command = [sys.executable, "-m", "postfix_archive", "-c", str(host.etc)]
    with open(host.directory / "said", "w+b") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            [*command, "reconcile", "--json"], stdout=output, cwd=ROOT
        )
        _, status, resource_usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        print(f"{time.monotonic() - start:.1f} s")
        output.seek(0)
        result: dict[str, Any] = json.loads(output.read())
    return (
        result,
        (resource_usage.ru_utime, resource_usage.ru_stime),
        resource_usage.ru_maxrss / 1024,
    )


def test_a_queue_that_was_moved_has_the_same_messages() -> None:
    """Postfix gives queue files with short ids other names when it starts there."""
    with Host(enable_long_queue_ids="no") as host:
        set_deferred_transports(host, "archive-stamp")
        host.postsuper("-h", send_waiting(host, "original-a"))
        set_deferred_transports(host, "archive")
        send_named(host, "capsule-a")
        host.wait_for_log("relay=archive-stamp,.* status=sent")
        host.stop()
        for path in map(Path, host.queue_files()):  # as rsync does: other inode numbers
            copy = path.with_name(f"{path.name}.copy")
            shutil.copy2(path, copy)
            shutil.chown(copy, "postfix", "postfix")
            copy.rename(path)
        shutil.chown(host.log_path, "postfix")  # postlogd(8) is down: postsuper(1) does
        host.start()
        host.wait_for_log("Renamed to match inode number: ")
        wait_for_queued(host, NULL_SENDER)
        result = host.reconcile()
        assert (result["accepted"], result["waiting"]) == (2, 2)
        set_deferred_transports(host, "")
        host.postsuper("-H", wait_for_queued(host, "original-a@example.org"))
        host.flush()
        host.wait_for_empty_queue()
        result = host.reconcile()
        assert (result["accepted"], result["archived"]) == (2, 2)
        assert not result["queued_before_log"]
