"""archive_wait_for_outcome: the copy itself says what became of the message."""

from __future__ import annotations

import email
import email.message

import pytest

from corpora import unpacked as _unpacked
from mails import LEGAL, mail, record_of, words
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
ROUTES = """\
archive-request.invalid archive-stamp:on-request
no.example.net error:5.1.1 no such user
later.example.net retry:4.3.0 come later
"""
VIRTUAL = "pair@example.net one@example.net two@no.example.net\n"
PEOPLE = ["bob@example.net", "x@no.example.net", "pair@example.net"]
BECAME = {
    "bob@example.net": ("delivered", "2.0.0"),
    "x@no.example.net": ("failed", "5.1.1"),
    "pair@example.net": ("expanded", "2.0.0"),
    "one@example.net": ("delivered", "2.0.0"),
    "two@no.example.net": ("failed", "5.1.1"),
}


def waiting(time: str, **archive_cf: str) -> PrivatePostfix:
    """Return an instance, not yet started, whose copies wait so long at most."""
    postfix = PrivatePostfix(
        main={"smtpd_reject_unlisted_recipient": "no", "archive_relay": "sink:dummy"},
        archive_cf={"archive_wait_for_outcome": time, **archive_cf},
    )
    (postfix.etc / "routes").write_text(ROUTES)
    (postfix.etc / "virtual").write_text(VIRTUAL)
    postfix.postconf(
        transport_maps=f"texthash:{postfix.etc}/routes",
        virtual_alias_maps=f"texthash:{postfix.etc}/virtual",
    )
    return postfix


def actions(copy: bytes) -> dict[str, tuple[str, str]]:
    """Return Action and Status of each recipient in an archive copy."""
    groups = [
        group
        for part in email.message_from_bytes(copy).walk()
        if part.get_content_type() == "message/delivery-status"
        for group in part.get_payload()
        if isinstance(group, email.message.Message) and group["Final-Recipient"]
    ]
    return {
        str(each["Final-Recipient"]).partition("; ")[2]: (
            str(each["Action"]),
            str(each["Status"]),
        )
        for each in groups
    }


def kept_back(postfix: PrivatePostfix, name: str) -> None:
    """Send a message; return when it is delivered, and its copy waits for that."""
    postfix.send(mail(name), to=PEOPLE)
    postfix.wait(lambda: postfix.delivered_to("one@example.net"), "it is delivered")
    postfix.wait_for_log("OutcomeAwaited: .* is kept back until its outcome is known")
    postfix.wait(lambda: len(postfix.mailq()) == 1, "nothing but the copy waits")


def test_a_copy_waits_until_it_can_say_what_became_of_the_message() -> None:
    with waiting("1h") as postfix:
        kept_back(postfix, "told")
        assert not postfix.stored() and not postfix.delivered_to(LEGAL)
        postfix.flush()
        postfix.wait_for_log("OutcomeAwaited", count=2)
        assert postfix.command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.settle()
        [copy] = postfix.delivered_to(LEGAL)
        assert actions(copy.content) == BECAME
        assert b"until its outcome was known: 2 delivered, 1 exp" in copy.content
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
        postfix.wait_for_log("OutcomeAwaited")
        postfix.wait(lambda: len(postfix.mailq()) == 2, "one recipient and the copy")
        assert postfix.command("outcomes", "--once").returncode == 0
        postfix.flush()
        postfix.wait_for_log("OutcomeAwaited", count=2)
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
