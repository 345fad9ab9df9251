"""Claims about search, list and index as commands: what they print, how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.search import look_up, short_ids

import journal_lines
from unit.examples import HR, LEGAL
from unit.search import corpus, index_helpers
from unit.search.index_helpers import settings_of

MAILS = corpus.MAILS[:12]
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration directory whose store has some mails, without an index."""
    directory = tmp_path / "etc"
    directory.mkdir()
    store = tmp_path / "store"
    store.mkdir()
    (directory / "main.cf").write_text("myhostname = mail.example.com\n")
    (directory / "archive.cf").write_text(
        f"archive_store_directory = {store}\n"
        f"archive_index_directory = {store}-index\n"
        f"archive_fallback_directory = {tmp_path}\n"
    )
    for mail in MAILS:
        mail.store_in(store)
    return directory


@pytest.fixture
def indexed(config: Path) -> Path:
    index_helpers.catch_up(config.parent / "store")
    return config


@pytest.fixture
def two_years(config: Path) -> Path:
    """A configuration whose index has a mail of 2026, too."""
    corpus.MAILS[12].store_in(config.parent / "store")
    index_helpers.catch_up(config.parent / "store")
    return config


def command(config: Path, *arguments: str) -> list[str]:
    program = "from postfix_archive.cli.main import main; main()"
    return [sys.executable, "-c", program, "-c", str(config), *arguments]


def run(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, *arguments),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TZ": "UTC"},
    )


