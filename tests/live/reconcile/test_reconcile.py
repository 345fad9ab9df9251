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
from grown_log import Grown

from mails import mail
from private_postfix import BY_CAPSULE, ROOT, Client, PrivatePostfix, free_ports

pytestmark = pytest.mark.live
SESSIONS = 8
NOBODY = "MAILER-DAEMON"  # as postqueue(1) writes the null sender, which capsules have
MASTER = """
127.0.0.1:{around} inet n - n - - smtpd
  -o syslog_name=postfix/around -o content_filter=
127.0.0.1:{unnamed} inet n - n - - smtpd -o content_filter=
127.0.0.1:{unasked} inet n - n - - smtpd -o syslog_name=postfix/unasked -o archive=
"""
IMPATIENT = """
from postfix_archive.cli import main as cli
from postfix_archive.cli import reconcile
reconcile.PROGRESS_DELAY, reconcile.LINES_PER_STEP = 0.0, 10
cli.main()
"""
SENDERS = """
/^filter-/ FILTER sink:elsewhere
/^redirect-/ REDIRECT yes@redirected.example.net
/^throw-/ DISCARD thrown away at the door
/^hold-/ HOLD to be looked at
"""
HEADERS = """
/^X-Do: filter/ FILTER sink:elsewhere
/^X-Do: discard/ DISCARD such a header
"""


class Host(PrivatePostfix):
    """An instance with five ways around the archive, and some that are in order."""

    def __init__(self, **more: Any) -> None:
        names = ("around", "unnamed", "unasked")
        self.port = dict(zip(names, free_ports(len(names)), strict=True))
        super().__init__(
            master=MASTER.format(**self.port),
            edit_master=lambda text: text.replace(
                " 1 1 pickup\n", " 1 1 pickup -o content_filter=\n"
            ),
            archive_cf={"archive_delivery": "store"},
            main={
                "smtpd_client_connection_count_limit": "0",
                "in_flow_delay": "0",
                **more,
            },
        )
        for name, text in (("senders", SENDERS), ("headers", HEADERS)):
            (self.etc / name).write_text(text)
        self.postconf(
            smtpd_sender_restrictions=f"check_sender_access regexp:{self.etc}/senders",
            header_checks=f"regexp:{self.etc}/headers",
        )

    @property
    def handback(self) -> int:
        """The port by which the stamp filter gives mail back."""
        return self.ports[1]

    def reconcile(self, *words: str) -> dict[str, Any]:
        """Return what a run says; its numbers add up."""
        done = self.command("reconcile", "--json", *words)
        assert done.stderr == ""
        found: dict[str, Any] = json.loads(done.stdout)
        kinds = ("archived", "waiting", "rescued", "not_requested", "missing")
        assert found["unclear"] == 0
        assert sum(found[kind] for kind in kinds) == found["accepted"]
        code = {"OK": 0, "WARNING": 1, "CRITICAL": 2}[found["status"]]
        assert done.returncode == code
        return found

    def postsuper(self, option: str, queue_id: str) -> None:
        """Run postsuper(1) on one message."""
        command = ["postsuper", "-c", str(self.etc), option, queue_id]
        subprocess.run(command, check=True, capture_output=True)


def by_filter_action(host: Host, client: Client, name: str) -> None:
    client.send(mail(name), sender=f"filter-{name}@example.org")


def by_header_checks(host: Host, client: Client, name: str) -> None:
    client.send(b"X-Do: filter\n" + mail(name), sender=f"header-{name}@example.org")


def by_a_service(host: Host, client: Client, name: str) -> None:
    host.send(mail(name), sender=f"service-{name}@x.org", port=host.port["around"])


def by_pickup(host: Host, client: Client, name: str) -> None:
    host.sendmail(mail(name), sender=f"pickup-{name}@x.org", to=["bob@example.net"])


