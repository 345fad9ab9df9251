"""Attacks from outside and from this host, on a running Postfix: what gets through.

Forged stamps, capsules and requests; lines smuggled into mail; MIME that tries to end
our parts; addresses that try to be paths, commands or fields. All mail goes through
one instance, set up for clients as make install does it; at the end its store has what
was sent and nothing else. All of it in pipe mode and in native mode, where capture
recipients are one thing more to forge.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from postfix_archive.install import filter_routes
from postfix_archive.message import capsule, keyring, request, stamp
from postfix_archive.message.envelope import Envelope, Recipient, Request
from postfix_archive.postfix import archive_services
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

import corpora
from mails import (
    LEGAL,
    archives_of,
    event_kinds,
    mail,
    one_delivery,
    original_of,
    received_content,
    recipients_of,
    record_of,
    records,
)
from private_postfix import KEY, TIMEOUT, Client, Delivery, PrivatePostfix

pytestmark = pytest.mark.live

KEYS = keyring.parse(KEY, path="test")
OWN_KEY = KEYS.current
FOREIGN_SECRET = bytes(reversed(range(32)))
UNKNOWN_KEY = keyring.Key("nobody", FOREIGN_SECRET)
FOREIGN_KEY_WITH_OUR_ID = keyring.Key(OWN_KEY.key_id, FOREIGN_SECRET)
CEO = "ceo@example.com"
FORGED_ID = "20260101-" + "0" * 40
CAPSULE = request.CAPSULE_RECIPIENT.decode()
ERIN = "erin@example.net"
OTHER_HOP = b"Received: by mx2.example.com; Sun, 22 Nov 2026 12:53:00 +0100\n"

JOURNAL_PLACE = re.compile(
    r"20\d\d/\d\d/\d\d/\d{8}-[0-9a-f]{40}\.eml\.gz|journal|journal\.(last|lock)"
)

MAIN_CF = {
    "relay_domains": "example.net",
    "relay_transport": "sink:",
    "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
    "smtpd_error_sleep_time": "0",
    "smtpd_hard_error_limit": "1000",
    "smtpd_recipient_restrictions": archive_services.guard_restrictions(""),
    "smtpd_relay_restrictions": "permit_mynetworks,permit_sasl_authenticated,"
    "reject_unauth_destination",
}


@pytest.fixture(scope="module", params=["pipe", "native"])
def mode(request: pytest.FixtureRequest) -> str:
    """With a stamp filter and without."""
    return str(request.param)


def main_cf(mode: str) -> dict[str, str]:
    return {**MAIN_CF, "transport_maps": filter_routes.transport_table(mode)}


@pytest.fixture(scope="module")
def host(mode: str) -> Iterator[PrivatePostfix]:
    store = {"archive_delivery": "store"}
    postfix = PrivatePostfix(mode=mode, main=main_cf(mode), archive_cf=store)
    postfix.add_login("alice", "example.com", "secret")
    with postfix:
        yield postfix


def assert_archived_in_full(postfix: PrivatePostfix, name: str, to: str) -> Record:
    """One record, one delivery, and the same bytes at both ends."""
    record = record_of(postfix, name)
    original = original_of(postfix, record)
    assert as_received(postfix, one_delivery(postfix, name, to)) == original
    return record


def as_received(postfix: PrivatePostfix, delivery: Delivery) -> bytes:
    """What was delivered, without what reinjection puts on top."""
    return received_content(delivery.content, is_reinjected=not postfix.is_native)


def is_refused(client: Client, sender: str, to: str) -> bool:
    """Ask for a recipient; tell whether Postfix refuses it for good."""
    client.command(f"MAIL FROM:<{sender}>", 250)
    client.smtp.putcmd(f"RCPT TO:<{to}>")
    code = client.smtp.getreply()[0]
    client.command("RSET", 250)
    return code in (501, 550, 553, 554)


# --- forged stamps ------------------------------------------------------------------


def make_stamp(key: keyring.Key) -> bytes:
    """A stamp as this key makes it, with the line ends of a queue file."""
    tag = stamp.archive_tag(LEGAL, key)
    line = stamp.make(FORGED_ID, tag, b"\0" * 32, 1, key)
    return line.replace(b"\r\n", b"\n")


def variants(true: bytes) -> dict[str, tuple[bytes, str]]:
    """Stamps that are not this message's, and what each is taken for."""
    value = true.removeprefix(b"Archive-Stamp: ").removesuffix(b"\n")
    return {
        "unknown-key": (make_stamp(UNKNOWN_KEY), "forged"),
        "namesake": (make_stamp(FOREIGN_KEY_WITH_OUR_ID), "forged"),
        "another-mails": (true, "altered"),
        "twice": (true * 2, "altered"),
        "around-a-forged-one": (
            true + make_stamp(FOREIGN_KEY_WITH_OUR_ID) + true,
            "altered",
        ),
        "cut-off": (true[: len(true) * 2 // 3] + b"\n", "forged"),
        "cut-off-by-one": (true[:-2] + b"\n", "forged"),
        "folded-at-each-equals": (true.replace(b"=", b"=\n "), "altered"),
        "folded-at-each-byte": (_fold_every_byte(value), "forged"),  # too long for one
        "forged-and-folded": (
            make_stamp(FOREIGN_KEY_WITH_OUR_ID).replace(b";", b";\n\t \n\t"),
            "forged",
        ),
        "a-megabyte": (b"Archive-Stamp: " + b"x" * (1 << 20) + b"\n", "forged"),
        "a-megabyte-of-folds": (true[:-1] + b"\n x" * (1 << 18) + b"\n", "forged"),
        "nul-at-the-end": (true[:-1] + b"\0\n", "altered"),
        "nul-within": (true.replace(b"h=", b"h=\0"), "forged"),
        "no-value": (b"Archive-Stamp:\n", "forged"),
        "16-before-it": (make_stamp(FOREIGN_KEY_WITH_OUR_ID) * 16 + true, "forged"),
    }


def _fold_every_byte(value: bytes) -> bytes:
    return b"Archive-Stamp: " + b"\n ".join(bytes((c,)) for c in value) + b"\n"


NAMES = tuple(variants(b""))


@pytest.fixture(scope="module")
def stamped_message(host: PrivatePostfix) -> bytes:
    """A message that has passed the host: a true stamp on what was delivered.

    In native mode it has passed another host of the site as well, which puts stamps.
    """
    host.send(mail("donor"))
    host.wait_for_empty_queue()
    content = one_delivery(host, "donor", "bob@example.net").content
    if not host.is_native:
        return content
    record = record_of(host, "donor")
    tag = stamp.archive_tag(LEGAL, OWN_KEY)
    digest = hashlib.sha256(original_of(host, record)).digest()
    line = stamp.make(record.archive_id, tag, digest, 1, OWN_KEY)
    return OTHER_HOP + line.replace(b"\r\n", b"\n") + content


@pytest.fixture(scope="module")
def verdict_by_name(host: PrivatePostfix, stamped_message: bytes) -> dict[str, str]:
    """All variants sent, one message each; what each is to be taken for."""
    match = re.search(rb"Archive-Stamp:.*?h=\S+\n", stamped_message, re.DOTALL)
    assert match
    all_variants = variants(match[0])
    for name, (line, _) in all_variants.items():
        host.send(b"X-Above: it\n" + line + mail(f"forged {name}"), to=[ERIN])
    host.wait_for_empty_queue()
    return {name: verdict for name, (_, verdict) in all_variants.items()}


@pytest.mark.parametrize("name", NAMES)
def test_mail_with_a_forged_stamp_is_archived_in_full_and_delivered_once(
    host: PrivatePostfix, verdict_by_name: dict[str, str], name: str
) -> None:
    record = assert_archived_in_full(host, f"forged {name}", ERIN)
    assert event_kinds(record) == ["archived"]
    assert record.events[0]["stamp"] == verdict_by_name[name]
    assert recipients_of(record) == [ERIN]


# --- stamps of old mail -------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"Subject: another",
        b"Content-Type: text/html",
        b"Received: from x by y; Sun, 22 Nov 2026 12:53:00 +0100",
    ],
)
def test_a_line_above_an_old_stamp_is_in_the_supplement_with_the_new_recipients(
    host: PrivatePostfix, stamped_message: bytes, line: bytes
) -> None:
    name = line.partition(b":")[0].decode().lower()
    to = [f"{name}1@example.net", f"{name}2@example.net"]
    host.send(line + b"\n" + stamped_message, sender="mallory@example.org", to=to)
    host.wait_for_empty_queue()
    record = record_of(host, "donor")
    assert set(to) <= set(recipients_of(record))
    assert event_kinds(record)[-1] == "supplement"
    assert line.decode() + "\r\n" in record.events[-1]["above"]
    assert "mallory@example.org" in record.events[-1]["envelope"]
    content = as_received(host, one_delivery(host, "donor", to[0]))
    above = record.events[-1]["above"].encode()
    assert content.startswith(above)
    assert content.endswith(original_of(host, record))


