"""A click parameter type for dates, used by the options of commands."""

from __future__ import annotations

import datetime
from typing import Any

import click
import dateutil.parser


class Date(click.ParamType):  # type: ignore[type-arg]
    """A date such as 2026-11-22, "22 Nov" or "2026-11-22 14:00 +0100"."""

    name = "date"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime.datetime:
        """Return the time; without a time zone it is UTC, as in the journal."""
        try:
            date = dateutil.parser.parse(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a date; example: 2026-11-22 14:00", param, ctx)
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.timezone.utc)
        return date
