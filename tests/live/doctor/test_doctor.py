"""The doctor on a live instance: planted faults are named, a sound host has none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from planted import COMMAND, GUARD, SOUND, Host

from private_postfix import BY_CAPSULE, GROUP, USER, PrivatePostfix, free_ports

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def running() -> Iterator[Host]:
    with PrivatePostfix(main=SOUND) as postfix:
        options = "size=1m,mode=700,uid=65534,gid=65534"
        where = str(postfix.fallback)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], check=True
        )
        try:
            assert postfix.command("queue", "rescue").returncode == 0
            assert postfix.command("outcomes").returncode == 0
            yield Host(postfix)
        finally:
            subprocess.run(["umount", "-l", where], check=True)


@pytest.fixture
def host(running: Host) -> Iterator[Host]:
    """The instance, whose configuration and files come back afterwards."""
    kept = running.etc.with_name("kept")
    subprocess.run(["cp", "-a", str(running.etc), str(kept)], check=True)
    yield running
    shutil.rmtree(running.etc)
    kept.rename(running.etc)
    for path, mode in (("store", 0o700), ("lib", 0o755), ("lib/archive-stamp", 0o755)):
        (running.postfix.folder / path).chmod(mode)
    spare = running.postfix.fallback
    spare.chmod(0o700)
    for folder in (running.postfix.store, spare):
        shutil.chown(folder, USER, GROUP)
    (spare / "aa.capsule").unlink(missing_ok=True)
    (spare / "rescued").touch()
    (spare / "followed").touch()


def changed(before: str, after: str) -> Callable[[str], str]:
    return lambda text: text.replace(before, after, 1)


Plant = Callable[[Host], object]
STAMP = "archive-stamp/unix"
SUBMISSION = "submission inet n - n - - smtpd -o "
SPOOL = "/etc/ssl"  # a folder in which nobody but root may write

FAULTS: tuple[tuple[str, str, Plant], ...] = (
    # check, what is planted, how
    ("nothing-archived", "no archive", lambda h: h.main(archive="")),
    ("archive-invalid", "no address", lambda h: h.main(archive="legal")),
    (
        "archive-invalid",
        "no address on a service",
        lambda h: h.service(f"{SUBMISSION}archive=legal@"),
    ),
    (
        "other-content-filter",
        "a filter of its own",
        lambda h: h.service(
            f"{SUBMISSION}content_filter=smtp-amavis:[127.0.0.1]:10024"
        ),
    ),
    (
        "other-content-filter",
        "no filter on a public port",
        lambda h: h.service(f"{SUBMISSION}content_filter="),
    ),
    (
        "nexthop-missing",
        "no nexthop",
        lambda h: h.main(content_filter="archive-stamp:"),
    ),
    (
        "addresses-mapped-twice",
        "mapping first",
        lambda h: h.main(receive_override_options=""),
    ),
    (
        "addresses-not-mapped",
        "mapping nowhere",
        lambda h: h.main(archive_handback_options="no_address_mappings"),
    ),
    (
        "next-filter",
        "round and round",
        lambda h: h.main(archive_next_filter="archive-stamp:legal@example.com"),
    ),
    (
        "next-filter",
        "a filter that is not there",
        lambda h: h.main(archive_next_filter="smtp-amavis:[127.0.0.1]:10024"),
    ),
    (
        "worker-missing",
        "a socket without a worker",
        lambda h: h.main(content_filter="archive-stamp:unix:private/archive.$archive"),
    ),
    (
        "connection-cache",
        "unix: before the name",
        lambda h: h.main(
            lmtp_connection_cache_destinations="unix:private/archive.legal@example.com"
        ),
    ),
    (
        "request-domain-open",
        "clients may address requests",
        lambda h: h.main(smtpd_recipient_restrictions="permit_mynetworks,reject"),
    ),
    (
        "request-domain-open",
        "the check behind a permit",
        lambda h: h.main(smtpd_recipient_restrictions=f"permit_mynetworks,{GUARD}"),
    ),
    (
        "proxy-unfiltered",
        "a before-queue filter",
        lambda h: h.service(f"{SUBMISSION}smtpd_proxy_filter=127.0.0.1:10099"),
    ),
    (
        "filter-action",
        "FILTER in access",
        lambda h: h.main(
            smtpd_sender_restrictions="check_sender_access "
            + h.table("carol@example.org  FILTER smtp:[127.0.0.1]:10099\n")
        ),
    ),
    (
        "filter-action",
        "FILTER in header_checks of a cleanup",
        lambda h: h.option(
            "cleanup/unix", "header_checks", h.table("/^X-/ FILTER x:y\n", "regexp")
        ),
    ),
    (
        "filter-action",
        "FILTER in a cleanup that a service has of its own",
        lambda h: h.service(
            "own-cleanup unix n - n - 0 cleanup -o header_checks="
            + h.table("/^X-/ FILTER x:y\n", "regexp")
        ).service(
            SUBMISSION + "cleanup_service_name=own-cleanup -o syslog_name=postfix/sub"
        ),
    ),
    (
        "filter-action",
        "FILTER said in the list itself",
        lambda h: h.main(
            smtpd_client_restrictions="check_client_access static:{FILTER x:y}"
        ),
    ),
    (
        "redirect-action",
        "REDIRECT in body_checks",
        lambda h: h.main(
            body_checks=h.table("/merger of/ redirect boss@example.com\n", "pcre")
        ),
    ),
    (
        "archive-action",
        "ARCHIVE in an indexed table",
        lambda h: h.main(
            smtpd_recipient_restrictions=f"{GUARD},check_recipient_access "
            + h.table("bob@example.net ARCHIVE hr@example.com\n", "hash")
            + ",permit_mynetworks,reject"
        ),
    ),
    (
        "archive-action",
        "ARCHIVE in a cidr table",
        lambda h: h.main(
            smtpd_client_restrictions="check_client_access "
            + h.table("192.0.2.0/24 ARCHIVE hr@example.com\n", "cidr")
        ),
    ),
    (
        "request-mapped",
        "a catch-all of virtual",
        lambda h: h.main(
            virtual_alias_maps=h.table("/(.*)@.*/ $1@example.com\n", "regexp")
        ),
    ),
    (
        "request-mapped",
        "a canonical of the domain",
        lambda h: h.main(
            canonical_maps=h.table("@archive-request.invalid @example.com\n", "hash")
        ),
    ),
    ("request-route", "no route", lambda h: h.main(transport_maps="")),
    (
        "request-route",
        "another route first",
        lambda h: h.main(transport_maps=h.table("/./ smtp:[192.0.2.1]\n", "regexp")),
    ),
    (
        "service-missing",
        "no archive-cleanup",
        lambda h: h.no_service("archive-cleanup/unix"),
    ),
    (
        "soft-bounce",
        "a hard stamp filter",
        lambda h: h.no_option("archive-stamp/unix", "soft_bounce"),
    ),
    (
        "soft-bounce",
        "a hard archive transport",
        lambda h: h.option("archive/unix", "soft_bounce", "no"),
    ),
    (
        "recipient-limit",
        "the default of 50",
        lambda h: h.unset("archive-stamp_destination_recipient_limit"),
    ),
    (
        "recipient-limit",
        "no limit",
        lambda h: h.main(**{"archive-stamp_destination_recipient_limit": "0"}),
    ),
    (
        "time-limit",
        "below our deadline",
        lambda h: h.main(**{"archive-stamp_time_limit": "300s"}),
    ),
    (
        "time-limit",
        "the default below our deadline",
        lambda h: h.unset("archive_time_limit").main(command_time_limit="10m"),
    ),
    ("null-sender", "not said", lambda h: h.entry(STAMP, " null_sender=", "")),
    (
        "pipe-flags",
        "Return-Path: is put in",
        lambda h: h.entry(STAMP, "flags=q ", "flags=qR "),
    ),
    (
        "launcher-arguments",
        "no queue id",
        lambda h: h.entry(STAMP, "--queue-id ${queue_id} ", ""),
    ),
    (
        "service-user",
        "Postfix's own user",
        lambda h: h.entry(STAMP, f"user={USER}:{GROUP}", "user=postfix"),
    ),
    (
        "service-user",
        "nobody of that name",
        lambda h: h.entry(STAMP, f"user={USER}:{GROUP}", "user=gone17"),
    ),
    (
        "program-missing",
        "not executable",
        lambda h: (h.postfix.program / "archive-stamp").chmod(0o600),
    ),
    (
        "program-unreachable",
        "made under umask 077",
        lambda h: h.postfix.program.chmod(0o700),
    ),
    (
        "second-stamp-filter",
        "another stamp filter",
        lambda h: h.service(
            "archive-stamp-old unix - n n - 10 pipe -o soft_bounce=yes flags=q"
            f" user={USER} null_sender= argv=/opt/old/archive-stamp"
        ),
    ),
    ("port-missing", "no hand-back", lambda h: h.no_service(h.port("handback"))),
    (
        "port-option-missing",
        "restrictions",
        lambda h: h.no_option(h.port("handback"), "smtpd_client_restrictions").main(
            smtpd_client_restrictions="reject_unknown_client_hostname"
        ),
    ),
    (
        "port-option-missing",
        "milters",
        lambda h: h.no_option(h.port("capsule"), "smtpd_milters").main(
            smtpd_milters="inet:127.0.0.1:8891"
        ),
    ),
    (
        "port-option-missing",
        "local header rewriting",
        lambda h: h.no_option(h.port("handback"), "local_header_rewrite_clients"),
    ),
    (
        "port-option-missing",
        "the size limit of a port",
        lambda h: h.no_option(h.port("handback"), "message_size_limit"),
    ),
    (
        "port-option-missing",
        "the size limit of cleanup",
        lambda h: h.no_option("archive-cleanup/unix", "message_size_limit"),
    ),
    (
        "port-option",
        "one cleanup for hand-back and capsules",
        lambda h: h.option(
            h.port("capsule"), "cleanup_service_name", "archive-cleanup"
        ),
    ),
    (
        "port-option-missing",
        "the pause before mail is taken in",
        lambda h: h.no_option("archive-cleanup/unix", "in_flow_delay"),
    ),
    (
        "port-option-missing",
        "a bcc of copies",
        lambda h: h.no_option("archive-copy-cleanup/unix", "always_bcc").main(
            always_bcc="boss@example.com"
        ),
    ),
    (
        "port-option",
        "a recipient limit",
        lambda h: h.option(h.port("handback"), "smtpd_recipient_limit", "1000"),
    ),
    (
        "port-option",
        "a filter before the archive transport",
        lambda h: h.option(h.port("capsule"), "content_filter", "smtp:[127.0.0.1]:25"),
    ),
    (
        "port-exposed",
        "no address",
        lambda h: h.master(lambda text: text.replace(h.port("copy")[:-5], "0.0.0.0:9")),
    ),
    (
        "port-unreachable",
        "not reloaded",
        lambda h: h.master(
            changed(h.port("copy")[:-5], f"127.0.0.1:{free_ports(1)[0]}")
        ),
    ),
    (
        "settings-invalid",
        "archive.cf",
        lambda h: h.archive_cf(archive_delivery="nowhere"),
    ),
    (
        "tables-stale",
        "a source that was not compiled",
        lambda h: h.archive_cf(archive_tables=h.source("x ARCHIVE hr@example.com\n")),
    ),
    (
        "tables-stale",
        "a source that cannot be compiled",
        lambda h: h.archive_cf(archive_tables=h.source("x ARCHIVE hr\n")),
    ),
    ("host-name", "another", lambda h: h.archive_cf(myhostname="other.example.com")),
    ("mail-owner", "another", lambda h: h.archive_cf(mail_owner="mail")),
    ("key-missing", "no key", lambda h: (h.etc / "archive.key").unlink()),
    ("key-mode", "for all to read", lambda h: (h.etc / "archive.key").chmod(0o644)),
    ("key-owner", "root's", lambda h: os.chown(h.etc / "archive.key", 0, 0)),
    (
        "key-unreachable",
        "root's alone",
        lambda h: h.archive_cf(archive_key_file=h.locked()),
    ),
    (
        "store-missing",
        "no store",
        lambda h: h.archive_cf(archive_store_directory="/var/lib/not-there"),
    ),
    ("store-owner", "root's", lambda h: os.chown(h.postfix.store, 0, 0)),
    ("store-mode", "for all to read", lambda h: h.postfix.store.chmod(0o755)),
    (
        "fallback-missing",
        "no folder",
        lambda h: h.archive_cf(archive_fallback_directory="/var/spool/not-there"),
    ),
    ("fallback-owner", "root's", lambda h: os.chown(h.postfix.fallback, 0, 0)),
    ("fallback-mode", "for all to read", lambda h: h.postfix.fallback.chmod(0o755)),
    (
        "fallback-same-disk",
        "beside the store",
        lambda h: h.archive_cf(archive_fallback_directory=h.beside("spare")),
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
        lambda h: h.main(maillog_file="/var/log/there/is/none"),
    ),
    ("log-unreadable", "a folder", lambda h: h.main(maillog_file="/var/log")),
    ("log-unreadable", "a device", lambda h: h.main(maillog_file="/dev/stdout")),
    (
        "spool-unwritable",
        "root's",
        lambda h: h.archive_cf(archive_spool_directory=SPOOL),
    ),
    ("queue-lifetime", "short", lambda h: h.main(bounce_queue_lifetime="10m")),
    ("short-queue-ids", "short", lambda h: h.main(enable_long_queue_ids="no")),
    (
        "copy-loop",
        "mailed to ourselves",
        lambda h: h.main(mydestination="example.com").archive_cf(
            archive_delivery="mail"
        ),
    ),
    (
        "archive-address-unknown",
        "no such user",
        lambda h: h.main(
            mydestination="example.com", local_recipient_maps="unix:passwd.byname"
        ),
    ),
    ("duplicate-bcc", "always_bcc", lambda h: h.main(always_bcc="legal@example.com")),
    (
        "duplicate-bcc",
        "a bcc map",
        lambda h: h.main(
            recipient_bcc_maps=h.table("bob@example.net legal@example.com\n")
        ),
    ),
    (
        "original-recipient",
        "not kept",
        lambda h: h.main(enable_original_recipient="no"),
    ),
    (
        "local-clients",
        "the whole network",
        lambda h: h.main(
            local_header_rewrite_clients="permit_mynetworks",
            mynetworks="127.0.0.0/8 192.0.2.0/24",
        ),
    ),
)


def test_a_sound_host_has_no_finding(running: Host) -> None:
    assert running.findings() == []
    said = subprocess.run(
        [str(COMMAND), "-c", str(running.etc), "doctor"], capture_output=True, text=True
    )
    assert said.stdout.startswith("OK: ")
    assert said.returncode == 0


@pytest.mark.parametrize(
    ("check", "plant"),
    [pytest.param(c, p, id=f"{c}: {what}") for c, what, p in FAULTS],
)
def test_a_planted_fault_is_named(host: Host, check: str, plant: Plant) -> None:
    plant(host)
    found = {each["check"]: each for each in host.findings()}
    assert check in found
    assert found[check]["harm"] and found[check]["fix"] and found[check]["place"]


def test_thirty_kinds_of_faults_are_planted() -> None:
    assert len({check for check, _, _ in FAULTS}) >= 30


def test_a_file_system_that_fills_up(host: Host) -> None:
    small = host.postfix.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "t", small], check=True)
    try:
        shutil.chown(small, USER, GROUP)
        small.chmod(0o700)
        host.archive_cf(archive_store_directory=str(small))
        [found] = host.findings()
        assert found["check"] == "free-space"
        assert found["severity"] == "CRITICAL"
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_archive_address_that_refuses_copies(host: Host) -> None:
    host.main(default_transport=f"smtp:[127.0.0.1]:{free_ports(1)[0]}")
    host.postfix.reload()
    host.postfix.send(b"Subject: x\n\nx\n")
    seen: list[dict[str, str]] = []

    def is_named() -> bool:  # in one look: while it is tried again, no reason is shown
        found = [e for e in host.findings() if e["check"] == "copies-refused"]
        seen.extend(found)
        return bool(found)

    host.postfix.wait(is_named, "the refused copy")
    assert seen[0]["place"] == "legal@example.com"
    assert "Connection refused" in seen[0]["harm"]

    host.main(default_transport="sink:")
    host.postfix.reload()
    host.postfix.flush()
    host.postfix.settle()
    assert host.named() == set()


def test_copies_that_wait_too_long(host: Host) -> None:
    host.archive_cf(**BY_CAPSULE)
    (host.postfix.program / "archive").chmod(0)
    host.postfix.send(b"Subject: y\n\ny\n")
    host.postfix.wait_for_log("relay=archive,.*status=(SOFTBOUNCE|deferred)")
    postsuper = ["postsuper", "-c", str(host.etc)]
    subprocess.run([*postsuper, "-h", "ALL"], check=True)
    host.main(bounce_queue_lifetime="2s")
    host.postfix.wait(lambda: "queue-backlog" in host.named(), "the waiting copy")

    (host.postfix.program / "archive").chmod(0o755)
    host.main(bounce_queue_lifetime="5d")
    subprocess.run([*postsuper, "-H", "ALL"], check=True)
    host.postfix.flush()
    host.postfix.settle()
    assert host.named() == set()


def test_mail_that_a_local_user_sends_around_the_archive(host: Host) -> None:
    port = host.postfix.ports[1]
    host.postfix.send(b"Subject: as usual\n\nx\n")
    host.postfix.settle()
    assert host.named() == set()
    queue_id = host.postfix.send(b"Subject: unarchived\n\nx\n", port=port)
    host.postfix.settle()
    [found] = host.findings()
    assert (found["check"], found["place"]) == (
        "foreign-reinjection",
        f"queue id {queue_id}",
    )
    host.postfix.logfile.write_text("")


def test_a_bypass_is_critical(host: Host) -> None:
    command = [str(COMMAND), "-c", str(host.etc), "bypass"]
    subprocess.run([*command, "on", "--reason", "ticket 17"], check=True)
    [found] = host.findings()
    assert (found["check"], found["severity"]) == ("bypass-on", "CRITICAL")
    assert "ticket 17" in found["harm"]
    subprocess.run([*command, "off"], check=True)
    assert host.findings() == []


def test_a_bypass_set_by_hand_is_critical(host: Host) -> None:
    host.main(archive_bypass="yes")
    [found] = host.findings()
    assert found["check"] == "bypass-on"
    assert "by unknown" in found["harm"]
    assert found["fix"].endswith("-e 'archive_bypass = '")


def test_fix_mends_what_is_safe_and_nothing_else(host: Host) -> None:
    before = (host.etc / "main.cf").read_bytes()
    host.option("archive/unix", "soft_bounce", "no")
    host.no_option(host.port("handback"), "smtpd_milters")
    (host.etc / "archive.key").chmod(0o644)
    host.main(always_bcc="legal@example.com")
    assert len(host.findings()) == 4
    [left] = host.findings("--fix")
    assert left["check"] == "duplicate-bcc"
    host.unset("always_bcc")
    assert host.findings() == []
    assert (host.etc / "main.cf").read_bytes() == before
    host.postfix.send(b"Subject: still archived\n\nx\n")
    host.postfix.settle()


def test_cures_that_are_commands_work_as_they_are_typed(host: Host) -> None:
    host.main(enable_original_recipient="no", transport_maps="")
    host.unset("archive-stamp_destination_recipient_limit")
    for each in host.findings():
        subprocess.run(each["fix"], shell=True, check=True)
    assert host.findings() == []


def test_what_cannot_be_looked_at_is_unknown(host: Host) -> None:
    (host.etc / "main.cf").unlink()
    done = subprocess.run(
        [str(COMMAND), "-c", str(host.etc), "doctor"], capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stdout.startswith("UNKNOWN: ")
    assert "main.cf" in done.stdout
    assert "Traceback" not in done.stderr


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
    [found] = host.findings()
    assert (found["check"], found["place"]) == ("postfix-too-old", "Postfix 3.3.9")
