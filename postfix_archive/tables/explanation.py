"""Find the requests that a message would get, each with the line that makes it.

Used by ``postfix-archive explain``. Compiles the sources with a token for each ARCHIVE
action into a temporary directory and looks them up with postmap(1); changes none of
Postfix's own tables. Raises TableInvalid, PostfixCommandFailed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postfix_archive.config.settings import Settings
from postfix_archive.errors import TableInvalid
from postfix_archive.postfix import postfix_command
from postfix_archive.postfix.configuration import Configuration, Service
from postfix_archive.system import privileges
from postfix_archive.tables import explain_plan, table_file, table_source
from postfix_archive.tables.explain_plan import Mail, TableQuery


@dataclass(frozen=True)
class Reason:
    """A request, and the parameter or table line that makes it."""

    place: str
    matched_text: str  # the key or the header line that matched; "" for a default
    archives: tuple[str, ...]


@dataclass
class CompiledSources:
    """The sources of archive_tables, compiled with tokens to a temporary directory.

    lines maps a table to the ARCHIVE line of each token. All three mappings have the
    type:path of the compiled table that main.cf names as key.
    """

    config_directory: str
    temporary_directory: Path
    lines: dict[str, dict[bytes, tuple[int, tuple[str, ...]]]] = field(
        default_factory=dict
    )
    copies: dict[str, str] = field(default_factory=dict)  # native type:path -> copy
    source_paths: dict[str, str] = field(
        default_factory=dict
    )  # native type:path -> source

    def add(self, table_type: str, source_path: str) -> None:
        """Compile one source with tokens; raises TableInvalid."""
        content = _read(source_path)
        compiled = table_source.compile_with_tokens(
            content, table_type=table_type, path=source_path
        )
        copy = self.temporary_directory / str(len(self.copies))
        copy.write_bytes(compiled.content)
        table = f"{table_type}:{source_path.removesuffix(table_file.SOURCE_SUFFIX)}"
        self.copies[table] = f"{table_type}:{copy}"
        self.source_paths[table] = source_path
        if table_type in table_file.DATABASE_SUFFIXES:
            postfix_command.build_table(self.config_directory, self.copies[table])
        self.lines[table] = {
            table_source.line_token(each.number): (each.number, each.archives)
            for each in compiled.archive_lines
        }

    def find_matches(self, query: TableQuery, content: bytes) -> Iterator[Reason]:
        """Yield the ARCHIVE lines that match; none for a table without a source."""
        table = query.lookup.table
        if table not in self.copies:
            return
        for key, value in self._look_up(self.copies[table], query, content):
            line = self.lines[table].get(value.encode("utf-8", "replace"))
            if line:
                number, archives = line
                place = f"{self.source_paths[table]}, line {number}"
                yield Reason(place, f"{_check_name(query)}: {key}", archives)

    def _look_up(
        self, copy: str, query: TableQuery, content: bytes
    ) -> Iterator[tuple[str, str]]:
        """Yield key and result: of the first key found, or of each message line."""
        if query.postmap_flags:
            arguments = (f"-{query.postmap_flags}q", "-", copy)
            output = postfix_command.run_postmap(
                self.config_directory, content, *arguments
            )
            for line in output.split("\n"):
                key, _, value = line.rpartition("\t")
                yield key, value
            return
        for key in query.keys:
            value = postfix_command.look_up(self.config_directory, copy, key)
            if value:
                yield key, value
                return


def find_reasons(
    config: Configuration,
    settings: Settings,
    service: Service,
    mail: Mail,
    content: bytes,
) -> list[Reason]:
    """Return the requests of a message that this service receives.

    Raises TableInvalid for a source with a mistake.
    """
    place, archives = explain_plan.default_request(config, service)
    all_reasons = []
    if archives or place.endswith(")"):
        all_reasons.append(Reason(place, "", archives))
    with tempfile.TemporaryDirectory() as directory:
        sources = CompiledSources(config.directory, Path(directory))
        for table_type, path in settings.archive_tables:
            sources.add(table_type, path)
        for query in explain_plan.table_queries(config, service, mail):
            all_reasons += sources.find_matches(query, content)
    return list(dict.fromkeys(all_reasons))


def _check_name(query: TableQuery) -> str:
    return query.lookup.check or query.lookup.parameter


def _read(path: str) -> bytes:
    try:
        return privileges.read_file(path)
    except OSError as error:
        raise TableInvalid(
            f"read {path}: {error.strerror}; check archive_tables in archive.cf"
        ) from error
