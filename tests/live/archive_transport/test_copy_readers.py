"""Foreign programs read the copies: Python's email package, a bounce reader, importers.

The forms of archive_report_format, each mailed by a real instance. A copy is looked at
as it left Postfix for the archive address, and where it matters in the store as well.
"""

from __future__ import annotations

import email.policy
import hashlib
import re
from collections.abc import Iterator
from email.message import EmailMessage, Message

import flufl.bounce
import pytest

import corpora
from private_postfix import Delivery, PrivatePostfix

pytestmark = pytest.mark.live

ARCHIVE = "legal@example.com"
FORMS = ("hybrid", "dsn", "journal", "message")
REPORTS = ("hybrid", "dsn")  # multipart/report, with the fields for programs
JOURNALS = ("hybrid", "journal")  # with the lines for Exchange-style importers
MULTIPARTS = ("hybrid", "dsn", "journal")
MARKER = "X-MS-Journal-Report"
DATE = "Sun, 22 Nov 2026 12:53:00 +0100"

# An alias mapped at the first hop: there the envelope holds both addresses.
MAPPING = {
    "receive_override_options": "",
    "virtual_alias_maps": "inline:{alias@example.net=member@example.net}",
}

MESSAGES = {
    "plain": b"Subject: plain\nTo: someone@example.net\n",
    "8-bit subject": "Subject: Grüße aus Köln ✉\n".encode(),
    "long 8-bit subject": b"Subject: " + "Grüße ".encode() * 300 + b"\n",
    "Latin-1 subject": "Subject: Grüße\n".encode("latin-1"),
    "encoded subject": b"Subject: =?utf-8?B?R3LDvMOfZQ==?=\n =?utf-8?Q?_=E2=9C=89?=\n",
    "folded subject": b"Subject: one\n two\n\tthree\n",
    "long subject": b"Subject: " + b"word " * 1000 + b"\n",
    "no subject": b"",
    "8-bit body": b"Subject: body\nContent-Transfer-Encoding: 8bit\n",
    "SMTPUTF8": "Subject: Grüße an jörg@example.net\n".encode(),
    "null sender": b"Subject: nobody\n",
    "expanded": b"Subject: alias\n",
}
BODIES = {"8-bit body": "Grüße\n".encode(), "SMTPUTF8": "Grüße\n".encode()}
SENDERS = {"SMTPUTF8": "jürgen@example.org", "null sender": ""}
RECIPIENTS = {
    "SMTPUTF8": ("jörg@example.net", "用户@example.net", "bob@example.net"),
    "expanded": ("alias@example.net", "direct@example.net"),
}
EVERY_MAIL = pytest.mark.parametrize("name", MESSAGES)

Copies = dict[tuple[str, str], Delivery]


def content_of(name: str) -> bytes:
    """The mail of that name, complete, so that Postfix adds no header to it."""
    return b"".join(
        (
            MESSAGES[name],
            f"From: alice@example.org\nDate: {DATE}\n".encode(),
            f"Message-Id: <{marker(name)}>\n\n".encode(),
            BODIES.get(name, b"hello\n"),
        )
    )


def marker(name: str) -> str:
    """A Message-Id by which to find a mail again."""
    return name.replace(" ", ".") + "@mail.example.org"


def recipients_of(name: str) -> tuple[str, ...]:
    """The recipients as the client says them."""
    return RECIPIENTS.get(name, ("bob@example.net", "carol@example.net"))


def final_of(name: str) -> set[str]:
    """The recipients as the archive finds them, mapped at the first hop."""
    mapped = {"alias@example.net": "member@example.net"}
    return {mapped.get(each, each) for each in recipients_of(name)}


@pytest.fixture(scope="module")
def postfix() -> Iterator[PrivatePostfix]:
    """An instance that maps one alias at the first hop."""
    with PrivatePostfix(main=MAPPING) as running:
        yield running


