"""postsuper -r sends a queue file through pickup(8) again: still one capture."""

from __future__ import annotations

import hashlib
import re
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from staged_postfix import StagedPostfix

from postfix_archive.message import capsule, keyring
from postfix_archive.message.envelope import Envelope, Recipient, Request
from postfix_archive.store import fallback, record_reader

from mails import (
    LEGAL,
    deliveries,
    event_kinds,
    mail,
    one_delivery,
    read_queue_file,
    recipients_of,
    record_of,
    records,
)
from private_postfix import WITHOUT_WRITE_THROUGH, Client, PrivatePostfix

pytestmark = pytest.mark.live


@contextmanager
def deferring_transport(postfix: PrivatePostfix, transport: str) -> Iterator[None]:
    """Keep what goes to a transport in the queue; requeue it at the end, let it go."""
    by_capsule = WITHOUT_WRITE_THROUGH if transport == "archive" else {}
    postfix.set_archive_cf(**by_capsule)
    postfix.postconf(defer_transports=transport)
    postfix.reload()
    yield
    command = ["postsuper", "-c", str(postfix.etc), "-r", "ALL"]
    subprocess.run(command, check=True, capture_output=True)
    postfix.postconf(defer_transports="")
    postfix.reload()
    postfix.flush()


def wait_for_arrival(postfix: PrivatePostfix, name: str, to: str) -> None:
    """Return when the message, or its copy, is there and the queue is empty."""
    postfix.wait(lambda: deliveries(postfix, name, to), f"{name} is at {to}")
    postfix.wait_for_empty_queue()


def test_an_original_requeued_before_its_capture_keeps_its_first_queue_id(
    postfix: PrivatePostfix,
) -> None:
    with deferring_transport(postfix, "archive-stamp"):
        queue_id = postfix.send(mail("original"))
        postfix.wait_for_log(f"{queue_id}.*deferred transport")
    wait_for_arrival(postfix, "original", LEGAL)
    record = record_of(postfix, "original")
    assert event_kinds(record) == ["archived", "mailed"]
    assert record.envelope.queue_id.decode() == queue_id
    assert b"from userid" in record_reader.original_head(str(postfix.store), record)


def test_a_capsule_requeued_is_sent_on_to_the_archive_transport(
    postfix: PrivatePostfix,
) -> None:
    with deferring_transport(postfix, "archive"):
        postfix.send(mail("capsule"))
        postfix.wait(
            lambda: deliveries(postfix, "capsule", "bob@example.net"), "it is delivered"
        )
    wait_for_arrival(postfix, "capsule", LEGAL)
    assert event_kinds(record_of(postfix, "capsule")) == ["archived", "mailed"]
    assert "result=requeued" in postfix.log()


def test_a_capsule_requeued_where_pickup_does_not_archive_still_arrives() -> None:
    pickup = "pickup unix n - n 1 1 pickup"
    with PrivatePostfix(
        edit_master=lambda text: text.replace(pickup, f"{pickup}\n  -o archive=")
    ) as postfix:
        with deferring_transport(postfix, "archive"):
            postfix.send(mail("capsule"))
            postfix.wait(
                lambda: deliveries(postfix, "capsule", "bob@example.net"),
                "it is delivered",
            )
        wait_for_arrival(postfix, "capsule", LEGAL)
        assert event_kinds(record_of(postfix, "capsule")) == ["archived", "mailed"]


def test_reinjected_mail_requeued_makes_no_second_copy(
    postfix: PrivatePostfix,
) -> None:
    waits = "to=<bob@example.net>.*deferred transport"
    before = len(re.findall(waits, postfix.log()))
    with deferring_transport(postfix, "sink"):
        postfix.send(mail("back"))
        postfix.wait(lambda: records(postfix, "back"), "it is stored")
        postfix.wait_for_log(waits, before + 1)  # it was handed back
    wait_for_arrival(postfix, "back", "bob@example.net")
    assert event_kinds(record_of(postfix, "back")).count("archived") == 1
    one_delivery(postfix, "back", "bob@example.net")


