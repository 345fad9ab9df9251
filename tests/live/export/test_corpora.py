"""Real messages by the thousand: imported, exported in every form, read by others.

The messages are those that packages ship for their own tests. What comes out is read by
Dovecot, mblaze, unzip and Python, and compared by the SHA-256 of each original.
"""

from __future__ import annotations

import csv
import hashlib
import imaplib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from postfix_archive.export.writers import FORMATS
from postfix_archive.store import record_reader

import corpora
from sample_store import LEGAL, SampleStore

pytestmark = pytest.mark.live

NOBODY, NOGROUP = 65534, 65534
ONLY = ("--archive", LEGAL)
STATUS = re.compile(rb"(?im)^(X-)?Status:.*\r\n")
IMAP_CONFIGURATION = """
mail_location = maildir:{directory}/Maildir
ssl = no
log_path = /dev/null
mail_home = {directory}/home
base_dir = {directory}/run
"""


def canonical(content: bytes) -> bytes:
    """Return the bytes of a message as Postfix hands them to the archive."""
    return (content if content.endswith(b"\n") else content + b"\n").replace(
        b"\n", b"\r\n"
    )


def sha256(contents: Iterable[bytes]) -> list[str]:
    """Return the SHA-256 of each, sorted."""
    return sorted(hashlib.sha256(each).hexdigest() for each in contents)


