"""Claims about what Postfix says of its queue: read line by line, or refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from postfix_archive.errors import PostfixCommandFailed
from postfix_archive.postfix import mail_queue, postfix_command
from postfix_archive.postfix.queued_message import QueuedMessage

FILTER = "content_filter: archive-stamp:legal@example.com"


def read_queue(
    patch: pytest.MonkeyPatch, listing: str, records: str = ""
) -> list[QueuedMessage]:
    patch.setattr(postfix_command, "run", lambda *words: listing)
    patch.setattr(postfix_command, "read_envelopes", lambda *words: (records, True))
    return mail_queue.list_messages("/etc/postfix")


def queue_entry(queue_id: str = "4Zx", **fields: Any) -> str:
    entry = {
        "queue_name": "deferred",
        "queue_id": queue_id,
        "arrival_time": int(time.time()) - 60,
        "sender": "ann@example.org",
        "recipients": [{"address": "bob@example.com", "delay_reason": "no route"}],
    }
    return json.dumps({**entry, **fields}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("line_end", ["\u2028", "\u2029", "\x85"])
def test_a_sender_may_have_what_python_takes_for_a_line_end(
    monkeypatch: pytest.MonkeyPatch, line_end: str
) -> None:
    (message,) = read_queue(
        monkeypatch, queue_entry(sender=f"ann{line_end}@example.org")
    )
    assert message.sender == f"ann{line_end}@example.org"


def test_a_sender_cannot_make_up_a_content_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = f"*** ENVELOPE RECORDS deferred/4Zx ***\nsender: ann\u2028{FILTER}@x\n"
    (message,) = read_queue(monkeypatch, queue_entry(), records)
    assert message.content_filter == ""
    (message,) = read_queue(monkeypatch, queue_entry(), f"{records}{FILTER}\n")
    assert message.content_filter == "archive-stamp:legal@example.com"


def test_a_reason_is_safe_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    to = [{"address": "b@x", "delay_reason": "\x1b[2Jno \udcff route"}]
    (message,) = read_queue(monkeypatch, queue_entry(recipients=to))
    assert message.delay_reason.isprintable() and "route" in message.delay_reason


def test_the_oldest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    listing = queue_entry("new", arrival_time=now) + queue_entry(
        "old", arrival_time=now - 9
    )
    assert [each.queue_id for each in read_queue(monkeypatch, listing)] == [
        "old",
        "new",
    ]


@pytest.mark.parametrize(
    "listing",
    [
        "{",
        "[]\n",
        "{}\n",
        "[" * 100_000,
        queue_entry(arrival_time=None),
        queue_entry(arrival_time=1e999),
        queue_entry(recipients=None),
        queue_entry(recipients=["bob@example.com"]),
    ],
)
def test_what_is_no_queue_is_refused(
    monkeypatch: pytest.MonkeyPatch, listing: str
) -> None:
    with pytest.raises(PostfixCommandFailed, match="postqueue -j"):
        read_queue(monkeypatch, listing)


def test_a_heading_without_a_name_is_no_queue_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (message,) = read_queue(
        monkeypatch, queue_entry(), f"*** ENVELOPE RECORDS \n{FILTER}\n"
    )
    assert message.content_filter == ""


# postcat(1): it ends at the first message that is gone, with an error, and then sleeps,
# here for ever.
POSTCAT = """\
#!/bin/sh
echo run >>{runs}
shift 4
for id; do
  case $id in
    *gone) echo "postcat: fatal: open queue file $id: No such file" >&2
           exec sleep infinity ;;
  esac
  echo "*** ENVELOPE RECORDS deferred/$id ***"
  echo "content_filter: archive-stamp:$id"
done
"""


@pytest.mark.parametrize(
    "names",
    [
        ["4Z1", "4Z2"],
        ["4Z1.gone"],
        ["4Z1.gone", "4Z2", "4Z3.gone", "4Z4.gone", "4Z5"],
        [f"4Z{n}" if n % 7 else f"4Z{n}.gone" for n in range(300)],
        [f"4Z{n}.gone" for n in range(300)],
    ],
)
def test_messages_that_are_gone_cost_two_processes_each_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    runs = tmp_path / "runs"
    program = tmp_path / "postcat"
    program.write_text(POSTCAT.format(runs=runs))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    listing = "".join(map(queue_entry, names))
    monkeypatch.setattr(postfix_command, "run", lambda *words: listing)
    messages = mail_queue.list_messages("/etc/postfix")
    is_gone = {each: each.endswith("gone") for each in names}
    assert {each.queue_id: each.content_filter for each in messages} == {
        each: "" if is_gone[each] else f"archive-stamp:{each}" for each in names
    }
    batches = 1 + len(names) // mail_queue.POSTCAT_BATCH
    run_count = len(runs.read_text().splitlines())
    assert run_count <= 2 * sum(is_gone.values()) + batches


def test_a_queue_that_changes_too_fast_is_an_error_and_no_endless_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listing = queue_entry("4Z1") + queue_entry("4Z2")
    monkeypatch.setattr(postfix_command, "run", lambda *words: listing)
    monkeypatch.setattr(postfix_command, "read_envelopes", lambda *words: ("", False))
    monkeypatch.setattr(mail_queue, "LISTING_TIMEOUT", -1.0)
    with pytest.raises(PostfixCommandFailed, match="changes too fast"):
        mail_queue.list_messages("/etc/postfix")
