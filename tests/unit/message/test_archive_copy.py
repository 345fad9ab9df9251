"""Claims about the archive copy, in all its four forms."""

from __future__ import annotations

import base64
import email
import email.policy
import re
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.config.settings import REPORT_FORMATS
from postfix_archive.message import archive_copy, encoded_words, envelope, header, mime
from postfix_archive.message.archive_copy import ArchiveCopy, EnvelopeReport
from postfix_archive.message.envelope import Client, Recipient

from unit import examples
from unit.examples import (
    ADDRESSES,
    ARCHIVE_ID,
    FOREIGN_KEYS,
    KEYS,
    LEGAL,
    MESSAGE,
    envelope_values,
    make_envelope,
)

FROM = b"postfix-archive@mail.example.com"
DIGEST = "ab" * 32
BOUNDARY = archive_copy.make_boundary(ARCHIVE_ID, DIGEST, KEYS)
MULTIPARTS = ("hybrid", "dsn", "journal")
REPORTS = ("hybrid", "dsn")
TEXT_LINE_LIMIT = 998  # RFC 5322 2.1.1, RFC 2045 2.7


def make_report(
    message: bytes = MESSAGE, given_envelope: envelope.Envelope | None = None
) -> EnvelopeReport:
    used_envelope = given_envelope or make_envelope(message)
    return EnvelopeReport(
        used_envelope,
        LEGAL,
        message[: header.HEAD_LIMIT],
        examples.content_properties(message),
    )


def build_copy(report: EnvelopeReport, form: str = "hybrid") -> ArchiveCopy:
    return archive_copy.build(report, form, sender=FROM, boundary=BOUNDARY)


def make_copy(
    message: bytes = MESSAGE,
    form: str = "hybrid",
    given_envelope: envelope.Envelope | None = None,
) -> bytes:
    """The whole copy: what stands around the original, and the original."""
    archive_copy_parts = build_copy(make_report(message, given_envelope), form)
    return archive_copy_parts.preamble + message + archive_copy_parts.trailer


def parse(copy: bytes) -> Message:
    return email.message_from_bytes(copy, policy=email.policy.compat32)


def parts_of(copy: bytes) -> list[Message]:
    payload = parse(copy).get_payload()
    assert isinstance(payload, list)
    return [each for each in payload if isinstance(each, Message)]


def subject_of(subject: bytes) -> str:
    """The copy's subject as a mail reader shows it."""
    copy = make_copy(b"Subject: " + subject + b"\r\n\r\nbody\r\n")
    subject_text = email.message_from_bytes(copy, policy=email.policy.default)[
        "Subject"
    ]
    return str(subject_text)


def with_header(line: bytes) -> bytes:
    return line + b"\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("form", "kinds"),
    [
        ("hybrid", ["text/plain", "message/delivery-status", "message/rfc822"]),
        ("dsn", ["text/plain", "message/delivery-status", "message/rfc822"]),
        ("journal", ["text/plain", "message/rfc822"]),
    ],
)
def test_a_copy_has_the_parts_that_its_form_names(form: str, kinds: list[str]) -> None:
    copy = make_copy(form=form)
    message = parse(copy)
    assert [each.get_content_type() for each in parts_of(copy)] == kinds
    assert not message.defects
    if form == "journal":
        assert message.get_content_type() == "multipart/mixed"
    else:
        assert message.get_content_type() == "multipart/report"
        assert message.get_param("report-type") == "delivery-status"


def test_a_copy_has_exactly_these_bytes() -> None:
    expected = Path(__file__).with_name("archive_copy.expected").read_bytes()
    assert make_copy() == expected.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("form", MULTIPARTS)
def test_the_inner_message_is_found_by_any_mail_reader(form: str) -> None:
    copy = make_copy(form=form)
    payload = parts_of(copy)[-1].get_payload()
    assert isinstance(payload, list)
    (inner,) = payload
    assert isinstance(inner, Message)
    assert inner["Message-ID"] == "<1@example.org>"
    assert copy.count(MESSAGE) == 1


