"""archive_wait_for_outcome: the copy itself says what became of the message."""

from __future__ import annotations

import pytest
from outcome_host import BECAME, PEOPLE, actions, instance

from corpora import unpacked as _unpacked
from mails import LEGAL, mail, record_of, words
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live


def waiting(time: str, **archive_cf: str) -> PrivatePostfix:
    """Return an instance, not yet started, whose copies wait so long at most."""
    return instance(archive_wait_for_outcome=time, **archive_cf)


def kept_back(postfix: PrivatePostfix, name: str) -> None:
    """Send a message; return when it is delivered, and its copy waits for that."""
    postfix.send(mail(name), to=PEOPLE)
    postfix.wait(lambda: postfix.delivered_to("one@example.net"), "it is delivered")
    postfix.wait_for_log("OutcomePending: .* archive copy waits up to")
    postfix.wait(lambda: len(postfix.mailq()) == 1, "nothing but the copy waits")


def test_a_copy_waits_until_it_can_say_what_became_of_the_message() -> None:
    with waiting("1h") as postfix:
        kept_back(postfix, "told")
        assert not postfix.stored() and not postfix.delivered_to(LEGAL)
        postfix.flush()
        postfix.wait_for_log("OutcomePending", count=2)
        assert postfix.command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.settle()
        [copy] = postfix.delivered_to(LEGAL)
        assert actions(copy.content) == BECAME
        assert b"until the outcome was known: 2 delivered, 1 exp" in copy.content
        assert [actions(each) for each in map(_unpacked, postfix.stored())] == [BECAME]
        done = postfix.command("outcomes", "--once")
        assert (done.returncode, done.stderr) == (0, "")
        told = words(record_of(postfix, "told"))
        assert told == ["archived", "mailed", *["outcome"] * 5, "outcome-report"]
        assert postfix.command("verify").returncode == 0


def test_where_nobody_reads_the_log_a_copy_waits_for_the_time_and_no_longer() -> None:
    with waiting("2s") as postfix:
        kept_back(postfix, "over")

        def arrived() -> bool:
            postfix.flush()
            return bool(postfix.delivered_to(LEGAL))

        postfix.wait(arrived, "the copy has waited long enough")
        postfix.settle()
        [copy] = postfix.delivered_to(LEGAL)
        found = actions(copy.content)
        assert set(found) == {*PEOPLE}
        assert {action for action, _ in found.values()} == {"delayed"}
        assert words(record_of(postfix, "over")) == ["archived", "mailed"]


def test_one_who_is_not_settled_keeps_the_copy_back() -> None:
    with waiting("1h") as postfix:
        postfix.send(mail("one"), to=["bob@example.net", "y@later.example.net"])
        postfix.wait_for_log("OutcomePending")
        postfix.wait(lambda: len(postfix.mailq()) == 2, "one recipient and the copy")
        assert postfix.command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.wait_for_log("OutcomePending", count=2)
        mine = [
            str(each["queue_id"])
            for each in postfix.mailq()
            if "later.example.net" in str(each["recipients"])
        ]
        postfix.forget(mine)
        assert postfix.command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.settle()
        [copy] = postfix.delivered_to(LEGAL)
        assert {who: action for who, (action, _) in actions(copy.content).items()} == {
            "bob@example.net": "delivered",
            "y@later.example.net": "failed",
        }


def test_copies_that_are_mailed_and_not_kept_tell_it_too() -> None:
    with waiting("1h", archive_delivery="mail") as postfix:
        kept_back(postfix, "mailed")
        assert postfix.command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.settle()
        [copy] = postfix.delivered_to(LEGAL)
        assert actions(copy.content) == BECAME
