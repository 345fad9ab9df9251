"""Claims about why a message is not in the archive, on hosts of many kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from postfix_archive.message import dates
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.reconcile import causes
from postfix_archive.reconcile.causes import Classifier, Verdict
from postfix_archive.reconcile.messages import DELETED, Message
from postfix_archive.store.bypass_period import BypassPeriod

from unit.hosts import AMAVIS, BACK, STOCK, WISH, after, host

NOW = 1795348380.0
MORE = (
    "2525 inet n - n - - smtpd -o syslog_name=postfix/more -o content_filter=\n"
    "2526 inet n - n - - smtpd -o syslog_name=postfix/scan -o content_filter=x:y\n"
    "2527 inet n - n - - smtpd -o syslog_name=postfix/free -o archive=\n"
    "628 inet n - n - - qmqpd -o content_filter=\n"
)
SHARED = "2528 inet n - n - - smtpd -o content_filter=\n"
FILTERED = (
    "filter: RCPT from a[1.2.3.4]: <ann@example.org>: Sender address triggers FILTER"
    " smtp:[::1]:99; from=<ann@example.org> to=<b@c.example> proto=ESMTP helo=<x>"
)


def named(found: Configuration) -> Configuration:
    """The host as Postfix names itself in the log."""
    return replace(found, parameters={**found.parameters, "syslog_name": "postfix"})


def by_hand(master: str) -> Configuration:
    """A host with more services, added after the archive was put in."""
    found = after(host())
    return named(replace(found, services=(*found.services, *host({}, master).services)))


STANDARD = named(after(host()))


def message(
    service: str = "postfix", daemon: str = "smtpd", relay: str = "sink", **more: Any
) -> Message:
    made = Message(
        queue_id="4jZFG724PhzK5b4",
        time=NOW,
        queued_time=NOW,
        service=service,
        daemon=daemon,
        pid="7",
        sender="ann@example.org",
        relay=relay,
    )
    return replace(made, **more)


def judged(
    found: Configuration, of: Message, *periods: BypassPeriod, led: float | None = None
) -> Verdict:
    processes = {} if led is None else {(of.service, of.daemon, of.pid): led}
    return Classifier(found, periods, processes).classify_unarchived(of)


@pytest.mark.parametrize(
    ("service", "daemon", "kind", "cause"),
    [
        (
            "postfix/more",
            "smtpd",
            "missing",
            "accepted by 2525/inet (content_filter is empty); ",
        ),
        (
            "postfix/scan",
            "smtpd",
            "missing",
            "accepted by 2526/inet (content_filter is x:y); sent",
        ),
        (
            "postfix",
            "qmqpd",
            "missing",
            "accepted by 628/inet (content_filter is empty); sent",
        ),
        ("postfix/free", "smtpd", "not_requested", "2527/inet -o archive="),
    ],
)
def test_a_service_that_leads_around_the_archive_is_named(
    service: str, daemon: str, kind: str, cause: str
) -> None:
    said = judged(by_hand(MORE), message(service, daemon))
    assert said.kind == kind
    assert said.explanation.startswith(cause)


def test_where_services_share_a_name_the_cause_is_only_probable() -> None:
    said = judged(by_hand(SHARED), message())
    assert (said.kind, said.cause) == ("missing", "other-content-filter")
    assert said.explanation.startswith(
        "probably accepted by 2528/inet (content_filter is empty)"
    )


def test_a_process_that_led_other_mail_to_the_archive_serves_no_other_service() -> None:
    """An smtpd(8) process serves one service, and does not live for ever."""
    assert judged(by_hand(SHARED), message(), led=NOW - 60).cause == "unexplained"
    assert (
        judged(by_hand(SHARED), message(), led=NOW - 7200).cause
        == "other-content-filter"
    )


def test_what_should_be_there_by_the_configuration_is_unexplained() -> None:
    said = judged(STANDARD, message())
    assert (said.kind, said.cause) == ("missing", "unexplained")
    assert "was main.cf or master.cf changed?" in said.explanation
    said = judged(STANDARD, message("postfix/gone"))
    assert "master.cf has no service postfix/gone/smtpd now" in said.explanation


def test_a_host_that_archives_nothing_is_asked_for_nothing() -> None:
    empty = replace(STANDARD, main={**STANDARD.main, "archive": ""})
    said = judged(empty, message())
    assert (said.kind, said.explanation) == (
        "not_requested",
        "main.cf: archive is empty",
    )


def bypass(start: float, end: float) -> BypassPeriod:
    times = map(dates.format_rfc3339, (start, end))
    return BypassPeriod(next(times), "root", "ticket 17", next(times), "root")


def test_mail_of_a_bypass_period_is_not_archived() -> None:
    period = bypass(NOW - 5, NOW + 5)
    assert judged(STANDARD, message(), period).cause == "bypass-on"
    later = bypass(NOW + 1, NOW + 5)
    assert judged(STANDARD, message(), later).cause == "unexplained"
    requeued = message(time=NOW - 3600)
    assert judged(STANDARD, requeued, period).cause == "bypass-on"
    said = judged(by_hand(MORE), message("postfix/free"), period)
    assert said.kind == "not_requested"


def test_an_action_of_a_table_is_named_with_where_it_leads() -> None:
    of = message(action_text=FILTERED)
    said = judged(STANDARD, of)
    assert said.cause == "filter-action"
    assert (
        said.explanation == "FILTER smtp:[::1]:99 by an access table or policy server"
    )
    action_text = (
        "redirect: header Subject: FILTER from a[1.2.3.4]; from=<ann@example.org>"
        " to=<b@c.example> proto=ESMTP helo=<x>: eve@example.net"
    )
    said = judged(STANDARD, message(action_text=action_text))
    assert said.cause == "redirect-action"
    assert said.explanation == "REDIRECT eve@example.net by header_checks"


def test_an_action_for_another_sender_is_not_this_messages() -> None:
    of = message(action_text=FILTERED, sender="bob@example.org")
    assert judged(STANDARD, of).cause == "unexplained"


@pytest.mark.parametrize("end", ["", ";", "; from=<a>"])
def test_a_sender_cannot_name_the_place_to_which_a_filter_leads(end: str) -> None:
    sender = f"triggers FILTER x:y{end}"
    action_text = FILTERED.replace("ann@example.org", sender)
    of = message(sender=sender, action_text=action_text)
    assert judged(STANDARD, of).explanation.startswith("FILTER smtp:[::1]:99 by ")


def test_a_rule_that_threw_mail_away_is_named_without_the_mails_words() -> None:
    text = "discard: header Subject: secret from a[1.2.3.4]; from=<a@b>: x"
    of = message(discard_text=text)
    assert judged(STANDARD, of).explanation == "DISCARD by header_checks"
    of = message(discard_text="milter-discard: END-OF-MESSAGE from a[1.2.3.4]: x")
    assert judged(STANDARD, of).explanation == "DISCARD by a milter"


def test_what_came_by_a_hand_back_port_was_handed_in() -> None:
    of = message("postfix/archive-handback", is_reinjected=True)
    said = judged(STANDARD, of)
    assert said.cause == "foreign-reinjection"
    assert "archive-handback" in said.explanation


def test_what_was_deleted_before_it_went_anywhere_says_so() -> None:
    of = message(end=DELETED, relay="")
    assert judged(STANDARD, of).cause == "deleted"


def test_what_a_filter_before_the_archive_keeps_was_never_to_be_archived() -> None:
    """ARCHIVE_POSITION=after: spam that amavis keeps is not missed."""
    found = host({"content_filter": AMAVIS}, STOCK + BACK)
    behind = named(after(found, replace(WISH, position="after")))
    of = message(relay="127.0.0.1[127.0.0.1]:10024", is_content_filtered=True)
    said = judged(behind, of)
    assert (said.kind, said.cause) == ("not_requested", "kept-by-filter")
    assert of.relay in said.explanation
    unfiltered = replace(of, is_content_filtered=False)
    assert judged(behind, unfiltered).kind == "missing"
    before = named(after(found))
    assert judged(before, of).kind == "missing"


def test_mail_that_nobody_has_tried_yet_is_on_its_way_where_its_service_leads() -> None:
    judge = Classifier(by_hand(MORE), (), {})
    assert judge.has_stamp_filter(message())
    assert judge.has_stamp_filter(message(daemon="pickup"))
    assert not judge.has_stamp_filter(message("postfix/more"))
    assert causes.KINDS[-1] == "missing"
