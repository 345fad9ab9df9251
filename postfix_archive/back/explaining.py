"""Asks marked copies of the source tables what a message would be archived for.

Used by the command ``postfix-archive explain``. Copies are made in a folder of their
own and asked by postmap(1); Postfix's own tables are only read.
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
    """A request, and the line that makes it."""

    place: str
    what: str  # the key or the header line that matched; "" for a default
    archives: tuple[str, ...]


@dataclass
class Sources:
    """The marked copies of all sources of archive_tables."""

    directory: str
    folder: Path
    asked: dict[str, dict[bytes, tuple[int, tuple[str, ...]]]] = field(
        default_factory=dict
    )
    copies: dict[str, str] = field(default_factory=dict)  # native type:path -> copy
    sources: dict[str, str] = field(default_factory=dict)  # native type:path -> source

    def add(self, kind: str, source: str) -> None:
        """Make the marked copy of one source; raises TableWrong."""
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
        """Give the ARCHIVE lines that match, none for a table that is not ours."""
        native = question.lookup.table
        if native not in self.copies:
            return
        for key, said in self._said(self.copies[native], question, content):
            found = self.asked[native].get(said.encode("utf-8", "replace"))
            if found:
                number, archives = found
                place = f"{self.sources[native]}, line {number}"
                yield Reason(place, f"{_said_by(question)}: {key}", archives)

    def _said(
        self, copy: str, question: Question, content: bytes
    ) -> Iterator[tuple[str, str]]:
        """Give key and answer: the first of the keys, or each line of the message."""
        if question.flags:
            words = (f"-{question.flags}q", "-", copy)
            told = postconf.asked(self.directory, content, *words)
            for line in told.split("\n"):
                key, _, said = line.rpartition("\t")
                yield key, said
            return
        for key in question.keys:
            said = postconf.lookup(self.directory, copy, key)
            if said:
                yield key, said
                return


def reasons(
    found: Configuration,
    settings: Settings,
    service: Service,
    mail: Mail,
    content: bytes,
) -> list[Reason]:
    """Return every request of a message that comes by this service.

    Raises TableWrong for a source that cannot be used.
    """
    place, archives = explaining.default(found, service)
    told = [Reason(place, "", archives)] if archives or place.endswith(")") else []
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(found.directory, Path(folder))
        for kind, path in settings.archive_tables:
            sources.add(kind, path)
        for question in explaining.questions(found, service, mail):
            told += sources.answers(question, content)
    return list(dict.fromkeys(told))


def _said_by(question: Question) -> str:
    return question.lookup.check or question.lookup.parameter


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise TableWrong(
            f"{path}: {problem.strerror}; archive_tables in archive.cf names it"
        ) from problem
