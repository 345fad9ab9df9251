"""Who may read and write what: modes, links that lead astray, secrets.

Store and fallback directory are closed to everybody but the archive's own user, so
only that user, or somebody with its rights, can plant the links of this file. What
must hold even then: no mail counts as archived that is not, nothing outside is written
or read, and root's commands cannot be led astray.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.store import fallback

import journal_lines
from mails import (
    LEGAL,
    archives_of,
    deliveries,
    event_kinds,
    mail,
    one_delivery,
    read_capsule,
    record_of,
)
from private_postfix import GROUP, KEY, USER, PrivatePostfix

pytestmark = pytest.mark.live

OUTSIDE_CONTENT = "outside-" + "5a" * 16
SECRET = KEY.split()[1]
UMASK_LAUNCHER = '#!/bin/sh\numask 0\nexec {program} "$@"\n'


def waiting(postfix: PrivatePostfix) -> int:
    return len(fallback.waiting_capsules(str(postfix.fallback)))


def with_umask_0(text: str) -> str:
    """Put a script before each program, that opens what it makes to everybody."""
    for program in re.findall(r"argv=(\S+/lib/archive(?:-stamp)?)\n", text):
        script = Path(program).parent.parent / "open" / Path(program).name
        script.parent.mkdir(exist_ok=True)
        script.write_text(UMASK_LAUNCHER.format(program=program))
        script.chmod(0o755)
        text = text.replace(f"argv={program}\n", f"argv={script}\n")
    return text


@contextlib.contextmanager
def umask_0() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


# --- modes --------------------------------------------------------------------------


def test_with_umask_0_nobody_else_may_read_anything() -> None:
    with PrivatePostfix(edit_master=with_umask_0) as postfix:
        assert "/open/archive-stamp" in (postfix.etc / "master.cf").read_text()
        postfix.send(mail("open"))
        postfix.wait_for_empty_queue()
        drafts = postfix.store / LEGAL / "drafts"
        drafts.chmod(0o500)
        postfix.send(mail("waiting"))
        postfix.wait_for_empty_queue()
        [capsule] = postfix.fallback.glob("*.capsule")
        mode_by_path = modes(postfix)
        drafts.chmod(0o700)
        with umask_0():
            assert postfix.run_command("queue", "rescue").returncode == 0
            assert postfix.run_command("fallback", "import").returncode == 0
            assert postfix.run_command("bypass", "on", "--reason", "x").returncode == 0
            assert postfix.run_command("bypass", "off").returncode == 0
        mode_by_path |= modes(postfix)
    names = {path.name for path in mode_by_path}
    assert names >= {capsule.name, "why", "rescued", "lock", "store-seen", "drafts"}
    assert names >= {"journal", "journal.last", LEGAL}
    assert sum(name.endswith(".eml.gz") for name in names) == 2
    open_to_others = {
        str(path): oct(mode) for path, mode in mode_by_path.items() if mode & 0o077
    }
    assert open_to_others == {}


def modes(postfix: PrivatePostfix) -> dict[Path, int]:
    """The modes of all in store and fallback directory, which is one user's."""
    mode_by_path = {}
    for directory in (postfix.store, postfix.fallback):
        for path in (directory, *directory.rglob("*")):
            assert path.owner() == USER
            mode_by_path[path] = path.lstat().st_mode & 0o777
    return mode_by_path


# --- links --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Iterator[PrivatePostfix]:
    with PrivatePostfix(archive_cf={"archive_delivery": "store"}) as postfix:
        postfix.send(mail("first"))
        postfix.wait_for_empty_queue()
        yield postfix


@pytest.fixture
def outside_directory(host: PrivatePostfix) -> Iterator[Path]:
    """A directory with a file of root's, which the archive's user may write to.

    So nothing but the refusal keeps it as it is; it must be so at the end.
    """
    directory = host.directory / "outside"
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    (directory / "file").write_text(OUTSIDE_CONTENT + "\n")
    (directory / "file").chmod(0o666)
    yield directory
    files = [(path.name, path.read_text()) for path in directory.iterdir()]
    shutil.rmtree(directory)
    assert files == [("file", OUTSIDE_CONTENT + "\n")]


