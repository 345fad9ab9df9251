"""The doctor on a live instance with the lmtp mode: planted faults are named."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import faulty_host
import pytest
from faulty_host import Host, findings_of

pytestmark = pytest.mark.live
CLIENT = "archive-stamp/unix"
WORKER = "archive.legal@example.com/unix"
REQUESTS = "archive.on-request/unix"
RECIPIENT_LIMIT = "destination_recipient_limit"
COHORT_LIMIT = "destination_concurrency_failed_cohort_limit"


@pytest.fixture(scope="module")
def running_host() -> Iterator[Host]:
    with faulty_host.running("lmtp") as instance:
        yield instance


@pytest.fixture
def host(running_host: Host) -> Iterator[Host]:
    """The instance, whose configuration comes back afterwards."""
    with running_host.restored_configuration():
        yield running_host


def with_option(name: str, value: str) -> Callable[[Host], Host]:
    return lambda host: host.set_option(CLIENT, name, value)


def without_option(name: str) -> Callable[[Host], Host]:
    return lambda host: host.remove_option(CLIENT, name)


def with_process_limit(key: str, processes: str) -> Callable[[Host], Host]:
    return lambda host: host.postconf("-F", "-e", f"{key}/process_limit={processes}")


FIXABLE_FAULTS: tuple[tuple[str, str, Callable[[Host], Host]], ...] = (
    ("soft-bounce", "bounces mail", without_option("soft_bounce")),
    ("soft-bounce", "bounces mail", with_option("soft_bounce", "no")),
    ("lmtp-option", "long lines", with_option("lmtp_line_length_limit", "998")),
    ("lmtp-option", "long lines", without_option("lmtp_line_length_limit")),
    ("lmtp-option", "8-bit", without_option("disable_mime_output_conversion")),
    (
        "lmtp-option",
        "the client's address",
        without_option("lmtp_send_xforward_command"),
    ),
    (
        "lmtp-option",
        "the client's address",
        with_option("lmtp_send_xforward_command", "no"),
    ),
    (
        "lmtp-option",
        "sender requested",
        with_option("lmtp_discard_lhlo_keywords", "dsn"),
    ),
    (
        "lmtp-option",
        "connections are not cached",
        without_option("lmtp_connection_cache_destinations"),
    ),
    (
        "lmtp-option",
        "bypasses the archive",
        with_option("lmtp_fallback_relay", "[x]:25"),
    ),
    ("lmtp-option", "4xx", with_option("lmtp_reply_filter", "regexp:/x")),
    (
        "lmtp-option",
        "all mail is deferred",
        with_option("lmtp_tls_security_level", "encrypt"),
    ),
    ("time-limit", "reinjected twice", with_option("lmtp_data_done_timeout", "600s")),
    ("time-limit", "reinjected twice", without_option("lmtp_data_done_timeout")),
    (
        "time-limit",
        "kills a worker 1000 s",
        lambda host: host.remove_option(WORKER, "command_time_limit"),
    ),
    (
        "recipient-limit",
        "50 recipients",
        lambda h: h.unset_main(f"archive-stamp_{RECIPIENT_LIMIT}"),
    ),
    (
        "cohort-limit",
        "defers all mail",
        lambda h: h.unset_main(f"archive-stamp_{COHORT_LIMIT}"),
    ),
    ("worker-limit", "2 workers for 10 clients", with_process_limit(WORKER, "2")),
    ("worker-limit", "20 workers for 30 clients", with_process_limit(CLIENT, "30")),
    ("worker-limit", "20 workers for any number", with_process_limit(CLIENT, "0")),
)


def test_a_sound_host_with_workers_has_no_finding(running_host: Host) -> None:
    assert findings_of(running_host) == []


@pytest.mark.parametrize(("check", "message", "plant_fault"), FIXABLE_FAULTS)
def test_a_wrong_client_or_limit_is_named_and_repaired(
    host: Host, check: str, message: str, plant_fault: Callable[[Host], Host]
) -> None:
    plant_fault(host)
    findings = findings_of(host)
    assert {each["check"] for each in findings} == {check}
    assert message in findings[0]["harm"]
    assert findings_of(host, "--fix") == []


def test_a_worker_that_archives_for_another_address_is_named(host: Host) -> None:
    host.edit_entry(WORKER, "--nexthop legal@", "--nexthop other@")
    [finding] = findings_of(host)
    assert (finding["check"], finding["place"]) == (
        "launcher-arguments",
        f"master.cf: {WORKER}",
    )
    assert "to another address" in finding["harm"]


def test_an_archive_without_a_worker_is_named(host: Host) -> None:
    host.set_main(archive="other@example.com")
    findings_by_check = {each["check"]: each for each in findings_of(host)}
    assert (
        "no service archive.other@example.com"
        in findings_by_check["worker-missing"]["harm"]
    )


def test_requests_without_a_worker_are_named(host: Host) -> None:
    host.remove_service(REQUESTS)
    [finding] = findings_of(host)
    assert finding["check"] == "service-missing"
    assert REQUESTS in finding["place"]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ("x" * 80 + "@example.com", "characters, a socket's name at most 99"),
        ("a=b@example.com", "cannot be a service name"),
    ],
)
def test_an_archive_that_can_have_no_worker_is_named(
    host: Host, archive: str, message: str
) -> None:
    host.set_main(archive=archive)
    finding = {each["check"]: each for each in findings_of(host)}["worker-missing"]
    assert message in finding["harm"]
    assert "--mode=pipe" in finding["fix"]


def test_a_name_that_ends_postfix_is_critical(host: Host) -> None:
    """See tests/live/intake/test_lmtp_limits.py for what Postfix makes of it."""
    name = "archive." + "x" * 80 + "@example.com"
    host.add_service(f"{name} unix - n n - 20 spawn user=nobody argv=/bin/false")
    [finding] = findings_of(host)
    assert finding["check"] == "socket-name"
    assert (finding["severity"], finding["place"]) == (
        "CRITICAL",
        f"master.cf: {name}/unix",
    )
    subprocess.run(finding["fix"], shell=True, check=True)
    assert findings_of(host) == []
