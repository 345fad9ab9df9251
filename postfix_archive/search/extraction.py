"""Extracts what can be found of a message: header fields, all text, attachments.

Run by the child process of extraction_process, since content is hostile: extract()
itself limits sizes and numbers, the process limits time and memory. What cannot be
extracted is named in ``problems`` and left out; nothing is raised for it.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from postfix_archive.search import (
    charset,
    extraction_documents,
    extraction_header,
    extraction_html,
    extraction_parts,
    mime_entity,
)
from postfix_archive.search.content import Attachment, MessageContent
from postfix_archive.search.extraction_documents import EncryptedDocument
from postfix_archive.search.extraction_limits import (
    HEADER_FIELD_LIMIT,
    HTML_LIMIT,
    MEMORY_LIMIT,
    MESSAGE_LIMIT,
    NAME_LIMIT,
    PROBLEM_LIMIT,
    TEXT_LIMIT,
    TIME_LIMIT,
    LimitReached,
    Timer,
    TimeUsedUp,
)
from postfix_archive.search.extraction_parts import Part
from postfix_archive.search.mime_entity import Entity

# Besides text/*: types whose content is text.
TEXT_TYPES = ("application/json", "application/xml", "application/ics")
CALENDAR_TYPES = ("text/calendar", "text/vcard", "text/x-vcard", "application/ics")
# Suffixes of files whose media type does not say that they are text.
TEXT_SUFFIXES = (".csv", ".eml", ".ics", ".log", ".md", ".txt", ".vcf")
HTML_SUFFIXES = (".htm", ".html")
# Of a part that comes after an end of its multipart that is too early.
BASE64_LINE = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}\s*")
# What programs write before the first part (RFC 2046 5.1), in most messages.
NOTICES = (
    "This is a multi-part message in MIME format.",
    "This is a MIME-formatted message.",
    "This is a MIME-encapsulated message.",
    "This is a MIME-encapsulated message",
    "This is a cryptographically signed message in MIME format.",
    "This is an OpenPGP/MIME signed message (RFC 4880 and 3156)",
)
NESTED_FIELDS = ("subject", "from", "to", "cc", "date", "message-id")


def extract(
    original: bytes, timer: Timer | None = None, *, without_libraries: bool = False
) -> MessageContent:
    """Return the content of a message; never raises for what is in it.

    without_libraries: for a message over which a library has failed. Documents have no
    text then, and HTML has that between its tags.
    """
    extraction = _Extraction(timer or Timer(), without_libraries=without_libraries)
    if len(original) > MESSAGE_LIMIT:
        extraction.problems.append(f"message: cut at {MESSAGE_LIMIT} bytes")
    message = mime_entity.parse(original[:MESSAGE_LIMIT])
    for part in extraction_parts.parts(message, extraction.problems):
        extraction.add(part)
    for each in extraction_parts.outside_text(message):
        extraction.add_outside(each)
    return extraction_header.read(message.fields)._replace(
        text=extraction.text(),
        attachments=tuple(extraction.attachments),
        problems=tuple(dict.fromkeys(extraction.problems))[:PROBLEM_LIMIT],
    )


class _Extraction:
    """What is collected of one message, and the limits that apply to all its parts."""

    def __init__(self, timer: Timer, *, without_libraries: bool) -> None:
        self.attachments: list[Attachment] = []
        self.problems: list[str] = []
        self._texts: list[str] = []
        self._hashes: set[int] = set()  # of the words of each text, if several
        self._remaining = TEXT_LIMIT
        self._timer = timer
        self._without_libraries = without_libraries
        self._zip_reader = extraction_documents.ZipReader()

    def text(self) -> str:
        """Return all text, with an empty line between the parts."""
        joined = "\n\n".join(self._texts).replace("\0", " ")  # ends a text for SQLite
        return joined.encode("utf-8", "replace").decode()  # surrogates have no UTF-8

    def add(self, part: Part) -> None:
        """Add the text of a part, and the part itself if it is an attachment."""
        if part.is_attachment:
            size = 0
            with self._named_problem(part.media_type), self._timer.interrupting():
                size = part.size()
            self._add_attachment(part.name, part.media_type, size)
        if part.nested:
            self._add_nested_header(part.nested)
        elif part.media_type == "message/delivery-status":
            self._add_delivery_status(part)
        else:
            self._add_content(part)

    def add_outside(self, text: bytes) -> None:
        """Add what a multipart has before its first part or after its last one."""
        lines = charset.decode_undeclared(text).splitlines()
        self._add_text(
            each
            for each in lines
            if each not in NOTICES and not BASE64_LINE.fullmatch(each)
        )

    def _add_attachment(self, name: str, media_type: str, size: int) -> None:
        printable = name[:NAME_LIMIT].encode("utf-8", "replace").decode()
        self.attachments.append(Attachment(printable, media_type[:NAME_LIMIT], size))

    def _add_nested_header(self, message: Entity) -> None:
        self._add_text(
            extraction_header.text(value)
            for name, value in message.fields
            if name.lower() in NESTED_FIELDS
        )

    def _add_delivery_status(self, part: Part) -> None:
        """Add the fields of RFC 3464."""
        groups = extraction_parts.field_groups(part.content())
        for group in islice(groups, HEADER_FIELD_LIMIT):
            self._add_text(
                f"{name}: {extraction_header.text(value)}" for name, value in group
            )

    def _add_content(self, part: Part) -> None:
        media_type = part.media_type
        if media_type in extraction_html.MEDIA_TYPES:
            self._add_html(part.content(), part.charset)
        elif media_type.startswith(("text/", "multipart/")) or media_type in TEXT_TYPES:
            self._add_plain(part)
        else:
            self._add_file(part.name, part.first_bytes(), part.content)

    def _add_file(
        self, name: str, first_bytes: bytes, read_content: Callable[[], bytes]
    ) -> None:
        """Add the text of a file whose media type says nothing of it."""
        if extraction_documents.kind(first_bytes):
            self._add_document(first_bytes, read_content)
        elif name.lower().endswith(TEXT_SUFFIXES):
            self._add_text([charset.decode_undeclared(read_content())])
        elif name.lower().endswith(HTML_SUFFIXES):
            self._add_html(read_content(), "")

    def _add_plain(self, part: Part) -> None:
        content = part.content()
        if extraction_documents.kind(content[:16]):  # text/rtf, and wrong types
            self._add_document(content[:1024], lambda: content)
            return
        text = charset.decode(content, part.charset)
        if part.media_type in CALENDAR_TYPES:
            text = _unfold_calendar(text)
        self._add_text([text])

    def _add_html(self, content: bytes, declared: str) -> None:
        html = extraction_html.source(content, declared)
        if len(html) == HTML_LIMIT or len(content) > extraction_html.SOURCE_LIMIT:
            self.problems.append(f"html: cut at {HTML_LIMIT} characters")
        problem_count = len(self.problems)
        links: list[str] = []

        def read() -> Iterator[str]:
            text, targets = extraction_html.text_and_links(html)
            links.append(targets)
            yield text

        if not self._without_libraries:
            self._try("html", read)
            self._add_text(links)  # apart: the text may be that of another part
        if self._without_libraries or len(self.problems) > problem_count:
            self._add_text([extraction_html.text_between_tags(html)])

    def _add_document(
        self, first_bytes: bytes, read_content: Callable[[], bytes]
    ) -> None:
        """Add the text of a document, if it is of a kind that we read."""
        kind = extraction_documents.kind(first_bytes)
        if self._without_libraries:
            return
        if kind == extraction_documents.PDF:
            self._try(kind, lambda: extraction_documents.pdf_text(read_content()))
        elif kind == extraction_documents.RTF:
            self._try(kind, lambda: [extraction_documents.rtf_text(read_content())])
        elif kind == extraction_documents.ZIP:
            self._add_zip(read_content())
        elif kind == extraction_documents.TNEF:
            self._add_tnef(read_content())

    def _add_zip(self, content: bytes) -> None:
        with self._named_problem("zip"), self._timer.interrupting():
            kind, texts = self._zip_reader.kind_and_text(content)
            self._try(kind, lambda: texts)

    def _add_tnef(self, content: bytes) -> None:
        """Add text and attachments of a winmail.dat ([MS-OXTNEF])."""
        found: list[tuple[str, bytes]] = []

        def read() -> Iterator[str]:
            from tnefparse.tnef import TNEF

            tnef: Any = TNEF(content, do_checksum=False)
            yield _as_text(tnef.body)
            if tnef.htmlbody:
                yield from extraction_html.text_and_links(_as_text(tnef.htmlbody))
            elif tnef.rtfbody:
                yield extraction_documents.rtf_text(tnef.rtfbody)
            for each in tnef.attachments:
                found.append((_as_text(each.long_filename()).strip("\0"), each.data))

        self._try("winmail.dat", read)
        for name, data in found:
            media_type = "application/octet-stream"
            self._add_attachment(name, media_type, len(data))
            if not data.startswith(content[:4]):  # no winmail.dat in a winmail.dat
                self._add_file(name, data[:1024], functools.partial(bytes, data))

    def _try(self, kind: str, read: Callable[[], Iterable[str]]) -> None:
        """Add the texts that read() yields; of an error keep those before it."""
        with self._named_problem(kind), self._timer.interrupting():
            self._add_text(read())

    @contextlib.contextmanager
    def _named_problem(self, kind: str) -> Iterator[None]:
        """Turn whatever a library raises into a problem."""
        try:
            yield
        except TimeUsedUp:
            self.problems.append(TIME_LIMIT)
        except EncryptedDocument:
            self.problems.append(f"{kind}: encrypted")
        except LimitReached as limit:
            self.problems.append(f"{kind}: {limit}")
        except ImportError as error:
            name = (error.name or "a library").partition(".")[0]
            self.problems.append(f"{kind}: {name} is not installed")
        except MemoryError:
            self.problems.append(f"{kind}: {MEMORY_LIMIT}")
        except Exception as error:
            self.problems.append(f"{kind}: damaged ({type(error).__name__})")

    def _add_text(self, texts: Iterable[str]) -> None:
        """Add texts, each a line or more, as the text of one part.

        What has been read before an exception is added too. A text that differs from an
        earlier one in white space only, as HTML does from its plain alternative, is
        left out.
        """
        kept: list[str] = []
        try:
            for text in texts:
                stripped = text.strip()
                if not stripped:
                    continue
                if len(stripped) > self._remaining:
                    self.problems.append(f"text: cut at {TEXT_LIMIT} characters")
                kept.append(stripped[: self._remaining])
                self._remaining -= len(kept[-1])
                if not self._remaining:
                    return
        finally:
            joined = "\n".join(kept)
            if joined and not self._is_known(joined):
                self._texts.append(joined)

    def _is_known(self, text: str) -> bool:
        """Tell whether an earlier text has the same words, and remember this one.

        The first one is hashed when there is a second, which most messages lack.
        """
        if not self._texts:
            return False
        if not self._hashes:
            self._hashes.add(_hash_of_words(self._texts[0]))
        words = _hash_of_words(text)
        is_known = words in self._hashes
        self._hashes.add(words)
        return is_known


def _hash_of_words(text: str) -> int:
    return hash(" ".join(text.split()))


def _unfold_calendar(text: str) -> str:
    """Return a calendar or vCard with lines unfolded and unescaped (RFC 5545 3.1)."""
    unfolded = text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "")
    return unfolded.replace("\\n", "\n").replace("\\,", ",").replace("\\;", ";")


def _as_text(value: object) -> str:
    """Return a string property of MAPI, which tnefparse gives as text or as bytes."""
    if isinstance(value, bytes):
        return charset.decode_undeclared(value)
    return str(value or "")
