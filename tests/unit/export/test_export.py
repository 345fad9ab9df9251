"""Claims about exports: every message once, byte for byte, whatever happens."""

from __future__ import annotations

import csv
import email
import errno
import hashlib
import importlib
import io
import itertools
import json
import mailbox
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.access import access_recorder
from postfix_archive.export import run, target
from postfix_archive.export.writers import FORMATS
from postfix_archive.store.outcome import FAILED, Outcome
from postfix_archive.system import files

import corpora
from sample_store import LEGAL, SampleStore

HR = "hr@example.com"
STRANGE = [each.content for each in corpora.awkward_messages()]


def canonical(content: bytes) -> bytes:
    """Return the bytes of a message as Postfix hands them to the archive."""
    lf = content.replace(b"\r\n", b"\n")
    return (lf if lf.endswith(b"\n") or not lf else lf + b"\n").replace(b"\n", b"\r\n")


@pytest.fixture(scope="module")
def strange_store(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    store = SampleStore(tmp_path_factory.mktemp("strange"))
    for number, content in enumerate(STRANGE):
        store.add(canonical(content), archive=(LEGAL, HR)[number % 2])
    return store


def entries(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of an export's manifest."""
    lines = (directory / "manifest.jsonl").read_bytes().splitlines()
    return [json.loads(each) for each in lines]


def rows(directory: Path) -> list[list[str]]:
    """Return the rows of an export's manifest.csv, with that of the names."""
    text = (directory / "manifest.csv").read_bytes().decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def batch_messages(path: Path) -> list[tuple[list[bytes], bytes]]:
    """Return commands and content of each message in a batch, read as RFC 5321 says."""
    messages: list[tuple[list[bytes], bytes]] = []
    commands: list[bytes] = []
    content, is_data = b"", False
    for line in path.read_bytes().split(b"\r\n"):
        if is_data and line == b".":
            messages.append((commands, content))
            commands, content, is_data = [], b"", False
        elif is_data:
            content += line.removeprefix(b".") + b"\r\n"
        elif line == b"DATA":
            is_data = True
        else:
            commands.append(line)
    assert commands == [b"QUIT", b""]
    return messages


def read_back(directory: Path, form: str) -> list[bytes]:
    """Return the messages of an export as other programs read them, as CRLF."""
    if form in ("eml", "edrm"):
        return [path.read_bytes() for path in directory.rglob("*.eml")]
    if form == "maildir":
        paths = (directory / "Maildir" / "cur").iterdir()
        return [each.read_bytes().replace(b"\n", b"\r\n") for each in paths]
    if form == "zip":
        with zipfile.ZipFile(directory / "messages.zip") as file:
            assert file.testzip() is None
            return [file.read(e) for e in file.namelist() if e.endswith(".eml")]
    if form == "bsmtp":
        return [content for _, content in batch_messages(directory / "messages.bsmtp")]
    text = (directory / "messages.mbox").read_bytes()
    box = mailbox.mbox(directory / "messages.mbox", create=False)
    parts = [box.get_bytes(key) for key in box.keys()]
    box.close()
    assert text.count(b"\nFrom ") + 1 == len(parts)
    unquoted = []
    for part in parts:
        lines = part.split(b"\n")
        is_quoted = [e.lstrip(b">").startswith(b"From ") for e in lines]
        pairs = zip(lines, is_quoted, strict=True)
        part = b"\n".join(e[1:] if quoted else e for e, quoted in pairs)
        unquoted.append(part.replace(b"\n", b"\r\n"))
    return unquoted


@pytest.mark.parametrize("form", [each for each in FORMATS if each != "csv"])
def test_strange_messages_are_exported_byte_for_byte(
    form: str, strange_store: SampleStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    strange_store.run("export", out, "--format", form)
    found = [hashlib.sha256(each).hexdigest() for each in read_back(out, form)]
    expected = [hashlib.sha256(canonical(each)).hexdigest() for each in STRANGE]
    assert sorted(found) == sorted(expected)
    assert sorted(each["sha256"] for each in entries(out)) == sorted(expected)


def test_unzip_finds_no_fault(strange_store: SampleStore, tmp_path: Path) -> None:
    strange_store.run("export", tmp_path / "out", "--format", "zip")
    command = ["unzip", "-tq", str(tmp_path / "out" / "messages.zip")]
    assert b"No errors" in subprocess.run(command, capture_output=True).stdout


def test_the_manifest_has_what_an_auditor_asks_for(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    message = b"From: a@example.org\r\nTo: =?utf-8?q?B=C3=B6b?= <bob@example.net>\r\n"
    message += b"Message-ID: <1@example.org>\r\nSubject: =cmd|x\r\n\r\nhi\r\n"
    archive_id = store.add(
        message, recipients=((b"bob@example.net", b"b@example.net"),)
    )
    failed = Outcome(
        recipient="bob@example.net",
        original="b@example.net",
        kind=FAILED,
        capture_queue_id="4Z0000000001",
        queue_id="4Z1",
        time="2026-11-22T12:00:00Z",
        status="5.1.1",
    )
    store.add_outcome(archive_id, failed)
    store.run("export", tmp_path / "out", "--format", "csv")
    [entry] = entries(tmp_path / "out")
    assert entry["id"] == archive_id
    assert (entry["archive"], entry["seq"]) == (LEGAL, 2)
    assert entry["sha256"] == hashlib.sha256(message).hexdigest()
    assert entry["mih"] == hashlib.md5(b"1@example.org").hexdigest()
    assert entry["recipients"] == [
        {
            "recipient": "bob@example.net",
            "original": "b@example.net",
            "outcome": "failed",
            "status": "5.1.1",
            "at": "2026-11-22T12:00:00Z",
        }
    ]
    names, values = rows(tmp_path / "out")
    row = dict(zip(names, values, strict=True))
    assert row["subject"] == "'=cmd|x"
    assert row["to"] == "Böb <bob@example.net>"
    assert row["outcomes"] == "bob@example.net failed 5.1.1 2026-11-22T12:00:00Z"


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_is_a_formula(start: str, tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(f"Subject: x\r\nFrom: {start}\r\n\r\nx\r\n".encode())
    store.run("export", tmp_path / "out", "--format", "csv")
    for row in rows(tmp_path / "out"):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in row)


def test_the_load_file_is_as_the_documentation_says(
    strange_store: SampleStore, tmp_path: Path
) -> None:
    """Read by libxml2, a parser of others; no package has the schema of EDRM."""
    etree: Any = importlib.import_module("lxml.etree")
    out = tmp_path / "out"
    strange_store.run("export", out, "--format", "edrm")
    root = etree.parse(
        str(out / "edrm.xml"), etree.XMLParser(no_network=True)
    ).getroot()
    assert (root.get("MajorVersion"), root.get("MinorVersion")) == ("1", "2")
    documents = root.findall("Batch/Documents/Document")
    assert len(documents) == len(STRANGE) == len(entries(out))
    assert len({each.get("DocID") for each in documents}) == len(STRANGE)
    text = (Path(__file__).parents[3] / "docs" / "exporting.md").read_text()
    documented = documented_elements(text)
    found = {each.tag: {*each.attrib} for each in root.iter()}
    assert {name: {*found[name]} for name in documented} == documented
    assert found.keys() == documented.keys()
    names = {each.get("TagName") for each in root.iter("Tag")}
    assert all(f"`{each}`" in text for each in names)
    by_id = {each["id"]: each for each in entries(out)}
    for each in documents:
        tags = {tag.get("TagName"): tag.get("TagValue") for tag in each.iter("Tag")}
        entry = by_id.pop(tags["ArchiveId"])
        assert tags["SHA256"] == entry["sha256"]
        assert tags.get("EDRM-MIH", "") == entry["mih"]
        [file] = each.findall("Files/File/ExternalFile")
        path = out / file.get("FilePath") / file.get("FileName")
        content = path.read_bytes()
        assert str(path.relative_to(out)) == entry["file"]
        assert file.get("FileSize") == str(len(content))
        assert file.get("Hash") == hashlib.md5(content).hexdigest()
        assert hashlib.sha256(content).hexdigest() == tags["SHA256"]
    assert not by_id


def documented_elements(text: str) -> dict[str, set[str]]:
    """Return the elements of the load file with their attributes, as documented."""
    section = text.partition("### The load file")[2].partition("###")[0]
    rows = re.findall(r"(?m)^\| `(\w+)` \|[^|]*\|([^|]*)\|", section)
    return {name: {*re.findall(r"`(\w+)`", attributes)} for name, attributes in rows}


# --- what may go wrong ------------------------------------------------------------


def test_a_damaged_copy_is_named_and_the_rest_exported(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    first, second = (store.add(b"Subject: %d\r\n\r\nx\r\n" % n) for n in (1, 2))
    path = store.copy_path(first)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    out = tmp_path / "out"
    result = store.run("export", out, "--format", "eml", exit_code=1)
    assert first in result.output
    assert "1, 1 could not be exported" in result.output
    assert [each["id"] for each in entries(out)] == [second]
    result = store.run("export", out, "--format", "eml", "--resume", exit_code=1)
    assert [each["id"] for each in entries(out)] == [second]


def test_a_copy_that_cannot_be_read_now_is_exported_later(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    ids = [store.add(b"Subject: %d\r\n\r\nx\r\n" % n) for n in (1, 2, 3)]
    path = store.copy_path(ids[1])
    whole = path.read_bytes()
    store.move(ids[1])
    out = tmp_path / "out"
    result = store.run("export", out, "--format", "eml", exit_code=1)
    assert "CopyUnreachable" in result.output
    assert not run.is_complete(str(out))
    path.chmod(0o600)
    path.write_bytes(whole)
    store.run("export", out, "--format", "eml", "--resume")
    assert {each["id"] for each in entries(out)} == {*ids}


def test_a_copy_of_another_message_is_not_exported(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    first, second = (store.add(b"Subject: %d\r\n\r\nx\r\n" % n) for n in (1, 2))
    path = store.copy_path(first)
    path.chmod(0o600)
    path.write_bytes(store.copy_path(second).read_bytes())
    result = store.run("export", tmp_path / "out", "--format", "eml", exit_code=1)
    assert f"{first}.eml.gz: the copy is damaged" in result.output.replace("\n", " ")


@pytest.mark.parametrize("kind", ["directory", "file", "symlink"])
def test_a_target_that_exists_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    out = tmp_path / "out"
    if kind == "directory":
        out.mkdir()
    elif kind == "file":
        out.write_text("x")
    else:
        out.symlink_to(tmp_path / "nowhere")
    result = store.run("export", out, "--format", "eml", exit_code=1)
    assert result.output.count("\n") == 1
    assert "exists" in result.output and "--resume" in result.output


def test_a_refused_export_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    out = tmp_path / "out"

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(store.path))

    with monkeypatch.context() as patched:
        patched.setattr(access_recorder, "append_or_log", refuse)
        result = store.run("export", out, "--format", "eml", exit_code=1)
    assert "Permission denied; nothing is shown" in result.output
    assert not out.exists()
    store.run("export", out, "--format", "eml")
    assert len(entries(out)) == 1


@pytest.mark.parametrize("place", ["store/out", "link/out", "fallback/a/../out"])
def test_no_export_is_made_in_the_store(place: str, tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    (tmp_path / "link").symlink_to(store.path / LEGAL)
    (tmp_path / "fallback" / "a").mkdir()
    out = tmp_path / place
    result = store.run("export", out, "--format", "eml", exit_code=1)
    assert "give a directory elsewhere" in " ".join(result.output.split())
    assert not out.exists()
    store.run("export", tmp_path / "store-2", "--format", "eml")


def test_a_target_that_exists_records_no_access(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    store.run("export", tmp_path, "--format", "eml", exit_code=1)
    assert not (store.path / LEGAL / "access").exists()


def test_other_options_cannot_go_on_with_an_export(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    store.run("export", tmp_path / "out", "--format", "eml")
    result = store.run(
        *("export", tmp_path / "out", "--format", "eml", "--redact-bcc", "--resume"),
        exit_code=1,
    )
    assert "redact_bcc differs" in result.output
    result = store.run(
        "export", tmp_path / "none", "--format", "eml", "--resume", exit_code=1
    )
    assert "no export to go on with" in result.output


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    store.run("export", tmp_path / "out", "--format", "eml")
    (tmp_path / "out").chmod(0o777)
    result = store.run(
        "export", tmp_path / "out", "--format", "eml", "--resume", exit_code=1
    )
    assert "other users can write there" in result.output


def test_all_files_are_for_their_owner_only(
    strange_store: SampleStore, tmp_path: Path
) -> None:
    for form in FORMATS:
        strange_store.run("export", tmp_path / form, "--format", form)
    paths = [
        e for form in FORMATS for e in [tmp_path / form, *(tmp_path / form).rglob("*")]
    ]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600, 0o700}


def test_an_export_that_is_complete_takes_only_what_is_new(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    for form in FORMATS:
        store.add(b"Subject: %s\r\n\r\nx\r\n" % form.encode())
        store.run("export", tmp_path / form, "--format", form)
    store.add(b"Subject: new\r\n\r\nx\r\n")
    for number, form in enumerate(FORMATS, 1):
        result = store.run("export", tmp_path / form, "--format", form, "--resume")
        assert f"{len(FORMATS) + 1 - number}, {number} more" in result.output
        if form != "csv":
            assert len(read_back(tmp_path / form, form)) == len(FORMATS) + 1


CALLS = ("write", "rename", "unlink", "ftruncate", "utime", "mkdir", "pwrite")


def killing(
    function: Callable[..., Any], count: int, calls: Iterator[int]
) -> Callable[..., Any]:
    """Return a function that kills the process at its call of this number."""

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return call


def run_killed(store: SampleStore, count: int, *arguments: str | Path) -> bool:
    """Run a command that is killed at a call of CALLS; False if it came to its end.

    count is the number of the call.
    """
    process = os.fork()
    if not process:
        calls = itertools.count(1)
        for name in CALLS:
            setattr(os, name, killing(getattr(os, name), count, calls))
        vars(files)["os"] = os
        try:
            store.run(*arguments)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_killed_anywhere_has_each_message_once(
    form: str, tmp_path: Path
) -> None:
    store = SampleStore(tmp_path)
    for number in range(5):
        store.add(b"Subject: %d\r\n\r\nFrom x\r\n" % number)
    out = tmp_path / "out"
    arguments: list[str | Path] = ["export", out, "--format", form]
    for count in range(1, 200):
        if not run_killed(store, count, *arguments):
            break
        arguments = [*arguments[:4], *(["--resume"] if out.exists() else [])]
    assert 3 < count < 199
    assert [each["seq"] for each in entries(out)] == [2, 3, 4, 5, 6]
    assert json.loads((out / "export.json").read_text())["complete"]
    if form != "csv":
        subjects = [
            email.message_from_bytes(e)["subject"] for e in read_back(out, form)
        ]
        assert sorted(subjects) == ["0", "1", "2", "3", "4"]
    assert not list(out.glob(f"{target.DRAFT}*"))
    assert len(rows(out)) == 6


def test_memory_does_not_grow_with_a_message(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" * 30_000_000)
    code = (
        "import sys; from postfix_archive.cli import main\n"
        "try: main.main(sys.argv[1:])\n"
        "finally: print(open('/proc/self/status').read())"
    )
    arguments = [
        "-c",
        str(tmp_path),
        "export",
        str(tmp_path / "out"),
        "--format",
        "mbox",
    ]
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = result.stdout.partition("VmHWM:")[2].split()[0]
    assert int(peak) < 80 << 10  # KiB


# --- redaction --------------------------------------------------------------------


SECRET = b"secret@example.net"
SHOWN = (
    b"Received: from x by y for <bob@example.net>; Sun, 22 Nov 2026 11:53:00 +0000\r\n"
    b"From: Secret <secret@example.net>\r\nTo: Bob <BOB@example.net>\r\n"
    b"Cc: list@example.net\r\nSubject: x\r\n"
)


def redacted(store: SampleStore, out: Path, form: str) -> bytes:
    """Export redacted; return all bytes of the export."""
    store.run("export", out, "--format", form, "--redact-bcc")
    paths = [each for each in out.rglob("*") if each.is_file()]
    contents = [path.read_bytes() for path in paths if path.suffix != ".zip"]
    return b"".join([*contents, *([] if form == "csv" else read_back(out, form))])


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_names_a_blind_recipient(form: str, tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    secret = b"hidden@example.net"
    message = (
        (
            b"Received: from x by y\r\n\tfor <hidden@example.net>; Sun, 22 Nov 2026"
            b" 11:53:00 +0000\r\nbcc : Hidden <HIDDEN@example.net>\r\n"
            b"X-Original-To: Hidden@Example.net\r\n"
            b"Return-Path: <l-hidden=example.net@x>\r\n"
        )
        + SHOWN
        + b"\r\nhi\r\n"
    )
    archive_id = store.add(
        message,
        sender=b"l-hidden=example.net@x",
        recipients=(
            *(b"bob@example.net", secret),
            *((b"member@example.net", b"list@example.net"), (secret, b"h@x.example")),
        ),
    )
    for recipient in ("hidden@example.net", "bob@example.net"):
        outcome = Outcome(
            recipient=recipient,
            kind=FAILED,
            capture_queue_id="4Z0000000001",
            queue_id="4Z1",
            time="2026-11-22T12:00:00Z",
            reply="unknown user hidden@example.net",
        )
        store.add_outcome(archive_id, outcome)
    content = redacted(store, tmp_path / "out", form).lower()
    for each in (b"hidden", b"member@", b"h@x.example", b"=example.net@x"):
        assert each not in content, each
    [entry] = entries(tmp_path / "out")
    shown = [each["recipient"] for each in entry["recipients"]]
    assert shown == ["bob@example.net", "list@example.net"]
    assert entry["removed_fields"] == [
        "received",
        "bcc",
        "x-original-to",
        "return-path",
    ]
    assert entry["sha256"] == hashlib.sha256(message).hexdigest()
    assert entry["exported_sha256"] == hashlib.sha256(SHOWN + b"\r\nhi\r\n").hexdigest()
    if form == "bsmtp":
        [(commands, _)] = batch_messages(tmp_path / "out" / "messages.bsmtp")
        assert commands[1:] == [
            b"MAIL FROM:<>",
            *(b"RCPT TO:<bob@example.net>", b"RCPT TO:<list@example.net>"),
        ]


@pytest.mark.parametrize("form", FORMATS)
def test_a_query_that_names_a_blind_recipient_is_in_no_file(
    form: str, tmp_path: Path
) -> None:
    store = SampleStore(tmp_path)
    message = b"To: bob@example.net\r\nBcc: hidden@example.net\r\n\r\nhi\r\n"
    for _ in range(2):
        store.add(message, recipients=(b"bob@example.net", b"hidden@example.net"))
    store.run("index", "--once")
    query = ("--query", "bcc:hidden@example.net")
    out = tmp_path / "out"
    arguments = ("export", out, "--format", form, "--redact-bcc")
    store.run(*arguments, *query)
    assert len(entries(out)) == 2
    paths = [path for path in out.rglob("*") if path.is_file()]
    assert all(b"hidden" not in path.read_bytes() for path in paths)
    result = store.run(*arguments, *query, "--resume", exit_code=1)
    assert "does not say by which query" in result.output
    result = store.run(*arguments, "--resume", exit_code=1)
    assert "selection differs" in result.output


def test_a_redacted_export_goes_on_with_the_same_query_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SampleStore(tmp_path)
    for hidden in (b"hidden1@example.net", b"hidden2@example.net"):
        message = b"To: bob@example.net\r\n\r\nhi\r\n"
        store.add(message, recipients=(b"bob@example.net", hidden))
    store.run("index", "--once")
    out = tmp_path / "out"
    command = ("export", out, "--format", "eml", "--redact-bcc", "--query")
    with monkeypatch.context() as patched:
        patched.setattr(target.Target, "sync", interrupt)
        store.run(*command, "bcc:hidden1@example.net", exit_code=1)
    assert b"hidden" not in (out / "export.json").read_bytes()
    result = store.run(*command, "bcc:hidden2@example.net", "--resume", exit_code=1)
    assert "query_scrypt differs" in result.output
    store.run(*command, "bcc:hidden1@example.net", "--resume")
    assert "query_scrypt" not in json.loads((out / "export.json").read_bytes())
    assert len(entries(out)) == 1


def interrupt(_: target.Target) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "head",
    [
        b"no header field\r\nBcc: hidden@example.net\r\n",
        b"From hidden@example.net Sun Nov 22 2026\r\nbCc:\r\n hidden@example.net\r\n",
        b"Resent-Bcc: a@x,\r\n\thidden@example.net\r\nX: y\r\n",
        b"Bcc: hidden@example.net",
    ],
)
def test_a_broken_header_hides_no_blind_recipient(head: bytes, tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(head + b"\r\n", recipients=(b"hidden@example.net",))
    assert b"hidden" not in redacted(store, tmp_path / "out", "eml")


@pytest.mark.parametrize(
    "field",
    [
        b"X: <hidden.x@\r\n example.net>",
        b"X: hidden\r\n\t.x@example.net",
        b'X: "Hidden.x"@example.net',
        b'X: "hidden\\.x" @ example.net',
        b"X: =?utf-8?q?hidden=2Ex=40example=2Enet?=",
        b"X: =?utf-8?b?aGlkZGVuLnhA?=\r\n =?utf-8?q?example.net?=",
        b"List-Unsubscribe: <https://x.example/?e=hidden.x%40example.net>",
        b"Return-Path: <l-hidden.x=example.net@x.example>",
        b"Delivered-To: hidden@example.org",
        b"Delivered-To: hidden+tag@example.org",
    ],
)
def test_no_spelling_of_a_blind_recipient_stays(field: bytes, tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    hidden = (b"hidden.x@example.net", b"hidden+tag@example.org")
    recipients = (b"bob@example.net", *hidden)
    shown = b"X-Other: +bob@example.net =?utf-8?b?/w==?= =?utf-7?q?+2AA-?=\r\n"
    shown += b"To: bob@example.net\r\n"
    message = field + b"\r\n" + shown + b"\r\nhi\r\n"
    store.add(message, recipients=recipients)
    store.run("export", tmp_path / "out", "--format", "eml", "--redact-bcc")
    assert read_back(tmp_path / "out", "eml") == [shown + b"\r\nhi\r\n"]


def test_an_address_that_is_shown_is_not_hidden_as_one_with_extension(
    tmp_path: Path,
) -> None:
    store = SampleStore(tmp_path)
    message = b"Delivered-To: bob@example.net\r\nTo: bob@example.net\r\n\r\nhi\r\n"
    store.add(message, recipients=(b"bob@example.net", b"bob+tag@example.net"))
    store.run("export", tmp_path / "out", "--format", "eml", "--redact-bcc")
    assert read_back(tmp_path / "out", "eml") == [message]


def test_the_body_below_an_empty_header_is_not_changed(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    message = b"\r\nBcc: hidden@example.net\r\n\r\nhi\r\n"
    store.add(message, recipients=(b"hidden@example.net",))
    store.run("export", tmp_path / "out", "--format", "eml", "--redact-bcc")
    assert read_back(tmp_path / "out", "eml") == [message]


def test_a_message_that_needs_no_redaction_is_not_changed(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    message = SHOWN + b"\r\nsecret@example.net\r\n"
    store.add(message, recipients=(b"bob@example.net", SECRET))
    store.run("export", tmp_path / "out", "--format", "eml", "--redact-bcc")
    assert read_back(tmp_path / "out", "eml") == [message]
    assert "removed_fields" not in entries(tmp_path / "out")[0]


def test_copies_are_not_redacted_but_refused(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    arguments = ("--format", "eml", "--copies", "--redact-bcc")
    result = store.run("export", tmp_path / "out", *arguments, exit_code=2)
    assert "has the whole envelope" in result.output


def test_copies_are_exported_as_they_are_in_the_store(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    archive_id = store.add(b"Subject: x\r\n\r\nx\r\n")
    store.run("export", tmp_path / "out", "--format", "eml", "--copies")
    copy = corpora.read_copy(store.copy_path(archive_id))
    assert read_back(tmp_path / "out", "eml") == [copy]
    [entry] = entries(tmp_path / "out")
    assert entry["exported_sha256"] == hashlib.sha256(copy).hexdigest()


def test_the_options_of_an_export_are_in_its_description(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    store.run("export", tmp_path / "out", "--format", "eml", "--archive", LEGAL)
    description = json.loads((tmp_path / "out" / run.DESCRIPTION).read_text())
    assert description["format"] == "eml"
    assert description["selection"]["archive"] == LEGAL


# --- by query ---------------------------------------------------------------------


def test_a_query_chooses_the_messages(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    for number in range(3):
        head = f"Subject: number {number}\r\nTo: bob@example.net\r\n\r\nx\r\n".encode()
        hidden = b"hidden%d@example.net" % (number % 2)
        store.add(head, recipients=(b"bob@example.net", hidden))
    store.run("index", "--once")
    store.run(
        *("export", tmp_path / "out", "--format", "csv"),
        *("--query", "bcc:hidden0@example.net"),
    )
    subjects = [each["subject"] for each in entries(tmp_path / "out")]
    assert subjects == ["number 0", "number 2"]


def test_what_a_query_cannot_search_is_named(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    store.run("index", "--once")
    store.add(b"Subject: x\r\n\r\nx\r\n", archive=HR)
    arguments = ("export", tmp_path / "out", "--format", "csv", "--query", "subject:x")
    result = store.run(*arguments, exit_code=1)
    assert f"{HR} has no index" in result.output
    assert len(entries(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (["--query", "from:("], 2, "^"),
        (["--query", "subject:x"], 1, "no index"),
        (["2099"], 1, "no record 2099"),
        (["2099", "--query", "x"], 2, "give ids, --query, or"),
        (["--archive", "none@example.com"], 1, "no archive none@example.com"),
    ],
)
def test_a_bad_selection_makes_no_directory(
    tmp_path: Path, arguments: list[str], exit_code: int, text: str
) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    command = ["export", "--format", "csv", str(tmp_path / "out"), *arguments]
    assert text in store.run(*command, exit_code=exit_code).output
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    (tmp_path / "file").touch()
    for name, text in (
        ("a/b/c", f"{tmp_path}/a/b is not a directory; make it first"),
        ("file/c", f"{tmp_path}/file is not a directory; make it first"),
    ):
        command = ("export", "--format", "csv", tmp_path / name)
        assert text in str(store.run(*command, exit_code=1).output)
    assert not (tmp_path / "a").exists()
    resumed = ("export", "--format", "csv", "--resume", tmp_path / "out")
    assert "no export to go on with" in str(store.run(*resumed, exit_code=1).output)
