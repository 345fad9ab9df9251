"""Writes the messages of an export, one class for each kind of format.

Used by export/run, which writes the line of the manifest between write() and commit().
What write() has done without that line is undone or done again by continue_after(),
so that an export that is killed at any point has each message once.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from postfix_archive.errors import RecordDamaged
from postfix_archive.export import edrm, mbox, zip_file
from postfix_archive.export.manifest import Entry
from postfix_archive.export.target import Target
from postfix_archive.message import smtp_data
from postfix_archive.message.smtp_data import ContentProperties

MANIFEST_CSV = "manifest.csv"
MANIFEST_LINES = "manifest.jsonl"
Entries = Callable[[], Iterator[Entry]]


@dataclass(frozen=True)
class Message:
    """What a writer needs: the bytes, and what its format says about them.

    ``content`` yields the canonical bytes as often as it is called, ``stem`` is the
    name of the copy in the store, ``arrival`` Unix time.
    """

    archive: str
    stem: str
    content: Callable[[], Iterable[bytes]]
    sender: bytes
    recipients: tuple[bytes, ...]
    arrival: float


class Writer:
    """Writes no message: the manifest is the export (csv)."""

    def __init__(self, target: Target, host: bytes) -> None:
        self._target = target
        self._host = host

    def continue_after(self, last: Entry | None) -> None:
        """Prepare for the message after this entry; None: for the first."""

    def write(self, message: Message) -> Entry:
        """Write a message; return what the manifest says about it.

        Raises RecordDamaged if the format cannot have it, and ExportFailed.
        """
        return {"file": ""}

    def commit(self, fields: Entry) -> None:
        """Complete a message whose line is in the manifest."""

    def finish(self, entries: Entries) -> None:
        """Write what ends the export; entries yields all of them."""

    def close(self) -> None:
        """Close the files, also after an error."""


class FileWriter(Writer):
    """One file for each message, in the directories of the store (eml)."""

    ROOT = "messages"

    def continue_after(self, last: Entry | None) -> None:
        """Complete the last file, or remove the draft of the next."""
        if last and not self._target.exists(last["file"]):
            self._target.publish_draft(last["file"])
        self._target.discard_draft()

    def write(self, message: Message) -> Entry:
        """Write a draft."""
        size = self._target.write_draft(self._content(message), message.arrival)
        return {"file": self._name(message), "exported_size": size}

    def commit(self, fields: Entry) -> None:
        """Give the draft its name."""
        self._target.publish_draft(fields["file"])

    def _name(self, message: Message) -> str:
        day = message.stem[:8]
        path = f"{self.ROOT}/{message.archive}/{day[:4]}/{day[4:6]}/{day[6:]}"
        return f"{path}/{message.stem}.eml"

    def _content(self, message: Message) -> Iterable[bytes]:
        return message.content()


class EdrmWriter(FileWriter):
    """One file for each message, and a load file in EDRM XML (edrm)."""

    ROOT = "natives"

    def write(self, message: Message) -> Entry:
        """Write a draft; the load file has its MD5."""
        md5 = hashlib.md5(usedforsecurity=False)
        for chunk in message.content():
            md5.update(chunk)
        return {**super().write(message), "md5": md5.hexdigest()}

    def finish(self, entries: Entries) -> None:
        """Write the load file."""
        self._target.replace(edrm.FILE_NAME, edrm.lines(entries()))


class MaildirWriter(FileWriter):
    """A Maildir, with all messages in cur/ and seen (maildir)."""

    ROOT = "Maildir"

    def continue_after(self, last: Entry | None) -> None:
        """Make the directories that a Maildir must have."""
        for each in ("cur", "new", "tmp"):
            self._target.make_directory(f"{self.ROOT}/{each}")
        super().continue_after(last)

    def _name(self, message: Message) -> str:
        name = f"{int(message.arrival)}.{message.stem}.{_tag(message.archive)}"
        return f"{self.ROOT}/cur/{name}:2,S"

    def _content(self, message: Message) -> Iterable[bytes]:
        return smtp_data.to_lf(message.content())


@functools.cache
def _tag(archive: str) -> str:
    """Return what tells an archive from another one, which can have the same ids."""
    return hashlib.sha256(archive.encode()).hexdigest()[:8]


class AppendWriter(Writer):
    """All messages in one file, one after the other."""

    NAME = ""
    _descriptor = -1

    def continue_after(self, last: Entry | None) -> None:
        """Cut the file after the last message."""
        self._end = last["end"] if last else 0
        self._descriptor = self._target.open_append(self.NAME, self._end)
        if not self._end:
            self._append((self._start(),))

    def write(self, message: Message) -> Entry:
        """Append a message."""
        self._append(self._chunks(message))
        return {"file": self.NAME, "end": self._end}

    def finish(self, entries: Entries) -> None:
        """Append what ends the file."""
        self._target.write(self._descriptor, self._ending(), self.NAME)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _append(self, chunks: Iterable[bytes]) -> None:
        for chunk in smtp_data.join_blocks(chunks):
            self._target.write(self._descriptor, chunk, self.NAME)
            self._end += len(chunk)

    def _start(self) -> bytes:
        return b""

    def _ending(self) -> bytes:
        return b""

    def _chunks(self, message: Message) -> Iterable[bytes]:
        raise NotImplementedError


class MboxWriter(AppendWriter):
    """One mbox (mbox)."""

    NAME = "messages.mbox"

    def _chunks(self, message: Message) -> Iterable[bytes]:
        return mbox.mbox_chunks(message.sender, message.arrival, message.content())


class BatchWriter(AppendWriter):
    """The commands of an SMTP client (bsmtp)."""

    NAME = "messages.bsmtp"

    def _start(self) -> bytes:
        return mbox.batch_start(self._host)

    def _ending(self) -> bytes:
        return mbox.BATCH_END

    def _chunks(self, message: Message) -> Iterable[bytes]:
        addresses = (message.sender, *message.recipients)
        if not message.recipients or not all(map(mbox.fits_batch, addresses)):
            raise RecordDamaged(
                f"{message.stem}: not in the batch: it has no recipient that an SMTP"
                " command can name; export it as eml"
            )
        shape = ContentProperties()
        for chunk in message.content():
            shape.update(chunk)
        return mbox.batch_chunks(
            message.sender,
            message.recipients,
            message.content(),
            is_eightbit=not shape.is_ascii,
        )


class ZipWriter(FileWriter):
    """One zip file, with the manifest in it (zip)."""

    NAME = "messages.zip"
    _descriptor = -1

    def continue_after(self, last: Entry | None) -> None:
        """Cut the file after the last message: that may cut off its directory."""
        self._end = last["end"] if last else 0
        self._descriptor = self._target.open_append(self.NAME, self._end)

    def write(self, message: Message) -> Entry:
        """Append an entry."""
        entry = self._add(self._name(message), message.content(), message.arrival)
        return {
            "file": entry.name,
            "offset": entry.offset,
            "exported_size": entry.size,
            "compressed_size": entry.compressed_size,
            "crc32": entry.crc32,
            "end": self._end,
        }

    def commit(self, fields: Entry) -> None:
        """Nothing is left to do."""

    def finish(self, entries: Entries) -> None:
        """Add the manifest and write the directory."""
        added = []
        for name in (MANIFEST_LINES, MANIFEST_CSV):
            with self._target.open_read(name) as file:
                added.append(self._add(name, file, 0))
        directory = zip_file.directory(
            chain(map(_zip_entry, entries()), added), self._end
        )
        for chunk in smtp_data.join_blocks(directory):
            self._target.write(self._descriptor, chunk, self.NAME)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _add(
        self, name: str, chunks: Iterable[bytes], mtime: float
    ) -> zip_file.ZipEntry:
        with self._target.translated(self.NAME):
            entry = zip_file.write_entry(
                self._descriptor, self._end, name, chunks, mtime
            )
        self._end = zip_file.end_of(entry)
        return entry


def _zip_entry(entry: Entry) -> zip_file.ZipEntry:
    return zip_file.ZipEntry(
        entry["file"],
        entry["offset"],
        entry["exported_size"],
        entry["compressed_size"],
        entry["crc32"],
        entry["mtime"],
    )


FORMATS: dict[str, type[Writer]] = {
    "eml": FileWriter,
    "mbox": MboxWriter,
    "maildir": MaildirWriter,
    "zip": ZipWriter,
    "bsmtp": BatchWriter,
    "csv": Writer,
    "edrm": EdrmWriter,
}
