"""Claims about hostile messages: each costs its limit, and the next one is read."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from collections.abc import Iterator, Sequence

import pytest

from postfix_archive.search import extraction, extraction_header, extraction_process
from postfix_archive.search.content import MessageContent
from postfix_archive.search.extraction_limits import (
    MESSAGE_LIMIT,
    MIB,
    PART_LIMIT,
    TEXT_LIMIT,
    TIME_LIMIT,
    ProcessLimits,
)
from postfix_archive.search.extraction_process import Extractor
from postfix_archive.system import privileges

from unit.search import documents

PLAIN = b"From: ann@example.org\r\nSubject: hello\r\n\r\nthe text\r\n"
LIMITS = ProcessLimits(cpu=1, killed_cpu=1)
HEADER = b"Subject: hello\r\nMIME-Version: 1.0\r\nContent-Type: "


@pytest.fixture
def extractor() -> Iterator[Extractor]:
    with Extractor(LIMITS) as running:
        yield running


def mail(content_type: bytes, body: bytes) -> bytes:
    return HEADER + content_type + b"\r\n\r\n" + body


def docx(xml: bytes) -> bytes:
    return documents.mail_with(documents.docx_of(xml), "bomb.docx")


def pdf_bomb() -> bytes:
    """A page whose content is itself, drawn a thousand times at each of ten levels."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</XObject<</X 4 0 R>>>>>>",
    ]
    drawing = b"/X Do\n" * 1000
    objects += [
        b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X %d 0 R>>>>"
        b"/Length %d>>stream\n%s\nendstream" % (number + 1, len(drawing), drawing)
        for number in range(4, 14)
    ]
    objects += [b"<</Length 0>>stream\n\nendstream"]
    body = b"".join(
        b"%d 0 obj\n%s\nendobj\n" % (number, each)
        for number, each in enumerate(objects, 1)
    )
    return b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF\n"


def nested_zip() -> bytes:
    content = bytes(MIB)
    for depth in range(10):
        files = {f"{depth}-{number}.zip": content for number in range(4)}
        content = documents.zip_archive(files)
    return content


