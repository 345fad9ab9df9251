"""Numbers for monitoring: the truth of a live instance, and Prometheus takes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.status import prometheus_text
from postfix_archive.store import journal
from postfix_archive.store.outcome import Outcome
from postfix_archive.system import scheduler

import prometheus
from mails import LEGAL, mail, record_of
from private_postfix import GROUP, ROOT, USER, PrivatePostfix, free_ports
from unit.status.test_prometheus_text import full, read, tallied

pytestmark = pytest.mark.live
ALERTS = ROOT / "contrib" / "prometheus-alerts.yml"
HOSTILE = 'a"} 1\n\\evil\x1b\r\x00\udc80@x'
RECONCILED = {
    "time": "2026-11-22T11:53:00Z",
    "since": "2026-11-21T00:00:00Z",
    "until": "2026-11-22T00:00:00Z",
    **{"accepted": 10, "archived": 7, "waiting": 0, "rescued": 0},
    **{"not_requested": 1, "missing": 2},
}


@pytest.fixture
def cache(request: pytest.FixtureRequest) -> Path:
    """Where downloaded programs are kept."""
    assert request.config.cache
    return Path(request.config.cache.mkdir("prometheus"))


@pytest.fixture
def promtool(cache: Path) -> Path:
    """Prometheus' own judge."""
    return prometheus.program("prometheus", "promtool", cache)


@pytest.fixture(scope="module")
def monitored() -> Iterator[PrivatePostfix]:
    """An instance in which something of every kind has happened."""
    with PrivatePostfix() as postfix:
        for name in ("one", "two"):
            postfix.send(mail(name), to=["bob@example.net", "carol@example.net"])
        postfix.send(b"Archive-Stamp: v=1; k=test; id=x\n" + mail("forged"))
        postfix.settle()
        record = record_of(postfix, "one")
        told(postfix, record.archive_id, "bob@example.net", "waiting")
        told(postfix, record.archive_id, "carol@example.net", "waiting")
        told(postfix, record.archive_id, "carol@example.net", "relayed")
        yield postfix


def told(postfix: PrivatePostfix, archive_id: str, recipient: str, kind: str) -> None:
    """Write an outcome into the journal."""
    at = "2026-11-22T11:53:00Z"
    words = Outcome(
        recipient, kind, capture_queue_id="4Zx", queue_id="4Zy", time=at
    ).event_fields()
    with journal.Journal(str(postfix.store / LEGAL)) as events:
        events.append("outcome", at, id=archive_id, **words)


