"""Claims about the outcome report, read by foreign judges."""

from __future__ import annotations

import email
import email.policy
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import archive_copy, envelope
from postfix_archive.message.envelope import Recipient
from postfix_archive.outcomes import outcome_report
from postfix_archive.store.outcome import Outcome
from postfix_archive.store.record import Record

from unit.examples import ARCHIVE_ID, HOST, KEYS, LEGAL, MESSAGE, NOW, make_envelope
from unit.store.test_outcome_summary import (
    BOB,
    EVE,
    TEAM,
    archived_event,
    event_of,
    make_outcome,
    record_of,
)

FROM = b"postfix-archive@mail.example.com"
CAPSULE_ID = "ab" * 32
MX = "mx.example.net[192.0.2.1]:25"


def settled_record(*outcomes: Outcome, recipients: tuple[str, ...] = (BOB,)) -> Record:
    first = {**archived_event(*recipients), "capsule": CAPSULE_ID}
    return record_of(first, *outcomes)


def build_report(record: Record, head: bytes = MESSAGE) -> bytes:
    edge = archive_copy.make_boundary(ARCHIVE_ID, record.results.sha256, KEYS)
    return outcome_report.build(record, head, sender=FROM, boundary=edge, now=NOW)


def parse(content: bytes) -> Message:
    return email.message_from_bytes(content, policy=email.policy.compat32)


def parts_of(content: bytes) -> list[Message]:
    payload = parse(content).get_payload()
    assert isinstance(payload, list)
    return [each for each in payload if isinstance(each, Message)]


def field_groups(content: bytes) -> list[Message]:
    """The groups of fields in the second part."""
    payload = parts_of(content)[1].get_payload()
    assert isinstance(payload, list)
    return [each for each in payload if isinstance(each, Message)]


def only_group(outcome: Outcome) -> Message:
    return field_groups(build_report(settled_record(outcome)))[1]


def test_a_report_has_exactly_these_bytes() -> None:
    expected = Path(__file__).with_name("outcome_report.expected").read_bytes()
    assert build_report(settled_record(make_outcome(BOB))) == expected.replace(
        b"\n", b"\r\n"
    )