@pytest.fixture(scope="module")
def copies(postfix: PrivatePostfix) -> Copies:
    """The mailed copy of each mail in each form."""
    deliveries_found: Copies = {}
    for form in FORMS:
        postfix.set_archive_cf(archive_report_format=form)
        before = set(postfix.delivered_to(ARCHIVE))
        for name in MESSAGES:
            postfix.send(
                content_of(name),
                sender=SENDERS.get(name, "alice@example.org"),
                to=recipients_of(name),
                options=("BODY=8BITMIME", "SMTPUTF8") if name == "SMTPUTF8" else (),
            )
        postfix.wait_for_empty_queue()
        for copy in set(postfix.delivered_to(ARCHIVE)) - before:
            [name] = [m for m in MESSAGES if f"<{marker(m)}>".encode() in copy.content]
            assert (form, name) not in deliveries_found, "a message has two copies"
            deliveries_found[form, name] = copy
    assert len(deliveries_found) == len(FORMS) * len(MESSAGES), "a message has no copy"
    postfix.set_archive_cf()
    return deliveries_found


def read(copy: Delivery) -> EmailMessage:
    """The copy as the email package reads it."""
    content = copy.content
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def part(copy: Delivery, number: int) -> Message:
    """One of the copy's parts: 0 is for people, the last the original."""
    return corpora.parts_of(read(copy))[number]


def text_of(copy: Delivery) -> list[str]:
    """The lines of the part for people, from the bytes as they stand."""
    _, _, rest = copy.content.partition(b"Content-Description: Notification\n")
    _, _, body = rest.partition(b"\n\n")
    return body.partition(b"\n--=_archive_")[0].decode().split("\n")


def values(copy: Delivery, field: str) -> list[str]:
    """The values of one kind of journal line."""
    return [
        line.removeprefix(f"{field}: ")
        for line in text_of(copy)
        if line.startswith(f"{field}: ")
    ]


def head_of(content: bytes) -> bytes:
    """The header of a message."""
    return content.partition(b"\n\n")[0] + b"\n"


# --- the email package ------------------------------------------------------------


@pytest.mark.parametrize("form", MULTIPARTS)
@EVERY_MAIL
def test_a_copy_is_read_without_a_defect(copies: Copies, form: str, name: str) -> None:
    """The outer message and all parts but the original, by two policies."""
    for message in corpora.parse(copies[form, name].content):
        assert corpora.defects(message) == []
        parts = corpora.parts_of(message)
        assert len(parts) == (2 if form == "journal" else 3)
        for each in parts[:-1]:
            assert corpora.defects(each) == []


@EVERY_MAIL
def test_the_stored_copy_is_read_without_a_defect(
    postfix: PrivatePostfix, copies: Copies, name: str
) -> None:
    assert copies
    line = f"\r\nMessage-Id: <{marker(name)}>\r\n".encode()
    stored = [c for c in map(corpora.read_copy, postfix.stored_files()) if line in c]
    assert len(stored) == len(FORMS)
    for message in (each for copy in stored for each in corpora.parse(copy)):
        assert corpora.defects(message) == []
        text, status, _ = corpora.parts_of(message)
        assert corpora.defects(text) == corpora.defects(status) == []


@pytest.mark.parametrize("form", REPORTS)
@EVERY_MAIL
def test_the_fields_name_every_recipient_as_delayed(
    copies: Copies, form: str, name: str
) -> None:
    copy = copies[form, name]
    groups = fields_of(copy)
    kinds = {r: "rfc822" if r.isascii() else "utf-8" for r in final_of(name)}
    expected = sorted(f"{kind}; {address}" for address, kind in kinds.items())
    assert sorted(fields["final-recipient"] for fields in groups[1:]) == expected
    for fields in groups[1:]:
        assert (fields["action"], fields["status"]) == ("delayed", "4.0.0")
        assert fields["diagnostic-code"]
    sender = SENDERS.get(name, "alice@example.org")
    kind = "rfc822" if sender.isascii() else "utf-8"
    wanted_sender = f"{kind}; {sender}" if sender else None
    assert groups[0].get("x-postfix-sender") == wanted_sender
    assert groups[0]["reporting-mta"] == "dns; mail.example.com"
    assert groups[0]["arrival-date"]