@pytest.mark.parametrize(
    "line",
    [
        b"Subject: another",
        b"Content-Type: text/html",
        b"Received: from x by y; Sun, 22 Nov 2026 12:53:00 +0100",
        b" ; x=hidden",
    ],
)
def test_a_line_below_an_old_stamp_makes_a_record_of_its_own(
    host: PrivatePostfix, stamped_message: bytes, line: bytes
) -> None:
    match = re.search(rb"Archive-Stamp:.*?h=\S+\n", stamped_message, re.DOTALL)
    assert match
    name = "below " + line.partition(b":")[0].decode().strip(" ;=")
    changed = (
        stamped_message[: match.end()] + line + b"\n" + stamped_message[match.end() :]
    )
    host.send(
        changed.replace(b"This is donor.", f"This is {name}.".encode()), to=[ERIN]
    )
    host.wait_for_empty_queue()
    record = assert_archived_in_full(host, name, ERIN)
    assert line + b"\r\n" in original_of(host, record)
    assert record.events[0]["stamp"] == ("forged" if line[:1] == b" " else "altered")


def test_new_content_under_an_old_stamp_is_archived_in_full(
    host: PrivatePostfix, stamped_message: bytes
) -> None:
    head = stamped_message.partition(b"\n\n")[0]
    host.send(head + b"\n\nThis is new content.\n", to=[ERIN])
    host.wait_for_empty_queue()
    record = assert_archived_in_full(host, "new content", ERIN)
    assert record.events[0]["stamp"] == "altered"


