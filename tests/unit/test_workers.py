"""Claims about MODE=lmtp: a worker for each archive, and where that cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.core import doors, ways
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import InstallRefused

from unit.hosts import AMAVIS, KINDS, STOCK, WISH, after, host, plan

LMTP = replace(WISH, mode="lmtp")
SERVICES = (
    "submission inet n - n - - smtpd -o archive=one@example.com,two@example.com\n"
    "2525 inet n - n - - smtpd -o archive=$mine\n"
    "2526 inet n - n - - smtpd -o archive=\n"
    "2527 inet n - n - - smtpd -o archive=legal@example.com\n"
)


def sockets(found: Configuration) -> list[str]:
    """The names behind archive. of the workers' services."""
    ours = filter(doors.is_worker, found.services)
    return sorted(each.name.removeprefix("archive.") for each in ours)


def test_each_archive_that_is_named_has_a_worker() -> None:
    found = after(host({"mine": "mine@example.com"}, STOCK + SERVICES), LMTP)
    assert sockets(found) == [
        "legal@example.com",
        "mine@example.com",
        "on-request",
        "one@example.com,two@example.com",
    ]
    for each in filter(doors.is_worker, found.services):
        assert each.argument("nexthop") == each.name.removeprefix("archive.")
        assert each.argument("argv") == f"{WISH.program}/archive-lmtp"


def test_mail_is_led_to_the_socket_of_its_archive() -> None:
    found = after(host({}, STOCK + SERVICES), replace(LMTP, on_request=True))
    for key, asked in (
        ("smtp/inet", "legal@example.com"),
        ("submission/inet", "one@example.com,two@example.com"),
        ("2526/inet", "on-request"),
    ):
        leads = found.value("content_filter", found.service(key))
        assert leads == f"archive-stamp:unix:private/archive.{asked}"
        assert asked in sockets(found)
    routes = found.main["transport_maps"]
    assert "invalid=archive-stamp:unix:private/archive.on-request," in routes
    assert found.main["archive-stamp_destination_recipient_limit"] == "0"
    assert "archive-stamp_time_limit" not in found.main


@pytest.mark.parametrize("kind", ["stock", "amavis", "maps", "mapped elsewhere"])
@pytest.mark.parametrize("on_request", [False, True])
def test_twice_is_the_same_as_once_and_the_mode_can_be_read(
    kind: str, on_request: bool
) -> None:
    assert ways.mode(KINDS[kind]) == ""
    wish = replace(LMTP, on_request=on_request)
    once = after(KINDS[kind], wish)
    assert plan(once, wish) == ()
    assert ways.mode(once) == "lmtp"
    assert ways.mode(after(KINDS[kind])) == "pipe"


def test_an_archive_that_is_named_later_gets_its_worker_by_installing_again() -> None:
    once = after(host(), LMTP)
    [change] = [
        each
        for each in plan(once, replace(LMTP, archive="new@example.com"))
        if each.where == "service"
    ]
    assert change.name == "archive.new@example.com/unix"
    assert change.before is None


def test_a_content_filter_comes_behind_the_archive() -> None:
    found = after(KINDS["amavis"], LMTP)
    assert found.main["archive_next_filter"] == AMAVIS
    back = found.service("127.0.0.1:10026/inet")
    assert found.value("content_filter", back) == AMAVIS


@pytest.mark.parametrize(
    "archive", ["a=b@example.com", "a#b@example.com", "x" * 92 + "@example.com"]
)
def test_an_archive_that_cannot_be_the_name_of_a_service_is_refused(
    archive: str,
) -> None:
    with pytest.raises(InstallRefused, match="MODE=lmtp: archive = .* MODE=pipe"):
        plan(host(), replace(LMTP, archive=archive))


def test_further_ways_are_refused() -> None:
    with pytest.raises(InstallRefused, match="only MODE=pipe has"):
        plan(KINDS["submission"], LMTP)


def test_a_stranger_with_the_name_of_a_worker_is_refused() -> None:
    stranger = "archive.legal@example.com unix - n n - - pipe user=bob argv=/x\n"
    with pytest.raises(InstallRefused, match="that is not ours"):
        plan(host({}, STOCK + stranger), LMTP)
