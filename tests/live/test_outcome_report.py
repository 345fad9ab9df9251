"""The outcome report: made once, kept beside the copy, mailed if wanted, no loop."""

from __future__ import annotations

import email
import email.message
from pathlib import Path

import pytest

from mails import LEGAL, mail, record_of, words
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
ROUTES = """\
archive-request.invalid archive-stamp:on-request
no.example.net error:5.1.1 no such user
later.example.net retry:4.3.0 come later
"""
VIRTUAL = "pair@example.net one@example.net two@no.example.net\n"
MAILED = {"archive_outcome_mail": "yes"}


def instance(**archive_cf: str) -> PrivatePostfix:
    """Return an instance, not yet started, that delivers, expands, refuses, defers."""
    postfix = PrivatePostfix(
        main={"smtpd_reject_unlisted_recipient": "no"}, archive_cf=archive_cf
    )
    (postfix.etc / "routes").write_text(ROUTES)
    (postfix.etc / "virtual").write_text(VIRTUAL)
    postfix.postconf(
        transport_maps=f"texthash:{postfix.etc}/routes",
        virtual_alias_maps=f"texthash:{postfix.etc}/virtual",
    )
    return postfix


def followed(postfix: PrivatePostfix) -> None:
    """Read the log once; nothing is to be complained of."""
    done = postfix.command("outcomes", "--once")
    assert (done.returncode, done.stderr) == (0, "")


def report_of(postfix: PrivatePostfix, name: str) -> email.message.Message:
    """Return the outcome report of a message, as the command gives it."""
    archive_id = record_of(postfix, name).archive_id
    done = postfix.command("show", "--outcome", archive_id)
    assert done.returncode == 0, done.stderr
    return email.message_from_string(done.stdout)


def actions(report: email.message.Message) -> dict[str, tuple[str, str]]:
    """Return Action and Status of each recipient in a report."""
    [status] = [
        part
        for part in report.walk()
        if part.get_content_type() == "message/delivery-status"
    ]
    groups = status.get_payload()
    assert isinstance(groups, list)
    return {
        str(each["Final-Recipient"]).partition("; ")[2]: (
            str(each["Action"]),
            str(each["Status"]),
        )
        for each in groups
        if isinstance(each, email.message.Message) and each["Final-Recipient"]
    }


def test_once_all_is_settled_a_report_is_kept_beside_the_copy() -> None:
    with instance() as postfix:
        people = ["bob@example.net", "x@no.example.net", "pair@example.net"]
        postfix.send(mail("settled"), to=[*people, "y@later.example.net"])
        postfix.wait(lambda: len(postfix.mailq()) == 1, "one recipient waits")
        followed(postfix)
        record = record_of(postfix, "settled")
        assert not record.reports and record.results.word == "waiting"
        done = postfix.command("show", "--outcome", record.archive_id)
        assert done.returncode == 1
        assert "has no outcome report yet" in done.stderr
        postfix.forget([str(postfix.mailq()[0]["queue_id"])])
        postfix.settle()
        followed(postfix)
        assert actions(report_of(postfix, "settled")) == {
            "bob@example.net": ("delivered", "2.0.0"),
            "x@no.example.net": ("failed", "5.1.1"),
            "pair@example.net": ("expanded", "2.0.0"),
            "one@example.net": ("delivered", "2.0.0"),
            "two@no.example.net": ("failed", "5.1.1"),
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
        assert actions(read)["x@no.example.net"] == ("failed", "5.1.1")
        record = record_of(postfix, "mailed")
        told = words(record)
        assert told.count("outcome-report") == told.count("outcome-mailed") == 1
        assert [e["event"] for e in postfix.events()].count("archived") == 1
        assert postfix.command("verify").returncode == 0


def test_a_report_that_postfix_does_not_take_waits_and_is_mailed_later() -> None:
    with instance(**MAILED, archive_copy_address="127.0.0.1:1") as postfix:
        postfix.send(mail("later"))
        postfix.wait(lambda: postfix.delivered_to("bob@example.net"), "it is delivered")
        postfix.wait(lambda: record_of(postfix, "later"), "it is stored")
        done = postfix.command("outcomes", "--once")
        assert done.returncode == 0
        assert "outcome reports wait to be mailed: nobody answers" in done.stderr
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
        assert "until then outcome reports wait" in done.stderr
        record = record_of(postfix, "keyless")
        assert record.results.word == "delivered" and not record.reports
        away.rename(key)
        followed(postfix)
        assert record_of(postfix, "keyless").reports
