"""The site key rotated and lost: what is proved stays proved, what waits arrives."""

from __future__ import annotations

import pytest

from postfix_archive.store import fallback

from mails import LEGAL, delivered, mail, record_of, words
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live


def test_after_a_rotation_old_stamps_and_waiting_capsules_still_count() -> None:
    with PrivatePostfix(door="capsule") as postfix:
        postfix.send(mail("stamped"))
        postfix.settle()
        passed_on = delivered(postfix, "stamped", "bob@example.net").content
        aside = (postfix.program / "archive").rename(postfix.program / "away")
        postfix.send(mail("waiting"))
        postfix.wait_for_log("to=<capsule@.*status=SOFTBOUNCE|status=deferred")
        done = postfix.command("key", "rotate", "--id", "second")
        assert done.returncode == 0, done.stderr
        aside.rename(postfix.program / "archive")
        postfix.send(passed_on, to=["erin@example.net"])
        postfix.settle()
        record_of(postfix, "waiting")
        assert words(record_of(postfix, "stamped"))[-1] == "supplement"
        postfix.send(mail("new"))
        postfix.settle()
        assert b"k=second;" in delivered(postfix, "new", "bob@example.net").content
        assert len(postfix.stored(LEGAL)) == 3
        assert postfix.command("verify").returncode == 0


def test_a_capsule_whose_key_is_lost_waits_for_ever_and_is_reported() -> None:
    """Nothing else stops for it; it is archived once the key is there again."""
    with PrivatePostfix(
        door="capsule", main={"bounce_queue_lifetime": "60s"}
    ) as postfix:
        key = postfix.etc / "archive.key"
        aside = (postfix.program / "archive").rename(postfix.program / "away")
        postfix.send(mail("sealed"))
        postfix.wait_for_log("to=<capsule@.*status=SOFTBOUNCE|status=deferred")
        kept = key.read_text()
        key.write_text("other " + "22" * 32 + "\n")
        aside.rename(postfix.program / "archive")
        postfix.send(mail("meanwhile"))
        postfix.wait(lambda: postfix.stored(LEGAL), "other mail is archived")
        postfix.wait_for_log("sealed with a key that this site does not have")
        postfix.wait(
            lambda: postfix.command("queue", "rescue").returncode == 1,
            "the copy is rescued",
        )
        assert (
            "a key that this site does not have"
            in postfix.command("fallback", "import").stderr
        )
        assert postfix.command("status").returncode == 1
        assert len(fallback.waiting_capsules(str(postfix.fallback))) == 1
        key.write_text(key.read_text() + kept)
        assert postfix.command("fallback", "import").returncode == 0
        postfix.settle()
        record_of(postfix, "sealed")
        record_of(postfix, "meanwhile")