def by_hand(host: Host, client: Client, name: str) -> None:
    host.send(mail(name), sender=f"reinjected-{name}@x.org", port=host.handback)


Way = Callable[[Host, Client, str], None]
WAYS: dict[str, tuple[Way, str, str]] = {  # how, the way's name, what the cause says
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
        by_a_service,
        "service-around",
        "accepted by 127.0.0.1:{around}/inet (content_filter is empty); sent to sink",
    ),
    "pickup": (
        by_pickup,
        "service-around",
        "accepted by pickup/unix (content_filter is empty); sent to sink",
    ),
    "reinjected": (
        by_hand,
        "hand-made-reinjection",
        "sent to the reinjection service archive-handback, not by the stamp filter",
    ),
}


def is_shorter(host: Host, left: int) -> bool:
    return len(host.queue_files()) < left


def run(host: Host, count: int, around: int) -> dict[str, Any]:
    """Send count messages, some around in each way by turns; return what is found."""
    chance = random.Random(count)
    turns = sorted(chance.sample(range(count), around))
    ways = {number: list(WAYS)[at % len(WAYS)] for at, number in enumerate(turns)}

    def session(first: int) -> None:
        with Client(host.smtp_port) as client:
            for number in range(first, count, SESSIONS):
                if number in ways:
                    WAYS[ways[number]][0](host, client, str(number))
                else:
                    client.send(mail(f"m{number}"), to=[f"n{number}@example.net"])

    with ThreadPoolExecutor(SESSIONS) as pool:
        list(pool.map(session, range(SESSIONS)))
    while left := len(host.queue_files()):
        shorter = partial(is_shorter, host, left)
        host.wait(shorter, f"the queue is shorter than {left}")
    host.settle()
    found = host.reconcile()
    assert found["accepted"] == count
    assert found["archived"] == count - around
    assert found["missing"] == around
    assert [each["kind"] for each in found["messages"]] == ["missing"] * around
    said = {}
    for each in found["messages"]:
        way, number = each["sender"].partition("@")[0].split("-")
        said[int(number)] = (way, each["way"], each["cause"], each["recipients"])
    assert said == {
        number: (way, WAYS[way][1], WAYS[way][2].format(**host.port), 1)
        for number, way in ways.items()
    }
    return found


def test_exactly_what_went_around_is_found_and_the_way_named() -> None:
    with Host() as host:
        found = run(host, 240, 17)
        assert sum(found["ways"].values()) == 17
        told = host.command("reconcile")
        assert told.returncode == 2
        assert "Totals match." in told.stdout
        assert told.stdout.count("  filter-action: FILTER sink:elsewhere by ") == 8
        assert re.search(r"^missing +17  8 filter-action; ", told.stdout, re.M)
        status = host.command("status")
        assert status.returncode == 1
        assert "17 MISSING of 240 accepted" in status.stdout
        numbers = host.command("status", "--prometheus").stdout
        assert re.search(r'reconciled_messages.*result="missing"} 17\n', numbers)
        note = host.fallback / "reconciled"
        assert note.stat().st_uid == host.fallback.stat().st_uid


@pytest.mark.slow
def test_of_five_thousand_exactly_the_37_that_went_around_are_found() -> None:
    with Host() as host:
        run(host, 5000, 37)


ROUTES = """\
archive-request.invalid archive-stamp:on-request
no.example.net error:5.1.1 no such user
"""


@pytest.fixture(scope="module")
def seen() -> Iterator[tuple[Host, dict[str, Any]]]:
    """A host on which everything has happened, and what reconcile says of it."""
    with Host() as host:
        (host.etc / "routes").write_text(ROUTES)
        host.postconf(
            transport_maps=f"texthash:{host.etc}/routes",
            smtpd_reject_unlisted_recipient="no",
        )
        host.reload()
        what_ends(host)
        what_waits(host)
        yield host, host.reconcile()