def test_a_copy_requeued_leaves_as_it_was_to_leave() -> None:
    with PrivatePostfix(main={"always_bcc": "everybody@example.net"}) as postfix:
        (postfix.etc / "transport").write_text(
            "archive-request.invalid archive-stamp:on-request\n" f"{LEGAL} slow:\n"
        )
        text = (postfix.etc / "master.cf").read_text()
        slow = text[text.index("sink unix") :].partition("\n#")[0]
        with (postfix.etc / "master.cf").open("a") as master:
            master.write(slow.replace("sink unix", "slow unix", 1) + "\n")
        postfix.postconf(transport_maps=f"texthash:{postfix.etc}/transport")
        postfix.reload()
        with deferring_transport(postfix, "slow"):
            postfix.send(mail("copied"), to=["bob@example.net", "hidden@example.net"])
            postfix.wait_for_log(f"to=<{LEGAL}>.*deferred transport")
            # Else the original is requeued as well, which adds a supplement.
            postfix.wait(lambda: len(postfix.mailq()) == 1, "the copy waits alone")
        wait_for_arrival(postfix, "copied", LEGAL)
        assert event_kinds(record_of(postfix, "copied")) == ["archived", "mailed"]
        bcc_copies = deliveries(postfix, "copied", "everybody@example.net")
        assert len(bcc_copies) == 1
        assert b"hidden@example.net" not in bcc_copies[0].content


def test_an_original_altered_in_the_queue_is_archived_marked_and_reported() -> None:
    """By a pattern for the very line of base64 that holds its end."""
    with PrivatePostfix() as postfix:
        with deferring_transport(postfix, "archive"):
            postfix.send(mail("altered"))
            postfix.wait(
                lambda: deliveries(postfix, "altered", "bob@example.net"), "it is there"
            )
            [waiting] = postfix.mailq()
            last = (
                read_queue_file(postfix, str(waiting["queue_id"])).split()[-1].decode()
            )
            end = b64decode(last) + b"By somebody's rule.\r\n"
            pattern = last.replace("+", r"\+")
            rule = f"~^{pattern}$~ REPLACE {b64encode(end).decode()}\n"
            (postfix.etc / "rules").write_text(rule)
            postfix.postconf(body_checks=f"regexp:{postfix.etc}/rules")
            postfix.reload()
        wait_for_arrival(postfix, "altered", LEGAL)
        record = record_of(postfix, "altered")
        original = b"".join(record_reader.original(str(postfix.store), record))
        assert original.endswith(end)
        sealed_sha256 = record.envelope.sha256
        assert record.events[0]["sha256"] == hashlib.sha256(original).hexdigest()
        assert record.events[0]["sha256"] != sealed_sha256
        copy = b"".join(record_reader.archive_copy(str(postfix.store), record))
        assert b"ALTERED IN THE QUEUE" in copy
        assert f"Archive-Original-SHA256: {sealed_sha256}".encode() in copy
        assert "alarm=altered result=" in postfix.log()


def test_a_capsule_with_a_wrong_seal_is_refused_saved_and_reported() -> None:
    forged = Envelope(
        archive_id="20260101-" + "0" * 40,
        host=b"mail.example.com",
        queue_id=b"4Zx",
        sender=b"ceo@example.com",
        recipients=(Recipient(b"bob@example.net"),),
        requests=(Request("legal@example.com", "nexthop"),),
        sha256="0" * 64,
    )
    foreign = keyring.parse("test " + "ab" * 32, path="forger")
    before = capsule.make_preamble(forged, foreign, sender=b"x@example.com", now=1)
    with PrivatePostfix() as postfix:
        with Client(postfix.ports[2]) as client:
            client.send(
                before + b"Subject: forged\r\n\r\nforged\r\n",
                sender="",
                to=["capsule@archive-request.invalid"],
            )
        postfix.wait_for_failure("=SealInvalid reason=capsule with a wrong seal")
        assert not postfix.stored_files()
        [waiting] = postfix.mailq()
        assert waiting["queue_name"] in ("deferred", "active", "incoming")


