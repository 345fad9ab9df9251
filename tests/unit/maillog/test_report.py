"""What a transport reported, from the reply in Postfix's delivery line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.maillog import report
from postfix_archive.maillog.report import Report
from postfix_archive.message import log_fields

ID = "20261125-5792af7ed677f885f4d7c4f63fd2666cc4c4ce79"
LONGEST_QUEUE_ID = "4jZFG74yqtzK5dhzzzzzzzz"  # with an inode number of 64 bits
PIPE_LIMIT = 99  # bytes of a command's output that every release of pipe(8) logs
ALARMS = ["forged", "incomplete", "not-mailed"]


def by_pipe(line: str) -> str:
    return f"delivered via archive-stamp service ({line[:PIPE_LIMIT]})"


def by_lmtp(line: str) -> str:
    return f"250 2.0.0 {line}"


@given(
    st.lists(st.sampled_from(ALARMS), unique=True),
    st.sampled_from(["done", "queued", "none"]),
    st.text(),
)
@pytest.mark.parametrize("logged", [by_pipe, by_lmtp])
def test_the_ids_and_that_there_is_an_alarm_are_never_truncated(
    logged: object, alarms: list[str], result: str, reason: str
) -> None:
    line = log_fields.build(
        {
            "id": ID,
            "as": LONGEST_QUEUE_ID,
            "alarm": ",".join(alarms),
            "result": result,
            "reason": reason,
        }
    )
    assert callable(logged)
    parsed = report.parse(logged(line))
    assert (parsed.archive_id, parsed.reinjected_as) == (ID, LONGEST_QUEUE_ID)
    assert bool(parsed.alarms) == bool(alarms)
    if not alarms or logged is by_lmtp:
        assert parsed == Report(ID, LONGEST_QUEUE_ID, result, tuple(alarms))


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "250 2.0.0 Ok: queued as 4jZFG74yqtzK5dh",
        "250 2.0.0 from MTA: 250 2.0.0 id=x as=4Z",
        "delivered via archive-stamp service",
        f"250 2.0.0 reason=said id={ID} as=4Z",
        "250 2.0.0 id=../../etc as=4Z/x",
    ],
)
def test_what_is_no_report_of_ours_reports_nothing(reply: str) -> None:
    parsed = report.parse(reply)
    assert not parsed.archive_id and not parsed.reinjected_as
