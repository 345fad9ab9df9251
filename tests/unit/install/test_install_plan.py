"""The plan of an installation, for hosts of many kinds; twice is the same as once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.errors import InstallRefused
from postfix_archive.install import filter_routes, install_plan
from postfix_archive.postfix import archive_services, configuration

from unit.hosts import AMAVIS, BACK, KINDS, STOCK, WISH, after, host, plan

GATE = (
    "${archive_bypass?{$archive_next_filter}"
    ":{${archive?{archive-stamp:$archive}:{$archive_next_filter}}}}"
)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("on_request", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_twice_is_the_same_as_once(kind: str, on_request: bool, position: str) -> None:
    found = KINDS[kind]
    wish = replace(WISH, on_request=on_request, position=position)
    if position == "after" and BACK.split()[0] not in str(found.services):
        with pytest.raises(InstallRefused):
            plan(found, wish)
        return
    once = after(found, wish)
    assert plan(once, wish) == ()


def test_mail_comes_this_way_only_after_all_is_ready() -> None:
    gates = [each.routes_mail for each in plan(host())]
    assert gates == sorted(gates)
    assert {each.name for each in plan(host()) if each.routes_mail} == {
        "archive",
        "content_filter",
        "receive_override_options",
    }


def test_a_content_filter_comes_behind_the_archive() -> None:
    found = after(KINDS["amavis"])
    assert found.main["content_filter"] == GATE
    assert found.main["archive_next_filter"] == AMAVIS
    back = found.service("127.0.0.1:10026/inet")
    assert found.value("content_filter", back) == AMAVIS
    reinjection = found.service("127.0.0.1:10025/inet")
    assert found.value("content_filter", reinjection) == ""


def test_without_a_request_a_service_keeps_its_filter() -> None:
    found = after(KINDS["submission"])
    for key, kept in (("smtp/inet", AMAVIS), ("submission/inet", "dk:[::1]:99")):
        off = found.service(key)
        assert off is not None
        off = replace(off, options={**off.options, "archive": ""})
        assert found.value("content_filter", off) == kept
        assert found.value("receive_override_options", off) == ""


def test_a_filter_of_one_service_gets_a_way_of_its_own() -> None:
    found = after(KINDS["submission"])
    submission = found.service("submission/inet")
    value = found.value("content_filter", submission)
    assert value == "archive-stamp-2:legal@example.com"
    stamp = found.service("archive-stamp-2/unix")
    assert stamp is not None
    assert "--handback-address 127.0.0.1:10031 " in stamp.command
    assert "--refused-address 127.0.0.1:10032 -- " in stamp.command
    for port in (10031, 10032):
        back = found.service(f"127.0.0.1:{port}/inet")
        assert found.value("content_filter", back) == "dk:[::1]:99"
        assert "no_address" not in found.value("receive_override_options", back)


def test_who_maps_addresses_elsewhere_does_so_still() -> None:
    found = after(KINDS["mapped elsewhere"])
    assert found.main["receive_override_options"] == "no_address_mappings"
    back = found.service("127.0.0.1:10026/inet")
    assert "no_address_mappings" in found.value("receive_override_options", back)


def test_after_the_filter_only_its_way_back_is_archived() -> None:
    found = after(KINDS["amavis"], replace(WISH, position="after"))
    assert found.main["content_filter"] == AMAVIS
    reinjection = found.service("127.0.0.1:10025/inet")
    value = found.value("content_filter", reinjection)
    assert value == "archive-stamp:legal@example.com"
    back = found.service("127.0.0.1:10026/inet")
    assert found.value("content_filter", back) == ""


def test_other_transport_maps_come_after_ours() -> None:
    routes = configuration.split_list(after(KINDS["maps"]).main["transport_maps"])
    assert routes[0].startswith("inline:{archive-request.invalid=archive-stamp:")
    assert routes[1:] == ["hash:/etc/postfix/transport", "pcre:/x"]


def test_a_filter_that_gives_back_by_sendmail_makes_no_loop() -> None:
    found = after(KINDS["simple filter"])
    pickup = found.service("pickup/unix")
    behind = found.service("127.0.0.1:10026/inet")
    assert found.value("content_filter", behind) == ""
    smtp = found.service("smtp/inet")
    assert found.value("content_filter", smtp) == "archive-stamp-2:legal@example.com"
    assert found.value("content_filter", pickup) == ""
    assert found.value("receive_override_options", pickup) == ""


def test_archiving_on_request_can_be_turned_off_again() -> None:
    for kind, found in KINDS.items():
        asked = after(found, replace(WISH, on_request=True))
        assert after(asked, WISH).main == after(found, WISH).main, kind


def test_newer_postfix_passes_the_envelope_id() -> None:
    found = replace(host(), parameters={"mail_version": "3.9-20240101"})
    stamp = after(found).service("archive-stamp/unix")
    assert stamp is not None and "--envid ${envid} --" in stamp.command


def test_a_tuned_process_limit_stays() -> None:
    found = after(host())
    tuned = [
        (
            replace(
                each,
                fields=(*each.fields[:4], "30"),
                line=each.line.replace(" 10 ", " 30 "),
            )
            if each.name == "archive-stamp"
            else each
        )
        for each in found.services
    ]
    assert plan(replace(found, services=tuple(tuned))) == ()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("archive unix - n n - - pipe user=bob argv=/usr/bin/vault", "archive/unix"),
        ("archive-cleanup unix n - n - 0 cleanup", "archive-cleanup/unix"),
        ("127.0.0.1:10028 inet n - n - - smtpd", "127.0.0.1:10028/inet"),
    ],
)
def test_a_stranger_of_our_name_or_port_is_refused(line: str, named: str) -> None:
    with pytest.raises(InstallRefused, match=named.replace(".", r"\.")):
        plan(host({}, f"{STOCK}{line}\n"))
    assert archive_services.is_installed(after(host()))


def test_every_change_can_be_taken_back() -> None:
    for change in plan(KINDS["submission"]):
        assert change.inverse.inverse == change
        assert change.inverse.after == change.before


def test_a_port_that_takes_nothing_back_is_archived() -> None:
    found = after(KINDS["a port without a filter"])
    port = found.service("127.0.0.1:2600/inet")
    assert found.value("content_filter", port) == "archive-stamp:legal@example.com"


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (filter_routes.TRANSPORT_TABLE, ""),
        (f"{filter_routes.TRANSPORT_TABLE}, hash:/mine", "hash:/mine"),
        (f"hash:/mine {filter_routes.TRANSPORT_TABLE}", "hash:/mine"),
        (
            f"{archive_services.REQUEST_DOMAIN_CHECK},permit_mynetworks reject",
            "permit_mynetworks reject",
        ),
        ("permit, check_recipient_access inline:{x=OK}, reject", None),
    ],
)
def test_what_is_ours_can_be_taken_out_of_a_list(value: str, left: str | None) -> None:
    assert archive_services.remove_own_elements(value) == (
        value if left is None else left
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", ["before", "after"])
def test_position_and_ports_can_be_read_from_what_is_installed(
    kind: str, position: str
) -> None:
    found = KINDS[kind]
    assert install_plan.installed_position(found) == ""
    assert install_plan.installed_first_port(found) == 0
    if position == "after" and BACK.split()[0] not in str(found.services):
        return
    installed = after(found, replace(WISH, position=position, port=10126))
    assert install_plan.installed_position(installed) == position
    assert install_plan.installed_first_port(installed) == 10126