# --- each queue file, at each stage, past an admin's checks -------------------------

CAPSULE = "capsule@archive-request.invalid"
# Which queue file waits while which transport fails, and for whom it is.
FILES = {
    "original": ("archive-stamp", "bob@example.net"),
    "capsule": ("archive", CAPSULE),
    "handed-back": ("sink", "bob@example.net"),
}
# The one of native mode, for either of its two ways.
NATIVE_FILES = {
    "waiting for the archive": ("archive-capture", "@archive-request.invalid"),
    "waiting for delivery": ("sink", "bob@example.net"),
}
STAGES = ("failed", "held", "twice")
# Requeued mail meets all of these; a capsule's header too.
CHECKS = {
    "header_checks": "/^Received:/ IGNORE\n/^Archive-/ IGNORE\n"
    "/^Subject:/ PREPEND X-Foo: bar\n/^Message-Id: <capsule/ IGNORE\n",
    "mime_header_checks": "/^Content-/ IGNORE\n/^MIME-/ IGNORE\n",
    "nested_header_checks": "/./ IGNORE\n",
    "body_checks": "/secret/ IGNORE\n/^Archive-Nothing:/ REPLACE x\n",
}


def set_checks(postfix: PrivatePostfix, **rules: str) -> None:
    """Set tables of checks; takes effect with reload(), or in new processes."""
    for name, text in rules.items():
        (postfix.etc / name).write_text(text)
        postfix.postconf(**{name: f"regexp:{postfix.etc}/{name}"})


@pytest.fixture(scope="module")
def plain_host() -> Iterator[StagedPostfix]:
    with StagedPostfix() as running:
        yield running


@pytest.fixture(scope="module")
def altering_checks_host() -> Iterator[StagedPostfix]:
    """An instance with checks that alter whatever they can."""
    running = StagedPostfix()
    set_checks(running, **CHECKS)
    with running:
        yield running


def requeue_at_stage(
    postfix: StagedPostfix, name: str, queue_file: str, stage: str
) -> None:
    """Send a message, requeue one of its queue files at a stage, let it go."""
    transport, recipient = {**FILES, **NATIVE_FILES}[queue_file]
    with postfix.failing_transport(transport):
        postfix.send(mail(name))
        postfix.wait_until_deferred(transport)
        if stage == "held":
            postfix.postsuper("-h", postfix.queue_id_of(recipient))
        for _ in range(2 if stage == "twice" else 1):
            before = postfix.queue_id_of(recipient)
            postfix.postsuper("-r", before)
            postfix.wait_for_log(f"pickup.* orig_id={before}")
            postfix.wait_until_deferred(transport)
            assert postfix.queue_id_of(recipient) != before
    postfix.retry_all()
    assert postfix.run_command("verify").returncode == 0
    one_delivery(postfix, name, "bob@example.net")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("queue_file", FILES)
def test_each_queue_file_can_be_requeued_at_each_stage(
    plain_host: StagedPostfix, queue_file: str, stage: str
) -> None:
    name = f"plain-{queue_file}-{stage}"
    requeue_at_stage(plain_host, name, queue_file, stage)
    record = record_of(plain_host, name)
    assert event_kinds(record)[:1] == ["archived"]
    later = ["mailed"]
    if queue_file == "handed-back":  # stamped, it passes the filter again
        later += ["supplement"] * (2 if stage == "twice" else 1)
    assert sorted(event_kinds(record)[1:]) == later
    assert len(deliveries(plain_host, name, LEGAL)) == 1