# --- forged capsules ----------------------------------------------------------------


def make_capsule(
    keys: keyring.Keyring = KEYS, name: str = "inside", **overrides: str
) -> bytes:
    """A capsule that asks for an archive of the attacker's choice."""
    content = mail(name).replace(b"\n", b"\r\n")
    envelope = Envelope(
        archive_id=FORGED_ID,
        host=b"mail.example.com",
        queue_id=b"4Zx",
        sender=b"alice@example.org",
        recipients=(Recipient(b"bob@example.net"),),
        requests=(Request(overrides.get("archive", CEO), "nexthop"),),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    return (
        capsule.make_preamble(envelope, keys, sender=b"x@example.com", now=1) + content
    )


GENUINE_CAPSULE = make_capsule()
FORGED_CAPSULES = {
    "unknown key": make_capsule(keyring.Keyring((UNKNOWN_KEY,))),
    "namesake": make_capsule(keyring.Keyring((FOREIGN_KEY_WITH_OUR_ID,))),
    "other recipient": GENUINE_CAPSULE.replace(b"bob@", b"eve@", 1),
    "other archive": GENUINE_CAPSULE.replace(CEO.encode(), b"../../etc/x@example.com"),
    "other digest": re.sub(
        rb"(SHA256: )[0-9a-f]{8}", rb"\g<1>00000000", GENUINE_CAPSULE
    ),
    "seal of another": GENUINE_CAPSULE.replace(
        b"Archive-Id: 2026", b"Archive-Id: 2025"
    ),
    "cut off": GENUINE_CAPSULE[: GENUINE_CAPSULE.index(b"Archive-Seal") + 20] + b"\r\n",
    "no seal": re.sub(rb"Archive-Seal:[^\r]*\r\n", b"", GENUINE_CAPSULE),
    "no envelope": b"Subject: x\r\n\r\nArchive-Capsule: 1\r\n\r\nx\r\n",
    "NUL": GENUINE_CAPSULE.replace(b"h=", b"h=\0"),
    "a megabyte": GENUINE_CAPSULE.replace(b"h=", b"h=" + b"0" * (1 << 20)),
    "ordinary mail": mail("ordinary"),
}


@contextmanager
def asserting_nothing_stored(postfix: PrivatePostfix) -> Iterator[None]:
    """Fail if anything gets into the store meanwhile; empty the queue at the end."""
    before = postfix.stored_files(), postfix.events()
    try:
        yield
        assert (postfix.stored_files(), postfix.events()) == before
        assert sorted(os.listdir(postfix.store)) == [LEGAL]
        assert not list(postfix.fallback.glob("*.capsule"))
    finally:
        postfix.delete_messages(waiting_ids(postfix))


def waiting_ids(postfix: PrivatePostfix) -> list[str]:
    """The queue ids of all that waits."""
    return sorted(str(each["queue_id"]) for each in postfix.mailq())


def test_forged_capsules_from_this_host_wait_and_reach_no_archive(
    host: PrivatePostfix, stamped_message: bytes
) -> None:
    assert stamped_message
    port = host.ports[2]
    with asserting_nothing_stored(host):
        for forged_capsule in FORGED_CAPSULES.values():
            queue_id = host.send(forged_capsule, sender="", to=[CAPSULE], port=port)
            host.wait_for_failure(f"={queue_id} error=(SealInvalid|CapsuleBroken) ")
    assert archives_of(host, "ordinary") == archives_of(host, "inside") == []


def test_no_mail_waits_for_forged_capsules(host: PrivatePostfix) -> None:
    port = host.ports[2]
    capsules = list(FORGED_CAPSULES.values())
    forged = sorted(host.send(e, sender="", to=[CAPSULE], port=port) for e in capsules)
    try:
        host.send(mail("meanwhile"), to=[ERIN])
        host.wait(lambda: archives_of(host, "meanwhile"), "other mail is archived")
        host.wait(lambda: waiting_ids(host) == forged, "the forgeries alone wait")
        assert_archived_in_full(host, "meanwhile", ERIN)
    finally:
        host.delete_messages(forged)


@pytest.mark.parametrize("way", ["sendmail", "reinjection"])
def test_forged_capsules_sent_past_the_capsule_port_are_mail_and_do_not_wait(
    host: PrivatePostfix, stamped_message: bytes, way: str
) -> None:
    """They are mail for nobody: archived as that, and reported as forgeries."""
    assert stamped_message
    names = ("namesake", "other recipient", "ordinary mail")
    before = len(forgery_alarms(host))
    for each in names:
        if way == "sendmail":
            process = host.sendmail(FORGED_CAPSULES[each], sender="", to=[CAPSULE])
            assert process.returncode == 0
        else:
            port = host.ports[1]
            host.send(FORGED_CAPSULES[each], sender="", to=[CAPSULE], port=port)
    host.wait_for_empty_queue()
    assert len(forgery_alarms(host)) == before + len(names)
    assert not list(host.fallback.glob("*.capsule"))
    assert not (host.store / CEO).exists()


def forgery_alarms(postfix: PrivatePostfix) -> set[str]:
    """The queue ids of all messages in which a forgery was reported."""
    return set(re.findall(r" (\w+): to=.*alarm=[^ ]*forged", postfix.log()))


def test_a_secret_helo_name_keeps_other_clients_from_the_capsule_port() -> None:
    with PrivatePostfix(
        main=main_cf("pipe"), archive_cf={"archive_write_through_time_limit": "0"}
    ) as own_host:
        assert own_host.run_command("key", "helo").returncode == 0
        path = own_host.etc / "archive.key.helo"
        name = path.read_text()
        own_host.postconf(archive_capsule_helo=f"texthash:{path}")
        own_host.reload()
        for helo in ("localhost", "capsule", "archive-request.invalid"):
            with Client(own_host.ports[2], helo) as client:
                assert is_refused(client, "", CAPSULE)
        assert own_host.mailq() == []
        own_host.send(mail("admitted"), to=[ERIN])
        own_host.wait_for_empty_queue()
        assert archives_of(own_host, "admitted") == [LEGAL]
        # A name that smtpd(8) does not know yet delays mail, and bounces none.
        path.write_text("capsule-other OK\n")
        own_host.send(mail("waiting"), to=[ERIN])
        own_host.wait_for_failure("error=PostfixRefused .*Access denied")
        assert [each["sender"] for each in own_host.mailq()] == ["alice@example.org"]
        own_host.reload()
        own_host.flush()
        own_host.wait_for_empty_queue()
        assert archives_of(own_host, "waiting") == [LEGAL]
        one_delivery(own_host, "waiting", ERIN)
        assert name.split()[0] not in own_host.log()


def test_clients_cannot_send_capsules(host: PrivatePostfix) -> None:
    for client in clients(host):
        assert is_refused(client, "", CAPSULE)


def test_a_capsule_in_a_mail_is_only_a_mail(host: PrivatePostfix) -> None:
    for number, sent_capsule in enumerate(
        (GENUINE_CAPSULE, FORGED_CAPSULES["namesake"])
    ):
        name = f"carrier{number}"
        host.send(sent_capsule + b"\r\n" + mail(name), to=[ERIN])
        host.wait_for_empty_queue()
        assert_archived_in_full(host, name, ERIN)
        assert archives_of(host, name) == [LEGAL]
    assert not (host.store / CEO).exists()


def test_forgeries_in_the_fallback_directory_keep_no_copy_from_returning(
    host: PrivatePostfix,
) -> None:
    """Rescue takes there whatever waits too long for the archive transport."""
    assert len(FORGED_CAPSULES) > 10
    files = [*FORGED_CAPSULES.values(), make_capsule(name="rescued", archive=LEGAL)]
    for number, content in enumerate(files):
        path = host.fallback / f"{number:064}.capsule"
        path.write_bytes(content)
        os.utime(path, (number, number))
        os.chown(path, *(host.fallback.stat().st_uid, host.fallback.stat().st_gid))
    process = host.run_command("fallback", "import")
    assert process.returncode == 1
    assert f"Messages archived from {host.fallback}: 1." in process.stdout
    assert (
        f"Messages left in {host.fallback}: {len(FORGED_CAPSULES)}." in process.stderr
    )
    assert archives_of(host, "rescued") == [LEGAL]
    for path in host.fallback.glob("*.capsule"):
        path.unlink()


# --- forged requests ----------------------------------------------------------------


def clients(postfix: PrivatePostfix) -> Iterator[Client]:
    """Clients that smtpd knows: from outside, one that logged in, from this host."""
    for kind in ("outside", "logged in", "here"):
        with Client(postfix.smtp_port) as client:
            if kind != "here":
                client.command("XCLIENT NAME=mx.example.org ADDR=192.0.2.1", 220)
                client.smtp.ehlo()
            if kind == "logged in":
                client.smtp.login("alice@example.com", "secret")
            yield client


GENUINE_REQUEST = request.make_recipient(CEO, KEYS).decode()
MAC = request.make_recipient(LEGAL, KEYS).decode().partition(".")[0]


def capture_seal(archive: str) -> str:
    """MAC and archive as capture recipients of this host have them."""
    table = request.capture_table(archive, KEYS)
    match = re.search(r"capture\.(\w+\.\w+)@", table)
    assert match
    return match[1]


REQUESTS = (
    GENUINE_REQUEST,
    f"{MAC}.{CEO.encode().hex()}@archive-request.invalid",
    f"{'0' * 32}.{CEO.encode().hex()}@archive-request.invalid",
    "anything@archive-request.invalid",
)


# Capture recipients: guessed, copied from another archive, true ones.
CAPTURE_SEALS = (
    f"{'0' * 32}.{CEO.encode().hex()}",
    f"{capture_seal(LEGAL).partition('.')[0]}.{CEO.encode().hex()}",
    capture_seal(LEGAL),
    capture_seal(CEO),
)
CAPTURES = tuple(
    f"capture.{seal}.{recipient}@archive-request.invalid"
    for seal in CAPTURE_SEALS
    for recipient in ("bob", "bob+x", "capture." + capture_seal(CEO) + ".bob")
)

# This host has no table for CEO, so that nobody can know the last seal.
KNOWN_CAPTURES = CAPTURES[: -len(CAPTURES) // len(CAPTURE_SEALS)]


def address_variants(address: str) -> list[str]:
    """Ways to write an address in the domain of requests."""
    local, _, domain = address.rpartition("@")
    return [
        address,
        address.upper(),
        f"{address}.",
        f'"{local}"@{domain}',
        f"{local}@x.{domain}",
        f"@relay.example:{address}",
        f'"{address}"@[127.0.0.1]',
        f"{local}%{domain}@[127.0.0.1]",
        f"{domain}!{local}@[127.0.0.1]",
        f"{domain}!{local}",
        f"{local}@example.net%{domain}",
    ]


def test_no_client_can_request_an_archive(host: PrivatePostfix) -> None:
    """Not even with a true request, which a client can hardly know."""
    for client in clients(host):
        for address in (*REQUESTS, *CAPTURES):
            for each in address_variants(address):
                assert is_refused(client, "eve@example.org", each), each
    assert not (host.store / CEO).exists()


def test_the_mac_of_another_archive_requests_nothing_and_is_logged(
    host: PrivatePostfix,
) -> None:
    """Users of this host can name the domain, by sendmail(1)."""
    for number in (0, 1, 3):  # spellings that reach the filter as they are
        recipients = [address_variants(each)[number] for each in REQUESTS[1:]]
        to = f"asked{number}@example.net"
        host.sendmail(mail(f"asked{number}"), sender=ERIN, to=[to, *recipients])
        host.wait(partial(host.delivered_to, to), "it is delivered")
        host.wait_for_empty_queue()
        record = assert_archived_in_full(host, f"asked{number}", to)
        assert recipients_of(record) == [to]
        queue_id = record.envelope.queue_id.decode()
        assert re.search(f" {queue_id}: to=.*alarm=forged forged=3 ", host.log())
    assert sorted(os.listdir(host.store)) == [LEGAL]


# Ways past smtpd's check of recipients that a client may try.
ENVELOPES = {
    "sender": ("{forged}", ERIN, ()),
    "sender of mail that fails": ("{forged}", "failing@example.net", ()),
    "ORCPT": ("eve@example.org", ERIN, ("ORCPT=rfc822;{forged}",)),
    "alias": ("eve@example.org", "alias@example.net", ()),
}


@pytest.fixture(scope="module")
def aliasing_host(host: PrivatePostfix, mode: str) -> PrivatePostfix:
    """The same with an alias for a capture recipient, and a domain that fails."""
    transports = filter_routes.transport_table(mode)
    host.postconf(
        transport_maps=f"{transports} inline:{{{{fails.example.net=error:5.1.1 no}}}}",
        virtual_alias_maps=f"inline:{{{{alias@example.net={ERIN},{CAPTURES[0]}}},"
        " {failing@example.net=nobody@fails.example.net}}",
    )
    host.reload()
    return host


@pytest.mark.parametrize("way", ENVELOPES)
def test_a_capture_recipient_elsewhere_in_the_envelope_requests_nothing(
    aliasing_host: PrivatePostfix, way: str
) -> None:
    """The seal is guessed: who can read the true one is on this host already."""
    host, name = aliasing_host, f"by {way}"
    sender, to, options = ENVELOPES[way]
    host.send(
        mail(name),
        sender=sender.format(forged=CAPTURES[0]),
        to=[to],
        rcpt_options=tuple(each.format(forged=CAPTURES[0]) for each in options),
    )
    host.wait_for_empty_queue()
    assert archives_of(host, name) == [LEGAL]
    assert recipients_of(record_of(host, name)) == [to]
    assert not (host.store / CEO).exists()


def test_etrn_and_xforward_give_a_client_nothing(host: PrivatePostfix) -> None:
    domain = request.DOMAIN.decode()
    for client in clients(host):
        for command in (f"ETRN {domain}", f"ETRN @{domain}", "XFORWARD SOURCE=LOCAL"):
            client.smtp.putcmd(command)
            assert client.smtp.getreply()[0] >= 400, command


def test_sendmail_t_with_a_capture_recipient_archives_nowhere_unnoticed(
    host: PrivatePostfix,
) -> None:
    """A true one, which a local user may know, adds to that record (docs/limits.md)."""
    command = ["/usr/sbin/sendmail", "-C", str(host.etc), "-i", "-t", "-f", ERIN]
    environment = {**os.environ, "MAIL_CONFIG": str(host.etc)}
    for number, capture in enumerate(KNOWN_CAPTURES):
        name = f"by header {number}"
        header = f"To: {ERIN}, {capture}\n".encode()
        text = mail(name).replace(b"To: undisclosed-recipients:;\n", header)
        subprocess.run(command, input=text, env=environment, check=True)
        host.wait(partial(records, host, name), "it is archived")
        host.wait_for_empty_queue()
        record = record_of(host, name)
        assert ERIN in recipients_of(record)
        assert record.envelope.queue_id.decode() in forgery_alarms(host)


# --- smuggled lines and messages ----------------------------------------------------


INNER_SESSION = (
    b"MAIL FROM:<smuggled@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nThis is smuggled.\r\n.\r\nQUIT\r\n"
)
FALSE_ENDS = {
    "LF . LF": b"\n.\n",
    "LF . CRLF": b"\n.\r\n",
    "CRLF . LF": b"\r\n.\n",
    "CR . CR": b"\r.\r",
    "CR . CRLF": b"\r.\r\n",
    "CRLF . CR": b"\r\n.\r",
    "CR LF NUL . CRLF": b"\r\n\0.\r\n",
    "CR CR LF . CR CR LF": b"\r\r\n.\r\r\n",
}


def send_raw_data(postfix: PrivatePostfix, content: bytes, to: str) -> list[str]:
    """Send bytes after DATA, whatever they are; return the queue ids that came of it.

    They end with the end of DATA; what comes before it may end it earlier.
    """
    with socket.create_connection(("127.0.0.1", postfix.smtp_port), TIMEOUT) as peer:
        replies_file = peer.makefile("rb")
        replies_file.readline()
        hello = (b"HELO client.example.org", b"MAIL FROM:<mallory@example.org>")
        for command in (*hello, f"RCPT TO:<{to}>".encode(), b"DATA"):
            peer.sendall(command + b"\r\n")
            replies_file.readline()
        peer.sendall(content + b"\r\n.\r\nQUIT\r\n")
        replies = replies_file.read().decode()
    return re.findall(r"queued as (\w+)", replies)


@pytest.mark.parametrize("name", FALSE_ENDS)
def test_smuggling_makes_no_message_that_postfix_did_not_accept(
    host: PrivatePostfix, name: str
) -> None:
    """Where the host's smtpd takes such an end for one, both messages are archived."""
    to = f"smuggler{list(FALSE_ENDS).index(name)}@example.net"
    before = {each.envelope.queue_id for each in every_record(host)}
    count = len(host.deliveries())
    outer_message = (
        b"Subject: outer\r\n\r\nThis is the outer one"
        + FALSE_ENDS[name]
        + INNER_SESSION
    )
    accepted = send_raw_data(host, outer_message, to)
    assert accepted
    host.wait_for_empty_queue()
    new = [e for e in every_record(host) if e.envelope.queue_id not in before]
    assert sorted(each.envelope.queue_id.decode() for each in new) == sorted(accepted)
    assert len(host.deliveries()) == count + len(accepted)
    archived = sorted(original_of(host, each) for each in new)
    arrived = host.delivered_to(to) + host.delivered_to("victim@example.net")
    delivered_contents = [as_received(host, each) for each in arrived]
    assert set(archived) <= set(delivered_contents)
    [outer_one] = host.delivered_to(to)
    assert as_received(host, outer_one) in archived


def every_record(postfix: PrivatePostfix) -> list[Record]:
    return list(record_reader.records(str(postfix.store), LEGAL))


def test_bare_line_ends_smuggle_no_stamp_and_no_request(
    host: PrivatePostfix, stamped_message: bytes
) -> None:
    """Postfix has made an end of bare LF and a space of bare CR before we see it."""
    match = re.search(rb"Archive-Stamp:.*?h=\S+\n", stamped_message, re.DOTALL)
    assert match
    true = match[0].replace(b"\n\t", b" ").rstrip()
    content = b"X-Cr: a\r" + true + b"\rX-After: b\r\n"
    content += b"X-Lf: a\n" + true + b"\nX-After: b\r\n"
    content += b"X-Both: a\r\r\n" + true + b"\r\r\nSubject: x\r\n\r\n"
    content += b"a\r" + true + b"\n" + true + b"\r\n.\rb\n..\n.x\r\n\r\r\n"
    send_raw_data(host, content + b"This is smuggling stamps.\r\n", ERIN)
    host.wait_for_empty_queue()
    record = assert_archived_in_full(host, "smuggling stamps", ERIN)
    assert record.events[0]["stamp"] == "altered"
    delivered_content = one_delivery(host, "smuggling stamps", ERIN).content
    assert delivered_content.count(b"Archive-Stamp: ") == content.count(
        b"Archive-Stamp: "
    ) + (not host.is_native)


# --- MIME that would end our parts, and forged markers --------------------------------


def copy_of(postfix: PrivatePostfix, name: str) -> bytes:
    """The archive copy in the store."""
    record = record_of(postfix, name)
    return corpora.read_copy(postfix.store / LEGAL / record.files[0])


def assert_one_message_inside(copy: bytes, original: bytes, last: bytes) -> None:
    """The email package finds the whole original in the last of three parts."""
    assert corpora.extract_original(copy) == original
    for message in corpora.parse(copy):
        parts = corpora.parts_of(message)
        kinds = [each.get_content_type() for each in parts]
        assert kinds == ["text/plain", "message/delivery-status", "message/rfc822"]
        assert corpora.defects(message) == []
        [inner_message] = corpora.parts_of(parts[2])
        assert last in inner_message.as_bytes()
        assert not message.epilogue


def test_the_boundary_of_an_earlier_copy_ends_nothing(host: PrivatePostfix) -> None:
    """The same message again, and in it all that is known of its first copy."""
    host.send(mail("boundary"))
    host.wait_for_empty_queue()
    first = copy_of(host, "boundary")
    boundary_match = re.search(rb'boundary="([^"]+)"', first)
    assert boundary_match
    guesses = [
        boundary_match[1],
        boundary_match[1][:-1],
        b"=_archive_",
        b"=_archive_" + b"0" * 30,
    ]
    lines = b"".join(
        b"--%s\n--%s--\n\n--%s\nContent-Type: text/plain\n\nfalse\n" % (g, g, g)
        for g in guesses
    )
    lines += first.replace(b"\r\n", b"\n").replace(b"This is boundary.", b"")
    for number, head in enumerate((b"", b"Content-Type: text/plain\n")):
        name = f"closing{number}"
        last = f"The end of {name}.".encode()
        host.send(head + mail(name) + lines + last + b"\n", to=[ERIN])
        host.wait_for_empty_queue()
        record = assert_archived_in_full(host, name, ERIN)
        copy = copy_of(host, name)
        assert boundary_match[1] not in copy.partition(b"\r\n\r\n")[0]
        assert_one_message_inside(copy, original_of(host, record), last)


def test_a_copy_sent_as_a_message_is_archived_unchanged(
    host: PrivatePostfix,
) -> None:
    host.send(mail("matryoshka"))
    host.wait_for_empty_queue()
    copy = copy_of(host, "matryoshka").replace(b"This is matryoshka.", b"The first.")
    host.send(copy + b"This is outside.\n", to=[ERIN])
    host.wait_for_empty_queue()
    record = assert_archived_in_full(host, "outside", ERIN)
    assert corpora.extract_original(copy_of(host, "outside")) == original_of(
        host, record
    )


MARKER = b"X-MS-Journal-Report:"
MARKED = {
    "body": b"\n" + MARKER + b"\n",
    "last line": b"\nx\n" + MARKER,
    "with a value": b"\n" + MARKER + b" yes\n" + MARKER + b"\tyes\n",
    "folded": b"\n" + MARKER + b"\n Sender: x@example.org\n",
    "longer name": b"\n" + MARKER[:-1] + b"-Not: x\n",
    "attached": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"
    b"Content-Type: message/rfc822\n\n" + MARKER + b"\nSender: x\n\nx\n--b--\n",
    "after a bare CR": b"\nx\r" + MARKER + b"\n",
    "over every border of a piece": b"\n" + (MARKER + b" 7\n") * 30_000,
}


@pytest.mark.parametrize("name", MARKED)
def test_a_forged_marker_is_in_the_store_and_in_no_mailed_copy(
    host: PrivatePostfix, name: str
) -> None:
    host.set_archive_cf(archive_delivery="store, mail")
    line = f"X-Marked: {name}".encode()
    host.send(line + b"\n" + MARKED[name], to=[ERIN])
    host.wait_for_empty_queue()
    host.set_archive_cf()
    [arrived] = [d for d in host.delivered_to(ERIN) if line in d.content]
    [mailed] = [d for d in host.delivered_to(LEGAL) if line in d.content]
    [archived] = [each for each in originals(host) if line in each]
    assert archived == as_received(host, arrived)
    assert MARKER[:-1] in archived
    copy_header, _, inner = mailed.content.partition(b"Content-Type: message/rfc822\n")
    assert copy_header.count(b"\n" + MARKER) == 1
    assert b"\n" + MARKER[:-1] not in inner
    count = MARKER[:-1].lower()
    assert inner.lower().count(count) == archived.lower().count(count)


def originals(postfix: PrivatePostfix) -> list[bytes]:
    return [original_of(postfix, each) for each in every_record(postfix)]


# --- at the end ---------------------------------------------------------------------


def test_the_store_has_what_was_sent_once_and_nothing_else(
    host: PrivatePostfix, stamped_message: bytes
) -> None:
    """Every message of the tests above counts, by what Postfix's log has of it."""
    assert stamped_message
    host.wait_for_empty_queue()
    captured = re.findall(
        r" (\w+): to=.*relay=.*archive[.-](?:stamp|capture).*status=sent \(.*id=",
        host.log(),
    )
    own_events = [e for e in host.events() if e["id"] != FORGED_ID]
    archived = [each["id"] for each in own_events if each["event"] == "archived"]
    assert len(archived) == len(set(archived)) > 0
    supplements = [each["id"] for each in own_events if each["event"] == "supplement"]
    assert len(set(captured)) == len(archived) + len(supplements)
    for each in (path.relative_to(host.store) for path in host.store.rglob("*.*")):
        assert each.parts[0] == LEGAL
        if not (host.store / each).is_dir():
            assert JOURNAL_PLACE.fullmatch(str(each.relative_to(LEGAL)))
    assert host.run_command("verify").returncode == 0
