"""The load file of an export in EDRM XML 1.2 (edrm.net), for review programs.

Used by export/writers. One Document for each message: its fields as Tags, its file with
MD5 and size, where it comes from. Streamed from the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from postfix_archive.export.manifest import Entry
from postfix_archive.message.printable import safe_text

FILE_NAME = "edrm.xml"
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Root MajorVersion="1" MinorVersion="2" Description="postfix-archive export"'
    ' DataInterchangeType="Update">\n<Batch BatchName="export">\n<Documents>\n'
)
END = "</Documents>\n</Batch>\n</Root>\n"
# Tags that the specification names, and ours, each with its type and the key of the
# manifest.
TAGS = (
    ("#From", "Text", "from"),
    ("#To", "Text", "to"),
    ("#CC", "Text", "cc"),
    ("#Subject", "Text", "subject"),
    ("#DateReceived", "DateTime", "arrival"),
    ("#MessageID", "Text", "message_id"),
    ("EDRM-MIH", "Text", "mih"),
    ("Date", "Text", "date"),
    ("EnvelopeSender", "Text", "sender"),
    ("Outcome", "Text", "outcome"),
    ("SHA256", "Text", "sha256"),
    ("ExportedSHA256", "Text", "exported_sha256"),
    ("ArchiveId", "Text", "id"),
    ("Archived", "DateTime", "archived"),
    ("JournalNumber", "LongInteger", "seq"),
)
# XML 1.0 2.2: characters that no document may have.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the load file of these entries, in UTF-8."""
    yield HEAD.encode()
    for number, each in enumerate(entries, 1):
        yield _document(number, each).encode()
    yield END.encode()


def _document(number: int, entry: Entry) -> str:
    tags = [_tag(n, t, entry[key]) for n, t, key in TAGS if entry.get(key, "") != ""]
    tags += [_tag("EnvelopeRecipient", "Text", e) for e in _recipients(entry)]
    directory, _, name = entry["file"].rpartition("/")
    file = (
        f"<ExternalFile FilePath={_value(directory)} FileName={_value(name)}"
        f' FileSize="{entry["exported_size"]}" Hash="{entry["md5"]}"/>'
    )
    location = f"archive:{entry['archive']}/{entry['id']}"
    return (
        f'<Document DocID="{number:08d}" DocType="Message" MimeType="message/rfc822">\n'
        f"<Tags>\n{''.join(tags)}</Tags>\n"
        f'<Files><File FileType="Native">{file}</File></Files>\n'
        f"<Locations><Location><Custodian>{escape(entry['archive'])}</Custodian>"
        f"<LocationURI>{escape(location)}</LocationURI></Location></Locations>\n"
        "</Document>\n"
    )


def _recipients(entry: Entry) -> Iterator[str]:
    for each in entry["recipients"]:
        if not each.get("parent"):
            yield f"{each['recipient']} ({each['outcome']})"


def _tag(name: str, data_type: str, value: object) -> str:
    return (
        f'<Tag TagName="{name}" TagDataType="{data_type}" TagValue={_value(value)}/>\n'
    )


def _value(value: object) -> str:
    return quoteattr(NOT_XML.sub("\ufffd", safe_text(str(value))))