def run_on_terminal(
    config: Path, *arguments: str, columns: int = 100, exit_code: int = 0
) -> list[str]:
    """Run a command on a terminal; return its lines."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(config, *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TZ": "UTC", "COLUMNS": str(columns), "TERM": "xterm"},
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:  # EIO: the other side is closed
        pass
    os.close(ours)
    assert process.wait() == exit_code
    return output.decode().splitlines()


def names(text: str) -> list[str]:
    """The names of the mails whose ids begin lines."""
    return [corpus.BY_ID[line.split()[0]].name for line in text.splitlines()]


def test_a_pipe_gets_a_line_for_each_message(indexed: Path) -> None:
    process = run(indexed, "search", "contract")
    assert (process.returncode, process.stderr) == (0, "")
    assert names(process.stdout) == ["contract-re", "contract"]
    fields = process.stdout.splitlines()[1].split("\t")
    sender = "anna.meier@example.org"
    assert fields[1:] == ["2025-12-20 09:00", LEGAL, sender, "1", "The contract"]


def test_a_table_marks_what_is_held(indexed: Path) -> None:
    found = run(indexed, "search", "--ids", "contract").stdout.split()
    run(indexed, "hold", "add", "x", "--ids", found[0], "--reason", "suit")
    for command_line in (["search", "contract"], ["list"]):
        lines = run_on_terminal(indexed, *command_line)
        [marked] = [line for line in lines if "[held] " in ESCAPES.sub("", line)]
        assert "Re: " in marked


def test_ids_count_and_json(indexed: Path) -> None:
    assert names(run(indexed, "search", "--ids", "contract").stdout) == [
        "contract-re",
        "contract",
    ]
    assert run(indexed, "search", "--count", "contract").stdout == "2\n"
    first, _ = run(indexed, "search", "--json", "contract").stdout.splitlines()
    assert json.loads(first)["subject"] == "Re: The contract"
    assert run(indexed, "search", "--count", "nothing-like-this").stdout == "0\n"


def test_pages_name_the_next_one(indexed: Path) -> None:
    found, after = [], ""
    while True:
        process = run(indexed, "search", "--limit=5", f"--after={after}", "*")
        found += names(process.stdout)
        if not process.stderr:
            break
        after = process.stderr.strip().rpartition("--after=")[2]
    assert found == [each.name for each in reversed(MAILS)]
    whole = run(indexed, "search", "--all", "--sort=oldest", "*")
    assert names(whole.stdout) == found[::-1]
    assert run(indexed, "search", "--after=x", "*").returncode == 2


def test_an_error_is_marked(indexed: Path) -> None:
    process = run(indexed, "search", "東京 colour:red")
    assert (process.returncode, process.stdout) == (2, "")
    reason, query, mark = process.stderr.splitlines()
    assert "no field colour" in reason
    assert query == "  東京 colour:red"
    assert mark == " " * 7 + "^"  # the two ideographs have two columns each


@pytest.mark.parametrize(
    "query", ['"half', "(", "a AND", "date:x", "\x1b[2J\x07:x", "-"]
)
def test_no_query_gets_a_traceback(indexed: Path, query: str) -> None:
    process = run(indexed, "search", "--", query)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert "\x1b" not in process.stderr


@pytest.mark.parametrize("number", [10**9 + 1, sys.maxsize, 10**20])
def test_a_number_of_messages_has_a_limit(indexed: Path, number: int) -> None:
    for arguments in (
        ("search", f"--limit={number}", "x"),
        ("list", f"--last={number}"),
    ):
        process = run(indexed, *arguments)
        assert (process.returncode, process.stdout) == (2, "")
        assert "1<=x<=1000000000" in process.stderr
    assert run(indexed, "search", f"--limit={10**9}", "--ids", "contract").stdout
    assert run(indexed, "list", f"--last={10**9}").stdout


def test_without_an_index_search_says_how_to_make_one(config: Path) -> None:
    process = run(config, "search", "contract")
    assert (process.returncode, process.stdout) == (1, "")
    assert "postfix-archive index" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    made = run(config, "index")
    assert made.stdout == f"{LEGAL}: {len(MAILS)} messages added to the index\n"
    assert run(config, "index", "--once").stdout == ""
    assert names(run(config, "search", "--ids", "invoice").stdout) == [
        "invoice",
        "contract-re",
    ]
    assert run(config, "index", "--rebuild").stdout == made.stdout


@pytest.mark.parametrize("form", ["--ids", "--count"])
def test_a_year_that_is_not_searched_is_a_failure(two_years: Path, form: str) -> None:
    complete = run(two_years, "search", form, "*").stdout
    (two_years.parent / "store-index" / LEGAL / "2026.db").unlink()
    process = run(two_years, "search", form, "*")
    assert process.returncode == 1
    assert f"{LEGAL}, 2026: not searched" in process.stderr
    assert process.stdout not in ("", complete)
    run(two_years, "index")
    process = run(two_years, "search", form, "*")
    assert (process.returncode, process.stdout) == (0, complete)


def test_an_archive_that_is_not_searched_is_a_failure(indexed: Path) -> None:
    (indexed.parent / "store" / HR / "journal").mkdir(parents=True)
    process = run(indexed, "search", "--ids", "contract")
    assert process.returncode == 1
    assert f"{HR} has no index" in process.stderr
    assert names(process.stdout) == ["contract-re", "contract"]


def test_a_table_shows_what_a_damaged_index_leaves(two_years: Path) -> None:
    path = two_years.parent / "store-index" / LEGAL / "2026.db"
    path.write_bytes(b"\xff" * path.stat().st_size)
    lines = run_on_terminal(two_years, "search", "*", exit_code=1)
    assert any("The contract" in ESCAPES.sub("", each) for each in lines)
    assert "2026: not searched" in "".join(lines)


def test_a_terminal_gets_a_table_with_the_words_marked(indexed: Path) -> None:
    lines = run_on_terminal(indexed, "search", "contract")
    plain = [ESCAPES.sub("", each) for each in lines]
    assert plain[0].split() == ["Id", "Arrived", "From", "To", "Subject"]
    assert plain[3].split()[:3] == ["20251220-d61c", "2025-12-20", "09:00"]
    assert "The contract" in plain[3]
    assert "Please sign the contract" in plain[4]
    assert re.search("\x1b\\[[0-9;]*m?contract\x1b", lines[4])
    assert max(map(len, plain)) <= 100


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_a_table_fits_the_terminal(indexed: Path, columns: int) -> None:
    for line in run_on_terminal(indexed, "search", "*", columns=columns):
        assert len(ESCAPES.sub("", line)) <= columns


def test_a_list_is_a_table_on_a_terminal_and_lines_elsewhere(config: Path) -> None:
    lines = run(config, "list").stdout.splitlines()
    assert [each.split()[0] for each in lines] == [each.archive_id for each in MAILS]
    for _ in range(2):  # without and with an index
        table = [ESCAPES.sub("", each) for each in run_on_terminal(config, "list")]
        assert len(table) == len(MAILS) + 1
        for row, mail in zip(table[1:], MAILS):
            assert mail.archive_id.startswith(row.split()[0])
            assert mail.subject[:10] in row
        index_helpers.catch_up(config.parent / "store")
    long = run_on_terminal(config, "list", "--long")
    assert long[0].startswith(MAILS[0].archive_id)


def test_list_last_is_the_same_with_and_without_an_index(config: Path) -> None:
    arguments = (
        ("--last", "3"),
        ("--last", "3", "--json"),
        ("--last", "3", "--until", "2025-12-27"),
        ("--last", "3", "--since", "2025-12-30"),
        ("--last", "100", "--archive", LEGAL),
    )
    before = [run(config, "list", *each).stdout for each in arguments]
    index_helpers.catch_up(config.parent / "store")
    assert [run(config, "list", *each).stdout for each in arguments] == before
    store = config.parent / "store"
    later = corpus.MAILS[20]
    later.store_in(store)  # is not in the index
    corpus.supplement(later, "x@example.com").store_in(store)
    assert names(run(config, "list", "--last", "2").stdout.split("    ")[0]) == [
        MAILS[-1].name,
        later.name,
    ]


IDS: dict[str, Callable[[corpus.Mail], str]] = {
    "prefix": lambda mail: mail.archive_id[:20],
    "queue id": lambda mail: mail.queue_id,
    "later queue id": lambda mail: f"4Zr{mail.number:02d}Requeued",
    "Message-ID": lambda mail: mail.message_id,
    "Message-ID in brackets": lambda mail: f"<{mail.message_id}>",
    "SHA-256": lambda mail: corpus.sha256_of(mail)[:12],
}


@pytest.mark.parametrize("has_index", [False, True])
@pytest.mark.parametrize("kind", IDS)
def test_any_id_finds_the_record(config: Path, kind: str, has_index: bool) -> None:
    store = config.parent / "store"
    if has_index:
        index_helpers.catch_up(store)
    later = corpus.MAILS[58]  # is never in the index
    later.store_in(store)
    for mail in (MAILS[0], MAILS[3], later):
        place = look_up.find(settings_of(store), IDS[kind](mail))
        assert place.archive_id == mail.archive_id
        record = look_up.record_of(settings_of(store), place)
        assert len(record.events) == 1 + len(mail.outcomes)


@pytest.mark.parametrize("has_index", [False, True])
def test_an_ambiguous_or_unknown_id_is_one_line(config: Path, has_index: bool) -> None:
    if has_index:
        index_helpers.catch_up(config.parent / "store")
    for text, part in (("2025", "matches more than 5"), ("nope", "no record nope")):
        process = run(config, "show", text)
        assert process.returncode == 1
        assert part in process.stderr
        assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["search *", "list", "show 2025", "history"])
def test_an_unknown_archive_is_named_with_those_there_are(
    indexed: Path, command: str
) -> None:
    corpus.MAILS[15].store_in(indexed.parent / "store")
    name, *arguments = command.split()
    process = run(indexed, name, "--archive", "none@example.com", *arguments)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert f"has no archive none@example.com; it has {HR}, {LEGAL}" in line


@pytest.mark.parametrize("command", ["show", "history"])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_id_is_one_line(indexed: Path, command: str, text: str) -> None:
    process = run(indexed, command, text)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert "the id is empty" in line


def test_short_ids_are_unique(indexed: Path) -> None:
    settings = settings_of(indexed.parent / "store")
    ids = [each.archive_id for each in MAILS]
    shortened = short_ids.shorten(settings, ids)
    assert len({*shortened.values()}) == len(ids)
    assert all(each.startswith(short) for each, short in shortened.items())


@pytest.fixture
def follower(config: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(config, "index", "--follow"), stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def wait_for(store: Path, name: str) -> None:
    """Return when a mail is found; the test's own time limit ends the waiting."""
    while True:
        try:
            if name in index_helpers.names_found(store, "archive:legal*"):
                return
        except Exception:
            pass
        time.sleep(0.05)


