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

from unit.examples import ARCHIVE_ID, HOST, KEYS, LEGAL, MESSAGE, NOW, envelope_of
from unit.store.test_outcome_summary import (
    BOB,
    EVE,
    TEAM,
    became,
    captured,
    event,
    record_of,
)

FROM = b"postfix-archive@mail.example.com"
KEY = "ab" * 32
MX = "mx.example.net[192.0.2.1]:25"


def settled(*told: Outcome, people: tuple[str, ...] = (BOB,)) -> Record:
    first = {**captured(*people), "capsule": KEY}
    return record_of(first, *told)


def written(kept: Record, head: bytes = MESSAGE) -> bytes:
    edge = archive_copy.make_boundary(ARCHIVE_ID, kept.results.sha256, KEYS)
    return outcome_report.build(kept, head, sender=FROM, boundary=edge, now=NOW)


def parsed(content: bytes) -> Message:
    return email.message_from_bytes(content, policy=email.policy.compat32)


def parts(content: bytes) -> list[Message]:
    found = parsed(content).get_payload()
    assert isinstance(found, list)
    return [each for each in found if isinstance(each, Message)]


def groups(content: bytes) -> list[Message]:
    """The groups of fields in the second part."""
    found = parts(content)[1].get_payload()
    assert isinstance(found, list)
    return [each for each in found if isinstance(each, Message)]


def one(found: Outcome) -> Message:
    return groups(written(settled(found)))[1]


def test_a_report_has_exactly_these_bytes() -> None:
    expected = Path(__file__).with_name("outcome_report.expected").read_bytes()
    assert written(settled(became(BOB))) == expected.replace(b"\n", b"\r\n")


