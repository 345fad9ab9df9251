"""The doctor's checks on hosts of many kinds: what is sound stays unnamed."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from postfix_archive import monitoring
from postfix_archive.config import settings
from postfix_archive.doctor import checks, inspection
from postfix_archive.doctor.finding import ADVICE, worst_severity
from postfix_archive.doctor.host import File, Host, OtherInstance
from postfix_archive.errors import InstallRefused
from postfix_archive.postfix import archive_services, configuration, reference
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.postfix.queued_message import QueuedMessage

from unit.hosts import CLEANUP_DEFAULTS, HOSTS, SETUP, config_after

USER = "postfix-archive"
LAUNCHER_DIRECTORY = SETUP.launcher_directory
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


def make_sound_host(config: Configuration) -> Host:
    """A host of this configuration that has all it needs."""
    filters = configuration.parse_services(FILTERS)
    config = replace(
        config,
        parameters={**configuration.parse_parameters(DEFAULTS), **CLEANUP_DEFAULTS},
        services=(*config.services, *filters),
    )
    routes = configuration.split_list(config.raw("transport_maps"))
    archive = routes[0].partition("=")[2].partition(",")[0]
    return Host(
        config=config,
        settings=settings.parse(
            ARCHIVE_CF, path="archive.cf", config_directory="/", myhostname="?"
        ),
        reference_services=reference.reference_services(
            archive_services.installed_mode(config) or "pipe"
        ),
        files={
            KEY: File(KEY, USER, 0o600),
            STORE: File(STORE, USER, 0o700, True, 1),
            FALLBACK: File(FALLBACK, USER, 0o700, True, 2),
            "/var/tmp": File("/var/tmp", "root", 0o1777, True),
        },
        groups_by_user={USER: (USER,)},
        lookup_results={
            (routes[0], "archive-request.invalid"): archive,
            ("unix:passwd.byname", "legal"): "legal:x",
        },
        free_bytes={STORE: 1 << 40},
        last_rescue_age=300.0,
        log_read_age=60.0,
        index_age=60.0,
    )


def finding_names(host: Host) -> set[str]:
    return {each.check for each in checks.run(host)}


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("on_request", [False, True])
@pytest.mark.parametrize("kind", HOSTS)
def test_what_an_installation_makes_is_sound(
    kind: str, on_request: bool, position: str, mode: str
) -> None:
    setup = replace(SETUP, on_request=on_request, position=position, mode=mode)
    try:
        config = config_after(HOSTS[kind], setup)
    except InstallRefused:
        assert position == "after"
        return
    assert checks.run(make_sound_host(config)) == []


@pytest.mark.parametrize("kind", HOSTS)
def test_what_was_there_before_archives_nothing(kind: str) -> None:
    config = HOSTS[kind]
    host = make_sound_host(config_after(config))
    before = replace(host.config, main=config.main, services=config.services)
    assert "nothing-archived" in finding_names(replace(host, config=before))


STOCK = make_sound_host(config_after(HOSTS["stock"]))


def waiting(age: int, *recipients: str, to: str = "", reason: str = "x") -> Host:
    reasons = tuple(reason for _ in recipients)
    message = QueuedMessage("4Zx", age, "a@example.org", recipients, reasons, to)
    return replace(STOCK, queued_messages=(message,))


def test_a_port_without_a_filter_to_give_anything_back_is_around() -> None:
    host = make_sound_host(config_after(HOSTS["stock"]))
    line = "127.0.0.1:2600 inet n - n - - smtpd -o content_filter="
    services = (*host.config.services, *configuration.parse_services(line))
    config = replace(host.config, services=services)
    assert finding_names(replace(host, config=config)) == {"other-content-filter"}


def test_a_port_whose_mail_is_mapped_before_and_behind_the_filter_is_named() -> None:
    host = make_sound_host(config_after(HOSTS["mapped elsewhere from one port"]))
    services = tuple(
        (
            replace(
                each,
                options={
                    k: v for k, v in each.options.items() if k != "content_filter"
                },
            )
            if each.key == "smtp/inet"
            else each
        )
        for each in host.config.services
    )
    config = replace(host.config, services=services)
    assert finding_names(replace(host, config=config)) == {"addresses-mapped-twice"}


def test_a_port_behind_a_before_queue_filter_that_archives_nothing_is_named() -> None:
    host = make_sound_host(config_after(HOSTS["before-queue filter"]))
    [behind] = [e for e in host.config.services if e.name == "127.0.0.1:10099"]
    unfiltered = replace(behind, options={"content_filter": "", "archive": ""})
    services = [each for each in host.config.services if each != behind]
    config = replace(host.config, services=(*services, unfiltered))
    assert finding_names(replace(host, config=config)) == {"proxy-unfiltered"}


def test_mail_that_another_client_reinjected_is_named() -> None:
    assert finding_names(replace(STOCK, unarchived_reinjections=("4Zx",))) == {
        "foreign-reinjection"
    }


@pytest.mark.parametrize(
    ("host", "check"),
    [
        (waiting(301, "b@example.net", to="archive-stamp:x@y"), "filter-backlog"),
        (waiting(301, "b@example.net", to="archive-stamp-2:x@y"), "filter-backlog"),
        (waiting(3601, "capsule@archive-request.invalid"), "queue-backlog"),
        (waiting(3601, "x@y", to="archive:capsule"), "queue-backlog"),
        (waiting(3601, "x@y", to="archive-relay:[mx]"), "queue-backlog"),
        (waiting(9, "legal@example.com"), "copies-refused"),
    ],
)
def test_what_waits_too_long_is_named(host: Host, check: str) -> None:
    assert finding_names(host) == {check}


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
    assert finding_names(host) == set()


def test_a_copy_that_will_soon_be_dropped_is_critical() -> None:
    findings = checks.run(waiting(216001, "x@y", to="archive:capsule"))
    assert worst_severity(findings) == monitoring.CRITICAL
    findings = checks.run(waiting(3601, "x@y", to="archive:capsule"))
    assert worst_severity(findings) == monitoring.WARNING


def test_two_instances_with_keys_of_their_own() -> None:
    other = OtherInstance(
        "/etc/postfix-out", ("legal@example.com",), "/b.key", frozenset("b")
    )
    host = replace(STOCK, key_digests=frozenset("a"), other_instances=(other,))
    assert finding_names(host) == {"different-keys"}
    assert finding_names(replace(host, key_digests=frozenset("ab"))) == set()
    elsewhere = replace(other, archives=("out@example.com",))
    assert finding_names(replace(host, other_instances=(elsewhere,))) == set()


@pytest.mark.parametrize(
    ("version", "expected_checks", "missing_count"),
    [
        ("3.3.9", {"postfix-too-old"}, 1),
        ("3.4.0", set(), 1),
        ("3.8.6-20240101", set(), 1),
        ("3.9.0", set(), 0),
    ],
)
def test_versions(version: str, expected_checks: set[str], missing_count: int) -> None:
    parameters = {**STOCK.config.parameters, "mail_version": version}
    host = replace(STOCK, config=replace(STOCK.config, parameters=parameters))
    assert finding_names(host) == expected_checks
    assert len(checks.limitations(host.config.version)) == missing_count
    assert ("ENVID" in checks.format_report(host, [])) == bool(missing_count)


def test_a_python_that_was_upgraded() -> None:
    assert finding_names(
        replace(STOCK, python_mismatches={"/lib": "/usr/bin/python3"})
    ) == {"python-changed"}


def test_a_disk_of_which_little_is_left() -> None:
    assert finding_names(replace(STOCK, free_bytes={STORE: 1 << 29})) == {"free-space"}


def test_nothing_of_a_broken_archive_cf_is_guessed() -> None:
    broken = replace(STOCK, settings=None, settings_error="archive.cf, line 3: no such")
    [finding] = checks.run(broken)
    assert (finding.check, finding.place) == ("settings-invalid", broken.settings_error)


def test_a_report_begins_with_the_worst() -> None:
    host = replace(waiting(9, "legal@example.com"), free_bytes={STORE: 1})
    lines = checks.format_report(host, checks.run(host)).splitlines()
    assert lines[0] == "CRITICAL: postfix-archive: 1 critical, 1 warning"
    assert lines[1].startswith("CRITICAL free-space: ")


def test_what_the_rescue_stands_on() -> None:
    def with_fallback(*fields: object) -> Host:
        file = File(FALLBACK, *fields)  # type: ignore[arg-type]
        return replace(STOCK, files={**STOCK.files, FALLBACK: file})

    assert finding_names(with_fallback()) == {"fallback-missing"}
    assert finding_names(with_fallback("root", 0o700, True, 2)) == {"fallback-owner"}
    assert finding_names(with_fallback(USER, 0o750, True, 2)) == {"fallback-mode"}
    assert finding_names(with_fallback(USER, 0o700, True, 1)) == {"fallback-same-disk"}
    assert finding_names(replace(STOCK, last_rescue_age=None)) == {"rescue-late"}
    assert finding_names(replace(STOCK, last_rescue_age=3601.0)) == {"rescue-late"}
    assert finding_names(replace(STOCK, held_count=1)) == {"mail-on-hold"}
    overdue = replace(STOCK, fallback_count=3, fallback_age=86401)
    assert finding_names(overdue) == {"fallback-backlog"}
    assert worst_severity(checks.run(overdue)) == monitoring.CRITICAL
    early = replace(overdue, fallback_age=60)
    assert worst_severity(checks.run(early)) == monitoring.WARNING


def test_lines_that_nobody_has_witnessed_for_days_are_reported() -> None:
    assert finding_names(replace(STOCK, unsealed_age=2e5)) == {"seal-late"}
    assert finding_names(replace(STOCK, unsealed_age=1e5)) == set()


def test_a_web_page_that_can_read_nothing_or_write_all_is_reported() -> None:
    host = replace(STOCK, web_user_problem="it can write the store")
    assert finding_names(host) == {"web-user"}


def test_what_the_object_storage_lacks() -> None:
    with_bucket = settings.parse(
        f"{ARCHIVE_CF}archive_object_store = s3://bucket\n",
        path="archive.cf",
        config_directory="/",
        myhostname="?",
    )
    host = replace(STOCK, settings=with_bucket, replication_age=60.0)
    assert finding_names(host) == set()
    assert finding_names(replace(host, replication_age=601.0)) == {"replicate-late"}
    assert finding_names(replace(host, replication_age=None)) == {"replicate-late"}
    [finding] = checks.run(replace(host, object_store_error="s3://bucket/: full"))
    assert finding.check == "object-store"
    assert finding.harm == "s3://bucket/: full: nothing is uploaded"
    assert finding_names(replace(STOCK, replication_age=None)) == set()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "archive_object_store is not set"),
        (
            "archive_object_store = s3://bucket\narchive_object_lock = none\n",
            "archive_object_lock = none",
        ),
        ("archive_object_store = s3://bucket\n", ""),
    ],
)
def test_copies_that_cannot_leave_the_store(lines: str, problem: str) -> None:
    with_days = settings.parse(
        f"{ARCHIVE_CF}{lines}archive_local_days = 90\n",
        path="archive.cf",
        config_directory="/",
        myhostname="?",
    )
    found = checks.run(replace(STOCK, settings=with_days, replication_age=60.0))
    assert [each.check for each in found] == ["local-days"] * bool(problem)
    assert all(each.harm.startswith(problem) for each in found)


def test_what_a_missing_library_of_the_object_storage_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_bucket = settings.parse(
        f"{ARCHIVE_CF}archive_object_store = s3://bucket\n",
        path="archive.cf",
        config_directory="/",
        myhostname="?",
    )
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    error = inspection._object_store_error(with_bucket)
    assert "run make install WITH=object-store" in error


def test_what_search_stands_on() -> None:
    assert finding_names(replace(STOCK, index_age=None)) == {"index-late"}
    assert finding_names(replace(STOCK, index_age=601.0)) == {"index-late"}
    [finding] = checks.run(replace(STOCK, index_age=601.0))
    assert "index --once" in finding.fix
    unit = "/etc/systemd/system/postfix-archive-index-postfix.service"
    [finding] = checks.run(replace(STOCK, index_age=601.0, indexer_file=unit))
    assert "systemctl restart postfix-archive-index-postfix.service" in finding.fix


def test_what_retention_stands_on() -> None:
    with_rules = replace(STOCK, has_retention=True, purge_age=60.0)
    assert finding_names(with_rules) == set()
    invalid = replace(with_rules, retention_error="archive.retention, line 2: x")
    assert finding_names(invalid) == {"retention-rule-invalid"}
    mistyped = replace(with_rules, unknown_retention_archives=("lehal@example.com",))
    [finding] = checks.run(mistyped)
    assert (finding.check, finding.severity) == ("retention-archive-unknown", ADVICE)
    assert "lehal@example.com" in finding.harm
    for age in (None, 2 * 86400 + 1.0):
        assert finding_names(replace(with_rules, purge_age=age)) == {"purge-late"}
        assert finding_names(replace(STOCK, purge_age=age)) == set()


def test_what_the_outcomes_stand_on() -> None:
    assert finding_names(replace(STOCK, log_read_age=None)) == {"outcomes-late"}
    overdue = replace(STOCK, log_read_age=601.0)
    assert finding_names(overdue) == {"outcomes-late"}
    assert finding_names(replace(overdue, is_running=False)) == set()
    missing_log = replace(overdue, log_error="/var/log/mail.log: no such file")
    assert finding_names(missing_log) == {"log-unreadable"}
    mailed = settings.parse(
        f"{ARCHIVE_CF}archive_delivery = mail\n",
        path="archive.cf",
        config_directory="/",
        myhostname="?",
    )
    for each in (overdue, missing_log):
        assert not {"outcomes-late", "log-unreadable"} & finding_names(
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
def test_a_follower_that_does_not_run_is_started_by_its_scheduler(
    follower: str, fix: str
) -> None:
    [finding] = checks.run(replace(STOCK, log_read_age=1e6, follower_file=follower))
    assert finding.fix.startswith(fix)
    assert finding.place == (follower or "postfix-archive outcomes")


LMTP_HOST = make_sound_host(
    config_after(HOSTS["submission"], replace(SETUP, mode="lmtp"))
)


@pytest.mark.parametrize("argument", ["--handback-address", "--refused-address"])
def test_a_worker_that_reinjects_around_a_filter_is_named(argument: str) -> None:
    """Only that of a further way: the first one's addresses stand in archive.cf."""
    key = "archive-2.legal@example.com/unix"
    services = tuple(
        replace(each, command=each.command.replace(argument, "--envid"))
        for each in LMTP_HOST.config.services
    )
    host = replace(LMTP_HOST, config=replace(LMTP_HOST.config, services=services))
    [finding] = checks.run(host)
    assert (finding.check, finding.place) == ("launcher-arguments", f"master.cf: {key}")
    assert "without the content filter" in finding.harm


def test_the_ports_of_further_workers_are_checked() -> None:
    missing_port = "127.0.0.1:10031/inet"
    services = tuple(e for e in LMTP_HOST.config.services if e.key != missing_port)
    host = replace(LMTP_HOST, config=replace(LMTP_HOST.config, services=services))
    missing = [e for e in checks.run(host) if e.check == "port-missing"]
    assert [each.place for each in missing] == [f"master.cf: {missing_port}"]
