"""The outcome report: made once, kept beside the copy, mailed if wanted, no loop."""

from __future__ import annotations

import email
import json
from pathlib import Path

import pytest
from outcome_host import (
    EXPECTED_ACTIONS,
    RECIPIENTS,
    SINGLE_MEMBERS,
    actions,
    instance,
)

from mails import LEGAL, event_kinds, mail, record_of, records
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
MAILED = {"archive_outcome_mail": "yes"}


def follow_log(postfix: PrivatePostfix) -> None:
    """Read the log once; nothing is to be complained of."""
    process = postfix.run_command("outcomes", "--once")
    assert (process.returncode, process.stderr) == (0, "")


def report_of(postfix: PrivatePostfix, name: str) -> bytes:
    """Return the outcome report of a message, as the command gives it."""
    archive_id = record_of(postfix, name).archive_id
    process = postfix.run_command("show", "--outcome", archive_id)
    assert process.returncode == 0, process.stderr
    return process.stdout.encode()


def test_once_all_is_settled_a_report_is_stored_beside_the_copy() -> None:
    with instance() as postfix:
        postfix.send(mail("settled"), to=[*RECIPIENTS, "y@later.example.net"])
        postfix.wait(lambda: len(postfix.mailq()) == 1, "one recipient waits")
        follow_log(postfix)
        record = record_of(postfix, "settled")
        assert not record.reports and record.results.overall_kind == "waiting"
        process = postfix.run_command("show", "--outcome", record.archive_id)
        assert process.returncode == 1
        assert "has no outcome report yet" in process.stderr
        postfix.delete_messages([str(postfix.mailq()[0]["queue_id"])])
        postfix.wait_for_empty_queue()
        follow_log(postfix)
        assert actions(report_of(postfix, "settled")) == {
            **EXPECTED_ACTIONS,
            "y@later.example.net": ("failed", "4.3.0"),
        }
        record = record_of(postfix, "settled")
        [name] = record.reports
        file = Path(postfix.store) / LEGAL / name
        assert file.parent == (Path(postfix.store) / LEGAL / record.files[0]).parent
        assert file.stat().st_mode & 0o777 == 0o400
        output = postfix.run_command("show", record.archive_id).stdout
        assert "Outcome:     mixed" in output
        assert "y@later.example.net\n    deleted (" in output
        assert "pair@example.net\n    expanded" in output
        assert "    one@example.net\n      delivered (2.0.0)" in output
        assert "(mixed)" in postfix.run_command("list").stdout
        events = len(postfix.events())
        follow_log(postfix)
        assert len(postfix.events()) == events
        assert postfix.run_command("verify").returncode == 0
        assert len(postfix.delivered_to(LEGAL)) == 1  # the copy; no report is mailed


def test_a_report_is_mailed_once_and_is_not_archived_itself() -> None:
    with instance(**MAILED) as postfix:
        postfix.send(mail("mailed"), to=["bob@example.net", "x@no.example.net"])
        postfix.wait_for_empty_queue()
        for _ in range(3):
            follow_log(postfix)
            postfix.wait_for_empty_queue()
        copy, report = postfix.delivered_to(LEGAL)
        read = email.message_from_bytes(report.content)
        assert read["Subject"] == "Outcome: mailed"
        assert (
            read["References"] == email.message_from_bytes(copy.content)["Message-Id"]
        )
        assert actions(report.content)["x@no.example.net"] == ("failed", "5.1.1")
        record = record_of(postfix, "mailed")
        kinds = event_kinds(record)
        assert kinds.count("outcome-report") == kinds.count("outcome-mailed") == 1
        assert [e["event"] for e in postfix.events()].count("archived") == 1
        assert postfix.run_command("verify").returncode == 0


