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

from unit.hosts import (
    AMAVIS,
    REINJECTION_ENTRY,
    SETUP,
    STOCK_MASTER,
    config_after,
    make_config,
)

NOW = 1795348380.0
MORE_SERVICES = (
    "2525 inet n - n - - smtpd -o syslog_name=postfix/more -o content_filter=\n"
    "2526 inet n - n - - smtpd -o syslog_name=postfix/scan -o content_filter=x:y\n"
    "2527 inet n - n - - smtpd -o syslog_name=postfix/free -o archive=\n"
    "628 inet n - n - - qmqpd -o content_filter=\n"
)
SHARED_SERVICE = "2528 inet n - n - - smtpd -o content_filter=\n"
FILTERED = (
    "filter: RCPT from a[1.2.3.4]: <ann@example.org>: Sender address triggers FILTER"
    " smtp:[::1]:99; from=<ann@example.org> to=<b@c.example> proto=ESMTP helo=<x>"
)


def with_syslog_name(config: Configuration) -> Configuration:
    """The host as Postfix names itself in the log."""
    return replace(config, parameters={**config.parameters, "syslog_name": "postfix"})


def config_with_services(master: str) -> Configuration:
    """A host with more services, added after the archive was put in."""
    config = config_after(make_config())
    return with_syslog_name(
        replace(config, services=(*config.services, *make_config({}, master).services))
    )


STANDARD_CONFIG = with_syslog_name(config_after(make_config()))


def message(
    service: str = "postfix", daemon: str = "smtpd", relay: str = "sink", **more: Any
) -> Message:
    accepted = Message(
        queue_id="4jZFG724PhzK5b4",
        time=NOW,
        queued_time=NOW,
        service=service,
        daemon=daemon,
        pid="7",
        sender="ann@example.org",
        relay=relay,
    )
    return replace(accepted, **more)


def classify(
    config: Configuration,
    accepted: Message,
    *periods: BypassPeriod,
    routed_at: float | None = None,
) -> Verdict:
    processes = (
        {}
        if routed_at is None
        else {(accepted.service, accepted.daemon, accepted.pid): routed_at}
    )
    return Classifier(config, periods, processes).classify_unarchived(accepted)


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
def test_a_service_that_bypasses_the_archive_is_named(
    service: str, daemon: str, kind: str, cause: str
) -> None:
    classified = classify(config_with_services(MORE_SERVICES), message(service, daemon))
    assert classified.kind == kind
    assert classified.explanation.startswith(cause)


def test_where_services_share_a_name_the_cause_is_only_probable() -> None:
    classified = classify(config_with_services(SHARED_SERVICE), message())
    assert (classified.kind, classified.cause) == ("missing", "other-content-filter")
    assert classified.explanation.startswith(
        "probably accepted by 2528/inet (content_filter is empty)"
    )


def test_a_process_that_routed_other_mail_to_the_archive_serves_no_other_service() -> (
    None
):
    """An smtpd(8) process serves one service, and does not live for ever."""
    assert (
        classify(
            config_with_services(SHARED_SERVICE), message(), routed_at=NOW - 60
        ).cause
        == "unexplained"
    )
    assert (
        classify(
            config_with_services(SHARED_SERVICE), message(), routed_at=NOW - 7200
        ).cause
        == "other-content-filter"
    )


def test_what_should_be_there_by_the_configuration_is_unexplained() -> None:
    classified = classify(STANDARD_CONFIG, message())
    assert (classified.kind, classified.cause) == ("missing", "unexplained")
    assert "was main.cf or master.cf changed?" in classified.explanation
    classified = classify(STANDARD_CONFIG, message("postfix/gone"))
    assert "master.cf has no service postfix/gone/smtpd now" in classified.explanation


def test_a_host_that_archives_nothing_misses_nothing() -> None:
    empty = replace(STANDARD_CONFIG, main={**STANDARD_CONFIG.main, "archive": ""})
    classified = classify(empty, message())
    assert (classified.kind, classified.explanation) == (
        "not_requested",
        "main.cf: archive is empty",
    )


def bypass(start: float, end: float) -> BypassPeriod:
    times = map(dates.format_rfc3339, (start, end))
    return BypassPeriod(next(times), "root", "ticket 17", next(times), "root")


