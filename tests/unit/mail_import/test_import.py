"""Claims about imports: every message once, its envelope as far as it is known."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import posix
import shutil
import signal
from pathlib import Path

import pytest

from postfix_archive.export.writers import FORMATS
from postfix_archive.message import address
from postfix_archive.outcomes.capture_reader import CaptureReader
from postfix_archive.outcomes.follower_state import FollowerState
from postfix_archive.reconcile import archive_lookup
from postfix_archive.store import record_reader
from postfix_archive.store.record import Record

import corpora
from sample_store import LEGAL, SampleStore

HEAD = (
    b"From: a@example.org\r\nTo: b@example.net\r\nDate: Sun, 22 Nov 2026 12:53:00 +0100"
)
MESSAGE = HEAD + b"\r\nSubject: hello\r\n\r\nhello\r\n"


def canonical(content: bytes) -> bytes:
    """Return the bytes of a message as Postfix hands them to the archive."""
    lf = content.replace(b"\r\n", b"\n")
    return (lf if lf.endswith(b"\n") else lf + b"\n").replace(b"\n", b"\r\n")


# Each once: a few differ in their line ends only.
CONTENTS = [each.content for each in corpora.awkward_messages() if each.content]
STRANGE = [*dict.fromkeys(map(canonical, CONTENTS))]


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    """A store with an empty archive and a key."""
    return make_store(tmp_path / "host")


def make_store(directory: Path) -> SampleStore:
    """Return a store without messages, with a key."""
    return SampleStore(directory)


def imported(store: SampleStore, *paths: Path | str, exit_code: int = 0) -> str:
    """Import; return the output."""
    arguments = ("--archive", LEGAL, "--create")
    result = store.run("import", *paths, *arguments, exit_code=exit_code)
    return result.output


def records(store: SampleStore) -> list[Record]:
    """Return all records."""
    return list(record_reader.records(str(store.path), LEGAL))


def originals(store: SampleStore) -> list[bytes]:
    """Return all originals, sorted."""
    path = str(store.path)
    return sorted(b"".join(record_reader.original(path, e)) for e in records(store))


def envelopes(store: SampleStore) -> list[tuple[bytes, list[bytes], str]]:
    """Return sender, recipients and source of each record."""
    return [
        (
            each.envelope.sender,
            [recipient.final for recipient in each.envelope.recipients],
            address.as_text(each.envelope.imported),
        )
        for each in records(store)
    ]


def write(path: Path, content: bytes) -> Path:
    """Write a file with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_message_is_imported_and_the_store_verified(
    store: SampleStore, tmp_path: Path
) -> None:
    received = b"Received: from x by y; Sat, 21 Nov 2026 12:53:00 +0100\r\n"
    fields = b"Return-Path: <a@example.org>\r\nDelivered-To: b@example.net\r\n"
    content = fields + received + MESSAGE
    output = imported(store, write(tmp_path / "x.eml", content))
    assert output == f"Messages imported into {LEGAL}: 1.\n"
    assert originals(store) == [content]
    [record] = records(store)
    assert record.archive_id.startswith("20261122-")
    assert record.envelope.arrival == 1795261980
    assert envelopes(store) == [
        (b"a@example.org", [b"b@example.net"], f"file; {tmp_path}/x.eml")
    ]
    assert record.events[0]["stamp"] == "absent"
    assert record.request.source == "import"
    store.run("verify")
    copy = corpora.read_copy(store.path / LEGAL / record.files[0])
    assert corpora.extract_original(copy) == content
    assert b"A message was imported for" in copy and b"was captured" not in copy


