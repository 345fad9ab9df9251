"""The doctor on live instances in the native modes; bypass and explain know them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import faulty_host
import pytest
from faulty_host import COMMAND, Host, findings_of

from postfix_archive.message import keyring, request

from private_postfix import KEY, NATIVE_MODES

pytestmark = pytest.mark.live
CLIENT = "archive-capture/unix"
WORKER = "archive.capture/unix"


@pytest.fixture(scope="module", params=NATIVE_MODES)
def running_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with faulty_host.running(request.param) as instance:
        yield instance


@pytest.fixture
def host(running_host: Host) -> Iterator[Host]:
    """The instance, whose configuration comes back afterwards."""
    with running_host.restored_configuration():
        yield running_host


def write_map(host: Host, archive: str, key: str = KEY) -> Host:
    """Replace the capture map by that of another archive, or under another key."""
    keys = keyring.parse(key, path="key")
    (host.etc / "archive-capture").write_text(request.capture_table(archive, keys))
    return host


def remove_map(host: Host) -> None:
    (host.etc / "archive-capture").unlink()


def test_a_sound_host_in_native_mode_has_no_finding(running_host: Host) -> None:
    assert findings_of(running_host) == []


FAULTS: tuple[tuple[str, str, Callable[[Host], object]], ...] = (
    ("capture-map", "451", remove_map),
    ("capture-map", "another address", lambda h: write_map(h, "a@example.com")),
    (
        "capture-map",
        "not at all",
        lambda h: write_map(h, "legal@example.com", f"other {'1' * 64}\n"),
    ),
    ("capture-map", "archive = new@", lambda h: h.set_main(archive="new@example.com")),
    ("nothing-archived", "no archiving", lambda h: h.set_main(archive="")),
    (
        "not-captured",
        "has no capture map",
        lambda h: h.add_service(
            "own-cleanup unix n - n - 0 cleanup -o recipient_bcc_maps="
        ).add_service(
            "submission inet n - n - - smtpd -o cleanup_service_name=own-cleanup"
        ),
    ),
    (
        "not-captured",
        "not to other@example.com",
        lambda h: h.add_service(
            "submission inet n - n - - smtpd -o archive=other@example.com"
        ),
    ),
    (
        "request-mapped",
        "all that is captured",
        lambda h: h.set_main(
            virtual_alias_maps=h.make_table("/^(.*)@.*$/ $1@example.org\n", "regexp")
        ),
    ),
    (
        "request-route",
        "all that is captured",
        lambda h: h.set_main(transport_maps="inline:{archive-request.invalid=x:y}"),
    ),
    ("service-missing", "archive-capture: mail", lambda h: h.remove_service(CLIENT)),
)


@pytest.mark.parametrize(("check", "message", "plant_fault"), FAULTS)
def test_a_fault_of_a_native_mode_is_named(
    host: Host, check: str, message: str, plant_fault: Callable[[Host], object]
) -> None:
    plant_fault(host)
    harms = {each["check"]: each["harm"] for each in findings_of(host)}
    assert message in harms[check], harms


FAULTS_OF_ONE_MODE: tuple[tuple[str, str, str, Callable[[Host], object]], ...] = (
    ("native", "service-missing", "mail for it", lambda h: h.remove_service(WORKER)),
    (
        "native",
        "launcher-arguments",
        "another address",
        lambda h: h.edit_entry(WORKER, "--nexthop capture", "--nexthop on-request"),
    ),
    (
        "native-pipe",
        "launcher-arguments",
        "--sasl-username is missing",
        lambda h: h.edit_entry(CLIENT, "--sasl-username ${sasl_username} ", ""),
    ),
    (
        "native-pipe",
        "pipe-flags",
        "not quoted",
        lambda h: h.edit_entry(CLIENT, "flags=q ", ""),
    ),
    (
        "native-pipe",
        "null-sender",
        "MAILER-DAEMON",
        lambda h: h.edit_entry(CLIENT, "null_sender= ", ""),
    ),
    (
        "native-pipe",
        "service-user",
        "refuses to run as root",
        lambda h: h.edit_entry(CLIENT, "user=nobody:nogroup", "user=root"),
    ),
    (
        "native-pipe",
        "program-missing",
        "cannot execute",
        lambda h: h.edit_entry(
            CLIENT, "/archive-capture --", "/absent/archive-capture --"
        ),
    ),
)


@pytest.mark.parametrize(
    ("running_host", "check", "message", "plant_fault"),
    FAULTS_OF_ONE_MODE,
    indirect=["running_host"],
    scope="module",
)
def test_a_fault_of_one_native_mode_is_named(
    host: Host, check: str, message: str, plant_fault: Callable[[Host], object]
) -> None:
    test_a_fault_of_a_native_mode_is_named(host, check, message, plant_fault)


FIXABLE_FAULTS: tuple[tuple[str, Callable[[Host], object]], ...] = (
    ("capture-map-mode", lambda h: (h.etc / "archive-capture").chmod(0o644)),
    ("soft-bounce", lambda h: h.remove_option(CLIENT, "soft_bounce")),
    (
        "recipient-limit",
        lambda h: h.set_main(**{"archive-capture_destination_recipient_limit": "50"}),
    ),
    (
        "request-domain-open",
        lambda h: h.set_main(smtpd_recipient_restrictions="permit_mynetworks,reject"),
    ),
)


@pytest.mark.parametrize(("check", "plant_fault"), FIXABLE_FAULTS)
def test_a_fault_that_can_be_repaired_is_named_and_repaired(
    host: Host, check: str, plant_fault: Callable[[Host], object]
) -> None:
    plant_fault(host)
    assert {each["check"] for each in findings_of(host)} == {check}
    assert findings_of(host, "--fix") == []


FIXABLE_FAULTS_OF_ONE_MODE: tuple[tuple[str, str, Callable[[Host], object]], ...] = (
    (
        "native",
        "lmtp-option",
        lambda h: h.set_option(CLIENT, "lmtp_line_length_limit", "998"),
    ),
    ("native", "time-limit", lambda h: h.remove_option(WORKER, "command_time_limit")),
    (
        "native-pipe",
        "time-limit",
        lambda h: h.set_main(**{"archive-capture_time_limit": "60s"}),
    ),
    (
        "native-pipe",
        "recipient-limit",
        lambda h: h.set_main(**{"archive-capture_destination_recipient_limit": "0"}),
    ),
)


@pytest.mark.parametrize(
    ("running_host", "check", "plant_fault"),
    FIXABLE_FAULTS_OF_ONE_MODE,
    indirect=["running_host"],
    scope="module",
)
def test_a_fault_of_one_mode_that_can_be_repaired_is_named_and_repaired(
    host: Host, check: str, plant_fault: Callable[[Host], object]
) -> None:
    test_a_fault_that_can_be_repaired_is_named_and_repaired(host, check, plant_fault)


def explain(host: Host) -> str:
    """The first line of explain, for mail to the SMTP port."""
    command = [str(COMMAND), "-c", str(host.etc), "explain", "--from", "a@example.org"]
    command += ["--to", "bob@example.net", "--service"]
    command.append(f"127.0.0.1:{host.postfix.smtp_port}/inet")
    return subprocess.check_output(command, text=True).splitlines()[0]


def test_a_bypass_captures_nothing_and_what_is_queued_is_archived(host: Host) -> None:
    postfix = host.postfix
    assert explain(host).endswith(": legal@example.com")
    launchers = [
        postfix.program_directory / each for each in ("archive-lmtp", "archive-capture")
    ]
    for each in launchers:
        each.chmod(0)
    postfix.send(b"Subject: one\n\nx\n", to=["bob@example.net"])
    postfix.wait(lambda: len(postfix.delivered_to("bob@example.net")) == 1, "delivered")
    opened = postfix.run_command("bypass", "on", "--reason", "broken")
    assert opened.returncode == 0, opened.stderr
    assert explain(host).endswith(": not archived")
    postfix.send(b"Subject: two\n\nx\n", to=["bob@example.net"])
    postfix.wait(lambda: len(postfix.delivered_to("bob@example.net")) == 2, "delivered")
    for each in launchers:
        each.chmod(0o755)
    postfix.wait_for_empty_queue()
    assert len(postfix.stored_files()) == 1
    assert postfix.run_command("bypass", "off").returncode == 0
    postfix.send(b"Subject: three\n\nx\n", to=["bob@example.net"])
    postfix.wait_for_empty_queue()
    assert len(postfix.stored_files()) == 2
    events = [each["event"] for each in postfix.events()]
    assert [each for each in events if each != "mailed"][:3] == [
        "bypass-started",
        "archived",
        "bypass-ended",
    ]
