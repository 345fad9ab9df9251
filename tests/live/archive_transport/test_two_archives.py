"""Two archives are independent: one that is away costs the other nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mails import event_kinds, mail, record_of
from private_postfix import MODES_AND_CAPSULE, NATIVE_MODES, PrivatePostfix

pytestmark = pytest.mark.live
FIRST, SECOND = "first@example.com", "second@example.com"
COUNT = 5


@pytest.fixture(params=MODES_AND_CAPSULE)
def host(request: pytest.FixtureRequest) -> Iterator[PrivatePostfix]:
    """An instance with two archives."""
    with PrivatePostfix(mode=request.param, archive=f"{FIRST},{SECOND}") as running:
        yield running


def assert_each_has_all(host: PrivatePostfix) -> None:
    """Each archive has each message once, in the store and as mail."""
    for archive in (FIRST, SECOND):
        for number in range(COUNT):
            record = record_of(host, f"two-{number}", archive)
            assert event_kinds(record) == ["archived", "mailed"]
        assert len(host.delivered_to(archive)) == COUNT
    assert host.run_command("verify").returncode == 0


@pytest.mark.parametrize("away", [FIRST, SECOND])
def test_an_archive_that_is_away_delays_no_other_and_nothing_is_done_twice(
    host: PrivatePostfix, away: str
) -> None:
    [other] = {FIRST, SECOND} - {away}
    (host.store / away).symlink_to("/nonexistent")
    for number in range(COUNT):
        host.send(mail(f"two-{number}"), to=["bob@example.net", "a@example.net"])
    host.wait_for_empty_queue()
    for number in range(COUNT):
        record = record_of(host, f"two-{number}", other)
        assert event_kinds(record) == ["archived", "mailed"]
    assert len(host.delivered_to(other)) == COUNT
    assert not host.delivered_to(away)
    (host.store / away).unlink()
    assert host.run_command("fallback", "import").returncode == 0
    host.wait_for_empty_queue()
    assert_each_has_all(host)


@pytest.mark.parametrize("mode", NATIVE_MODES)
@pytest.mark.parametrize("away", [FIRST, SECOND])
def test_in_native_mode_an_archive_that_is_away_delays_no_other(
    mode: str, away: str
) -> None:
    """What it misses waits in the queue, not in the fallback directory."""
    [other] = {FIRST, SECOND} - {away}
    with PrivatePostfix(mode=mode, archive=f"{FIRST},{SECOND}") as host:
        (host.store / away).symlink_to("/nonexistent")
        for number in range(COUNT):
            host.send(mail(f"two-{number}"), to=["bob@example.net", "a@example.net"])
        host.wait(lambda: len(host.delivered_to(other)) == COUNT, "the other has all")
        host.wait(lambda: len(host.mailq()) == COUNT, "the captures wait")
        assert not host.delivered_to(away)
        (host.store / away).unlink()
        host.flush()
        host.wait_for_empty_queue()
        assert_each_has_all(host)
        assert len(host.delivered_to("bob@example.net")) == COUNT