def test_a_new_archive_is_only_begun_on_demand(
    store: SampleStore, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.eml", MESSAGE)
    result = store.run("import", path, "--archive", LEGAL, exit_code=1)
    assert f"has no archive {LEGAL}; give --create" in result.output
    assert not (store.path / LEGAL).exists()


def test_the_same_content_is_imported_once_under_any_name(
    store: SampleStore, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.eml", MESSAGE)
    write(tmp_path / "in" / "b.eml", MESSAGE.replace(b"\r\n", b"\n"))
    write(tmp_path / "in" / "c.mbox", b"From - Sun Nov 22 11:53:00 2026\n" + MESSAGE)
    assert "1, 2 were there already." in imported(store, tmp_path / "in")
    assert "0, 3 were there already." in imported(store, tmp_path / "in")
    assert len(records(store)[0].events) == 1


def test_the_archive_id_depends_on_the_content_alone(tmp_path: Path) -> None:
    ids = []
    for name in ("one", "two"):
        store = make_store(tmp_path / name)
        path = write(tmp_path / name / f"{name}.eml", MESSAGE)
        os.utime(path, (0, 0) if name == "one" else None)
        imported(store, path)
        ids += [each.archive_id for each in records(store)]
    assert len(set(ids)) == 1


@pytest.mark.parametrize(
    ("date", "day"),
    [
        (b"Date: Sun, 22 Nov 2026 23:53:00 -0100\r\n", "20261123"),
        (b"Date: 22 Nov 98 12:53 EST\r\n", "19981122"),
        (b"Date: yesterday\r\n", "19700101"),
        (b"Date: Sun, 22 Nov 2950 12:53:00 +0100\r\n", "19700101"),
        (b"Received: by x; Sun, 22 Nov 2026 12:53:00 +0100 (CET)\r\n", "20261122"),
        (b"", "19700101"),
    ],
)
def test_the_directory_is_that_of_the_day_in_the_message(
    store: SampleStore, tmp_path: Path, date: bytes, day: str
) -> None:
    imported(store, write(tmp_path / "x.eml", date + b"Subject: x\r\n\r\nx\r\n"))
    [record] = records(store)
    assert record.files[0].startswith(f"{day[:4]}/{day[4:6]}/{day[6:]}/{day}-")


def test_a_message_without_received_arrived_on_its_date(
    store: SampleStore, tmp_path: Path
) -> None:
    content = MESSAGE.replace(b"22 Nov 2026", b"25 Jan 2009")
    imported(store, write(tmp_path / "x.eml", content))
    [record] = records(store)
    store.run("index", "--once")
    found = store.run("search", "hello date:2009-01", "--ids").output
    assert found.split() == [record.archive_id]
    store.run("export", tmp_path / "out", "--format", "mbox")
    from_line = (tmp_path / "out" / "messages.mbox").read_bytes().partition(b"\n")[0]
    assert from_line == b"From MAILER-DAEMON Sun Jan 25 11:53:00 2009"
    manifest = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert '"arrival":"2009-01-25T11:53:00' in manifest


# --- kinds of sources -------------------------------------------------------------


@pytest.mark.parametrize("form", [each for each in FORMATS if each != "csv"])
def test_what_was_exported_is_imported_byte_for_byte(form: str, tmp_path: Path) -> None:
    exporting = SampleStore(tmp_path / "exporting")
    for content in STRANGE:
        exporting.add(content, recipients=(b"hidden@example.net",))
    out = tmp_path / "out"
    exporting.run("export", out, "--format", form)
    store = make_store(tmp_path / "host")
    assert f": {len(STRANGE)}.\n" in imported(store, out)
    assert originals(store) == sorted(STRANGE)
    for sender, recipients, source in envelopes(store):
        assert (sender, recipients) == (b"alice@example.org", [b"hidden@example.net"])
        assert source.startswith("export 20261122-")
    arrivals = {each.envelope.arrival for each in records(store)}
    assert arrivals == {record.envelope.arrival for record in records(exporting)}


def test_copies_give_back_the_original_and_its_envelope(
    store: SampleStore, tmp_path: Path
) -> None:
    exporting = SampleStore(tmp_path / "exporting")
    ids = [
        exporting.add(each, recipients=((b"b@x.example", b"l@x.example"),))
        for each in STRANGE
    ]
    inbox = tmp_path / "inbox"
    for number, path in enumerate((exporting.path / LEGAL).rglob("*.eml.gz")):
        if number % 3 == 0:
            shutil.copy(path, write(inbox / f"{number}.gz", b""))
        else:
            copy = gzip.decompress(path.read_bytes())
            content = b"Return-Path: <>\r\nDelivered-To: legal@example.com\r\n" + copy
            if number % 3 == 1 and b"\r\r\n" not in content:
                content = content.replace(b"\r\n", b"\n")
            write(inbox / f"{number}.eml", content)
    assert f": {len(STRANGE)}.\n" in imported(store, inbox)
    assert originals(store) == sorted(STRANGE)
    sources = {source.partition(" in ")[0] for _, _, source in envelopes(store)}
    assert sources == {f"copy {each}" for each in ids}
    [recipient] = records(store)[0].envelope.recipients
    assert (recipient.final, recipient.original) == (b"b@x.example", b"l@x.example")


def test_a_lost_store_is_imported_from_its_copies(
    store: SampleStore, tmp_path: Path
) -> None:
    lost = SampleStore(tmp_path / "lost")
    for number in range(3):
        archive_id = lost.add(MESSAGE.replace(b"hello", b"%d" % number))
    lost.run("index", "--once")
    lost.run("show", archive_id)
    (lost.directory / "index").rename(lost.path / "index")
    names = {"access", "access.last", "access.lock", "drafts", "journal.lock"}
    assert names <= {each.name for each in (lost.path / LEGAL).iterdir()}
    assert imported(store, lost.path) == f"Messages imported into {LEGAL}: 3.\n"
    assert len(originals(store)) == 3


def test_a_maildir_is_read_without_what_is_no_mail(
    store: SampleStore, tmp_path: Path
) -> None:
    for number, name in enumerate(("cur/1.x:2,S", "new/2.x", ".Sent/cur/3.x:2,")):
        content = MESSAGE.replace(b"hello", b"%d" % number).replace(b"\r\n", b"\n")
        write(tmp_path / "box" / name, content)
    for name in ("tmp/4.x", "dovecot-uidlist", ".Sent/new/.keep", "dovecot.index.log"):
        write(tmp_path / "box" / name, b"From: tmp\n\n")
    (tmp_path / "box" / ".Sent/new/.keep").unlink()
    assert ": 3.\n" in imported(store, tmp_path / "box")


JOURNAL_REPORT = b"""From: <journal@example.com>
To: <archive@example.com>
Subject: hello
X-MS-Journal-Report:
Content-Type: multipart/mixed;
\tboundary="_b_"

--_b_
Content-Type: text/plain; charset="us-ascii"

Sender: a@example.org
Subject: hello
Message-Id: <1@example.org>
To: b@example.net
Cc: member@example.net, Expanded: list@example.net
Bcc: hidden@example.net

--_b_
Content-Type: message/rfc822

%s
--_b_--
""".replace(b"\n", b"\r\n")


def test_a_journal_report_gives_the_message_and_its_envelope(
    store: SampleStore, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.eml", JOURNAL_REPORT % MESSAGE)
    imported(store, path, "--journal")
    assert originals(store) == [MESSAGE]
    recipients = [b"b@example.net", b"member@example.net", b"hidden@example.net"]
    source = f"journal report in file; {path}"
    assert envelopes(store) == [(b"a@example.org", recipients, source)]
    originals_ = [each.original for each in records(store)[0].envelope.recipients]
    assert originals_ == [b"", b"list@example.net", b""]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"X-MS-Journal-Report:", b"X-Other:"),
        (b"message/rfc822", b"text/plain"),
        (b"Sender: ", b"Sander: "),
        (b"--_b_\r\n", b"--_c_\r\n"),
    ],
)
def test_what_is_no_journal_report_is_imported_as_it_is(
    store: SampleStore, tmp_path: Path, old: bytes, new: bytes
) -> None:
    content = (JOURNAL_REPORT % MESSAGE).replace(old, new)
    imported(store, write(tmp_path / "x.eml", content), "--journal")
    assert originals(store) == [content]