@pytest.mark.parametrize("form", MULTIPARTS)
def test_the_header_of_a_copy_is_the_archives_own(form: str) -> None:
    message = parse(make_copy(form=form))
    assert message["From"] == FROM.decode()
    assert message["To"] == LEGAL
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["MIME-Version"] == "1.0"
    assert message["Subject"] == "the contract"
    assert message["Date"] == "Sun, 22 Nov 2026 12:52:00 +0100"
    assert message["Message-Id"] == f"<{ARCHIVE_ID}@mail.example.com>"
    assert message.get_boundary() == BOUNDARY.decode()


@pytest.mark.parametrize(
    ("form", "has_marker"), [("hybrid", True), ("journal", True), ("dsn", False)]
)
def test_the_journal_marker_stands_behind_to(form: str, has_marker: bool) -> None:
    names = [field.name for field in header.fields(make_copy(form=form))]
    assert (b"x-ms-journal-report" in names) == has_marker
    if has_marker:
        assert names.index(b"x-ms-journal-report") > names.index(b"to")
        assert b"\r\nX-MS-Journal-Report:" in make_copy(form=form)


@pytest.mark.parametrize("form", ["hybrid", "journal"])
def test_the_journal_lines_hold_the_envelope(form: str) -> None:
    recipients = (
        Recipient(b"bob@example.com", b"sales@example.com"),
        Recipient(b"eve@example.com"),
    )
    text = parts_of(
        make_copy(form=form, given_envelope=make_envelope(recipients=recipients))
    )[0]
    assert text["Content-Transfer-Encoding"] == "7bit"
    lines = str(text.get_payload()).splitlines()
    assert lines[lines.index("Sender: ann@example.org") :] == [
        "Sender: ann@example.org",
        "Subject: the contract",
        "Message-ID: <1@example.org>",
        "Recipient: bob@example.com, Expanded: sales@example.com",
        "Recipient: eve@example.com",
    ]


def test_a_null_sender_is_written_as_such_in_the_journal_lines() -> None:
    text = str(
        parts_of(make_copy(given_envelope=make_envelope(sender=b"")))[0].get_payload()
    )
    assert "\nSender: <>" in text.replace("\r\n", "\n")


def test_a_dsn_has_no_journal_lines() -> None:
    text = str(parts_of(make_copy(form="dsn"))[0].get_payload())
    assert "Recipient:" not in text
    assert "<bob@example.com>" in text


@pytest.mark.parametrize("form", REPORTS)
def test_the_status_part_is_a_delivery_status_of_rfc_3464(form: str) -> None:
    groups = parts_of(make_copy(form=form))[1].get_payload()
    assert isinstance(groups, list) and len(groups) == 2
    message, recipient = groups
    assert isinstance(message, Message) and isinstance(recipient, Message)
    assert message["Reporting-MTA"] == "dns; mail.example.com"
    assert message["X-Postfix-Sender"] == "rfc822; ann@example.org"
    assert message["Archive-Id"] == ARCHIVE_ID
    assert recipient["Final-Recipient"] == "rfc822; bob@example.com"
    assert recipient["Action"] == "delayed"
    assert recipient["Status"] == "4.0.0"


@pytest.mark.parametrize("form", REPORTS)
@given(people=st.lists(ADDRESSES, max_size=4), sender=ADDRESSES)
def test_the_status_part_reads_back_as_the_envelope(
    form: str, people: list[bytes], sender: bytes
) -> None:
    written_envelope = make_envelope(
        sender=sender, recipients=tuple(map(Recipient, people))
    )
    fields = archive_copy.envelope_fields(
        make_copy(form=form, given_envelope=written_envelope)
    )
    read_envelope = envelope.parse(fields)
    assert envelope_values(read_envelope) == envelope_values(
        envelope.parse(envelope.serialise(written_envelope))
    )


def test_a_status_part_that_is_cut_off_is_none() -> None:
    copy = make_copy()
    assert archive_copy.envelope_fields(copy[: copy.index(b"Final-Recipient")]) == b""
    assert archive_copy.envelope_fields(b"") == b""


