"""Ten years of purges, compared after each with a model that knows no code of ours."""

from __future__ import annotations

import calendar
import datetime
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postfix_archive.retention.purge import Purge
from postfix_archive.store import verifier

from sample_store import LEGAL, SampleStore

FIRST_DAY = datetime.date(2026, 12, 3)
STEP = 122  # days
STEPS = 32  # ten years and eight months
NEVER = datetime.date.max
Day = datetime.date


def after(day: Day, years: int) -> Day:
    """The same day some years later, or the last one of that month."""
    last = calendar.monthrange(day.year + years, day.month)[1]
    return Day(day.year + years, day.month, min(day.day, last))


@dataclass
class Message:
    """What the model knows of a message; noted is the last day in the journal."""

    archive_id: str
    arrived: Day
    kind: str
    is_of_smith: bool
    noted: Day | None = None


@dataclass
class Model:
    """The messages that must be there; years by kind and by archive (kind "")."""

    years: dict[str, int] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    is_smith_held: bool = False
    held_ids: set[str] = field(default_factory=set)

    def last_day(self, message: Message) -> Day:
        years = self.years.get(message.kind, self.years[""])
        return after(message.arrived, years) if years else NEVER

    def is_held(self, message: Message) -> bool:
        by_query = self.is_smith_held and message.is_of_smith
        return by_query or message.archive_id in self.held_ids

    def purge(self, today: Day) -> None:
        for message in self.messages:
            message.noted = message.noted or self.last_day(message)
        over = [
            e for e in self.messages if (e.noted or NEVER) < today and e.noted != NEVER
        ]
        for message in over:
            if self.last_day(message) >= today:
                message.noted = self.last_day(message)
            elif not self.is_held(message):
                self.messages.remove(message)

    def apply(self) -> None:
        for message in self.messages:
            last_day = self.last_day(message)
            if message.noted and last_day < message.noted:
                if not self.is_held(message):
                    message.noted = last_day


def set_rules(store: SampleStore, model: Model, years: dict[str, int]) -> None:
    """Give both the same rules; 0 years are permanent."""
    model.years = years
    periods = {kind: f"{n}y" if n else "permanent" for kind, n in years.items()}
    lines = [f"subject:{kind}  {each}" for kind, each in periods.items() if kind]
    path = store.directory / "archive.retention"
    path.write_text("".join(f"{each}\n" for each in lines))
    if not lines:
        path.unlink()
    with (store.directory / "archive.cf").open("a") as file:
        file.write(f"archive_retention = {LEGAL}={periods['']}\n")
        file.write("archive_purge_limit = 100%\n")


def decide(store: SampleStore, model: Model, step: int) -> None:
    """What people decide in these years."""
    match step:
        case 0:
            set_rules(store, model, {"invoice": 6, "": 3})
        case 6:
            hold = ("hold", "add", "smith", "--query", "rcpt:smith@example.net")
            store.run(*hold, "--reason", "a lawsuit")
            model.is_smith_held = True
        case 8:  # longer at once, shorter for new ones
            set_rules(store, model, {"invoice": 8, "": 2})
        case 10:
            some = [each.archive_id for each in model.messages[::3]]
            ids = " ".join(some)
            store.run("hold", "add", "jones", "--ids", ids, "--reason", "another")
            model.held_ids = set(some)
        case 15:
            set_rules(store, model, {"board": 0, "invoice": 8, "": 2})
        case 18:
            store.run("hold", "release", "smith", "--reason", "settled")
            model.is_smith_held = False
        case 21:
            set_rules(store, model, {"board": 0, "invoice": 5, "": 1})
        case 22:
            store.run("retention", "apply", "--reason", "a new law", "--yes")
            model.apply()
        case 24:
            set_rules(store, model, {"": 5})
        case 27:
            store.run("hold", "release", "jones", "--reason", "settled")
            model.held_ids = set()


def arrive(store: SampleStore, model: Model, step: int, today: Day) -> Iterator[str]:
    """Mail of the last days; kinds and recipients in turn."""
    for number in range(3):
        kind = ("letter", "invoice", "board")[(step + number) % 3]
        is_of_smith = (step + 3 * number) % 4 == 0
        day = today - datetime.timedelta(number * 37)
        noon = datetime.datetime.combine(day, datetime.time(12), datetime.UTC)
        recipient = b"smith@example.net" if is_of_smith else b"bob@example.net"
        archive_id = store.add(
            f"Subject: {kind} {step}.{number}\r\n\r\nx\r\n".encode(),
            recipients=(recipient,),
            arrival=int(noon.timestamp()),
        )
        model.messages.append(Message(archive_id, day, kind, is_of_smith))
        yield archive_id


def stored(store: SampleStore) -> set[str]:
    return {each.name.partition(".")[0] for each in store.path.rglob("*.eml.gz")}


def test_what_is_there_is_what_the_rules_say(tmp_path: Path) -> None:
    store, model = SampleStore(tmp_path), Model()
    warnings: list[str] = []
    removed = held = 0
    for step in range(STEPS):
        today = FIRST_DAY + datetime.timedelta(step * STEP)
        new = set(arrive(store, model, step, today))
        decide(store, model, step)
        before = stored(store)
        noon = datetime.datetime.combine(today, datetime.time(12), datetime.UTC)
        purge = Purge(
            store.settings, now=noon.timestamp(), by="root", warn=warnings.append
        )
        result = purge.run(LEGAL, is_dry=False, is_confirmed=False)
        model.purge(today)
        assert stored(store) == {each.archive_id for each in model.messages}, today
        assert new <= stored(store)
        removed += len(before - stored(store))
        held += len(result.held)
    assert (removed > 40, held > 10, warnings) == (True, True, [])
    assert len(model.messages) > 20
    findings = verifier.verify_archive(str(store.path / LEGAL)).findings
    assert [str(each) for each in findings] == []
    listed = store.run("search", "--all", "--ids", "*").output.split()
    assert set(listed) == stored(store)


def test_the_clock_of_the_system_is_what_counts(tmp_path: Path) -> None:
    """The command itself, in another year."""
    store, model = SampleStore(tmp_path), Model()
    [archive_id, *_] = arrive(store, model, 0, FIRST_DAY)
    set_rules(store, model, {"": 3})
    command = [sys.executable, "-m", "postfix_archive", "-c", str(tmp_path), "purge"]

    def purge(day: str) -> str:
        process = subprocess.run(
            [
                "faketime",
                f"{day} 12:00:00 UTC",
                *command,
                "--really",
                "--clock-is-right",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return process.stdout

    assert purge("2029-12-03") == f"{LEGAL}: 2 removed by archive_retention 3y\n"
    assert archive_id in stored(store)
    assert purge("2029-12-04") == f"{LEGAL}: 1 removed by archive_retention 3y\n"
    assert stored(store) == set()