def sent(host: Host, name: str, *, header: str = "", **more: Any) -> str:
    """Send a message whose sender bears its name; return its queue id."""
    content = header.encode() + mail(name)
    return host.send(content, sender=f"{name}@example.org", **more)


def queued(host: Host, sender: str, *but: str) -> str:
    """Return the queue id of what waits of a sender, when it does, but for some."""
    found: list[str] = []

    def looked() -> bool:
        ids = [str(e["queue_id"]) for e in host.mailq() if e["sender"] == sender]
        found.extend(each for each in ids if each not in but)
        return bool(found)

    host.wait(looked, f"something of {sender} waits")
    return found[0]


def stuck(host: Host, name: str) -> str:
    """Send a message that cannot go on; return its queue id when it waits."""
    sent(host, name)
    return queued(host, f"{name}@example.org")


def defer(host: Host, transports: str) -> None:
    """Let mail wait for some transports; a reload leaves qmgr(8) its time."""
    host.stop()
    host.set_archive_cf(**(BY_CAPSULE if transports == "archive" else {}))
    host.postconf(defer_transports=transports)
    host.start()


def another_second(host: Host) -> None:
    """Return when what the log says next has another time: it tells whole seconds."""
    now = int(time.time())
    host.wait(lambda: int(time.time()) > now, "another second")


def what_ends(host: Host) -> None:
    """Send mail to which something happens, and let all of it end."""
    sent(host, "usual")
    sent(host, "many", to=[f"n{number}@example.net" for number in range(50)])
    sent(host, "bounced", to=["x@no.example.net"])  # the notification is Postfix's own
    sent(host, "throw-a")
    sent(host, "discarded-a", header="X-Do: discard\n")
    sent(host, "redirect-a")
    sent(host, "unasked-a", port=host.port["unasked"])
    sent(host, "unnamed-a", port=host.port["unnamed"])
    probe = ["/usr/sbin/sendmail", "-C", str(host.etc), "-bv", "bob@example.net"]
    subprocess.run(probe, check=True)
    host.settle()
    defer(host, "archive-stamp")
    stuck(host, "stuck-a")  # the gate lets it go, too
    another_second(host)
    reason = ["--reason", "ticket 17"]
    assert host.command("bypass", "on", *reason).returncode == 0
    sent(host, "bypassed-a")
    sent(host, "unasked-b", port=host.port["unasked"])
    host.settle()
    assert host.command("bypass", "off").returncode == 0
    defer(host, "")
    another_second(host)
    aside = host.store.rename(host.folder / "aside")
    sent(host, "rescued-a")
    host.settle()
    aside.rename(host.store)


def what_waits(host: Host) -> None:
    """Send mail that waits, or that somebody deletes while it does."""
    defer(host, "archive-stamp")
    host.postsuper("-d", stuck(host, "deleted-a"))
    host.postsuper("-h", stuck(host, "uncaptured-a"))
    defer(host, "archive")
    sent(host, "hold-a")
    sent(host, "lost-a")
    host.postsuper("-d", queued(host, NOBODY))
    sent(host, "waits-a")
    capsule = queued(host, NOBODY)
    sent(host, "requeued-a")
    host.postsuper("-r", queued(host, NOBODY, capsule))
    host.wait_for_log("capsule of .*, requeued")
    host.wait(
        lambda: Counter(str(e["queue_name"]) for e in host.mailq())
        == {"deferred": 2, "hold": 2},
        "two capsules wait and two messages are on hold",
    )


