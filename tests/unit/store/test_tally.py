"""Claims about the tally: it is what the journal tells, however often it was counted.

A tally that was kept, went on, was deleted, damaged or did not fit is compared with one
that is counted from the first line on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from postfix_archive.message import stamp
from postfix_archive.store import journal, record_reader, tally, tally_cache
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.outcome import Outcome
from postfix_archive.store.tally import Tally

import journal_lines
from unit import examples
from unit.examples import HR, LEGAL
from unit.store.test_archive import Capture

TIME = "2026-11-22T11:53:00Z"
BOB = "bob@example.com"
QUEUE_ID = "4Zx1Yk2Pp7z9Qw"


def archive_id(number: int) -> str:
    return f"20261122-{number:040x}"


def make_outcome(
    kind: str, number: int = 1, recipient: str = BOB, **fields: Any
) -> Outcome:
    """An outcome of the capture of that number."""
    defaults = {"queue_id": "4Zx1Yk2Pp7z9Qx", "time": TIME, **fields}
    return Outcome(recipient, kind, capture_queue_id=f"{QUEUE_ID}{number}", **defaults)


class TalliedStore:
    """A store with one archive, and the directory where tallies are kept."""

    def __init__(self, directory: Path) -> None:
        self.store = directory / "store"
        self.fallback = directory / "fallback"
        self.journal = journal_lines.segment(self.store / LEGAL)
        self.cache_path = self.fallback / tally_cache.CACHE_FILE
        self.fallback.mkdir()
        self.store.mkdir()

    def add_archived(self, number: int, *recipients: bytes, **fields: Any) -> None:
        Capture(*recipients, archive_id=archive_id(number), **fields).store_in(
            self.store
        )

    def add_event(self, event: str, **fields: str | int) -> None:
        with journal.Journal(str(self.store / LEGAL)) as events:
            events.append(event, TIME, **fields)

    def add_outcome(self, given: Outcome, number: int = 1) -> None:
        self.add_event(journal.OUTCOME, id=archive_id(number), **given.event_fields())

    def tally(self) -> Tally:
        tallies, errors = tally_cache.current_tallies(
            str(self.store), [LEGAL], str(self.fallback)
        )
        assert not errors
        return tallies[LEGAL]

    def count_anew(self) -> Tally:
        return tally_cache._count_new_lines(str(self.store / LEGAL), None)

    def is_correct(self) -> bool:
        """What is told is what stands in the journal, and it is told twice."""
        tallies = [
            self.tally().to_json(),
            self.tally().to_json(),
            self.count_anew().to_json(),
        ]
        return tallies[0] == tallies[1] == tallies[2]


@pytest.fixture
def tallied_store(tmp_path: Path) -> TalliedStore:
    tallied = TalliedStore(tmp_path)
    for number in range(3):
        tallied.add_archived(number)
    return tallied


def lines_read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that gets every line that is counted from now on."""
    read: list[bytes] = []
    real_add_line = Tally.add_line

    def counted(self: Tally, line: bytes) -> str:
        read.append(line)
        return real_add_line(self, line)

    monkeypatch.setattr(Tally, "add_line", counted)
    return read


