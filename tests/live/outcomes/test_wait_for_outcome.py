"""archive_wait_for_outcome: the copy itself says what became of the message."""

from __future__ import annotations

import pytest
from outcome_host import EXPECTED_ACTIONS, RECIPIENTS, actions, instance

from corpora import read_copy as _unpacked
from mails import LEGAL, event_kinds, mail, record_of
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
DEFERRED_COPY = r"relay=archive, .*status=deferred \(temporary failure"


def waiting_instance(time: str, **archive_cf: str) -> PrivatePostfix:
    """Return an instance, not yet started, whose copies wait so long at most."""
    return instance(archive_wait_for_outcome=time, **archive_cf)


def assert_copy_waits(postfix: PrivatePostfix, name: str) -> None:
    """Send a message; return when it is delivered, and its copy waits for that."""
    postfix.send(mail(name), to=RECIPIENTS)
    postfix.wait(lambda: postfix.delivered_to("one@example.net"), "it is delivered")
    postfix.wait_for_failure("=OutcomePending reason=.*archive copy waits up to")
    postfix.wait(lambda: len(postfix.mailq()) == 1, "nothing but the copy waits")


def test_a_copy_waits_until_it_can_say_what_became_of_the_message() -> None:
    with waiting_instance("1h") as postfix:
        assert_copy_waits(postfix, "told")
        assert not postfix.stored_files() and not postfix.delivered_to(LEGAL)
        postfix.flush()
        postfix.wait_for_log(DEFERRED_COPY, count=2)
        assert postfix.run_command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.wait_for_empty_queue()
        [copy] = postfix.delivered_to(LEGAL)
        assert actions(copy.content) == EXPECTED_ACTIONS
        assert b"until the outcome was known: 2 delivered, 1 exp" in copy.content
        assert [actions(each) for each in map(_unpacked, postfix.stored_files())] == [
            EXPECTED_ACTIONS
        ]
        process = postfix.run_command("outcomes", "--once")
        assert (process.returncode, process.stderr) == (0, "")
        kinds = event_kinds(record_of(postfix, "told"))
        assert kinds == ["archived", "mailed", *["outcome"] * 5, "outcome-report"]
        assert postfix.run_command("verify").returncode == 0


def test_where_nobody_reads_the_log_a_copy_waits_for_the_time_and_no_longer() -> None:
    with waiting_instance("2s") as postfix:
        assert_copy_waits(postfix, "over")

        def arrived() -> bool:
            postfix.flush()
            return bool(postfix.delivered_to(LEGAL))

        postfix.wait(arrived, "the copy has waited long enough")
        postfix.wait_for_empty_queue()
        [copy] = postfix.delivered_to(LEGAL)
        recipient_actions = actions(copy.content)
        assert set(recipient_actions) == {*RECIPIENTS}
        assert {action for action, _ in recipient_actions.values()} == {"delayed"}
        assert event_kinds(record_of(postfix, "over")) == ["archived", "mailed"]


def test_one_who_is_not_settled_keeps_the_copy_back() -> None:
    with waiting_instance("1h") as postfix:
        postfix.send(mail("one"), to=["bob@example.net", "y@later.example.net"])
        postfix.wait_for_failure("=OutcomePending ")
        postfix.wait(lambda: len(postfix.mailq()) == 2, "one recipient and the copy")
        assert postfix.run_command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.wait_for_log(DEFERRED_COPY, count=2)
        queue_ids = [
            str(entry["queue_id"])
            for entry in postfix.mailq()
            if "later.example.net" in str(entry["recipients"])
        ]
        postfix.delete_messages(queue_ids)
        assert postfix.run_command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.wait_for_empty_queue()
        [copy] = postfix.delivered_to(LEGAL)
        assert {
            recipient: action
            for recipient, (action, _) in actions(copy.content).items()
        } == {
            "bob@example.net": "delivered",
            "y@later.example.net": "failed",
        }


def test_copies_that_are_mailed_and_not_stored_have_the_outcome_too() -> None:
    with waiting_instance("1h", archive_delivery="mail") as postfix:
        assert_copy_waits(postfix, "mailed")
        assert postfix.run_command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.wait_for_empty_queue()
        [copy] = postfix.delivered_to(LEGAL)
        assert actions(copy.content) == EXPECTED_ACTIONS
