"""The language of a page: English, or a catalogue in translations/.

A catalogue is a text file of gettext (.po); it is read once, so nothing has to be
compiled. The language is the one that the reader has chosen, which a cookie keeps, else
the browser's, else web_language. Templates have the filters time, day, size and number,
which write in that language.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
from pathlib import Path

from babel import Locale, dates, negotiate_locale, support
from babel.messages import mofile, pofile
from babel.messages.catalog import Catalog
from flask import Flask, Response, g, has_request_context, request, url_for
from markupsafe import Markup

from postfix_archive.web import site

LANGUAGES = {"en": "English", "de": "Deutsch"}
# For dates and numbers. Objects, since Babel looks up a name each time.
LOCALES = {"en": Locale.parse("en_GB"), "de": Locale.parse("de_DE")}
DIRECTORY = Path(__file__).with_name("translations")
# From those of Python's numbers, which are the English ones.
SEPARATORS: dict[str, dict[int, int]] = {"en": {}, "de": str.maketrans(",.", ".,")}
KEY = "language"  # of the cookie, and in a URL
COOKIE_TIME = 365 * 86400  # seconds
SIZE_STEP = 1000
SIZE_UNITS = ("B", "kB", "MB", "GB", "TB")


def _read(code: str) -> Catalog:
    path = DIRECTORY / code / "LC_MESSAGES" / "messages.po"
    if not path.exists():
        return Catalog()
    with path.open("rb") as file:
        return pofile.read_po(file, locale=code)


@functools.cache
def _catalogue(code: str) -> support.NullTranslations:
    compiled = io.BytesIO()
    mofile.write_mo(compiled, _read(code))
    compiled.seek(0)
    return support.Translations(compiled)


def texts_in_context(code: str, context: str) -> list[tuple[str, str]]:
    """Return the texts of a context in a catalogue, each with its translation."""
    return [
        (str(each.id), str(each.string))
        for each in _read(code)
        if each.context == context and each.string
    ]


def code() -> str:
    """Return the language of this request, one of LANGUAGES."""
    if not has_request_context():
        return "en"
    found: str | None = g.get(KEY)  # a page asks for it a hundred times
    if found is None:
        chosen = request.args.get(KEY) or request.cookies.get(KEY)
        accepted = list(request.accept_languages.values())
        best = negotiate_locale(accepted, LANGUAGES, sep="-")
        found = chosen if chosen in LANGUAGES else best
        found = g.language = found or site.current().web.web_language
    return found


def others() -> list[tuple[str, str, str]]:
    """Return code, name and URL of this page in each of the other languages."""
    return [(e, name, _url(e)) for e, name in LANGUAGES.items() if e != code()]


def _url(language: str) -> str:
    if request.method != "GET" or not request.endpoint:
        return url_for("home.show", language=language)
    values: dict[str, object] = {**request.args.to_dict(flat=False), KEY: language}
    return url_for(request.endpoint, **{**values, **(request.view_args or {})})


def _keep_choice(response: Response) -> Response:
    """Let the browser keep a language that was chosen in the URL."""
    chosen = request.args.get(KEY)
    if chosen in LANGUAGES and chosen != request.cookies.get(KEY):
        is_https = site.current().web.is_https
        response.set_cookie(
            KEY,
            chosen,
            max_age=COOKIE_TIME,
            secure=is_https,
            httponly=True,
            samesite="Lax",
        )
    return response


def gettext(text: str) -> str:
    """Return a text in the language of this request."""
    translated: str = _catalogue(code()).gettext(text)
    return translated


def template_text(text: str, /, **values: object) -> Markup:
    """Return a text for a template, with values for its %(name)s.

    As Jinja's own, which takes twice as long for each of the 60 texts of a page.
    """
    return Markup(gettext(text)) % values


def ngettext(singular: str, plural: str, number: int) -> str:
    """Return the form of a text for a number."""
    translated: str = _catalogue(code()).ngettext(singular, plural, number)
    return translated


def number(value: float) -> str:
    """Return a number with the separators of the language: at most one decimal.

    Babel takes ten times as long for each of the thirty numbers of a page.
    """
    text = f"{round(value, 1):,}".removesuffix(".0")
    return text.translate(SEPARATORS[code()])


def size(count: float) -> str:
    """Return a number of bytes as B, kB, MB, GB or TB."""
    power = 0
    while abs(count) >= SIZE_STEP and power < len(SIZE_UNITS) - 1:
        count /= SIZE_STEP
        power += 1
    digits = 0 if not power or count >= 10 else 1
    return f"{number(round(count, digits))} {SIZE_UNITS[power]}"


def time(value: object) -> str:
    """Return a time of day and date in the host's time zone, as a <time> of HTML.

    value: a Unix time, RFC 3339 or a datetime. What is none of these stays as it is,
    and None is "".
    """
    moment = _datetime(value)
    if moment is None:
        return "" if value is None else str(value)
    text = dates.format_datetime(
        moment, tzinfo=dates.LOCALTZ, locale=LOCALES[code()], format="medium"
    )
    utc = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(utc, text)


def day(value: object) -> str:
    """Return the date of a time; see time(). value: also a date, as YYYY-MM-DD."""
    date = value if type(value) is datetime.date else None
    with contextlib.suppress(TypeError, ValueError):  # not YYYY-MM-DD
        date = date or datetime.date.fromisoformat(value)  # type: ignore[arg-type]
    if date is None:
        moment = _datetime(value)
        if moment is None:
            return "" if value is None else str(value)
        date = moment.astimezone(dates.LOCALTZ).date()
    return dates.format_date(date, locale=LOCALES[code()], format="medium")


def time_zone() -> str:
    """Return the name of the time zone in which times are shown."""
    return str(dates.LOCALTZ)  # its key, such as Europe/Berlin


def _datetime(value: object) -> datetime.datetime | None:
    """Return a time in UTC, None for what is none or is beyond the year 9999."""
    try:
        match value:
            case datetime.datetime():
                return value.astimezone(datetime.UTC)
            case int() | float():
                return datetime.datetime.fromtimestamp(value, datetime.UTC)
            case str():
                return datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def install(app: Flask) -> None:
    """Let the templates of an application use _(), {% trans %} and the filters."""
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]
        gettext, ngettext, newstyle=True
    )
    app.add_template_global(template_text, "_")
    for each in (time, day, size, number):
        app.add_template_filter(each)
    app.add_template_global(others, "other_languages")
    app.add_template_global(time_zone)
    app.after_request(_keep_choice)