def test_it_is_a_report_of_three_parts() -> None:
    content = written(settled(became(BOB)))
    whole = parsed(content)
    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    assert [each.get_content_type() for each in parts(content)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert not whole.defects and not any(each.defects for each in parts(content))
    headers = str(parts(content)[2].get_payload()).replace("\r\n", "\n")
    assert (
        str(headers).replace("\n", "\r\n").encode()
        == MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n"
    )
    assert content.count(b"\n") == content.count(b"\r\n")


def test_its_header_names_archive_subject_and_copy() -> None:
    whole = parsed(written(settled(became(BOB))))
    assert whole["From"] == FROM.decode()
    assert whole["To"] == LEGAL
    assert whole["Subject"] == "Outcome: the contract"
    assert whole["Date"] == "Sun, 22 Nov 2026 11:53:00 +0000"
    assert whole["References"] == f"<{ARCHIVE_ID}.abababab@{HOST.decode()}>"
    assert whole["Message-Id"].startswith(f"<{ARCHIVE_ID}.outcome.")
    assert whole["Message-Id"] != whole["References"]
    assert whole["Auto-Submitted"] == "auto-generated"


def test_two_reports_on_one_record_have_ids_of_their_own() -> None:
    first = settled(became(BOB))
    second = settled(became(BOB, "failed"))
    assert parsed(written(first))["Message-Id"] != parsed(written(second))["Message-Id"]
    assert written(first) == written(settled(became(BOB)))


def test_the_message_group_has_the_envelope_and_what_is_covered() -> None:
    kept = settled(became(BOB))
    message = groups(written(kept))[0]
    assert message["Reporting-MTA"] == "dns; mail.example.com"
    assert message["X-Postfix-Sender"] == "rfc822; ann@example.org"
    assert message["Archive-Id"] == ARCHIVE_ID
    assert message["Archive-Outcomes"] == kept.results.sha256


def test_the_fields_of_the_envelope_read_back() -> None:
    kept = settled(became(BOB))
    told = envelope.parse(archive_copy.envelope_fields(written(kept)))
    assert told.sha256 == kept.envelope.sha256
    assert [each.final for each in told.recipients] == [BOB.encode()]


def test_each_recipient_has_a_group() -> None:
    group = one(
        became(BOB, "relayed", remote=MX, reply="250 2.0.0 Ok: queued as 4Z", tries=3)
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
    ("kind", "status", "action", "shown"),
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
    kind: str, status: str, action: str, shown: str
) -> None:
    group = one(became(BOB, kind, status=status))
    assert (group["Action"], group["Status"]) == (action, shown)
    assert group["Archive-Outcome"] == kind


@pytest.mark.parametrize(
    ("remote", "reply", "mta", "said"),
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
def test_who_said_what_is_told_as_in_a_bounce(
    remote: str, reply: str, mta: str | None, said: str | None
) -> None:
    group = one(became(BOB, "failed", status="5.1.1", remote=remote, reply=reply))
    assert group["Remote-MTA"] == mta
    assert group["Diagnostic-Code"] == said


def test_those_who_took_a_recipients_place_follow_it() -> None:
    kept = settled(
        became(TEAM, "expanded", expanded_to=(BOB, EVE)),
        became(BOB, parent=TEAM, original=TEAM),
        became(EVE, "failed", parent=TEAM, original=TEAM, status="5.1.1"),
        people=(TEAM,),
    )
    content = written(kept)
    team, bob, eve = groups(content)[1:]
    assert (team["Action"], team["Archive-Expanded-From"]) == ("expanded", None)
    assert bob["Final-Recipient"] == f"rfc822; {BOB}"
    assert bob["Original-Recipient"] == f"rfc822; {TEAM}"
    assert bob["Archive-Expanded-From"] == f"rfc822; {TEAM}"
    assert eve["Action"] == "failed"
    text = str(parts(content)[0].get_payload()).replace("\r\n", "\n")
    assert f"<{TEAM}>\n    expanded" in text
    assert f"    <{BOB}>, for <{TEAM}>\n        delivered (2.0.0)" in text


def test_a_foreign_reader_of_bounces_sees_who_failed() -> None:
    kept = settled(
        became(BOB),
        became(EVE, "failed", status="5.1.1", remote=MX, reply="550 no"),
        became(TEAM, "expired", status="4.4.1"),
        people=(BOB, EVE, TEAM),
    )
    failures: Any = all_failures(parsed(written(kept)))
    assert failures[1] == {EVE.encode(), TEAM.encode()}
    assert BOB.encode() not in failures[0] | failures[1]


def test_what_is_not_ascii_is_told_as_rfc_6533_has_it() -> None:
    gruen = "grün@example.com"
    content = written(
        settled(became(gruen, reply="250 jawohl, Größe"), people=(gruen,))
    )
    status = parts(content)[1]
    assert status.get_content_type() == "message/global-delivery-status"
    assert status["Content-Transfer-Encoding"] == "8bit"
    assert parsed(content)["Content-Transfer-Encoding"] == "8bit"
    assert f"Final-Recipient: utf-8; {gruen}\r\n".encode() in content
    assert parts(content)[0].get_content_charset() == "utf-8"


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
    content = written(settled(became(BOB)), head)
    assert parsed(content)["Content-Transfer-Encoding"] == encoding
    assert parts(content)[2]["Content-Transfer-Encoding"] == encoding
    assert len(parts(content)) == 3


LINES = st.text(st.sampled_from("\r\n:ab -=\0é\udcfc\u2028"), max_size=40)


@given(LINES, LINES, LINES)
def test_nothing_that_others_say_begins_a_line(
    reply: str, remote: str, recipient: str
) -> None:
    who = recipient.replace("\n", "") + "x"
    evil = f"{reply}\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; eve@x\r\n--"
    kept = record_of(
        {**captured(BOB), "capsule": KEY},
        became(BOB, "expanded", reply=evil, remote=remote, expanded_to=(who,)),
        became(who, "failed", parent=BOB, reply=evil),
    )
    content = written(kept)
    lines = content.split(b"\r\n")
    assert not any(b"\n" in each or b"\r" in each for each in lines)
    assert sum(each.startswith(b"Action: ") for each in lines) == 2
    assert sum(each.startswith(b"Final-Recipient: ") for each in lines) == 2
    assert sum(each.startswith(b"--=_archive_") for each in lines) == 4


def test_long_words_of_others_fit_a_line() -> None:
    kept = settled(became(BOB, "failed", reply="é" * 3000))
    content = written(kept, b"Subject: " + b"s" * 5000 + b"\r\n\r\n")
    top = content.partition(b"Content-Type: text/rfc822-headers")[0]
    assert max(map(len, top.split(b"\r\n"))) <= 998
    assert content.partition(b"text/rfc822-headers")[0].decode()


def test_who_got_an_archive_copy_is_not_told_of() -> None:
    from unit.store.test_outcome_summary import passed_on

    kept = record_of(
        {**captured(BOB), "capsule": KEY},
        became(BOB),
        passed_on(EVE, copy=1),
        became(EVE, capture_queue_id="4Zlater"),
    )
    assert EVE.encode() not in written(kept)


def test_a_time_that_is_none_is_left_out() -> None:
    for at in ("yesterday", "", "2026-11-22T11:54:00"):
        group = groups(written(record_of(captured(BOB), event(became(BOB, time=at)))))[
            1
        ]
        assert group["Last-Attempt-Date"] is None


def test_nine_thousand_recipients_are_one_report() -> None:
    names = tuple(f"r{number}@example.com" for number in range(9000))
    kept = record_of(
        {**captured(), "envelope": _many(names)}, *(became(each) for each in names)
    )
    assert kept.results.is_settled
    assert written(kept).count(b"\r\nAction: delivered\r\n") == 9000


def _many(names: tuple[str, ...]) -> str:
    people = tuple(Recipient(each.encode()) for each in names)
    return envelope.serialise(envelope_of(recipients=people)).decode()