@pytest.fixture(scope="module")
def native_host() -> Iterator[StagedPostfix]:
    with StagedPostfix(mode="native-pipe") as running:
        yield running


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("queue_file", NATIVE_FILES)
def test_the_queue_file_of_native_mode_can_be_requeued_at_each_stage(
    native_host: StagedPostfix, queue_file: str, stage: str
) -> None:
    name = f"{queue_file}, {stage}"
    requeue_at_stage(native_host, name, queue_file, stage)
    record = record_of(native_host, name)
    assert event_kinds(record).count("archived") == 1
    assert recipients_of(record) == ["bob@example.net"]
    assert len(deliveries(native_host, name, LEGAL)) == 1
    assert "alarm=" not in native_host.log()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("queue_file", ["original", "capsule"])
def test_checks_that_alter_requeued_mail_make_no_second_capture(
    altering_checks_host: StagedPostfix, queue_file: str, stage: str
) -> None:
    """No check of headers reaches into a capsule."""
    name = f"checked-{queue_file}-{stage}"
    requeue_at_stage(altering_checks_host, name, queue_file, stage)
    record = record_of(altering_checks_host, name)
    assert event_kinds(record) == ["archived", "mailed"]
    assert record.events[0]["sha256"] == record.envelope.sha256  # the sealed one
    assert len(deliveries(altering_checks_host, name, LEGAL)) == 1
    assert "altered in the queue" not in altering_checks_host.log()


@pytest.mark.parametrize("stage", STAGES)
def test_a_check_that_takes_the_stamp_away_has_requeued_mail_archived_once_more(
    altering_checks_host: StagedPostfix, stage: str
) -> None:
    """In full, under an id of its own; the first record is as it was."""
    name = f"unstamped-{stage}"
    requeue_at_stage(altering_checks_host, name, "handed-back", stage)
    found_records = records(altering_checks_host, name)
    assert len(found_records) == (3 if stage == "twice" else 2)
    for record in found_records:
        assert event_kinds(record) == ["archived", "mailed"]
        assert record.events[0]["stamp"] == "absent"


@pytest.mark.parametrize(
    ("queue_file", "times"), [("original", 2), ("capsule", 1), ("handed-back", 2)]
)
def test_requeueing_during_a_delivery_makes_no_second_id(
    plain_host: StagedPostfix, queue_file: str, times: int
) -> None:
    """Both runs do their work; Postfix then delivers mail twice, as it always does.

    An original requeued after its capture has a line of Postfix's more: one record,
    which keeps both.
    """
    transport, recipient = FILES[queue_file]
    name = f"in-hand-{queue_file}"
    to = recipient if transport == "sink" else ""  # its copy is on its way before it
    with plain_host.blocked_delivery(transport, name, to):
        plain_host.wait(lambda: len(plain_host.mailq()) == 1, "nothing else waits")
        before = plain_host.queue_id_of(recipient)
        plain_host.postsuper("-r", before)
        plain_host.wait_for_log(f"pickup.* orig_id={before}")
        plain_host.wait_for_empty_queue()
    plain_host.retry_all()
    kinds = event_kinds(record_of(plain_host, name))
    assert kinds.count("archived") == (2 if queue_file == "original" else 1)
    assert kinds.count("supplement") == (1 if queue_file == "handed-back" else 0)
    assert len(deliveries(plain_host, name, "bob@example.net")) == times
    assert plain_host.run_command("verify").returncode == 0


