"""The worker's connection to the hand-back port, and what may befall it.

It is kept for many messages. Postfix may end it at any time, and refuse a recipient in
the middle of what is said in one write: no message is lost, and none is given twice.
"""

from __future__ import annotations

import os
import re
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mails import (
    LEGAL,
    deliveries,
    event_kinds,
    mail,
    one_delivery,
    recipients_of,
    record_of,
    records,
)
from private_postfix import PrivatePostfix, descendants

pytestmark = pytest.mark.live

BOB = "bob@example.net"
LATER = "later@example.net"
IMPOSSIBLE = "a@r..example"
# The client keeps its worker, and by it the connection, for as long as a test may take.
LONG_TIMEOUTS = {
    "connection_cache_ttl_limit": "1h",
    "lmtp_connection_cache_time_limit": "1h",
    "lmtp_connection_reuse_time_limit": "1h",
}


class CachedConnectionHost(PrivatePostfix):
    """An instance with the lmtp mode, whose one worker is kept."""

    def __init__(self, **options: str) -> None:
        super().__init__(mode="lmtp", main=LONG_TIMEOUTS)
        for name, value in options.items():
            self.set_handback(name, value)

    def set_handback(self, name: str, value: str) -> None:
        """Set a parameter of the hand-back port; no blanks in its value."""
        service = f"127.0.0.1:{self.ports[1]}/inet/{name}={value}"
        command = ["postconf", "-c", str(self.etc), "-P", service]
        subprocess.run(command, check=True)

    def pids_of(self, command_part: str) -> list[int]:
        """Return the processes below master(8) that have a text in their command."""
        pids = []
        for pid in descendants(self.master_pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if command_part in command:
                pids.append(pid)
        return pids

    @property
    def workers(self) -> list[int]:
        """The workers, without the processes that they have beside them."""
        program = f"{self.program_directory}/archive-lmtp\0"
        pids = self.pids_of(program)
        return [each for each in pids if _parent_pid(each) not in pids]

    def kill_handback(self) -> None:
        """kill -9 the smtpd(8) of the hand-back port; return when it is gone."""
        service = f"127.0.0.1:{self.ports[1]}"
        pids = self.pids_of(f"\0-n\0{service}\0")
        assert pids
        for each in pids:
            os.kill(each, signal.SIGKILL)
        self.wait(lambda: not set(pids) & set(descendants(self.master_pid)), "gone")

    @property
    def deferred(self) -> int:
        """How often a message was deferred."""
        return len(re.findall(r"status=(?:deferred|SOFTBOUNCE)", self.log()))

    @property
    def connections(self) -> int:
        """How many connections the hand-back port had."""
        return len(re.findall(r"archive-handback/smtpd.*: connect from", self.log()))


def _parent_pid(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0
    return int(fields[1])


def assert_passed_once(host: CachedConnectionHost, name: str) -> None:
    """Return when a message has passed; fail unless it did so once, at both ends."""
    host.wait_for_empty_queue()
    assert event_kinds(record_of(host, name)) == ["archived", "mailed"]
    one_delivery(host, name, BOB)
    assert len(deliveries(host, name, LEGAL)) == 1
    assert host.run_command("verify").returncode == 0


def test_one_connection_carries_many_messages() -> None:
    with CachedConnectionHost() as host:
        for number in range(5):
            host.send(mail(f"kept-{number}"))
            assert_passed_once(host, f"kept-{number}")
        assert host.connections == 1
        assert len(host.workers) == 1


def test_a_connection_that_postfix_ends_for_idleness_makes_no_message_wait() -> None:
    with CachedConnectionHost(smtpd_timeout="1s") as host:
        for number in range(3):
            host.send(mail(f"idle-{number}"))
            assert_passed_once(host, f"idle-{number}")
            [worker] = host.workers
            timeout_line = "archive-handback/smtpd.*: timeout after END-OF-MESSAGE from"
            host.wait_for_log(timeout_line, number + 1)
        assert host.workers == [worker]
        assert host.connections == 3
        assert host.deferred == 0


def test_an_smtpd_that_dies_between_two_messages_makes_none_wait() -> None:
    with CachedConnectionHost() as host:
        host.send(mail("before"))
        assert_passed_once(host, "before")
        [worker] = host.workers
        host.kill_handback()
        host.send(mail("after"))
        assert_passed_once(host, "after")
        assert host.workers == [worker]
        assert host.deferred == 0


def test_an_smtpd_that_dies_over_the_envelope_makes_no_message_wait() -> None:
    """Nothing was given yet: what was said on the kept connection is said anew."""
    with CachedConnectionHost() as host:
        host.send(mail("before"))
        assert_passed_once(host, "before")
        [cleanup] = host.pids_of("\0-n\0archive-cleanup\0")
        os.kill(cleanup, signal.SIGSTOP)
        host.send(mail("during"))
        host.wait(lambda: _is_worker_listening(host), "the smtpd waits for cleanup(8)")
        host.kill_handback()
        host.wait(lambda: host.connections == 2, "the worker comes again")
        os.kill(cleanup, signal.SIGCONT)
        assert_passed_once(host, "during")
        assert host.deferred == 0


def _is_worker_listening(host: CachedConnectionHost) -> bool:
    process = subprocess.run(
        ["ss", "-xlpH"], capture_output=True, text=True, check=True
    )
    return any(
        "public/archive-cleanup " in line
        and f"pid={host.master_pid}," in line
        and int(line.split()[2]) > 0
        for line in process.stdout.splitlines()
    )


class Policy(socketserver.ThreadingTCPServer):
    """A policy service (SMTPD_POLICY_README) that thinks as long as it is told to."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.has_request = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), _SlowPolicySession)

    @property
    def restriction(self) -> str:
        """What asks it."""
        return f"check_policy_service,inet:127.0.0.1:{self.server_address[1]}"


class _SlowPolicySession(socketserver.StreamRequestHandler):
    server: Policy

    def handle(self) -> None:
        while any(iter(lambda: self.rfile.readline().strip(), b"")):
            self.server.has_request.set()
            self.server.may_answer.wait()
            try:
                self.wfile.write(b"action=DUNNO\n\n")
            except OSError:
                return


@pytest.fixture
def policy() -> Iterator[Policy]:
    with Policy() as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.may_answer.set()
        serving.shutdown()


def test_an_smtpd_that_dies_over_a_message_has_it_come_again_once(
    policy: Policy,
) -> None:
    """After the final dot and before its answer: whether it is taken nobody knows."""
    with CachedConnectionHost(
        smtpd_end_of_data_restrictions=policy.restriction
    ) as host:
        host.send(mail("before"))
        assert_passed_once(host, "before")
        policy.has_request.clear()
        policy.may_answer.clear()
        host.send(mail("during"))
        host.wait(policy.has_request.is_set, "the message is given, and not answered")
        host.kill_handback()
        host.wait(lambda: host.deferred == 1, "it waits")
        failed = "error=PostfixUnreachable reason=connection to 127.0.0.1:"
        assert failed in host.last_failure()
        policy.may_answer.set()
        assert_passed_once(host, "during")
        host.send(mail("after"))
        assert_passed_once(host, "after")


def run_with_refusal(host: CachedConnectionHost, *lines: str) -> None:
    """Let the hand-back port say that to a recipient."""
    (host.etc / "later").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("has_one", [False, True], ids=["new", "kept"])
def test_one_deferred_recipient_defers_the_complete_message(has_one: bool) -> None:
    """DATA goes with RCPT in one write, and is answered well: no message is given."""
    host = CachedConnectionHost()
    restriction = f"check_recipient_access,texthash:{host.etc}/later"
    restrictions = f"{restriction},permit_mynetworks,reject"
    host.set_handback("smtpd_recipient_restrictions", restrictions)
    run_with_refusal(host, f"{LATER} 450 4.2.0 not now")
    with host:
        if has_one:
            host.send(mail("before"))
            assert_passed_once(host, "before")
        queue_id = host.send(mail("put-off"), to=[BOB, LATER])
        host.wait_for_log(
            rf" {queue_id}: to=<{BOB}>.*status=(deferred|SOFTBOUNCE) .*temporary fail"
        )
        host.wait_for_failure(
            f"={queue_id} error=PostfixRefused .* replied to RCPT: 450 4.2.0 .*not now"
        )
        host.wait_for_log("archive-handback/smtpd.*: lost connection after DATA")
        assert not records(host, "put-off")
        assert not deliveries(host, "put-off", BOB)
        assert len(host.mailq()) == 1
        run_with_refusal(host)
        host.reload()
        host.flush()
        assert_passed_once(host, "put-off")
        assert recipients_of(record_of(host, "put-off")) == [BOB, LATER]
        assert len(deliveries(host, "put-off", LATER)) == 1


def test_a_message_for_addresses_that_smtp_cannot_carry_is_sent_by_qmqp() -> None:
    """In the middle of others on the kept connection, which then is a new one."""
    with CachedConnectionHost() as host:
        host.send(mail("before"))
        assert_passed_once(host, "before")
        process = host.sendmail(
            mail("odd"), sender="a@example.com", to=[BOB, IMPOSSIBLE]
        )
        assert process.returncode == 0
        assert_passed_once(host, "odd")
        assert IMPOSSIBLE in recipients_of(record_of(host, "odd"))
        assert (
            len(re.findall(r"archive-refused/qmqpd.*: connect from", host.log())) == 1
        )
        host.send(mail("after"))
        assert_passed_once(host, "after")
        assert host.connections == 2
        assert host.deferred == 0
