"""The plan of a native mode: every message is captured once, or the host is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.errors import InstallRefused
from postfix_archive.install import install_plan
from postfix_archive.install.filter_routes import Setup
from postfix_archive.postfix import archive_services, capture_maps
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

NATIVE, NATIVE_PIPE = (
    replace(SETUP, mode=each) for each in archive_services.NATIVE_MODES
)
LEGAL = "legal@example.com"
CLEANUP = "cleanup unix n - y - 0 cleanup\n"
SUBMISSION_CLEANUP = "sub-cleanup unix n - y - 0 cleanup -o header_checks=pcre:/x\n"
UNLIMITED = {"smtp-amavis_destination_recipient_limit": "0"}
NO_MAPPINGS = "receive_override_options=no_address_mappings"
FILTERED = {"content_filter": AMAVIS, **UNLIMITED}


def host(main: dict[str, str] | None = None, master: str = "") -> Configuration:
    return make_config(
        {"config_directory": "/etc/postfix", **(main or {})},
        STOCK_MASTER + CLEANUP + master,
    )


def captures(config: Configuration) -> dict[str, str]:
    """What each receiving service's mail is captured to, by name/type."""
    services = archive_services.receiving_services(config)
    maps = {each.key: capture_maps.map_of(config, each) for each in services}
    return {
        key: capture_maps.value_of(config, path) if path else ""
        for key, path in maps.items()
    }


SERVICES = (
    SUBMISSION_CLEANUP
    + "2525 inet n - n - - smtpd -o archive=a@example.com,b@example.com\n"
    "2526 inet n - n - - smtpd -o archive=\n"
    "2527 inet n - n - - smtpd -o archive=$mine -o cleanup_service_name=sub-cleanup\n"
    "2528 inet n - n - - smtpd -o archive=legal@example.com\n"
)


def test_every_service_is_captured_to_its_archive() -> None:
    before = host({"mine": "mine@example.com"}, SERVICES)
    config = config_after(before, NATIVE)
    assert captures(config) == {
        "smtp/inet": LEGAL,
        "pickup/unix": LEGAL,
        "2525/inet": "a@example.com,b@example.com",
        "2526/inet": "",
        "2527/inet": "mine@example.com",
        "2528/inet": LEGAL,
    }
    own = config.service("archive-sub-cleanup.mine@example.com/unix")
    assert own is not None and own.options["header_checks"] == "pcre:/x"
    assert config.value("content_filter") == ""
    assert "content_filter" not in config.main
    assert install_plan.map_values(before, NATIVE) == {
        "archive-capture": LEGAL,
        "archive-capture.a@example.com:b@example.com": "a@example.com,b@example.com",
        "archive-capture.mine@example.com": "mine@example.com",
    }


def test_on_request_captures_what_has_no_archive_of_its_own() -> None:
    setup = replace(NATIVE, on_request=True)
    config = config_after(host({}, SERVICES.replace("$mine", "")), setup)
    assert (
        captures(config)["2526/inet"] == captures(config)["2527/inet"] == "on-request"
    )
    assert captures(config)["smtp/inet"] == LEGAL
    assert capture_maps.is_on_request(config)
    assert not capture_maps.is_on_request(config_after(host(), NATIVE))
    alone = config_after(host(), replace(setup, archive=""))
    assert captures(alone)["smtp/inet"] == "on-request"


def test_a_bypass_captures_nothing_and_uses_the_cleanup_of_before() -> None:
    config = config_after(host({"mine": "mine@example.com"}, SERVICES), NATIVE)
    bypassed = replace(config, main={**config.main, "archive_bypass": "yes"})
    assert set(captures(bypassed).values()) == {""}
    service = bypassed.service("2527/inet")
    assert bypassed.value("cleanup_service_name", service) == "sub-cleanup"


@pytest.mark.parametrize("mode", archive_services.NATIVE_MODES)
@pytest.mark.parametrize("on_request", [False, True])
def test_twice_is_the_same_as_once_and_the_mode_can_be_read(
    on_request: bool, mode: str
) -> None:
    setup = replace(NATIVE, on_request=on_request, mode=mode)
    for config in (
        host({"mine": "mine@example.com"}, SERVICES),
        host(FILTERED, REINJECTION_ENTRY),
        host(
            {**FILTERED, "receive_override_options": "no_address_mappings"},
            REINJECTION_ENTRY,
        ),
    ):
        installed = config_after(config, setup)
        assert plan(installed, setup) == ()
        assert archive_services.installed_mode(installed) == mode


def test_native_pipe_differs_by_its_transport_alone() -> None:
    """The services that capture are the same; pipe(8) has no workers."""
    before = host({"mine": "mine@example.com"}, SERVICES)
    workers, processes = (config_after(before, e) for e in (NATIVE, NATIVE_PIPE))
    assert {each.key for each in workers.services} - {
        each.key for each in processes.services
    } == {"archive.capture/unix"}
    assert {
        each.key for each in processes.services if workers.service(each.key) != each
    } == {"archive-capture/unix"}
    assert {
        name
        for name in {**workers.main, **processes.main}
        if workers.main.get(name) != processes.main.get(name)
    } == {
        "transport_maps",
        "archive-capture_destination_recipient_limit",
        "archive-capture_destination_concurrency_limit",
        "archive-capture_time_limit",
    }
    assert captures(workers) == captures(processes)
    assert install_plan.map_values(before, NATIVE) == install_plan.map_values(
        before, NATIVE_PIPE
    )


def test_pipe_passes_envid_where_postfix_has_it() -> None:
    """From Postfix 3.9 on."""
    newer = replace(host(), parameters={**host().parameters, "mail_version": "3.9.1"})
    for config, has_envid in ((host(), False), (newer, True)):
        service = config_after(config, NATIVE_PIPE).service("archive-capture/unix")
        assert service is not None
        assert ("--envid ${envid}" in service.command) == has_envid


def test_mail_is_captured_only_after_all_is_ready() -> None:
    changes = plan(host({"mine": "m@example.com"}, SERVICES), NATIVE)
    routes_mail = [each.routes_mail for each in changes]
    assert routes_mail == sorted(routes_mail)
    assert {each.name for each in changes if each.routes_mail} == {
        "archive",
        "recipient_bcc_maps",
        *(f"{port}/inet/cleanup_service_name" for port in (2525, 2526, 2527)),
    }


def test_what_a_filter_gives_back_is_captured_once() -> None:
    """Where addresses are mapped first: before the filter, or behind it."""
    first = config_after(host(FILTERED, REINJECTION_ENTRY), NATIVE)
    assert captures(first)["smtp/inet"] == LEGAL
    assert captures(first)["127.0.0.1:10025/inet"] == ""
    later = config_after(
        host(
            {**FILTERED, "receive_override_options": "no_address_mappings"},
            REINJECTION_ENTRY,
        ),
        NATIVE,
    )
    assert captures(later)["smtp/inet"] == ""
    assert captures(later)["127.0.0.1:10025/inet"] == LEGAL
    neither = REINJECTION_ENTRY.replace("no_header", "no_address_mappings,no_header")
    config = config_after(host(FILTERED, neither), NATIVE)
    assert captures(config)["smtp/inet"] == LEGAL


def test_what_a_filter_gives_back_by_sendmail_is_captured_before_it() -> None:
    config = HOSTS["simple filter"]
    main = {**host().main, "filter_destination_recipient_limit": "0"}
    cleanup = host().service("cleanup/unix")
    assert cleanup is not None
    config = replace(config, main=main, services=(*config.services, cleanup))
    installed = config_after(config, NATIVE)
    assert captures(installed) == {"smtp/inet": LEGAL, "pickup/unix": ""}


def test_clients_may_not_address_capture_recipients_but_filters_may() -> None:
    config = config_after(host(FILTERED, REINJECTION_ENTRY), NATIVE)
    name = "smtpd_recipient_restrictions"
    check = archive_services.REQUEST_DOMAIN_CHECK
    assert check in config.value(name, config.service("smtp/inet"))
    assert check not in config.value(name, config.service("127.0.0.1:10025/inet"))


REFUSED = {
    "a bcc map": (host({"recipient_bcc_maps": "hash:/x"}), "one result of it"),
    "a bcc map of a cleanup service": (
        host({}, SUBMISSION_CLEANUP.replace("header_checks", "recipient_bcc_maps")),
        "one result of it",
    ),
    "a filter with a limit": (
        host({"content_filter": AMAVIS}, REINJECTION_ENTRY),
        "smtp-amavis_destination_recipient_limit = 2000",
    ),
    "a filter without nexthop": (
        host({"content_filter": "dk:", "dk_destination_recipient_limit": "0"}),
        "give it one",
    ),
    "no mapping": (host({}, f"2525 inet n - n - - smtpd -o {NO_MAPPINGS}\n"), "2525"),
    "no mapping behind a filter either": (
        host(
            {**FILTERED, "receive_override_options": "no_address_mappings"},
            REINJECTION_ENTRY.replace("no_header", "no_address_mappings,no_header"),
        ),
        "must map there",
    ),
    "mapped before and behind": (
        host(
            FILTERED, f"2525 inet n - n - - smtpd -o {NO_MAPPINGS}\n{REINJECTION_ENTRY}"
        ),
        "must map there",
    ),
    "another archive behind": (
        host(
            {**FILTERED, "receive_override_options": "no_address_mappings"},
            f"2525 inet n - n - - smtpd -o archive=a@example.com\n{REINJECTION_ENTRY}",
        ),
        "the same archive",
    ),
    "none behind": (
        host(
            {**FILTERED, "receive_override_options": "no_address_mappings"},
            f"2525 inet n - n - - smtpd -o archive=\n{REINJECTION_ENTRY}",
        ),
        "the same archive",
    ),
    "an archive that is no name": (
        host({}, "2525 inet n - n - - smtpd -o archive=a#b@example.com\n"),
        "only letters, digits",
    ),
    "a long archive": (
        host({}, f"2525 inet n - n - - smtpd -o archive={'x' * 80}@example.com\n"),
        "the socket path allows",
    ),
}


@pytest.mark.parametrize("setup", [NATIVE, NATIVE_PIPE])
@pytest.mark.parametrize("kind", REFUSED)
def test_a_host_whose_mail_would_be_captured_twice_or_not_at_all_is_refused(
    kind: str, setup: Setup
) -> None:
    config, reason = REFUSED[kind]
    with pytest.raises(InstallRefused, match=reason) as refused:
        plan(config, setup)
    assert "MODE=" in str(refused.value)