def test_the_message_form_is_the_original_with_lines_on_top() -> None:
    copy = make_copy(form="message")
    assert copy.endswith(MESSAGE)
    assert copy[: -len(MESSAGE)] == (
        b"X-Envelope-From: <ann@example.org>\r\nX-Envelope-To: <bob@example.com>\r\n"
    )


LOOKALIKES = [
    b"",
    b"\r\n",
    b"no header at all\r\n",
    b"\0\xff\r\n",
    MESSAGE + b"\r\n--" + BOUNDARY + b"--\r\n",
    MESSAGE + b"\r\n--" + BOUNDARY + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n",
    b"--" + BOUNDARY + b"\r\n\r\n" + MESSAGE,
    b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n\r\n--x--\r\n',
    b"Subject: --" + BOUNDARY + b"\r\nMessage-ID: --" + BOUNDARY + b"\r\n\r\nx\r\n",
    b'Subject: x\r\n Content-Type: message/x\r\n\r\nboundary="y"\r\n',
    b"Subject: x\r\n\r\n--=_archive_00\r\nContent-Type: message/rfc822\r\n\r\n",
]


@pytest.mark.parametrize("form", MULTIPARTS)
@pytest.mark.parametrize("message", [MESSAGE, *LOOKALIKES])
def test_the_original_is_found_whatever_it_looks_like(
    form: str, message: bytes
) -> None:
    copy = make_copy(message, form)
    start = archive_copy.original_offset(copy)
    assert copy[start : start + len(message)] == message
    assert copy[start + len(message) :] == b"\r\n--" + BOUNDARY + b"--\r\n"


def test_a_copy_of_a_copy_gives_the_outer_original() -> None:
    inner = make_copy()
    other = archive_copy.make_boundary("20261123-" + "b2" * 20, DIGEST, KEYS)
    report = make_report(inner, make_envelope(inner))
    outer_copy = archive_copy.build(report, "hybrid", sender=FROM, boundary=other)
    copy = outer_copy.preamble + inner + outer_copy.trailer
    start = archive_copy.original_offset(copy)
    assert copy[start : start + len(inner)] == inner
    assert envelope.parse(archive_copy.envelope_fields(copy)).size == len(inner)


@pytest.mark.parametrize("form", REPORTS)
@pytest.mark.parametrize("message", LOOKALIKES)
def test_the_status_part_is_found_whatever_the_original_looks_like(
    form: str, message: bytes
) -> None:
    read_envelope = envelope.parse(
        archive_copy.envelope_fields(make_copy(message, form))
    )
    assert (read_envelope.size, read_envelope.sha256) == (
        len(message),
        examples.sha256(message).hex(),
    )


@pytest.mark.parametrize("form", MULTIPARTS)
def test_the_start_of_the_original_is_unknown_until_it_is_reached(form: str) -> None:
    copy = make_copy(form=form)
    start = archive_copy.original_offset(copy)
    assert all(
        archive_copy.original_offset(copy[:length]) == -1 for length in range(start)
    )
    assert archive_copy.original_offset(copy[:start]) == start


def test_a_boundary_needs_the_key() -> None:
    own_boundary, foreign_boundary = (
        archive_copy.make_boundary(ARCHIVE_ID, DIGEST, keys)
        for keys in (KEYS, FOREIGN_KEYS)
    )
    other = archive_copy.make_boundary("20261122-" + "b2" * 20, DIGEST, KEYS)
    assert len({own_boundary, foreign_boundary, other}) == 3
    assert re.fullmatch(
        rb"[0-9a-zA-Z'()+_,./:=?-]{1,70}", own_boundary
    )  # RFC 2046 5.1.1


