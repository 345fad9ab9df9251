"""The site key rotated and lost: what is proved stays proved, what waits arrives."""

from __future__ import annotations

import pytest

from postfix_archive.store import fallback

from mails import LEGAL, event_kinds, mail, one_delivery, record_of
from private_postfix import CAPTURE_TABLE, PrivatePostfix

pytestmark = pytest.mark.live


def test_after_a_rotation_old_stamps_and_waiting_capsules_still_count() -> None:
    with PrivatePostfix(mode="capsule") as postfix:
        postfix.send(mail("stamped"))
        postfix.wait_for_empty_queue()
        passed_on = one_delivery(postfix, "stamped", "bob@example.net").content
        moved_program = (postfix.program_directory / "archive").rename(
            postfix.program_directory / "away"
        )
        postfix.send(mail("waiting"))
        postfix.wait_for_log("to=<capsule@.*status=SOFTBOUNCE|status=deferred")
        process = postfix.run_command("key", "rotate", "--id", "second")
        assert process.returncode == 0, process.stderr
        moved_program.rename(postfix.program_directory / "archive")
        postfix.send(passed_on, to=["erin@example.net"])
        postfix.wait_for_empty_queue()
        record_of(postfix, "waiting")
        assert event_kinds(record_of(postfix, "stamped"))[-1] == "supplement"
        postfix.send(mail("new"))
        postfix.wait_for_empty_queue()
        assert b"k=second;" in one_delivery(postfix, "new", "bob@example.net").content
        assert len(postfix.stored_files(LEGAL)) == 3
        assert postfix.run_command("verify").returncode == 0


def test_a_capsule_whose_key_is_lost_waits_for_ever_and_is_reported() -> None:
    """Nothing else stops for it; it is archived once the key is there again."""
    with PrivatePostfix(
        mode="capsule", main={"bounce_queue_lifetime": "60s"}
    ) as postfix:
        key = postfix.etc / "archive.key"
        moved_program = (postfix.program_directory / "archive").rename(
            postfix.program_directory / "away"
        )
        postfix.send(mail("sealed"))
        postfix.wait_for_log("to=<capsule@.*status=SOFTBOUNCE|status=deferred")
        key_text = key.read_text()
        key.write_text("other " + "22" * 32 + "\n")
        moved_program.rename(postfix.program_directory / "archive")
        postfix.send(mail("meanwhile"))
        postfix.wait(lambda: postfix.stored_files(LEGAL), "other mail is archived")
        postfix.wait_for_failure("sealed with a key that this site does not have")
        postfix.wait(
            lambda: postfix.run_command("queue", "rescue").returncode == 1,
            "the copy is rescued",
        )
        assert (
            "a key that this site does not have"
            in postfix.run_command("fallback", "import").stderr
        )
        assert postfix.run_command("status").returncode == 1
        assert len(fallback.waiting_capsules(str(postfix.fallback))) == 1
        key.write_text(key.read_text() + key_text)
        assert postfix.run_command("fallback", "import").returncode == 0
        postfix.wait_for_empty_queue()
        record_of(postfix, "sealed")
        record_of(postfix, "meanwhile")


def test_capture_maps_are_made_anew_with_the_new_key_and_spare_files_of_others() -> (
    None
):
    with PrivatePostfix(mode="native") as postfix:
        table = postfix.etc / CAPTURE_TABLE
        before = table.read_text()
        assert postfix.run_command("key", "rotate").returncode == 0
        process = postfix.run_command("key", "capture-maps")
        assert process.returncode == 0, process.stderr
        assert process.stdout == f"{table}: {LEGAL}\n"
        assert table.read_text() != before and table.stat().st_mode & 0o777 == 0o600
        postfix.send(mail("new"))
        postfix.wait_for_empty_queue()
        record_of(postfix, "new")

        table.write_text("/^bob@/ carol@example.net\n")
        process = postfix.run_command("key", "capture-maps")
        assert process.returncode == 1
        assert process.stderr.count("\n") == 1 and f"{table} exists" in process.stderr
        assert table.read_text() == "/^bob@/ carol@example.net\n"


def test_capture_maps_are_for_native_mode_alone() -> None:
    with PrivatePostfix() as postfix:
        process = postfix.run_command("key", "capture-maps")
        assert process.returncode == 1
        assert process.stderr.count("\n") == 1
        assert "recipient_bcc_maps names no capture map" in process.stderr
        assert not (postfix.etc / CAPTURE_TABLE).exists()
