"""Claims about the objects of a journal: what is split can be joined again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.config import object_store
from postfix_archive.errors import SettingInvalid
from postfix_archive.replicate import journal_chunks, layout
from postfix_archive.replicate.layout import JournalPart
from postfix_archive.store import journal_reader
from postfix_archive.store.journal_reader import Line

import journal_lines
from sample_store import LEGAL, SampleStore

ID = "20261122-" + "a" * 40


def lines_of(content: bytes) -> list[Line]:
    lines, offset = [], 0
    for each in content.split(b"\n")[:-1]:
        lines.append(Line(offset, each + b"\n"))
        offset = lines[-1].end
    return lines


def joined(lines: list[Line]) -> bytes:
    """Return the lines again, made of the objects that they become."""
    chain, details = layout.split(lines)
    texts: dict[int, bytes] = {}
    for each in details.values():
        texts.update(layout.parse_details(each))
    return b"".join(
        each.joined(texts.get(each.offset))
        for each in layout.chained_lines(chain, lines[0].offset)
    )


def test_the_lines_of_a_journal_are_the_same_when_joined(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    for number in range(3):
        store.add(b"%d\r\n" % number)
    path = journal_reader.path_of(str(store.path), LEGAL)
    lines = list(journal_reader.lines(path))
    assert joined(lines) == b"".join(each.content for each in lines)


@given(st.lists(st.binary(max_size=60).map(lambda each: each.replace(b"\n", b""))))
def test_no_line_that_a_crash_can_leave_is_changed(contents: list[bytes]) -> None:
    lines = lines_of(b"".join(each + b"\n" for each in contents))
    if lines:
        assert joined(lines) == b"".join(each.content for each in lines)


def test_the_chained_part_has_nothing_of_the_details(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    archive_id = store.add(b"Subject: secret\r\n\r\nsecret\r\n")
    path = journal_reader.path_of(str(store.path), LEGAL)
    chain, details = layout.split(journal_reader.lines(path))
    assert b"alice" not in chain and b"bob" not in chain
    assert b"alice" in details[archive_id]
    assert set(details) == {archive_id, layout.WHOLE_ARCHIVE}


def test_the_event_of_a_removal_does_not_go_with_the_record() -> None:
    event = {"seq": 1, "time": "2026-11-22T11:53:00Z", "id": ID, "rule": "10y"}
    for kind, owner in (
        ("purged", layout.WHOLE_ARCHIVE),
        ("erased", layout.WHOLE_ARCHIVE),
        ("mailed", ID),
    ):
        line = journal_lines.make_line({**event, "event": kind})
        assert [*layout.split(lines_of(line))[1]] == [owner]


def test_a_removal_begins_a_part(tmp_path: Path) -> None:
    kinds = ["archived", "mailed", "purged", "purged", "mailed", "erased"]
    events = [
        {"seq": number, "time": "2026-11-22T11:53:00Z", "event": kind, "id": ID}
        for number, kind in enumerate(kinds, 2)
    ]
    first = journal_lines.segment_event(LEGAL)
    segment = tmp_path / LEGAL / "journal" / journal_lines.SEGMENT
    segment.parent.mkdir(parents=True)
    segment.write_bytes(journal_lines.make_lines([first, *events]))
    chunks = list(journal_chunks.chunks(str(tmp_path), LEGAL, "journal", 0))
    assert [[line.kind for line in each.lines] for each in chunks] == [
        ["segment", "archived", "mailed"],
        ["purged", "purged", "mailed"],
        ["erased"],
    ]
    path = journal_reader.path_of(str(tmp_path), LEGAL)
    assert journal_chunks.removals(path) == {ID: chunks[2].part.start}
    assert journal_chunks.removals(path, chunks[2].part.start) == {
        ID: chunks[1].part.start
    }


def test_details_of_another_line_do_not_fit() -> None:
    event = {"seq": 1, "time": "2026-11-22T11:53:00Z", "event": "mailed", "id": ID}
    [line] = lines_of(journal_lines.make_line(event))
    chain, details = layout.split([line])
    [chained] = layout.chained_lines(chain, 0)
    text = layout.parse_details(details[ID])[0]
    assert chained.is_of(text)
    assert not chained.is_of(text.replace(b"5a", b"5b"))


@pytest.mark.parametrize("chain", [b"", b"{}\t12", b"{}\tx\n", b"{}\t-1\n"])
def test_a_damaged_part_is_refused(chain: bytes) -> None:
    with pytest.raises(ValueError):
        list(layout.chained_lines(chain, 0))


def test_a_key_names_its_part() -> None:
    part = JournalPart(LEGAL, "journal", "2026-11", 0, 1234)
    assert layout.parse_part(part.key) == part
    for key in (
        part.details_key(ID),
        part.details_key(layout.WHOLE_ARCHIVE),
        part.key.replace("-000", "-00x"),
        part.key.replace("journal", "other"),
    ):
        assert layout.parse_part(key) is None
    assert part.details_key(ID).startswith(layout.record_prefix(LEGAL, ID))


def test_a_url_has_bucket_prefix_endpoint_and_region() -> None:
    parsed = object_store.parse(
        "s3://mail-archive/host/a?endpoint=https://s3.example.com:9000&region=eu-1"
    )
    assert (parsed.bucket, parsed.prefix) == ("mail-archive", "host/a/")
    assert (parsed.endpoint, parsed.region) == ("https://s3.example.com:9000", "eu-1")
    parsed = object_store.parse("s3://mail-archive")
    assert (parsed.prefix, parsed.endpoint) == ("", "")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://", "such as"),
        ("s3://UPPER", "such as"),
        ("s3://bucket/../other", "such as"),
        ("s3://bucket?endpoint=ftp://x", "https://host"),
        ("s3://bucket?endpoint=http://s3.example.com", "in the clear"),
        ("s3://bucket?endpoint=https://x:port", "ort"),
        ("s3://bucket?colour=red", "such as"),
        ("s3://bucket?region=a&region=b", "such as"),
        ("s3://bucket?region", "example"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, text: str) -> None:
    with pytest.raises(SettingInvalid, match=text) as raised:
        object_store.parse(url)
    assert str(raised.value).startswith("archive_object_store = ")
