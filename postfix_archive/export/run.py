"""Exports archived messages into a directory, and goes on with it after a crash.

Used by ``postfix-archive export``. Holds one message at a time: memory does not grow
with the export. Reads the store and changes nothing in it. A message that cannot be
read is reported and left out, the others are exported. Raises ExportFailed, the errors
of record_reader, and CopyUnreachable: the export goes on once it can be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    CopyUnreachable,
    ExportFailed,
    RecordDamaged,
    StoreFailed,
)
from postfix_archive.export import manifest
from postfix_archive.export import redaction as redaction_module
from postfix_archive.export import selection, stored_message, writers
from postfix_archive.export.manifest import Entry
from postfix_archive.export.redaction import Redaction
from postfix_archive.export.selection import Selection
from postfix_archive.export.stored_message import StoredMessage
from postfix_archive.export.target import Target, require_absent
from postfix_archive.export.writers import FORMATS, MANIFEST_CSV, MANIFEST_LINES
from postfix_archive.message import digest
from postfix_archive.store.record import Record
from postfix_archive.system.key_set import KeySet
from postfix_archive.system.spool import Spool

DESCRIPTION = "export.json"  # what the export is of, and whether it is complete
VERSION = 1  # of the description and the manifest
# In the description of an export that redacts and is not complete; see _query_digest().
QUERY_SALT, QUERY_DIGEST = "query_salt", "query_scrypt"
Select = Callable[[Settings, Selection, Callable[[str], None]], Iterator[Record]]


@dataclass(frozen=True)
class Options:
    """What is exported, and how; an export goes on with the same options only.

    With ``own_addresses`` (in lower case) it is for who has these, and may see their
    own mail alone: it redacts, and its manifest has nothing about the delivery.
    """

    selection: Selection
    format: str
    is_of_copies: bool = False
    redacts_bcc: bool = False
    own_addresses: tuple[str, ...] = ()

    @property
    def hides_query(self) -> bool:
        """True if there is a query that nobody may see who gets the export."""
        return self.redacts_bcc and bool(self.selection.query)

    def to_json(self) -> dict[str, object]:
        """Return the options for DESCRIPTION.

        A query may name a hidden recipient: with redacts_bcc it is left out.
        """
        selected = self.selection.to_json()
        if self.hides_query:
            selected["query"] = None
        own = {"own_addresses": [*self.own_addresses]} if self.own_addresses else {}
        return {
            "version": VERSION,
            "format": self.format,
            "content": "copies" if self.is_of_copies else "originals",
            "redact_bcc": self.redacts_bcc,
            **own,
            "selection": selected,
        }


@dataclass
class Result:
    """How many messages an export has, was given before, and could not have."""

    exported: int = 0
    found: int = 0
    failed: int = 0


class Export:
    """One export into a target that is open."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        target: Target,
        report: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._options = options
        self._target = target
        self._report = report
        self._writer = FORMATS[options.format](target, os.uname().nodename.encode())
        self._done = KeySet()
        self._manifest = -1
        self.result = Result()

    def run(self, records: Iterable[Record]) -> None:
        """Export the records that are not exported yet, then complete the export."""
        digest.select_implementation(digest.OPENSSL_THRESHOLD)
        self._describe(is_complete=False)
        try:
            self._continue()
            for record in records:
                for each in stored_message.of_record(record):
                    self._export(each)
            self._target.replace(MANIFEST_CSV, manifest.csv_lines(self._entries()))
            self._writer.finish(self._entries)
        finally:
            self._close()
        self._target.sync()
        self._describe(is_complete=True)

    def _close(self) -> None:
        self._writer.close()
        self._done.close()
        if self._manifest >= 0:
            os.close(self._manifest)

    def _continue(self) -> None:
        """Cut the files after the last whole line of the manifest, and open them."""
        last: Entry | None = None
        end = 0
        with self._target.open_read(MANIFEST_LINES) as file:
            for fields, offset in manifest.read(file):
                self._done.add(fields["key"])
                self.result.found += 1
                last, end = fields, offset
        self._writer.continue_after(last)
        self._manifest = self._target.open_append(MANIFEST_LINES, end)

    def _export(self, message: StoredMessage) -> None:
        if not self._done.add(message.key):
            return
        try:
            content = self._read(message)
        except CopyUnreachable:
            raise
        except (RecordDamaged, StoreFailed) as error:
            self._fail(message, error)
            return
        try:
            self._write(message, content)
        except RecordDamaged as error:
            self._fail(message, error)
        finally:
            content.close()

    def _fail(self, message: StoredMessage, error: Exception) -> None:
        self._done.discard(message.key)
        self.result.failed += 1
        self._report(str(error))

    def _read(self, message: StoredMessage) -> Spool:
        store = self._settings.archive_store_directory
        spool_directory = self._target.spool_directory
        if self._options.is_of_copies:
            return message.read_copy(store, spool_directory)
        return message.read_original(store, spool_directory)

    def _write(self, message: StoredMessage, content: Spool) -> None:
        own = self._options.own_addresses
        redaction = None
        if self._options.redacts_bcc:
            hidden = redaction_module.others(message.recipients, own)
            redaction = Redaction(content, hidden)
        head = content.head()
        fields = manifest.entry(message, head, redaction)
        removed = redaction.removed if redaction else []
        arrival = float(message.envelope.arrival or 0)
        exported = writers.Message(
            archive=message.record.archive,
            stem=message.stem,
            content=(
                (lambda: redaction.content(content))
                if redaction and removed
                else content.chunks
            ),
            sender=b"" if fields["sender"] == "" else message.record.passes[0].sender,
            recipients=_envelope_recipients(message, redaction),
            arrival=arrival,
        )
        if removed or own or self._options.is_of_copies:
            exported_hash = digest.sha256_of(exported.content())
            fields["exported_sha256"] = exported_hash.hexdigest()
        if removed:
            fields["removed_fields"] = removed
        if own:
            fields = manifest.without_delivery(fields)
        fields |= {"key": message.key, "mtime": arrival}
        fields |= self._writer.write(exported)
        self._target.write(self._manifest, manifest.to_line(fields), MANIFEST_LINES)
        self._writer.commit(fields)
        self.result.exported += 1

    def _entries(self) -> Iterator[Entry]:
        with self._target.open_read(MANIFEST_LINES) as file:
            for fields, _ in manifest.read(file):
                yield fields

    def _describe(self, *, is_complete: bool) -> None:
        description = {**self._options.to_json(), "complete": is_complete}
        if self._options.hides_query and not is_complete:
            salt = secrets.token_hex(16)
            digest_of_query = _query_digest(self._options.selection.query, salt)
            description |= {QUERY_SALT: salt, QUERY_DIGEST: digest_of_query}
        text = json.dumps(description, indent=1).encode() + b"\n"
        self._target.replace(DESCRIPTION, (text,))


