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

from unit.hosts import (
    AMAVIS,
    HOSTS,
    REINJECTION_ENTRY,
    SETUP,
    STOCK_MASTER,
    config_after,
    make_config,
    plan,
)

LMTP = replace(SETUP, mode="lmtp")
TWO_ARCHIVES = "one@example.com,two@example.com"
SERVICES = (
    "submission inet n - n - - smtpd -o archive=one@example.com,two@example.com\n"
    "2525 inet n - n - - smtpd -o archive=$mine\n"
    "2526 inet n - n - - smtpd -o archive=\n"
    "2527 inet n - n - - smtpd -o archive=legal@example.com\n"
)


def sockets(config: Configuration) -> list[str]:
    """The names behind archive. of the workers' services."""
    workers = filter(archive_services.is_worker_service, config.services)
    return sorted(each.name.removeprefix("archive.") for each in workers)


def test_each_archive_that_is_named_has_a_worker() -> None:
    config = config_after(
        make_config({"mine": "mine@example.com"}, STOCK_MASTER + SERVICES), LMTP
    )
    assert sockets(config) == [
        "legal@example.com",
        "mine@example.com",
        "on-request",
        "one@example.com,two@example.com",
    ]
    for worker in filter(archive_services.is_worker_service, config.services):
        assert worker.argument("nexthop") == worker.name.removeprefix("archive.")
        assert worker.argument("argv") == f"{SETUP.launcher_directory}/archive-lmtp"


def test_mail_is_routed_to_the_socket_of_its_archive() -> None:
    config = config_after(
        make_config({}, STOCK_MASTER + SERVICES), replace(LMTP, on_request=True)
    )
    for key, archive in (
        ("smtp/inet", "legal@example.com"),
        ("submission/inet", "one@example.com,two@example.com"),
        ("2526/inet", "on-request"),
    ):
        leads = config.value("content_filter", config.service(key))
        assert leads == f"archive-stamp:unix:private/archive.{archive}"
        assert archive in sockets(config)
    routes = config.main["transport_maps"]
    assert "invalid=archive-stamp:unix:private/archive.on-request," in routes
    assert config.main["archive-stamp_destination_recipient_limit"] == "0"
    assert "archive-stamp_time_limit" not in config.main


@pytest.mark.parametrize("kind", HOSTS)
@pytest.mark.parametrize("on_request", [False, True])
def test_twice_is_the_same_as_once_and_the_mode_can_be_read(
    kind: str, on_request: bool
) -> None:
    assert archive_services.installed_mode(HOSTS[kind]) == ""
    setup = replace(LMTP, on_request=on_request)
    installed = config_after(HOSTS[kind], setup)
    assert plan(installed, setup) == ()
    assert archive_services.installed_mode(installed) == "lmtp"
    assert archive_services.installed_mode(config_after(HOSTS[kind])) == "pipe"


def test_an_archive_that_is_named_later_gets_its_worker_by_installing_again() -> None:
    installed = config_after(make_config(), LMTP)
    [change] = [
        each
        for each in plan(installed, replace(LMTP, archive="new@example.com"))
        if each.kind == "service"
    ]
    assert change.name == "archive.new@example.com/unix"
    assert change.before is None


def test_a_content_filter_comes_behind_the_archive() -> None:
    config = config_after(HOSTS["amavis"], LMTP)
    assert config.main["archive_next_filter"] == AMAVIS
    reinjection_service = config.service("127.0.0.1:10026/inet")
    assert config.value("content_filter", reinjection_service) == AMAVIS


def address_of_length(length: int) -> str:
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
        (address_of_length(91), ""),
        (address_of_length(92), "it has 92 characters, .* allows 91; .* or MODE=pipe"),
        (f"{address_of_length(45)},{address_of_length(45)}", ""),
        (
            f"{address_of_length(46)},{address_of_length(45)}",
            "the socket path allows 91;",
        ),
    ],
)
def test_an_archive_must_fit_the_path_of_a_socket(archive: str, refused: str) -> None:
    """A longer name in master.cf ends master(8): see test_lmtp_limits.py."""
    setup = replace(LMTP, archive=archive)
    if not refused:
        config = config_after(make_config(), setup)
        assert archive in sockets(config)
        names = [each.name for each in config.services]
        assert max(len(f"private/{name}") for name in names) == 107
        return
    with pytest.raises(InstallRefused, match=f"MODE=lmtp: archive = .*{refused}"):
        plan(make_config(), setup)


