"""The page Status: what is archived, what waits, what is wrong; and /health."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from flask import Blueprint, Response, render_template

from postfix_archive.web import site
from postfix_archive.web.language import gettext as _
from postfix_archive.web.reports import chart
from postfix_archive.web.visible import status
from postfix_archive.web.visible.status import VisibleStatus

blueprint = Blueprint("dashboard", __name__)
UNHEALTHY = 503  # HTTP status
Day = tuple[datetime.date, int, int]


@blueprint.get("/status")
@site.needs(
    lambda user: not user.is_own_only, "this page is for admins, auditors and officers"
)
def show() -> str:
    """Show the state of the user's archives."""
    state = VisibleStatus(site.current().settings, site.user())
    days = state.days()
    return render_template(
        "dashboard.html",
        state=state,
        archives=state.archives(),
        message_chart=chart.bars([each[1] for each in days], _("Messages a day")),
        size_chart=chart.bars([each[2] for each in days], _("Bytes a day")),
        months=_months(days),
        first_day=days[0][0],
        last_day=days[-1][0],
    )


def _months(days: Sequence[Day]) -> list[tuple[str, int, int]]:
    """Return month (YYYY-MM), messages and bytes, newest first."""
    months: dict[str, tuple[int, int]] = {}
    for day, count, size in days:
        total = months.get(f"{day:%Y-%m}", (0, 0))
        months[f"{day:%Y-%m}"] = (total[0] + count, total[1] + size)
    return [(month, *total) for month, total in reversed(months.items())]


@blueprint.get("/health")
def health() -> Response:
    """Tell monitoring, without login, whether all is well; names nothing of the mail.

    ``ok`` or ``warning``, with a reason in each line that follows.
    """
    reasons = status.health(site.current().settings)
    text = "\n".join(["warning", *reasons] if reasons else ["ok"])
    code = UNHEALTHY if reasons else 200
    return Response(f"{text}\n", code, mimetype="text/plain")
