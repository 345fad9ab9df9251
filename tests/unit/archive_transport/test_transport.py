"""Claims about the archive transport beside a removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from postfix_archive.archive_transport import transport
from postfix_archive.archive_transport.archive_job import ArchiveJob
from postfix_archive.message import capsule
from postfix_archive.store import record_reader
from postfix_archive.store.archive import Archive
from postfix_archive.system import spool

from unit.examples import (
    ARCHIVE_ID,
    KEYS,
    LEGAL,
    MESSAGE,
    NOW,
    make_envelope,
    make_request,
    make_settings,
)


def test_a_copy_that_was_removed_since_it_was_seen_is_stored_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(verdict="valid", stamp_id=ARCHIVE_ID, offset=0)
    envelope = make_envelope(archive_id="20261123-" + "b2" * 20, requests=(request,))
    preamble = capsule.make_preamble(envelope, KEYS, sender=b"a@example.com", now=NOW)
    (tmp_path / "capsule").write_bytes(preamble + MESSAGE)
    settings = make_settings(
        f"archive_store_directory = {tmp_path}/store\narchive_delivery = store\n"
    )
    (tmp_path / "store" / LEGAL).mkdir(parents=True)
    monkeypatch.setattr(Archive, "has_copy", lambda *_: True)  # as it was then
    with open(tmp_path / "capsule", "rb") as file:
        message = spool.read(file.fileno(), str(tmp_path), canonical=True)
    log_line = transport.archive_message(ArchiveJob(message, settings, KEYS, NOW))
    message.close()
    assert "result=stored" in log_line
    record = record_reader.find_record(f"{tmp_path}/store", ARCHIVE_ID, LEGAL)
    assert b"".join(record_reader.original(f"{tmp_path}/store", record)) == MESSAGE