def test_every_message_is_counted_once_and_for_what_became_of_it(
    seen: tuple[Host, dict[str, Any]],
) -> None:
    _, found = seen
    said = {
        each["sender"].partition("@")[0]: (
            each["kind"],
            each.get("way", ""),
            each.get("where", "").replace("active", "deferred"),  # it is tried again
        )
        for each in found["messages"]
    }
    assert said == {
        "redirect-a": ("missing", "redirect-action", ""),
        "unnamed-a": ("missing", "service-around", ""),
        "bypassed-a": ("missing", "gate-open", ""),
        "stuck-a": ("missing", "gate-open", ""),
        "deleted-a": ("missing", "deleted", ""),
        "lost-a": ("missing", "capsule-gone", ""),
        "rescued-a": ("rescued", "", ""),
        "uncaptured-a": ("waiting", "", "hold"),
        "hold-a": ("waiting", "", "hold"),
        "waits-a": ("waiting", "", "deferred"),
        "requeued-a": ("waiting", "", "deferred"),
    }
    assert found["archived"] == 3
    assert found["not_requested"] == 4
    assert found["accepted"] == 3 + 4 + len(said)
    assert found["begun_before"] == found["not_understood"] == 0


def test_the_rule_is_named_by_which_a_message_was_not_asked_for(
    seen: tuple[Host, dict[str, Any]],
) -> None:
    host, found = seen
    assert found["rules"] == {
        "DISCARD by an access table or policy server (RCPT)": 1,
        "DISCARD by header_checks": 1,
        f"127.0.0.1:{host.port['unasked']}/inet -o archive=": 2,
    }


def test_a_cause_says_what_to_look_at(seen: tuple[Host, dict[str, Any]]) -> None:
    host, found = seen
    cause = {e["sender"].partition("@")[0]: e["cause"] for e in found["messages"]}
    unnamed = f"127.0.0.1:{host.port['unnamed']}/inet (content_filter is empty)"
    assert cause["unnamed-a"] == f"probably accepted by {unnamed}; sent to sink"
    assert "REDIRECT yes@redirected.example.net by an access" in cause["redirect-a"]
    assert "ticket 17" in cause["bypassed-a"]
    assert "deleted by postsuper -d before it was archived" in cause["deleted-a"]
    assert "was deleted by postsuper -d" in cause["lost-a"]
    assert "not captured yet" in cause["uncaptured-a"]


def test_what_was_missed_stays_found_when_the_rest_has_been_archived(
    seen: tuple[Host, dict[str, Any]],
) -> None:
    host, before = seen
    defer(host, "")
    for each in ("uncaptured-a", "hold-a"):
        host.postsuper("-H", queued(host, f"{each}@example.org"))
    host.flush()
    host.settle()
    assert host.command("return").returncode == 0
    found = host.reconcile()
    assert found["waiting"] == found["rescued"] == 0
    assert found["archived"] == 8
    assert found["missing"] == before["missing"]
    assert found["accepted"] == before["accepted"]