@pytest.mark.parametrize(
    ("subject", "subject_text"),
    [
        (b"plain", "plain"),
        (b"folded\r\n\tonce\r\n more", "folded\tonce more"),
        ("Grüße".encode(), "Grüße"),
        ("Grüße 😀 ".encode() * 20, ("Grüße 😀 " * 20).strip()),
        (b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"", "(no subject)"),
        (b"latin \xfc", "latin \ufffd"),
        (b"bell\x07", "bell\\x07"),
    ],
)
def test_a_subject_is_shown_as_the_originals(subject: bytes, subject_text: str) -> None:
    assert subject_of(subject) == subject_text


def test_a_message_without_a_subject_says_so() -> None:
    assert parse(make_copy(b"From: ann\r\n\r\n"))["Subject"] == "(no subject)"


@pytest.mark.parametrize(
    "subject",
    [
        b"x" * 100000,
        b"\xff" * 100000,
        "ü".encode() * 50000,
        b"x" + "ü".encode() * 50000,
        "😀".encode() * 5000,
        b" ".join([b"word"] * 20000),
        b"\r\n ".join([b"folded"] * 10000),
        b"\0" * 2000,
    ],
)
def test_a_huge_subject_breaks_no_line_of_the_copys_header(subject: bytes) -> None:
    copy = make_copy(b"Subject: " + subject + b"\r\n\r\nbody\r\n")
    copy_header = copy[: header.body_start(copy)]
    assert copy_header.isascii()
    assert max(map(len, copy_header.split(b"\r\n"))) <= TEXT_LINE_LIMIT
    assert parse(copy)["X-MS-Journal-Report"] == ""


@pytest.mark.parametrize(
    "subject", ["ü".encode() * 5000, b"x" + "ü".encode() * 5000, "€".encode() * 5000]
)
def test_a_huge_subject_is_cut_between_two_characters(subject: bytes) -> None:
    subject_text = subject_of(subject)
    assert subject.decode().startswith(subject_text)
    assert len(subject_text) > 100


def encoded(text: str) -> bytes:
    return b"=?utf-8?B?%s?=" % base64.b64encode(text.encode())


def folded_subject(subject: bytes) -> list[bytes]:
    """The lines of the Subject of a copy."""
    copy = make_copy(b"Subject: " + subject + b"\r\n\r\nbody\r\n")
    field = header.first(copy, b"subject")
    assert field is not None
    return field.raw.removesuffix(b"\r\n").split(b"\r\n")


LONG_SUBJECTS = [
    b"\r\n ".join(encoded("合同编号") for _ in range(200)),
    b" ".join(encoded(f"часть {number} ") for number in range(60)),
    b" ".join(b"=?gb2312?B?%s?=" % base64.b64encode(b"\xe9\x46") for _ in range(300)),
    b" ".join(encoded(each) for each in "合同编号" * 200),
    b"=?utf-8?Q?" + b"=E5=90=88" * 1000 + b"?=",  # one word, as some senders write
    "合同编号".encode() * 300,
    "合同 ".encode() + encoded("编号"),
]


@pytest.mark.parametrize("subject", LONG_SUBJECTS)
def test_a_long_subject_is_folded_between_whole_encoded_words(subject: bytes) -> None:
    """RFC 2047 2: 75 characters a word, 76 a line."""
    lines = folded_subject(subject)
    assert max(map(len, lines)) <= 76
    words = b"".join(lines).split()[1:]
    assert all(re.fullmatch(rb"=\?[!->@-~]+\?B\?[\w+/=]+\?=", each) for each in words)
    assert max(map(len, words)) <= 75
    whole = subject_of(subject)
    assert whole and "\ufffd" not in whole
    expected = encoded_words.decode(subject.replace(b"\r\n", b""))
    assert expected.startswith(whole)
    size = len(whole.encode())
    assert whole == expected.rstrip() or 890 < size <= mime.SUBJECT_LIMIT


def test_a_word_shares_its_last_character_with_the_next_and_neither_is_cut() -> None:
    content = "合同编号".encode() * 100
    pieces = (content[at : at + 5] for at in range(0, len(content), 5))
    words = b" ".join(b"=?utf-8?B?%s?=" % base64.b64encode(each) for each in pieces)
    whole = subject_of(words)
    assert content.decode().startswith(whole) and len(whole) > 290
    text = str(parts_of(make_copy(with_header(b"Subject: " + words)))[0].get_payload())
    assert f"Subject: {whole}" in text.splitlines()


