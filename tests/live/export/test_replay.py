"""Archived mail is delivered once more, unchanged, and is not archived again."""

from __future__ import annotations

import base64
import json
import re
import subprocess

import dkim
import pytest

from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

import corpora
from mails import LEGAL, original_of
from private_postfix import Client, PrivatePostfix

pytestmark = pytest.mark.live

BOB, CAROL = "bob@example.net", "carol@example.net"
# From the top of a delivered message to the end of our stamps.
TOP = re.compile(rb".*?\nArchive-Stamp: [^\n]*\n(?:\t[^\n]*\n)*", re.DOTALL)


def sign(message: bytes) -> tuple[bytes, bytes]:
    """Return a message with a DKIM signature, and the DNS record to verify it."""
    openssl = ["openssl", "rsa", "-pubout", "-outform", "DER"]
    key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True).stdout
    public = subprocess.run(openssl, input=key, capture_output=True, check=True).stdout
    signature = dkim.sign(message, b"s1", b"example.org", key, logger=None)
    return signature + message, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def only_record(postfix: PrivatePostfix) -> Record:
    """Return the record; there is only one."""
    [record] = record_reader.records(str(postfix.store), LEGAL)
    return record


def replay(postfix: PrivatePostfix, *arguments: str) -> str:
    """Replay and wait until all is delivered; return the output."""
    process = postfix.run_command("replay", *arguments)
    assert process.returncode == 0, process.stderr
    postfix.wait_for_empty_queue()
    return process.stdout


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
def test_an_original_is_delivered_again_and_not_archived_twice(mode: str) -> None:
    head = b"From: alice@example.org\r\nSubject: again\r\nX-Bytes: \xe4\r\n\r\n"
    message, dns_record = sign(head + b".dot\r\nGr\xc3\xbc\xc3\x9fe\xff\r\n")
    with PrivatePostfix(mode=mode) as postfix:
        postfix.send(message, to=[BOB, CAROL])
        postfix.wait_for_empty_queue()
        record = only_record(postfix)
        original = original_of(postfix, record)
        output = replay(postfix, record.archive_id, "--to", "dave@example.net", "--yes")
        assert f"{record.archive_id}  queued as " in output
        [delivery] = postfix.delivered_to("dave@example.net")
        top = TOP.match(delivery.content)
        assert top, "the message has no stamp"
        content = delivery.content[top.end() :].replace(b"\n", b"\r\n")
        assert content == original
        signed = delivery.content.replace(b"\n", b"\r\n")
        assert dkim.verify(signed, dnsfunc=lambda *_, **__: dns_record)
        prefix = record.archive_id[:20]
        replay(postfix, prefix, "--original-recipients", "--yes")
        assert len(postfix.delivered_to(BOB)) == 2
        assert len(postfix.delivered_to(CAROL)) == 2
        only_record(postfix)
        # What was replayed comes back: it has a valid stamp of its record.
        postfix.send(delivery.content, to=["erin@example.net"])
        postfix.wait_for_empty_queue()
        only_record(postfix)
        again = only_record(postfix)
        assert [each.envelope.recipients[0].final for each in again.passes][1:] == [
            b"erin@example.net"
        ]
        assert postfix.run_command("verify").returncode == 0


def test_a_copy_is_sent_to_the_archive_mailbox_again() -> None:
    with PrivatePostfix() as postfix:
        postfix.send(b"Subject: lost\n\nX-MS-Journal-Report: no\n", to=[BOB])
        postfix.wait_for_empty_queue()
        record = only_record(postfix)
        assert len(postfix.delivered_to(LEGAL)) == 1
        replay(postfix, record.archive_id, "--copies", "--yes")
        _, second = postfix.delivered_to(LEGAL)
        copy = second.content.replace(b"\n", b"\r\n")
        expected = original_of(postfix, only_record(postfix))
        marker = b"X-MS-Journal-Report"
        assert corpora.extract_original(copy) == expected.replace(
            marker, marker.lower()
        )
        assert f"Archive-Id: {record.archive_id}" in corpora.status_part(copy)
        only_record(postfix)
        # A copy that comes back is a supplement, and no copy of a copy is mailed.
        postfix.send(second.content, to=[BOB])
        postfix.wait_for_empty_queue()
        only_record(postfix)
        assert len(postfix.delivered_to(LEGAL)) == 2


