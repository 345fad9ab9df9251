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

import journal_lines
import prometheus
from mails import LEGAL, mail, record_of
from private_postfix import GROUP, ROOT, USER, PrivatePostfix, free_ports
from unit.status.test_prometheus_text import make_snapshot, make_tally, parse

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
    return prometheus.download_program("prometheus", "promtool", cache)


@pytest.fixture(scope="module")
def monitored_host() -> Iterator[PrivatePostfix]:
    """An instance in which something of every kind has happened."""
    with PrivatePostfix() as postfix:
        for name in ("one", "two"):
            postfix.send(mail(name), to=["bob@example.net", "carol@example.net"])
        postfix.send(b"Archive-Stamp: v=1; k=test; id=x\n" + mail("forged"))
        postfix.wait_for_empty_queue()
        record = record_of(postfix, "one")
        append_outcome(postfix, record.archive_id, "bob@example.net", "waiting")
        append_outcome(postfix, record.archive_id, "carol@example.net", "waiting")
        append_outcome(postfix, record.archive_id, "carol@example.net", "relayed")
        yield postfix


def append_outcome(
    postfix: PrivatePostfix, archive_id: str, recipient: str, kind: str
) -> None:
    """Write an outcome into the journal."""
    time = "2026-11-22T11:53:00Z"
    fields = Outcome(
        recipient, kind, capture_queue_id="4Zx", queue_id="4Zy", time=time
    ).event_fields()
    with journal.Journal(str(postfix.store / LEGAL)) as events:
        events.append("outcome", time, id=archive_id, **fields)