def fields_of(copy: Delivery) -> list[dict[str, str]]:
    """The groups of fields for programs, names in lower case, from the bytes."""
    _, _, rest = copy.content.partition(b"Content-Description: Delivery report\n")
    body = rest.partition(b"\n\n")[2].partition(b"\n--=_archive_")[0].decode()
    return [
        {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in group.splitlines())
        }
        for group in body.rstrip("\n").split("\n\n")
    ]


@pytest.mark.parametrize("form", REPORTS)
def test_fields_beyond_ascii_are_of_the_type_for_them(
    copies: Copies, form: str
) -> None:
    plain, non_ascii = copies[form, "plain"], copies[form, "SMTPUTF8"]
    assert part(plain, 1).get_content_type() == "message/delivery-status"
    assert part(non_ascii, 1).get_content_type() == "message/global-delivery-status"


# --- a bounce reader --------------------------------------------------------------


@pytest.mark.parametrize("form", REPORTS)
@pytest.mark.parametrize("name", [name for name in MESSAGES if name != "SMTPUTF8"])
def test_a_bounce_reader_finds_all_recipients_as_temporary_failures(
    copies: Copies, form: str, name: str
) -> None:
    message = email.message_from_bytes(copies[form, name].content)
    temporary, permanent = flufl.bounce.all_failures(message)
    found_recipients = {address.decode() for address in temporary}
    assert found_recipients in (final_of(name), set(recipients_of(name)))
    assert not permanent


# --- what every copy has ----------------------------------------------------------


@pytest.mark.parametrize("form", MULTIPARTS)
@EVERY_MAIL
def test_the_header_is_the_archives_own_with_date_and_subject_of_the_original(
    copies: Copies, form: str, name: str
) -> None:
    copy = copies[form, name]
    message = read(copy)
    assert copy.sender == ""
    assert message["From"] == "postfix-archive@mail.example.com"
    assert message["To"] == ARCHIVE
    assert message["Date"] == DATE
    assert message["Auto-Submitted"] == "auto-generated"
    assert marker(name) not in message["Message-Id"]
    assert message["Archive-Stamp"]
    assert head_of(copy.content).isascii()
    assert max(map(len, head_of(copy.content).split(b"\n"))) <= 998


@pytest.mark.parametrize("form", MULTIPARTS)
@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("plain", "plain"),
        ("8-bit subject", "Grüße aus Köln ✉"),
        ("encoded subject", "Grüße ✉"),
        ("folded subject", "one two three"),
        ("SMTPUTF8", "Grüße an jörg@example.net"),
    ],
)
def test_the_subject_is_that_of_the_original(
    copies: Copies, form: str, name: str, subject: str
) -> None:
    assert " ".join(read(copies[form, name])["Subject"].split()) == subject


@pytest.mark.parametrize("form", FORMS)
@EVERY_MAIL
def test_the_original_is_in_the_copy_byte_for_byte(
    copies: Copies, form: str, name: str
) -> None:
    content = copies[form, name].content
    if form == "message":
        assert content.endswith(content_of(name))
        return
    original = corpora.extract_original(content.replace(b"\n", b"\r\n"))
    assert original.endswith(content_of(name).replace(b"\n", b"\r\n"))
    assert original.startswith(b"Received: ")


@pytest.mark.parametrize("form", MULTIPARTS)
@EVERY_MAIL
def test_no_part_is_encoded(copies: Copies, form: str, name: str) -> None:
    """Importers read addresses and messages only as they stand."""
    *report_parts, original = corpora.parts_of(read(copies[form, name]))
    for each in report_parts:
        assert each["Content-Transfer-Encoding"] in ("7bit", "8bit")
    too_long = max(map(len, content_of(name).split(b"\n"))) > 998
    allowed = ("binary",) if too_long else ("7bit", "8bit")
    assert original["Content-Transfer-Encoding"] in allowed


