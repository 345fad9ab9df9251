"""Claims about where a message began its way, and about the archive id."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postfix_archive.message import dates, received_header

from unit import examples
from unit.examples import FROM_SMTP, HOST, MESSAGE, NOW, QUEUE_ID, REQUEUED, SENDER

FROM_SENDMAIL = (
    b"Received: by mail.example.com (Postfix, from userid 1000)\r\n"
    b"\tid 4Zx1Yk2Pp7z9Qw; Sun, 22 Nov 2026 12:53:00 +0100 (CET)\r\n"
)
TO_SEVERAL = (
    b"Received: from client.example.org (unknown [192.0.2.7])\r\n"
    b"\tby mail.example.com (Postfix) with ESMTP id 4Zx1Yk2Pp7z9Qw;\r\n"
    b"\tSun, 22 Nov 2026 12:53:00 +0100 (CET)\r\n"
)
# smtpd_tls_received_header = yes; comment_sanitize() leaves printable ASCII and
# parentheses that match.
WITH_NAME = (
    b"Received: from client.example.org (client.example.org [192.0.2.7])\r\n"
    b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
    b'\t(Client CN "%s", Issuer "ca" (not verified))\r\n'
    b"\t(Authenticated sender: %s)\r\n"
    b"\tby mail.example.com (Postfix) with ESMTPSA id 4Zx1Yk2Pp7z9Qw\r\n"
    b"\tfor <bob@example.com>; Sun, 22 Nov 2026 12:53:00 +0100 (CET)\r\n"
)
FORGED_RECEIVED = (
    b"Received: from nowhere (nowhere [192.0.2.66])\r\n"
    b"\tby mail.example.com (Postfix) with ESMTP id 4FORGED\r\n"
    b"\tfor <x@example.com>; Wed, 01 Jan 2020 00:00:00 +0000 (UTC)\r\n"
)


QUEUE_ID_TIME = 1747058650  # 2025-05-12T14:04:10Z, in QUEUE_ID


def archive_id_of(message: bytes, queue_id: bytes = QUEUE_ID) -> str:
    """The archive id, as filtering makes it."""
    origin = examples.find_origin(message, queue_id)
    content = examples.sha256(message[origin.offset :])
    return received_header.archive_id(origin, sender=SENDER, sha256=content, now=NOW)


@pytest.mark.parametrize("received", [FROM_SMTP, FROM_SENDMAIL, TO_SEVERAL])
def test_postfixs_own_header_gives_queue_id_and_time(received: bytes) -> None:
    origin = examples.find_origin(received + b"Subject: x\r\n\r\n")
    assert (origin.host, origin.queue_id) == (HOST, QUEUE_ID)
    assert origin.arrival == NOW
    assert origin.offset == 0
    assert not origin.is_smtputf8


def test_utf8_protocol_is_seen() -> None:
    head = FROM_SMTP.replace(b"ESMTPS", b"UTF8SMTPS")
    assert examples.find_origin(head).is_smtputf8


@pytest.mark.parametrize(
    "helo",
    [
        b"by",
        b"id",
        b"(by",
        b"by?mail.example.com?(Postfix)?with?ESMTP?id?4FORGED",
        b"from?userid?101)",
        b"with?UTF8SMTP?id?4FORGED?",
        b"[192.0.2.7]",
        b"mail.example.com",
    ],
)
def test_no_helo_can_change_what_is_read(helo: bytes) -> None:
    origin = examples.find_origin(FROM_SMTP.replace(b"from client", b"from " + helo, 1))
    assert (origin.queue_id, origin.arrival, origin.offset) == (QUEUE_ID, NOW, 0)
    assert not origin.is_smtputf8


@pytest.mark.parametrize(
    "appended",
    [
        b" . id FAKE\r\n",
        b"\t; Wed, 01 Jan 2020 00:00:00 +0000\r\n",
        b" by mail.example.com (Postfix, from userid 101) id FAKE\r\n",
        b" with UTF8SMTP\r\n",
    ],
)
@pytest.mark.parametrize("received", [FROM_SMTP, FROM_SENDMAIL, TO_SEVERAL])
def test_a_continuation_that_a_client_appended_is_not_read(
    received: bytes, appended: bytes
) -> None:
    origin = examples.find_origin(received + appended + b"Subject: x\r\n\r\n")
    assert (origin.queue_id, origin.arrival, origin.offset) == (QUEUE_ID, NOW, 0)
    assert b"FAKE" not in origin.clauses
    assert not origin.is_smtputf8


def test_a_semicolon_in_the_recipient_changes_neither_queue_id_nor_time() -> None:
    rcpt = b'"; Wed, 01 Jan 2020 00:00:00 +0000 id 4FORGED"@example.com'
    origin = examples.find_origin(FROM_SMTP.replace(b"bob@example.com", rcpt))
    assert (origin.queue_id, origin.arrival) == (QUEUE_ID, NOW)


def test_a_recipient_does_not_make_postfixs_line_look_requeued() -> None:
    rcpt = b'"x, from userid 101)"@example.com'
    head = FROM_SMTP.replace(b"bob@example.com", rcpt) + FORGED_RECEIVED
    origin = examples.find_origin(head + b"Subject: x\r\n\r\n")
    assert (origin.queue_id, origin.arrival, origin.offset) == (QUEUE_ID, NOW, 0)


def test_a_recipient_does_not_make_mail_smtputf8() -> None:
    rcpt = b'"x with UTF8SMTP"@example.com'
    assert not examples.find_origin(
        FROM_SMTP.replace(b"bob@example.com", rcpt)
    ).is_smtputf8


@pytest.mark.parametrize(
    "name",
    [
        b"Ann Example",
        b"a; b",
        b"x by mail.example.com (Postfix) with ESMTP id 4FORGED",
        b"x by mail.example.com (Postfix, from userid 101) id 4FORGED",
        b"x; Wed, 01 Jan 2020 00:00:00 +0000",
        b"x; Wed, 01 Jan 2020 00:00:00 +0000 y",
        b"x with UTF8SMTP id y",
    ],
)
@pytest.mark.parametrize("comment_kind", ["certificate", "login"])
def test_no_certificate_and_no_login_name_changes_what_is_read(
    name: bytes, comment_kind: str
) -> None:
    names = (name, b"ann") if comment_kind == "certificate" else (b"ann", name)
    origin = examples.find_origin(WITH_NAME % names + FORGED_RECEIVED + b"\r\n")
    assert (origin.queue_id, origin.arrival, origin.offset) == (QUEUE_ID, NOW, 0)
    assert not origin.is_smtputf8


@pytest.mark.parametrize("received", [FROM_SMTP, FROM_SENDMAIL, TO_SEVERAL])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_the_archive_id_is_stable_over_postsuper_r(received: bytes, times: int) -> None:
    message = received + b"Subject: x\r\n\r\nbody\r\n"
    requeued = REQUEUED * times + message
    origin = examples.find_origin(requeued, b"4Zz9Requeued00")
    assert requeued[origin.offset :] == message
    assert (origin.queue_id, origin.arrival) == (QUEUE_ID, NOW)
    assert archive_id_of(requeued, b"4Zz9Requeued00") == archive_id_of(message)


def test_only_postfixs_own_line_proves_that_a_message_is_not_requeued() -> None:
    other_id = b"4Zz9Another000"
    bare = MESSAGE.removeprefix(FROM_SMTP)
    for received in (FROM_SMTP, FROM_SENDMAIL, TO_SEVERAL):
        message = received + bare
        assert examples.find_origin(message).is_new
        assert not examples.find_origin(REQUEUED + message, b"4Zz9Requeued00").is_new
        assert not examples.find_origin(message, other_id).is_new
    assert not examples.find_origin(REQUEUED + bare, b"4Zz9Requeued00").is_new
    assert not examples.find_origin(bare).is_new


def test_mail_of_the_mail_owner_itself_keeps_its_only_line() -> None:
    head = REQUEUED + b"Received: from elsewhere (x [192.0.2.9])\r\n"
    head += b"\tby other.example.net (Postfix) with ESMTP id 4OTHER; x\r\n\r\n"
    origin = examples.find_origin(head, b"4Zz9Requeued00")
    assert (origin.queue_id, origin.offset) == (b"4Zz9Requeued00", 0)


def test_only_the_lines_on_top_count_as_requeueing() -> None:
    message = FROM_SMTP + REQUEUED + FROM_SMTP + b"\r\n"
    assert examples.find_origin(message).offset == 0


def test_a_line_between_ends_the_skipping() -> None:
    message = b"X-Other: y\r\n" + REQUEUED + FROM_SMTP + b"\r\n"
    assert examples.find_origin(message, b"4Zz9Requeued00").offset == 0


def test_another_user_does_not_count_as_requeueing() -> None:
    head = REQUEUED.replace(b"userid 101", b"userid 1010") + FROM_SMTP + b"\r\n"
    origin = examples.find_origin(head, b"4Zz9Requeued00")
    assert (origin.queue_id, origin.offset) == (b"4Zz9Requeued00", 0)


def test_a_missing_received_line_leaves_queue_id_and_host_of_this_run() -> None:
    origin = examples.find_origin(b"Subject: x\r\n\r\n")
    assert (origin.host, origin.queue_id, origin.offset) == (HOST, QUEUE_ID, 0)
    assert origin.arrival == QUEUE_ID_TIME
    assert archive_id_of(b"Subject: x\r\n\r\n").startswith("20250512-")


@pytest.mark.parametrize("line", [b"", b"Received: by here; no date\r\n"])
def test_without_postfixs_line_and_a_long_queue_id_the_day_is_that_of_the_run(
    line: bytes,
) -> None:
    message = line + b"Subject: x\r\n\r\n"
    assert examples.find_origin(message, b"82CCB20CC19").arrival is None
    assert archive_id_of(message, b"82CCB20CC19").startswith("20261122-")


def test_a_received_line_of_another_queue_id_is_not_taken_for_ours() -> None:
    origin = examples.find_origin(FORGED_RECEIVED + b"\r\n")
    assert origin.queue_id == QUEUE_ID
    assert origin.arrival == QUEUE_ID_TIME


def test_the_topmost_line_is_known_by_its_queue_id_whatever_the_host_is_called() -> (
    None
):
    """Its name has changed since, or one service has a name of its own."""
    old = FROM_SMTP.replace(HOST, b"old.example.com") + b"Subject: x\r\n\r\n"
    origin = examples.find_origin(old)
    assert (origin.host, origin.queue_id) == (b"old.example.com", QUEUE_ID)
    assert origin.arrival == NOW
    assert examples.find_origin(REQUEUED + old, b"4Zz9Requeued00").offset == 0


@pytest.mark.parametrize("now", [b"4Zx1Yk2Pp7zBC4", b"530DF20CC19"])
def test_a_queue_file_that_postfix_renamed_keeps_its_id(now: bytes) -> None:
    """postsuper -S after the queue was moved, or queue ids became short."""
    origin = examples.find_origin(MESSAGE, now)
    assert (origin.queue_id, origin.arrival) == (QUEUE_ID, NOW)
    assert archive_id_of(MESSAGE, now) == archive_id_of(MESSAGE)


@pytest.mark.parametrize("first", [HOST, b"new.example.com"])
def test_requeueing_lines_are_known_by_archive_cfs_name_or_that_of_the_top(
    first: bytes,
) -> None:
    """main.cf's name has changed, and archive.cf's has not."""
    message = FROM_SMTP.replace(HOST, first) + b"Subject: x\r\n\r\n"
    top = REQUEUED.replace(HOST, b"new.example.com")
    origin = examples.find_origin(top + message, b"4Zz9Requeued00")
    assert (origin.host, origin.queue_id, origin.offset) == (first, QUEUE_ID, len(top))
    assert archive_id_of(top + message, b"4Zz9Requeued00") == archive_id_of(message)


@pytest.mark.parametrize(
    "received",
    [
        b"Received: \r\n",
        b"Received: by mail.example.com (Postfix) id\r\n",
        b"Received: by mail.example.com (Postfix) with ESMTP\r\n",
        b"Received: by sub.mail.example.com (Postfix) id 4Zx1Yk2Pp8z9Qx; x\r\n",
        b"Received: by (Postfix) id 4Zx1Yk2Pp7z9Qw; x\r\n",
        b"Received: by mail.example.com id 4Zx1Yk2Pp7z9Qw; x\r\n",
        b"Received: ; by mail.example.com (Postfix) id 4Zx1Yk2Pp7z9Qw\r\n",
    ],
)
def test_a_header_of_another_form_gives_nothing(received: bytes) -> None:
    origin = examples.find_origin(received + b"\r\n")
    assert origin.clauses == b""
    assert origin.arrival == QUEUE_ID_TIME


@given(st.binary(max_size=200))
def test_reading_the_origin_never_raises(noise: bytes) -> None:
    for head in (noise, FROM_SMTP + noise, REQUEUED + b"Received: " + noise):
        assert received_header.is_archive_id(archive_id_of(head))


def test_a_megabyte_of_forged_lines_is_read_in_no_time() -> None:
    head = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n" + FORGED_RECEIVED * 5000
    assert examples.find_origin(head).queue_id == QUEUE_ID


def test_the_id_depends_on_sender_content_host_and_queue_id() -> None:
    origin = examples.find_origin(MESSAGE)
    content = examples.sha256(MESSAGE)
    elsewhere = examples.find_origin(MESSAGE.replace(HOST, b"mx2.example.com"))
    ids = {
        received_header.archive_id(origin, sender=SENDER, sha256=content, now=NOW),
        received_header.archive_id(origin, sender=b"", sha256=content, now=NOW),
        received_header.archive_id(
            origin, sender=SENDER, sha256=examples.sha256(b""), now=NOW
        ),
        received_header.archive_id(elsewhere, sender=SENDER, sha256=content, now=NOW),
        archive_id_of(MESSAGE, b"4OTHERRUN"),
    }
    assert len(ids) == 5


def test_bytes_that_move_from_one_part_to_the_next_change_the_id() -> None:
    one, two = (
        received_header.Origin(host, qid, 0)
        for host, qid in [(b"a", b"bc"), (b"ab", b"c")]
    )
    ids = [
        received_header.archive_id(origin, sender=b"", sha256=b"", now=NOW)
        for origin in (one, two)
    ]
    assert ids[0] != ids[1]


def test_the_day_in_the_id_is_that_of_utc() -> None:
    next_day = FROM_SMTP.replace(
        b"22 Nov 2026 12:53:00 +0100", b"23 Nov 2026 00:30:00 +0100"
    )
    assert archive_id_of(next_day + b"\r\n").startswith("20261122-")


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 22 Nov 2026 12:53:00 +0100 (CET)",
        "Sun, 22 Nov 2026 11:53:00 +0000",
        "Sun, 22 Nov 2026 06:23:00 -0530",
        "Sun, 22 Nov 2026 17:23:00 +0530 (IST)",
        "Mon, 23 Nov 2026 01:53:00 +1400",
        " Sun,  22 Nov 2026 11:53:00 -0000",
    ],
)
def test_every_zone_names_the_same_moment(text: str) -> None:
    assert dates.parse_rfc5322(text.encode()) == NOW


def test_a_leap_second_is_a_time() -> None:
    leap = dates.parse_rfc5322(b"Sat, 31 Dec 2016 23:59:60 +0000")
    assert leap == dates.parse_rfc5322(b"Sat, 31 Dec 2016 23:59:59 +0000") is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "Sun, 22 Nov 2026 12:53:00",
        "Sun, 22 Nov 2026 12:53:00 GMT",
        "Sun, 22 Nov 2026 12:53 +0100",
        "Sun, 32 Nov 2026 12:53:00 +0100",
        "Sun, 22 Xyz 2026 12:53:00 +0100",
        "Sun, 22 Nov 26 12:53:00 +0100",
        "Sun, 22 Nov 1969 12:53:00 +0100",
        "Sun, 22 Nov 2026 24:53:00 +0100",
        "Sun, 22 Nov 2026 12:53:00 +0100 and what else a client writes",
        "Tue, 30 Nov 1999 23:56:33 -3000 (CST)",
        "Sun, 22 Nov 2026 12:53:00 +01x0",
        "Sun, 22 Nov 2026 12:53:00 0100",
    ],
)
def test_anything_else_is_no_date(text: str) -> None:
    assert dates.parse_rfc5322(text.encode()) is None


@given(st.integers(0, 253402300799))
def test_a_date_that_is_written_reads_the_same(seconds: int) -> None:
    assert dates.parse_rfc5322(dates.format_rfc5322(seconds)) == seconds


@given(
    st.integers(1970, 9999),
    st.sampled_from(["01 Jan", "31 Dec", "29 Feb", "15 Jul"]),
    st.sampled_from(["00:00:00", "23:59:59", "12:00:60"]),
    st.integers(-9959, 9959),
)
@example(9999, "31 Dec", "23:59:59", -100)
@example(1970, "01 Jan", "00:00:00", 100)
def test_a_date_that_is_read_is_a_moment_that_can_be_written(
    year: int, day: str, clock: str, zone: int
) -> None:
    timestamp = dates.parse_rfc5322(f"Sun, {day} {year:04} {clock} {zone:+05}".encode())
    if timestamp is not None:
        assert dates.parse_rfc5322(dates.format_rfc5322(timestamp)) == timestamp


@pytest.mark.parametrize(
    "text",
    ["Fri, 31 Dec 9999 23:59:59 -0100", "Thu, 01 Jan 1970 00:00:00 +0100"],
)
def test_a_date_at_the_end_of_time_breaks_nothing(text: str) -> None:
    head = FROM_SMTP.replace(b"Sun, 22 Nov 2026 12:53:00 +0100 (CET)", text.encode())
    assert received_header.is_archive_id(archive_id_of(head + b"\r\n"))


def test_dates_are_written_in_utc() -> None:
    assert dates.format_rfc5322(NOW) == examples.DATE


@pytest.mark.parametrize("text", [examples.ARCHIVE_ID, "00000000-" + "0" * 40])
def test_an_archive_id_is_known_by_its_form(text: str) -> None:
    assert received_header.is_archive_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "20261122",
        "20261122-" + "a1" * 19,
        "20261122-" + "a1" * 20 + "0",
        "20261122-" + "A1" * 20,
        "20261122-" + "a1" * 19 + "/.",
        "20261122-a/" + "a" * 38,
        "2026112-" + "a1" * 20 + "0",
        "2026112x-" + "a1" * 20,
        "../../..-" + "a1" * 20,
        "２０２６１１２２-" + "a1" * 20,
        "20261122-" + "a1" * 20 + "\n",
        "20261122_" + "a1" * 20,
    ],
)
def test_nothing_else_is_an_archive_id(text: str) -> None:
    assert not received_header.is_archive_id(text)


@given(st.text(alphabet="0123456789abcdef-./", min_size=45, max_size=52))
def test_an_archive_id_is_always_safe_as_a_file_name(text: str) -> None:
    if received_header.is_archive_id(text):
        assert "/" not in text and "." not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1970-01-01T00:00:00Z"),
        (1.7e17, "9999-12-31T23:59:59Z"),
        (253402300799, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_beyond_measure_is_the_last_that_can_be_written(
    seconds: float, text: str
) -> None:
    assert dates.format_rfc3339(seconds) == text


@pytest.mark.parametrize(
    ("head", "header_id", "origin_id"),
    [
        (FROM_SMTP, QUEUE_ID, QUEUE_ID),
        (FROM_SENDMAIL, b"", QUEUE_ID),
        # postsuper -r: XFORWARD goes on naming the first queue file.
        (REQUEUED + FROM_SMTP, QUEUE_ID, b"4Zz9Requeued00"),
        (REQUEUED + FROM_SENDMAIL, b"", b"4Zz9Requeued00"),
        # header_checks have taken Postfix's line away.
        (b"", QUEUE_ID, QUEUE_ID),
        (FROM_SMTP.replace(HOST, b"elsewhere.example"), b"4Zother", b"4Zother"),
        # The host has another name in archive.cf than in main.cf.
        (FROM_SMTP.replace(HOST, b"elsewhere.example"), QUEUE_ID, QUEUE_ID),
        (FROM_SENDMAIL.replace(HOST, b"elsewhere.example"), b"", QUEUE_ID),
        (b"Received: rubbish\r\n", b"", b""),
        (b"", b"", b""),
    ],
)
def test_which_queue_file_it_was_stands_in_the_line_on_top(
    head: bytes, header_id: bytes, origin_id: bytes
) -> None:
    message = b"Return-Path: <x>\r\n" + head + b"Subject: x\r\n\r\n"
    assert (
        received_header.find_queue_id(message, ident=header_id, host=HOST) == origin_id
    )


@pytest.mark.parametrize("received", [FROM_SMTP, TO_SEVERAL])
def test_who_the_mail_owner_is_is_not_asked_for_mail_that_came_by_smtp(
    received: bytes,
) -> None:
    def unexpected_call() -> int:
        raise AssertionError("a look into a directory of users, for each message")

    head = received + b"Subject: x\r\n\r\n"
    received_header.find_origin(
        head, current_queue_id=QUEUE_ID, host=HOST, mail_owner=unexpected_call
    )
    with pytest.raises(AssertionError):
        received_header.find_origin(
            REQUEUED + head, current_queue_id=b"", host=HOST, mail_owner=unexpected_call
        )


def test_an_earlier_message_may_begin_at_or_below_each_trace_field() -> None:
    top, spf = b"Received: by b (Postfix) id 1\r\n", b"Received-SPF: pass\r\n"
    delivered, subject = b"DELIVERED-TO: bob\r\n", b"Subject: x\r\n"
    fields = [top, top, delivered, spf, FROM_SMTP, subject, delivered, subject, spf]
    starts = [len(b"".join(fields[:index])) for index in range(len(fields))]
    offsets = received_header.content_offsets(b"".join(fields) + b"\r\nReceived: x\r\n")
    assert offsets == [starts[1], starts[2], starts[3], starts[4], starts[5], starts[7]]


def test_without_trace_fields_above_nothing_may_be_an_earlier_message() -> None:
    assert received_header.content_offsets(MESSAGE.removeprefix(FROM_SMTP)) == []
    assert received_header.content_offsets(b"") == []


def test_below_thirty_received_fields_no_more_are_examined() -> None:
    offsets = received_header.content_offsets(FROM_SMTP * 20000 + b"\r\n")
    assert offsets == [len(FROM_SMTP) * number for number in range(1, 31)]