BILLION_LAUGHS = b"<!DOCTYPE x [<!ENTITY a0 'ha'>%s]><x>&a9;</x>" % b"".join(
    b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)
)
# Of each message: what its problems say.
BOMBS = {
    "100,000 parts": (
        mail(b"multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n" * 100_000),
        f"parts: more than {PART_LIMIT}",
    ),
    "32 MB of delimiters": (
        mail(b"multipart/mixed; boundary=b", b"--b\r\n" * (6 * MIB)),
        "",
    ),
    "32 MB of parameters": (mail(b"text/plain" + b";" * (30 * MIB), b""), ""),
    "nested zips": (documents.mail_with(nested_zip(), "x.zip"), ""),
    "a zip bomb in a docx": (docx(b"<x>" + b" " * (100 * MIB)), "docx: more than"),
    "much text in a docx": (docx(b"<t>" + b"x " * (30 * MIB)), "text: cut at"),
    "billion laughs": (docx(BILLION_LAUGHS), "docx: damaged (DTDForbidden)"),
    "100,000 nested elements": (docx(b"<t>" * 100_000), "docx: damaged (ParseError)"),
    "a PDF bomb": (documents.mail_with(pdf_bomb(), "x.pdf"), ""),
    "HTML above the limit": (
        mail(b"text/html", b"<p>hello\r\n" * (MESSAGE_LIMIT // 10)),
        "message: cut at",
    ),
    "multiparts nested 10,000 deep": (
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
            for n in range(10_000)
        ),
        "",
    ),
    "messages nested 1,000 deep": (
        b"Content-Type: message/rfc822\r\n\r\n" * 1000 + b"hello",
        "",
    ),
    "a header of 20 MB": (b"To: " + b"a@example.org, " * (4 * MIB // 3) + b"\r\n", ""),
    "encoded words without end": (b"Subject: " + b"=?utf-8?Q?a?= " * 100_000, ""),
    "RTF of braces": (
        documents.mail_with(b"{\\rtf1" + b"{\\fonttbl" * 100_000, "x"),
        "",
    ),
    "a winmail.dat of nothings": (
        documents.mail_with(b"\x78\x9f\x3e\x22" + bytes(4 * MIB), "winmail.dat"),
        "",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_its_limit_and_the_next_message_is_read(
    extractor: Extractor, name: str
) -> None:
    bomb, problem = BOMBS[name]
    extractor.extract(PLAIN)
    used = children_cpu_seconds()
    found = extractor.extract(bomb)
    assert any(
        each.startswith(problem) for each in found.problems or ("",)
    ), found.problems
    assert len(found.text) <= TEXT_LIMIT + PART_LIMIT * 2
    assert extractor.extract(PLAIN) == extraction.extract(PLAIN)
    extractor.close()
    # What killed_cpu allows, twice, and a second for the start of each process.
    assert children_cpu_seconds() - used < 2 * (LIMITS.killed_cpu + 2) + 3


def children_cpu_seconds() -> float:
    """CPU time of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def test_a_part_that_needs_too_much_memory_is_left_out() -> None:
    limits = ProcessLimits(memory=150 * MIB)
    with Extractor(limits) as extractor:
        found = extractor.extract(docx(b"<t>x</t>" * (6 * MIB)))
        assert found.problems
        assert found.subject == "the documents"
        assert extractor.extract(PLAIN).text == "the text"


def test_a_message_that_needs_too_much_memory_keeps_its_header() -> None:
    with Extractor(ProcessLimits(memory=60 * MIB)) as extractor:
        found = extractor.extract(PLAIN + b"x\r\n" * (8 * MIB))
        assert found.problems[0].startswith("extraction: ")
        assert found.subject == "hello"
        assert extractor.extract(PLAIN).text == "the text"


class KilledInTheMiddle(Extractor):
    """Kills its process, which is stopped, when the message has been sent to it."""

    kills = 1

    def _receive(self, size: int, deadline: float) -> bytes:
        if self.kills:
            self.kills -= 1
            os.kill(self.pid, signal.SIGKILL)
        return super()._receive(size, deadline)


@pytest.mark.parametrize("kills", [1, 2])
def test_a_process_that_is_killed_in_the_middle_costs_one_text_at_most(
    kills: int,
) -> None:
    with KilledInTheMiddle() as killed:
        killed.kills = kills
        os.kill(killed.pid, signal.SIGSTOP)
        found = killed.extract(PLAIN)
        assert found.problems == ("extraction: process failed (signal 9)",)
        assert (found.subject, found.text) == ("hello", "the text" * (kills == 1))
        assert found.from_ == ("ann@example.org",)
        assert killed.extract(PLAIN) == extraction.extract(PLAIN)


def test_text_beside_a_bomb_is_found(extractor: Extractor) -> None:
    text = b"--b\r\n\r\nbeside it\r\n--b\r\nContent-Type: text/html\r\n\r\n"
    bomb = b"<div>" * 200_000 + b"in &amp; behind it\r\n"
    found = extractor.extract(mail(b"multipart/mixed; boundary=b", text + bomb))
    assert found.problems == (TIME_LIMIT,)
    assert found.text == "beside it\n\nin & behind it"
    assert extractor.extract(PLAIN) == extraction.extract(PLAIN)


def test_header_fields_in_any_charset_take_bounded_time(extractor: Extractor) -> None:
    name = "Привет из Москвы".encode("koi8-r")
    field = b"To: " + b", ".join(name + b" <%d@x.example>" % n for n in range(5000))
    found = extractor.extract(field + b"\r\n\r\ntext")
    assert len(found.to) == 5000 and not found.problems
    assert found.to[7] == "Привет из Москвы <7@x.example>"


def test_a_process_that_is_killed_between_messages_costs_nothing() -> None:
    with Extractor() as extractor:
        extractor.extract(PLAIN)
        first = extractor.pid
        assert first
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        assert extractor.extract(PLAIN).text == "the text"
        assert extractor.pid != first


def test_a_process_that_does_nothing_is_killed_after_its_time() -> None:
    with Extractor(ProcessLimits(wall=1)) as extractor:
        os.kill(extractor.pid, signal.SIGSTOP)
        found = extractor.extract(PLAIN)
        assert (found.subject, found.problems) == ("hello", (TIME_LIMIT,))


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b"[1,2]",
        json.dumps(
            [[], [], [], [], "", None, "", "", "\ud800", [], "", [], []]
        ).encode(),
        json.dumps([[], [], [], [], "", None, "", "", 7, [], "", [], []]).encode(),
        json.dumps([[], [], [], [], "", 1e999, "", "", "", [], "", [], []]).encode(),
        json.dumps([[1], [], [], [], "", None, "", "", "", [], "", [], []]).encode(),
        json.dumps(
            [[], [], [], [], "", 0, "", "", "", [], "", [["", ""]], []]
        ).encode(),
        b"\xff",
    ],
)
def test_a_reply_that_extraction_does_not_make_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    framed = len(reply).to_bytes(8, "big") + bytes(8) + reply
    program = (
        f"import os, sys; os.read(0, 9999); os.write(0, {framed!r}); os.read(0, 1)"
    )
    if len(reply) > 1000:
        program = "import os; os.read(0, 9999); n = 100000;"
        program += " os.write(0, n.to_bytes(8, 'big') + bytes(8) + b'[' * n);"
        program += " os.read(0, 1)"
    monkeypatch.setattr(extraction_process, "PROGRAM", program)
    with Extractor() as extractor:
        found = extractor.extract(PLAIN)
    assert found.problems == ("extraction: process failed (invalid reply)",)
    assert found.subject == "hello"


EMPTY = json.dumps(extraction_header.NO_CONTENT).encode()


@pytest.mark.parametrize(
    "reply",
    [
        b"\xff" * 16,
        bytes(7) + b"\1" + bytes(7) + b"\2" + b"x",
        bytes(7) + b"\1" + bytes(7) + b"\1" + b"\xff",
        len(EMPTY + b"\xff").to_bytes(8, "big") + bytes(7) + b"\1" + EMPTY + b"\xff",
    ],
)
def test_a_reply_of_any_length_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    program = f"import os; os.read(0, 9999); os.write(0, {reply!r}); os.read(0, 1)"
    monkeypatch.setattr(extraction_process, "PROGRAM", program)
    with Extractor() as extractor:
        assert "invalid reply" in extractor.extract(PLAIN).problems[0]


def test_the_process_has_given_up_what_it_does_not_need(extractor: Extractor) -> None:
    extractor.extract(PLAIN)
    status = process_status(extractor.pid)
    assert status["NoNewPrivs"] == "1"
    if not os.geteuid():
        assert status["Uid"].split()[0] != "0"
        assert status["Groups"] in ("", status["Gid"].split()[0])
    limits = open_text(f"/proc/{extractor.pid}/limits")
    for name in ("Max file size", "Max processes", "Max core file size"):
        [line] = [each for each in limits.splitlines() if each.startswith(name)]
        assert line[len(name) :].split()[:2] == ["0", "0"]
    assert open_text(f"/proc/{extractor.pid}/environ") == ""
    descriptors = os.listdir(f"/proc/{extractor.pid}/fd")
    assert len(descriptors) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_the_process_of_root_with_the_rights_of_another_cannot_get_them_back() -> None:
    user = pwd.getpwnam("nobody")
    with privileges.as_ids(user.pw_uid, user.pw_gid), Extractor() as extractor:
        assert extractor.extract(PLAIN) == extraction.extract(PLAIN)
        status = process_status(extractor.pid)
        assert {*status["Uid"].split()} == {str(user.pw_uid)}
        assert {*status["Gid"].split()} == {str(user.pw_gid)}
        assert status["Groups"] == ""


def process_status(pid: int) -> dict[str, str]:
    lines = open_text(f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (e.partition(":") for e in lines)}


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def test_what_the_process_returns_is_what_extraction_returns(
    extractor: Extractor,
) -> None:
    mails = [PLAIN, documents.mail_with(documents.word_document(), "Grüße.docx"), b""]
    found: list[MessageContent] = [extractor.extract(each) for each in mails]
    assert found == [extraction.extract(each) for each in mails]


def test_the_process_ends_with_its_parent() -> None:
    with Extractor() as extractor:
        extractor.extract(PLAIN)
        assert extractor._process is not None and extractor._connection is not None
        extractor._connection.close()  # as the kernel does it
        assert extractor._process.wait(timeout=60) == 0


def test_no_more_of_an_original_is_read_than_is_looked_at() -> None:
    chunks = iter([bytes(MESSAGE_LIMIT), b"xx", b"never read"])
    assert len(extraction_process.read_original(chunks)) == MESSAGE_LIMIT + 1
    assert next(chunks) == b"never read"
    assert extraction_process.read_original([b"a", b"b"]) == b"ab"


def test_the_process_finds_a_package_that_only_an_import_hook_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = os.path.dirname(extraction_process.PACKAGE)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != own])
    with Extractor() as extractor:
        assert extractor.extract(PLAIN) == extraction.extract(PLAIN)


def test_where_no_process_can_be_started_the_caller_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    extractor = Extractor()
    with pytest.raises(OSError), extractor:
        pass


def numbered(number: int) -> bytes:
    return b"Subject: hello\r\n\r\ntext %d\r\n" % number


BOMB = mail(b"text/html", b"<div>" * 200_000)


@pytest.mark.parametrize("places", [(0,), (2, 3), (6,)])
def test_of_messages_sent_together_a_bomb_harms_itself_alone(
    extractor: Extractor, places: Sequence[int]
) -> None:
    mails = [BOMB if each in places else numbered(each) for each in range(7)]
    for original, found in zip(mails, extractor.extract_all(mails), strict=True):
        if original == BOMB:
            assert found.problems[0] == TIME_LIMIT
        else:
            assert found == extraction.extract(original)


@pytest.mark.parametrize("killed_before", range(5))
def test_a_process_that_is_killed_costs_no_other_message_of_those_sent_together(
    killed_before: int,
) -> None:
    class KilledOnce(Extractor):
        receptions = 0  # two for each reply

        def _receive(self, size: int, deadline: float) -> bytes:
            if self.receptions == 2 * killed_before:
                os.kill(self.pid, signal.SIGKILL)
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.receptions += 1
            return super()._receive(size, deadline)

    mails = [numbered(each) for each in range(5)]
    with KilledOnce() as killed:
        found = [*killed.extract_all(mails)]
    assert [each.text for each in found] == [f"text {each}" for each in range(5)]


def test_replies_that_nobody_took_are_of_no_later_message(extractor: Extractor) -> None:
    contents = extractor.extract_all([numbered(each) for each in range(5)])
    assert next(contents).text == "text 0"
    del contents
    assert extractor.extract(PLAIN).text == "the text"


def test_messages_sent_together_may_be_larger_than_the_buffers(
    extractor: Extractor,
) -> None:
    mails = [numbered(each) + b"word " * MIB for each in range(3)]
    for original, found in zip(mails, extractor.extract_all(mails), strict=True):
        assert found == extraction.extract(original)
    assert [*extractor.extract_all([])] == []
