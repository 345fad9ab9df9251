"""Write the procedure of an instance as one HTML page, and record its hash.

Used by ``postfix-archive procedure``. What is captured how, kept, checked, and what is
missing: the written procedure that GoBD (Verfahrensdokumentation) and 17 CFR 240.17a-4
ask for. The texts are in the templates of this package, one for each language.
"""

from __future__ import annotations

from postfix_archive.config import retention_period
from postfix_archive.errors import LibraryMissing
from postfix_archive.message import address, dates, digest
from postfix_archive.procedure.facts import Facts
from postfix_archive.store import journal, known_end
from postfix_archive.system import privileges

LANGUAGES = ("en", "de")
EVENT = "procedure"


def to_html(facts: Facts, language: str) -> str:
    """Return the page in one of LANGUAGES. Raises LibraryMissing without Jinja2."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise LibraryMissing(
            f"the procedure needs the Python package Jinja2 ({error}): run make install"
            " again, or pip install postfix-archive[procedure]"
        ) from error
    environment = Environment(
        loader=PackageLoader("postfix_archive.procedure", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    run = facts.snapshot.reconcile_run
    return environment.get_template(f"procedure.{language}.html.j2").render(
        facts=facts,
        settings=facts.settings,
        snapshot=facts.snapshot,
        host=host_name(facts),
        seal_to=address.as_text(facts.settings.archive_seal_to),
        period_text=retention_period.to_text,
        reconciled=dates.format_rfc3339(run.time) if run else "",
    )


def sha256(page: bytes) -> str:
    """Return the SHA-256 of a page, as sha256sum(1) prints it."""
    return digest.sha256_hex(page)


def host_name(facts: Facts) -> str:
    """Return myhostname as text."""
    return address.as_text(facts.settings.myhostname)


def record(facts: Facts, page: bytes, language: str) -> list[str]:
    """Append the page's SHA-256 to the journal of each archive; return the archives.

    Raises JournalFailed and StoreFailed.
    """
    store = facts.settings.archive_store_directory
    fields: dict[str, str | int] = {
        "sha256": sha256(page),
        "language": language,
        "by": facts.author,
    }
    archives = list(facts.snapshot.tallies)
    for archive in archives:
        directory = f"{store}/{archive}"
        known_end.require(facts.settings.archive_fallback_directory, store, archive)
        with privileges.as_owner(directory):
            with journal.Journal(directory, host=host_name(facts)) as log:
                log.append(EVENT, facts.time, **fields)
    return archives