def test_it_asks_first_and_names_what_it_would_send() -> None:
    with PrivatePostfix() as postfix:
        postfix.send(b"Subject: asked\n\nx\n", to=[BOB])
        postfix.wait_for_empty_queue()
        archive_id = only_record(postfix).archive_id
        process = postfix.run_command("replay", archive_id, "--original-recipients")
        assert process.returncode == 1
        assert f"{archive_id}  to {BOB}" in process.stdout
        assert "Send 1 messages?" in process.stderr
        postfix.wait_for_empty_queue()
        assert len(postfix.delivered_to(BOB)) == 1
        for arguments in (
            ["--to", "nobody", "--yes"],
            ["--yes"],
            ["--to", "a@b", "--original-recipients", "--yes"],
            ["--copies", "--original-recipients", "--yes"],
        ):
            process = postfix.run_command("replay", archive_id, *arguments)
            assert process.returncode in (1, 2)
            assert "queued as" not in process.stdout
        unknown = postfix.run_command("replay", "20990101", "--to", "a@b.example")
        assert unknown.returncode == 1 and "no record" in unknown.stderr
        # Postfix is down: one line.
        postfix.stop()
        process = postfix.run_command("replay", archive_id, "--to", BOB, "--yes")
        assert process.returncode == 1 and "connect to 127.0.0.1" in process.stderr


@pytest.mark.parametrize("mode", ["pipe", "lmtp", "native", "native-pipe"])
def test_reconcile_and_the_doctor_know_what_was_replayed(mode: str) -> None:
    with PrivatePostfix(mode=mode) as postfix:
        postfix.send(b"Subject: again\nMessage-Id: <1@x>\n\nx\n", to=[BOB, CAROL])
        postfix.wait_for_empty_queue()
        archive_id = only_record(postfix).archive_id
        replay(postfix, archive_id, "--to", "dave@example.net", "--yes")
        replay(postfix, archive_id, "--original-recipients", "--yes")
        replay(postfix, archive_id, "--copies", "--yes")
        result = json.loads(postfix.run_command("reconcile", "--json").stdout)
        assert (result["accepted"], result["missing"], result["unclear"]) == (3, 0, 0)
        is_native = mode.startswith("native")
        assert result["not_requested"] == (0 if is_native else 2)
        assert len(postfix.delivered_to(BOB)) == 2
        assert "foreign-reinjection" not in doctor_findings(postfix)
        only_record(postfix)


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
def test_the_mark_of_a_replay_covers_no_other_message(mode: str) -> None:
    """One that somebody has read in the log, and one that somebody has made up."""
    with PrivatePostfix(mode=mode) as postfix:
        postfix.send(b"Subject: again\nMessage-Id: <1@x>\n\nx\n", to=[BOB])
        postfix.wait_for_empty_queue()
        replay(postfix, only_record(postfix).archive_id, "--to", CAROL, "--yes")
        [ident] = re.findall(r"orig_queue_id=(replay\w+)", postfix.log())
        for each in (ident, "replay" + "0" * 48):
            with Client(postfix.ports[1]) as client:
                client.command(f"XFORWARD IDENT={each}", 250)
                client.send(b"Subject: past the archive\n\nx\n")
        postfix.wait_for_empty_queue()
        result = json.loads(postfix.run_command("reconcile", "--json").stdout)
        assert result["causes"] == {"foreign-reinjection": 2}
        assert result["not_requested"] == 1
        assert "2 messages" in doctor_findings(postfix)["foreign-reinjection"]


def doctor_findings(postfix: PrivatePostfix) -> dict[str, str]:
    """Return what the doctor reports, by the name of the check."""
    report = json.loads(postfix.run_command("doctor", "--json").stdout)
    return {each["check"]: str(each) for each in report["findings"]}