def judged(promtool: Path, *words: str | Path, text: str = "") -> None:
    """Fail unless promtool has nothing to say against it."""
    done = subprocess.run(
        [promtool, "check", *words],
        input=text,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def numbers(postfix: PrivatePostfix, text: str = "") -> dict[str, int]:
    """Return the numbers by name and labels, without those that name the instance."""
    text = text or postfix.command("status", "--prometheus").stdout
    found = {}
    for (name, labels), value in read(text).items():
        assert labels[0] == ("config_directory", str(postfix.etc))
        words = [each for key, each in labels[1:] if key != "version"]
        found[" ".join([name.removeprefix(prometheus_text.PREFIX), *words])] = value
    return found


def facts(postfix: PrivatePostfix) -> dict[str, Any]:
    """Return what status --json says."""
    found: dict[str, Any] = json.loads(postfix.command("status", "--json").stdout)
    return found


def as_the_timer(postfix: PrivatePostfix) -> subprocess.CompletedProcess[str]:
    """Run what the timer runs, with cron's environment and a close umask."""
    command = postfix.folder / "postfix-archive"
    command.write_text(
        f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m postfix_archive "$@"\n'
    )
    command.chmod(0o755)
    line = scheduler.shell_command(
        scheduler.TIMER_COMMAND, str(postfix.etc), str(command)
    )
    return subprocess.run(
        ["/bin/sh", "-c", f"umask 077; {line}"],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )


# --- Prometheus takes them -----------------------------------------------------------


def test_promtool_has_nothing_to_say(monitored: PrivatePostfix, promtool: Path) -> None:
    done = monitored.command("status", "--prometheus")
    assert done.returncode == 0
    judged(promtool, "metrics", text=done.stdout)


def test_promtool_takes_everything_and_names_of_any_kind(promtool: Path) -> None:
    tallies = {LEGAL: tallied(messages=5), HOSTILE: tallied(messages=1)}
    text = prometheus_text.text(
        full(tallies=tallies, store_errors={HOSTILE + "x": "gone"})
    )
    judged(promtool, "metrics", text=text)
    with pytest.raises(AssertionError):  # it does look
        judged(promtool, "metrics", text=text.replace("\\n", "\n"))


def test_promtool_takes_the_alerts_that_we_propose(promtool: Path) -> None:
    words = [str(promtool), "check", "rules", str(ALERTS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_node_exporter_takes_the_files_of_two_instances(
    monitored: PrivatePostfix, cache: Path, tmp_path: Path
) -> None:
    text = monitored.command("status", "--prometheus").stdout
    (tmp_path / "one.prom").write_text(text)
    (tmp_path / "two.prom").write_text(prometheus_text.text(full()))
    program = prometheus.program(
        "prometheus-node-exporter", "prometheus-node-exporter", cache
    )
    [port] = free_ports(1)
    with prometheus.node_exporter(program, port, tmp_path) as url:
        found = prometheus.scraped(url)
    assert "node_textfile_scrape_error 0\n" in found
    assert found.count("\npostfix_archive_build_info{") == 2
    assert f'archived_messages_total{{archive="{LEGAL}",' in found


# --- they are the truth --------------------------------------------------------------


def test_the_numbers_are_what_has_happened(monitored: PrivatePostfix) -> None:
    found = numbers(monitored)
    files = [each for each in monitored.store.rglob("*.eml.gz")]
    files += [monitored.store / LEGAL / "journal"]
    assert found[f"archived_messages_total {LEGAL}"] == 3
    assert found[f"stamps_total {LEGAL} absent"] == 2
    assert found[f"stamps_total {LEGAL} forged"] == 1
    assert found[f"mailed_copies_total {LEGAL}"] == 3
    assert found[f"outcomes_total {LEGAL} relayed"] == 1
    assert found[f"outcomes_total {LEGAL} delivered"] == 0
    assert found[f"waiting_recipients {LEGAL}"] == 1
    assert found[f"store_bytes {LEGAL}"] == sum(each.stat().st_size for each in files)
    space = os.statvfs(monitored.store)
    assert found["filesystem_size_bytes store"] == space.f_blocks * space.f_frsize
    for name in ("severity", "held_messages", "bypass_on", "waiting_messages filter"):
        assert found[name] == 0


def test_people_and_programs_are_told_the_same(monitored: PrivatePostfix) -> None:
    said = monitored.command("status").stdout
    assert f"{LEGAL}: 3 messages, last at 2" in said
    assert "  recipients: 1 relayed, 1 waiting\n" in said
    assert "  stamps: 1 forged\n" in said
    [archive] = facts(monitored)["archives"]
    assert (archive["messages"], archive["stamps"]["forged"]) == (3, 1)
    assert archive["outcomes"]["relayed"] == archive["waiting_recipients"] == 1


def test_the_last_runs_are_told(monitored: PrivatePostfix) -> None:
    assert not [each for each in numbers(monitored) if "reconciled" in each]
    assert facts(monitored)["last_reconcile"] is None
    note = monitored.fallback / "reconciled"
    followed = monitored.fallback / "followed"
    note.write_text(json.dumps(RECONCILED))
    followed.touch()
    os.utime(followed, (1e9, 1e9))
    try:
        found = numbers(monitored)
        assert found["reconciled_messages missing"] == 2
        assert found["reconciled_accepted_messages"] == 10
        assert found["reconciled_timestamp_seconds"] == 1795348380
        assert found["outcomes_followed_timestamp_seconds"] == 1_000_000_000
        assert found["severity"] == 1
        done = monitored.command("status")
        assert done.returncode == 1
        assert "2 MISSING of 10 accepted from 2026-11-21T00:00:00Z" in done.stdout
        note.write_text("{")
        assert "reconciled_messages missing" not in numbers(monitored)
    finally:
        note.unlink()
        followed.unlink()


def test_what_the_log_says_became_of_recipients_is_counted() -> None:
    with PrivatePostfix() as postfix:
        postfix.send(mail("one"), to=["bob@example.net", "carol@example.net"])
        postfix.settle()
        assert "outcomes_followed_timestamp_seconds" not in numbers(postfix)
        assert numbers(postfix)[f"archived_messages_total {LEGAL}"] == 1
        before = int(time.time())
        assert postfix.command("outcomes", "--once").returncode == 0
        found = numbers(postfix)
        became = [v for k, v in found.items() if k.startswith("outcomes_total")]
        assert sum(became) == 2
        assert found[f"waiting_recipients {LEGAL}"] == 0
        assert found["outcomes_followed_timestamp_seconds"] >= before


def test_what_waits_has_an_age(monitored: PrivatePostfix) -> None:
    waiting = monitored.fallback / "x.capsule"
    waiting.write_bytes(b"x")
    os.utime(waiting, (waiting.stat().st_mtime - 5000,) * 2)
    try:
        found = numbers(monitored)
        assert found["waiting_messages fallback"] == 1
        assert 5000 <= found["oldest_waiting_age_seconds fallback"] < 6000
        assert found["oldest_waiting_age_seconds queue"] == 0
    finally:
        waiting.unlink()


def test_a_damaged_line_is_named_and_hides_nothing(monitored: PrivatePostfix) -> None:
    path = monitored.store / LEGAL / "journal"
    text = path.read_bytes()
    path.write_bytes(text + b"[]\n")
    done = monitored.command("status")
    found = numbers(monitored)
    path.write_bytes(text)
    assert done.returncode == 2
    line = text.count(b"\n") + 1
    assert f"of {LEGAL}: 1 invalid lines, first is line {line}; " in done.stdout
    assert found[f"damaged_journal_lines {LEGAL}"] == 1
    assert found[f"archived_messages_total {LEGAL}"] == 3
    assert monitored.command("status").returncode == 0


def test_a_store_that_cannot_be_read_is_told_of(monitored: PrivatePostfix) -> None:
    hidden = monitored.store.rename(monitored.store.with_name("hidden"))
    monitored.store.write_text("no folder")
    try:
        found = numbers(monitored)
        assert (found["store_readable"], found["severity"]) == (0, 2)
        assert f"archived_messages_total {LEGAL}" not in found
    finally:
        monitored.store.unlink()
        hidden.rename(monitored.store)
    assert numbers(monitored)["store_readable"] == 1


# --- the timer writes them -----------------------------------------------------------


def test_the_timer_writes_them_for_everybody_to_read(
    monitored: PrivatePostfix, promtool: Path
) -> None:
    folder = monitored.folder / "textfile"
    folder.mkdir()
    path = folder / "postfix-archive.prom"
    monitored.set_archive_cf(archive_prometheus_file=str(path))
    try:
        for _ in range(2):  # makes the file, and writes it anew
            done = as_the_timer(monitored)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert path.stat().st_mode & 0o777 == 0o644
            assert [each.name for each in folder.iterdir()] == [path.name]
    finally:
        monitored.set_archive_cf()
    text = path.read_text()
    judged(promtool, "metrics", text=text)
    assert numbers(monitored, text)[f"archived_messages_total {LEGAL}"] == 3
    assert numbers(monitored, text)["last_rescue_timestamp_seconds"] > 1_700_000_000


def test_copies_that_wait_are_written_too_and_the_timer_fails(
    monitored: PrivatePostfix,
) -> None:
    path = monitored.folder / "waits.prom"
    monitored.set_archive_cf(archive_prometheus_file=str(path))
    waiting = monitored.fallback / "x.capsule"
    waiting.write_bytes(b"x")
    try:
        done = as_the_timer(monitored)
    finally:
        waiting.unlink()
        monitored.set_archive_cf()
    assert done.returncode == 1
    assert "Messages left" in done.stderr
    assert numbers(monitored, path.read_text())["waiting_messages fallback"] == 1


def test_without_the_setting_nothing_is_written(monitored: PrivatePostfix) -> None:
    done = monitored.command("status", "--write")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_folder_that_is_not_there_is_named(monitored: PrivatePostfix) -> None:
    path = monitored.folder / "nowhere" / "x.prom"
    monitored.set_archive_cf(archive_prometheus_file=str(path))
    done = monitored.command("status", "--write")
    monitored.set_archive_cf()
    assert done.returncode == 1
    assert f"{path.parent}: No such file or directory" in done.stderr
    assert not path.parent.exists()


def test_root_is_led_to_no_other_file(monitored: PrivatePostfix) -> None:
    """A folder that is somebody else's, with a symlink in the file's place."""
    folder = monitored.folder / "theirs"
    folder.mkdir()
    outside = monitored.folder / "outside"
    outside.write_text("of root")
    (folder / "x.prom").symlink_to(outside)
    subprocess.run(["chown", f"{USER}:{GROUP}", folder], check=True)
    monitored.set_archive_cf(archive_prometheus_file=f"{folder}/x.prom")
    done = monitored.command("status", "--write")
    monitored.set_archive_cf()
    assert done.returncode == 0, done.stderr
    assert outside.read_text() == "of root"
    assert not (folder / "x.prom").is_symlink()
    assert (folder / "x.prom").stat().st_uid == folder.stat().st_uid


def test_two_forms_at_once_are_refused(monitored: PrivatePostfix) -> None:
    done = monitored.command("status", "--json", "--prometheus")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr
