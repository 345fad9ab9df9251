"""Claims about purge and retention: what they remove, refuse, note and show."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.doctor import inspection
from postfix_archive.message import dates
from postfix_archive.postfix import configuration
from postfix_archive.retention import clock, removal
from postfix_archive.status import collect
from postfix_archive.store import verifier

import journal_lines
from sample_store import ARRIVAL, LEGAL, SampleStore

DAY = 86400


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    """Twenty records of 2026-11-22 and one of half a year earlier."""
    made = SampleStore(tmp_path)
    made.add(b"Subject: old invoice\r\n\r\n", arrival=ARRIVAL - 180 * DAY)
    for number in range(20):
        made.add(b"Subject: letter %d\r\n\r\nx\r\n" % number)
    clock.record_run(made.settings, time.time() - DAY)
    return made


def configure(store: SampleStore, text: str) -> None:
    with (store.directory / "archive.cf").open("a") as file:
        file.write(f"{text}\n")


def write_rules(store: SampleStore, *lines: str) -> None:
    (store.directory / "archive.retention").write_text("\n".join(lines) + "\n")


def events(store: SampleStore, name: str) -> list[dict[str, object]]:
    found = journal_lines.events(store.path / LEGAL)
    return [each for each in found if each["event"] == name]


def stored(store: SampleStore) -> set[str]:
    return {each.name[:-7] for each in store.path.rglob("*.eml.gz")}


def old_id(store: SampleStore) -> str:
    return min(stored(store))


def assert_sound(store: SampleStore) -> None:
    result = verifier.verify_archive(str(store.path / LEGAL))
    assert [str(each) for each in result.findings] == []


def test_only_what_is_over_goes(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    old = old_id(store)
    output = store.run("purge", "--dry-run").output
    assert f"{LEGAL}: 1 would be removed by archive_retention 90d" in output
    assert f"{old}  kept until 2026-08-24" in output
    assert len(stored(store)) == 21 and not events(store, "retention")
    output = store.run("purge").output
    assert f"{LEGAL}: 1 removed by archive_retention 90d" in output
    assert len(stored(store)) == 20 and old not in stored(store)
    [event] = events(store, "purged")
    expected = {"id": old, "rule": "archive_retention", "period": "90d"}
    assert expected.items() <= event.items()
    assert (event["until"], event["by"]) == ("2026-08-24", "root")
    noted = events(store, "retention")
    assert {each.get("until") for each in noted} == {"2027-02-20", None}
    assert_sound(store)
    assert store.run("purge").output == ""
    assert "was purged 20" in store.run("show", old, exit_code=1).output
    assert old not in store.run("list").output
    assert_sound(store)


def test_without_a_rule_nothing_is_read_or_written(store: SampleStore) -> None:
    assert store.run("purge").output == ""
    assert not (store.directory / "index").exists()
    assert not events(store, "retention")


def test_a_wrong_rule_removes_nothing_at_all(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    write_rules(store, "subject:letter 5y", "subject:x 10")
    output = store.run("purge", exit_code=1).output
    assert "archive.retention, line 2, column 11: a period of 10 what?" in output
    assert len(stored(store)) == 21 and not events(store, "retention")


def test_too_much_at_once_is_left_until_somebody_says_so(store: SampleStore) -> None:
    write_rules(store, "subject:letter 1d")
    output = store.run("purge", exit_code=1).output
    assert "20 of 21 records are due, more than archive_purge_limit = 5%" in output
    assert "20 by subject:letter 1d" in output
    assert len(stored(store)) == 21
    store.run("purge", "--really")
    assert len(stored(store)) == 1
    assert_sound(store)


def test_a_rule_that_got_longer_counts_at_once(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=179d\narchive_purge_limit = 0%")
    store.run("purge", exit_code=1)
    assert len(events(store, "retention")) == 21
    write_rules(store, "subject:invoice 1y")
    assert store.run("purge").output == ""
    assert len(stored(store)) == 21
    *_, event = events(store, "retention")
    assert (event["id"], event["rule"]) == (old_id(store), "subject:invoice")


def test_a_rule_that_is_gone_keeps_what_it_had(store: SampleStore) -> None:
    write_rules(store, "subject:invoice 90d", "subject:letter 1y")
    configure(store, "archive_purge_limit = 0%")
    store.run("purge", exit_code=1)
    (store.directory / "archive.retention").unlink()
    assert store.run("purge").output == ""
    assert len(stored(store)) == 21


def test_a_rule_that_got_shorter_counts_when_it_is_applied(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=1y")
    store.run("purge")
    write_rules(store, "subject:invoice 90d")
    assert store.run("purge").output == ""
    old = old_id(store)
    line = store.run("retention", "show", old).output
    assert "noted: until 2027-05-26, by archive_retention 1y; by the present" in line
    [shown] = store.run("retention", "show", "--json", old).output.splitlines()
    assert json.loads(shown)["present"]["until"] == "2026-08-24"
    apply = ("retention", "apply", "--reason", "new law")
    assert "1 records become shorter" in store.run(*apply, exit_code=1).output
    assert len(stored(store)) == 21 and len(events(store, "retention")) == 21
    store.run(*apply, "--yes")
    *_, event = events(store, "retention")
    assert (event["until"], event["reason"]) == ("2026-08-24", "new law")
    due = store.run("retention", "show", "--due", "2026-08-24").output
    assert due == ""
    due = store.run("retention", "show", "--due", "2026-08-25").output
    assert due.startswith(f"{old}  until 2026-08-24, by subject:invoice 90d")
    assert "1 removed by subject:invoice 90d" in store.run("purge").output
    assert "No record becomes shorter" in store.run(*apply).output
    assert_sound(store)


def hold(store: SampleStore, name: str, *what: str) -> None:
    store.run("hold", "add", name, *what, "--reason", "a lawsuit")


def test_what_is_held_stays_until_the_last_hold_is_released(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    old = old_id(store)
    hold(store, "smith", "--ids", old)
    hold(store, "jones", "--query", "subject:invoice")
    for options in ([], ["--dry-run"], ["--really"]):
        output = store.run("purge", *options).output
        assert output == f"{old}  stays: held by jones, smith\n"
    store.run("hold", "release", "smith", "--reason", "settled")
    assert store.run("purge").output == f"{old}  stays: held by jones\n"
    assert len(stored(store)) == 21 and not events(store, "purged")
    store.run("hold", "release", "jones", "--reason", "settled")
    assert "1 removed by archive_retention 90d" in store.run("purge").output
    assert old not in stored(store)
    assert_sound(store)


def test_a_hold_that_nobody_can_read_removes_nothing(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    hold(store, "smith", "--query", "subject:invoice")
    segment = journal_lines.segment(store.path / LEGAL)
    journal_lines.strike_out(segment, -1)
    assert "hold" in store.run("purge", "--really", exit_code=1).output
    assert len(stored(store)) == 21


def test_the_period_of_what_is_held_gets_no_shorter(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=1y")
    store.run("purge")
    write_rules(store, "subject:invoice 90d")
    hold(store, "smith", "--ids", old_id(store))
    output = store.run("retention", "apply", "--reason", "x", "--yes").output
    assert "1 held, left as they are" in output
    assert len(events(store, "retention")) == 21


def test_an_index_that_fails_removes_nothing(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    store.run("index", "--once")
    (store.directory / "index" / LEGAL / "2027.db").mkdir()
    state = store.directory / "index" / LEGAL / "state.json"
    state.unlink()
    state.mkdir()
    store.run("purge", exit_code=1)
    assert len(stored(store)) == 21


def test_an_index_that_says_else_than_the_journal_is_not_believed(
    store: SampleStore,
) -> None:
    configure(store, f"archive_retention = {LEGAL}=1y")
    store.run("purge")
    with sqlite3.connect(store.directory / "index" / LEGAL / "2026.db") as db:
        db.execute("UPDATE message SET keep_until = 1, arrived = 1")
    db.close()
    output = store.run("purge", "--really", exit_code=1).output
    assert "is not what the journal says" in output
    assert len(stored(store)) == 21


def test_a_clock_behind_the_journal_removes_nothing(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    store.add(b"Subject: x\r\n\r\n", arrival=int(time.time()) + 3600)
    output = store.run("purge", "--really", exit_code=1).output
    assert ": set it; nothing is removed" in output
    assert len(stored(store)) == 22


@pytest.mark.parametrize(
    ("days", "is_synchronised", "is_confirmed", "is_refused"),
    [
        (6, False, False, False),
        (8, False, False, True),
        (8, True, False, False),
        (8, False, True, False),
        (27_000, True, False, False),
        (-9, True, True, True),
    ],
)
def test_a_clock_far_ahead_needs_somebody_to_vouch_for_it(
    store: SampleStore,
    days: int,
    is_synchronised: bool,
    is_confirmed: bool,
    is_refused: bool,
) -> None:
    def refuses(now: float) -> bool:
        text = clock.doubt(
            store.settings,
            now,
            is_confirmed=is_confirmed,
            is_synchronised=lambda: is_synchronised,
        )
        return bool(text)

    os.unlink(store.directory / "fallback" / clock.LAST_RUN_FILE)
    assert refuses(ARRIVAL + days * DAY) == is_refused
    clock.record_run(store.settings, ARRIVAL)
    if days > 0:  # mail that a wrong clock has dated vouches for nothing
        store.add(b"Subject: x\r\n\r\n", arrival=ARRIVAL + days * DAY)
        assert refuses(ARRIVAL + days * DAY + 1) == is_refused


def test_a_doubtful_clock_lets_nothing_go_and_does_not_become_the_last_run(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = time.time() - 8 * DAY
    clock.record_run(store.settings, before)
    monkeypatch.setattr(clock.doubt, "__kwdefaults__", {"is_synchronised": lambda: 0})
    assert store.run("purge").output == ""  # nothing is due
    configure(store, f"archive_retention = {LEGAL}=90d")
    output = store.run("purge", exit_code=1).output
    assert "no time service vouches for it" in output
    assert len(stored(store)) == 21
    assert clock.last_run(store.settings) == before
    assert "no time service" in store.run("purge", "--really", exit_code=1).output
    configure(store, "archive_purge_limit = 0%")
    output = store.run("purge", "--clock-is-right", exit_code=1).output
    assert "1 of 21 records are due" in output
    assert len(stored(store)) == 21
    store.run("purge", "--clock-is-right", "--really")
    assert len(stored(store)) == 20


def test_what_another_run_left_is_completed_first(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=1y")
    store.run("purge")
    old = old_id(store)
    kept = store.copy_path(old).read_bytes()
    store.note_retention(old)
    removal.remove(store.settings, LEGAL, old, "purged", {"rule": "x"})
    store.copy_path(old).write_bytes(kept)
    os.chmod(store.copy_path(old), 0o400)
    assert "1 earlier removals completed" in store.run("purge").output
    assert old not in stored(store)
    assert_sound(store)
    assert dates.format_rfc3339(clock.last_run(store.settings) or 0) > "2026"


def test_a_store_that_is_not_there_is_not_purged(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    before = clock.last_run(store.settings)
    aside = store.directory / "aside"
    store.path.rename(aside)
    assert "check its file system" in store.run("purge", exit_code=1).output
    store.path.mkdir()  # where it was mounted
    assert store.run("purge").output == ""
    assert clock.last_run(store.settings) == before
    assert len(list(aside.rglob("*.eml.gz"))) == 21
    store.path.rmdir()
    aside.rename(store.path)
    store.run("purge")
    assert clock.last_run(store.settings) != before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_lock_is_the_archive_users_even_if_the_store_is_roots() -> None:
    """As the directory is over which a file system will be mounted."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own are for one user
    try:
        directory.chmod(0o711)
        store = SampleStore(directory)
        user = pwd.getpwnam("nobody").pw_uid
        os.chown(directory / "fallback", user, -1)
        store.run("purge")
        assert (directory / "fallback" / "purge.lock").stat().st_uid == user
    finally:
        shutil.rmtree(directory)