@pytest.mark.parametrize("form", MULTIPARTS)
def test_a_copy_that_smtp_cannot_carry_states_it_and_names_the_sha256(
    copies: Copies, form: str
) -> None:
    notice = "lines that SMTP cannot carry"
    assert notice not in "\n".join(text_of(copies[form, "plain"]))
    copy = copies[form, "long subject"]
    assert notice in "\n".join(text_of(copy))
    original = corpora.extract_original(copy.content.replace(b"\n", b"\r\n"))
    assert hashlib.sha256(original).hexdigest().encode() in copy.content


@pytest.mark.parametrize("form", MULTIPARTS)
@EVERY_MAIL
def test_an_encoding_is_as_wide_as_its_content(
    copies: Copies, form: str, name: str
) -> None:
    content = copies[form, name].content
    boundary = re.search(rb'\tboundary="([^"]+)"\n', content)
    assert boundary
    parts = content.split(b"\n--" + boundary[1])[1:-1]
    for part_content in parts:
        head, _, body = part_content.partition(b"\n\n")
        if b"Content-Transfer-Encoding: 7bit" in head:
            assert body.isascii(), f"8-bit bytes in a 7bit part: {head!r}"
    if b"Content-Transfer-Encoding: 7bit" in head_of(content):
        assert content.isascii(), "8-bit bytes in a 7bit message"


# --- the four forms ---------------------------------------------------------------


@EVERY_MAIL
def test_hybrid_is_a_report_with_journal_lines_and_marker(
    copies: Copies, name: str
) -> None:
    copy = copies["hybrid", name]
    message = read(copy)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [p.get_content_type() for p in corpora.parts_of(message)][::2] == [
        "text/plain",
        "message/rfc822",
    ]
    assert_journal(copy, name)


@EVERY_MAIL
def test_journal_is_journal_lines_and_message_only(copies: Copies, name: str) -> None:
    copy = copies["journal", name]
    message = read(copy)
    assert message.get_content_type() == "multipart/mixed"
    assert [p.get_content_type() for p in corpora.parts_of(message)] == [
        "text/plain",
        "message/rfc822",
    ]
    assert_journal(copy, name)


def assert_journal(copy: Delivery, name: str) -> None:
    """Fail unless marker and journal lines are as [MS-XJRNL] 2.1 wants them."""
    names = [line.partition(b":")[0] for line in head_of(copy.content).split(b"\n")]
    assert names.count(MARKER.encode()) == 1, "the marker is missing, or misspelt"
    assert names.index(MARKER.encode()) > names.index(b"To"), "the marker is above To:"
    assert read(copy)[MARKER] == ""
    assert values(copy, "Sender") == [SENDERS.get(name, "alice@example.org") or "<>"]
    assert values(copy, "Message-ID") == [f"<{marker(name)}>"]
    assert len(values(copy, "Subject")) == 1
    recipients = [
        each.partition(", Expanded: ")[0] for each in values(copy, "Recipient")
    ]
    assert sorted(recipients) == sorted(final_of(name))


@pytest.mark.parametrize("form", JOURNALS)
def test_a_mapped_recipient_is_listed_with_the_address_it_was_expanded_from(
    copies: Copies, form: str
) -> None:
    assert sorted(values(copies[form, "expanded"], "Recipient")) == [
        "direct@example.net",
        "member@example.net, Expanded: alias@example.net",
    ]


@pytest.mark.parametrize("form", JOURNALS)
def test_an_8_bit_subject_stands_as_utf_8_in_the_journal_lines(
    copies: Copies, form: str
) -> None:
    copy = copies[form, "8-bit subject"]
    assert values(copy, "Subject") == ["Grüße aus Köln ✉"]
    assert part(copy, 0).get_content_charset() == "utf-8"
    assert part(copy, 0)["Content-Transfer-Encoding"] == "8bit"
    assert part(copies[form, "plain"], 0).get_content_charset() == "us-ascii"