def test_it_is_a_report_of_three_parts() -> None:
    content = build_report(settled_record(make_outcome(BOB)))
    message = parse(content)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [each.get_content_type() for each in parts_of(content)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert not message.defects and not any(each.defects for each in parts_of(content))
    headers = str(parts_of(content)[2].get_payload()).replace("\r\n", "\n")
    assert (
        str(headers).replace("\n", "\r\n").encode()
        == MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n"
    )
    assert content.count(b"\n") == content.count(b"\r\n")


def test_its_header_names_archive_subject_and_copy() -> None:
    message = parse(build_report(settled_record(make_outcome(BOB))))
    assert message["From"] == FROM.decode()
    assert message["To"] == LEGAL
    assert message["Subject"] == "Outcome: the contract"
    assert message["Date"] == "Sun, 22 Nov 2026 11:53:00 +0000"
    assert message["References"] == f"<{ARCHIVE_ID}.abababab@{HOST.decode()}>"
    assert message["Message-Id"].startswith(f"<{ARCHIVE_ID}.outcome.")
    assert message["Message-Id"] != message["References"]
    assert message["Auto-Submitted"] == "auto-generated"


def test_two_reports_on_one_record_have_ids_of_their_own() -> None:
    first = settled_record(make_outcome(BOB))
    second = settled_record(make_outcome(BOB, "failed"))
    assert (
        parse(build_report(first))["Message-Id"]
        != parse(build_report(second))["Message-Id"]
    )
    assert build_report(first) == build_report(settled_record(make_outcome(BOB)))


def test_the_message_group_has_the_envelope_and_what_is_covered() -> None:
    record = settled_record(make_outcome(BOB))
    message = field_groups(build_report(record))[0]
    assert message["Reporting-MTA"] == "dns; mail.example.com"
    assert message["X-Postfix-Sender"] == "rfc822; ann@example.org"
    assert message["Archive-Id"] == ARCHIVE_ID
    assert message["Archive-Outcomes"] == record.results.sha256


def test_the_fields_of_the_envelope_read_back() -> None:
    record = settled_record(make_outcome(BOB))
    read_envelope = envelope.parse(archive_copy.envelope_fields(build_report(record)))
    assert read_envelope.sha256 == record.envelope.sha256
    assert [each.final for each in read_envelope.recipients] == [BOB.encode()]


def test_each_recipient_has_a_group() -> None:
    group = only_group(
        make_outcome(
            BOB, "relayed", remote=MX, reply="250 2.0.0 Ok: queued as 4Z", tries=3
        )
    )
    assert group["Final-Recipient"] == f"rfc822; {BOB}"
    assert group["Action"] == "relayed"
    assert group["Status"] == "2.0.0"
    assert group["Remote-MTA"] == "dns; mx.example.net"
    assert group["Diagnostic-Code"] == "smtp; 250 2.0.0 Ok: queued as 4Z"
    assert group["Last-Attempt-Date"] == "Sun, 22 Nov 2026 11:54:00 +0000"
    assert group["Archive-Outcome"] == "relayed"
    assert group["Archive-Tries"] == "3"
    assert group["Archive-Queue-ID"] == "4Zother"


@pytest.mark.parametrize(
    ("kind", "status", "action", "shown_status"),
    [
        ("delivered", "2.0.0", "delivered", "2.0.0"),
        ("delivered", "", "delivered", "2.0.0"),
        ("relayed", "2.1.5", "relayed", "2.1.5"),
        ("expanded", "2.0.0", "expanded", "2.0.0"),
        ("failed", "5.1.1", "failed", "5.1.1"),
        ("expired", "4.4.1", "failed", "4.4.1"),
        ("discarded", "2.0.0", "failed", "5.0.0"),
        ("deleted", "", "failed", "5.0.0"),
    ],
)
def test_action_and_status_never_contradict_each_other(
    kind: str, status: str, action: str, shown_status: str
) -> None:
    group = only_group(make_outcome(BOB, kind, status=status))
    assert (group["Action"], group["Status"]) == (action, shown_status)
    assert group["Archive-Outcome"] == kind


@pytest.mark.parametrize(
    ("remote", "reply", "mta", "diagnostic"),
    [
        (
            MX,
            "host mx.example.net[192.0.2.1] said: 550 5.1.1 <bob@example.com>: no such"
            " user (in reply to RCPT TO command)",
            "dns; mx.example.net",
            "smtp; 550 5.1.1 <bob@example.com>: no such user",
        ),
        (
            MX,
            "host mx.example.net[192.0.2.1] refused to talk to me: 421 busy (now)",
            "dns; mx.example.net",
            "smtp; 421 busy (now)",
        ),
        (
            MX,
            "lost connection with mx.example.net[192.0.2.1] while sending DATA",
            "dns; mx.example.net",
            "X-Postfix; lost connection with mx.example.net[192.0.2.1] while sending"
            " DATA",
        ),
        (
            "local",
            "delivered to maildir",
            None,
            "X-Postfix; delivered to maildir",
        ),
        ("none", "", None, None),
    ],
)
def test_replies_are_attributed_as_in_a_bounce(
    remote: str, reply: str, mta: str | None, diagnostic: str | None
) -> None:
    group = only_group(
        make_outcome(BOB, "failed", status="5.1.1", remote=remote, reply=reply)
    )
    assert group["Remote-MTA"] == mta
    assert group["Diagnostic-Code"] == diagnostic


def test_expanded_recipients_follow_their_parent() -> None:
    record = settled_record(
        make_outcome(TEAM, "expanded", expanded_to=(BOB, EVE)),
        make_outcome(BOB, parent=TEAM, original=TEAM),
        make_outcome(EVE, "failed", parent=TEAM, original=TEAM, status="5.1.1"),
        recipients=(TEAM,),
    )
    content = build_report(record)
    team, bob, eve = field_groups(content)[1:]
    assert (team["Action"], team["Archive-Expanded-From"]) == ("expanded", None)
    assert bob["Final-Recipient"] == f"rfc822; {BOB}"
    assert bob["Original-Recipient"] == f"rfc822; {TEAM}"
    assert bob["Archive-Expanded-From"] == f"rfc822; {TEAM}"
    assert eve["Action"] == "failed"
    text = str(parts_of(content)[0].get_payload()).replace("\r\n", "\n")
    assert f"<{TEAM}>\n    expanded" in text
    assert f"    <{BOB}>, for <{TEAM}>\n        delivered (2.0.0)" in text


def test_a_mapped_recipient_is_reported_with_its_other_address() -> None:
    content = build_report(settled_record(make_outcome(BOB, expanded_to=(EVE,))))
    [group] = field_groups(content)[1:]
    assert (group["Action"], group["Archive-Outcome"]) == ("delivered", "delivered")
    assert group["Archive-Mapped-To"] == f"rfc822; {EVE}"
    text = str(parts_of(content)[0].get_payload()).replace("\r\n", "\n")
    assert f"<{BOB}>, mapped to <{EVE}>\n    delivered (2.0.0)" in text
    assert "no outcome yet" not in text


def test_a_foreign_reader_of_bounces_sees_who_failed() -> None:
    record = settled_record(
        make_outcome(BOB),
        make_outcome(EVE, "failed", status="5.1.1", remote=MX, reply="550 no"),
        make_outcome(TEAM, "expired", status="4.4.1"),
        recipients=(BOB, EVE, TEAM),
    )
    failures: Any = all_failures(parse(build_report(record)))
    assert failures[1] == {EVE.encode(), TEAM.encode()}
    assert BOB.encode() not in failures[0] | failures[1]


def test_non_ascii_addresses_are_written_as_in_rfc_6533() -> None:
    gruen = "grün@example.com"
    content = build_report(
        settled_record(
            make_outcome(gruen, reply="250 jawohl, Größe"), recipients=(gruen,)
        )
    )
    status = parts_of(content)[1]
    assert status.get_content_type() == "message/global-delivery-status"
    assert status["Content-Transfer-Encoding"] == "8bit"
    assert parse(content)["Content-Transfer-Encoding"] == "8bit"
    assert f"Final-Recipient: utf-8; {gruen}\r\n".encode() in content
    assert parts_of(content)[0].get_content_charset() == "utf-8"


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b"Subject: x\r\n\r\nbody\r\n", "7bit"),
        ("Subject: grün\r\n\r\nbody\r\n".encode(), "8bit"),
        (b"Subject: x\r\nX-Long: " + b"y" * 2000 + b"\r\n\r\n", "binary"),
        (b"Subject: a\0b\r\n\r\n", "binary"),
        (b"no header at all\r\n", "7bit"),
        (b"", "7bit"),
    ],
)
def test_the_encoding_is_true_of_the_bytes(head: bytes, encoding: str) -> None:
    content = build_report(settled_record(make_outcome(BOB)), head)
    assert parse(content)["Content-Transfer-Encoding"] == encoding
    assert parts_of(content)[2]["Content-Transfer-Encoding"] == encoding
    assert len(parts_of(content)) == 3