def test_a_report_that_postfix_does_not_take_waits_and_is_mailed_later() -> None:
    with instance(**MAILED, archive_copy_address="127.0.0.1:1") as postfix:
        postfix.send(mail("later"))
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it is delivered")
        postfix.wait(lambda: records(postfix, "later"), "it is stored")
        process = postfix.run_command("outcomes", "--once")
        assert process.returncode == 0
        assert (
            "outcome reports not mailed yet: connect to 127.0.0.1:1: " in process.stderr
        )
        assert list(record_of(postfix, "later").reports)
        text = (postfix.etc / "archive.cf").read_text()
        lines = [e for e in text.splitlines() if "archive_copy_address" not in e]
        port = f"archive_copy_address = 127.0.0.1:{postfix.ports[3]}"
        (postfix.etc / "archive.cf").write_text("\n".join([*lines, port, ""]))
        postfix.flush()
        postfix.wait_for_empty_queue()
        follow_log(postfix)
        postfix.wait_for_empty_queue()
        assert len(postfix.delivered_to(LEGAL)) == 2
        assert event_kinds(record_of(postfix, "later")).count("outcome-mailed") == 1


def test_without_the_keys_outcomes_are_recorded_and_reports_wait() -> None:
    with instance() as postfix:
        postfix.send(mail("keyless"))
        postfix.wait_for_empty_queue()
        key = postfix.etc / "archive.key"
        moved_key = key.rename(postfix.etc / "away")
        process = postfix.run_command("outcomes", "--once")
        assert process.returncode == 0
        assert f"outcome reports delayed: {key}" in process.stderr
        record = record_of(postfix, "keyless")
        assert record.results.overall_kind == "delivered" and not record.reports
        moved_key.rename(key)
        follow_log(postfix)
        assert record_of(postfix, "keyless").reports


def test_a_copy_that_is_gone_costs_no_outcome_and_no_report_but_its_own() -> None:
    with instance() as postfix:
        for name in ("gone", "there"):
            postfix.send(mail(name))
            postfix.wait_for_empty_queue()
        without_copy, with_copy = record_of(postfix, "gone"), record_of(
            postfix, "there"
        )
        path = Path(postfix.store) / LEGAL / without_copy.files[0]
        path.unlink()
        process = postfix.run_command("outcomes", "--once")
        assert process.returncode == 0
        assert f"outcome reports delayed: {path}: No such file" in process.stderr
        outcome_ids = [
            str(e["id"]) for e in postfix.events() if e["event"] == "outcome"
        ]
        assert sorted(outcome_ids) == sorted(
            [without_copy.archive_id, with_copy.archive_id]
        )
        [report] = [e for e in postfix.events() if e["event"] == "outcome-report"]
        assert report["id"] == with_copy.archive_id


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
@pytest.mark.parametrize("recipient", SINGLE_MEMBERS)
def test_an_alias_of_one_member_is_settled_for_every_reader(
    mode: str, recipient: str
) -> None:
    with instance(mode) as postfix:
        postfix.send(mail("single"), to=[recipient])
        postfix.wait_for_empty_queue()
        follow_log(postfix)
        record = record_of(postfix, "single")
        assert (record.results.is_settled, len(record.reports)) == (True, 1)
        report = report_of(postfix, "single")
        assert actions(report) == {recipient: ("delivered", "2.0.0")}
        assert b"mapped to <bob@example.net>" in report
        assert "  mapped to bob@example.net" in (
            postfix.run_command("show", record.archive_id).stdout
        )
        [line] = postfix.run_command("list", "--json").stdout.splitlines()
        fields = json.loads(line)
        assert (fields["outcome"], fields["outcomes"]) == (
            "delivered",
            {"delivered": 1},
        )
        assert "(delivered)  single" in postfix.run_command("list").stdout
        status = json.loads(postfix.run_command("status", "--json").stdout)
        [archive] = status["archives"]
        assert archive["outcomes"]["delivered"] == 1
        assert archive["waiting_recipients"] == 0


@pytest.mark.parametrize("mode", ["pipe", "lmtp"])
def test_mail_to_a_name_without_a_domain_is_settled(mode: str) -> None:
    with instance(mode) as postfix:
        process = postfix.sendmail(mail("bare"), to=["root", "bob@example.net"])
        assert process.returncode == 0
        postfix.wait_for_empty_queue()
        follow_log(postfix)
        record = record_of(postfix, "bare")
        assert record.results.counts_by_kind == {"delivered": 2}
        assert len(record.reports) == 1