def test_a_log_that_was_rotated_or_laid_elsewhere_says_the_same(
    seen: tuple[Host, dict[str, Any]],
) -> None:
    host, _ = seen
    before = host.reconcile()
    text = host.logfile.read_bytes()
    half = text.index(b"\n", len(text) // 2) + 1
    rotated = host.logfile.with_name("maillog.1.gz")
    rotated.write_bytes(gzip.compress(text[:half]))
    laid = host.folder / "laid.log"
    laid.write_bytes(text[half:])
    files = ["--log", str(rotated), "--log", str(laid)]
    assert host.reconcile(*files)["messages"] == before["messages"]
    host.logfile.write_bytes(text[half:])
    after = host.reconcile()
    assert after["messages"] == before["messages"]
    assert after["accepted"] == before["accepted"]


def test_what_cannot_be_looked_at_is_unknown(seen: tuple[Host, dict[str, Any]]) -> None:
    host, _ = seen
    done = host.command("reconcile", "--log", "/nowhere/mail.log")
    assert done.returncode == 3
    assert done.stdout.startswith("UNKNOWN: /nowhere/mail.log: No such file")
    done = host.command("reconcile", "--json", "--log", "/nowhere/mail.log")
    assert json.loads(done.stdout)["status"] == "UNKNOWN"
    assert host.command("reconcile", "--since", "soon").returncode == 2


def test_on_a_terminal_a_bar_shows_how_far_it_is(
    seen: tuple[Host, dict[str, Any]],
) -> None:
    """Where it takes long, and apart from what a program reads."""
    host, _ = seen
    assert re.search(rb"log +\[#+", on_a_terminal(host))


def on_a_terminal(host: Host) -> bytes:
    """Return what the command shows on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", IMPATIENT, "-c", str(host.etc), "reconcile"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, check=False
    )
    os.close(theirs)
    assert b"accepted" in done.stdout
    shown = b""
    with contextlib.suppress(OSError):  # EIO is the end of what a terminal shows
        while piece := os.read(ours, 1000):
            shown += piece
    os.close(ours)
    return shown


def test_a_time_that_is_asked_for_has_only_what_came_in_it(
    seen: tuple[Host, dict[str, Any]],
) -> None:
    host, _ = seen
    assert host.reconcile("--since", "2100-01-01")["accepted"] == 0
    assert host.reconcile("--until", "2001-01-01")["accepted"] == 0


LINES = 1_000_000
CPU, MEMORY = 30, 200  # seconds, MB


@pytest.mark.slow
def test_a_log_of_a_million_lines_is_read_fast_and_needs_little_memory() -> None:
    with Host() as host:
        run(host, 200, 5)
        host.stop()
        journal = host.store / "legal@example.com" / "journal"
        grown = Grown(host.logfile.read_bytes(), journal.read_bytes(), LINES)
        lines = grown.write_log(host.logfile)
        grown.write_journal(journal)
        host.start()
        found, seconds, megabytes = measured(host)
        assert found["archived"] == 195 * grown.times
        assert found["missing"] == 5 * grown.times
        assert found["accepted"] == 200 * grown.times
        print(
            f"{lines} lines, {found['accepted']} messages, {found['missing']} missing:"
            f" {seconds} s of CPU, {megabytes} MB"
        )
        assert lines >= LINES
        assert sum(seconds) < CPU
        assert megabytes < MEMORY


def measured(host: Host) -> tuple[dict[str, Any], tuple[float, float], float]:
    """Return what a run says, its seconds of CPU (user, system) and its peak in MB."""
    command = [sys.executable, "-m", "postfix_archive", "-c", str(host.etc)]
    with open(host.folder / "said", "w+b") as said:
        began = time.monotonic()
        run = subprocess.Popen([*command, "reconcile", "--json"], stdout=said, cwd=ROOT)
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        print(f"{time.monotonic() - began:.1f} s")
        said.seek(0)
        found: dict[str, Any] = json.loads(said.read())
    return found, (used.ru_utime, used.ru_stime), used.ru_maxrss / 1024


def test_a_queue_that_was_moved_has_the_same_messages() -> None:
    """Postfix gives queue files with short ids other names when it starts there."""
    with Host(enable_long_queue_ids="no") as host:
        defer(host, "archive-stamp")
        host.postsuper("-h", stuck(host, "original-a"))
        defer(host, "archive")
        sent(host, "capsule-a")
        host.wait_for_log("relay=archive-stamp,.* status=sent")
        host.stop()
        for path in map(Path, host.queue_files()):  # as rsync does: other inode numbers
            copy = path.with_name(f"{path.name}.copy")
            shutil.copy2(path, copy)
            shutil.chown(copy, "postfix", "postfix")
            copy.rename(path)
        shutil.chown(host.logfile, "postfix")  # postlogd(8) is down: postsuper(1) does
        host.start()
        host.wait_for_log("Renamed to match inode number: ")
        queued(host, NOBODY)
        found = host.reconcile()
        assert (found["accepted"], found["waiting"]) == (2, 2)
        defer(host, "")
        host.postsuper("-H", queued(host, "original-a@example.org"))
        host.flush()
        host.settle()
        found = host.reconcile()
        assert (found["accepted"], found["archived"]) == (2, 2)
        assert not found["begun_before"]