def test_a_journal_that_has_lost_lines_is_not_purged(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=90d")
    before = clock.last_run(store.settings)
    store.add(b"Subject: y\r\n\r\n", archive="hr@example.com")
    collect._tallies(store.settings)  # as status does, which notes where they end
    shutil.rmtree(store.path / "hr@example.com")
    for options in ([], ["--dry-run"], ["--really"]):
        output = store.run("purge", *options, exit_code=1).output
        assert "hr@example.com: the journal is missing; it had" in output
        assert "so nothing is removed; mount the store" in output
    assert clock.last_run(store.settings) == before
    assert len(stored(store)) == 21


def test_a_run_dated_by_a_clock_ahead_hides_nothing_that_is_left(
    store: SampleStore,
) -> None:
    old = old_id(store)
    kept = store.copy_path(old).read_bytes()
    store.note_retention(old)
    removal.remove(store.settings, LEGAL, old, "purged", {"rule": "x"})
    store.copy_path(old).write_bytes(kept)
    clock.record_run(store.settings, time.time() + 300 * DAY)
    assert "1 earlier removals completed" in store.run("purge").output
    assert old not in stored(store)
    assert (clock.last_run(store.settings) or 0) <= time.time()


def test_what_comes_after_the_decision_is_decided_by_the_next_run(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rules(store, "rcpt:board@example.com permanent", "subject:invoice 90d")
    old, remove_all = old_id(store), removal.remove_all

    def after_a_pass(*arguments: Any, **options: Any) -> dict[str, tuple[str, ...]]:
        store._count = 0  # the message of before
        again = store.add(
            b"Subject: old invoice\r\n\r\n",
            recipients=(b"board@example.com",),
            arrival=ARRIVAL - 180 * DAY,
        )
        assert again == old
        return remove_all(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(removal, "remove_all", after_a_pass)
        assert store.run("purge").output == ""
    [_] = events(store, "supplement")
    assert store.run("purge").output == ""
    assert old in stored(store) and not events(store, "purged")
    assert_sound(store)


def test_the_doctor_names_addresses_that_are_no_archive(store: SampleStore) -> None:
    configure(store, f"archive_retention = {LEGAL}=1y, lehal@example.com=1y, a@b.c=1y")
    config = configuration.Configuration(
        directory="/", main={}, parameters={"archive": "a@b.c"}, services=()
    )
    unknown = inspection._unknown_retention_archives(config, store.settings)
    assert unknown == ("lehal@example.com",)


def test_the_doctor_misses_no_purge_where_nothing_was_archived(
    tmp_path: Path,
) -> None:
    store = SampleStore(tmp_path)
    os.utime(tmp_path / "archive.cf", (1, 1))
    assert inspection._purge_age(store.settings) == 0
    store.add(b"Subject: x\r\n\r\n")
    assert (inspection._purge_age(store.settings) or 0) > 365 * DAY


def test_an_instance_without_a_store_has_nothing_to_purge(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.path.rmdir()
    configure(store, "archive_delivery = mail")
    assert store.run("purge").output == ""
    assert clock.last_run(store.settings) is None
