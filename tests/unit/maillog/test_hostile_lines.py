"""Words of clients in log lines change nobody's outcome and hide no message.

A grammar of what a client can choose: senders, recipients, Message-IDs, AUTH=, HELO,
header fields, replies. Their text is made of the keys that we read, and lines are cut
where Postfix cuts them.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postfix_archive.maillog import delivery, queue_model
from postfix_archive.maillog.queue_tracker import QueueTracker
from postfix_archive.outcomes.resolver import Resolver
from postfix_archive.reconcile.log_scan import KEEP_SECONDS, LogScan

START = 1795348380.0
POSTFIX_LIMIT = 2000  # bytes: MSG_SYSLOG_RECLEN
BOB = "bob@example.net"
ID = "20261125-" + "ab" * 20
Q1, Q2, BY_SMTP, BY_SENDMAIL, SMUGGLED = (
    f"4jZFG72{number}PhzK5b4" for number in range(1, 6)
)
FRAGMENTS = (
    f", orig_queue_id={Q1}",
    f", orig_queue_id={Q2}, orig_client=a[192.0.2.7]",
    f" orig_id={Q1}",
    f"> orig_id={Q2}",
    f" orig_id={Q2}",
    ", status=expired, returned to sender",
    ">, size=9, nrcpt=9 (queue active)",
    f">, orig_to=<{BOB}>, relay=local, delay=1, delays=0/0/0/1, dsn=2.0.0,"
    " status=sent (250 ok)",
    f"to=<{BOB}>, relay=archive-stamp, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent"
    f" (delivered via archive-stamp service (id={ID} as={BY_SMTP} result=done))",
    f"delivered via archive-stamp service (id={ID} as={SMUGGLED} result=done)",
    f"250 2.0.0 id={ID} as={BY_SMTP} result=done",
    f"queued as {Q2}",
    f"forwarded as {Q2}",
    f"capsule.{ID}@x",
    "one@example.org",
    "removed",
    "requeued",
    "x" * 900,
    "<",
    ">",
    "(",
    ")",
    '"',
    "\\",
    ", ",
    " ",
    "\u2028",
    "\udcfc",
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join)


def pad(text: str, end: str) -> str:
    """Return text filled up so that a line of Postfix, cut, ends with end."""
    return text + "x" * (POSTFIX_LIMIT - 30 - len(text) - len(end)) + end


class Log:
    """A log that is written line by line, each a second after the other."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, float]] = []
        self.now = START

    def add(self, process: str, queue_id: str, text: str) -> None:
        """Write a line, cut as Postfix cuts it."""
        self.now += 1
        message = f"{queue_id}: {text}".encode("utf-8", "surrogateescape")
        cut = message[:POSTFIX_LIMIT].decode("utf-8", "surrogateescape")
        self.lines.append(
            (f"{self.now:.6f} mail postfix/{process}[7]: {cut}", self.now)
        )

    def add_hostile(self, text: str) -> None:
        """Write all of a message by SMTP and one by sendmail(1), in these words."""
        client = f"client=evil[192.0.2.9], sasl_method=PLAIN, sasl_username={text}"
        self.add("smtpd", BY_SMTP, f"{client}, sasl_sender={text}")
        self.add("pickup", BY_SENDMAIL, f"uid=1000 from=<{text}>")
        for queue_id in (BY_SMTP, BY_SENDMAIL):
            header = f"header Subject: {text} from a[192.0.2.9]; from=<{text}>"
            self.add("cleanup", queue_id, f"warning: {header} helo=<{text}>: {text}")
            self.add("cleanup", queue_id, f"message-id=<{text}>")
            self.add("qmgr", queue_id, f"from=<{text}>, size=9, nrcpt=1 (queue active)")
            self.add("smtp", queue_id, mx_attempt(text, "2.0.0, status=sent", text))
            self.add(
                "smtp",
                queue_id,
                mx_attempt("x@example.net", "2.0.0, status=sent", text),
            )

    def scan(self) -> LogScan:
        """Return reconcile's view of it, some time later."""
        self.now += queue_model.MAX_REPORT_DELAY + KEEP_SECONDS
        self.add("qmgr", "4zzzzzzzzzzzz0", "removed")
        scan = LogScan(("postfix",), (), has_store=True)
        for text, at in self.lines:
            scan.read_line(text, at)
        return scan


def mx_attempt(recipient: str, status: str, reply: str) -> str:
    return (
        f"to=<{recipient}>, relay=mx.example.net[192.0.2.1]:25, delay=1,"
        f" delays=0/0/0/1, dsn={status} ({reply})"
    )


def stamped(queue_id: str) -> str:
    return (
        f"to=<{BOB}>, relay=archive-stamp, delay=1, delays=0/0/0/1, dsn=2.0.0,"
        " status=sent (delivered via archive-stamp service"
        f" (id={ID} as={queue_id} result=done))"
    )


def honest_lines(log: Log) -> None:
    """Write a message that was captured as Q1, reinjected as Q2 and then refused."""
    log.add("smtpd", Q1, "client=a[192.0.2.7]")
    log.add("cleanup", Q1, "message-id=<one@example.org>")
    log.add("qmgr", Q1, "from=<a@example.org>, size=9, nrcpt=1 (queue active)")
    origin = (
        f"client=localhost[127.0.0.1], orig_queue_id={Q1}, orig_client=a[192.0.2.7]"
    )
    log.add("archive-handback/smtpd", Q2, origin)
    log.add("archive-cleanup/cleanup", Q2, "message-id=<one@example.org>")
    log.add("qmgr", Q2, "from=<a@example.org>, size=9, nrcpt=1 (queue active)")