def test_a_service_indexes_what_comes(
    config: Path, follower: subprocess.Popen[str]
) -> None:
    store = config.parent / "store"
    wait_for(store, MAILS[-1].name)
    corpus.MAILS[20].store_in(store)
    wait_for(store, corpus.MAILS[20].name)
    # Deleted under it, the index is built again.
    subprocess.run(["rm", "-rf", f"{store}-index/{LEGAL}"], check=True)
    corpus.MAILS[21].store_in(store)
    wait_for(store, corpus.MAILS[0].name)
    wait_for(store, corpus.MAILS[21].name)
    second = run(config, "index")
    assert (second.returncode, second.stderr) == (0, "")
    assert "already running" in second.stdout
    assert run(config, "index", "--rebuild").returncode == 1
    follower.send_signal(signal.SIGTERM)
    assert follower.wait() == 0
    assert (config.parent / "indexed").exists()


def test_a_killed_service_leaves_no_lock_and_no_child(
    config: Path, follower: subprocess.Popen[str]
) -> None:
    wait_for(config.parent / "store", MAILS[-1].name)
    follower.kill()
    follower.wait()
    assert run(config, "index").returncode == 0


def test_with_an_index_a_look_up_reads_only_its_own_lines(
    indexed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = indexed.parent / "store"
    path = journal_lines.segments(store / LEGAL)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    foreign = [b"x" * (len(each) - 1) + b"\n" for each in lines[:5]]
    path.write_bytes(b"".join([*foreign, *lines[5:]]))
    last = MAILS[-1]
    process = run(indexed, "list", "--last", "1")
    assert (process.returncode, names(process.stdout)) == (0, [last.name])
    assert last.subject in run(indexed, "show", last.archive_id[:14]).stdout
    shutil.rmtree(f"{store}-index")
    count = sum(b'"event":"archived"' in each for each in lines[5:])
    for options in ([], ["--last", "100"], ["--json"]):
        process = run(indexed, "list", *options)
        assert process.returncode == 1
        assert len(process.stdout.splitlines()) == count
        [warning] = process.stderr.splitlines()
        assert "journal, line 1: not a journal line, and 4 more; passed over" in warning
    assert last.subject in run(indexed, "show", last.archive_id[:14]).stdout
    target = str(tmp_path_factory.mktemp("export") / "mails")
    exported = run(indexed, "export", "--format", "eml", target)
    assert (exported.returncode, exported.stderr.count("not a journal line")) == (1, 1)
    assert f": {count}" in exported.stdout


def test_a_missing_library_is_one_line(indexed: Path) -> None:
    program = (
        "import sys; sys.modules['luqum'] = None;"
        " from postfix_archive.cli.main import main; main()"
    )
    arguments = [sys.executable, "-c", program, "-c", str(indexed), "search", "x"]
    process = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert "luqum" in line and "make install" in line
