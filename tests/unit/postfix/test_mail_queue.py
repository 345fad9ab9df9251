"""Claims about what Postfix says of its queue: read line by line, or refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from postfix_archive.errors import PostfixCommandFailed
from postfix_archive.postfix import mail_queue, postfix_command
from postfix_archive.postfix.queued_message import QueuedMessage

FILTER = "content_filter: archive-stamp:legal@example.com"


def queued(
    patch: pytest.MonkeyPatch, listing: str, records: str = ""
) -> list[QueuedMessage]:
    said = {"postqueue": listing, "postcat": records}
    patch.setattr(postfix_command, "run", lambda _, command, *words: said[command])
    return mail_queue.list_messages("/etc/postfix")


def line(queue_id: str = "4Zx", **more: Any) -> str:
    told = {
        "queue_name": "deferred",
        "queue_id": queue_id,
        "arrival_time": int(time.time()) - 60,
        "sender": "ann@example.org",
        "recipients": [{"address": "bob@example.com", "delay_reason": "no route"}],
    }
    return json.dumps({**told, **more}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85"])
def test_a_sender_may_have_what_python_takes_for_a_line_end(
    monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    (found,) = queued(monkeypatch, line(sender=f"ann{sign}@example.org"))
    assert found.sender == f"ann{sign}@example.org"


def test_a_sender_cannot_make_up_a_content_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = f"*** ENVELOPE RECORDS deferred/4Zx ***\nsender: ann\u2028{FILTER}@x\n"
    (found,) = queued(monkeypatch, line(), records)
    assert found.content_filter == ""
    (found,) = queued(monkeypatch, line(), f"{records}{FILTER}\n")
    assert found.content_filter == "archive-stamp:legal@example.com"


def test_a_reason_is_safe_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    to = [{"address": "b@x", "delay_reason": "\x1b[2Jno \udcff route"}]
    (found,) = queued(monkeypatch, line(recipients=to))
    assert found.delay_reason.isprintable() and "route" in found.delay_reason


def test_the_oldest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    listing = line("new", arrival_time=now) + line("old", arrival_time=now - 9)
    assert [each.queue_id for each in queued(monkeypatch, listing)] == ["old", "new"]


@pytest.mark.parametrize(
    "listing",
    [
        "{",
        "[]\n",
        "{}\n",
        "[" * 100_000,
        line(arrival_time=None),
        line(arrival_time=1e999),
        line(recipients=None),
        line(recipients=["bob@example.com"]),
    ],
)
def test_what_is_no_queue_is_refused(
    monkeypatch: pytest.MonkeyPatch, listing: str
) -> None:
    with pytest.raises(PostfixCommandFailed, match="postqueue -j"):
        queued(monkeypatch, listing)


def test_a_heading_without_a_name_is_no_queue_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (found,) = queued(monkeypatch, line(), f"*** ENVELOPE RECORDS \n{FILTER}\n")
    assert found.content_filter == ""