@contextlib.contextmanager
def planted_link(path: Path, target: Path, link: Callable[..., None]) -> Iterator[None]:
    """Put a link in the place of what is there, and that back at the end."""
    moved = path.with_name(f"{path.name}.aside")
    if path.exists():
        path.rename(moved)
    link(target, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if moved.exists():
            moved.rename(path)


def day_directories(host: PrivatePostfix) -> list[Path]:
    """The directories of this archive's year, month and day."""
    [day] = {path.parent for path in host.stored_files(LEGAL)}
    return [day.parent.parent, day.parent, day]


@pytest.mark.parametrize(
    "link_name", ["drafts", "year", "month", "day", "journal", "hard"]
)
def test_a_copy_whose_path_has_a_link_goes_into_the_fallback(
    host: PrivatePostfix, outside_directory: Path, link_name: str
) -> None:
    archive = host.store / LEGAL
    directories = dict(zip(("year", "month", "day"), day_directories(host)))
    directories |= {
        "journal": archive / "journal",
        "hard": journal_lines.segment(archive),
    }
    path = directories.get(link_name, archive / link_name)
    target = outside_directory if path.is_dir() else outside_directory / "file"
    with planted_link(path, target, os.link if link_name == "hard" else os.symlink):
        host.send(mail(f"astray-{link_name}"))
        host.wait_for_empty_queue()
        assert waiting(host) == 1
    one_delivery(host, f"astray-{link_name}", "bob@example.net")
    assert str(path) in fallback.last_reason(str(host.fallback))
    assert host.run_command("fallback", "import").returncode == 0
    assert archives_of(host, f"astray-{link_name}") == [LEGAL]


@pytest.mark.parametrize("target", ["outside/file", "copy", "nowhere"])
def test_a_record_whose_file_is_a_link_takes_no_supplement(
    host: PrivatePostfix, outside_directory: Path, target: str
) -> None:
    """Or mail would pass for archived whose only copy is somewhere else."""
    record = record_of(host, "first")
    passed_on = deliveries(host, "first", "bob@example.net")[0].content
    path = host.store / LEGAL / record.files[0]
    shutil.copy(path, host.directory / "copy")
    with planted_link(path, host.directory / target, os.symlink):
        host.send(passed_on, to=["erin@example.net"])
        host.wait_for_empty_queue()
        assert waiting(host) == 1
        assert f"{path}: not a regular file" in fallback.last_reason(str(host.fallback))
    before = event_kinds(record).count("supplement")
    assert host.run_command("fallback", "import").returncode == 0
    assert event_kinds(record_of(host, "first")).count("supplement") == before + 1


def test_where_the_fallback_has_a_link_too_the_copy_waits_in_the_queue(
    host: PrivatePostfix, outside_directory: Path
) -> None:
    drafts = host.fallback / "drafts"
    broken = host.store / LEGAL / "drafts"
    with planted_link(drafts, outside_directory, os.symlink), planted_link(
        broken, outside_directory, os.symlink
    ):
        host.send(mail("both"))
        reason = f"=StoreFailed reason={broken}: not a directory.* fallback directory: "
        host.wait(lambda: re.search(reason, host.last_failure()), "it has failed")
        host.wait(lambda: len(host.mailq()) == 1, "the copy alone waits")
        assert not archives_of(host, "both") and not waiting(host)
    host.flush()
    host.wait_for_empty_queue()
    assert archives_of(host, "both") == [LEGAL]


COMMANDS = (
    ("list",),
    ("index",),
    ("search", "*"),
    ("status",),
    ("status", "--write"),
    ("verify",),
    ("reconcile",),
    ("outcomes", "--once"),
    ("fallback", "import"),
    ("queue", "rescue"),
    ("doctor",),
    ("show", "--raw"),
    ("show", "--original"),
    ("bypass", "on", "--reason", "links"),
    ("bypass", "off"),
)
# Two lots: without a journal there is nothing to be led astray by the rest.
PATHS_BY_LOT = {
    "journal": ("{archive}/journal", "{fallback}/why", "{fallback}/x.capsule"),
    "segment": ("{segment}",),
    "rest": (
        "{archive}/journal.last",
        "{archive}/journal.last.draft",
        "{archive}/{copy}",
        "{fallback}/why",
        "{fallback}/rescued",
        "{fallback}/tallies",
        "{fallback}/journal-ends",
        "{fallback}/mailing",
        "{fallback}/outcomes.lock",
        "{fallback}/outcomes.sqlite",
        "{fallback}/outcomes.sqlite-journal",
        "{fallback}/reconciled",
        "{fallback}/followed",
        "{fallback}/lock",
        "{fallback}/store-seen",
    ),
}


@pytest.fixture
def root_file(host: PrivatePostfix) -> Iterator[Path]:
    """A file that only root may read or write; it must be as it was at the end."""
    path = host.directory / "of-root"
    path.write_text(OUTSIDE_CONTENT + "\n")
    path.chmod(0o600)
    os.utime(path, (1, 1))
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_text() == OUTSIDE_CONTENT + "\n"
    assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, 0, 1)
    path.unlink()


