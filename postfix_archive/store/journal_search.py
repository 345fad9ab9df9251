"""Find lines of a journal by what is in them, without splitting or parsing the others.

Used by search/look_up and record_reader, where there is no index. A journal that is
shorter than the offset has been replaced: it is read from the start. As journal_reader,
reads no line without its line end, in memory that does not grow. Raises JournalFailed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from postfix_archive.store import journal_reader
from postfix_archive.store.journal_reader import Line

SEARCHED_SIZE = 1 << 17  # bytes that are searched at once
KIND_END = 80  # the name of the event begins before this byte of a line


def lines_with(path: str, offset: int, texts: Collection[bytes]) -> Iterator[Line]:
    """Yield the lines from an offset on that contain one of some texts, in any field.

    Takes half of the time of journal_reader.lines().
    """
    with journal_reader.opened(path) as file:
        offset = offset if file.seek(0, os.SEEK_END) >= offset else 0
        file.seek(offset)
        content = b""
        while block := file.read(SEARCHED_SIZE):
            content += block
            end = content.rfind(b"\n") + 1
            for start in _starts_of_lines_with(content, end, texts):
                line_end = content.find(b"\n", start) + 1
                yield Line(offset + start, content[start:line_end])
            content = content[end:]
            offset += end


def lines_of(path: str, offset: int, kinds: Collection[str]) -> Iterator[Line]:
    """Yield the lines from an offset on that have an event of these kinds; likewise."""
    names = {each.encode() for each in kinds}
    key = b'"event":"'
    with journal_reader.opened(path) as file:
        offset = offset if file.seek(0, os.SEEK_END) >= offset else 0
        file.seek(offset)
        for content in file:
            start = content.find(key, 0, KIND_END) + len(key)
            is_one = content[start : content.find(b'"', start)] in names
            if is_one and content.endswith(b"\n"):
                yield Line(offset, content)
            offset += len(content)


def _starts_of_lines_with(
    content: bytes, end: int, texts: Collection[bytes]
) -> list[int]:
    """Return where the lines start that contain one of some texts, in order."""
    starts = set()
    for text in texts:
        position = content.find(text, 0, end)
        while position >= 0:
            starts.add(content.rfind(b"\n", 0, position) + 1)
            position = content.find(text, content.find(b"\n", position) + 1, end)
    return sorted(starts)
