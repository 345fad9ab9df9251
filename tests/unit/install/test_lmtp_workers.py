"""Claims about MODE=lmtp: a worker for each archive, and where that cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.errors import InstallRefused
from postfix_archive.install import filter_routes
from postfix_archive.intake import lmtp_worker
from postfix_archive.maillog import delivery
from postfix_archive.postfix import archive_services, lmtp_services
from postfix_archive.postfix.configuration import Configuration

from unit.hosts import AMAVIS, BACK, KINDS, STOCK, WISH, after, host, plan

LMTP = replace(WISH, mode="lmtp")
PAIR = "one@example.com,two@example.com"
SERVICES = (
    "submission inet n - n - - smtpd -o archive=one@example.com,two@example.com\n"
    "2525 inet n - n - - smtpd -o archive=$mine\n"
    "2526 inet n - n - - smtpd -o archive=\n"
    "2527 inet n - n - - smtpd -o archive=legal@example.com\n"
)


def sockets(found: Configuration) -> list[str]:
    """The names behind archive. of the workers' services."""
    ours = filter(archive_services.is_worker_service, found.services)
    return sorted(each.name.removeprefix("archive.") for each in ours)


def test_each_archive_that_is_named_has_a_worker() -> None:
    found = after(host({"mine": "mine@example.com"}, STOCK + SERVICES), LMTP)
    assert sockets(found) == [
        "legal@example.com",
        "mine@example.com",
        "on-request",
        "one@example.com,two@example.com",
    ]
    for each in filter(archive_services.is_worker_service, found.services):
        assert each.argument("nexthop") == each.name.removeprefix("archive.")
        assert each.argument("argv") == f"{WISH.launcher_directory}/archive-lmtp"


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_request", [False, True])
def test_twice_is_the_same_as_once_and_the_mode_can_be_read(
    kind: str, on_request: bool
) -> None:
    assert archive_services.installed_mode(KINDS[kind]) == ""
    wish = replace(LMTP, on_request=on_request)
    once = after(KINDS[kind], wish)
    assert plan(once, wish) == ()
    assert archive_services.installed_mode(once) == "lmtp"
    assert archive_services.installed_mode(after(KINDS[kind])) == "pipe"


def test_an_archive_that_is_named_later_gets_its_worker_by_installing_again() -> None:
    once = after(host(), LMTP)
    [change] = [
        each
        for each in plan(once, replace(LMTP, archive="new@example.com"))
        if each.kind == "service"
    ]
    assert change.name == "archive.new@example.com/unix"
    assert change.before is None


def test_a_content_filter_comes_behind_the_archive() -> None:
    found = after(KINDS["amavis"], LMTP)
    assert found.main["archive_next_filter"] == AMAVIS
    back = found.service("127.0.0.1:10026/inet")
    assert found.value("content_filter", back) == AMAVIS


def address(length: int) -> str:
    """An address of so many characters."""
    return "x" * (length - len("@example.com")) + "@example.com"


@pytest.mark.parametrize("archive", ["a=b@example.com", "a#b@example.com", "é@x.org"])
def test_an_archive_that_cannot_be_the_name_of_a_service_is_refused(
    archive: str,
) -> None:
    with pytest.raises(InstallRefused, match="only letters, digits .* MODE=pipe"):
        lmtp_services.check_archive(archive, 1)


@pytest.mark.parametrize(
    ("archive", "refused"),
    [
        (address(91), ""),
        (address(92), "it has 92 characters, .* allows 91; .* or MODE=pipe"),
        (f"{address(45)},{address(45)}", ""),
        (f"{address(46)},{address(45)}", "the socket path allows 91;"),
    ],
)
def test_an_archive_must_fit_the_path_of_a_socket(archive: str, refused: str) -> None:
    """A longer name in master.cf ends master(8): see test_lmtp_limits.py."""
    wish = replace(LMTP, archive=archive)
    if not refused:
        found = after(host(), wish)
        assert archive in sockets(found)
        names = [each.name for each in found.services]
        assert max(len(f"private/{name}") for name in names) == 107
        return
    with pytest.raises(InstallRefused, match=f"MODE=lmtp: archive = .*{refused}"):
        plan(host(), wish)


def test_on_a_further_way_there_is_a_little_less_room() -> None:
    master = FURTHER.replace(PAIR, address(90))
    with pytest.raises(
        InstallRefused, match="has 90 characters, the socket path allows 89"
    ):
        plan(host({"content_filter": AMAVIS}, STOCK + BACK + master), LMTP)


