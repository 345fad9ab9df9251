"""The doctor on a live instance with the lmtp door: planted faults are named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from planted import SOUND, Host

from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
CLIENT = "archive-stamp/unix"
WORKER = "archive.legal@example.com/unix"
REQUESTS = "archive.on-request/unix"
DEST = "destination_recipient_limit"
COHORT = "destination_concurrency_failed_cohort_limit"


@pytest.fixture(scope="module")
def running() -> Iterator[Host]:
    with PrivatePostfix(main=SOUND, door="lmtp") as postfix:
        assert postfix.command("queue", "rescue").returncode == 0
        assert postfix.command("outcomes").returncode == 0
        yield Host(postfix)


@pytest.fixture
def host(running: Host) -> Iterator[Host]:
    """The instance, whose configuration comes back afterwards."""
    kept = running.etc.with_name("kept")
    subprocess.run(["cp", "-a", str(running.etc), str(kept)], check=True)
    yield running
    shutil.rmtree(running.etc)
    kept.rename(running.etc)


def found(host: Host, *words: str) -> list[dict[str, str]]:
    """What the doctor finds, but for the advice that every private instance gets."""
    return [e for e in host.findings(*words) if e["severity"] != "ADVICE"]


def option(name: str, value: str) -> Callable[[Host], Host]:
    return lambda host: host.option(CLIENT, name, value)


def lost(name: str) -> Callable[[Host], Host]:
    return lambda host: host.no_option(CLIENT, name)


def limit(key: str, processes: str) -> Callable[[Host], Host]:
    return lambda host: host.postconf("-F", "-e", f"{key}/process_limit={processes}")


SAFE: tuple[tuple[str, str, Callable[[Host], Host]], ...] = (
    ("soft-bounce", "bounces mail", lost("soft_bounce")),
    ("soft-bounce", "bounces mail", option("soft_bounce", "no")),
    ("lmtp-option", "long lines", option("lmtp_line_length_limit", "998")),
    ("lmtp-option", "long lines", lost("lmtp_line_length_limit")),
    ("lmtp-option", "8-bit", lost("disable_mime_output_conversion")),
    ("lmtp-option", "the client's address", lost("lmtp_send_xforward_command")),
    ("lmtp-option", "the client's address", option("lmtp_send_xforward_command", "no")),
    ("lmtp-option", "sender requested", option("lmtp_discard_lhlo_keywords", "dsn")),
    (
        "lmtp-option",
        "connections are not cached",
        lost("lmtp_connection_cache_destinations"),
    ),
    ("lmtp-option", "bypasses the archive", option("lmtp_fallback_relay", "[x]:25")),
    ("lmtp-option", "4xx", option("lmtp_reply_filter", "regexp:/x")),
    (
        "lmtp-option",
        "all mail is deferred",
        option("lmtp_tls_security_level", "encrypt"),
    ),
    ("time-limit", "reinjected twice", option("lmtp_data_done_timeout", "600s")),
    ("time-limit", "reinjected twice", lost("lmtp_data_done_timeout")),
    (
        "time-limit",
        "kills a worker 1000 s",
        lambda host: host.no_option(WORKER, "command_time_limit"),
    ),
    ("recipient-limit", "50 recipients", lambda h: h.unset(f"archive-stamp_{DEST}")),
    ("cohort-limit", "defers all mail", lambda h: h.unset(f"archive-stamp_{COHORT}")),
    ("worker-limit", "2 workers for 10 clients", limit(WORKER, "2")),
    ("worker-limit", "20 workers for 30 clients", limit(CLIENT, "30")),
    ("worker-limit", "20 workers for any number", limit(CLIENT, "0")),
)


def test_a_sound_host_with_workers_has_no_finding(running: Host) -> None:
    assert found(running) == []


@pytest.mark.parametrize(("check", "harm", "plant"), SAFE)
def test_what_is_wrong_with_the_client_or_a_limit_is_named_and_mended(
    host: Host, check: str, harm: str, plant: Callable[[Host], Host]
) -> None:
    plant(host)
    told = found(host)
    assert {each["check"] for each in told} == {check}
    assert harm in told[0]["harm"]
    assert found(host, "--fix") == []


def test_a_worker_that_archives_for_somebody_else_is_named(host: Host) -> None:
    host.entry(WORKER, "--nexthop legal@", "--nexthop other@")
    [told] = found(host)
    assert (told["check"], told["place"]) == (
        "launcher-arguments",
        f"master.cf: {WORKER}",
    )
    assert "to another address" in told["harm"]


def test_an_archive_without_a_worker_is_named(host: Host) -> None:
    host.main(archive="other@example.com")
    told = {each["check"]: each for each in found(host)}
    assert "no service archive.other@example.com" in told["worker-missing"]["harm"]


def test_requests_without_a_worker_are_named(host: Host) -> None:
    host.no_service(REQUESTS)
    [told] = found(host)
    assert told["check"] == "service-missing"
    assert REQUESTS in told["place"]


@pytest.mark.parametrize(
    ("archive", "harm"),
    [
        ("x" * 80 + "@example.com", "characters, a socket's name at most 99"),
        ("a=b@example.com", "cannot be a service name"),
    ],
)
def test_an_archive_that_can_have_no_worker_is_named(
    host: Host, archive: str, harm: str
) -> None:
    host.main(archive=archive)
    told = {each["check"]: each for each in found(host)}["worker-missing"]
    assert harm in told["harm"]
    assert "MODE=pipe" in told["fix"]


def test_a_name_that_ends_postfix_is_shouted_about(host: Host) -> None:
    """See tests/live/intake/test_lmtp_limits.py for what Postfix makes of it."""
    name = "archive." + "x" * 80 + "@example.com"
    host.service(f"{name} unix - n n - 20 spawn user=nobody argv=/bin/false")
    [told] = found(host)
    assert told["check"] == "socket-name"
    assert (told["severity"], told["place"]) == ("CRITICAL", f"master.cf: {name}/unix")
    subprocess.run(told["fix"], shell=True, check=True)
    assert found(host) == []
