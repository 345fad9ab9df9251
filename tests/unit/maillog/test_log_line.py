"""One line of Postfix's log, in the forms that syslog daemons give it."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from postfix_archive.maillog import delivery, log_line
from postfix_archive.maillog.log_line import TimeParser

from unit.samples import LOG_DIRECTORY, VERSIONS, expected, read_lines

FORMS = sorted(each.stem for each in (LOG_DIRECTORY / "forms").glob("*.log"))
WITHOUT_DAEMON = "rsyslog-protocol-23"
START = datetime.datetime(2026, 11, 25, 7, 18, tzinfo=datetime.timezone.utc).timestamp()
UTC = datetime.timezone.utc
# What the two instances were sent, and what became of it: the same under each daemon.
ATTEMPTS = {
    ("local", "backup@here.example.com", "sent"),
    ("local", "nobody-here@here.example.com", "bounced"),
    ("pipe", "x@example.net", "sent"),
    ("pipe", "alice@example.org", "sent"),
    ("pipe", '"two words"@example.net', "sent"),
    ("pipe", '"a>b"@example.net', "sent"),
    ("pipe", "grün@example.net", "sent"),
    ("smtp", "yes-a@far.example.net", "sent"),
    ("smtp", "no-a@far.example.net", "bounced"),
    ("smtp", "later-a@far.example.net", "deferred"),
    ("smtp", "later-a@far.example.net", "sent"),
}
DAEMONS = {"smtpd", "cleanup", "qmgr", "pickup", "bounce", "local", "pipe", "smtp"}
SAMPLE = "Nov 25 07:19:04 mail postfix/qmgr[16410]: 4jZ9yw2mgRzM24y: removed"


def attempts(form: str) -> set[tuple[str, str, str]]:
    """Return the delivery attempts that a log of this form tells of."""
    parsed = set()
    for raw_line in read_lines(LOG_DIRECTORY / "forms" / f"{form}.log"):
        line = log_line.parse(raw_line)
        if line and line.text.startswith(delivery.ATTEMPT_PREFIX):
            attempt = delivery.parse(line.text)
            assert attempt is not None
            parsed.add((line.daemon, attempt.recipient, attempt.status))
    return parsed


def test_no_form_is_missing() -> None:
    assert len(FORMS) == 13


@pytest.mark.parametrize("version", VERSIONS)
def test_the_daemon_of_a_sample_line_is_read(version: str) -> None:
    for text, expected_daemon in expected(version):
        line = log_line.parse(text)
        if expected_daemon == "-":
            assert line is None, text
        elif "\t" not in expected_daemon and expected_daemon != "?":
            assert line is not None and line.daemon == expected_daemon, text


@pytest.mark.parametrize("version", VERSIONS)
def test_no_line_with_a_queue_id_is_passed_over(version: str) -> None:
    without = [
        text for text, expected_daemon in expected(version) if expected_daemon == "-"
    ]
    marks = ("to=<", "from=<", "removed", "message-id=", "client=", "uid=", "QUEUE")
    assert [each for each in without if any(mark in each for mark in marks)] == []


@pytest.mark.parametrize("form", FORMS)
def test_a_log_reads_the_same_in_every_form(form: str) -> None:
    read = [
        log_line.parse(each)
        for each in read_lines(LOG_DIRECTORY / "forms" / f"{form}.log")
    ]
    if form == WITHOUT_DAEMON:
        assert not any(read)
        return
    assert attempts(form) == ATTEMPTS
    assert {each.daemon for each in read if each} == DAEMONS
    assert {each.host for each in read if each} == {"mail"}
    assert {each.service for each in read if each} == {"postfix"}
    assert any(each.queue_id == log_line.NO_QUEUE_ID for each in read if each)


@pytest.mark.parametrize("form", FORMS)
def test_the_times_of_a_log_are_read_in_every_form(form: str) -> None:
    clock = TimeParser(START + 3600, UTC)
    for raw_line in read_lines(LOG_DIRECTORY / "forms" / f"{form}.log"):
        assert START < clock.unix_time(log_line.time_of(raw_line)) < START + 600
        line = log_line.parse(raw_line)
        assert line is None or line.time == log_line.time_of(raw_line)


def test_a_zone_that_has_only_a_name_is_that_of_the_log() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=1))
    clock = TimeParser(START, zone)
    noon = clock.unix_time("2026-11-25T12:00:00+01:00")
    assert clock.unix_time("Wed 2026-11-25 12:00:00 CET") == noon
    assert clock.unix_time("Wed 2026-11-25 11:00:00 UTC") == noon
    assert clock.unix_time("Nov 25 12:00:00") == noon
    assert clock.unix_time("2026-11-25 12:00:00") == noon


def test_a_time_without_year_is_never_in_the_future() -> None:
    january = datetime.datetime(2027, 1, 2, tzinfo=UTC).timestamp()
    clock = TimeParser(january, UTC)
    assert clock.unix_time("Dec 31 23:59:59") == january - 86401
    assert clock.unix_time("Jan  1 00:00:00") == january - 86400
    leap = TimeParser(january, UTC).unix_time("Feb 29 00:00:00")
    assert datetime.datetime.fromtimestamp(leap, UTC).year == 2024


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
AUTUMN = datetime.datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()  # 02:30 CEST


@pytest.mark.parametrize(
    "time_format", ["%b %d %H:%M:%S", "%Y %b %d %H:%M:%S", "%Y-%m-%d %H:%M:%S"]
)
def test_the_repeated_hour_is_told_by_the_order_of_the_lines(time_format: str) -> None:
    clock = TimeParser(AUTUMN + 3 * 3600, BERLIN)
    disorder = [0, 30, 29, 31]
    minutes = [AUTUMN + 60 * n + 1 for n in range(-120, 120)]
    for seconds in [each + late for each in minutes for late in disorder]:
        text = datetime.datetime.fromtimestamp(seconds, BERLIN).strftime(time_format)
        assert clock.unix_time(text) == seconds, text


def test_a_reader_that_continues_knows_which_hour_it_is() -> None:
    text, second_time = "Oct 25 02:30:00", AUTUMN + 3600
    later = TimeParser(second_time, BERLIN, previous=second_time - 60)
    assert later.unix_time(text) == second_time
    assert TimeParser(second_time, BERLIN).unix_time(text) == AUTUMN


@pytest.mark.parametrize("time", ["", "Nov 31 00:00:00", "x", "-", "2026-", "1" * 400])
def test_a_time_that_there_is_not_is_none(time: str) -> None:
    assert TimeParser(START, UTC).unix_time(time) == 0.0


@pytest.mark.parametrize("length", range(len(SAMPLE)))
def test_a_truncated_line_gives_nothing_or_less(length: int) -> None:
    line = log_line.parse(SAMPLE[:length])
    assert line is None or line.text != "removed"


def test_what_stands_in_front_of_a_line_is_not_passed_over() -> None:
    assert log_line.parse(f"x{SAMPLE}") is None
    assert log_line.parse(f"Nov 25 07:19:04 mail {SAMPLE}") is None


@given(some.text(max_size=200))
def test_no_text_makes_a_line_of_another_file(text: str) -> None:
    line_start = "Nov 25 07:19:04 mail postfix/smtpd[1]: "
    line = log_line.parse(f"{line_start}4jZ9yw2mgRzM24y: {text}")
    assert line is not None and line.queue_id == "4jZ9yw2mgRzM24y"
    assert line.text == text.partition("\n")[0]


@given(some.binary(max_size=300))
def test_bytes_of_any_kind_are_no_trouble(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    log_line.parse(text)
    TimeParser(START, UTC).unix_time(text)
    TimeParser(START, UTC).unix_time(log_line.time_of(text))
