"""The outcome report: made once, kept beside the copy, mailed if wanted, no loop."""

from __future__ import annotations

import email
from pathlib import Path

import pytest
from outcome_host import BECAME, PEOPLE, actions, instance

from mails import LEGAL, mail, record_of, records, words
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
MAILED = {"archive_outcome_mail": "yes"}


def followed(postfix: PrivatePostfix) -> None:
    """Read the log once; nothing is to be complained of."""
    done = postfix.command("outcomes", "--once")
    assert (done.returncode, done.stderr) == (0, "")


def report_of(postfix: PrivatePostfix, name: str) -> bytes:
    """Return the outcome report of a message, as the command gives it."""
    archive_id = record_of(postfix, name).archive_id
    done = postfix.command("show", "--outcome", archive_id)
    assert done.returncode == 0, done.stderr
    return done.stdout.encode()


def test_once_all_is_settled_a_report_is_kept_beside_the_copy() -> None:
    with instance() as postfix:
        postfix.send(mail("settled"), to=[*PEOPLE, "y@later.example.net"])
        postfix.wait(lambda: len(postfix.mailq()) == 1, "one recipient waits")
        followed(postfix)
        record = record_of(postfix, "settled")
        assert not record.reports and record.results.overall_kind == "waiting"
        done = postfix.command("show", "--outcome", record.archive_id)
        assert done.returncode == 1
        assert "has no outcome report yet" in done.stderr
        postfix.forget([str(postfix.mailq()[0]["queue_id"])])
        postfix.settle()
        followed(postfix)
        assert actions(report_of(postfix, "settled")) == {
            **BECAME,
            "y@later.example.net": ("failed", "4.3.0"),
        }
        record = record_of(postfix, "settled")
        [name] = record.reports
        file = Path(postfix.store) / LEGAL / name
        assert file.parent == (Path(postfix.store) / LEGAL / record.files[0]).parent
        assert file.stat().st_mode & 0o777 == 0o400
        shown = postfix.command("show", record.archive_id).stdout
        assert "Outcome:     mixed" in shown
        assert "y@later.example.net\n    deleted (" in shown
        assert "pair@example.net\n    expanded" in shown
        assert "    one@example.net\n      delivered (2.0.0)" in shown
        assert "(mixed)" in postfix.command("list").stdout
        events = len(postfix.events())
        followed(postfix)
        assert len(postfix.events()) == events
        assert postfix.command("verify").returncode == 0
        assert len(postfix.delivered_to(LEGAL)) == 1  # the copy; no report is mailed


def test_a_report_is_mailed_once_and_is_not_archived_itself() -> None:
    with instance(**MAILED) as postfix:
        postfix.send(mail("mailed"), to=["bob@example.net", "x@no.example.net"])
        postfix.settle()
        for _ in range(3):
            followed(postfix)
            postfix.settle()
        copy, report = postfix.delivered_to(LEGAL)
        read = email.message_from_bytes(report.content)
        assert read["Subject"] == "Outcome: mailed"
        assert (
            read["References"] == email.message_from_bytes(copy.content)["Message-Id"]
        )
        assert actions(report.content)["x@no.example.net"] == ("failed", "5.1.1")
        record = record_of(postfix, "mailed")
        told = words(record)
        assert told.count("outcome-report") == told.count("outcome-mailed") == 1
        assert [e["event"] for e in postfix.events()].count("archived") == 1
        assert postfix.command("verify").returncode == 0


def test_a_report_that_postfix_does_not_take_waits_and_is_mailed_later() -> None:
    with instance(**MAILED, archive_copy_address="127.0.0.1:1") as postfix:
        postfix.send(mail("later"))
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it is delivered")
        postfix.wait(lambda: records(postfix, "later"), "it is stored")
        done = postfix.command("outcomes", "--once")
        assert done.returncode == 0
        assert "outcome reports not mailed yet: connect to 127.0.0.1:1: " in done.stderr
        assert list(record_of(postfix, "later").reports)
        text = (postfix.etc / "archive.cf").read_text()
        lines = [e for e in text.splitlines() if "archive_copy_address" not in e]
        port = f"archive_copy_address = 127.0.0.1:{postfix.ports[3]}"
        (postfix.etc / "archive.cf").write_text("\n".join([*lines, port, ""]))
        postfix.flush()
        postfix.settle()
        followed(postfix)
        postfix.settle()
        assert len(postfix.delivered_to(LEGAL)) == 2
        assert words(record_of(postfix, "later")).count("outcome-mailed") == 1


def test_without_the_keys_outcomes_are_told_and_reports_wait() -> None:
    with instance() as postfix:
        postfix.send(mail("keyless"))
        postfix.settle()
        key = postfix.etc / "archive.key"
        away = key.rename(postfix.etc / "away")
        done = postfix.command("outcomes", "--once")
        assert done.returncode == 0
        assert f"outcome reports delayed: {key}" in done.stderr
        record = record_of(postfix, "keyless")
        assert record.results.overall_kind == "delivered" and not record.reports
        away.rename(key)
        followed(postfix)
        assert record_of(postfix, "keyless").reports


def test_a_copy_that_is_gone_costs_no_outcome_and_no_report_but_its_own() -> None:
    with instance() as postfix:
        for name in ("gone", "there"):
            postfix.send(mail(name))
            postfix.settle()
        gone, there = record_of(postfix, "gone"), record_of(postfix, "there")
        path = Path(postfix.store) / LEGAL / gone.files[0]
        path.unlink()
        done = postfix.command("outcomes", "--once")
        assert done.returncode == 0
        assert f"outcome reports delayed: {path}: No such file" in done.stderr
        told = [str(e["id"]) for e in postfix.events() if e["event"] == "outcome"]
        assert sorted(told) == sorted([gone.archive_id, there.archive_id])
        [report] = [e for e in postfix.events() if e["event"] == "outcome-report"]
        assert report["id"] == there.archive_id
