"""The user of the web page: the service carries out what its users decide.

The page's process runs as a user of its own; another member of the group has no say.
"""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable, Iterator

import pytest

from postfix_archive.access import access_service
from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.retention import decision_requests

from mails import LEGAL, mail
from private_postfix import PrivatePostfix
from unprivileged import as_member

pytestmark = pytest.mark.live
GROUP, WEB_USER, OTHER = "games", "news", "man"  # of Debian
AUDITOR = "auditor@example.net"


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[PrivatePostfix, Settings]]:
    """A host with a message, the group, the page's user, and the service running."""
    with PrivatePostfix() as postfix:
        postfix.directory.chmod(0o755)
        postfix.set_archive_cf(
            archive_access_socket=f"{postfix.directory}/run/access",
            archive_reader_group=GROUP,
            archive_web_user=WEB_USER,
            archive_replay_to=AUDITOR,
            archive_web_decisions="hold-add, erase-request, erase-approve, replay",
        )
        postfix.send(mail("contract"))
        postfix.wait_for_empty_queue()
        assert postfix.run_command("index", "--once").returncode == 0
        assert postfix.run_command("readers").returncode == 0
        settings = archive_cf.load(str(postfix.etc))
        process = postfix.start_command("access-service")
        while not access_service.is_running(settings.archive_access_socket):
            assert process.poll() is None
        yield postfix, settings
        process.terminate()
        process.wait()


def test_the_page_is_recorded_and_has_its_users_decisions_carried_out(
    host: tuple[PrivatePostfix, Settings],
) -> None:
    """A login, a hold, a replay that is delivered, an erasure that the hold stops."""
    postfix, settings = host
    [event] = [e for e in postfix.events() if e["event"] == "archived"]
    archive_id = str(event["id"])

    def decide() -> None:
        recorder = AccessRecorder(settings, "login", web_user="anna", warn=pytest.fail)
        recorder.searched([LEGAL])
        one = (LEGAL, archive_id)
        decision_requests.replay(settings, "anna", *one, to=AUDITOR, reason="audit")
        decision_requests.add_hold(
            settings, "anna", "smith", query="subject:contract", reason="suit"
        )
        decision_requests.request_erasure(settings, "bert", *one, reason="Art. 17")

    assert "is held by smith" in as_member(WEB_USER, GROUP, decide)
    postfix.wait(lambda: postfix.delivered_to(AUDITOR), "the replay")
    assert "anna on the web page" in postfix.run_command("hold", "list").stdout
    lines = postfix.run_command("history", "--json").stdout.splitlines()
    entries = [*map(json.loads, lines)]
    assert [(each["web_user"], each["action"]) for each in entries] == [
        ("anna", "login"),
        ("anna", "replay"),
        ("anna", "hold"),
        ("bert", "erase"),
    ]
    assert {each["uid"] for each in entries} == {pwd.getpwnam(WEB_USER).pw_uid}
    assert postfix.run_command("verify").returncode == 0
    postfix.run_command("hold", "release", "smith", "--reason", "settled")

    def erase() -> None:
        one = (LEGAL, archive_id)
        decision_requests.request_erasure(settings, "anna", *one, reason="Art. 17")
        decision_requests.approve_erasure(settings, "bert", *one)

    assert as_member(WEB_USER, GROUP, erase) == ""
    assert postfix.stored_files() == []
    assert postfix.run_command("verify").returncode == 0


def _hold(settings: Settings) -> None:
    decision_requests.add_hold(settings, "anna", "x", query="*", reason="r")


def _record(settings: Settings) -> None:
    recorder = AccessRecorder(settings, "login", web_user="anna", warn=pytest.fail)
    recorder.searched([LEGAL])


@pytest.mark.parametrize("act", [_hold, _record])
def test_another_member_of_the_group_speaks_for_nobody(
    host: tuple[PrivatePostfix, Settings], act: Callable[[Settings], None]
) -> None:
    _, settings = host
    error = as_member(OTHER, GROUP, lambda: act(settings))
    assert "only archive_web_user may say who is at the web page" in error


def test_who_is_not_in_the_group_reaches_nothing(
    host: tuple[PrivatePostfix, Settings],
) -> None:
    _, settings = host
    error = as_member(WEB_USER, WEB_USER, lambda: _hold(settings))
    assert "Permission denied" in error and "was not carried out" in error