def test_mail_of_a_bypass_period_is_not_archived() -> None:
    period = bypass(NOW - 5, NOW + 5)
    assert classify(STANDARD_CONFIG, message(), period).cause == "bypass-on"
    later = bypass(NOW + 1, NOW + 5)
    assert classify(STANDARD_CONFIG, message(), later).cause == "unexplained"
    requeued = message(time=NOW - 3600)
    assert classify(STANDARD_CONFIG, requeued, period).cause == "bypass-on"
    classified = classify(
        config_with_services(MORE_SERVICES), message("postfix/free"), period
    )
    assert classified.kind == "not_requested"


def test_a_table_action_is_named_with_its_destination() -> None:
    accepted = message(action_text=FILTERED)
    classified = classify(STANDARD_CONFIG, accepted)
    assert classified.cause == "filter-action"
    assert (
        classified.explanation
        == "FILTER smtp:[::1]:99 by an access table or policy server"
    )
    action_text = (
        "redirect: header Subject: FILTER from a[1.2.3.4]; from=<ann@example.org>"
        " to=<b@c.example> proto=ESMTP helo=<x>: eve@example.net"
    )
    classified = classify(STANDARD_CONFIG, message(action_text=action_text))
    assert classified.cause == "redirect-action"
    assert classified.explanation == "REDIRECT eve@example.net by header_checks"


def test_an_action_for_another_sender_is_not_this_messages() -> None:
    accepted = message(action_text=FILTERED, sender="bob@example.org")
    assert classify(STANDARD_CONFIG, accepted).cause == "unexplained"


@pytest.mark.parametrize("end", ["", ";", "; from=<a>"])
def test_a_sender_cannot_forge_the_destination_of_a_filter_action(end: str) -> None:
    sender = f"triggers FILTER x:y{end}"
    action_text = FILTERED.replace("ann@example.org", sender)
    accepted = message(sender=sender, action_text=action_text)
    assert classify(STANDARD_CONFIG, accepted).explanation.startswith(
        "FILTER smtp:[::1]:99 by "
    )


def test_a_rule_that_discarded_mail_is_named_without_text_of_the_mail() -> None:
    text = "discard: header Subject: secret from a[1.2.3.4]; from=<a@b>: x"
    accepted = message(discard_text=text)
    assert classify(STANDARD_CONFIG, accepted).explanation == "DISCARD by header_checks"
    accepted = message(discard_text="milter-discard: END-OF-MESSAGE from a[1.2.3.4]: x")
    assert classify(STANDARD_CONFIG, accepted).explanation == "DISCARD by a milter"


def test_mail_by_the_reinjection_port_was_reinjected() -> None:
    accepted = message("postfix/archive-handback", is_reinjected=True)
    classified = classify(STANDARD_CONFIG, accepted)
    assert classified.cause == "foreign-reinjection"
    assert "archive-handback" in classified.explanation


def test_a_second_reinjection_of_a_captured_message_is_not_missing() -> None:
    accepted = message(
        "postfix/archive-handback", is_reinjected=True, is_second_reinjection=True
    )
    classified = classify(STANDARD_CONFIG, accepted)
    assert (classified.kind, classified.cause) == (
        "not_requested",
        "second-reinjection",
    )


def test_mail_deleted_before_any_delivery_is_reported_as_deleted() -> None:
    accepted = message(end=DELETED, relay="")
    assert classify(STANDARD_CONFIG, accepted).cause == "deleted"


def test_what_a_filter_before_the_archive_keeps_was_never_to_be_archived() -> None:
    """ARCHIVE_POSITION=after: spam that amavis keeps is not missed."""
    config = make_config({"content_filter": AMAVIS}, STOCK_MASTER + REINJECTION_ENTRY)
    behind = with_syslog_name(config_after(config, replace(SETUP, position="after")))
    accepted = message(relay="127.0.0.1[127.0.0.1]:10024", is_content_filtered=True)
    classified = classify(behind, accepted)
    assert (classified.kind, classified.cause) == ("not_requested", "kept-by-filter")
    assert accepted.relay in classified.explanation
    unfiltered = replace(accepted, is_content_filtered=False)
    assert classify(behind, unfiltered).kind == "missing"
    before = with_syslog_name(config_after(config))
    assert classify(before, accepted).kind == "missing"


def test_mail_without_a_delivery_attempt_is_judged_by_its_service() -> None:
    classifier = Classifier(config_with_services(MORE_SERVICES), (), {})
    assert classifier.has_stamp_filter(message())
    assert classifier.has_stamp_filter(message(daemon="pickup"))
    assert not classifier.has_stamp_filter(message("postfix/more"))
    assert causes.KINDS[-1] == "missing"