def test_no_message_hides_behind_what_looks_like_a_report(
    store: SampleStore, tmp_path: Path
) -> None:
    content = JOURNAL_REPORT % MESSAGE
    imported(store, write(tmp_path / "x.eml", content))
    assert originals(store) == [content]
    assert envelopes(store)[0][:2] == (b"", [])


@pytest.mark.parametrize("change", ["key", "content", "boundary"])
def test_no_message_hides_behind_what_looks_like_a_copy(
    store: SampleStore, tmp_path: Path, change: str
) -> None:
    exporting = SampleStore(tmp_path / "exporting")
    archive_id = exporting.add(MESSAGE)
    copy = corpora.read_copy(exporting.copy_path(archive_id))
    if change == "key":
        (tmp_path / "host" / "archive.key").write_text(f"other {'ab' * 32}\n")
    elif change == "content":
        copy = copy.replace(b"\r\nhello\r\n", b"\r\nforged\r\n")
    else:
        copy = copy.replace(b"=_archive_", b"=_archive_0")
    path = write(tmp_path / "x.eml", copy)
    imported(store, path)
    assert originals(store) == [copy]
    imported(store, path, "--journal")
    assert len(originals(store)) == 2


def test_piler_exports_lose_the_lines_that_piler_put_on_top(
    store: SampleStore, tmp_path: Path
) -> None:
    top = b"X-Piler-Envelope-To: b@example.net\nX-Piler-Envelope-To: c@example.net\n"
    write(tmp_path / "in" / "1.eml", top + MESSAGE)
    other = MESSAGE.replace(b"hello", b"other")
    mark = b"x-exported-by-pilerexport: start\n"
    write(tmp_path / "in" / "all", mark + top + other + mark + b"Subject: 3\r\n\r\n")
    assert ": 3.\n" in imported(store, tmp_path / "in")
    assert originals(store) == sorted([MESSAGE, other, b"Subject: 3\r\n\r\n"])
    found = {e[2].partition(";")[0]: e[1] for e in envelopes(store)}
    both = [b"b@example.net", b"c@example.net"]
    assert found["piler in file"] == found["piler in pilerexport"] == both


