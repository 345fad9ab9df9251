"""A group that reads the archive: reads all, writes nothing, and is recorded."""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from postfix_archive.access import access_service
from postfix_archive.cli import listing, search
from postfix_archive.cli.main import main
from postfix_archive.store import verifier

from mails import LEGAL, mail
from private_postfix import PrivatePostfix
from unprivileged import as_member

pytestmark = pytest.mark.live
READER = "news"  # of Debian
GROUP = "games"

# Imported before a reader, who may not be able to read the checkout, runs them.
COMMANDS = {each.name: each for each in (listing.list_, search.search_)}

WRITES: dict[str, Callable[[Path], object]] = {
    "a file in the store": lambda store: (store / "x").write_text("x"),
    "a file in the archive": lambda store: (store / LEGAL / "x").write_text("x"),
    "a copy": lambda store: _copy(store).unlink(),
    "a copy's mode": lambda store: _copy(store).chmod(0o666),
    "the journal": lambda store: open(_segment(store), "ab"),
    "the access journal": lambda store: open(_segment(store, "access"), "ab"),
    "the end of the journal": lambda store: open(store / LEGAL / "journal.last", "ab"),
    "the lock": lambda store: open(store / LEGAL / "journal.lock", "rb"),
}


def send(postfix: PrivatePostfix, name: str) -> None:
    """Send a message and wait until it is archived."""
    postfix.send(mail(name))
    postfix.wait_for_empty_queue()


def _copy(store: Path) -> Path:
    return next((store / LEGAL).rglob("*.eml.gz"))


def _segment(store: Path, name: str = "journal") -> Path:
    return next((store / LEGAL / name).glob("????-??"))


@pytest.fixture(scope="module")
def shared() -> Iterator[PrivatePostfix]:
    """A host with one message before and one after the group was given access."""
    with PrivatePostfix(archive_cf={"archive_reader_group": GROUP}) as postfix:
        postfix.set_archive_cf(archive_access_socket=f"{postfix.directory}/run/access")
        postfix.directory.chmod(0o755)
        send(postfix, "before")
        process = postfix.run_command("readers")
        assert f"group {GROUP} can read it" in process.stdout
        send(postfix, "after")
        yield postfix


@pytest.fixture
def service(shared: PrivatePostfix) -> Iterator[PrivatePostfix]:
    """The same with the access service running."""
    process = shared.start_command("access-service")
    while not access_service.is_running(f"{shared.directory}/run/access"):
        assert process.poll() is None
    yield shared
    process.terminate()
    process.wait()


def as_reader(function: Callable[[], object]) -> str:
    """Call a function as a member of the group; return the error, "" if none."""
    return as_member(READER, GROUP, function)


def run_as_reader(postfix: PrivatePostfix, *arguments: str) -> tuple[str, int]:
    """Run postfix-archive as a member of the group; return its output and exit code."""
    command = ["-c", str(postfix.etc), *arguments]

    def run() -> None:
        result = CliRunner().invoke(main, command)
        raise AssertionError(f"{result.exit_code} {result.output}")

    code, _, output = as_reader(run).partition(" ")
    return output, int(code)


def test_a_reader_reads_all_and_is_recorded(service: PrivatePostfix) -> None:
    """Old messages and new ones; the kernel says who it is."""
    output, code = run_as_reader(service, "list", "--json", "--reason", "audit")
    assert (code, output.count('"archive"')) == (0, 2)
    lines = service.run_command("history", "--user", READER, "--json").stdout
    [entry] = map(json.loads, lines.splitlines())
    assert (entry["action"], entry["reason"]) == ("list", "audit")
    assert entry["uid"] == pwd.getpwnam(READER).pw_uid
    assert len(entry["ids"]) == 2
    assert service.run_command("verify").returncode == 0


def test_a_reader_searches(service: PrivatePostfix) -> None:
    """In the index that the archive's user keeps; with and without its writer."""
    assert service.run_command("index", "--once").returncode == 0
    output, code = run_as_reader(service, "search", "--json", "subject:after")
    assert (code, output.count('"archive"')) == (0, 1), output
    lines = service.run_command("history", "--json").stdout.splitlines()
    searches = [each for each in map(json.loads, lines) if each["action"] == "search"]
    assert [each["query"] for each in searches] == ["subject:after"]
    assert [len(each["ids"]) for each in searches] == [1]


def test_a_reader_is_shown_nothing_while_nobody_records(shared: PrivatePostfix) -> None:
    """The service does not run: one line says what to do."""
    output, code = run_as_reader(shared, "list", "--json")
    assert code == 1, output
    assert "access-service" in output
    assert '"archive"' not in output


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_reader_writes_nothing(
    service: PrivatePostfix, write: Callable[[Path], object]
) -> None:
    """Refused by the system."""
    service.run_command("list")  # so that there is an access journal
    store = service.store
    assert as_reader(lambda: _copy(store).read_bytes()) == ""
    assert "Permission denied" in as_reader(lambda: write(store)) or (
        "not permitted" in as_reader(lambda: write(store))
    )


def test_reading_goes_on_where_the_store_takes_no_entry(shared: PrivatePostfix) -> None:
    """It is in Postfix's log then; a file stands where the access journal should be."""
    path = shared.store / LEGAL / "access"
    path.rename(path.with_name("kept"))
    path.write_text("no journal\n")
    try:
        process = shared.run_command("list", "--json", "--reason", "full disk")
    finally:
        path.unlink()
        path.with_name("kept").rename(path)
    assert process.returncode == 0
    assert process.stdout.count('"archive"') == 2
    assert "recorded in Postfix's log only" in process.stderr
    shared.wait(lambda: "alarm=access-unrecorded" in shared.log(), "the alarm")
    lines = shared.log().splitlines()
    [line] = [each for each in lines if "alarm=access-unrecorded" in each]
    assert "full disk" in line


def test_readers_takes_the_access_away(shared: PrivatePostfix) -> None:
    """With an empty group, as before; and given again."""
    shared.set_archive_cf(archive_reader_group="")
    assert "only its owner" in shared.run_command("readers").stdout
    assert "Permission denied" in as_reader(lambda: list(shared.store.iterdir()))
    modes = {each.stat().st_mode & 0o077 for each in shared.store.rglob("*")}
    assert modes == {0}
    shared.set_archive_cf(archive_reader_group=GROUP)
    assert shared.run_command("readers").returncode == 0
    assert not verifier.verify_archive(str(shared.store / LEGAL)).error_count
