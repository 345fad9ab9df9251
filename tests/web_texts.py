"""The texts of the web page, and their translations: make translations.

python tests/web_texts.py     bring the catalogue up to date; prints what is missing
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from babel.messages import extract, pofile
from babel.messages.catalog import Catalog

from postfix_archive.web import error_texts

import web_error_texts

PACKAGE = Path(__file__).resolve().parent.parent / "postfix_archive" / "web"
CATALOGUE = PACKAGE / "translations" / "de" / "LC_MESSAGES" / "messages.po"
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
OPTIONS = {
    "templates/**.html": {"trimmed": "false", "trim_blocks": "1", "lstrip_blocks": "1"}
}
WIDTH = 88


def texts() -> Catalog:
    """Return a catalogue of all texts in modules and templates, and of errors."""
    catalogue = Catalog(locale="de", charset="utf-8")
    extracted: Any = extract.extract_from_dir(str(PACKAGE), METHODS, OPTIONS)
    for path, line, text, comments, context in extracted:
        catalogue.add(text, None, [(path, line)], (), comments, context=context)
    for error_text, place in web_error_texts.error_texts().items():
        catalogue.add(error_text, locations=[place], context=error_texts.CONTEXT)
    return catalogue


def read() -> Catalog:
    """Return the German catalogue."""
    with CATALOGUE.open("rb") as file:
        return pofile.read_po(file, locale="de")


def strings(text: Any) -> list[str]:
    """Return the forms of a text or of its translation; only a plural has several."""
    return [text or ""] if isinstance(text, str | None) else [*text]


def main() -> None:
    """Add new texts to the catalogue, and take out those that are no more."""
    catalogue = read()
    catalogue.update(texts(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    with CATALOGUE.open("wb") as file:
        pofile.write_po(
            file, catalogue, width=WIDTH, sort_output=True, no_location=True
        )
    for message in catalogue:
        if message.id and not all(strings(message.string)):
            print("no translation:", message.id, file=sys.stderr)


if __name__ == "__main__":
    main()