def test_days_of_the_last_year(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages and bytes by day; the oldest days are forgotten."""
    monkeypatch.setattr(tally, "DAYS_KEPT", 2)
    counts = Tally()
    for number, day in enumerate((22, 22, 23, 24)):
        event = {"event": journal.ARCHIVED, "id": archive_id(number), "size": 5}
        event |= {"file": "", "stamp": "absent", "time": f"2026-11-{day}T11:53:00Z"}
        counts._count(event)  # type: ignore[arg-type]
        if number == 1:
            assert counts.days == {"2026-11-22": [2, 10]}
    assert counts.days == {"2026-11-23": [1, 5], "2026-11-24": [1, 5]}
    assert tally.from_json(counts.to_json()).days == counts.days


# --- what is counted ----------------------------------------------------------------


def test_it_counts_what_list_shows(tallied_store: TalliedStore) -> None:
    tallied_store.add_archived(3, message=examples.MESSAGE + b"more\r\n")
    tally = tallied_store.tally()
    records = list(record_reader.records(str(tallied_store.store), LEGAL))
    assert tally.messages == len(records) == 4
    assert tally.received_bytes == sum(each.events[0]["size"] for each in records)
    assert tally.stamps == dict.fromkeys(stamp.VERDICTS, 0) | {"absent": 4}
    assert tally.last_archived == TIME


def test_bytes_are_those_on_the_disk(tallied_store: TalliedStore) -> None:
    files = [
        each for each in tallied_store.store.rglob("*") if each.name != "journal.last"
    ]
    on_disk = sum(each.stat().st_size for each in files if each.is_file())
    tally = tallied_store.tally()
    assert tally.copy_bytes + tally.offset == on_disk


def test_a_second_original_under_one_id_is_one_message(
    tallied_store: TalliedStore,
) -> None:
    tallied_store.add_archived(0, message=examples.MESSAGE + b"another\r\n")
    assert len(list(tallied_store.store.rglob("*.eml.gz"))) == 4
    assert (
        tallied_store.tally().messages
        == len(list(record_reader.records(str(tallied_store.store), LEGAL)))
        == 3
    )


def test_supplements_mailed_copies_and_forged_stamps_are_counted(
    tallied_store: TalliedStore,
) -> None:
    stamped_request = examples.make_request(
        verdict="valid", stamp_id=archive_id(0), offset=0
    )
    tallied_store.add_archived(0, b"eve@example.com", request=stamped_request)
    tallied_store.add_archived(7, request=examples.make_request(verdict="forged"))
    tallied_store.add_event("mailed", id=archive_id(0), capsule="c", queued_as="4Zx")
    tally = tallied_store.tally()
    assert (tally.supplements, tally.mailed, tally.messages) == (1, 1, 4)
    counts = {"absent": 3, "valid": 1, "forged": 1}
    assert tally.stamps == dict.fromkeys(stamp.VERDICTS, 0) | counts


def test_outcomes_are_counted_by_kind_and_waiting_ends_when_settled(
    tallied_store: TalliedStore,
) -> None:
    tallied_store.add_outcome(make_outcome("waiting"))
    tallied_store.add_outcome(make_outcome("waiting", recipient="carol@example.com"))
    assert len(tallied_store.tally().waiting) == 2
    tallied_store.add_outcome(make_outcome("waiting", tries=2))
    assert len(tallied_store.tally().waiting) == 2
    tallied_store.add_outcome(make_outcome("delivered", tries=3))
    tallied_store.add_outcome(make_outcome("failed", recipient="dave@example.com"))
    tally = tallied_store.tally()
    assert len(tally.waiting) == 1
    assert {k: v for k, v in tally.outcomes.items() if v} == {
        "delivered": 1,
        "failed": 1,
    }


@pytest.mark.parametrize("name", ["number", "recipient", "original", "parent"])
def test_a_waiting_recipient_is_distinguished_from_every_other(
    tallied_store: TalliedStore, name: str
) -> None:
    tallied_store.add_outcome(make_outcome("waiting"))
    other: dict[str, Any] = {name: 2 if name == "number" else "x@example.com"}
    tallied_store.add_outcome(make_outcome("delivered", **other))
    assert len(tallied_store.tally().waiting) == 1
    tallied_store.add_outcome(
        make_outcome("delivered"), number=2
    )  # the same in another record
    assert len(tallied_store.tally().waiting) == 1
    tallied_store.add_outcome(make_outcome("delivered"))
    assert not tallied_store.tally().waiting


def test_a_bypass_is_counted_once_with_its_end(tallied_store: TalliedStore) -> None:
    period = BypassPeriod(TIME, "root", "disk")
    tallied_store.add_event("bypass-started", **period.to_json())
    assert tallied_store.tally().bypasses == {TIME: period}
    ended = replace(period, ended=TIME, ended_by="eve")
    tallied_store.add_event("bypass-ended", **ended.to_json())
    assert tallied_store.tally().bypasses == {TIME: ended}
    assert tally.from_json(tallied_store.tally().to_json()).bypasses == {TIME: ended}


def test_events_of_a_kind_to_come_and_odd_outcomes_count_for_nothing(
    tallied_store: TalliedStore,
) -> None:
    before = tallied_store.tally()
    tallied_store.add_event("painted", id=archive_id(0), file="../../../etc/shadow")
    tallied_store.add_event("outcome", id=archive_id(0), outcome="eaten")
    after = tallied_store.tally()
    assert after.lines == before.lines + 2
    assert (after.messages, after.damaged) == (3, 1)  # no such outcome


def test_damage_is_counted_and_the_rest_as_well(tallied_store: TalliedStore) -> None:
    text = tallied_store.journal.read_bytes().splitlines(keepends=True)
    tallied_store.journal.write_bytes(text[0] + b"[]\n" + b"".join(text[1:]) + b"{}\n")
    tally = tallied_store.tally()
    assert (tally.messages, tally.damaged, tally.first_damaged) == (3, 2, 2)
    assert tally.lines == 6
    assert tallied_store.is_correct()


# --- kept, and right all the same ---------------------------------------------------


def test_only_new_lines_are_read(
    tallied_store: TalliedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallied_store.tally()
    read = lines_read(monkeypatch)
    tallied_store.tally()
    assert not read
    tallied_store.add_archived(9)
    assert tallied_store.tally().messages == 4
    assert len(read) == 1


def truncate(world: TalliedStore) -> None:
    text = world.journal.read_bytes().splitlines(keepends=True)
    world.journal.write_bytes(b"".join(text[:-1]))


def truncate_within_a_line(world: TalliedStore) -> None:
    os.truncate(world.journal, world.journal.stat().st_size - 10)


def truncate_and_append(world: TalliedStore) -> None:
    truncate(world)
    world.add_outcome(make_outcome("waiting"))
    world.add_archived(8, message=examples.MESSAGE + b"x" * 3000 + b"\r\n")


def empty(world: TalliedStore) -> None:
    world.journal.write_bytes(b"")


def replace_journal(world: TalliedStore) -> None:
    """Another journal of the very same length, each line with the hash of the last.

    One that has not, because only a line further up was changed, is for verify.
    """
    changes = {"absent": "forged", "2.0.0": "2.1.0"}
    events = []
    for line in world.journal.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            event = journal_lines.parse(line)
            events.append({k: changes.get(str(v), v) for k, v in event.items()})
    world.journal.write_bytes(journal_lines.make_lines(events))


def tear(world: TalliedStore) -> None:
    with open(world.journal, "ab") as file:
        file.write(b'{"seq":4,"time":"2026-')
    assert world.is_correct()
    world.add_archived(6)


def remove(world: TalliedStore) -> None:
    world.journal.rename(world.journal.with_name("aside"))


@pytest.mark.parametrize(
    "change",
    [
        truncate,
        truncate_within_a_line,
        truncate_and_append,
        empty,
        replace_journal,
        tear,
        remove,
    ],
    ids=lambda each: each.__name__,
)
def test_a_journal_that_is_not_what_it_was_is_counted_anew(
    tallied_store: TalliedStore, change: Callable[[TalliedStore], None]
) -> None:
    before = tallied_store.tally().to_json()
    change(tallied_store)
    assert tallied_store.is_correct()
    assert tallied_store.tally().to_json() != before


def test_a_line_that_is_being_written_waits_for_its_end(
    tallied_store: TalliedStore,
) -> None:
    text = tallied_store.journal.read_bytes()
    tallied_store.add_archived(5)
    appended = tallied_store.journal.read_bytes()[len(text) :]
    for size in (1, len(appended) - 1):
        tallied_store.journal.write_bytes(text + appended[:size])
        assert tallied_store.tally().messages == 3
        assert tallied_store.is_correct()
    tallied_store.journal.write_bytes(text + appended)
    assert tallied_store.tally().messages == 4
    assert tallied_store.is_correct()


def flip_bit(content: bytes) -> bytes:
    return content.replace(b'"messages": 3', b'"messages": 9')


def reseal(content: bytes) -> bytes:
    """Well made, and not of a tally's form."""
    fields = json.loads(content.partition(b"\n")[2])
    fields["archives"][LEGAL]["messages"] = "3"
    text = json.dumps(fields).encode()
    return examples.sha256(text).hex().encode() + b"\n" + text


def change_version(content: bytes) -> bytes:
    fields = json.loads(content.partition(b"\n")[2])
    fields["version"] += 1
    fields["archives"][LEGAL]["messages"] = 9
    text = json.dumps(fields).encode()
    return examples.sha256(text).hex().encode() + b"\n" + text


CHANGES: list[Callable[[bytes], bytes]] = [
    flip_bit,
    reseal,
    change_version,
    lambda content: content[: len(content) // 2],
    lambda _: b"",
    lambda _: b"[]",
    lambda _: examples.sha256(b"[]").hex().encode() + b"\n[]",
    lambda _: examples.sha256(b"[" * 99999).hex().encode() + b"\n" + b"[" * 99999,
]


@pytest.mark.parametrize("change", CHANGES)
def test_tallies_that_are_not_as_they_were_written_are_made_anew(
    tallied_store: TalliedStore, change: Callable[[bytes], bytes]
) -> None:
    tallied_store.tally()
    content = tallied_store.cache_path.read_bytes()
    assert change(content) != content
    tallied_store.cache_path.write_bytes(change(content))
    assert tallied_store.tally().messages == 3
    assert tallied_store.is_correct()
    assert tallied_store.cache_path.read_bytes() == content


def test_tallies_that_are_deleted_are_made_anew(tallied_store: TalliedStore) -> None:
    tallied_store.tally()
    content = tallied_store.cache_path.read_bytes()
    tallied_store.cache_path.unlink()
    assert tallied_store.tally().messages == 3
    assert tallied_store.cache_path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o622, 0o602])