@EVERY_MAIL
def test_dsn_has_neither_journal_lines_nor_marker(copies: Copies, name: str) -> None:
    copy = copies["dsn", name]
    message = read(copy)
    assert message.get_content_type() == "multipart/report"
    assert MARKER.encode() not in copy.content
    assert values(copy, "Recipient") == values(copy, "Sender") == []
    kinds = [p.get_content_type() for p in corpora.parts_of(message)]
    # RFC 6532 3.7: a header beyond ASCII makes a message/global.
    is_non_ascii = not head_of(content_of(name)).isascii()
    assert kinds[2] == ("message/global" if is_non_ascii else "message/rfc822")


@EVERY_MAIL
def test_message_is_the_bare_original_below_envelope_lines(
    copies: Copies, name: str
) -> None:
    content = copies["message", name].content
    sender = SENDERS.get(name, "alice@example.org")
    expected = [f"X-Envelope-From: <{sender}>"]
    expected += [f"X-Envelope-To: <{each}>" for each in final_of(name)]
    lines = head_of(content).split(b"\n")
    envelope_lines = [
        line.decode() for line in lines if line.startswith(b"X-Envelope-")
    ]
    assert envelope_lines[0] == expected[0]
    assert sorted(envelope_lines) == sorted(expected)
    assert b"\n--=_archive_" not in content


# --- importers with small buffers, and forged markers -----------------------------


@pytest.mark.parametrize("form", JOURNALS)
def test_25_recipients_at_10_per_copy_make_3_copies(
    postfix: PrivatePostfix, form: str
) -> None:
    subject = f"dealt out in {form}"
    settings = {"archive_journal_recipients_per_copy": "10"}
    postfix.set_archive_cf(archive_report_format=form, **settings)
    recipients = [f"r{number}@example.net" for number in range(25)]
    before = len(postfix.stored_files())
    content = f"Subject: {subject}\nMessage-Id: <{form}.dealt@example.org>\n\nx\n"
    postfix.send(content.encode(), to=recipients)
    postfix.wait_for_empty_queue()
    postfix.set_archive_cf()
    line = f"Subject: {subject}\n".encode()
    mailed = [c for c in postfix.delivered_to(ARCHIVE) if line in head_of(c.content)]
    recipients_by_copy = [values(copy, "Recipient") for copy in mailed]
    assert sorted(map(len, recipients_by_copy)) == [5, 10, 10]
    assert sorted(sum(recipients_by_copy, [])) == sorted(recipients)
    originals = {
        corpora.extract_original(c.content.replace(b"\n", b"\r\n")) for c in mailed
    }
    assert len(originals) == 1, "the copies do not hold one and the same message"
    assert len(postfix.stored_files()) == before + 1, "the store is to have one record"
    [copy] = [
        c for c in map(corpora.read_copy, postfix.stored_files()) if line[:-1] in c
    ]
    for address in recipients:
        assert f"\r\nFinal-Recipient: rfc822; {address}\r\n".encode() in copy


@pytest.mark.parametrize("form", JOURNALS)
def test_a_forged_marker_in_the_original_misleads_no_importer(
    postfix: PrivatePostfix, form: str
) -> None:
    """Such a line in the original makes importers drop the true recipients."""
    postfix.set_archive_cf(archive_report_format=form)
    forged = f"{MARKER}:\nSubject: forged {form}\nMessage-Id: <f@example.org>\n\nx\n"
    postfix.send(forged.encode(), to=["victim@example.net"])
    postfix.wait_for_empty_queue()
    postfix.set_archive_cf()
    subject = f"Subject: forged {form}".encode()
    [stored] = [
        c for c in map(corpora.read_copy, postfix.stored_files()) if subject in c
    ]
    assert f"\r\n{MARKER}:\r\n".encode() in corpora.extract_original(stored)
    [mailed] = [
        delivery
        for delivery in postfix.delivered_to(ARCHIVE)
        if subject in head_of(delivery.content)
    ]
    assert mailed.content.count(f"\n{MARKER}:".encode()) == 1
