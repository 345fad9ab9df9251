"""The doctor's checks on hosts of many kinds: what is sound stays unnamed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postfix_archive import monitoring
from postfix_archive.config import settings
from postfix_archive.doctor import checks
from postfix_archive.doctor.finding import worst_severity
from postfix_archive.doctor.host import File, Host, OtherInstance
from postfix_archive.errors import InstallRefused
from postfix_archive.postfix import archive_services, configuration, reference
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.postfix.queued_message import QueuedMessage

from unit.hosts import KINDS, WISH, after

USER = "postfix-archive"
PROGRAM = WISH.launcher_directory
STORE = "/var/lib/postfix-archive"
FALLBACK = "/var/spool/postfix-archive"
KEY = "/etc/postfix-archive/postfix.key"
FILTERS = "smtp-amavis unix - - n - 2 smtp\ndk unix - - n - 2 smtp\n"
DEFAULTS = """
mail_version = 3.9.1
myhostname = host.example.com
mydestination = example.com
local_recipient_maps = proxy:unix:passwd.byname
mail_owner = postfix
setgid_group = postdrop
queue_directory = /var/spool/postfix
smtpd_recipient_limit = 1000
default_destination_recipient_limit = 50
command_time_limit = 1000s
bounce_queue_lifetime = 5d
maximal_queue_lifetime = 5d
enable_long_queue_ids = yes
enable_original_recipient = yes
local_header_rewrite_clients = permit_inet_interfaces
"""
ARCHIVE_CF = f"""
myhostname = host.example.com
archive_key_file = {KEY}
archive_store_directory = {STORE}
"""


def sound(found: Configuration) -> Host:
    """A host of this configuration that has all it needs."""
    filters = configuration.parse_services(FILTERS)
    found = replace(
        found,
        parameters=configuration.parse_parameters(DEFAULTS),
        services=(*found.services, *filters),
    )
    routes = configuration.split_list(found.raw("transport_maps"))
    asked = routes[0].partition("=")[2].partition(",")[0]
    return Host(
        config=found,
        settings=settings.parse(
            ARCHIVE_CF, path="archive.cf", config_directory="/", myhostname="?"
        ),
        reference_services=reference.reference_services(
            archive_services.installed_mode(found) or "pipe"
        ),
        files={
            f"{PROGRAM}/archive-stamp": File(f"{PROGRAM}/archive-stamp", "root", 0o755),
            f"{PROGRAM}/archive": File(f"{PROGRAM}/archive", "root", 0o755),
            KEY: File(KEY, USER, 0o600),
            STORE: File(STORE, USER, 0o700, True, 1),
            FALLBACK: File(FALLBACK, USER, 0o700, True, 2),
            "/var/tmp": File("/var/tmp", "root", 0o1777, True),
        },
        groups_by_user={USER: (USER,)},
        lookup_results={
            (routes[0], "archive-request.invalid"): asked,
            ("unix:passwd.byname", "legal"): "legal:x",
        },
        free_bytes={STORE: 1 << 40},
        last_rescue_age=300.0,
        log_read_age=60.0,
    )


def names(host: Host) -> set[str]:
    return {each.check for each in checks.run(host)}


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("on_request", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_an_installation_makes_is_sound(
    kind: str, on_request: bool, position: str, mode: str
) -> None:
    wish = replace(WISH, on_request=on_request, position=position, mode=mode)
    try:
        found = after(KINDS[kind], wish)
    except InstallRefused:
        assert position == "after"
        return
    assert checks.run(sound(found)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_there_before_archives_nothing(kind: str) -> None:
    found = KINDS[kind]
    host = sound(after(found))
    before = replace(host.config, main=found.main, services=found.services)
    assert "nothing-archived" in names(replace(host, config=before))


STOCK = sound(after(KINDS["stock"]))


def waiting(age: int, *recipients: str, to: str = "", reason: str = "x") -> Host:
    reasons = tuple(reason for _ in recipients)
    message = QueuedMessage("4Zx", age, "a@example.org", recipients, reasons, to)
    return replace(STOCK, queued_messages=(message,))


def test_a_port_without_a_filter_to_give_anything_back_is_around() -> None:
    host = sound(after(KINDS["stock"]))
    line = "127.0.0.1:2600 inet n - n - - smtpd -o content_filter="
    services = (*host.config.services, *configuration.parse_services(line))
    found = replace(host.config, services=services)
    assert names(replace(host, config=found)) == {"other-content-filter"}


def test_mail_that_somebody_else_handed_in_is_named() -> None:
    assert names(replace(STOCK, unarchived_reinjections=("4Zx",))) == {
        "foreign-reinjection"
    }


@pytest.mark.parametrize(
    ("host", "check"),
    [
        (waiting(301, "b@example.net", to="archive-stamp:x@y"), "filter-backlog"),
        (waiting(301, "b@example.net", to="archive-stamp-2:x@y"), "filter-backlog"),
        (waiting(3601, "capsule@archive-request.invalid"), "queue-backlog"),
        (waiting(3601, "x@y", to="archive:capsule"), "queue-backlog"),
        (waiting(9, "legal@example.com"), "copies-refused"),
    ],
)
def test_what_waits_too_long_is_named(host: Host, check: str) -> None:
    assert names(host) == {check}


@pytest.mark.parametrize(
    "host",
    [
        waiting(299, "b@example.net", to="archive-stamp:x@y"),
        waiting(99999, "b@example.net"),
        waiting(3599, "capsule@archive-request.invalid"),
        waiting(9, "legal@example.com", reason=""),
    ],
)
def test_what_waits_as_usual_is_not(host: Host) -> None:
    assert names(host) == set()


def test_a_copy_that_will_soon_be_dropped_is_critical() -> None:
    found = checks.run(waiting(216001, "x@y", to="archive:capsule"))
    assert worst_severity(found) == monitoring.CRITICAL
    found = checks.run(waiting(3601, "x@y", to="archive:capsule"))
    assert worst_severity(found) == monitoring.WARNING


def test_two_instances_with_keys_of_their_own() -> None:
    other = OtherInstance("/etc/postfix-out", ("legal@example.com",), frozenset("b"))
    mine = replace(STOCK, key_digests=frozenset("a"), other_instances=(other,))
    assert names(mine) == {"different-keys"}
    assert names(replace(mine, key_digests=frozenset("ab"))) == set()
    elsewhere = replace(other, archives=("out@example.com",))
    assert names(replace(mine, other_instances=(elsewhere,))) == set()


@pytest.mark.parametrize(
    ("version", "found", "lacking"),
    [
        ("3.3.9", {"postfix-too-old"}, 1),
        ("3.4.0", set(), 1),
        ("3.8.6-20240101", set(), 1),
        ("3.9.0", set(), 0),
    ],
)
def test_versions(version: str, found: set[str], lacking: int) -> None:
    known = {**STOCK.config.parameters, "mail_version": version}
    host = replace(STOCK, config=replace(STOCK.config, parameters=known))
    assert names(host) == found
    assert len(checks.limitations(host.config.version)) == lacking
    assert ("ENVID" in checks.format_report(host, [])) == bool(lacking)


def test_a_python_that_was_upgraded() -> None:
    assert names(replace(STOCK, python_mismatches={"/lib": "/usr/bin/python3"})) == {
        "python-changed"
    }


def test_a_disk_of_which_little_is_left() -> None:
    assert names(replace(STOCK, free_bytes={STORE: 1 << 29})) == {"free-space"}


def test_nothing_of_a_broken_archive_cf_is_guessed() -> None:
    broken = replace(STOCK, settings=None, settings_error="archive.cf, line 3: no such")
    [found] = checks.run(broken)
    assert (found.check, found.place) == ("settings-invalid", broken.settings_error)


def test_a_report_begins_with_the_worst() -> None:
    host = replace(waiting(9, "legal@example.com"), free_bytes={STORE: 1})
    told = checks.format_report(host, checks.run(host)).splitlines()
    assert told[0] == "CRITICAL: postfix-archive: 1 critical, 1 warning"
    assert told[1].startswith("CRITICAL free-space: ")


def test_what_the_rescue_stands_on() -> None:
    def with_fallback(*words: object) -> Host:
        there = File(FALLBACK, *words)  # type: ignore[arg-type]
        return replace(STOCK, files={**STOCK.files, FALLBACK: there})

    assert names(with_fallback()) == {"fallback-missing"}
    assert names(with_fallback("root", 0o700, True, 2)) == {"fallback-owner"}
    assert names(with_fallback(USER, 0o750, True, 2)) == {"fallback-mode"}
    assert names(with_fallback(USER, 0o700, True, 1)) == {"fallback-same-disk"}
    assert names(replace(STOCK, last_rescue_age=None)) == {"rescue-late"}
    assert names(replace(STOCK, last_rescue_age=3601.0)) == {"rescue-late"}
    assert names(replace(STOCK, held_count=1)) == {"mail-on-hold"}
    late = replace(STOCK, fallback_count=3, fallback_age=86401)
    assert names(late) == {"fallback-backlog"}
    assert worst_severity(checks.run(late)) == monitoring.CRITICAL
    early = replace(late, fallback_age=60)
    assert worst_severity(checks.run(early)) == monitoring.WARNING


def test_what_the_outcomes_stand_on() -> None:
    assert names(replace(STOCK, log_read_age=None)) == {"outcomes-late"}
    late = replace(STOCK, log_read_age=601.0)
    assert names(late) == {"outcomes-late"}
    assert names(replace(late, is_running=False)) == set()
    gone = replace(late, log_error="/var/log/mail.log: no such file")
    assert names(gone) == {"log-unreadable"}
    mailed = settings.parse(
        f"{ARCHIVE_CF}archive_delivery = mail\n",
        path="archive.cf",
        config_directory="/",
        myhostname="?",
    )
    for each in (late, gone):
        assert not {"outcomes-late", "log-unreadable"} & names(
            replace(each, settings=mailed)
        )


@pytest.mark.parametrize(
    ("follower", "fix"),
    [
        (
            "",
            "postfix-archive install sets up its service; or run postfix-archive"
            " outcomes --once",
        ),
        ("/etc/cron.d/x", "check that cron runs; by hand: postfix-archive outcomes"),
        ("/etc/systemd/system/x.service", "systemctl restart x.service"),
    ],
)
def test_a_follower_that_does_not_run_is_mended_by_what_runs_it(
    follower: str, fix: str
) -> None:
    [found] = checks.run(replace(STOCK, log_read_age=1e6, follower_file=follower))
    assert found.fix.startswith(fix)
    assert found.place == (follower or "postfix-archive outcomes")


WORKERS = sound(after(KINDS["submission"], replace(WISH, mode="lmtp")))


@pytest.mark.parametrize("argument", ["--handback-address", "--refused-address"])
def test_a_worker_that_hands_back_around_a_filter_is_named(argument: str) -> None:
    """Only that of a further way: the first one's addresses stand in archive.cf."""
    key = "archive-2.legal@example.com/unix"
    services = tuple(
        replace(each, command=each.command.replace(argument, "--envid"))
        for each in WORKERS.config.services
    )
    host = replace(WORKERS, config=replace(WORKERS.config, services=services))
    [told] = checks.run(host)
    assert (told.check, told.place) == ("launcher-arguments", f"master.cf: {key}")
    assert "without the content filter" in told.harm


def test_the_ports_of_a_further_way_of_workers_are_looked_at() -> None:
    gone = "127.0.0.1:10031/inet"
    services = tuple(e for e in WORKERS.config.services if e.key != gone)
    host = replace(WORKERS, config=replace(WORKERS.config, services=services))
    missing = [e for e in checks.run(host) if e.check == "port-missing"]
    assert [each.place for each in missing] == [f"master.cf: {gone}"]
