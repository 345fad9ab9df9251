"""Gives archived messages to Postfix again, so that they are delivered once more.

Used by ``postfix-archive replay``. An original gets the stamp of its record on top, as
the stamp filter would have put it there, and goes to the reinjection port: no stamp
filter sees it on this host, and elsewhere the stamp is valid. The log has an IDENT by
which reconcile and the doctor know it (message/replay_ident). In native mode its record
gets a supplement with the new recipients. A copy gets the stamp of a mailed copy and
goes the way of mailed copies. Their bytes are not changed, so DKIM signatures verify.
Raises ReplayFailed, RecordDamaged, StoreFailed, PostfixUnreachable and PostfixRefused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from postfix_archive.config.settings import Settings
from postfix_archive.errors import ReplayFailed
from postfix_archive.export.stored_message import StoredMessage
from postfix_archive.message import (
    address,
    archive_copy,
    header,
    replay_ident,
    smtp_data,
    stamp,
)
from postfix_archive.message.envelope import Client, Recipient
from postfix_archive.message.keyring import Keyring
from postfix_archive.postfix import smtp_client
from postfix_archive.system.spool import Spool


@dataclass(frozen=True)
class Replay:
    """How messages are replayed; ``now`` is Unix time."""

    settings: Settings
    keys: Keyring
    is_of_copies: bool
    now: int

    def recipients(
        self, message: StoredMessage, given: tuple[bytes, ...]
    ) -> tuple[Recipient, ...]:
        """Return those given; else those of the envelope, or for a copy its archive.

        Raises ReplayFailed if none is known.
        """
        if given:
            return tuple(map(Recipient, given))
        if self.is_of_copies:
            return (Recipient(message.record.archive.encode()),)
        recipients = tuple(message.record.recipients.values())
        if not recipients:
            raise ReplayFailed(
                f"{message.event['id']}: the envelope has no recipients; give --to"
            )
        return recipients

    def send(self, message: StoredMessage, recipients: tuple[Recipient, ...]) -> str:
        """Give a message to Postfix for these recipients; return its queue id."""
        store = self.settings.archive_store_directory
        spool_directory = self.settings.archive_spool_directory
        if self.is_of_copies:
            content = message.read_copy(store, spool_directory)
        else:
            content = message.read_original(store, spool_directory)
        try:
            return self._submit(message, content, recipients)
        finally:
            content.close()

    def _submit(
        self,
        message: StoredMessage,
        content: Spool,
        recipients: tuple[Recipient, ...],
    ) -> str:
        port = self.settings.archive_handback_address
        stamps, chunks = self._stamps(message, content), content.chunks()
        if self.is_of_copies:
            port = self.settings.copy_port
            stamps, chunks = self._copy_stamp(message, content), _without_markers(
                content
            )
        head = content.head()
        is_ascii_header = head[: header.end(head)].isascii()
        addresses = [each.final for each in recipients]
        with contextlib.closing(smtp_client.Session(port)) as session:
            if not self.is_of_copies:
                nonce = os.urandom(replay_ident.NONCE_BYTES)
                ident = replay_ident.make(self.keys.current, nonce)
                session.prepare_xforward(Client(), ident, local=False)
            is_sent = session.send_envelope(
                self.settings.archive_sender,
                recipients,
                smtputf8=not is_ascii_header or not all(map(bytes.isascii, addresses)),
                eightbit=not content.shape().is_ascii,
            )
            if not is_sent:
                raise ReplayFailed(
                    f"{message.event['id']}: SMTP cannot carry an address of its"
                    " envelope; give --to"
                )
            return session.send_message(smtp_data.chain((stamps,), chunks))

    def _stamps(self, message: StoredMessage, content: Spool) -> bytes:
        """Return a stamp of the record for each archive that the message went to."""
        sha256 = content.digests([0])[0]
        addresses = [each.address for each in message.envelope.requests]
        archives = dict.fromkeys([message.record.archive, *addresses])
        key = self.keys.current
        return b"".join(
            stamp.make(
                message.event["id"], stamp.archive_tag(each, key), sha256, self.now, key
            )
            for each in archives
        )

    def _copy_stamp(self, message: StoredMessage, content: Spool) -> bytes:
        copy = Spool()
        try:
            for chunk in _without_markers(content):
                copy.add(chunk, self.settings.archive_spool_directory)
            sha256 = copy.digests([0])[0]
        finally:
            copy.close()
        return stamp.make_copy_stamp(
            message.event["id"],
            message.record.request,
            sha256,
            self.keys,
            now=self.now,
        )


def parse_recipient(text: str) -> bytes:
    """Return an address for the envelope. Raises ReplayFailed."""
    recipient = address.as_bytes(text)
    local, at, domain = recipient.rpartition(b"@")
    if not (local and at and domain) or not address.fits_smtp(recipient):
        raise ReplayFailed(f"{text!r} is not a mail address")
    return recipient


def _without_markers(content: Spool) -> Iterator[bytes]:
    """Yield a copy as it is mailed: no importer takes a line of the original for ours.

    See "A forged marker" in docs/how-it-works.md.
    """
    start = max(0, archive_copy.original_offset(content.head()))
    yield from content.chunks(0, start)
    original: Iterable[bytes] = content.chunks(start)
    if archive_copy.has_marker(content.chunks(start)):
        original = archive_copy.lowercase_markers(original)
    yield from original
