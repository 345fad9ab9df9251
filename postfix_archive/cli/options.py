"""What commands take: the settings of the instance, dates, archive addresses."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable
from typing import Any

import click

from postfix_archive.access.access_recorder import AccessRecorder
from postfix_archive.cli import output
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import RequestInvalid
from postfix_archive.message import request


class Date(click.ParamType):  # type: ignore[type-arg]
    """A date such as 2026-11-22, "22 Nov" or "2026-11-22 14:00 +0100"."""

    name = "date"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime.datetime:
        """Return the time; without a time zone it is UTC, as in the journal."""
        import dateutil.parser  # takes 10 ms, which a command without a date saves

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of a time zone that it does not know
                date = dateutil.parser.parse(value)
        except (ValueError, OverflowError, Warning):
            self.fail(f"{value!r} is not a date; example: 2026-11-22 14:00", param, ctx)
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.timezone.utc)
        return date


class ArchiveAddress(click.ParamType):  # type: ignore[type-arg]
    """An archive address, in lower case as in the store."""

    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Return the address as the store names it."""
        try:
            return request.parse_archive(value)
        except RequestInvalid:
            self.fail(f"{value!r} is not an archive address", param, ctx)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Pass the settings of this instance as the command's first argument."""

    @click.pass_obj
    def run_with_settings(directory: str, /, **options: Any) -> None:
        command(archive_cf.load(directory), **options)

    run_with_settings.__doc__ = command.__doc__
    run_with_settings.__name__ = command.__name__
    return run_with_settings


# A number of messages; Python counts up to sys.maxsize, and one more is asked for.
COUNT = click.IntRange(1, 10**9)

archives_option = click.option(
    "--archive",
    "archives",
    type=ArchiveAddress(),
    multiple=True,
    metavar="ADDRESS",
    help="Only this archive; may be given several times.",
)
reason_option = click.option(
    "--reason", metavar="TEXT", default="", help="Why: recorded with who reads what."
)


def recorder(
    settings: Settings, action: str, reason: str, query: str = ""
) -> AccessRecorder:
    """Return what records the accesses of a command."""
    return AccessRecorder(
        settings, action, query=query, reason=reason, warn=output.report
    )