def test_tallies_that_others_can_write_are_not_believed(
    tallied_store: TalliedStore, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallied_store.tally()
    tallied_store.cache_path.chmod(mode)
    read = lines_read(monkeypatch)
    tallied_store.tally()
    assert len(read) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_tallies_owned_by_another_user_are_not_used(
    tallied_store: TalliedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallied_store.tally()
    os.chown(tallied_store.cache_path, 12345, 12345)
    read = lines_read(monkeypatch)
    tallied_store.tally()
    assert len(read) == 4
    assert tallied_store.cache_path.stat().st_uid == os.geteuid()
    assert tallied_store.cache_path.stat().st_mode & 0o777 == 0o600


def test_a_symlink_in_place_of_the_tallies_is_not_followed(
    tallied_store: TalliedStore,
) -> None:
    tallied_store.tally()
    other = tallied_store.fallback / "other"
    tallied_store.cache_path.rename(other)
    content = other.read_bytes()
    tallied_store.cache_path.symlink_to(other)
    tallied_store.add_archived(5)
    assert tallied_store.tally().messages == 4
    assert other.read_bytes() == content
    assert not tallied_store.cache_path.is_symlink()


def test_without_a_directory_for_tallies_the_numbers_are_the_same(
    tallied_store: TalliedStore,
) -> None:
    tallied_store.fallback.rmdir()
    assert tallied_store.tally().messages == 3
    assert not tallied_store.fallback.exists()


def test_an_archive_that_cannot_be_read_does_not_hide_the_others(
    tallied_store: TalliedStore,
) -> None:
    tallied_store.tally()
    journal_lines.segment(tallied_store.store / HR).mkdir(parents=True)
    tallies, errors = tally_cache.current_tallies(
        str(tallied_store.store), [LEGAL, HR], str(tallied_store.fallback)
    )
    assert tallies[LEGAL].messages == 3
    assert "not a regular file" in errors[HR]


def test_an_archive_that_cannot_be_read_for_once_is_not_counted_anew(
    tallied_store: TalliedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tallied_store.tally()
    moved_journal = tallied_store.journal.rename(
        tallied_store.journal.with_name("aside")
    )
    tallied_store.journal.mkdir()
    _, errors = tally_cache.current_tallies(
        str(tallied_store.store), [LEGAL], str(tallied_store.fallback)
    )
    assert errors
    tallied_store.journal.rmdir()
    moved_journal.rename(tallied_store.journal)
    read = lines_read(monkeypatch)
    assert tallied_store.tally().messages == 3
    assert not read


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("aowdxct"), st.integers(0, 4)), max_size=12))
def test_whatever_happens_a_cached_tally_equals_a_new_count(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    world = TalliedStore(tmp_path_factory.mktemp("world"))
    world.add_archived(0)
    actions: dict[str, Callable[[int], object]] = {
        "a": world.add_archived,
        "o": lambda n: world.add_outcome(make_outcome("relayed", n)),
        "w": lambda n: world.add_outcome(make_outcome("waiting", n)),
        "d": lambda _: world.cache_path.unlink(missing_ok=True),
        "x": lambda n: os.truncate(
            world.journal, world.journal.stat().st_size * (n + 4) // 8
        ),
        "c": lambda _: replace_journal(world),
        "t": lambda _: world.tally(),
    }
    for name, number in steps:
        actions[name](number)
        if name in "xc":
            break  # nothing of ours goes on from damage of this kind as if it were none
    assert world.is_correct()


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists) | st.just({}))
def test_fields_of_another_form_are_refused(words: Any) -> None:
    with pytest.raises(ValueError):
        tally.from_json(words)
    for name in Tally().to_json():
        if words != Tally().to_json()[name]:
            with pytest.raises(ValueError):
                tally.from_json({**Tally().to_json(), name: {"x": words}})


