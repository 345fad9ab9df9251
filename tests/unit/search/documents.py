"""Real documents, each written by a library that people use, and mail around them."""

from __future__ import annotations

import datetime
import io
import zipfile
from email.message import EmailMessage

import docx
import fpdf
import pptx
import xlsxwriter
from odf import text as odf_text
from odf.opendocument import OpenDocumentText

WORDS = "Zahlung überfällig: 契約書"
LATIN_WORDS = "Zahlung überfällig"  # what the standard fonts of PDF have


def word_document() -> bytes:
    document = docx.Document()
    document.add_heading("Heading", 0)
    document.add_paragraph(WORDS)
    document.add_table(1, 2).rows[0].cells[1].text = "cell"
    document.sections[0].header.paragraphs[0].text = "letterhead"
    return _saved(document)


def workbook() -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet("Budget")
        sheet.write(0, 0, WORDS)
        sheet.write(0, 1, 4711)
        sheet.write_comment(0, 0, "remark", {"author": "Ann"})
    return file.getvalue()


def presentation() -> bytes:
    slides = pptx.Presentation()
    slide = slides.slides.add_slide(slides.slide_layouts[0])
    assert slide.shapes.title is not None
    slide.shapes.title.text = WORDS
    frame = slide.notes_slide.notes_text_frame
    assert frame is not None
    frame.text = "speaker notes"
    return _saved(slides)


def open_document() -> bytes:
    document = OpenDocumentText()
    for line in (WORDS, "second"):
        document.text.addElement(odf_text.P(text=line))
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def pdf(password: str = "") -> bytes:
    document = fpdf.FPDF()
    document.set_creation_date(datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC))
    document.add_page()
    document.set_font("helvetica")
    document.cell(text=LATIN_WORDS)
    if password:
        document.set_encryption("owner", password)
    return bytes(document.output())


def rtf() -> bytes:
    return (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset0 Arial;}}"
        rb"\f0 Zahlung \'fcberf\'e4llig: \u22865?\u32004?\u26360?\par second}"
    )


def zip_archive(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def docx_of(xml: bytes) -> bytes:
    """A .docx with nothing but this document.xml."""
    return zip_archive({"word/document.xml": xml})


def mail_with(content: bytes, name: str, media_type: str = "application/x") -> bytes:
    """A message with a text and one attachment, in canonical form."""
    message = EmailMessage()
    message["From"] = "Ann <ann@example.org>"
    message["Subject"] = "the documents"
    message.set_content("the body\n")
    maintype, subtype = media_type.split("/")
    message.add_attachment(content, maintype=maintype, subtype=subtype, filename=name)
    return message.as_bytes().replace(b"\n", b"\r\n")


def _saved(document: object) -> bytes:
    file = io.BytesIO()
    document.save(file)  # type: ignore[attr-defined]
    return file.getvalue()