def test_the_socket_path_of_further_workers_allows_shorter_addresses() -> None:
    master = FURTHER_SERVICE.replace(TWO_ARCHIVES, address_of_length(90))
    with pytest.raises(
        InstallRefused, match="has 90 characters, the socket path allows 89"
    ):
        plan(
            make_config(
                {"content_filter": AMAVIS}, STOCK_MASTER + REINJECTION_ENTRY + master
            ),
            LMTP,
        )


FURTHER_SERVICE = (
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
    before = make_config(
        {"content_filter": AMAVIS}, STOCK_MASTER + REINJECTION_ENTRY + FURTHER_SERVICE
    )
    config = config_after(before, replace(LMTP, on_request=on_request))
    extra = ["archive-2.on-request"] if on_request else []
    assert sorted(
        e.name for e in filter(archive_services.is_worker_service, config.services)
    ) == sorted(
        [
            "archive.legal@example.com",
            "archive.three@example.com",
            "archive.on-request",
            "archive-2.legal@example.com",
            f"archive-2.{TWO_ARCHIVES}",
            *extra,
        ]
    )
    for worker in filter(archive_services.is_worker_service, config.services):
        is_further = worker.name.startswith("archive-2.")
        reinjection_address = worker.argument("handback-address")
        assert reinjection_address == ("127.0.0.1:10031" if is_further else "")
        assert worker.argument("nexthop") == worker.name.partition(".")[2]
        if is_further:
            port = config.service(f"{reinjection_address}/inet")
            assert config.value("content_filter", port) == "dk:[::1]:99"


@pytest.mark.parametrize(
    ("key", "nexthop"),
    [
        ("smtp/inet", ":unix:private/archive.legal@example.com"),
        ("submission/inet", "-2:unix:private/archive-2.legal@example.com"),
        ("2525/inet", f"-2:unix:private/archive-2.{TWO_ARCHIVES}"),
        ("2526/inet", ":unix:private/archive.three@example.com"),
        ("2527/inet", "dk:[::1]:99"),
    ],
)
def test_each_service_routes_to_the_workers_of_its_filter(
    key: str, nexthop: str
) -> None:
    before = make_config(
        {"content_filter": AMAVIS}, STOCK_MASTER + REINJECTION_ENTRY + FURTHER_SERVICE
    )
    config = config_after(before, LMTP)
    leads = config.value("content_filter", config.service(key))
    assert leads.removeprefix("archive-stamp") == nexthop
    if name := nexthop.partition("private/")[2]:
        assert config.service(f"{name}/unix") is not None
    client = config.service("archive-stamp-2/unix")
    assert client is not None and archive_services.is_lmtp_client(client)
    for limit, value in filter_routes.TRANSPORT_LIMITS["lmtp"]:
        assert config.main[f"archive-stamp-2_{limit}"] == value


def test_a_foreign_service_with_the_name_of_a_worker_is_refused() -> None:
    foreign_service = "archive.legal@example.com unix - n n - - pipe user=bob argv=/x\n"
    with pytest.raises(InstallRefused, match="does not belong to postfix-archive"):
        plan(make_config({}, STOCK_MASTER + foreign_service), LMTP)


@pytest.mark.parametrize(
    ("relay", "is_ours"),
    [
        ("archive-stamp", True),
        ("archive-stamp-2", True),
        ("archive-capture", True),
        ("mail.example.com[private/archive.legal@example.com]", True),
        ("mail.example.com[private/archive-2.legal@example.com]", True),
        ("mail.example.com[private/archive-lmtp]", False),
        ("mail.example.com[private/archive-old.box]", False),
        ("mail.example.com[private/dovecot-lmtp]", False),
    ],
)
def test_the_log_is_read_alike_for_all_workers(relay: str, is_ours: bool) -> None:
    assert delivery.is_stamp_filter(relay) == is_ours
    assert (
        delivery.can_name_stamp_filter(f"to=<a@b>, relay={relay}, delay=1")
        or not is_ours
    )


def test_the_doctor_knows_the_time_limit_of_a_worker() -> None:
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
