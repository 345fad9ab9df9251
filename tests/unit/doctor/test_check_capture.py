"""The doctor's checks of native mode: what install makes is sound, a fault is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive.doctor import capture_map_state, checks
from postfix_archive.doctor.host import File, Host
from postfix_archive.install.filter_routes import Setup
from postfix_archive.message import keyring, request
from postfix_archive.postfix import capture_maps
from postfix_archive.postfix.configuration import Configuration

from unit.doctor.test_checks import finding_names, make_sound_host
from unit.hosts import REINJECTION_ENTRY, config_after
from unit.install.test_native_plan import FILTERED, NATIVE, NATIVE_PIPE, SERVICES, host

MAPPED_LATER = {**FILTERED, "receive_override_options": "no_address_mappings"}
SOUND = {
    "services": host({"mine": "mine@example.com"}, SERVICES),
    "mapped before the filter": host(FILTERED, REINJECTION_ENTRY),
    "mapped behind the filter": host(MAPPED_LATER, REINJECTION_ENTRY),
    "before-queue filter": host(
        {},
        "2525 inet n - n - - smtpd -o smtpd_proxy_filter=127.0.0.1:10024\n"
        "127.0.0.1:10099 inet n - n - - smtpd -o smtpd_proxy_filter=\n",
    ),
}
MAP = "/etc/postfix/archive-capture"


def native_host(config: Configuration, setup: Setup = NATIVE) -> Host:
    """A sound host with mailboxes for all archives."""
    sound = make_sound_host(config_after(config, setup))
    users = {("unix:passwd.byname", each): "x" for each in ("a", "b", "mine", "new")}
    return replace(sound, lookup_results={**sound.lookup_results, **users})


def with_main(changed: Host, **parameters: str) -> Host:
    main = {**changed.config.main, **parameters}
    return replace(changed, config=replace(changed.config, main=main))


def with_option(changed: Host, key: str, name: str, value: str) -> Host:
    services = tuple(
        (
            replace(each, options={**each.options, name: value})
            if each.key == key
            else each
        )
        for each in changed.config.services
    )
    return replace(changed, config=replace(changed.config, services=services))


@pytest.mark.parametrize("native", [NATIVE, NATIVE_PIPE])
@pytest.mark.parametrize("on_request", [False, True])
@pytest.mark.parametrize("kind", SOUND)
def test_what_an_installation_makes_is_sound(
    kind: str, on_request: bool, native: Setup
) -> None:
    setup = replace(native, on_request=on_request)
    assert checks.run(native_host(SOUND[kind], setup)) == []


SERVICE_HOST = native_host(SOUND["services"])
FILTER_HOST = native_host(SOUND["mapped before the filter"])
NO_MAPPINGS = "no_address_mappings"
FAULTS: dict[str, tuple[Host, set[str]]] = {
    "a map of another kind in its place": (
        with_main(SERVICE_HOST, recipient_bcc_maps="hash:/x"),
        {"not-captured"},
    ),
    "a changed archive of a service": (
        with_option(SERVICE_HOST, "2525/inet", "archive", "new@example.com"),
        {"not-captured"},
    ),
    "an archive that was turned off": (
        with_option(SERVICE_HOST, "2528/inet", "archive", ""),
        {"not-captured"},
    ),
    "no mappings": (
        with_option(SERVICE_HOST, "smtp/inet", "receive_override_options", NO_MAPPINGS),
        {"not-captured"},
    ),
    "another cleanup service": (
        with_option(
            with_option(
                SERVICE_HOST, "smtp/inet", "cleanup_service_name", "sub-cleanup"
            ),
            "sub-cleanup/unix",
            "recipient_bcc_maps",
            "",
        ),
        {"not-captured"},
    ),
    "a map beside ours": (
        with_main(
            SERVICE_HOST,
            recipient_bcc_maps="hash:/x, "
            + SERVICE_HOST.config.main["recipient_bcc_maps"],
        ),
        {"other-bcc-map"},
    ),
    "captured before and behind": (
        with_option(
            FILTER_HOST, "127.0.0.1:10025/inet", "cleanup_service_name", "cleanup"
        ),
        {"captured-twice"},
    ),
    "a filter with a limit": (
        with_main(FILTER_HOST, **{"smtp-amavis_destination_recipient_limit": "50"}),
        {"filter-limit"},
    ),
    "too few recipients a delivery": (
        with_main(
            SERVICE_HOST, **{"archive-capture_destination_recipient_limit": "50"}
        ),
        {"recipient-limit"},
    ),
    "no soft bounce": (
        with_option(SERVICE_HOST, "archive-capture/unix", "soft_bounce", "no"),
        {"soft-bounce"},
    ),
    "a changed option": (
        with_option(SERVICE_HOST, "archive-capture/unix", "lmtp_generic_maps", "x"),
        {"lmtp-option"},
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named(kind: str) -> None:
    faulty, expected = FAULTS[kind]
    assert finding_names(faulty) == expected


@pytest.mark.parametrize(
    ("file", "check"),
    [
        (File(MAP, "root", 0o640), "capture-map-mode"),
        (File(MAP, "bob", 0o600), "capture-map-owner"),
    ],
)
def test_a_map_that_others_can_read_is_named(file: File, check: str) -> None:
    faulty = replace(
        SERVICE_HOST,
        files={**SERVICE_HOST.files, MAP: file},
        capture_map_problems={MAP: ""},
    )
    [finding] = checks.run(faulty)
    assert (finding.check, finding.is_safe) == (check, True)


def test_a_bypassed_host_is_not_said_to_capture_nothing() -> None:
    assert finding_names(with_main(SERVICE_HOST, archive_bypass="yes")) == {"bypass-on"}


def test_what_a_map_holds_is_compared_with_every_key(tmp_path: object) -> None:
    path = f"{tmp_path}/archive-capture"
    old, new = (keyring.parse(f"{e} {e * 64}\n", path="k").keys[0] for e in "ab")
    keys = keyring.Keyring((new, old))

    def problem(text: str) -> str:
        with open(path, "w") as file:
            file.write(text)
        return capture_map_state.problem(path, "legal@example.com", keys)

    for ring in (keys, keyring.Keyring((old,))):
        assert problem(request.capture_table("legal@example.com", ring)) == ""
    assert "another address" in problem(request.capture_table("a@example.com", keys))
    foreign = keyring.parse(f"c {'c' * 64}\n", path="k")
    assert "not at all" in problem(request.capture_table("legal@example.com", foreign))
    assert "451" in capture_map_state.problem(f"{path}.x", "a@example.com", keys)


def test_the_maps_that_are_inspected_are_those_in_use() -> None:
    services = SERVICE_HOST.receiving_services()
    assert capture_maps.required(SERVICE_HOST.config, services) == {
        MAP: "legal@example.com",
        f"{MAP}.a@example.com:b@example.com": "a@example.com,b@example.com",
        f"{MAP}.mine@example.com": "mine@example.com",
    }