def smuggled_lines(log: Log, origin: str) -> None:
    """Write what a local user sent to the reinjection port under another's id."""
    client = f"client=localhost[127.0.0.1], orig_queue_id={origin}"
    log.add("archive-handback/smtpd", SMUGGLED, client)
    log.add("archive-cleanup/cleanup", SMUGGLED, "message-id=<one@example.org>")
    log.add("qmgr", SMUGGLED, "from=<a@example.org>, size=9, nrcpt=1 (queue active)")
    log.add("smtp", SMUGGLED, mx_attempt(BOB, "2.0.0, status=sent", "250 ok"))


def outcome_kinds(log: Log) -> list[tuple[str, str]]:
    tracker = QueueTracker()
    for text, at in log.lines:
        tracker.read(text, at)
    file = tracker.queue_files.find_by_archive_id(ID)
    assert file is not None and file.queue_id == Q1
    resolver = Resolver(tracker, file, capture_queue_id=Q1)
    return [(each.recipient, each.kind) for each in resolver.outcomes(BOB, "")]


@given(TEXTS, TEXTS, st.sampled_from([Q1, Q2, "", "4zzzzzzzzzzzz1"]))
@example(f"x, orig_queue_id={Q1}, y", "", Q1)
@example(f"x, orig_queue_id={Q1}", "", Q2)
@example("", pad("", f" orig_id={Q1}"), Q1)
@example("", pad("", f"> orig_id={Q2}"), Q1)
@example("", pad("", ", status=expired, returned to sender"), Q1)
def test_hostile_words_change_no_outcome_and_hide_no_message(
    before: str, after: str, origin: str
) -> None:
    log = Log()
    honest_lines(log)
    log.add_hostile(before)
    smuggled_lines(log, origin)
    log.add("pipe", Q1, stamped(Q2))
    log.add("qmgr", Q1, "removed")
    log.add("smtp", Q2, mx_attempt(BOB, "5.1.1, status=bounced", "550 5.1.1 no"))
    log.add("qmgr", Q2, "removed")
    for queue_id in (BY_SMTP, BY_SENDMAIL, SMUGGLED):
        log.add("qmgr", queue_id, "removed")
    assert outcome_kinds(log) == [(BOB, "failed")]
    scan = log.scan()
    found = [*scan.pop_finished(), *scan.remaining()]
    messages = {each.queue_id: each for each in found}
    assert len(found) == len(messages)
    assert messages.keys() == {Q1, BY_SMTP, BY_SENDMAIL, SMUGGLED}
    assert all(each.is_accepted for each in messages.values())
    assert messages.pop(Q1).archive_ids == (ID,)
    assert not any(each.is_stamped for each in messages.values())
    later = Log()
    honest_lines(later)
    later.add_hostile(after)
    later_messages = [each.queue_id for each in later.scan().remaining()]
    assert {BY_SMTP, BY_SENDMAIL} <= {*later_messages}


@pytest.mark.parametrize("origin", [Q1, Q2])
def test_mail_under_the_id_of_a_message_that_stays_queued_is_told(origin: str) -> None:
    log = Log()
    honest_lines(log)
    log.add("pipe", Q1, stamped(Q2).replace("status=sent", "status=deferred"))
    smuggled_lines(log, origin)
    log.add("qmgr", SMUGGLED, "removed")
    scan = log.scan()
    messages = {each.queue_id: each for each in scan.pop_finished()}
    assert messages[SMUGGLED].is_reinjected


@pytest.mark.parametrize("result", [stamped(Q2).replace(f"as={Q2} ", ""), "unreadable"])
def test_smuggled_mail_is_no_outcome_of_the_message_it_names(result: str) -> None:
    log = Log()
    honest_lines(log)
    log.add("pipe", Q1, stamped("4zzzzzzzzzzzz2"))
    log.add("pipe", Q1, result)
    smuggled_lines(log, Q1)
    log.add("qmgr", SMUGGLED, "removed")
    assert {kind for _, kind in outcome_kinds(log)} <= {"waiting"}


@pytest.mark.parametrize(
    ("relay", "is_stamp_filter"),
    [
        ("archive-stamp", True),
        ("archive-stamp-2", True),
        ("archive-capture", True),
        ("mail.example.com[private/archive.legal@example.com]", True),
        ("mail.example.com[private/archive-2.on-request]", True),
        ("archive-stamp.example.org[192.0.2.1]:24", False),
        ("mail.example.com[private/archive.capture]", True),
        ("archive-capture.example.org[192.0.2.1]:24", False),
        ("mail.example.com[private/dovecot-lmtp]", False),
        ("x[192.0.2.1][private/archive.legal@example.com]", False),
    ],
)
def test_only_our_transport_and_sockets_are_the_stamp_filter(
    relay: str, is_stamp_filter: bool
) -> None:
    assert delivery.is_stamp_filter(relay) is is_stamp_filter