def assert_promtool_accepts(
    promtool: Path, *arguments: str | Path, text: str = ""
) -> None:
    """Fail unless promtool has nothing to say against it."""
    process = subprocess.run(
        [promtool, "check", *arguments],
        input=text,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")


def read_metrics(postfix: PrivatePostfix, text: str = "") -> dict[str, int]:
    """Return the numbers by name and labels, without those that name the instance."""
    text = text or postfix.run_command("status", "--prometheus").stdout
    metrics = {}
    for (name, labels), value in parse(text).items():
        assert labels[0] == ("config_directory", str(postfix.etc))
        label_values = [each for key, each in labels[1:] if key != "version"]
        metrics[
            " ".join([name.removeprefix(prometheus_text.PREFIX), *label_values])
        ] = value
    return metrics


def read_status(postfix: PrivatePostfix) -> dict[str, Any]:
    """Return what status --json says."""
    status: dict[str, Any] = json.loads(postfix.run_command("status", "--json").stdout)
    return status


def run_as_timer(postfix: PrivatePostfix) -> subprocess.CompletedProcess[str]:
    """Run what the timer runs, with cron's environment and a close umask."""
    command = postfix.directory / "postfix-archive"
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


def test_promtool_finds_no_problem(
    monitored_host: PrivatePostfix, promtool: Path
) -> None:
    process = monitored_host.run_command("status", "--prometheus")
    assert process.returncode == 0
    assert_promtool_accepts(promtool, "metrics", text=process.stdout)


def test_promtool_takes_everything_and_names_of_any_kind(promtool: Path) -> None:
    tallies = {LEGAL: make_tally(messages=5), HOSTILE: make_tally(messages=1)}
    text = prometheus_text.text(
        make_snapshot(tallies=tallies, store_errors={HOSTILE + "x": "gone"})
    )
    assert_promtool_accepts(promtool, "metrics", text=text)
    with pytest.raises(AssertionError):  # it does look
        assert_promtool_accepts(promtool, "metrics", text=text.replace("\\n", "\n"))


def test_promtool_takes_the_alerts_that_we_propose(promtool: Path) -> None:
    command = [str(promtool), "check", "rules", str(ALERTS)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "SUCCESS" in process.stdout


def test_node_exporter_takes_the_files_of_two_instances(
    monitored_host: PrivatePostfix, cache: Path, tmp_path: Path
) -> None:
    text = monitored_host.run_command("status", "--prometheus").stdout
    (tmp_path / "one.prom").write_text(text)
    (tmp_path / "two.prom").write_text(prometheus_text.text(make_snapshot()))
    program = prometheus.download_program(
        "prometheus-node-exporter", "prometheus-node-exporter", cache
    )
    [port] = free_ports(1)
    with prometheus.node_exporter(program, port, tmp_path) as url:
        metrics_text = prometheus.scrape(url)
    assert "node_textfile_scrape_error 0\n" in metrics_text
    assert metrics_text.count("\npostfix_archive_build_info{") == 2
    assert f'archived_messages_total{{archive="{LEGAL}",' in metrics_text


# --- they are the truth --------------------------------------------------------------


def test_the_numbers_are_what_has_happened(monitored_host: PrivatePostfix) -> None:
    metrics = read_metrics(monitored_host)
    files = [each for each in monitored_host.store.rglob("*.eml.gz")]
    files += journal_lines.segments(monitored_host.store / LEGAL)
    assert metrics[f"archived_messages_total {LEGAL}"] == 3
    assert metrics[f"stamps_total {LEGAL} absent"] == 2
    assert metrics[f"stamps_total {LEGAL} forged"] == 1
    assert metrics[f"mailed_copies_total {LEGAL}"] == 3
    assert metrics[f"outcomes_total {LEGAL} relayed"] == 1
    assert metrics[f"outcomes_total {LEGAL} delivered"] == 0
    assert metrics[f"waiting_recipients {LEGAL}"] == 1
    assert metrics[f"store_bytes {LEGAL}"] == sum(each.stat().st_size for each in files)
    space = os.statvfs(monitored_host.store)
    assert metrics["filesystem_size_bytes store"] == space.f_blocks * space.f_frsize
    for name in ("severity", "held_messages", "bypass_on", "waiting_messages filter"):
        assert metrics[name] == 0


def test_text_and_json_report_the_same(monitored_host: PrivatePostfix) -> None:
    output = monitored_host.run_command("status").stdout
    assert f"{LEGAL}: 3 messages, last at 2" in output
    assert "  recipients: 1 relayed, 1 waiting\n" in output
    assert "  stamps: 1 forged\n" in output
    [archive] = read_status(monitored_host)["archives"]
    assert (archive["messages"], archive["stamps"]["forged"]) == (3, 1)
    assert archive["outcomes"]["relayed"] == archive["waiting_recipients"] == 1


def test_the_last_runs_are_reported(monitored_host: PrivatePostfix) -> None:
    assert not [each for each in read_metrics(monitored_host) if "reconciled" in each]
    assert read_status(monitored_host)["last_reconcile"] is None
    reconcile_file = monitored_host.fallback / "reconciled"
    follower_file = monitored_host.fallback / "followed"
    reconcile_file.write_text(json.dumps(RECONCILED))
    follower_file.touch()
    os.utime(follower_file, (1e9, 1e9))
    try:
        metrics = read_metrics(monitored_host)
        assert metrics["reconciled_messages missing"] == 2
        assert metrics["reconciled_accepted_messages"] == 10
        assert metrics["reconciled_timestamp_seconds"] == 1795348380
        assert metrics["outcomes_followed_timestamp_seconds"] == 1_000_000_000
        assert metrics["severity"] == 1
        process = monitored_host.run_command("status")
        assert process.returncode == 1
        assert "2 MISSING of 10 accepted from 2026-11-21T00:00:00Z" in process.stdout
        reconcile_file.write_text("{")
        assert "reconciled_messages missing" not in read_metrics(monitored_host)
    finally:
        reconcile_file.unlink()
        follower_file.unlink()


def test_outcomes_of_recipients_are_counted() -> None:
    with PrivatePostfix() as postfix:
        postfix.send(mail("one"), to=["bob@example.net", "carol@example.net"])
        postfix.wait_for_empty_queue()
        assert "outcomes_followed_timestamp_seconds" not in read_metrics(postfix)
        assert read_metrics(postfix)[f"archived_messages_total {LEGAL}"] == 1
        before = int(time.time())
        assert postfix.run_command("outcomes", "--once").returncode == 0
        metrics = read_metrics(postfix)
        outcome_counts = [
            v for k, v in metrics.items() if k.startswith("outcomes_total")
        ]
        assert sum(outcome_counts) == 2
        assert metrics[f"waiting_recipients {LEGAL}"] == 0
        assert metrics["outcomes_followed_timestamp_seconds"] >= before


def test_what_waits_has_an_age(monitored_host: PrivatePostfix) -> None:
    waiting = monitored_host.fallback / "x.capsule"
    waiting.write_bytes(b"x")
    os.utime(waiting, (waiting.stat().st_mtime - 5000,) * 2)
    try:
        metrics = read_metrics(monitored_host)
        assert metrics["waiting_messages fallback"] == 1
        assert 5000 <= metrics["oldest_waiting_age_seconds fallback"] < 6000
        assert metrics["oldest_waiting_age_seconds queue"] == 0
    finally:
        waiting.unlink()


def test_a_damaged_line_is_named_and_hides_nothing(
    monitored_host: PrivatePostfix,
) -> None:
    path = journal_lines.segment(monitored_host.store / LEGAL)
    text = path.read_bytes()
    path.write_bytes(text + b"[]\n")
    process = monitored_host.run_command("status")
    metrics = read_metrics(monitored_host)
    path.write_bytes(text)
    assert process.returncode == 2
    line = text.count(b"\n") + 1
    assert f"of {LEGAL}: 1 invalid lines, first is line {line}; " in process.stdout
    assert metrics[f"damaged_journal_lines {LEGAL}"] == 1
    assert metrics[f"archived_messages_total {LEGAL}"] == 3
    assert monitored_host.run_command("status").returncode == 0


def test_a_store_that_cannot_be_read_is_reported(
    monitored_host: PrivatePostfix,
) -> None:
    hidden = monitored_host.store.rename(monitored_host.store.with_name("hidden"))
    monitored_host.store.write_text("no folder")
    try:
        metrics = read_metrics(monitored_host)
        assert (metrics["store_readable"], metrics["severity"]) == (0, 2)
        assert f"archived_messages_total {LEGAL}" not in metrics
    finally:
        monitored_host.store.unlink()
        hidden.rename(monitored_host.store)
    assert read_metrics(monitored_host)["store_readable"] == 1


# --- the timer writes them -----------------------------------------------------------


def test_the_timer_writes_them_for_everybody_to_read(
    monitored_host: PrivatePostfix, promtool: Path
) -> None:
    directory = monitored_host.directory / "textfile"
    directory.mkdir()
    path = directory / "postfix-archive.prom"
    monitored_host.set_archive_cf(archive_prometheus_file=str(path))
    try:
        for _ in range(2):  # makes the file, and writes it anew
            process = run_as_timer(monitored_host)
            assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
            assert path.stat().st_mode & 0o777 == 0o644
            assert [each.name for each in directory.iterdir()] == [path.name]
    finally:
        monitored_host.set_archive_cf()
    text = path.read_text()
    assert_promtool_accepts(promtool, "metrics", text=text)
    assert read_metrics(monitored_host, text)[f"archived_messages_total {LEGAL}"] == 3
    assert (
        read_metrics(monitored_host, text)["last_rescue_timestamp_seconds"]
        > 1_700_000_000
    )


def test_copies_that_wait_are_written_too_and_the_timer_fails(
    monitored_host: PrivatePostfix,
) -> None:
    path = monitored_host.directory / "waits.prom"
    monitored_host.set_archive_cf(archive_prometheus_file=str(path))
    waiting = monitored_host.fallback / "x.capsule"
    waiting.write_bytes(b"x")
    try:
        process = run_as_timer(monitored_host)
    finally:
        waiting.unlink()
        monitored_host.set_archive_cf()
    assert process.returncode == 1
    assert "Messages left" in process.stderr
    assert (
        read_metrics(monitored_host, path.read_text())["waiting_messages fallback"] == 1
    )


def test_without_the_setting_nothing_is_written(monitored_host: PrivatePostfix) -> None:
    process = monitored_host.run_command("status", "--write")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_numbers_for_the_web_page(monitored_host: PrivatePostfix) -> None:
    """They are beside the index, for the group that may read it, with the queue."""
    monitored_host.set_archive_cf(archive_web_user="nobody")
    try:
        monitored_host.run_command("index", "--once")
        process = monitored_host.run_command("status", "--write")
        assert process.returncode == 0, process.stderr
    finally:
        monitored_host.set_archive_cf()
    [path] = monitored_host.store.rglob("status.json")
    status, index = path.stat(), path.parent.stat()
    assert (status.st_uid, status.st_gid) == (index.st_uid, index.st_gid)
    assert status.st_mode & 0o777 == 0o640
    state = json.loads(path.read_text())
    assert set(state["queue"]) >= {"count", "since"}
    [archive] = [each for each in state["archives"] if each["archive"] == LEGAL]
    assert sum(each[0] for each in archive["days"].values()) == archive["messages"]


def test_a_missing_directory_is_named(monitored_host: PrivatePostfix) -> None:
    path = monitored_host.directory / "nowhere" / "x.prom"
    monitored_host.set_archive_cf(archive_prometheus_file=str(path))
    process = monitored_host.run_command("status", "--write")
    monitored_host.set_archive_cf()
    assert process.returncode == 1
    assert f"{path.parent}: No such file or directory" in process.stderr
    assert not path.parent.exists()


def test_root_follows_no_link_to_another_file(monitored_host: PrivatePostfix) -> None:
    """A directory that is somebody else's, with a symlink in the file's place."""
    directory = monitored_host.directory / "theirs"
    directory.mkdir()
    target = monitored_host.directory / "outside"
    target.write_text("of root")
    (directory / "x.prom").symlink_to(target)
    subprocess.run(["chown", f"{USER}:{GROUP}", directory], check=True)
    monitored_host.set_archive_cf(archive_prometheus_file=f"{directory}/x.prom")
    process = monitored_host.run_command("status", "--write")
    monitored_host.set_archive_cf()
    assert process.returncode == 0, process.stderr
    assert target.read_text() == "of root"
    assert not (directory / "x.prom").is_symlink()
    assert (directory / "x.prom").stat().st_uid == directory.stat().st_uid


def test_two_forms_at_once_are_refused(monitored_host: PrivatePostfix) -> None:
    process = monitored_host.run_command("status", "--json", "--prometheus")
    assert process.returncode == 2
    assert "exclude each other" in process.stderr
