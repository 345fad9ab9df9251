"""Claims about the tally: it is what the journal tells, however often it was counted.

A tally that was kept, went on, was deleted, damaged or did not fit is compared with one
that is counted from the first line on.
"""

from __future__ import annotations

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

from postfix_archive.store import journal, record_reader, tally, tally_cache
from postfix_archive.store.bypass_period import BypassPeriod
from postfix_archive.store.outcome import Outcome
from postfix_archive.store.tally import Tally

from unit import examples
from unit.examples import HR, LEGAL
from unit.store.test_archive import Capture

TIME = "2026-11-22T11:53:00Z"
BOB = "bob@example.com"
QUEUE_ID = "4Zx1Yk2Pp7z9Qw"


def archive_id(number: int) -> str:
    return f"20261122-{number:040x}"


def became(kind: str, number: int = 1, recipient: str = BOB, **more: Any) -> Outcome:
    """An outcome of the capture of that number."""
    at = {"queue_id": "4Zx1Yk2Pp7z9Qx", "time": TIME, **more}
    return Outcome(recipient, kind, capture_queue_id=f"{QUEUE_ID}{number}", **at)


class World:
    """A store with one archive, and the folder where tallies are kept."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.fallback = folder / "fallback"
        self.journal = self.store / LEGAL / journal.FILE_NAME
        self.kept = self.fallback / tally_cache.CACHE_FILE
        self.fallback.mkdir()
        self.store.mkdir()

    def archived(self, number: int, *people: bytes, **words: Any) -> None:
        Capture(*people, archive_id=archive_id(number), **words).kept_in(self.store)

    def append(self, event: str, **words: str | int) -> None:
        with journal.Journal(str(self.store / LEGAL)) as events:
            events.append(event, TIME, **words)

    def settled(self, found: Outcome, number: int = 1) -> None:
        self.append(journal.OUTCOME, id=archive_id(number), **found.event_fields())

    def tally(self) -> Tally:
        found, trouble = tally_cache.current_tallies(
            str(self.store), [LEGAL], str(self.fallback)
        )
        assert not trouble
        return found[LEGAL]

    def anew(self) -> Tally:
        return tally_cache._count_new_lines(str(self.store / LEGAL), None)

    def is_right(self) -> bool:
        """What is told is what stands in the journal, and it is told twice."""
        told = [self.tally().to_json(), self.tally().to_json(), self.anew().to_json()]
        return told[0] == told[1] == told[2]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for number in range(3):
        made.archived(number)
    return made


def lines_read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that gets every line that is counted from now on."""
    read: list[bytes] = []
    take = Tally.add_line

    def counted(self: Tally, line: bytes) -> str:
        read.append(line)
        return take(self, line)

    monkeypatch.setattr(Tally, "add_line", counted)
    return read


# --- what is counted ----------------------------------------------------------------


def test_it_counts_what_list_shows(world: World) -> None:
    world.archived(3, message=examples.MESSAGE + b"more\r\n")
    found = world.tally()
    kept = list(record_reader.records(str(world.store), LEGAL))
    assert found.messages == len(kept) == 4
    assert found.received_bytes == sum(each.events[0]["size"] for each in kept)
    assert found.stamps == {"absent": 4, "valid": 0, "altered": 0, "forged": 0}
    assert found.last_archived == TIME


def test_bytes_are_those_on_the_disk(world: World) -> None:
    files = [each for each in world.store.rglob("*") if each.name != "journal.last"]
    on_disk = sum(each.stat().st_size for each in files if each.is_file())
    found = world.tally()
    assert found.copy_bytes + found.offset == on_disk


def test_a_second_original_under_one_id_is_one_message(world: World) -> None:
    world.archived(0, message=examples.MESSAGE + b"another\r\n")
    assert len(list(world.store.rglob("*.eml.gz"))) == 4
    assert (
        world.tally().messages
        == len(list(record_reader.records(str(world.store), LEGAL)))
        == 3
    )