LINES = st.text(st.sampled_from("\r\n:ab -=\0é\udcfc\u2028"), max_size=40)


@given(LINES, LINES, LINES)
def test_no_foreign_text_begins_a_line(reply: str, remote: str, recipient: str) -> None:
    address = recipient.replace("\n", "") + "x"
    hostile_reply = (
        f"{reply}\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; eve@x\r\n--"
    )
    record = record_of(
        {**archived_event(BOB), "capsule": CAPSULE_ID},
        make_outcome(
            BOB, "expanded", reply=hostile_reply, remote=remote, expanded_to=(address,)
        ),
        make_outcome(address, "failed", parent=BOB, reply=hostile_reply),
    )
    content = build_report(record)
    lines = content.split(b"\r\n")
    assert not any(b"\n" in each or b"\r" in each for each in lines)
    assert sum(each.startswith(b"Action: ") for each in lines) == 2
    assert sum(each.startswith(b"Final-Recipient: ") for each in lines) == 2
    assert sum(each.startswith(b"--=_archive_") for each in lines) == 4


def test_long_replies_fit_a_line() -> None:
    record = settled_record(make_outcome(BOB, "failed", reply="é" * 3000))
    content = build_report(record, b"Subject: " + b"s" * 5000 + b"\r\n\r\n")
    top = content.partition(b"Content-Type: text/rfc822-headers")[0]
    assert max(map(len, top.split(b"\r\n"))) <= 998
    assert content.partition(b"text/rfc822-headers")[0].decode()


def test_recipients_of_archive_copies_are_not_in_the_report() -> None:
    from unit.store.test_outcome_summary import supplement_event

    record = record_of(
        {**archived_event(BOB), "capsule": CAPSULE_ID},
        make_outcome(BOB),
        supplement_event(EVE, copy=1),
        make_outcome(EVE, capture_queue_id="4Zlater"),
    )
    assert EVE.encode() not in build_report(record)


def test_a_time_that_is_none_is_left_out() -> None:
    for time in ("yesterday", "", "2026-11-22T11:54:00"):
        group = field_groups(
            build_report(
                record_of(archived_event(BOB), event_of(make_outcome(BOB, time=time)))
            )
        )[1]
        assert group["Last-Attempt-Date"] is None


def test_nine_thousand_recipients_are_one_report() -> None:
    names = tuple(f"r{number}@example.com" for number in range(9000))
    record = record_of(
        {**archived_event(), "envelope": _many(names)},
        *(make_outcome(each) for each in names),
    )
    assert record.results.is_settled
    assert build_report(record).count(b"\r\nAction: delivered\r\n") == 9000


def _many(names: tuple[str, ...]) -> str:
    recipients = tuple(Recipient(each.encode()) for each in names)
    return envelope.serialise(make_envelope(recipients=recipients)).decode()
