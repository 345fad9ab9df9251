"""From lines of Postfix's log to what became of each recipient.

The lines have the form of real ones (Postfix 3.7); only names and times are made up.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from postfix_archive.maillog import log_line, queue_file
from postfix_archive.maillog.queue_file import QueueFiles
from postfix_archive.maillog.queue_tracker import QueueTracker
from postfix_archive.message.envelope import Recipient
from postfix_archive.outcomes.resolver import Resolver
from postfix_archive.store.outcome import Outcome
from postfix_archive.store.outcome_summary import OutcomeSummary

from unit.examples import make_envelope

ID = "20261125-" + "ab" * 20
FILTERS = ("smtp-amavis:[127.0.0.1]:10024", "spam-pipe:dummy")
BOB = "bob@example.net"
STAMPED = (
    "pipe Q1 to=<{to}>, relay=archive-stamp, delay=0.3, delays=0.02/0.01/0/0.27,"
    f" dsn=2.0.0, status=sent (delivered via archive-stamp service (id={ID}"
    " as=Q2 result=done))"
)
BY_LMTP = (
    "lmtp Q1 to=<{to}>, relay=mail.example.com[private/archive.{archive}], conn_use=2,"
    " delay=0.11, delays=0.01/0/0/0.1, dsn=2.0.0, status=sent (250 2.0.0"
    f" id={ID} as=Q2 result=done)"
)
REINJECTED = (
    "archive-handback/smtpd Q2 client=localhost[127.0.0.1], orig_queue_id=Q1,"
    " orig_client=client.example.org[192.0.2.7]"
)
TAIL = ", delay=1, delays=0.5/0/0/0.5, dsn="
SENT = TAIL + "2.0.0, status=sent"
DEFERRED = TAIL + "4.4.1, status=deferred"
MX = "relay=mx.example.net[192.0.2.1]:25"


def captured_lines(*recipients: str, count: int = 0) -> list[str]:
    """The lines of a message up to its hand-back as Q2."""
    count = count or len(recipients)
    return [
        "smtpd Q1 client=client.example.org[192.0.2.7]",
        "cleanup Q1 message-id=<one@example.org>",
        f"qmgr Q1 from=<alice@example.org>, size=700, nrcpt={count} (queue active)",
        REINJECTED,
        "archive-cleanup/cleanup Q2 message-id=<one@example.org>",
        f"qmgr Q2 from=<alice@example.org>, size=900, nrcpt={count} (queue active)",
        *(STAMPED.format(to=each) for each in recipients),
        "qmgr Q1 removed",
    ]


def long_queue_id(name: str) -> str:
    return f"4jZ9nC3v4{name[1:]}zMVdK"


def track(lines: list[str], *, restart: bool = False) -> QueueTracker:
    """Return what is known after these lines, a second apart: daemon, Q1, text.

    restart writes all of it down after each line and goes on with what was written.
    """
    passage = QueueTracker(FILTERS)
    for number, short in enumerate(lines):
        daemon, name, text = short.split(" ", 2)
        for other in range(1, 9):
            text = text.replace(f"Q{other}", long_queue_id(f"Q{other:02d}"))
        name = long_queue_id(f"Q{int(name[1:]):02d}")
        minutes, seconds = divmod(number, 60)
        line = (
            f"Nov 25 05:{minutes:02d}:{seconds:02d} mail postfix/{daemon}[1]: {name}: "
        )
        clock = log_line.TimeParser(
            datetime(2026, 11, 25, 6, tzinfo=UTC).timestamp(), UTC
        )
        read = log_line.parse(line + text)
        assert read is not None, line + text
        passage.process(read, clock.unix_time(read.time))
        if restart:
            passage.queue_files = reload(passage.queue_files)
    return passage


def reload(queue: QueueFiles) -> QueueFiles:
    """Return the queue files after they were written down and read back."""
    other = QueueFiles()
    for file in queue.by_key.values():
        other.restore(queue_file.from_dict(json.loads(json.dumps(file.as_dict()))))
    other.now = queue.now
    return other


def outcomes(
    lines: list[str], recipient: str = BOB, original: str = "", *, restart: bool = False
) -> list[Outcome]:
    passage = track(lines, restart=restart)
    file = passage.queue_files.find_by_archive_id(ID)
    assert file is not None
    return Resolver(passage, file, capture_queue_id="Q1").outcomes(recipient, original)


def kinds(lines: list[str], recipient: str = BOB) -> list[tuple[str, str]]:
    """Recipient and kind of all outcomes; the same after a restart at each line."""
    resolved = outcomes(lines, recipient)
    assert outcomes(lines, recipient, restart=True) == resolved
    return [(each.recipient, each.kind) for each in resolved]


FINAL_LINES = {
    "relayed": (f"smtp Q2 to=<{BOB}>, {MX}{SENT} (250 2.0.0 Ok)", "relayed"),
    "lmtp": (
        f"lmtp Q2 to=<{BOB}>, relay=host[private/dovecot-lmtp]{SENT} (250 Saved)",
        "delivered",
    ),
    "virtual": (
        f"virtual Q2 to=<{BOB}>, relay=virtual{SENT} (delivered to maildir)",
        "delivered",
    ),
    "discarded": (f"discard Q2 to=<{BOB}>, relay=none{SENT} (x)", "discarded"),
    "failed": (
        f"smtp Q2 to=<{BOB}>, {MX}{TAIL}5.1.1, status=bounced (550 5.1.1 who?)",
        "failed",
    ),
    "deferred": (f"smtp Q2 to=<{BOB}>, {MX}{DEFERRED} (timed out)", "waiting"),
    "soft": (
        f"smtp Q2 to=<{BOB}>, {MX}{TAIL}4.1.1, status=SOFTBOUNCE (450 who?)",
        "waiting",
    ),
    "probe": (
        f"smtp Q2 to=<{BOB}>, {MX}{TAIL}2.0.0, status=deliverable (250 ok)",
        "",
    ),
}


@pytest.mark.parametrize("name", FINAL_LINES)
def test_each_status_is_what_it_is(name: str) -> None:
    line, kind = FINAL_LINES[name]
    resolved = kinds([*captured_lines(BOB), line])
    assert resolved == ([(BOB, kind)] if kind else [])


def test_the_remote_reply_is_recorded_and_tries_are_counted() -> None:
    lines = captured_lines(BOB)
    lines += [f"smtp Q2 to=<{BOB}>, {MX}{DEFERRED} (timed out)"] * 3
    lines += [f"smtp Q2 to=<{BOB}>, {MX}{SENT} (250 2.0.0 Ok)", "qmgr Q2 removed"]
    [outcome] = outcomes(lines)
    assert (outcome.tries, outcome.status, outcome.reply) == (
        4,
        "2.0.0",
        "250 2.0.0 Ok",
    )
    assert outcome.remote == "mx.example.net[192.0.2.1]:25"
    assert outcome.time == "2026-11-25T05:00:11Z"


@pytest.mark.parametrize("status", ["expired", "force-expired"])
def test_expired(status: str) -> None:
    lines = [
        *captured_lines(BOB),
        f"smtp Q2 to=<{BOB}>, {MX}{DEFERRED} (timed out)",
        f"qmgr Q2 from=<alice@example.org>, status={status}, returned to sender",
        "bounce Q2 sender non-delivery notification: Q8",
        "qmgr Q2 removed",
    ]
    assert kinds(lines) == [(BOB, "expired")]


def test_deleted_before_and_after_a_try_and_on_hold() -> None:
    held_lines = [*captured_lines(BOB), "postsuper Q2 placed on hold"]
    [outcome] = outcomes(held_lines)
    assert outcome.is_held and outcome.is_reportable
    assert kinds([*held_lines, "postsuper Q2 removed"]) == [(BOB, "deleted")]
    tried = [*captured_lines(BOB), f"smtp Q2 to=<{BOB}>, {MX}{DEFERRED} (timed out)"]
    assert kinds([*tried, "postsuper Q2 removed"]) == [(BOB, "deleted")]
    released = [
        *held_lines,
        "postsuper Q2 released from hold",
        FINAL_LINES["relayed"][0],
    ]
    assert kinds(released) == [(BOB, "relayed")]


def test_requeued_it_is_the_next_queue_file_that_counts() -> None:
    lines = [
        *captured_lines(BOB, "carol@example.net"),
        f"smtp Q2 to=<carol@example.net>, {MX}{SENT} (250 ok)",
        f"smtp Q2 to=<{BOB}>, {MX}{DEFERRED} (timed out)",
        "postsuper Q2 requeued",
        "pickup Q3 uid=102 from=<alice@example.org> orig_id=Q2",
        "cleanup Q3 message-id=<one@example.org>",
    ]
    assert kinds(lines) == []
    lines.append(f"smtp Q3 to=<{BOB}>, {MX}{SENT} (250 ok)")
    assert kinds([*lines, "qmgr Q3 removed"]) == [(BOB, "relayed")]
    assert kinds(lines, "carol@example.net") == [("carol@example.net", "relayed")]


def test_an_alias_is_expanded_when_all_its_members_are_settled() -> None:
    lines = [
        *captured_lines(BOB),
        "qmgr Q2 from=<alice@example.org>, size=9, nrcpt=2 (q)",
    ]
    first = f"smtp Q2 to=<one@example.net>, orig_to=<{BOB}>, {MX}{SENT} (250 ok)"
    second = f"smtp Q2 to=<two@example.net>, orig_to=<{BOB}>, {MX}{TAIL}5.1.1,"
    lines.append(first)
    assert kinds(lines) == [(BOB, "waiting")]
    lines += [second + " status=bounced (550 no)", "qmgr Q2 removed"]
    assert kinds(lines) == [
        (BOB, "expanded"),
        ("one@example.net", "relayed"),
        ("two@example.net", "failed"),
    ]
    parent_outcome, *children = outcomes(lines)
    assert parent_outcome.expanded_to == ("one@example.net", "two@example.net")
    assert {each.parent for each in children} == {BOB}


ONE_MEMBER = {
    "virtual alias": [
        f"smtp Q2 to=<far@example.org>, orig_to=<{BOB}>, {MX}{SENT} (250 ok)"
    ],
    "aliases(5) or .forward": [
        "cleanup Q3 message-id=<one@example.org>",
        "qmgr Q3 from=<alice@example.org>, size=700, nrcpt=1 (queue active)",
        f"local Q2 to=<{BOB}>, relay=local{SENT} (forwarded as Q3)",
        f"smtp Q3 to=<far@example.org>, orig_to=<{BOB}>, {MX}{SENT} (250 ok)",
        "qmgr Q3 removed",
    ],
}


@pytest.mark.parametrize("name", ONE_MEMBER)
def test_an_alias_of_one_member_has_the_outcome_of_that_member(name: str) -> None:
    lines = [*captured_lines(BOB), *ONE_MEMBER[name], "qmgr Q2 removed"]
    assert kinds(lines) == [(BOB, "relayed")]
    [outcome] = outcomes(lines)
    assert outcome.mapped_to == "far@example.org"
    summary = OutcomeSummary()
    envelope = make_envelope(queue_id=b"Q1", recipients=(Recipient(BOB.encode()),))
    summary.add_capture(envelope, is_counted=True)
    summary.add(outcome)
    assert summary.is_settled and summary.counts_by_kind == {"relayed": 1}


@pytest.mark.parametrize("original", ["", "root@mail.example.com", "root"])
@pytest.mark.parametrize(
    ("final", "orig_to"),
    [
        ("root@mail.example.com", ""),
        ("root@mail.example.com", ", orig_to=<root>"),
        ("admin@example.net", ", orig_to=<root>"),
        ("admin@example.net", ", orig_to=<root@mail.example.com>"),
    ],
)
def test_a_name_without_a_domain_is_the_completed_address(
    original: str, final: str, orig_to: str
) -> None:
    root, other = "root@mail.example.com", "root@example.org"
    lines = captured_lines(f"{root}>, orig_to=<root", other)
    lines += [
        f"smtp Q2 to=<{final}>{orig_to}, {MX}{SENT} (250 ok)",
        f"smtp Q2 to=<{other}>, {MX}{TAIL}5.1.1, status=bounced (550 no)",
        "qmgr Q2 removed",
    ]
    assert [each.kind for each in outcomes(lines, root, original)] == ["relayed"]
    assert [each.kind for each in outcomes(lines, other)] == ["failed"]


def test_two_members_of_an_alias_without_a_domain_stay_apart() -> None:
    lines = captured_lines(
        "one@x.example>, orig_to=<team", "two@x.example>, orig_to=<team"
    )
    lines += [
        f"smtp Q2 to=<one@x.example>, orig_to=<team>, {MX}{SENT} (250 ok)",
        f"smtp Q2 to=<two@x.example>, orig_to=<team>, {MX}{TAIL}5.1.1,"
        " status=bounced (550 no)",
        "qmgr Q2 removed",
    ]
    for member, kind in (("one@x.example", "relayed"), ("two@x.example", "failed")):
        assert [each.kind for each in outcomes(lines, member, "team")] == [kind]


def test_local_forwarding_continues_in_the_next_queue_file() -> None:
    lines = [
        *captured_lines(BOB),
        f"local Q2 to=<{BOB}>, relay=local{SENT} (delivered to mailbox)",
        "cleanup Q3 message-id=<one@example.org>",
        "qmgr Q3 from=<alice@example.org>, size=700, nrcpt=1 (queue active)",
        f"local Q2 to=<{BOB}>, relay=local{SENT} (forwarded as Q3)",
        "qmgr Q2 removed",
    ]
    assert kinds(lines) == [(BOB, "waiting")]
    lines.append(f"smtp Q3 to=<far@example.org>, orig_to=<{BOB}>, {MX}{SENT} (250 ok)")
    assert kinds([*lines, "qmgr Q3 removed"]) == [
        (BOB, "expanded"),
        (BOB, "delivered"),
        ("far@example.org", "relayed"),
    ]


TO_FILTER = f"smtp Q2 to=<{BOB}>, relay=127.0.0.1[127.0.0.1]:10024{SENT} (250 2.0.0"
TO_PIPE = f"pipe Q2 to=<{BOB}>, relay=spam-pipe{SENT} (delivered via spam-pipe service)"
FROM_FILTER = "smtpd Q3 client=localhost[127.0.0.1]"
RETURNS = {
    "queued as": [FROM_FILTER, f"{TO_FILTER} from MTA: 250 Ok: queued as Q3)"],
    "xforward": [
        f"{FROM_FILTER}, orig_queue_id=Q2, orig_client=c[192.0.2.7]",
        f"{TO_FILTER} Ok)",
    ],
    "xforward, of the first queue file": [
        f"{FROM_FILTER}, orig_queue_id=Q1, orig_client=c[192.0.2.7]",
        f"{TO_FILTER} Ok)",
    ],
    "xforward, and queued as": [
        f"{FROM_FILTER}, orig_queue_id=Q1, orig_client=c[192.0.2.7]",
        f"{TO_FILTER} from MTA: 250 Ok: queued as Q3)",
    ],
    "message-id": [
        FROM_FILTER,
        "cleanup Q3 message-id=<one@example.org>",
        f"{TO_FILTER} Ok)",
    ],
    "sendmail": [
        "pickup Q3 uid=65534 from=<alice@example.org>",
        "cleanup Q3 message-id=<one@example.org>",
        TO_PIPE,
    ],
}


@pytest.mark.parametrize("return_kind", RETURNS)
def test_a_content_filter_is_no_delivery(return_kind: str) -> None:
    filtered = [*captured_lines(BOB), *RETURNS[return_kind], "qmgr Q2 removed"]
    assert kinds(filtered) in ([], [(BOB, "waiting")])
    last = f"smtp Q3 to=<{BOB}>, {MX}{TAIL}5.1.1, status=bounced (550 5.1.1 who?)"
    assert kinds([*filtered, last, "qmgr Q3 removed"]) == [(BOB, "failed")]


FIRST = ", orig_queue_id=Q1, orig_client=c[192.0.2.7]"


@pytest.mark.parametrize(
    ("origin", "answer"),
    [(FIRST, "Ok"), ("", "Ok"), (FIRST, "from MTA: 250 Ok: queued as Q4")],
)
def test_messages_that_a_filter_splits_are_matched_by_recipient(
    origin: str, answer: str
) -> None:
    carol = "carol@example.org"
    lines = [
        *captured_lines(BOB, carol),
        *(f"{FROM_FILTER.replace('Q3', each)}{origin}" for each in ("Q3", "Q4")),
        *(f"cleanup {each} message-id=<one@example.org>" for each in ("Q3", "Q4")),
        f"{TO_FILTER} {answer})",
        f"{TO_FILTER} {answer})".replace(BOB, carol),
        "qmgr Q2 removed",
        f"smtp Q3 to=<{BOB}>, {MX}{SENT} (250 ok)",
        "qmgr Q3 removed",
        f"smtp Q4 to=<{carol}>, {MX}{TAIL}5.1.1, status=bounced (550 5.1.1 who?)",
        "qmgr Q4 removed",
    ]
    assert kinds(lines, BOB) == [(BOB, "relayed")]
    assert kinds(lines, carol) == [(carol, "failed")]


def test_a_host_on_loopback_that_has_taken_one_recipient_of_a_requeued_file() -> None:
    """The other goes through the stamp filter again; nobody has given anything back."""
    carol, loopback_relay = "carol@example.org", "relay=127.0.0.1[127.0.0.1]:2525"
    lines = [
        *captured_lines(BOB, carol),
        f"smtp Q2 to=<{BOB}>, {loopback_relay}{SENT} (250 2.0.0 Ok: queued as ZZ)",
        f"smtp Q2 to=<{carol}>, {loopback_relay}{TAIL}4.2.0,"
        " status=deferred (450 later)",
        "postsuper Q2 requeued",
        "pickup Q3 uid=102 from=<alice@example.org> orig_id=Q2",
        "cleanup Q3 message-id=<one@example.org>",
        "smtpd Q4 client=localhost[127.0.0.1], orig_queue_id=Q3, orig_client=localhost",
        f"pipe Q3 to=<{carol}>, relay=archive-stamp{SENT} (delivered via archive-stamp"
        " service (id=x as=Q4 result=done))",
        "qmgr Q3 removed",
        f"smtp Q4 to=<{carol}>, {loopback_relay}{SENT} (250 2.0.0 Ok: queued as ZY)",
        "qmgr Q4 removed",
    ]
    assert kinds(lines, BOB) == [(BOB, "relayed")]
    assert kinds(lines, carol) == [(carol, "relayed")]


def test_two_filters_in_a_row_are_followed_to_the_end() -> None:
    second = TO_FILTER.replace("Q2", "Q3")
    lines = [
        *captured_lines(BOB),
        f"{FROM_FILTER}, orig_queue_id=Q1, orig_client=c[192.0.2.7]",
        f"{TO_FILTER} Ok)",
        "qmgr Q2 removed",
        "other/smtpd Q4 client=localhost[127.0.0.1], orig_queue_id=Q1, orig_client=c",
        f"{second} Ok)",
        "qmgr Q3 removed",
    ]
    assert kinds(lines) in ([], [(BOB, "waiting")])
    lines += [f"smtp Q4 to=<{BOB}>, {MX}{SENT} (250 ok)", "qmgr Q4 removed"]
    assert kinds(lines) == [(BOB, "relayed")]


def test_a_filter_that_gives_nothing_back_leaves_it_waiting() -> None:
    lines = [*captured_lines(BOB), f"{TO_FILTER} Ok)", "qmgr Q2 removed"]
    [outcome] = outcomes(lines)
    assert outcome.kind == "waiting" and not outcome.is_reportable


def test_a_remote_host_that_names_a_queue_id_of_ours_is_not_believed() -> None:
    lines = [
        *captured_lines(BOB),
        "smtpd Q3 client=localhost[127.0.0.1]",
        f"smtp Q2 to=<{BOB}>, {MX}{SENT} (250 Ok: queued as Q3)",
        f"smtp Q3 to=<{BOB}>, {MX}{TAIL}5.1.1, status=bounced (550 who?)",
        "qmgr Q3 removed",
    ]
    assert kinds(lines) == [(BOB, "relayed")]


@pytest.mark.parametrize(
    "line",
    [
        f"smtp Q2 to=<{BOB}>, relay=none{SENT} (x@e.org>, {MX}{DEFERRED} (timed out)",
        f"smtp Q2 to=<{BOB}>, relay=none{SENT}",
        f"smtp Q2 to=<{BOB} with a space>, {MX}{SENT} (250 ok)",
        f"smtp Q2 to=<{BOB}>, {MX}, delay=?, delays=x, dsn=2.0.0, status=sent (250 ok)",
    ],
)
def test_an_ambiguous_line_is_counted_and_not_read(line: str) -> None:
    passage = track([*captured_lines(BOB), line])
    assert passage.unparsed_count == 1
    assert kinds([*captured_lines(BOB), line]) == []


def test_a_sender_so_long_that_its_line_is_cut_makes_nothing_expire() -> None:
    later = f"smtp Q2 to=<{BOB}>, {MX}{DEFERRED} (timed out)"
    for end in ("", ">, status=expired, returned to sender"):
        sender = ("x" * 1990)[: 1990 - len(end)] + end
        assert kinds([*captured_lines(BOB), later, f"qmgr Q2 from=<{sender}"]) == [
            (BOB, "waiting")
        ]
    expired = "qmgr Q2 from=<a@example.org>, status=expired, returned to sender"
    resolved = kinds([*captured_lines(BOB), later, expired, "qmgr Q2 removed"])
    assert resolved == [(BOB, "expired")]


def test_a_sender_or_message_id_that_looks_like_a_delivery_is_none() -> None:
    forged_delivery = f"x>, {MX}{SENT} (250 ok)"
    lines = [
        *captured_lines(BOB),
        f"qmgr Q2 from=<{forged_delivery}>, size=9, nrcpt=1 (queue active)",
        f"cleanup Q2 message-id=<to=<{BOB}>, {forged_delivery}>",
    ]
    assert kinds(lines) == []


def test_a_queue_id_used_again_is_another_message() -> None:
    lines = [*captured_lines(BOB), FINAL_LINES["relayed"][0], "qmgr Q2 removed"]
    lines += [
        "smtpd Q2 client=other.example.org[192.0.2.9]",
        f"smtp Q2 to=<{BOB}>, {MX}{TAIL}5.1.1, status=bounced (550 who?)",
        "qmgr Q2 removed",
    ]
    assert kinds(lines) == [(BOB, "relayed")]


def test_what_is_done_is_forgotten_and_what_is_wanted_is_not() -> None:
    passage = track(
        [*captured_lines(BOB), FINAL_LINES["relayed"][0], "qmgr Q2 removed"]
    )
    file = passage.queue_files.find_by_archive_id(ID)
    assert file is not None
    reachable = passage.reachable_keys(file)
    assert len(reachable) == 2
    passage.queue_files.now += 3600
    passage.queue_files.prune(reachable)
    assert set(passage.queue_files.by_key) == reachable
    passage.queue_files.prune(set())
    assert not passage.queue_files.by_key
    assert passage.queue_files.dropped_keys == reachable


@pytest.mark.parametrize("archive", ["legal@example.com", "one@x.org,two@x.org"])
def test_a_message_that_a_worker_captured_is_followed(archive: str) -> None:
    lines = [
        (
            BY_LMTP.format(to=BOB, archive=archive)
            if "relay=archive-stamp" in line
            else line
        )
        for line in captured_lines(BOB)
    ]
    assert any("[private/archive." in line for line in lines)
    delivery_line = f"smtp Q2 to=<{BOB}>, {MX}{SENT} (250 ok)"
    assert outcomes([*lines, delivery_line, "qmgr Q2 removed"]) == outcomes(
        [*captured_lines(BOB), delivery_line, "qmgr Q2 removed"]
    )
