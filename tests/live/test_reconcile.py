"""postfix-archive reconcile: what went around the archive is found, and the way named.

Mail that is let around on purpose bears the way in its sender's address.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mails import mail
from private_postfix import Client, PrivatePostfix, free_ports

pytestmark = pytest.mark.live
SESSIONS = 8
MASTER = """
127.0.0.1:{around} inet n - n - - smtpd
  -o syslog_name=postfix/around -o content_filter=
127.0.0.1:{unnamed} inet n - n - - smtpd -o content_filter=
127.0.0.1:{unasked} inet n - n - - smtpd -o syslog_name=postfix/unasked -o archive=
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
        "127.0.0.1:{around}/inet has content_filter empty; it went to sink",
    ),
    "pickup": (
        by_pickup,
        "service-around",
        "pickup/unix has content_filter empty; it went to sink",
    ),
    "reinjected": (
        by_hand,
        "hand-made-reinjection",
        "handed in by the port archive-handback, and not by the stamp filter",
    ),
}


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
        assert "It adds up." in told.stdout
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
