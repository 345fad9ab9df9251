"""Which queued messages need the former mode, and when a switch is one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.install import mode_switch
from postfix_archive.install.filter_routes import Setup
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.postfix.queued_message import QueuedMessage

from unit.hosts import config_after
from unit.install.test_native_plan import NATIVE, NATIVE_PIPE, host

PIPE, LMTP = (replace(NATIVE, mode=each) for each in ("pipe", "lmtp"))
CAPTURE = "capture.00.61.bob@example.net@archive-request.invalid"


def both_modes() -> Configuration:
    """Native mode while services of lmtp mode are still there."""
    native, lmtp = (config_after(host(), each) for each in (NATIVE, LMTP))
    services = {each.key: each for each in (*lmtp.services, *native.services)}
    return replace(native, services=tuple(services.values()))


@pytest.mark.parametrize(
    ("installed", "setup", "is_needed"),
    [
        (host(), NATIVE, False),
        (config_after(host(), NATIVE), NATIVE, False),
        (config_after(host(), LMTP), LMTP, False),
        (config_after(host(), LMTP), NATIVE, True),
        (config_after(host(), PIPE), NATIVE, True),
        (config_after(host(), NATIVE), PIPE, True),
        (config_after(host(), PIPE), LMTP, False),  # refused elsewhere
        (config_after(host(), NATIVE), NATIVE_PIPE, True),
        (config_after(host(), NATIVE_PIPE), NATIVE, True),
        (config_after(host(), NATIVE_PIPE), NATIVE_PIPE, False),
        (config_after(host(), LMTP), NATIVE_PIPE, True),
        (config_after(host(), NATIVE_PIPE), PIPE, True),
        (both_modes(), NATIVE, True),
    ],
)
def test_a_mode_is_switched_if_another_one_or_both_are_installed(
    installed: Configuration, setup: Setup, is_needed: bool
) -> None:
    assert mode_switch.is_needed(installed, setup) == is_needed


@pytest.mark.parametrize(
    ("content_filter", "recipients", "needs_filter", "needs_capture"),
    [
        ("archive-stamp:legal@example.com", ("bob@example.net",), True, False),
        ("archive-stamp-2:a@example.com", (CAPTURE,), True, False),
        ("", ("bob@example.net",), False, False),
        ("", ("bob@example.net", CAPTURE), False, True),
        ("smtp-amavis:[127.0.0.1]:10024", (CAPTURE,), False, True),
        ("archive:capsule", ("capsule@archive-request.invalid",), False, False),
    ],
)
def test_what_waits_for_the_former_mode(
    content_filter: str,
    recipients: tuple[str, ...],
    needs_filter: bool,
    needs_capture: bool,
) -> None:
    message = QueuedMessage("4Zx", 1, "a@example.org", recipients, (), content_filter)
    assert mode_switch.needs_stamp_filter(message) == needs_filter
    assert mode_switch.needs_capture_transport(message) == needs_capture