# What stands in the mbox, what it is to be read as, and the Content-Length: EXACT, none
# or wrong.
EXACT = -1
QUOTED, BODY = b"a\n>From b\n>>From c\n", b"a\nFrom b\n>From c\n"
INNER = b"hi\n\nFrom x Sun Nov 22 11:53:00 2026\n\n>From y\n"
PROSE = b"hello\n\nFrom now on: 10:30\n"
MBOXES = {
    "mboxrd": (QUOTED, BODY, None),
    "mboxcl": (QUOTED, BODY, EXACT),
    "mboxcl2": (BODY, BODY, EXACT),
    "mboxcl2 with a From_ line": (INNER, INNER, EXACT),
    "a wrong Content-Length": (QUOTED, BODY, 3),
    "a Content-Length beyond the end": (QUOTED, BODY, 99999),
    "prose that begins with From": (PROSE, PROSE, None),
}


@pytest.mark.parametrize("name", MBOXES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_each_dialect_of_mbox_is_read(
    store: SampleStore, tmp_path: Path, name: str, line_end: bytes
) -> None:
    written, read, length = MBOXES[name]
    if length == EXACT:
        length = len(written.replace(b"\n", line_end))
    field = b"" if length is None else b"Content-Length: %d\n" % length
    head = b"Subject: 1\n" + field + b"\n"
    text = b"From a@example.org Sun Nov 22 11:53:00 2026\n" + head + written
    text += b"\nFrom - Sun Nov 22 11:54:00 2026\nSubject: 2\n\nlast\n\n"
    path = write(tmp_path / "x", text.replace(b"\n", line_end))
    imported(store, path)
    expected = [head + read, b"Subject: 2\n\nlast\n"]
    assert originals(store) == sorted(e.replace(b"\n", b"\r\n") for e in expected)
    first = next(e for e in records(store) if e.envelope.sender)
    assert first.envelope.sender == b"a@example.org"
    assert first.envelope.arrival == 1795348380


CUT = b"From - Sun Nov 22 11:53:00 2026\nSubject: 1\n\n1\n\n"


@pytest.mark.parametrize(
    "end",
    [
        b"From - Sun Nov 22 11:53:00 2026\nSubject: 2\n\nla",
        b"From - Sun Nov 22 11:53:00 2026\nSubject: 2\n",
        b"From - Sun Nov 22 11:53:00 2026\nSubject: 2\nContent-Length: 9\n\nla\n",
        b"From - Sun Nov 22 11:53:00 2026\n",
        b"From - Sun Nov",
    ],
)
def test_an_mbox_that_ends_in_the_middle_is_named(
    store: SampleStore, tmp_path: Path, end: bytes
) -> None:
    path = write(tmp_path / "x.mbox", CUT + end)
    output = imported(store, path, exit_code=1)
    assert output.count("\n") <= 3
    assert f"{path}, message" in output
    assert b"Subject: 1\r\n\r\n1\r\n" in b"".join(originals(store))


def test_batches_and_zip_files_are_read(store: SampleStore, tmp_path: Path) -> None:
    batch = b"EHLO x\r\nmail from:<a@example.org> BODY=8BITMIME\r\n"
    batch += b"RCPT TO:<b@example.net>\r\nDATA\r\n..\r\nhello\r\n.\r\nQUIT\r\n"
    imported(store, write(tmp_path / "x", batch))
    assert originals(store) == [b".\r\nhello\r\n"]
    assert envelopes(store)[0][:2] == (b"a@example.org", [b"b@example.net"])
    cut = write(tmp_path / "y", batch.replace(b"hello", b"cut")[:-8])
    assert "ends in the middle" in imported(store, cut, exit_code=1)


# --- what cannot be read ----------------------------------------------------------


UNREADABLE = {
    "empty.eml": b"",
    "binary": bytes(range(256)),
    "prose": b"hello, this is no mail\n",
    "cut.gz": gzip.compress(MESSAGE)[:-9],
    "bad.zip": b"PK\x03\x04 nothing",
    "bad.pst": b"!BDN nothing",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named_and_the_rest_imported(
    store: SampleStore, tmp_path: Path, name: str
) -> None:
    path = write(tmp_path / "in" / name, UNREADABLE[name])
    write(tmp_path / "in" / "good.eml", MESSAGE)
    output = imported(store, tmp_path / "in", exit_code=1)
    [problem, summary] = output.splitlines()
    assert problem.startswith(f"postfix-archive: {path}: ")
    assert summary.endswith(": 1, 1 problems.")
    assert originals(store) == [MESSAGE]


def test_a_path_that_is_missing_is_named(store: SampleStore, tmp_path: Path) -> None:
    output = imported(store, tmp_path / "none", exit_code=1)
    assert f"{tmp_path}/none: No such file or directory" in output


def test_no_symlink_or_fifo_below_a_directory_is_followed(
    store: SampleStore, tmp_path: Path
) -> None:
    write(tmp_path / "secret", MESSAGE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "in" / "fifo")
    output = imported(store, tmp_path / "in", exit_code=1)
    assert output.count("not a file or directory") == 2
    assert not (store.path / LEGAL).exists()


@pytest.mark.parametrize("name", ["a\nb.eml", "\x1b[2J.eml", "=cmd.eml", "ü\udcff.eml"])
def test_a_hostile_name_is_only_text(
    store: SampleStore, tmp_path: Path, name: str
) -> None:
    write(tmp_path / "in" / name, MESSAGE)
    write(tmp_path / "in" / f"bad{name}", b"")
    output = imported(store, tmp_path / "in", exit_code=1)
    assert output.count("\n") == 2 and "\x1b" not in output
    [(_, _, source)] = envelopes(store)
    assert source.endswith(".eml") and "\n" not in source
    store.run("verify")
    store.run("show", records(store)[0].archive_id)


def test_a_store_that_is_full_ends_the_import_in_one_line(
    store: SampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(store, write(tmp_path / "x.eml", MESSAGE))
    (store.path / LEGAL / "drafts").rmdir()
    (store.path / LEGAL / "drafts").write_text("in the way")
    other = write(tmp_path / "y.eml", MESSAGE.replace(b"hello", b"other"))
    output = imported(store, other, exit_code=1)
    assert output.startswith("postfix-archive: StoreFailed: ")
    assert output.count("\n") == 1


# --- other parts of the program ---------------------------------------------------


@pytest.mark.parametrize("calls", ["write", "link", "fsync", "chmod", "unlink"])
def test_an_import_killed_anywhere_is_run_again(
    store: SampleStore, tmp_path: Path, calls: str
) -> None:
    contents = [MESSAGE.replace(b"hello", b"%d" % number) for number in range(4)]
    for number, content in enumerate(contents):
        write(tmp_path / "in" / f"{number}.eml", content)
    arguments = ("import", tmp_path / "in", "--archive", LEGAL, "--create")
    for count in itertools.count(1):
        if not run_killed(store, calls, count, *arguments):
            break
    assert count > 2
    assert originals(store) == sorted(contents)
    store.run("verify")
    assert "0, 4 were there already." in imported(store, tmp_path / "in")


def run_killed(store: SampleStore, name: str, count: int, *arguments: object) -> bool:
    """Run a command that is killed at a call of the system; False if it ended before.

    name is that of the function in posix, count the number of the call.
    """
    process = os.fork()
    if not process:
        calls = itertools.count(1)
        function = getattr(posix, name)

        def call(*values: object, **options: object) -> object:
            if next(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*values, **options)

        setattr(posix, name, call)
        try:
            store.run(*map(str, arguments))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def test_an_imported_message_waits_for_no_outcome_and_no_log(
    store: SampleStore, tmp_path: Path
) -> None:
    top = b"Delivered-To: b@example.net\r\n"
    top += b"Received: from x by y; Sun, 22 Nov 1998 12:53:00 +0100\r\n"
    imported(store, write(tmp_path / "x.eml", top + MESSAGE))
    with contextlib.closing(FollowerState(str(tmp_path / "host"))) as state:
        reader = CaptureReader(store.settings, state)
        assert reader.read_new() == set()
        assert not state.is_open(LEGAL, records(store)[0].archive_id)
    assert record_reader.last_arrival(str(store.path)) == 0
    key_time = (tmp_path / "host" / "archive.key").stat().st_mtime
    assert archive_lookup.archive_begin(store.settings) == key_time
    result = store.run("show", records(store)[0].archive_id)
    assert f"Imported:    file; {tmp_path}/x.eml" in result.output