# --- how large it may get -----------------------------------------------------------

LINE_COUNT = 1_000_000
COUNT_PROGRAM = """
import sys
from postfix_archive.store import tally_cache
def number(path, name):
    return open(path).read().partition(name)[2].split()[0]
before = number("/proc/self/io", "rchar:")
found, _ = tally_cache.current_tallies(sys.argv[1], [sys.argv[2]], sys.argv[3])
after = number("/proc/self/io", "rchar:")
# Not of getrusage(2): that begins with the peak of the process that has started this.
peak = number("/proc/self/status", "VmHWM:")
print(int(after) - int(before), peak, found[sys.argv[2]].lines)
"""


def measure_count(world: TalliedStore) -> tuple[int, float]:
    """Count in a process of its own; return the bytes that it read, its peak in MB."""
    arguments = [str(world.store), LEGAL, str(world.fallback)]
    command = [sys.executable, "-c", COUNT_PROGRAM, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    size, peak, lines = process.stdout.split()
    assert int(lines) == LINE_COUNT
    return int(size), int(peak) / 1024


@pytest.mark.slow
def test_a_million_lines_take_little_memory_and_are_read_once(
    tallied_store: TalliedStore,
) -> None:
    line = tallied_store.journal.read_bytes().splitlines(keepends=True)[1]
    more = Outcome(
        "bob@example.com",
        "relayed",
        capture_queue_id=QUEUE_ID,
        queue_id="4Z",
        time=TIME,
    )
    event = {**journal_lines.parse(line), **more.event_fields()}
    names = (*more.event_fields(), "seq", "time", "id")
    outcome_event = {name: event[name] for name in names}
    other = journal_lines.make_line(outcome_event | {"event": journal.OUTCOME})
    with open(tallied_store.journal, "wb") as opened:
        for _ in range(LINE_COUNT // 200):
            opened.write((line + other) * 100)
    (first, peak), (second, _) = measure_count(tallied_store), measure_count(
        tallied_store
    )
    print(f"first {first} bytes, {peak:.0f} MB; then {second} bytes")
    assert first < 1.1 * tallied_store.journal.stat().st_size
    assert peak < 64
    assert second < 1 << 20
