"""Claims about Outlook files: what is refused before readpst sees it, and that a
second run of readpst gives the same messages."""

from __future__ import annotations

import email
import re
import zlib
from email.policy import default
from pathlib import Path

import pytest

from postfix_archive.errors import ImportFailed
from postfix_archive.mail_import import pst
from postfix_archive.store import record_reader

import corpora
from sample_store import LEGAL, SampleStore

SIZE = 10_000


def header(*, version: int = 23, size: int = SIZE, method: int = 1) -> bytes:
    """Return the header of an Outlook file ([MS-PST] 2.2.2.6), filled up to SIZE."""
    is_ansi = version in pst.ANSI_VERSIONS
    size_offset, size_bytes, method_offset = (
        pst.ANSI_OFFSETS if is_ansi else pst.UNICODE_OFFSETS
    )
    content = bytearray(SIZE)
    content[:4] = b"!BDN"
    content[10:12] = version.to_bytes(2, "little")
    content[size_offset : size_offset + size_bytes] = size.to_bytes(
        size_bytes, "little"
    )
    content[method_offset] = method
    return bytes(content)


@pytest.mark.parametrize("version", [14, 15, 23, 36])
@pytest.mark.parametrize("method", [0, 1, 2])
def test_a_whole_file_is_read_with_any_encoding(
    tmp_path: Path, version: int, method: int
) -> None:
    path = tmp_path / "x.pst"
    path.write_bytes(header(version=version, method=method))
    pst.check(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (header(size=SIZE + 1), "ends in the middle: it has 10000 of 10001 bytes"),
        (header(version=14, size=SIZE + 1), "ends in the middle"),
        (header(method=16), "encrypted with Windows Information Protection"),
        (header()[:500], "its header is cut off"),
    ],
)
def test_what_readpst_would_not_notice_is_refused(
    tmp_path: Path, content: bytes, text: str
) -> None:
    path = tmp_path / "x.pst"
    path.write_bytes(content)
    with pytest.raises(ImportFailed, match=text):
        pst.check(path)


def run(number: int) -> bytes:
    """Return what readpst 0.6.76 writes, with the numbers and the time of a run."""
    other = 7 * number
    return b"""Subject: meeting
Content-Type: multipart/mixed;
\tboundary="--boundary-LibPST-iamunique-%(a)d_-_-"

----boundary-LibPST-iamunique-%(a)d_-_-
Content-Type: multipart/alternative;
\tboundary="alt---boundary-LibPST-iamunique-%(b)d_-_-"

--alt---boundary-LibPST-iamunique-%(b)d_-_---
----boundary-LibPST-iamunique-%(a)d_-_-
Content-Type: text/calendar; charset="utf-8"; name="i%(a)d.ics"
Content-Disposition: attachment; filename="i%(a)d.ics"

UID:0x%(b)x
DTSTAMP:20261130T1342%(c)02dZ
----boundary-LibPST-iamunique-%(a)d_-_---
""" % {b"a": number, b"b": other, b"c": number % 60}


def test_two_runs_give_the_same_message() -> None:
    first, second = (
        b"".join(pst.stable_lines(run(number).splitlines(keepends=True)))
        for number in (11, 1516114213)
    )
    assert first == second
    assert first.count(b"iamunique-1_-_-") == 4
    assert first.count(b"iamunique-2_-_-") == 2


def test_other_lines_stay() -> None:
    lines = [b"UID:1@x\r\n", b"DTSTAMP:x\r\n", b'name="invite1.ics"\r\n', b"0x1\r\n"]
    assert list(pst.stable_lines(lines)) == lines


# --- files that Outlook wrote ------------------------------------------------------

PASSWORD = b"\xff\x67\x03\x00"  # PidTagPstPassword, a PtypInteger32 ([MS-PST] 2.4.3.3)
FOUND_BY_OTHERS = re.compile(r"Sender: .*?, Subject:(.*)$", re.MULTILINE)


@pytest.fixture
def outlook(pytestconfig: pytest.Config) -> Path:
    assert pytestconfig.cache
    return corpora.outlook_files(pytestconfig.cache.mkdir("corpora"))


def subjects(store: SampleStore) -> list[str]:
    """The subjects of the messages in a store, sorted."""
    path = str(store.path)
    heads = (
        record_reader.original_head(path, each)
        for each in record_reader.records(path, LEGAL)
    )
    parse = email.message_from_bytes
    found = [str(parse(each, policy=default)["subject"] or "") for each in heads]
    return sorted(" ".join(each.split()) for each in found)


def test_an_outlook_file_is_imported_whole(outlook: Path, tmp_path: Path) -> None:
    """The subjects are those that pst-extractor, another reader, finds."""
    store = SampleStore(tmp_path)
    arguments = ("import", outlook / "enron.pst", "--archive", LEGAL)
    store.run(*arguments, "--create")
    text = (outlook / "output.txt").read_text().partition(".ost")[0]
    expected = sorted(" ".join(e.split()) for e in FOUND_BY_OTHERS.findall(text))
    assert len(expected) > 60
    assert subjects(store) == expected
    again = store.run(*arguments)
    assert "were there already" in again.output


@pytest.mark.parametrize("checksum", [0, zlib.crc32(b"secret")])
def test_a_password_of_outlook_is_not_asked_for(
    outlook: Path, tmp_path: Path, checksum: int
) -> None:
    content = (outlook / "pstextractortestpdf@outlook.com.ost").read_bytes()
    assert content.count(PASSWORD) == 2
    value = checksum.to_bytes(4, "little")
    start, *others = content.split(PASSWORD)
    changed = PASSWORD.join([start, *(value + each[4:] for each in others)])
    (tmp_path / "x.ost").write_bytes(changed)
    store = SampleStore(tmp_path / "host")
    store.run("import", tmp_path / "x.ost", "--archive", LEGAL, "--create")
    assert subjects(store)


def test_an_outlook_file_that_is_cut_is_refused(outlook: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pst"
    path.write_bytes((outlook / "enron.pst").read_bytes()[:5_000_000])
    store = SampleStore(tmp_path / "host")
    result = store.run("import", path, "--archive", LEGAL, "--create", exit_code=1)
    assert "ends in the middle: it has 5000000 of 13984768 bytes" in result.output