def test_supplements_mailed_copies_and_forged_stamps_are_counted(world: World) -> None:
    again = examples.asked(verdict="valid", stamp_id=archive_id(0), above=0)
    world.archived(0, b"eve@example.com", request=again)
    world.archived(7, request=examples.asked(verdict="forged"))
    world.append("mailed", id=archive_id(0), capsule="c", queued_as="4Zx")
    found = world.tally()
    assert (found.supplements, found.mailed, found.messages) == (1, 1, 4)
    assert found.stamps == {"absent": 3, "valid": 1, "altered": 0, "forged": 1}


def test_outcomes_are_counted_by_kind_and_waiting_ends_when_settled(
    world: World,
) -> None:
    world.settled(became("waiting"))
    world.settled(became("waiting", recipient="carol@example.com"))
    assert len(world.tally().waiting) == 2
    world.settled(became("waiting", tries=2))
    assert len(world.tally().waiting) == 2
    world.settled(became("delivered", tries=3))
    world.settled(became("failed", recipient="dave@example.com"))
    found = world.tally()
    assert len(found.waiting) == 1
    assert {k: v for k, v in found.outcomes.items() if v} == {
        "delivered": 1,
        "failed": 1,
    }


@pytest.mark.parametrize("name", ["number", "recipient", "original", "parent"])
def test_one_who_waits_is_told_from_every_other(world: World, name: str) -> None:
    world.settled(became("waiting"))
    other: dict[str, Any] = {name: 2 if name == "number" else "x@example.com"}
    world.settled(became("delivered", **other))
    assert len(world.tally().waiting) == 1
    world.settled(became("delivered"), number=2)  # the same in another record
    assert len(world.tally().waiting) == 1
    world.settled(became("delivered"))
    assert not world.tally().waiting


def test_a_bypass_is_counted_once_with_its_end(world: World) -> None:
    period = BypassPeriod(TIME, "root", "disk")
    world.append("bypass-started", **period.to_json())
    assert world.tally().bypasses == {TIME: period}
    ended = replace(period, ended=TIME, ended_by="eve")
    world.append("bypass-ended", **ended.to_json())
    assert world.tally().bypasses == {TIME: ended}
    assert tally.from_json(world.tally().to_json()).bypasses == {TIME: ended}


def test_events_of_a_kind_to_come_and_odd_outcomes_count_for_nothing(
    world: World,
) -> None:
    before = world.tally()
    world.append("painted", id=archive_id(0), file="../../../etc/shadow")
    world.append("outcome", id=archive_id(0), outcome="eaten")
    after = world.tally()
    assert after.lines == before.lines + 2
    assert (after.messages, after.damaged) == (3, 1)  # no such outcome


def test_damage_is_counted_and_the_rest_as_well(world: World) -> None:
    text = world.journal.read_bytes().splitlines(keepends=True)
    world.journal.write_bytes(text[0] + b"[]\n" + b"".join(text[1:]) + b"{}\n")
    found = world.tally()
    assert (found.messages, found.damaged, found.first_damaged) == (3, 2, 2)
    assert world.is_right()


# --- kept, and right all the same ---------------------------------------------------


def test_only_new_lines_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tally()
    read = lines_read(monkeypatch)
    world.tally()
    assert not read
    world.archived(9)
    assert world.tally().messages == 4
    assert len(read) == 1


def cut(world: World) -> None:
    text = world.journal.read_bytes().splitlines(keepends=True)
    world.journal.write_bytes(b"".join(text[:-1]))


def cut_within_a_line(world: World) -> None:
    os.truncate(world.journal, world.journal.stat().st_size - 10)


def cut_and_gone_on(world: World) -> None:
    cut(world)
    world.settled(became("waiting"))
    world.archived(8, message=examples.MESSAGE + b"x" * 3000 + b"\r\n")


def emptied(world: World) -> None:
    world.journal.write_bytes(b"")


def exchanged(world: World) -> None:
    """Another journal of the very same length, each line with the hash of the last.

    One that has not, because only a line further up was changed, is for verify.
    """
    text = b""
    last = journal.FIRST_PREV.encode()
    for line in world.journal.read_bytes().splitlines():
        other = line.replace(b'"absent"', b'"forged"').replace(b"2.0.0", b"2.1.0")
        beginning, mark, old = other.rpartition(b'"prev":"')
        other = beginning + mark + last + old[journal.SHA256_DIGITS :]
        last = examples.sha256(other).hex().encode()
        text += other + b"\n"
    world.journal.write_bytes(text)


def torn(world: World) -> None:
    with open(world.journal, "ab") as opened:
        opened.write(b'{"seq":4,"time":"2026-')
    assert world.is_right()
    world.archived(6)


def gone(world: World) -> None:
    world.journal.rename(world.journal.with_name("aside"))


@pytest.mark.parametrize(
    "change",
    [cut, cut_within_a_line, cut_and_gone_on, emptied, exchanged, torn, gone],
    ids=lambda each: each.__name__,
)
def test_a_journal_that_is_not_what_it_was_is_counted_anew(
    world: World, change: Callable[[World], None]
) -> None:
    before = world.tally().to_json()
    change(world)
    assert world.is_right()
    assert world.tally().to_json() != before


def test_a_line_that_is_being_written_waits_for_its_end(world: World) -> None:
    text = world.journal.read_bytes()
    world.archived(5)
    more = world.journal.read_bytes()[len(text) :]
    for size in (1, len(more) - 1):
        world.journal.write_bytes(text + more[:size])
        assert world.tally().messages == 3
        assert world.is_right()
    world.journal.write_bytes(text + more)
    assert world.tally().messages == 4
    assert world.is_right()


def flipped(content: bytes) -> bytes:
    return content.replace(b'"messages": 3', b'"messages": 9')


def resealed(content: bytes) -> bytes:
    """Well made, and not of a tally's form."""
    words = json.loads(content.partition(b"\n")[2])
    words["archives"][LEGAL]["messages"] = "3"
    text = json.dumps(words).encode()
    return examples.sha256(text).hex().encode() + b"\n" + text


def of_another_version(content: bytes) -> bytes:
    words = json.loads(content.partition(b"\n")[2])
    words["version"] += 1
    words["archives"][LEGAL]["messages"] = 9
    text = json.dumps(words).encode()
    return examples.sha256(text).hex().encode() + b"\n" + text