@pytest.mark.parametrize("kind", ["symlink", "pipe"])
@pytest.mark.parametrize("paths_key", PATHS_BY_LOT)
def test_commands_of_root_follow_no_link_and_wait_for_no_fifo(
    host: PrivatePostfix, root_file: Path, paths_key: str, kind: str
) -> None:
    record = record_of(host, "first")
    link = (
        os.symlink if kind == "symlink" else lambda _, fifo_path: os.mkfifo(fifo_path)
    )
    waits = host.fallback / "y.capsule"  # so that there is something to return
    waits.write_text("no capsule\n")
    shutil.chown(waits, USER, GROUP)
    with contextlib.ExitStack() as stack:
        for fifo_path in PATHS_BY_LOT[paths_key]:
            path = fifo_path.format(
                archive=host.store / LEGAL,
                fallback=host.fallback,
                copy=record.files[0],
                segment=journal_lines.segment(host.store / LEGAL),
            )
            stack.enter_context(planted_link(Path(path), root_file, link))
        for command in COMMANDS:
            record_argument = (record.archive_id,) if command[0] == "show" else ()
            process = host.run_command(*command, *record_argument)
            assert OUTSIDE_CONTENT not in process.stdout + process.stderr
    waits.unlink()
    host.run_command("bypass", "off")


@pytest.mark.parametrize("is_hidden_by_link", [False, True])
def test_doctor_fix_gives_nothing_away_through_a_link(
    host: PrivatePostfix, root_file: Path, is_hidden_by_link: bool
) -> None:
    """``ln -s /etc <store>/x@example.com``, and root runs doctor --fix."""
    directory = host.directory / "directory-of-root"
    directory.mkdir(mode=0o755)
    target = directory
    if is_hidden_by_link:
        target = host.store / "step"
        target.symlink_to(directory)
    with planted_link(host.store / "x@example.com", target, os.symlink):
        process = host.run_command("doctor", "--fix")
        assert "store-owner" in process.stdout
        assert f"chown {USER} {host.store}/x@" not in process.stdout + process.stderr
        status = directory.stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o755)
    if is_hidden_by_link:
        target.unlink()
    archive = host.store / "x@example.com"
    archive.mkdir(mode=0o755)  # restored from a backup as root, for example
    process = host.run_command("doctor", "--fix")
    assert f"store-owner: chown {USER} {archive}" in process.stderr
    assert archive.stat().st_uid == pwd.getpwnam(USER).pw_uid
    archive.rmdir()
    directory.rmdir()


# --- secrets ------------------------------------------------------------------------


class CommandLineWatch:
    """Collects the command lines of an instance's processes while it is open."""

    def __init__(self, postfix: PrivatePostfix) -> None:
        self._program_directory = str(postfix.directory).encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self.command_lines: set[bytes] = set()

    def __enter__(self) -> CommandLineWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.is_set():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if self._program_directory in line:
                        self.command_lines.add(line)


