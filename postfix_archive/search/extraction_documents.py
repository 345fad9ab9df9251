"""The text of attached documents: PDF, OOXML, OpenDocument, RTF, zip.

Used by extraction. What a document is, its first bytes say: names and media types are
often wrong. The functions raise what the libraries raise, ImportError where one is
missing, and LimitReached.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postfix_archive.search.extraction_limits import (
    DECOMPRESSED_LIMIT,
    PAGE_LIMIT,
    TEXT_LIMIT,
    ZIP_NAME_LIMIT,
    LimitReached,
)

if TYPE_CHECKING:
    import zipfile

BLOCK_SIZE = 1 << 16  # bytes
PDF, RTF, TNEF, ZIP = "pdf", "rtf", "tnef", "zip"
MAGIC = ((b"{\\rtf", RTF), (b"\x78\x9f\x3e\x22", TNEF), (b"PK\x03\x04", ZIP))
PDF_MAGIC = b"%PDF-"  # within the first 1,024 bytes, as readers accept it
# Kind of document by a file in the zip archive, and the files that have the text.
ZIP_KINDS = (
    (
        "docx",
        "word/document.xml",
        r"word/(document|header\d*|footer\d*|footnotes|endnotes|comments)\.xml",
    ),
    (
        "xlsx",
        "xl/workbook.xml",
        r"xl/(workbook|sharedStrings|worksheets/sheet\d+|comments\d*)\.xml",
    ),
    (
        "pptx",
        "ppt/presentation.xml",
        r"ppt/(slides|notesSlides|comments)/[^/]+\.xml",
    ),
    ("opendocument", "content.xml", r"(content|styles)\.xml"),
)
# Local names of XML elements.
LINE_ENDS = frozenset(
    ("p", "h", "br", "tab", "line-break", "row", "table-row", "table-cell", "si", "c")
)
OOXML_TEXT = frozenset(("t", "v", "author"))  # anything else is settings


class EncryptedDocument(Exception):
    """A document needs a password to be read."""


def kind(first_bytes: bytes) -> str:
    """Return PDF, RTF, TNEF, ZIP, or "" for anything else."""
    for magic, name in MAGIC:
        if first_bytes.startswith(magic):
            return name
    return PDF if PDF_MAGIC in first_bytes[:1024] else ""


def pdf_text(content: bytes) -> Iterator[str]:
    """Yield the text of each page of a PDF document."""
    import pypdf  # takes 0.5 s

    reader = pypdf.PdfReader(io.BytesIO(content))
    if reader.is_encrypted:
        try:
            is_open = bool(reader.decrypt(""))
        except pypdf.errors.DependencyError:  # AES, without the package cryptography
            is_open = False
        if not is_open:
            raise EncryptedDocument
    for number, page in enumerate(reader.pages):
        if number >= PAGE_LIMIT:
            raise LimitReached(f"more than {PAGE_LIMIT} pages")
        yield page.extract_text()


def rtf_text(content: bytes) -> str:
    """Return the text of an RTF document."""
    from striprtf.striprtf import rtf_to_text

    return str(rtf_to_text(content.decode("latin-1"), errors="replace"))


class ZipReader:
    """The documents in the zip archives of one message.

    All of them together may decompress to DECOMPRESSED_LIMIT bytes.
    """

    def __init__(self) -> None:
        self._remaining = DECOMPRESSED_LIMIT

    def kind_and_text(self, content: bytes) -> tuple[str, Iterator[str]]:
        """Return the kind of the document, and what yields its text."""
        import zipfile  # only imported when needed: 5 ms for each command show

        archive = zipfile.ZipFile(io.BytesIO(content))
        names = archive.namelist()
        for kind_name, member, pattern in ZIP_KINDS:
            if member in names:
                members = [each for each in names if re.fullmatch(pattern, each)]
                is_ooxml = kind_name != "opendocument"
                return kind_name, self._texts(archive, members, is_ooxml=is_ooxml)
        # What is in archives is not opened: what would be the end of it?
        return ZIP, iter(["\n".join(names[:ZIP_NAME_LIMIT])])

    def _texts(
        self, archive: zipfile.ZipFile, members: list[str], *, is_ooxml: bool
    ) -> Iterator[str]:
        from defusedxml.ElementTree import DefusedXMLParser

        for name in members:
            collector = _TextCollector(is_ooxml=is_ooxml)
            parser = DefusedXMLParser(target=collector, forbid_dtd=True)
            try:
                for block in self._blocks(archive, name):
                    parser.feed(block)
                    if collector.size > TEXT_LIMIT:
                        break
                else:
                    parser.close()
            finally:
                yield "".join(collector.texts)

    def _blocks(self, archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
        if archive.getinfo(name).flag_bits & 1:
            raise EncryptedDocument
        with archive.open(name) as file:
            while block := file.read(BLOCK_SIZE):
                self._remaining -= len(block)
                if self._remaining < 0:
                    raise LimitReached(f"more than {DECOMPRESSED_LIMIT} bytes")
                yield block


class _TextCollector:
    """Target of an XML parser: collects the text, and makes a line of each paragraph.

    Of OOXML only the elements that have text, and no cell of a sheet that is a number
    of a shared string.
    """

    def __init__(self, *, is_ooxml: bool) -> None:
        self.texts: list[str] = []
        self.size = 0
        self._is_ooxml = is_ooxml
        self._is_text = not is_ooxml
        self._is_shared_string = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take the start of an element."""
        name = tag.rpartition("}")[2]
        if name == "sheet":
            self.data(attributes.get("name", "") + "\n", is_text=True)
        if not self._is_ooxml:
            return
        if name == "c":
            self._is_shared_string = attributes.get("t") == "s"
        self._is_text = name in OOXML_TEXT and not (
            name == "v" and self._is_shared_string
        )

    def end(self, tag: str) -> None:
        """Take the end of an element."""
        name = tag.rpartition("}")[2]
        if self._is_ooxml:
            self._is_text = False
        if name in LINE_ENDS and self.texts and self.texts[-1] != "\n":
            self.texts.append("\n")

    def data(self, text: str, *, is_text: bool = False) -> None:
        """Take some text."""
        if self._is_text or is_text:
            self.texts.append(text)
            self.size += len(text)

    def close(self) -> None:
        """Take the end of the document."""