@pytest.mark.parametrize(
    ("subject", "lines"),
    [
        (b"x" * 67, [b"Subject: " + b"x" * 67]),
        (b"a " * 33 + b"bc", [b"Subject: " + b"a " * 32 + b"a", b" bc"]),
        (b"x" * 90 + b" y", [b"Subject: " + b"x" * 90, b" y"]),
        (b"a" + b" " * 200 + b"b", [b"Subject: a" + b" " * 199, b" b"]),
        (b"x" * 90 + b"\ty", [b"Subject: " + b"x" * 90, b"\ty"]),
    ],
)
def test_a_subject_is_folded_at_white_space(subject: bytes, lines: list[bytes]) -> None:
    assert folded_subject(subject) == lines


@given(st.text(alphabet="ab \t", min_size=1, max_size=400))
def test_folding_changes_no_character(subject: str) -> None:
    lines = folded_subject(subject.encode())
    assert b"".join(lines) == b"Subject: " + (
        subject.strip().encode() or b"(no subject)"
    )
    assert all(line.strip() for line in lines)
    assert all(line[:1] in b" \t" for line in lines[1:])


@pytest.mark.parametrize("form", MULTIPARTS)
@pytest.mark.parametrize(
    "head",
    [
        b"Subject: " + b"x" * 5000,
        b"Subject: " + b"\r\n ".join([b"folded line"] * 500),
        b"Subject: " + "ü".encode() * 2000,
        b"Message-ID: <" + b"\r\n ".join([b"y" * 70] * 100) + b"@example.org>",
        b"Date: " + b"z" * 2000,
    ],
)
def test_the_parts_of_the_report_hold_no_line_that_smtp_cannot_carry(
    form: str, head: bytes
) -> None:
    """They are declared 7bit or 8bit: at most 998 bytes (RFC 2045 2.7, 2.8)."""
    preamble = build_copy(make_report(head + b"\r\n\r\nbody\r\n"), form).preamble
    assert max(map(len, preamble.split(b"\r\n"))) <= TEXT_LINE_LIMIT


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_of_the_original_makes_an_extra_line(
    subject: bytes, identity: bytes, date: bytes
) -> None:
    message = b"Subject: %s\r\nMessage-ID: %s\r\nDate: %s\r\n\r\n" % tuple(
        each.replace(b"\r\n", b"") for each in (subject, identity, date)
    )
    preamble = build_copy(make_report(message)).preamble
    assert b"\n" not in preamble.replace(b"\r\n", b"")
    assert b"\r" not in preamble.replace(b"\r\n", b"")
    assert b"\0" not in preamble
    names = {field.name for field in header.fields(preamble)}
    assert b"x-ms-journal-report" in names
    assert archive_copy.original_offset(preamble) == len(preamble)


@pytest.mark.parametrize("form", REPORT_FORMATS)
@given(noise=st.binary(min_size=1, max_size=60))
def test_no_address_makes_an_extra_line(form: str, noise: bytes) -> None:
    plain = make_envelope(sender=b"s", recipients=(Recipient(b"f", b"o"),))
    hostile = make_envelope(
        sender=noise, recipients=(Recipient(noise, noise + b"o"),), envid=b""
    )
    counts = [
        build_copy(make_report(given_envelope=each), form).preamble.count(b"\n")
        for each in (plain, hostile)
    ]
    assert counts[0] == counts[1]
    assert b"\r" not in build_copy(
        make_report(given_envelope=hostile), form
    ).preamble.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    ("message", "encoding"),
    [
        (MESSAGE, "7bit"),
        (MESSAGE + b"gr\xfcn\r\n", "8bit"),
        (MESSAGE + b"x" * 999 + b"\r\n", "binary"),
        (MESSAGE + b"a\0b\r\n", "binary"),
    ],
)
@pytest.mark.parametrize("form", MULTIPARTS)
def test_the_declared_encoding_is_true_of_the_original(
    form: str, message: bytes, encoding: str
) -> None:
    copy = make_copy(message, form)
    assert parts_of(copy)[-1]["Content-Transfer-Encoding"] == encoding
    assert parse(copy)["Content-Transfer-Encoding"] == encoding