FURTHER = (
    "submission inet n - n - - smtpd -o content_filter=dk:[::1]:99\n"
    "2525 inet n - n - - smtpd -o content_filter=dk:[::1]:99"
    " -o archive=one@example.com,two@example.com\n"
    "2526 inet n - n - - smtpd -o archive=three@example.com\n"
    "2527 inet n - n - - smtpd -o content_filter=dk:[::1]:99 -o archive=\n"
)


@pytest.mark.parametrize("on_request", [False, True])
def test_services_with_a_filter_of_their_own_have_workers_of_their_own(
    on_request: bool,
) -> None:
    before = host({"content_filter": AMAVIS}, STOCK + BACK + FURTHER)
    found = after(before, replace(LMTP, on_request=on_request))
    extra = ["archive-2.on-request"] if on_request else []
    assert sorted(
        e.name for e in filter(archive_services.is_worker_service, found.services)
    ) == sorted(
        [
            "archive.legal@example.com",
            "archive.three@example.com",
            "archive.on-request",
            "archive-2.legal@example.com",
            f"archive-2.{PAIR}",
            *extra,
        ]
    )
    for each in filter(archive_services.is_worker_service, found.services):
        further = each.name.startswith("archive-2.")
        back = each.argument("handback-address")
        assert back == ("127.0.0.1:10031" if further else "")
        assert each.argument("nexthop") == each.name.partition(".")[2]
        if further:
            port = found.service(f"{back}/inet")
            assert found.value("content_filter", port) == "dk:[::1]:99"


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("smtp/inet", ":unix:private/archive.legal@example.com"),
        ("submission/inet", "-2:unix:private/archive-2.legal@example.com"),
        ("2525/inet", f"-2:unix:private/archive-2.{PAIR}"),
        ("2526/inet", ":unix:private/archive.three@example.com"),
        ("2527/inet", "dk:[::1]:99"),
    ],
)
def test_each_service_leads_to_the_workers_of_its_way(key: str, asked: str) -> None:
    before = host({"content_filter": AMAVIS}, STOCK + BACK + FURTHER)
    found = after(before, LMTP)
    leads = found.value("content_filter", found.service(key))
    assert leads.removeprefix("archive-stamp") == asked
    if name := asked.partition("private/")[2]:
        assert found.service(f"{name}/unix") is not None
    client = found.service("archive-stamp-2/unix")
    assert client is not None and archive_services.is_lmtp_client(client)
    for limit, value in filter_routes.TRANSPORT_LIMITS["lmtp"]:
        assert found.main[f"archive-stamp-2_{limit}"] == value


def test_a_stranger_with_the_name_of_a_worker_is_refused() -> None:
    stranger = "archive.legal@example.com unix - n n - - pipe user=bob argv=/x\n"
    with pytest.raises(InstallRefused, match="does not belong to postfix-archive"):
        plan(host({}, STOCK + stranger), LMTP)


@pytest.mark.parametrize(
    ("relay", "is_ours"),
    [
        ("archive-stamp", True),
        ("archive-stamp-2", True),
        ("mail.example.com[private/archive.legal@example.com]", True),
        ("mail.example.com[private/archive-2.legal@example.com]", True),
        ("mail.example.com[private/archive-lmtp]", False),
        ("mail.example.com[private/archive-old.box]", False),
        ("mail.example.com[private/dovecot-lmtp]", False),
    ],
)
def test_the_log_is_read_alike_for_every_way(relay: str, is_ours: bool) -> None:
    assert delivery.is_stamp_filter(relay) == is_ours
    assert (
        delivery.can_name_stamp_filter(f"to=<a@b>, relay={relay}, delay=1")
        or not is_ours
    )


def test_the_doctor_knows_how_long_a_worker_lives() -> None:
    assert lmtp_services.WORKER_LIFETIME == lmtp_worker.LIFETIME


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("archive.legal@example.com", True),
        ("archive-2.on-request", True),
        ("archive-12.a@x.org,b@x.org", True),
        ("archive", False),
        ("archive-stamp", False),
        ("archive-cleanup", False),
        ("archive-x.a@x.org", False),
        ("archives.a@x.org", False),
    ],
)
def test_sockets_of_workers_are_known_by_their_names(name: str, is_one: bool) -> None:
    assert archive_services.is_worker_socket(name) == is_one
