"""The language of a page: English, or a catalogue in translations/.

A catalogue is a text file of gettext (.po); it is read once, so nothing has to be
compiled. The language is that of the session, else the browser's, else web_language.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path

from babel import support
from babel.messages import mofile, pofile
from flask import Flask, g, has_request_context, request, session

from postfix_archive.web import site

LANGUAGES = ("en", "de")
DIRECTORY = Path(__file__).with_name("translations")
KEY = "language"  # in the session


@functools.cache
def _catalogue(code: str) -> support.NullTranslations:
    path = DIRECTORY / code / "LC_MESSAGES" / "messages.po"
    if not path.exists():
        return support.NullTranslations()
    with path.open("rb") as file:
        catalogue = pofile.read_po(file, locale=code)
    compiled = io.BytesIO()
    mofile.write_mo(compiled, catalogue)
    compiled.seek(0)
    return support.Translations(compiled)


def code() -> str:
    """Return the language of this request, one of LANGUAGES."""
    if not has_request_context():
        return LANGUAGES[0]
    if KEY not in g:
        chosen = session.get(KEY)
        best = request.accept_languages.best_match(LANGUAGES)
        g.language = chosen if chosen in LANGUAGES else best
        g.language = g.language or site.current().web.web_language
    found: str = g.language
    return found


def gettext(text: str) -> str:
    """Return a text in the language of this request."""
    translated: str = _catalogue(code()).gettext(text)
    return translated


def ngettext(singular: str, plural: str, number: int) -> str:
    """Return the form of a text for a number."""
    translated: str = _catalogue(code()).ngettext(singular, plural, number)
    return translated


def install(app: Flask) -> None:
    """Let the templates of an application use _() and {% trans %}."""
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]
        gettext, ngettext, newstyle=True
    )