CHANGES: list[Callable[[bytes], bytes]] = [
    flipped,
    resealed,
    of_another_version,
    lambda content: content[: len(content) // 2],
    lambda _: b"",
    lambda _: b"[]",
    lambda _: examples.sha256(b"[]").hex().encode() + b"\n[]",
    lambda _: examples.sha256(b"[" * 99999).hex().encode() + b"\n" + b"[" * 99999,
]


@pytest.mark.parametrize("change", CHANGES)
def test_tallies_that_are_not_as_they_were_written_are_made_anew(
    world: World, change: Callable[[bytes], bytes]
) -> None:
    world.tally()
    content = world.kept.read_bytes()
    assert change(content) != content
    world.kept.write_bytes(change(content))
    assert world.tally().messages == 3
    assert world.is_right()
    assert world.kept.read_bytes() == content


def test_tallies_that_are_deleted_are_made_anew(world: World) -> None:
    world.tally()
    content = world.kept.read_bytes()
    world.kept.unlink()
    assert world.tally().messages == 3
    assert world.kept.read_bytes() == content


@pytest.mark.parametrize("mode", [0o622, 0o602])
def test_tallies_that_others_can_write_are_not_believed(
    world: World, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tally()
    world.kept.chmod(mode)
    read = lines_read(monkeypatch)
    world.tally()
    assert len(read) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_tallies_of_somebody_else_are_not_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tally()
    os.chown(world.kept, 12345, 12345)
    read = lines_read(monkeypatch)
    world.tally()
    assert len(read) == 3
    assert world.kept.stat().st_uid == os.geteuid()
    assert world.kept.stat().st_mode & 0o777 == 0o600


def test_a_symlink_in_the_place_of_the_tallies_leads_nowhere(world: World) -> None:
    world.tally()
    other = world.fallback / "other"
    world.kept.rename(other)
    content = other.read_bytes()
    world.kept.symlink_to(other)
    world.archived(5)
    assert world.tally().messages == 4
    assert other.read_bytes() == content
    assert not world.kept.is_symlink()


def test_without_a_place_for_tallies_the_numbers_are_the_same(world: World) -> None:
    world.fallback.rmdir()
    assert world.tally().messages == 3
    assert not world.fallback.exists()


def test_an_archive_that_cannot_be_read_does_not_hide_the_others(world: World) -> None:
    world.tally()
    (world.store / HR / journal.FILE_NAME).mkdir(parents=True)
    found, trouble = tally_cache.current_tallies(
        str(world.store), [LEGAL, HR], str(world.fallback)
    )
    assert found[LEGAL].messages == 3
    assert "not a regular file" in trouble[HR]


def test_an_archive_that_cannot_be_read_for_once_is_not_counted_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tally()
    aside = world.journal.rename(world.journal.with_name("aside"))
    world.journal.mkdir()
    _, trouble = tally_cache.current_tallies(
        str(world.store), [LEGAL], str(world.fallback)
    )
    assert trouble
    world.journal.rmdir()
    aside.rename(world.journal)
    read = lines_read(monkeypatch)
    assert world.tally().messages == 3
    assert not read


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("aowdxct"), st.integers(0, 4)), max_size=12))
def test_whatever_happens_a_kept_tally_is_what_is_counted_anew(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    world.archived(0)
    deeds: dict[str, Callable[[int], object]] = {
        "a": world.archived,
        "o": lambda n: world.settled(became("relayed", n)),
        "w": lambda n: world.settled(became("waiting", n)),
        "d": lambda _: world.kept.unlink(missing_ok=True),
        "x": lambda n: os.truncate(
            world.journal, world.journal.stat().st_size * (n + 4) // 8
        ),
        "c": lambda _: exchanged(world),
        "t": lambda _: world.tally(),
    }
    for name, number in steps:
        deeds[name](number)
        if name in "xc":
            break  # nothing of ours goes on from damage of this kind as if it were none
    assert world.is_right()


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists) | st.just({}))
def test_words_of_another_form_are_refused(words: Any) -> None:
    with pytest.raises(ValueError):
        tally.from_json(words)
    for name in Tally().to_json():
        if words != Tally().to_json()[name]:
            with pytest.raises(ValueError):
                tally.from_json({**Tally().to_json(), name: {"x": words}})


# --- how large it may get -----------------------------------------------------------

LINES = 1_000_000
COUNTING = """
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


def counted(world: World) -> tuple[int, float]:
    """Count in a process of its own; return the bytes that it read, its peak in MB."""
    places = [str(world.store), LEGAL, str(world.fallback)]
    words = [sys.executable, "-c", COUNTING, *places]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    size, peak, lines = done.stdout.split()
    assert int(lines) == LINES
    return int(size), int(peak) / 1024


@pytest.mark.slow
def test_a_million_lines_take_little_memory_and_are_read_once(
    world: World,
) -> None:
    [line] = world.journal.read_bytes().splitlines(keepends=True)[:1]
    more = Outcome(
        "bob@example.com",
        "relayed",
        capture_queue_id=QUEUE_ID,
        queue_id="4Z",
        time=TIME,
    )
    event = {**json.loads(line), **more.event_fields(), "event": journal.OUTCOME}
    names = (*more.event_fields(), "seq", "time", "event", "id", "prev")
    other = json.dumps({name: event[name] for name in names}).encode() + b"\n"
    with open(world.journal, "wb") as opened:
        for _ in range(LINES // 200):
            opened.write((line + other) * 100)
    (first, peak), (second, _) = counted(world), counted(world)
    print(f"first {first} bytes, {peak:.0f} MB; then {second} bytes")
    assert first < 1.1 * world.journal.stat().st_size
    assert peak < 64
    assert second < 1 << 20