def export(
    settings: Settings,
    options: Options,
    path: str,
    *,
    resume: bool,
    report: Callable[[str], None],
    progress: Callable[[Iterator[Record]], Iterable[Record]] = lambda records: records,
    select: Select = selection.records,
) -> Result:
    """Export into the directory ``path``; return how many messages.

    report is called with a line about each message that could not be exported, or part
    of the archive that could not be searched; progress gets the records and yields them
    again; select finds them.
    """
    _require_outside(settings, path)
    notices: list[str] = []
    records = iter(progress(select(settings, options.selection, notices.append)))
    first: list[Record] = []
    if not resume:
        require_absent(path)
        first = [*islice(records, 1)]  # an export that is refused leaves no directory
    with Target(path, resume=resume) as target:
        if resume:
            _require_same(target, options)
        run = Export(settings, options, target, report)
        run.run(chain(first, records))
    for each in notices:
        run.result.failed += 1
        report(each)
    return run.result


def _require_outside(settings: Settings, path: str) -> None:
    """Raise ExportFailed for a path in the store, where verify would report it."""
    for name in ("archive_store_directory", "archive_fallback_directory"):
        directory = os.path.realpath(getattr(settings, name))
        if os.path.commonpath((directory, os.path.realpath(path))) == directory:
            raise ExportFailed(
                f"{path} is in {name} ({directory}), which has archived mail only: give"
                " a directory elsewhere"
            )


def _require_same(target: Target, options: Options) -> None:
    """Raise ExportFailed unless the target is an export with these options."""
    description = _description(target)
    expected = options.to_json()
    if options.hides_query:
        expected |= _expected_digest(target, options.selection.query, description)
    if not description and not target.exists(MANIFEST_LINES):
        return  # killed before it was described
    for name, value in expected.items():
        if description.get(name) != value:
            raise ExportFailed(
                f"{target.path}: not an export with these options ({name} differs from"
                f" {DESCRIPTION}); give the same options, or another directory"
            )


def is_complete(path: str) -> bool:
    """Tell whether the directory of an export, which nobody writes, has all of it."""
    with Target(path, resume=True) as target:
        return bool(_description(target).get("complete"))


def _description(target: Target) -> dict[str, Any]:
    """Return what an export says of itself, {} if it says nothing."""
    with target.open_read(DESCRIPTION) as file:
        text = b"".join(file)
    try:
        description = json.loads(text or b"{}")
    except ValueError:
        return {}
    return description if isinstance(description, dict) else {}


def _expected_digest(
    target: Target, query: str, description: dict[str, Any]
) -> dict[str, object]:
    """Return what says that a description is of this query.

    Raises ExportFailed for a complete export, which does not say it.
    """
    if description.get("complete"):
        raise ExportFailed(
            f"{target.path} is complete, and because of --redact-bcc it does not say by"
            " which query; export again into another directory"
        )
    salt = str(description.get(QUERY_SALT, ""))
    return {QUERY_DIGEST: _query_digest(query, salt)}


def _query_digest(query: str, salt: str) -> str:
    """Return a digest of a query that takes 50 ms, so that a guess is dear."""
    values = query.encode("utf-8", "surrogateescape"), salt.encode()
    return hashlib.scrypt(values[0], salt=values[1], n=1 << 14, r=8, p=1).hex()


def _envelope_recipients(
    message: StoredMessage, redaction: Redaction | None
) -> tuple[bytes, ...]:
    """Return the recipients that may be named, each once, as they were delivered to."""
    recipients = message.record.recipients.values()
    if redaction is None:
        return tuple(dict.fromkeys(each.final for each in recipients))
    shown = (
        redaction.recipients.get((e.final, e.original or e.final)) for e in recipients
    )
    return tuple(dict.fromkeys(each for each in shown if each))
