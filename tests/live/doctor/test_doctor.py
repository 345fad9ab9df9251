"""The doctor on a live instance: planted faults are named, a sound host has none."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_host import COMMAND, CORRECT_RESTRICTIONS, REQUEST_RESTRICTION, Host

from private_postfix import (
    GROUP,
    USER,
    WITHOUT_WRITE_THROUGH,
    PrivatePostfix,
    free_ports,
)

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def running_host() -> Iterator[Host]:
    with PrivatePostfix(main=CORRECT_RESTRICTIONS) as postfix:
        options = "size=1m,mode=700,uid=65534,gid=65534"
        fallback_directory = str(postfix.fallback)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", fallback_directory],
            check=True,
        )
        try:
            assert postfix.run_command("queue", "rescue").returncode == 0
            assert postfix.run_command("outcomes").returncode == 0
            assert postfix.run_command("index", "--once").returncode == 0
            yield Host(postfix)
        finally:
            subprocess.run(["umount", "-l", fallback_directory], check=True)


@pytest.fixture
def host(running_host: Host) -> Iterator[Host]:
    """The instance, whose configuration and files come back afterwards."""
    with running_host.restored_configuration():
        yield running_host
    for path, mode in (("store", 0o700), ("lib", 0o755), ("lib/archive-stamp", 0o755)):
        (running_host.postfix.directory / path).chmod(mode)
    empty_directory = running_host.postfix.fallback
    empty_directory.chmod(0o700)
    for directory in (running_host.postfix.store, empty_directory):
        shutil.chown(directory, USER, GROUP)
    (empty_directory / "aa.capsule").unlink(missing_ok=True)
    (empty_directory / "rescued").touch()
    (empty_directory / "followed").touch()


def replacing(before: str, after: str) -> Callable[[str], str]:
    return lambda text: text.replace(before, after, 1)


PlantFault = Callable[[Host], object]
STAMP = "archive-stamp/unix"
SUBMISSION = "submission inet n - n - - smtpd -o "
UNREADABLE_DIRECTORY = "/etc/ssl"  # a directory in which nobody but root may write

FAULTS: tuple[tuple[str, str, PlantFault], ...] = (
    # check, what is planted, how
    ("nothing-archived", "no archive", lambda h: h.set_main(archive="")),
    ("archive-invalid", "no address", lambda h: h.set_main(archive="legal")),
    (
        "archive-invalid",
        "no address on a service",
        lambda h: h.add_service(f"{SUBMISSION}archive=legal@"),
    ),
    (
        "other-content-filter",
        "a filter of its own",
        lambda h: h.add_service(
            f"{SUBMISSION}content_filter=smtp-amavis:[127.0.0.1]:10024"
        ),
    ),
    (
        "other-content-filter",
        "no filter on a public port",
        lambda h: h.add_service(f"{SUBMISSION}content_filter="),
    ),
    (
        "nexthop-missing",
        "no nexthop",
        lambda h: h.set_main(content_filter="archive-stamp:"),
    ),
    (
        "addresses-mapped-twice",
        "mapping first",
        lambda h: h.set_main(receive_override_options=""),
    ),
    (
        "addresses-not-mapped",
        "mapping nowhere",
        lambda h: h.set_main(archive_handback_options="no_address_mappings"),
    ),
    (
        "header-rewriting",
        "a Milter that reads what is rewritten later",
        lambda h: h.set_main(
            smtpd_milters="inet:127.0.0.1:8891",
            canonical_maps="inline:{a@example.org=b@example.org}",
        ),
    ),
    (
        "next-filter",
        "round and round",
        lambda h: h.set_main(archive_next_filter="archive-stamp:legal@example.com"),
    ),
    (
        "next-filter",
        "a filter that is not there",
        lambda h: h.set_main(archive_next_filter="smtp-amavis:[127.0.0.1]:10024"),
    ),
    (
        "worker-missing",
        "a socket without a worker",
        lambda h: h.set_main(
            content_filter="archive-stamp:unix:private/archive.$archive"
        ),
    ),
    (
        "connection-cache",
        "unix: before the name",
        lambda h: h.set_main(
            lmtp_connection_cache_destinations="unix:private/archive.legal@example.com"
        ),
    ),
    (
        "request-domain-open",
        "clients may address requests",
        lambda h: h.set_main(smtpd_recipient_restrictions="permit_mynetworks,reject"),
    ),
    (
        "request-domain-open",
        "the check behind a permit",
        lambda h: h.set_main(
            smtpd_recipient_restrictions=f"permit_mynetworks,{REQUEST_RESTRICTION}"
        ),
    ),
    (
        "proxy-unfiltered",
        "a before-queue filter",
        lambda h: h.add_service(
            f"{SUBMISSION}smtpd_proxy_filter=127.0.0.1:10099"
        ).set_option(f"127.0.0.1:{h.postfix.smtp_port}/inet", "content_filter", ""),
    ),
    (
        "filter-action",
        "FILTER in access",
        lambda h: h.set_main(
            smtpd_sender_restrictions="check_sender_access "
            + h.make_table("carol@example.org  FILTER smtp:[127.0.0.1]:10099\n")
        ),
    ),
    (
        "filter-action",
        "FILTER in header_checks of a cleanup",
        lambda h: h.set_option(
            "cleanup/unix",
            "header_checks",
            h.make_table("/^X-/ FILTER x:y\n", "regexp"),
        ),
    ),
    (
        "filter-action",
        "FILTER in a cleanup that a service has of its own",
        lambda h: h.add_service(
            "own-cleanup unix n - n - 0 cleanup -o header_checks="
            + h.make_table("/^X-/ FILTER x:y\n", "regexp")
        ).add_service(
            SUBMISSION + "cleanup_service_name=own-cleanup -o syslog_name=postfix/sub"
        ),
    ),
    (
        "filter-action",
        "FILTER said in the list itself",
        lambda h: h.set_main(
            smtpd_client_restrictions="check_client_access static:{FILTER x:y}"
        ),
    ),
    (
        "redirect-action",
        "REDIRECT in body_checks",
        lambda h: h.set_main(
            body_checks=h.make_table("/merger of/ redirect boss@example.com\n", "pcre")
        ),
    ),
    (
        "archive-action",
        "ARCHIVE in an indexed table",
        lambda h: h.set_main(
            smtpd_recipient_restrictions=f"{REQUEST_RESTRICTION},"
            "check_recipient_access "
            + h.make_table("bob@example.net ARCHIVE hr@example.com\n", "hash")
            + ",permit_mynetworks,reject"
        ),
    ),
    (
        "archive-action",
        "ARCHIVE in a cidr table",
        lambda h: h.set_main(
            smtpd_client_restrictions="check_client_access "
            + h.make_table("192.0.2.0/24 ARCHIVE hr@example.com\n", "cidr")
        ),
    ),
    (
        "request-mapped",
        "a catch-all of virtual",
        lambda h: h.set_main(
            virtual_alias_maps=h.make_table("/(.*)@.*/ $1@example.com\n", "regexp")
        ),
    ),
    (
        "request-mapped",
        "a canonical of the domain",
        lambda h: h.set_main(
            canonical_maps=h.make_table(
                "@archive-request.invalid @example.com\n", "hash"
            )
        ),
    ),
    ("request-route", "no route", lambda h: h.set_main(transport_maps="")),
    (
        "request-route",
        "another route first",
        lambda h: h.set_main(
            transport_maps=h.make_table("/./ smtp:[192.0.2.1]\n", "regexp")
        ),
    ),
    (
        "service-missing",
        "no archive-cleanup",
        lambda h: h.remove_service("archive-cleanup/unix"),
    ),
    (
        "soft-bounce",
        "a hard stamp filter",
        lambda h: h.remove_option("archive-stamp/unix", "soft_bounce"),
    ),
    (
        "soft-bounce",
        "a hard archive transport",
        lambda h: h.set_option("archive/unix", "soft_bounce", "no"),
    ),
    (
        "recipient-limit",
        "the default of 50",
        lambda h: h.unset_main("archive-stamp_destination_recipient_limit"),
    ),
    (
        "recipient-limit",
        "no limit",
        lambda h: h.set_main(**{"archive-stamp_destination_recipient_limit": "0"}),
    ),
    (
        "time-limit",
        "below our deadline",
        lambda h: h.set_main(**{"archive-stamp_time_limit": "300s"}),
    ),
    (
        "time-limit",
        "the default below our deadline",
        lambda h: h.unset_main("archive_time_limit").set_main(command_time_limit="10m"),
    ),
    ("null-sender", "not said", lambda h: h.edit_entry(STAMP, " null_sender=", "")),
    (
        "pipe-flags",
        "Return-Path: is put in",
        lambda h: h.edit_entry(STAMP, "flags=q ", "flags=qR "),
    ),
    (
        "launcher-arguments",
        "no queue id",
        lambda h: h.edit_entry(STAMP, "--queue-id ${queue_id} ", ""),
    ),
    (
        "service-user",
        "Postfix's own user",
        lambda h: h.edit_entry(STAMP, f"user={USER}:{GROUP}", "user=postfix"),
    ),
    (
        "service-user",
        "nobody of that name",
        lambda h: h.edit_entry(STAMP, f"user={USER}:{GROUP}", "user=gone17"),
    ),
    (
        "program-missing",
        "not executable",
        lambda h: (h.postfix.program_directory / "archive-stamp").chmod(0o600),
    ),
    (
        "program-unreachable",
        "made under umask 077",
        lambda h: h.postfix.program_directory.chmod(0o700),
    ),
    (
        "second-stamp-filter",
        "another stamp filter",
        lambda h: h.add_service(
            "archive-stamp-old unix - n n - 10 pipe -o soft_bounce=yes flags=q"
            f" user={USER} null_sender= argv=/opt/old/archive-stamp"
        ),
    ),
    ("port-missing", "no hand-back", lambda h: h.remove_service(h.port("handback"))),
    (
        "port-option-missing",
        "restrictions",
        lambda h: h.remove_option(
            h.port("handback"), "smtpd_client_restrictions"
        ).set_main(smtpd_client_restrictions="reject_unknown_client_hostname"),
    ),
    (
        "port-option-missing",
        "milters",
        lambda h: h.remove_option(h.port("capsule"), "smtpd_milters").set_main(
            smtpd_milters="inet:127.0.0.1:8891"
        ),
    ),
    (
        "port-option-missing",
        "local header rewriting",
        lambda h: h.remove_option(h.port("handback"), "local_header_rewrite_clients"),
    ),
    (
        "port-option-missing",
        "the size limit of a port",
        lambda h: h.remove_option(h.port("handback"), "message_size_limit"),
    ),
    (
        "port-option-missing",
        "the size limit of cleanup",
        lambda h: h.remove_option("archive-cleanup/unix", "message_size_limit"),
    ),
    (
        "port-option",
        "one cleanup for hand-back and capsules",
        lambda h: h.set_option(
            h.port("capsule"), "cleanup_service_name", "archive-cleanup"
        ),
    ),
    (
        "port-option-missing",
        "the pause before mail is taken in",
        lambda h: h.remove_option("archive-cleanup/unix", "in_flow_delay"),
    ),
    (
        "port-option-missing",
        "a bcc of copies",
        lambda h: h.remove_option("archive-copy-cleanup/unix", "always_bcc").set_main(
            always_bcc="boss@example.com"
        ),
    ),
    (
        "port-option",
        "a recipient limit",
        lambda h: h.set_option(h.port("handback"), "smtpd_recipient_limit", "1000"),
    ),
    (
        "port-option",
        "a filter before the archive transport",
        lambda h: h.set_option(
            h.port("capsule"), "content_filter", "smtp:[127.0.0.1]:25"
        ),
    ),
    (
        "port-exposed",
        "no address",
        lambda h: h.edit_master(
            lambda text: text.replace(h.port("copy")[:-5], "0.0.0.0:9")
        ),
    ),
    (
        "port-unreachable",
        "not reloaded",
        lambda h: h.edit_master(
            replacing(h.port("copy")[:-5], f"127.0.0.1:{free_ports(1)[0]}")
        ),
    ),
    (
        "settings-invalid",
        "archive.cf",
        lambda h: h.set_archive_cf(archive_delivery="nowhere"),
    ),
    (
        "tables-stale",
        "a source that was not compiled",
        lambda h: h.set_archive_cf(
            archive_tables=h.make_source_table("x ARCHIVE hr@example.com\n")
        ),
    ),
    (
        "tables-stale",
        "a source that cannot be compiled",
        lambda h: h.set_archive_cf(
            archive_tables=h.make_source_table("x ARCHIVE hr\n")
        ),
    ),
    (
        "host-name",
        "another",
        lambda h: h.set_archive_cf(myhostname="other.example.com"),
    ),
    ("mail-owner", "another", lambda h: h.set_archive_cf(mail_owner="mail")),
    ("key-missing", "no key", lambda h: (h.etc / "archive.key").unlink()),
    (
        "key-invalid",
        "half a line",
        lambda h: (h.etc / "archive.key").write_text("20261130 ab\n"),
    ),
    ("key-mode", "for all to read", lambda h: (h.etc / "archive.key").chmod(0o644)),
    ("key-owner", "root's", lambda h: os.chown(h.etc / "archive.key", 0, 0)),
    ("capsule-helo", "none", lambda h: h.set_main(archive_capsule_helo="texthash:/x")),
    (
        "capsule-helo-owner",
        "root's",
        lambda h: os.chown(h.make_capsule_helo(), 0, 0),
    ),
    (
        "capsule-helo-mode",
        "for all to read",
        lambda h: h.make_capsule_helo().chmod(0o644),
    ),
    (
        "key-unreachable",
        "root's alone",
        lambda h: h.set_archive_cf(archive_key_file=h.make_unreadable_key()),
    ),
    (
        "store-missing",
        "no store",
        lambda h: h.set_archive_cf(
            archive_store_directory=str(h.postfix.store.with_name("not-there"))
        ),
    ),
    ("store-owner", "root's", lambda h: os.chown(h.postfix.store, 0, 0)),
    ("store-mode", "for all to read", lambda h: h.postfix.store.chmod(0o755)),
    (
        "fallback-missing",
        "no folder",
        lambda h: h.set_archive_cf(
            archive_fallback_directory=str(h.postfix.store.with_name("not-there-2"))
        ),
    ),
    ("fallback-owner", "root's", lambda h: os.chown(h.postfix.fallback, 0, 0)),
    ("fallback-mode", "for all to read", lambda h: h.postfix.fallback.chmod(0o755)),
    (
        "fallback-same-disk",
        "beside the store",
        lambda h: h.set_archive_cf(
            archive_fallback_directory=h.make_directory_beside_store("spare")
        ),
    ),
    (
        "fallback-backlog",
        "a copy",
        lambda h: (h.postfix.fallback / "aa.capsule").write_text("x"),
    ),
    (
        "mail-on-hold",
        "a note",
        lambda h: (h.etc / "archive.held").write_text('{"4Zx": "2026-11-24"}'),
    ),
    (
        "rescue-late",
        "never",
        lambda h: (h.postfix.fallback / "rescued").unlink(),
    ),
    (
        "outcomes-late",
        "never",
        lambda h: (h.postfix.fallback / "followed").unlink(),
    ),
    (
        "outcomes-late",
        "long ago",
        lambda h: os.utime(h.postfix.fallback / "followed", (1e9, 1e9)),
    ),
    (
        "log-unreadable",
        "no such file",
        lambda h: h.set_main(maillog_file="/var/log/there/is/none"),
    ),
    ("log-unreadable", "a folder", lambda h: h.set_main(maillog_file="/var/log")),
    ("log-unreadable", "a device", lambda h: h.set_main(maillog_file="/dev/stdout")),
    (
        "spool-unwritable",
        "root's",
        lambda h: h.set_archive_cf(archive_spool_directory=UNREADABLE_DIRECTORY),
    ),
    ("queue-lifetime", "short", lambda h: h.set_main(bounce_queue_lifetime="10m")),
    ("short-queue-ids", "short", lambda h: h.set_main(enable_long_queue_ids="no")),
    (
        "copy-loop",
        "mailed to ourselves",
        lambda h: h.set_main(mydestination="example.com").set_archive_cf(
            archive_delivery="mail"
        ),
    ),
    (
        "archive-address-unknown",
        "no such user",
        lambda h: h.set_main(
            mydestination="example.com", local_recipient_maps="unix:passwd.byname"
        ),
    ),
    (
        "duplicate-bcc",
        "always_bcc",
        lambda h: h.set_main(always_bcc="legal@example.com"),
    ),
    (
        "duplicate-bcc",
        "a bcc map",
        lambda h: h.set_main(
            recipient_bcc_maps=h.make_table("bob@example.net legal@example.com\n")
        ),
    ),
    (
        "original-recipient",
        "not kept",
        lambda h: h.set_main(enable_original_recipient="no"),
    ),
    (
        "local-clients",
        "the whole network",
        lambda h: h.set_main(
            local_header_rewrite_clients="permit_mynetworks",
            mynetworks="127.0.0.0/8 192.0.2.0/24",
        ),
    ),
)


# Commands that change this instance alone: never postfix-archive install.
CURE_COMMAND = re.compile(
    r"(postconf|chown|chmod|install -d|postfix-archive (-c \S+ )?key) "
)


def test_a_sound_host_has_no_finding(running_host: Host) -> None:
    assert running_host.findings() == []
    output = subprocess.run(
        [str(COMMAND), "-c", str(running_host.etc), "doctor"],
        capture_output=True,
        text=True,
    )
    assert output.stdout.startswith("OK: ")
    assert output.returncode == 0


EACH_FAULT = pytest.mark.parametrize(
    ("check", "plant_fault"),
    [pytest.param(c, p, id=f"{c}: {what}") for c, what, p in FAULTS],
)


@EACH_FAULT
def test_a_planted_fault_is_named(
    host: Host, check: str, plant_fault: PlantFault
) -> None:
    plant_fault(host)
    findings = {each["check"]: each for each in host.findings()}
    assert check in findings
    assert (
        findings[check]["harm"] and findings[check]["fix"] and findings[check]["place"]
    )


def test_thirty_kinds_of_faults_are_planted() -> None:
    assert len({check for check, _, _ in FAULTS}) >= 30


def test_a_file_system_that_fills_up(host: Host) -> None:
    small = host.postfix.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "t", small], check=True)
    try:
        shutil.chown(small, USER, GROUP)
        small.chmod(0o700)
        host.set_archive_cf(archive_store_directory=str(small))
        [finding] = host.findings()
        assert finding["check"] == "free-space"
        assert finding["severity"] == "CRITICAL"
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_archive_address_that_refuses_copies(host: Host) -> None:
    host.set_main(default_transport=f"smtp:[127.0.0.1]:{free_ports(1)[0]}")
    host.postfix.reload()
    host.postfix.send(b"Subject: x\n\nx\n")
    findings: list[dict[str, str]] = []

    def is_named() -> bool:  # in one look: while it is tried again, no reason is shown
        matching = [e for e in host.findings() if e["check"] == "copies-refused"]
        findings.extend(matching)
        return bool(matching)

    host.postfix.wait(is_named, "the refused copy")
    assert findings[0]["place"] == "legal@example.com"
    assert "Connection refused" in findings[0]["harm"]

    host.set_main(default_transport="sink:")
    host.postfix.reload()
    host.postfix.flush()
    host.postfix.wait_for_empty_queue()
    assert host.finding_names() == set()


def test_copies_that_wait_too_long(host: Host) -> None:
    host.set_archive_cf(**WITHOUT_WRITE_THROUGH)
    (host.postfix.program_directory / "archive").chmod(0)
    host.postfix.send(b"Subject: y\n\ny\n")
    host.postfix.wait_for_log("relay=archive,.*status=(SOFTBOUNCE|deferred)")
    postsuper = ["postsuper", "-c", str(host.etc)]
    subprocess.run([*postsuper, "-h", "ALL"], check=True)
    host.set_main(bounce_queue_lifetime="2s")
    host.postfix.wait(
        lambda: "queue-backlog" in host.finding_names(), "the waiting copy"
    )

    (host.postfix.program_directory / "archive").chmod(0o755)
    host.set_main(bounce_queue_lifetime="5d")
    subprocess.run([*postsuper, "-H", "ALL"], check=True)
    host.postfix.flush()
    host.postfix.wait_for_empty_queue()
    assert host.finding_names() == set()


def test_mail_that_a_local_user_sends_around_the_archive(host: Host) -> None:
    port = host.postfix.ports[1]
    host.postfix.send(b"Subject: as usual\n\nx\n")
    host.postfix.wait_for_empty_queue()
    assert host.finding_names() == set()
    queue_id = host.postfix.send(b"Subject: unarchived\n\nx\n", port=port)
    host.postfix.wait_for_empty_queue()
    [finding] = host.findings()
    assert (finding["check"], finding["place"]) == (
        "foreign-reinjection",
        f"queue id {queue_id}",
    )
    host.postfix.log_path.write_text("")


def test_a_bypass_is_critical(host: Host) -> None:
    command = [str(COMMAND), "-c", str(host.etc), "bypass"]
    subprocess.run([*command, "on", "--reason", "ticket 17"], check=True)
    [found] = host.findings()
    assert (found["check"], found["severity"]) == ("bypass-on", "CRITICAL")
    assert "ticket 17" in found["harm"]
    subprocess.run([*command, "off"], check=True)
    assert host.findings() == []


def test_a_bypass_set_by_hand_is_critical(host: Host) -> None:
    host.set_main(archive_bypass="yes")
    [found] = host.findings()
    assert found["check"] == "bypass-on"
    assert "by unknown" in found["harm"]
    assert found["fix"].endswith("-e 'archive_bypass = '")


def test_fix_repairs_what_is_safe_and_nothing_else(host: Host) -> None:
    before = (host.etc / "main.cf").read_bytes()
    host.set_option("archive/unix", "soft_bounce", "no")
    host.remove_option(host.port("handback"), "smtpd_milters")
    (host.etc / "archive.key").chmod(0o644)
    host.set_main(always_bcc="legal@example.com")
    assert len(host.findings()) == 4
    [remaining] = host.findings("--fix")
    assert remaining["check"] == "duplicate-bcc"
    host.unset_main("always_bcc")
    assert host.findings() == []
    assert (host.etc / "main.cf").read_bytes() == before
    host.postfix.send(b"Subject: still archived\n\nx\n")
    host.postfix.wait_for_empty_queue()


def test_cures_that_are_commands_work_as_they_are_typed(host: Host) -> None:
    host.set_main(enable_original_recipient="no", transport_maps="")
    host.unset_main("archive-stamp_destination_recipient_limit")
    for each in host.findings():
        subprocess.run(each["fix"], shell=True, check=True)
    assert host.findings() == []


# Mail arrives elsewhere as long as what was planted stands beside the cure.
ROUTED_AWAY = ("another route first", "milters", "mailed to ourselves")
# What an administrator has to do; an installation would change this host.
CURE_BY_HAND = re.compile(
    r"(?:postfix-archive( -c \S+)? (?:install|tables)\b|postfix -c \S+ reload; then "
    r"|(?:in (?:archive|master)\.cf )?"
    r"(?:set|replace|remove|correct|move|exclude|create) \S)"
)


@EACH_FAULT
def test_after_every_cure_that_is_a_command_a_message_arrives(
    host: Host, check: str, plant_fault: PlantFault, request: pytest.FixtureRequest
) -> None:
    """--fix runs those that are safe; the others are typed as they are printed."""
    plant_fault(host)
    finding = next(each for each in host.findings() if each["check"] == check)
    if finding["is_safe"]:
        host.findings("--fix")
    elif CURE_COMMAND.match(finding["fix"]):
        fix = finding["fix"].replace("postfix-archive ", f"{COMMAND} ", 1)
        subprocess.run(fix, shell=True, check=True)
        host.postfix.reload()
    else:
        assert CURE_BY_HAND.match(finding["fix"])
        return
    assert check not in host.finding_names()
    if request.node.callspec.id.endswith(ROUTED_AWAY):
        return
    address = f"{secrets.token_hex(8)}@example.net"
    host.postfix.send(b"Subject: after the cure\n\nx\n", to=[address])
    host.postfix.wait_for_empty_queue()
    assert len(host.postfix.delivered_to(address)) == 1
    listing = host.postfix.run_command("list", "--json")
    assert address in listing.stdout, listing.stderr


def test_what_cannot_be_checked_is_unknown(host: Host) -> None:
    (host.etc / "main.cf").unlink()
    process = subprocess.run(
        [str(COMMAND), "-c", str(host.etc), "doctor"], capture_output=True, text=True
    )
    assert process.returncode == 3
    assert process.stdout.startswith("UNKNOWN: ")
    assert "main.cf" in process.stdout
    assert "Traceback" not in process.stderr


def test_a_postfix_that_is_too_old(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "postconf"
    script = (
        '/usr/sbin/postconf "$@" | sed "s/^mail_version = .*/mail_version = 3.3.9/"'
    )
    old.write_text(f"#!/bin/sh\n{script}\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    [finding] = host.findings()
    assert (finding["check"], finding["place"]) == ("postfix-too-old", "Postfix 3.3.9")
