"""Delivery attempts as Postfix 3.5 to 3.11 has really logged them, hostile ones too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from postfix_archive.maillog import delivery, log_line
from postfix_archive.maillog.delivery import Attempt

from unit.samples import VERSIONS, expected

SENT = (
    "to=<bob@example.net>, relay=mx.example.net[192.0.2.1]:25, delay=1, delays=0/0/0/1,"
    " dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4jZ9yw34sFzM25v)"
)
BOUNCED = (
    "to=<bob@example.net>, relay=mx.example.net[192.0.2.1]:25, delay=1, delays=0/0/0/1,"
    " dsn=5.1.1, status=bounced (host mx.example.net[192.0.2.1] said: 550 5.1.1 no)"
)
# What the remote side of the samples does, by the beginning of the local part.
EXPECTED_STATUSES = {
    "yes": {"sent", "deliverable"},
    "no": {"bounced", "SOFTBOUNCE", "undeliverable"},
    "nodata": {"bounced"},
    "later": {"deferred", "sent"},
    "gate": {"deferred", "sent"},
    "gone": {"bounced"},
    "full": {"deferred"},
}
# Bounced with somebody else's nodata-…, or for its sender, or hung up on.
EXCEPTIONS = ("yes-innocent@", "yes-a@", "yes@hangup")
FILTERED_RECIPIENTS = (
    "no-told@",
    "no-silent@",
    "later-told@",
    "no-split@",
)  # first to the filter


def samples(version: str) -> list[tuple[str, str]]:
    """Return the text of each sample attempt, and what stands beside it."""
    pairs = []
    for sample, expected_fields in expected(version):
        line = log_line.parse(sample)
        if line and line.text.startswith(delivery.ATTEMPT_PREFIX):
            pairs.append((line.text, expected_fields))
    return pairs


def fields(attempt: Attempt | None) -> str:
    """Return an attempt as it stands in the files of expectations."""
    if attempt is None:
        return "?"
    values = [attempt.status, attempt.dsn, attempt.recipient]
    if attempt.original != attempt.recipient:
        values.append(attempt.original)
    return "\t".join(values)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_sample_is_read_as_it_is(version: str) -> None:
    for text, expected_fields in samples(version):
        assert fields(delivery.parse(text)) == expected_fields, text


@pytest.mark.parametrize("version", VERSIONS)
def test_the_samples_have_every_status(version: str) -> None:
    statuses = {
        expected_fields.partition("\t")[0] for _, expected_fields in samples(version)
    }
    probe_statuses = {"deliverable", "undeliverable"}
    assert (
        statuses == {"sent", "bounced", "deferred", "SOFTBOUNCE", "?"} | probe_statuses
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_no_sample_is_read_as_what_did_not_happen(version: str) -> None:
    for text, _ in samples(version):
        attempt = delivery.parse(text)
        if attempt is None or attempt.recipient.startswith(
            (*EXCEPTIONS, *FILTERED_RECIPIENTS)
        ):
            continue
        kind = attempt.recipient.partition("@")[0].partition("-")[0]
        if kind in EXPECTED_STATUSES:
            assert attempt.status in EXPECTED_STATUSES[kind], text
        if "@error.example.com" in attempt.recipient:
            assert attempt.status == "bounced", text


@pytest.mark.parametrize("version", VERSIONS)
def test_only_what_is_hostile_odd_or_cut_is_not_understood(version: str) -> None:
    odd = [
        "status=sent (250",
        "reason; ",
        "<two words@",
        "<<a@b>@",
        "<a,b;c:d@",
        "<a>b@",
    ]
    odd += ['<a"b@', "<x@a>b>", "<status=sent (ok)@"]
    for text, expected_fields in samples(version):
        assert expected_fields != "?" or any(each in text for each in odd), text


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cut_sample_is_never_read_as_another(version: str) -> None:
    understood = [
        (text, expected_fields)
        for text, expected_fields in samples(version)
        if expected_fields != "?"
    ]
    for text, expected_fields in understood:
        for length in range(len(text) - 1):
            attempt = delivery.parse(text[:length])
            assert attempt is None or fields(attempt) == expected_fields, text[:length]


def test_the_remote_queue_id_is_the_last_in_its_reply() -> None:
    attempt = delivery.parse(SENT)
    assert attempt is not None and attempt.queued_as == "4jZ9yw34sFzM25v"
    forwarded = delivery.parse(SENT.replace("250 2.0.0 Ok: queued", "forwarded"))
    assert forwarded is not None and forwarded.queued_as == "4jZ9yw34sFzM25v"
    without_queue_id = delivery.parse(SENT.replace("4jZ9yw34sFzM25v", ""))
    assert without_queue_id is not None and without_queue_id.queued_as == ""


@pytest.mark.parametrize("first", [SENT, BOUNCED])
@pytest.mark.parametrize("second", [SENT, BOUNCED])
def test_two_lines_in_one_are_never_one_of_both(first: str, second: str) -> None:
    line_start = "Nov 25 07:19:04 mail postfix/smtp[1]: 4jZ9yw2mgRzM24y: "
    for length in range(1, len(first)):
        attempt = delivery.parse(first[:length] + line_start + second)
        assert attempt is None, first[:length]


@pytest.mark.parametrize("end", ["", ")" * 400])
def test_a_line_at_postfix_s_own_limit_is_not_read(end: str) -> None:
    # 1,971: 2,000 without the longest queue id.
    forged = SENT.replace("bob@", "x@").rstrip(")") + " " + "y" * 1700 + end
    assert delivery.parse(forged.ljust(2000, ")")[:1971]) is None


@given(some.text(max_size=300))
def test_no_recipient_decides_what_became_of_it(local_part: str) -> None:
    assert _status(BOUNCED.replace("bob@example.net", local_part)) != "sent"
    quoted = '"' + local_part.replace("\\", "").replace('"', '\\"') + '"@example.net'
    assert _status(BOUNCED.replace("bob@example.net", quoted)) != "sent"


HOSTILE = some.sampled_from(
    (SENT, ">, ", "relay=none", ", dsn=2.0.0", ", status=sent (", ")", "<", '"', "\\")
)


@given(some.lists(HOSTILE, max_size=8).map("".join))
def test_no_recipient_made_of_pieces_of_lines_decides_it(address: str) -> None:
    assert _status(BOUNCED.replace("bob@example.net", address)) != "sent"
    domain = BOUNCED.replace("example.net>,", f"{address}>,", 1)
    assert _status(domain) != "sent"


@given(some.lists(HOSTILE, max_size=8).map("".join))
def test_no_reply_decides_it(reply: str) -> None:
    assert _status(BOUNCED.replace("550 5.1.1 no", reply)) in ("bounced", "")


def _status(text: str) -> str:
    attempt = delivery.parse(text)
    return attempt.status if attempt else ""


@pytest.mark.parametrize(
    "relay",
    [
        "archive-stamp",
        "archive-stamp-2",
        "archive-capture",
        "mail.example.com[private/archive.legal@example.com]",
        "mail.example.com[private/archive.capture]",
    ],
)
def test_what_captures_a_message_is_recognised_in_every_mode(relay: str) -> None:
    assert delivery.is_stamp_filter(relay)
    assert delivery.can_name_stamp_filter(f"to=<a@example.com>, relay={relay}, delay=1")
