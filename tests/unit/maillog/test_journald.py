"""Claims about systemd's journal, read by a journalctl(1) that does what it is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.errors import LogUnreadable
from postfix_archive.maillog import log_line, log_reader
from postfix_archive.maillog.log_reader import Position, Reader

from unit.hosts import make_config

# What it is asked for goes to a file; followed, it goes on with what comes by a FIFO.
JOURNALCTL = """#!{python} -IS
import json, sys
with open("{directory}/asked", "a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
after = [int(a.partition("=s=")[2]) for a in sys.argv if a.startswith("--after-cursor")]
with open("{directory}/entries") as entries:
    for number, line in enumerate(entries, 1):
        if number > max([0, *after]):
            print(line, end="")
sys.stdout.flush()
if "--follow" in sys.argv:
    with open("{directory}/more") as more:
        for line in more:
            print(line, end="", flush=True)
    sys.exit("no more")
"""


def entry(number: int, message: object = None) -> str:
    fields = {
        "__CURSOR": f"s={number}",
        "__REALTIME_TIMESTAMP": str(1795348380_000000 + number),
        "_HOSTNAME": "mail",
        "SYSLOG_IDENTIFIER": "postfix/smtpd",
        "SYSLOG_PID": "7",
        "_PID": "8",
        "MESSAGE": message or f"4jZFG724PhzK5b4: client=c{number}[192.0.2.1]",
    }
    return json.dumps(fields) + "\n"


class Journal:
    """A directory with what the journal has and what was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        os.mkfifo(directory / "more")
        (directory / "asked").write_text("")
        script = directory / "bin" / "journalctl"
        script.parent.mkdir()
        script.write_text(JOURNALCTL.format(python=sys.executable, directory=directory))
        script.chmod(0o755)

    def write(self, *entries: str) -> None:
        (self.directory / "entries").write_text("".join(entries))

    @property
    def calls(self) -> list[list[str]]:
        lines = (self.directory / "asked").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    journald = Journal(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("postfix_archive.maillog.location.DEFAULT_PATHS", ())
    yield journald


def numbers(reader: Reader, limit: int = 9) -> list[int]:
    texts = [text for text, _ in reader.new_lines(limit)]
    return [int(text.partition("client=c")[2].partition("[")[0]) for text in texts]


def test_an_entry_is_a_line_as_syslogd_writes_it(journal: Journal) -> None:
    hostile = list(b"4jZFG724PhzK5b4: client=c2[192.0.2.1] \xff\n")
    journal.write(entry(1), entry(2, hostile), "torn\n")
    lines = list(log_reader.lines_since(make_config(), 1.0))
    assert [at for _, at in lines] == [1795348380.000001, 1795348380.000002]
    parsed = log_line.parse(lines[0][0])
    assert parsed is not None
    assert (parsed.service, parsed.daemon, parsed.pid) == ("postfix", "smtpd", "7")
    assert (parsed.host, parsed.queue_id) == ("mail", "4jZFG724PhzK5b4")
    assert parsed.text == "client=c1[192.0.2.1]"
    assert lines[1][0].endswith("\udcff\n")
    assert "--since=@1" in journal.calls[0]


def test_one_process_follows_and_gives_no_more_than_the_limit(journal: Journal) -> None:
    """At first what there is, then what comes; no process for each look."""
    journal.write(*map(entry, range(1, 6)))
    reader = Reader("", Position())
    assert numbers(reader, 2) == [1, 2]
    assert reader.position == Position(cursor="s=2")
    assert numbers(reader, 2) == [3, 4]
    assert numbers(reader, 2) == [5]
    assert numbers(reader) == []  # starts to follow
    with open(journal.directory / "more", "w") as fifo:
        fifo.write(entry(6) + entry(7) + entry(8)[:30])
        fifo.flush()
        received: list[int] = []
        while len(received) < 2:
            received += numbers(reader, 1)
        assert received == [6, 7]
        assert numbers(reader) == []
        fifo.write(entry(8)[30:])
        fifo.flush()
        while not (received := numbers(reader)):
            pass
        assert received == [8]
    reader.close()
    first, second = journal.calls
    assert "--follow" not in first
    assert {"--follow", "--no-tail", "--after-cursor=s=5"} < {*second}


def test_a_journal_that_is_no_longer_followed_is_an_error(journal: Journal) -> None:
    journal.write()
    reader = Reader("", Position())
    assert numbers(reader) == []
    assert numbers(reader) == []
    (journal.directory / "more").open("w").close()
    with pytest.raises(LogUnreadable, match="journalctl: no more"):
        while True:
            numbers(reader)
    reader.close()


def test_reading_that_began_in_the_journal_continues_there(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when syslogd(8) comes and makes a file; not when main.cf names one."""
    log = tmp_path / "mail.log"
    journal.write(entry(1), entry(2))
    first = Reader("", Position())
    assert numbers(first, 1) == [1]
    log.write_text("x client=c3[\nx client=c4[\n")
    monkeypatch.setattr(log_reader, "DEFAULT_PATHS", (str(log),))
    second = Reader(str(log), first.position)
    assert numbers(second) == [2]
    assert "--after-cursor=s=1" in journal.calls[1]
    monkeypatch.setattr(log_reader, "DEFAULT_PATHS", ())
    assert numbers(Reader(str(log), first.position)) == [3, 4]
    first.close()
    second.close()


def test_the_end_of_the_journal_is_read_with_a_limit(journal: Journal) -> None:
    journal.write(entry(1))
    assert len(list(log_reader.latest_lines(make_config(), 5.0))) == 1
    assert f"--lines={log_reader.LATEST_ENTRIES}" in journal.calls[0]


def test_without_journalctl_the_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LogUnreadable, match="set maillog_file"):
        list(Reader("", Position()).new_lines(9))