@pytest.mark.parametrize(
    "action", ["REJECT", "DISCARD", "REDIRECT eve@example.net", "REPLACE x", "HOLD"]
)
def test_no_check_of_body_or_headers_finds_a_word_in_a_requeued_capsule(
    action: str,
) -> None:
    """Not in the original, not in the envelope, not in attached messages."""
    with StagedPostfix() as postfix:
        with postfix.failing_transport("archive"):
            postfix.send(
                mail("word") + b"Content-Type: message/rfc822\n\nX-Secret: secret\n",
                to=["bob@example.net", "secret@example.net"],
            )
            postfix.wait_until_deferred("archive")
            rule = f"/secret/ {action}\n/^Final-Recipient/ {action}\n/word/ {action}\n"
            for name in ("body_checks", "mime_header_checks", "nested_header_checks"):
                set_checks(postfix, **{name: rule})
            postfix.reload()
            postfix.postsuper("-r", postfix.queue_id_of(CAPSULE))
            postfix.wait_for_log("pickup.* orig_id=")
        postfix.retry_all()
        record = record_of(postfix, "word")
        assert event_kinds(record) == ["archived", "mailed"]
        assert record.events[0]["sha256"] == record.envelope.sha256
        assert recipients_of(record) == ["bob@example.net", "secret@example.net"]
        assert not postfix.delivered_to("eve@example.net")
        assert "alarm=" not in postfix.log()


def test_a_capsule_whose_sealed_fields_were_altered_waits_in_the_fallback() -> None:
    """Nobody can tell it from a forged one; undone by hand, it is archived."""
    with StagedPostfix(archive_cf={"archive_rescue_after": "1s"}) as postfix:
        with postfix.failing_transport("archive"):
            postfix.send(mail("unsealed"), to=["bob@example.net", "secret@example.net"])
            postfix.wait_until_deferred("archive")
            rule = "/^(QXJjaGl2ZS1DYXBzdWxlOiAx.{32})(.*)/ REPLACE ${1}AAAA${2}\n"
            set_checks(postfix, body_checks=rule)
            postfix.reload()
            postfix.postsuper("-r", postfix.queue_id_of(CAPSULE))
            postfix.wait_for_log(f"to=<{CAPSULE}>, .*temporary failure")
            postfix.wait_for_failure("=SealInvalid reason=.*capsule with a wrong")
        postfix.wait(
            lambda: postfix.run_command("queue", "rescue").returncode == 1
            and not postfix.mailq(),
            "the capsule is taken out of the queue",
        )
        assert "alarm=copies-moved count=1 reason=archive copies moved" in postfix.log()
        process = postfix.run_command("fallback", "import")
        assert process.returncode == 1
        assert "wrong seal: forged, or altered in the queue" in process.stderr
        status = postfix.run_command("status")
        assert status.returncode == 1
        assert "fallback directory: 1, since" in status.stdout
        assert not postfix.stored_files()
        [(_, path)] = fallback.waiting_capsules(str(postfix.fallback))
        content = Path(path).read_bytes()
        Path(path).write_bytes(content.replace(b"\0\0\0", b"", 1))
        assert postfix.run_command("fallback", "import").returncode == 0
        recipients = ["bob@example.net", "secret@example.net"]
        assert recipients_of(record_of(postfix, "unsealed")) == recipients
        postfix.retry_all()


def test_a_large_capsule_requeued_is_within_message_size_limit() -> None:
    """Postfix would bounce a larger one to nobody: the copy would be gone."""
    limit = 1_000_000
    content = mail("large") + b"Nobody's secret.\n" * ((limit - 41_000) // 18)
    with StagedPostfix(main={"message_size_limit": str(limit)}) as postfix:
        with postfix.failing_transport("archive"):
            postfix.send(content)
            postfix.wait_until_deferred("archive")
            set_checks(postfix, body_checks="/secret/ REJECT\n")
            postfix.reload()
            before = postfix.queue_id_of(CAPSULE)
            postfix.postsuper("-r", before)
            postfix.wait_for_log(f"pickup.* orig_id={before}")
            postfix.wait_until_deferred("archive")
        postfix.retry_all()
        record = record_of(postfix, "large")
        assert record.events[0]["sha256"] == record.envelope.sha256
        original = b"".join(record_reader.original(str(postfix.store), record))
        assert original.endswith(content[-1000:].replace(b"\n", b"\r\n"))