def test_no_secret_and_no_content_is_in_the_log_in_ps_or_in_a_complaint() -> None:
    content = "content-" + "7c" * 16
    outputs: list[str] = []
    with PrivatePostfix() as postfix:
        message = f"Subject: {content}\nX-Name: {content}\n\nThis is {content}.\n"
        large = message.encode() + content.encode() * 110_000 + b"\n"
        postfix.postconf(defer_transports="archive")
        postfix.reload()
        with CommandLineWatch(postfix) as watch:
            postfix.send(large)
            postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "delivery")
            capsule, *secrets = secrets_of(postfix)
            postfix.postconf(defer_transports="")
            postfix.reload()
            postfix.flush()
            postfix.wait_for_empty_queue()
            for process in broken_runs(postfix, message.encode(), capsule):
                outputs += [process.stdout, process.stderr]
        programs = {
            line.split(b"\0")[2].rpartition(b"/")[2] for line in watch.command_lines
        }
        assert {b"archive-stamp", b"archive"} <= programs
        texts = [postfix.log(), postfix.last_failure(), *outputs]
        texts += [line.decode("utf-8", "replace") for line in watch.command_lines]
        assert "temporary failure" in postfix.log()
        assert "ERROR: " in "".join(outputs) and "RecordDamaged" in "".join(outputs)
    for secret in (content, *secrets):
        assert not [text for text in texts if secret in text]


def secrets_of(postfix: PrivatePostfix) -> list[str]:
    """The capsule that waits; the key, the capsule's seal, the proof in a stamp."""
    [waits] = [str(each["queue_id"]) for each in postfix.mailq()]
    capsule = read_capsule(postfix, waits)
    seal = re.search(rb"Archive-Seal: k=test; h=([0-9a-f]{64})", capsule)
    [delivery] = postfix.delivered_to("bob@example.net")
    proof = re.search(rb"\th=(\S{40,})\n", delivery.content)
    assert seal and proof
    return [capsule.decode(), SECRET, seal[1].decode(), proof[1].decode()]


def broken_runs(
    postfix: PrivatePostfix, message: bytes, capsule: str
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Commands and transports that fail, on damage and on wrong keys."""
    key = postfix.etc / "archive.key"
    record = next(iter(record_ids(postfix)))
    [path] = postfix.stored_files(LEGAL)
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[: len(content) // 2])
    yield postfix.run_command("verify")
    process = postfix.run_command("show", record)
    process.stdout = re.sub(r"(?m)^Subject:.*$", "", process.stdout)  # it is asked for
    cut_off = postfix.run_command("show", "--original", record)
    cut_off.stdout = ""  # the original, as far as there is one
    yield from (process, cut_off)
    path.write_bytes(content)
    path.chmod(0o400)
    (postfix.etc / "access.in").write_text(f"x@example.net ARCHIVE {LEGAL}\n")
    postfix.set_archive_cf(archive_tables=f"texthash:{postfix.etc}/access.in")
    for wrong in (f"test {SECRET[:-2]}xx\n", f"test test {SECRET}\n", SECRET * 2):
        key.write_text(wrong)
        yield postfix.run_command("tables")
        yield postfix.run_command("key", "rotate")
        (postfix.fallback / "x.capsule").write_bytes(message)
        yield postfix.run_command("fallback", "import")
        assert not (postfix.etc / "access").exists()
    postfix.send(message)
    reason = postfix.wait_for_failure("error=KeyUnreadable")
    yield subprocess.CompletedProcess([], 0, reason, "")
    key.write_text(f"other {'11' * 32}\n")
    port = postfix.ports[2]
    postfix.send(
        capsule.encode(), sender="", to=["capsule@archive-request.invalid"], port=port
    )
    reason = postfix.wait_for_failure("error=SealInvalid")
    yield subprocess.CompletedProcess([], 0, reason, "")
    key.write_text(f"{KEY}other {'11' * 32}\n")  # some mail has met that one meanwhile
    postfix.flush()
    postfix.wait_for_empty_queue()


def record_ids(postfix: PrivatePostfix) -> list[str]:
    return [str(each["id"]) for each in postfix.events() if each["event"] == "archived"]