def from_lf(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield the content of files with LF line ends as originals."""
    return (path.read_bytes().replace(b"\n", b"\r\n") for path in paths)


@pytest.fixture(scope="module")
def messages(pytestconfig: pytest.Config) -> list[bytes]:
    """The messages in canonical form, each once."""
    assert pytestconfig.cache
    found = corpora.many_messages(pytestconfig.cache.mkdir("corpora"))
    return list(dict.fromkeys(canonical(each.content) for each in found))


@pytest.fixture(scope="module")
def store(
    messages: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> SampleStore:
    """A store into which they were imported, from single files and a Maildir."""
    directory = tmp_path_factory.mktemp("corpora")
    store = SampleStore(directory / "host")
    for number, content in enumerate(messages):
        name = ("in/{}.eml", "in/box/cur/{}:2,S")[number % 2].format(number)
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = content if number % 4 < 2 else content.replace(b"\r\n", b"\n")
        path.write_bytes(lines)
    (directory / "in" / "box" / "new").mkdir()
    result = store.run("import", directory / "in", "--archive", LEGAL, "--create")
    assert f": {len(messages)}." in result.output
    return store


def originals(store: SampleStore, archive: str) -> list[str]:
    """Return the SHA-256 of all originals, sorted, from their bytes."""
    records = record_reader.records(str(store.path), archive)
    path = str(store.path)
    return sha256(b"".join(record_reader.original(path, each)) for each in records)


def test_all_are_in_the_store_and_it_is_sound(
    store: SampleStore, messages: list[bytes]
) -> None:
    assert len(messages) >= corpora.MANY
    assert originals(store, LEGAL) == sha256(messages)
    store.run("verify")


@pytest.mark.parametrize("form", FORMATS)
def test_each_form_has_all_of_them_byte_for_byte(
    form: str, store: SampleStore, messages: list[bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("export", out, "--format", form, *ONLY)
    # A batch cannot have those whose recipients nobody knows; each of them is named.
    is_batch = form == "bsmtp"
    result = store.run(*arguments, exit_code=1 if is_batch else 0)
    left_out = result.output.count("not in the batch")
    lines = (out / "manifest.jsonl").read_bytes().splitlines()
    if is_batch:
        names = {json.loads(each)["sha256"] for each in lines}
        messages = [e for e in messages if hashlib.sha256(e).hexdigest() in names]
        assert 10 < len(messages) == len(originals(store, LEGAL)) - left_out
    assert sorted(json.loads(e)["sha256"] for e in lines) == sha256(messages)
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(each["sha256"] for each in rows) == sha256(messages)
    if form in ("eml", "edrm"):
        assert sha256(e.read_bytes() for e in out.rglob("*.eml")) == sha256(messages)
    elif form == "zip":
        command = [
            "unzip",
            "-q",
            str(out / "messages.zip"),
            "-d",
            str(tmp_path / "zip"),
        ]
        subprocess.run(command, check=True)
        paths = (tmp_path / "zip").rglob("*.eml")
        assert sha256(each.read_bytes() for each in paths) == sha256(messages)
    elif form == "maildir":
        paths = (out / "Maildir" / "cur").iterdir()
        assert sha256(from_lf(paths)) == sha256(messages)
    elif form in ("mbox", "bsmtp"):
        again = f"{form}@example.com"
        result = store.run("import", out, "--archive", again, "--create")
        assert f": {len(messages)}." in result.output
        assert originals(store, again) == sha256(messages)


def test_mblaze_reads_the_mbox(
    store: SampleStore, messages: list[bytes], tmp_path: Path
) -> None:
    store.run("export", tmp_path / "out", "--format", "mbox", *ONLY)
    box = tmp_path / "box"
    for each in ("cur", "new", "tmp"):
        (box / each).mkdir(parents=True)
    with (tmp_path / "out" / "messages.mbox").open("rb") as file:
        subprocess.run(["mdeliver", "-M", str(box)], stdin=file, check=True)
    # It leaves the empty line at the end of each, and makes flags of Status: fields.
    paths = [path for path in box.rglob("*") if path.is_file()]
    delivered = [each.removesuffix(b"\r\n") for each in from_lf(paths)]
    expected = [STATUS.sub(b"", each) for each in messages]
    assert sha256(STATUS.sub(b"", e) for e in delivered) == sha256(expected)


def test_dovecot_serves_the_maildir(
    store: SampleStore, messages: list[bytes], tmp_path: Path
) -> None:
    store.run("export", tmp_path / "out", "--format", "maildir", *ONLY)
    directory = Path("/tmp") / f"pfa-imap-{os.getpid()}"
    shutil.move(tmp_path / "out", directory)
    try:
        served = fetch_all(directory)
    finally:
        shutil.rmtree(directory)
    # Dovecot writes NUL as 0x80, and takes CR CR LF and a bare CR at a line's end for
    # one line end.
    fit = [e for e in messages if b"\0" not in e and b"\r\r\n" not in e]
    assert len(served) == len(messages) and len(fit) > len(messages) - 20
    assert set(sha256(fit)) <= set(sha256(served))


def fetch_all(directory: Path) -> list[bytes]:
    """Return all messages of a Maildir from a real Dovecot, over IMAP."""
    configuration = directory / "dovecot.conf"
    configuration.write_text(IMAP_CONFIGURATION.format(directory=directory))
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, NOBODY, NOGROUP)
    server = f"/usr/lib/dovecot/imap -c {configuration}"
    user = f"env USER=nobody HOME={directory}"
    drop = f"setpriv --reuid={NOBODY} --regid={NOGROUP} --clear-groups"
    with imaplib.IMAP4_stream(f"exec {drop} {user} {server}") as imap:
        status, [count] = imap.select("INBOX", readonly=True)
        assert status == "OK"
        _, data = imap.fetch(f"1:{int(count or 0)}", "(BODY.PEEK[])")
    return [each[1] for each in data if isinstance(each, tuple)]


def test_an_interrupted_import_goes_on(
    store: SampleStore, messages: list[bytes], tmp_path: Path
) -> None:
    store.run("export", tmp_path / "out", "--format", "mbox", *ONLY)
    text = (tmp_path / "out" / "messages.mbox").read_bytes()
    cut = tmp_path / "cut.mbox"
    cut.write_bytes(text[: text.index(b"\nFrom ", len(text) // 2) + 1])
    archive = ("--archive", "again@example.com")
    store.run("import", cut, *archive, "--create")
    assert 0 < len(originals(store, "again@example.com")) < len(messages)
    result = store.run("import", tmp_path / "out" / "messages.mbox", *archive)
    assert "were there already" in result.output
    assert originals(store, "again@example.com") == sha256(messages)


def test_no_blind_recipient_is_in_a_redacted_export(
    store: SampleStore, tmp_path: Path
) -> None:
    """Of all these messages no Bcc: field is left in the header."""
    store.run("export", tmp_path / "out", "--format", "eml", "--redact-bcc", *ONLY)
    for path in (tmp_path / "out").rglob("*.eml"):
        head = io.BytesIO(path.read_bytes().partition(b"\r\n\r\n")[0])
        assert not any(line[:4].lower() == b"bcc:" for line in head), path
