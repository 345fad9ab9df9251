"""What a transport of ours reported of one message, from Postfix's delivery line.

Used by maillog/queue_tracker and reconcile/capsules. pipe(8) and lmtp(8) log the line
that message/log_fields has built; pipe(8) truncates it, but never within ``id`` and
``as``, which come first. Trust the report only of a relay that is a transport of ours.
"""

from __future__ import annotations

from typing import NamedTuple

from postfix_archive.message import log_fields, received_header

PIPE_OUTPUT = " service ("  # pipe(8): delivered via SERVICE service (OUTPUT)
LMTP_PREFIX = "250 2.0.0 "
FALLBACK = "fallback"  # the alarm of a capsule in the fallback directory


class Report(NamedTuple):
    """The fields of a report, "" without one; docs/log-format.md explains them."""

    archive_id: str = ""
    reinjected_as: str = ""
    result: str = ""
    alarms: tuple[str, ...] = ()


def parse(reply: str) -> Report:
    """Return the report in a reply: the text in brackets after ``status=sent``."""
    _, pipe_mark, output = reply.partition(PIPE_OUTPUT)
    if pipe_mark:
        output = output.removesuffix(")")
    else:
        output = reply.removeprefix(LMTP_PREFIX)
    fields = log_fields.parse(output)
    archive_id, queue_id = fields.get("id", ""), fields.get("as", "")
    return Report(
        archive_id if received_header.is_archive_id(archive_id) else "",
        queue_id if queue_id.isascii() and queue_id.isalnum() else "",
        fields.get("result", ""),
        tuple(filter(None, fields.get("alarm", "").split(","))),
    )