def test_a_multipart_is_no_narrower_than_its_widest_part() -> None:
    utf8_envelope = make_envelope(recipients=(Recipient("grün@example.com".encode()),))
    copy = make_copy(given_envelope=utf8_envelope)
    text, status, inner = parts_of(copy)
    assert text["Content-Transfer-Encoding"] == "8bit"
    assert text.get_content_charset() == "utf-8"
    assert status.get_content_type() == "message/global-delivery-status"
    assert inner["Content-Transfer-Encoding"] == "7bit"
    assert parse(copy)["Content-Transfer-Encoding"] == "8bit"


@given(ADDRESSES)
def test_the_text_part_is_in_the_charset_that_it_declares(sender: bytes) -> None:
    utf8_envelope = make_envelope(sender=sender, client=Client(helo=sender))
    text = parts_of(make_copy(given_envelope=utf8_envelope))[0]
    body = text.get_payload(decode=True)
    assert isinstance(body, bytes)
    body.decode(str(text.get_content_charset()))


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("dsn", "message/global"),
        ("hybrid", "message/rfc822"),
        ("journal", "message/rfc822"),
    ],
)
def test_message_global_is_for_the_dsn_form_alone(form: str, kind: str) -> None:
    copy = make_copy(with_header("Subject: grün".encode()), form)
    start = archive_copy.original_offset(copy)
    last = copy[copy.rindex(b"--" + BOUNDARY, 0, start) : start]
    assert f"Content-Type: {kind}\r\n".encode() in last


@pytest.mark.parametrize(
    ("line", "date"),
    [
        (b"Date: Sun, 1 Nov 2026 00:00:00 +0000", "Sun, 1 Nov 2026 00:00:00 +0000"),
        (b"X: no date", examples.DATE.decode()),
        (b"Date:", examples.DATE.decode()),
        (b"Date: gr\xfcn", examples.DATE.decode()),
        (b"Date: " + b"x" * 100, examples.DATE.decode()),
    ],
)
def test_a_date_that_cannot_be_read_is_the_arrival(line: bytes, date: str) -> None:
    assert parse(make_copy(with_header(line)))["Date"] == date


def test_a_date_that_nobody_knows_is_not_invented() -> None:
    undated_envelope = make_envelope(arrival=None)
    copy = make_copy(with_header(b"X: no date"), given_envelope=undated_envelope)
    assert parse(copy)["Date"] is None


def test_remarks_and_extra_fields_are_in_the_report() -> None:
    report = make_report()
    report.remarks.append("It bore a stamp.")
    report.extra_fields.append((b"Archive-Capsule", b"00"))
    copy = build_copy(report).preamble
    assert b"* It bore a stamp.\r\n" in copy
    assert b"Archive-Capsule: 00\r\n" in archive_copy.envelope_fields(
        copy + b"\r\n--=_archive_"
    )


def test_a_report_for_some_recipients_leaves_the_rest_unchanged() -> None:
    report = make_report()
    report.remarks.append("remark")
    partial_report = report.for_recipients((Recipient(b"eve@example.com"),), 0)
    assert [each.final for each in partial_report.recipients] == [b"eve@example.com"]
    assert (partial_report.remarks, partial_report.archive, partial_report.head) == (
        ["remark"],
        LEGAL,
        MESSAGE,
    )
    assert [each.final for each in report.recipients] == [b"bob@example.com"]


def test_a_header_field_is_shown_on_one_line() -> None:
    head = b"Subject: one\r\n\ttwo\x07\r\n\r\n"
    assert mime.field_text(head, b"subject") == b"one\ttwo\\x07"
    assert mime.field_text(head, b"date") == b""
