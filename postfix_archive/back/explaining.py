"""Find the requests that a message would get, each with the line that makes it.

Used by ``postfix-archive explain``. Compiles the sources with a token for each ARCHIVE
action into a temporary directory and looks them up with postmap(1); changes none of
Postfix's own tables. Raises TableWrong, PostfixCommandFailed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postfix_archive.back import postconf, tablefile
from postfix_archive.core import explaining, tables
from postfix_archive.core.configuration import Configuration, Service
from postfix_archive.core.errors import TableWrong
from postfix_archive.core.explaining import Mail, Question
from postfix_archive.core.settings import Settings


@dataclass(frozen=True)
class Reason:
    """A request, and the parameter or table line that makes it."""

    place: str
    what: str  # the key or the header line that matched; "" for a default
    archives: tuple[str, ...]


@dataclass
class Sources:
    """The sources of archive_tables, compiled with tokens to a temporary directory.

    lines maps a table to the ARCHIVE line of each token. All three mappings have the
    type:path of the compiled table that main.cf names as key.
    """

    directory: str
    folder: Path
    asked: dict[str, dict[bytes, tuple[int, tuple[str, ...]]]] = field(
        default_factory=dict
    )
    copies: dict[str, str] = field(default_factory=dict)  # native type:path -> copy
    sources: dict[str, str] = field(default_factory=dict)  # native type:path -> source

    def add(self, kind: str, source: str) -> None:
        """Compile one source with tokens; raises TableWrong."""
        content = _content(source)
        made = tables.marked(content, kind=kind, place=source)
        copy = self.folder / str(len(self.copies))
        copy.write_bytes(made.native)
        native = f"{kind}:{source.removesuffix(tablefile.SOURCE)}"
        self.copies[native] = f"{kind}:{copy}"
        self.sources[native] = source
        if kind in tablefile.DATABASES:
            postconf.index(self.directory, self.copies[native])
        self.asked[native] = {
            tables.token(each.number): (each.number, each.archives)
            for each in made.asked
        }

    def answers(self, question: Question, content: bytes) -> Iterator[Reason]:
        """Yield the ARCHIVE lines that match; none for a table without a source."""
        native = question.lookup.table
        if native not in self.copies:
            return
        for key, value in self._said(self.copies[native], question, content):
            line = self.asked[native].get(value.encode("utf-8", "replace"))
            if line:
                number, archives = line
                place = f"{self.sources[native]}, line {number}"
                yield Reason(place, f"{_said_by(question)}: {key}", archives)

    def _said(
        self, copy: str, question: Question, content: bytes
    ) -> Iterator[tuple[str, str]]:
        """Yield key and result: of the first key found, or of each message line."""
        if question.flags:
            arguments = (f"-{question.flags}q", "-", copy)
            output = postconf.asked(self.directory, content, *arguments)
            for line in output.split("\n"):
                key, _, value = line.rpartition("\t")
                yield key, value
            return
        for key in question.keys:
            value = postconf.lookup(self.directory, copy, key)
            if value:
                yield key, value
                return


def reasons(
    found: Configuration,
    settings: Settings,
    service: Service,
    mail: Mail,
    content: bytes,
) -> list[Reason]:
    """Return the requests of a message that this service receives.

    Raises TableWrong for a source with a mistake.
    """
    place, archives = explaining.default(found, service)
    all_reasons = []
    if archives or place.endswith(")"):
        all_reasons.append(Reason(place, "", archives))
    with tempfile.TemporaryDirectory() as directory:
        sources = Sources(found.directory, Path(directory))
        for kind, path in settings.archive_tables:
            sources.add(kind, path)
        for question in explaining.questions(found, service, mail):
            all_reasons += sources.answers(question, content)
    return list(dict.fromkeys(all_reasons))


def _said_by(question: Question) -> str:
    return question.lookup.check or question.lookup.parameter


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise TableWrong(
            f"read {path}: {problem.strerror}; check archive_tables in archive.cf"
        ) from problem
