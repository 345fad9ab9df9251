"""The plan of an installation, for hosts of many kinds; twice is the same as once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.errors import InstallRefused
from postfix_archive.install import filter_routes, install_plan
from postfix_archive.postfix import archive_services, configuration

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

TRANSPORT_TABLE = filter_routes.transport_table("pipe")
FILTER_SETTINGS = (
    "${archive_bypass?{$archive_next_filter}"
    ":{${archive?{archive-stamp:$archive}:{$archive_next_filter}}}}"
)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("on_request", [False, True])
@pytest.mark.parametrize("kind", HOSTS)
def test_twice_is_the_same_as_once(kind: str, on_request: bool, position: str) -> None:
    config = HOSTS[kind]
    setup = replace(SETUP, on_request=on_request, position=position)
    if position == "after" and REINJECTION_ENTRY.split()[0] not in str(config.services):
        with pytest.raises(InstallRefused):
            plan(config, setup)
        return
    installed = config_after(config, setup)
    assert plan(installed, setup) == ()


def test_mail_is_routed_to_the_filter_only_after_all_is_ready() -> None:
    routes_mail = [each.routes_mail for each in plan(make_config())]
    assert routes_mail == sorted(routes_mail)
    assert {each.name for each in plan(make_config()) if each.routes_mail} == {
        "archive",
        "content_filter",
        "receive_override_options",
    }


def test_a_content_filter_comes_behind_the_archive() -> None:
    config = config_after(HOSTS["amavis"])
    assert config.main["content_filter"] == FILTER_SETTINGS
    assert config.main["archive_next_filter"] == AMAVIS
    reinjection_service = config.service("127.0.0.1:10026/inet")
    assert config.value("content_filter", reinjection_service) == AMAVIS
    reinjection = config.service("127.0.0.1:10025/inet")
    assert config.value("content_filter", reinjection) == ""


def test_without_a_request_a_service_keeps_its_filter() -> None:
    config = config_after(HOSTS["submission"])
    for key, content_filter in (
        ("smtp/inet", AMAVIS),
        ("submission/inet", "dk:[::1]:99"),
    ):
        service = config.service(key)
        assert service is not None
        service = replace(service, options={**service.options, "archive": ""})
        assert config.value("content_filter", service) == content_filter
        assert config.value("receive_override_options", service) == ""


def test_a_filter_of_one_service_gets_a_reinjection_port_of_its_own() -> None:
    config = config_after(HOSTS["submission"])
    submission = config.service("submission/inet")
    value = config.value("content_filter", submission)
    assert value == "archive-stamp-2:legal@example.com"
    stamp = config.service("archive-stamp-2/unix")
    assert stamp is not None
    assert "--handback-address 127.0.0.1:10031 " in stamp.command
    assert "--refused-address 127.0.0.1:10032 -- " in stamp.command
    for port in (10031, 10032):
        reinjection_service = config.service(f"127.0.0.1:{port}/inet")
        assert config.value("content_filter", reinjection_service) == "dk:[::1]:99"
        assert "no_address" not in config.value(
            "receive_override_options", reinjection_service
        )


def test_who_maps_addresses_elsewhere_does_so_still() -> None:
    config = config_after(HOSTS["mapped elsewhere"])
    assert config.main["receive_override_options"] == "no_address_mappings"
    reinjection_service = config.service("127.0.0.1:10026/inet")
    assert "no_address_mappings" in config.value(
        "receive_override_options", reinjection_service
    )


def test_a_signing_milter_sees_the_headers_that_are_delivered() -> None:
    config = config_after(HOSTS["signing milter"])
    assert "no_address_mappings" not in config.value("receive_override_options")
    for key in ("smtp/inet", "pickup/unix"):
        service = config.service(key)
        assert config.value("cleanup_service_name", service) == "archive-first-cleanup"
    first = config.service("archive-first-cleanup/unix")
    last = config.service("archive-cleanup/unix")
    assert first is not None and last is not None
    assert first.options["header_checks"] == "pcre:/etc/postfix/header_checks"
    assert first.options["virtual_alias_maps"] == first.options["always_bcc"] == ""
    assert first.options["canonical_classes"] == "header_sender,header_recipient"
    assert last.options["canonical_classes"] == "envelope_sender,envelope_recipient"
    assert last.options["masquerade_classes"] == "envelope_sender"
    bypassed = replace(config, main={**config.main, "archive_bypass": "yes"})
    service = bypassed.service("smtp/inet")
    assert bypassed.value("cleanup_service_name", service) == "cleanup"


def test_without_milters_or_header_tables_all_is_mapped_at_the_last_hop() -> None:
    config = config_after(HOSTS["signing milter"])
    main = {**config.main, "smtpd_milters": ""}
    config = config_after(replace(config, main=main))
    assert "no_address_mappings" in config.value("receive_override_options")
    service = config.service("smtp/inet")
    assert config.value("cleanup_service_name", service) == "cleanup"
    last = config.service("archive-cleanup/unix")
    assert last is not None and "canonical_classes" not in last.options


def test_a_table_without_classes_of_a_hop_is_turned_off_there() -> None:
    before = HOSTS["signing milter"]
    main = {**before.main, "canonical_classes": "header_sender"}
    config = config_after(replace(before, main=main))
    last = config.service("archive-cleanup/unix")
    assert last is not None and last.options["canonical_maps"] == ""


@pytest.mark.parametrize("on_request", [False, True])
def test_an_admin_who_maps_at_the_first_hop_does_so_still(on_request: bool) -> None:
    setup = replace(SETUP, on_request=on_request)
    config = config_after(HOSTS["stock"], setup)
    options = "no_unknown_recipient_checks,no_milters,no_address_mappings"
    main = {"receive_override_options": "", "archive_handback_options": options}
    changed = replace(config, main={**config.main, **main})
    assert plan(changed, setup) == ()


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
def test_a_port_whose_mail_is_mapped_behind_the_filter_has_its_own_route(
    mode: str,
) -> None:
    config = config_after(
        HOSTS["mapped elsewhere from one port"], replace(SETUP, mode=mode)
    )
    name = config.value("content_filter", config.service("smtp/inet"))
    assert name.startswith("archive-stamp-2:")
    second = config.service("127.0.0.1:10031/inet")
    assert second is not None
    assert second.options["content_filter"] == AMAVIS
    assert "no_address_mappings" in second.options["receive_override_options"]
    pickup = config.service("pickup/unix")
    assert config.value("content_filter", pickup).startswith("archive-stamp:")


def test_after_the_filter_only_its_reinjection_port_is_archived() -> None:
    config = config_after(HOSTS["amavis"], replace(SETUP, position="after"))
    assert config.main["content_filter"] == AMAVIS
    reinjection = config.service("127.0.0.1:10025/inet")
    value = config.value("content_filter", reinjection)
    assert value == "archive-stamp:legal@example.com"
    reinjection_service = config.service("127.0.0.1:10026/inet")
    assert config.value("content_filter", reinjection_service) == ""


def test_other_transport_maps_come_after_ours() -> None:
    routes = configuration.split_list(
        config_after(HOSTS["maps"]).main["transport_maps"]
    )
    assert routes[0].startswith("inline:{archive-request.invalid=archive-stamp:")
    assert routes[1:] == ["hash:/etc/postfix/transport", "pcre:/x"]


def test_a_filter_that_gives_back_by_sendmail_makes_no_loop() -> None:
    config = config_after(HOSTS["simple filter"])
    pickup = config.service("pickup/unix")
    behind = config.service("127.0.0.1:10026/inet")
    assert config.value("content_filter", behind) == ""
    smtp = config.service("smtp/inet")
    assert config.value("content_filter", smtp) == "archive-stamp-2:legal@example.com"
    assert config.value("content_filter", pickup) == ""
    assert config.value("receive_override_options", pickup) == ""


def test_archiving_on_request_can_be_turned_off_again() -> None:
    for kind, config in HOSTS.items():
        on_request = config_after(config, replace(SETUP, on_request=True))
        assert (
            config_after(on_request, SETUP).main == config_after(config, SETUP).main
        ), kind


def test_newer_postfix_passes_the_envelope_id() -> None:
    config = replace(make_config(), parameters={"mail_version": "3.9-20240101"})
    stamp = config_after(config).service("archive-stamp/unix")
    assert stamp is not None and "--envid ${envid} --" in stamp.command


def test_a_tuned_process_limit_stays() -> None:
    config = config_after(make_config())
    tuned = [
        (
            replace(
                service,
                fields=(*service.fields[:4], "30"),
                line=service.line.replace(" 10 ", " 30 "),
            )
            if service.name == "archive-stamp"
            else service
        )
        for service in config.services
    ]
    assert plan(replace(config, services=tuple(tuned))) == ()


@pytest.mark.parametrize(
    ("line", "service"),
    [
        ("archive unix - n n - - pipe user=bob argv=/usr/bin/vault", "archive/unix"),
        ("archive-cleanup unix n - n - 0 cleanup", "archive-cleanup/unix"),
        ("127.0.0.1:10028 inet n - n - - smtpd", "127.0.0.1:10028/inet"),
    ],
)
def test_a_foreign_service_with_our_name_or_port_is_refused(
    line: str, service: str
) -> None:
    with pytest.raises(InstallRefused, match=service.replace(".", r"\.")):
        plan(make_config({}, f"{STOCK_MASTER}{line}\n"))
    assert archive_services.is_installed(config_after(make_config()))


def test_every_change_can_be_taken_back() -> None:
    for change in plan(HOSTS["submission"]):
        assert change.inverse.inverse == change
        assert change.inverse.after == change.before


def test_a_port_that_takes_nothing_back_is_archived() -> None:
    config = config_after(HOSTS["a port without a filter"])
    port = config.service("127.0.0.1:2600/inet")
    assert config.value("content_filter", port) == "archive-stamp:legal@example.com"


@pytest.mark.parametrize(
    ("value", "remaining"),
    [
        (TRANSPORT_TABLE, ""),
        (f"{TRANSPORT_TABLE}, hash:/mine", "hash:/mine"),
        (f"hash:/mine {TRANSPORT_TABLE}", "hash:/mine"),
        (
            f"{archive_services.REQUEST_DOMAIN_CHECK},permit_mynetworks reject",
            "permit_mynetworks reject",
        ),
        ("permit, check_recipient_access inline:{x=OK}, reject", None),
    ],
)
def test_what_is_ours_can_be_taken_out_of_a_list(
    value: str, remaining: str | None
) -> None:
    assert archive_services.remove_own_elements(value) == (
        value if remaining is None else remaining
    )


@pytest.mark.parametrize("kind", HOSTS)
@pytest.mark.parametrize("position", ["before", "after"])
def test_position_and_ports_can_be_read_from_what_is_installed(
    kind: str, position: str
) -> None:
    config = HOSTS[kind]
    assert install_plan.installed_position(config) == ""
    assert install_plan.installed_first_port(config) == 0
    if position == "after" and REINJECTION_ENTRY.split()[0] not in str(config.services):
        return
    installed = config_after(config, replace(SETUP, position=position, port=10126))
    assert install_plan.installed_position(installed) == position
    assert install_plan.installed_first_port(installed) == 10126
