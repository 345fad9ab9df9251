"""What somebody with the rights of the archive's user may do to a store: moves.

Each move changes a store on disk, as cleverly as it goes: the chain is computed anew
where that can be done. find() says what finds it. As a program this writes the table of
docs/security.md:

    make tampering

Nothing here is code of the program: an attacker has tools of his own.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from postfix_archive.cli import main
from postfix_archive.message import dates
from postfix_archive.store import journal, verifier
from postfix_archive.store.archive import Archive

import journal_lines
import tsa
from sample_store import LEGAL, SampleStore

HR = "hr@example.com"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "security.md"
BEGIN, END = "<!-- tests/tampering.py writes this table -->\n", "<!-- end -->\n"
COLUMNS = ("1", "2", "3", "4", "5")  # the page says what they are
ERROR, NOTE, NOTHING, NO_SEALS = "error", "note", "–", ""
Events = list[dict[str, Any]]


class Host:
    """A store with its archive.cf, and what others have: seals, an older state.

    Of each there is one with seals, time-stamped and kept elsewhere, and one without.
    """

    def __init__(self, directory: Path, authority: tsa.Authority | None) -> None:
        self.directory = directory
        self.store = directory / "host" / "store"
        self.fallback = directory / "host" / "fallback"
        self.kept = directory / "kept"  # where the third party is
        self.yesterday = directory / "yesterday"
        self.has_seals = authority is not None
        self.now = int(time.time())  # that of the authority
        self._sample = SampleStore(directory / "host")
        if authority:
            path = directory / "host" / "archive.cf"
            path.write_text(
                f"{path.read_text()}archive_tsa_url = {authority.url}\n"
                f"archive_tsa_certificates = {authority.root}\n"
                f"archive_seal_file = {self.kept}\n"
            )
        self._fill()
        shutil.copytree(directory / "host", directory / "pristine", symlinks=True)

    def _fill(self) -> None:
        sample, archive = self._sample, Archive(str(self.store), LEGAL)
        for number in range(3):
            self._add(number)
        sample.run("show", self._add(3))
        self._look()
        shutil.copytree(self.store, self.yesterday)
        now = dates.format_rfc3339(self.now)
        with journal.Journal(str(self.store / LEGAL)) as journal_file:
            journal_file.append(
                "bypass-started", now, started=now, started_by="root", reason="x"
            )
            held = self.copies()[3].name.partition(".")[0]
            journal_file.append("hold-set", now, name="case", ids=held, reason="x")
        for number in range(2):
            archive_id = self._add(4 + number)
            report = REPORT % number
            archive.store_outcome_report(archive_id, [report], f"{number}", now)
            sample.run("show", archive_id)
            self._look()

    def _add(self, number: int) -> str:
        for archive in (HR, LEGAL):
            text = b"From: ann@example.org\r\nSubject: %d\r\n\r\ntext\r\n" % number
            archive_id = self._sample.add(text, archive=archive, arrival=self.now)
        return archive_id

    def _look(self) -> None:
        """What the timers do."""
        if self.has_seals:
            self._sample.run("seal")
        self._sample.run("status", "--write")

    def restore(self) -> None:
        """Make it again what it was."""
        shutil.rmtree(self.directory / "host")
        pristine = self.directory / "pristine"
        shutil.copytree(pristine, self.directory / "host", symlinks=True)

    @property
    def legal(self) -> Path:
        """The directory of the archive that is tampered with."""
        return self.store / LEGAL

    @property
    def segment(self) -> Path:
        """The only segment of its journal."""
        return self.segment_of("journal")

    def segment_of(self, name: str) -> Path:
        """The newest segment of its journal or access journal."""
        return max((self.legal / name).glob("????-??"))

    def copies(self) -> list[Path]:
        """Its archive copies, in the order of their lines."""
        names = [e["file"] for e in self.events() if e["event"] == "archived"]
        return [self.legal / each for each in names]

    def reports(self) -> list[Path]:
        """Its outcome reports."""
        return sorted(self.legal.rglob("*.outcome.eml.gz"))

    def seals(self) -> list[Path]:
        """The seals."""
        return sorted((self.store / "seals").glob("*.json"))

    def lines(self, name: str = "journal") -> list[bytes]:
        """The lines of its journal or access journal."""
        return self.segment_of(name).read_bytes().splitlines(keepends=True)

    def events(self, name: str = "journal") -> Events:
        """The events of its journal or access journal."""
        return [*map(journal_lines.parse, self.lines(name))]

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Write lines as they are."""
        self.segment.write_bytes(b"".join(lines))

    def rechain(self, events: Events, name: str = "journal") -> None:
        """Write events with a chain that is computed anew, and journal.last."""
        for number, event in enumerate(events, 1):
            event["seq"] = number
        content = journal_lines.make_lines(events)
        self.segment_of(name).write_bytes(content)
        self.write_last(content.splitlines()[-1], len(events), name)

    def write_last(self, line: bytes, number: int, name: str = "journal") -> None:
        """Make a line the last one that was written."""
        text = f"{number:018d} {journal_lines.line_sha256(line)}"
        checksum = hashlib.sha256(text.encode()).hexdigest()
        (self.legal / f"{name}.last").write_text(f"{text} {checksum}\n")


REPORT = b"""\
Content-Type: multipart/report; boundary="x"\r
\r
\r
--x\r
\r
\r
--x\r
Content-Type: message/delivery-status\r
\r
Archive-Outcomes: %d\r
\r
--x\r
Content-Type: text/rfc822-headers\r
\r
\r
--x--\r
"""


def overwrite(path: Path, content: bytes) -> None:
    """Write a file that is not writable, and leave its mode."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(mode)


def exchange(one: Path, other: Path) -> None:
    """Give two files or directories each other's name."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def flip(content: bytes, position: int) -> bytes:
    """Change a bit of one byte."""
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


# --- archive copies ------------------------------------------------------------------


def flip_copy(host: Host) -> None:
    path = host.copies()[1]
    overwrite(path, flip(path.read_bytes(), 60))


def cut_copy(host: Host) -> None:
    path = host.copies()[1]
    overwrite(path, path.read_bytes()[:-20])


def append_to_copy(host: Host) -> None:
    path = host.copies()[1]
    overwrite(path, path.read_bytes() + b"more")


def other_text(path: Path) -> bytes:
    return gzip.compress(gzip.decompress(path.read_bytes()).replace(b"text", b"TEXT"))


def replace_copy(host: Host) -> None:
    overwrite(host.copies()[1], other_text(host.copies()[1]))


def adapt_line(event: dict[str, Any], path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    original = content[content.index(b"\r\nFrom: ann@") + 2 : content.rindex(b"\r\n--")]
    event["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    event["sha256"] = hashlib.sha256(original).hexdigest()
    event["size"] = len(original)


def replace_copy_and_line(host: Host) -> None:
    path, lines = host.copies()[1], host.lines()
    replace_copy(host)
    event = host.events()[2]
    adapt_line(event, path)
    prev = journal_lines.line_sha256(lines[1])
    host.write_lines([*lines[:2], journal_lines.make_line(event, prev), *lines[3:]])


def replace_copy_and_chain(host: Host) -> None:
    path, events = host.copies()[1], host.events()
    replace_copy(host)
    adapt_line(events[2], path)
    host.rechain(events)


def remove_copy(host: Host) -> None:
    host.copies()[1].unlink()


def exchange_copies(host: Host) -> None:
    exchange(*host.copies()[:2])


def move_copy(host: Host) -> None:
    path = host.copies()[1]
    other_day = path.parent.with_name("00")
    other_day.mkdir()
    path.rename(other_day / path.name)


def plant_copy(host: Host, mode: int = 0o400) -> None:
    path = host.copies()[1]
    other = path.with_name(f"{path.name[:9]}{'0' * 40}.eml.gz")
    shutil.copy(path, other)
    other.chmod(mode)


def plant_writable_copy(host: Host) -> None:
    plant_copy(host, 0o600)


def link_copy(host: Host) -> None:
    path = host.copies()[1]
    target = host.directory / "host" / "elsewhere"
    shutil.move(path, target)
    path.symlink_to(target)


def open_copy(host: Host) -> None:
    host.copies()[1].chmod(0o444)


# --- outcome reports -----------------------------------------------------------------


def remove_report(host: Host) -> None:
    host.reports()[0].unlink()


def exchange_reports(host: Host) -> None:
    exchange(*host.reports())


def change_report(host: Host) -> None:
    path = host.reports()[0]
    overwrite(path, gzip.compress(REPORT % 7))


def change_report_and_chain(host: Host) -> None:
    change_report(host)
    events = host.events()
    name = str(host.reports()[0].relative_to(host.legal))
    [event] = [each for each in events if each.get("file") == name]
    event["file_sha256"] = hashlib.sha256(host.reports()[0].read_bytes()).hexdigest()
    host.rechain(events)


def plant_report(host: Host) -> None:
    path = host.reports()[0]
    shutil.copy(path, path.with_name(path.name.replace("outcome", "outcome-2")))


# --- journal lines -------------------------------------------------------------------


def flip_line(host: Host) -> None:
    host.segment.write_bytes(flip(host.segment.read_bytes(), 700))


def change_details(host: Host) -> None:
    content = host.segment.read_bytes()
    host.segment.write_bytes(
        content.replace(b"alice@example.org", b"alicf@example.org")
    )


def change_details_and_digest(host: Host) -> None:
    lines, event = host.lines(), host.events()[2]
    event["envelope"] = event["envelope"].replace("alice", "mallory")
    prev = journal_lines.line_sha256(lines[1])
    host.write_lines([*lines[:2], journal_lines.make_line(event, prev), *lines[3:]])


def change_envelope_and_chain(host: Host) -> None:
    events = host.events()
    events[2]["envelope"] = events[2]["envelope"].replace("alice", "mallory")
    host.rechain(events)


def strike_out(host: Host, line: int = 2) -> None:
    journal_lines.strike_out(host.segment, line)


def append_event(host: Host, journal_name: str = "journal", **fields: str) -> None:
    lines = host.lines(journal_name)
    event = host.events(journal_name)[-1]
    number = event["seq"] + 1
    line = journal_lines.make_line(
        {"seq": number, "time": event["time"], **fields},
        journal_lines.line_sha256(lines[-1]),
    )
    host.segment_of(journal_name).write_bytes(b"".join([*lines, line]))
    host.write_last(line, number, journal_name)


def _remove_record(host: Host, number: int, event: str, **fields: str) -> None:
    """A record goes, and an event says that this was right."""
    archive_id = host.copies()[number].name.partition(".")[0]
    host.copies()[number].unlink()
    append_event(host, event=event, id=archive_id, **fields)
    for line, each in enumerate(host.events()[:-1]):
        if each.get("id") == archive_id:
            strike_out(host, line)


PERIOD_OVER = {
    "rule": "archive_retention",
    "period": "1d",
    "until": "2026-01-01",
    "by": "timer",
}
TWO_PEOPLE = {
    "requested_by": "ann",
    "requested_uid": "1001",
    "approved_by": "bob",
    "approved_uid": "1002",
}


def forge_erased(host: Host) -> None:
    _remove_record(host, 1, "erased", **TWO_PEOPLE)


def forge_request_and_erased(host: Host) -> None:
    archive_id = host.copies()[1].name.partition(".")[0]
    request = {"person": "ann", "person_uid": "1001", "reason": "x"}
    append_event(host, event="erase-requested", id=archive_id, **request)
    number = str(host.events()[-1]["seq"])
    _remove_record(host, 1, "erased", request=number, **TWO_PEOPLE)


def forge_erasure_in_both_journals(host: Host) -> None:
    archive_id = host.copies()[1].name.partition(".")[0]
    forge_request_and_erased(host)
    for step in ("erase request", "erase approve"):
        entry = {"action": "erase", "query": "x", "reason": step, "ids": archive_id}
        append_event(host, "access", event="access", user="root", **entry)


def forge_purged(host: Host) -> None:
    _remove_record(host, 1, "purged", **PERIOD_OVER)


def forge_retention_and_purged(host: Host, number: int = 1) -> None:
    archive_id = host.copies()[number].name.partition(".")[0]
    append_event(host, event="retention", id=archive_id, **PERIOD_OVER)
    _remove_record(host, number, "purged", **PERIOD_OVER)


def purge_held(host: Host) -> None:
    _remove_record(host, 3, "purged", **PERIOD_OVER)


def release_hold(host: Host) -> None:
    """The hold is released, in the name of somebody, and its record removed."""
    append_event(host, event="hold-released", name="case", user="ann", reason="x")
    forge_retention_and_purged(host, 3)


def release_hold_in_both_journals(host: Host) -> None:
    release_hold(host)
    entry = {"action": "hold", "query": "release case", "reason": "x"}
    append_event(host, "access", event="access", user="root", **entry)


def remove_hold_and_chain(host: Host) -> None:
    host.rechain([e for e in host.events() if e["event"] != "hold-set"])


def remove_line(host: Host) -> None:
    lines = host.lines()
    host.write_lines(lines[:2] + lines[3:])


def remove_record(host: Host) -> None:
    host.copies()[1].unlink()
    remove_line(host)


def remove_record_and_chain(host: Host) -> None:
    events = host.events()
    host.copies()[1].unlink()
    host.rechain(events[:2] + events[3:])


def add_record_and_chain(host: Host) -> None:
    plant_copy(host)
    events = host.events()
    event = dict(events[2])
    event["id"] = f"{event['id'][:9]}{'0' * 40}"
    event["file"] = f"{event['file'][:11]}{event['id']}.eml.gz"
    host.rechain([*events[:3], event, *events[3:]])


def antedate_and_chain(host: Host) -> None:
    host.rechain([{**e, "time": "2026-01-01T00:00:00Z"} for e in host.events()])


def swap_lines(host: Host) -> None:
    lines = host.lines()
    host.write_lines([*lines[:2], lines[3], lines[2], *lines[4:]])


def repeat_line(host: Host) -> None:
    lines = host.lines()
    host.write_lines([*lines[:3], lines[2], *lines[3:]])


def remove_bypass_and_chain(host: Host) -> None:
    host.rechain([e for e in host.events() if "bypass" not in e["event"]])


def append_garbage(host: Host) -> None:
    host.write_lines([*host.lines(), b"garbage\n"])


# --- the tail of the journal ---------------------------------------------------------


def cut_tail(host: Host) -> None:
    """The last message goes, and all that was recorded since."""
    copies, lines = host.copies(), host.lines()
    files = [host.legal / each.get("file", "") for each in host.events()]
    number = files.index(copies[-1])
    removed = {e["file"] for e in host.events()[number:] if "file" in e}
    for each in removed:
        (host.legal / each).unlink()
    host.write_lines(lines[:number])


def cut_tail_and_last(host: Host) -> None:
    cut_tail(host)
    (host.legal / "journal.last").unlink()


def cut_tail_and_rewrite_last(host: Host) -> None:
    cut_tail(host)
    host.write_last(host.lines()[-1], host.events()[-1]["seq"])


def cut_tail_and_continue(host: Host) -> None:
    cut_tail_and_rewrite_last(host)
    append_event(host, event="other", id="x")


def remove_last(host: Host) -> None:
    (host.legal / "journal.last").unlink()


def rewrite_last(host: Host) -> None:
    host.write_last(host.lines()[2], 3)
    host.write_last(b"{}", 99)


# --- segments ------------------------------------------------------------------------


def remove_segment(host: Host) -> None:
    host.segment.unlink()


def remove_journal(host: Host) -> None:
    shutil.rmtree(host.legal / "journal")


def rename_segment(host: Host) -> None:
    host.segment.rename(host.segment.with_name("2000-01"))


def link_segment(host: Host) -> None:
    target = host.directory / "host" / "elsewhere"
    path = host.segment
    shutil.move(path, target)
    path.symlink_to(target)


def hard_link_segment(host: Host) -> None:
    os.link(host.segment, host.directory / "host" / "elsewhere")


def open_segment(host: Host) -> None:
    host.segment.chmod(0o644)


def plant_segment(host: Host) -> None:
    event = journal_lines.segment_event(LEGAL, segment="2000-01")
    path = host.segment.with_name("2000-01")
    path.write_bytes(journal_lines.make_line(event))


def plant_file(host: Host) -> None:
    (host.legal / "journal" / "notes").write_bytes(b"x")


# --- the access journal --------------------------------------------------------------


def change_access(host: Host) -> None:
    path = host.segment_of("access")
    path.write_bytes(path.read_bytes().replace(b'"action":"show"', b'"action":"list"'))


def remove_access_and_chain(host: Host) -> None:
    events = host.events("access")
    host.rechain(events[:2] + events[3:], "access")


def cut_access(host: Host) -> None:
    lines = host.lines("access")
    host.segment_of("access").write_bytes(b"".join(lines[:-1]))


def remove_access(host: Host) -> None:
    for path in host.legal.glob("access*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- archives ------------------------------------------------------------------------


def remove_archive(host: Host) -> None:
    shutil.rmtree(host.legal)


def rename_archive(host: Host) -> None:
    host.legal.rename(host.store / "other@example.com")


def exchange_archives(host: Host) -> None:
    exchange(host.legal, host.store / HR)


def copy_archive(host: Host) -> None:
    shutil.copytree(host.store / HR, host.store / "other@example.com")


def begin_archive_anew(host: Host) -> None:
    """Only one message is left of it, in a journal that is whole."""
    events, copies = host.events(), host.copies()
    for path in [*copies[1:], *host.reports()]:
        path.unlink()
    remove_access(host)
    host.rechain(events[:2])


def roll_back_archives(host: Host) -> None:
    """The archives are what they were yesterday, the seals are not."""
    for archive in (LEGAL, HR):
        shutil.rmtree(host.store / archive)
        shutil.copytree(host.yesterday / archive, host.store / archive)


def roll_back(host: Host) -> None:
    """The whole store, with its seals, is what it was yesterday."""
    shutil.rmtree(host.store)
    shutil.copytree(host.yesterday, host.store)


# --- seals and keys ------------------------------------------------------------------


def remove_seals(host: Host) -> None:
    shutil.rmtree(host.store / "seals")


def remove_seals_and_events(host: Host) -> None:
    """As if there never had been seals; what they would show is changed, too."""
    remove_seals(host)
    for archive in (LEGAL, HR):
        lines = _segment(host, archive).read_bytes().splitlines()
        events = [*map(journal_lines.parse, lines)]
        events = [each for each in events if each["event"] != "sealed"]
        if archive == LEGAL:
            events[2]["envelope"] = events[2]["envelope"].replace("alice", "mallory")
        _rechain_archive(host, archive, events)


def _segment(host: Host, archive: str) -> Path:
    return journal_lines.segment(host.store / archive)


def _rechain_archive(
    host: Host, archive: str, events: Events, kept: Sequence[bytes] = ()
) -> None:
    """Write events behind the lines that are kept."""
    for number, event in enumerate(events, len(kept) + 1):
        event["seq"] = number
    prev = journal_lines.line_sha256(kept[-1]) if kept else "0" * 64
    content = b"".join(kept) + journal_lines.make_lines(events, prev)
    _segment(host, archive).write_bytes(content)
    last = journal_lines.line_sha256(content.splitlines()[-1])
    text = f"{len(kept) + len(events):018d} {last}"
    checksum = hashlib.sha256(text.encode()).hexdigest()
    (host.store / archive / "journal.last").write_text(f"{text} {checksum}\n")


def _remove_seal(host: Host, index: int) -> None:
    stem = host.seals()[index].name.partition(".")[0]
    for path in (host.store / "seals").glob(f"{stem}.*"):
        path.unlink()


def remove_last_seal(host: Host) -> None:
    _remove_seal(host, -1)


def remove_middle_seal(host: Host) -> None:
    _remove_seal(host, 1)


def edit_seal(host: Host) -> None:
    path = host.seals()[-1]
    overwrite(path, path.read_bytes().replace(b'"host":"', b'"host":"x'))


def edit_first_seal(host: Host) -> None:
    path = host.seals()[0]
    overwrite(path, path.read_bytes().replace(b'"host":"', b'"host":"x'))


def forge_history_and_seals(
    host: Host, kept: int = 0, authorities: list[str] | None = None
) -> None:
    """Changed, rechained, and all seals and their events made to fit.

    The first ``kept`` seals and what they name stay as they are; authorities are those
    that the others name then.
    """
    change = {"alice": "mallory"}
    starts = _ends(host.seals()[:kept])
    heads = _rewrite(host, change, {}, starts)
    previous, digests = "0" * 64, {}
    for path in host.seals()[:kept]:
        previous = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in host.seals()[kept:]:
        fields = json.loads(path.read_bytes())
        fields["previous"] = previous
        if authorities is not None:
            fields["authorities"] = authorities
        for each in fields["journals"]:
            key = (each["archive"], each["seq"])
            if each["journal"] == "journal" and key in heads:
                each.update(heads[key])
        content = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        overwrite(path, content)
        previous = digests[path.name] = hashlib.sha256(content).hexdigest()
        # The event that names it comes after what it seals.
        heads = _rewrite(host, {}, digests, starts)


def _ends(seals: list[Path]) -> dict[str, int]:
    """Return how many lines of each journal the last of some seals names."""
    heads = [e for path in seals for e in json.loads(path.read_bytes())["journals"]]
    return {e["archive"]: e["lines"] for e in heads if e["journal"] == "journal"}


def forge_history_and_misname_stamps(host: Host) -> None:
    forge_history_and_seals(host)
    for path in (host.store / "seals").glob("*.1.tsr"):
        path.unlink()
        path.with_name(path.name.replace(".1.", ".9.")).write_bytes(b"junk")


def forge_history_and_unstamp(host: Host, kept: int = 0) -> None:
    for path in host.seals()[kept:]:
        for suffix in (".1.tsr", ".1.pem"):
            path.with_suffix(suffix).unlink()
    forge_history_and_seals(host, kept, authorities=[])


def forge_later_history_and_unstamp(host: Host) -> None:
    """The first seal keeps its time stamp, and all that it names."""
    forge_history_and_unstamp(host, kept=1)


def _rewrite(
    host: Host,
    change: Mapping[str, str],
    digests: Mapping[str, str],
    starts: Mapping[str, int],
) -> dict[tuple[str, int], dict[str, Any]]:
    """Rechain both journals with a change; return the heads of all lines.

    starts has the numbers of the lines, by archive, from which on they are changed.
    """
    heads: dict[tuple[str, int], dict[str, Any]] = {}
    for archive in (LEGAL, HR):
        lines = _segment(host, archive).read_bytes().splitlines(keepends=True)
        kept = lines[: starts.get(archive, 0)]
        events = [*map(journal_lines.parse, lines[len(kept) :])]
        for event in events:
            for old, new in change.items():
                if "envelope" in event:
                    event["envelope"] = event["envelope"].replace(old, new)
            if event.get("seal") in digests:
                event["seal_sha256"] = digests[event["seal"]]
        _rechain_archive(host, archive, events, kept)
        position = 0
        for line in _segment(host, archive).read_bytes().splitlines(keepends=True):
            start, position = position, position + len(line)
            sha256 = journal_lines.line_sha256(line)
            seq = journal_lines.parse(line)["seq"]
            heads[archive, seq] = {"sha256": sha256, "start": start, "end": position}
    return heads


def exchange_stamps(host: Host) -> None:
    exchange(*sorted((host.store / "seals").glob("*.tsr"))[:2])


def remove_stamp(host: Host) -> None:
    next((host.store / "seals").glob("*.tsr")).unlink()


def add_key(host: Host) -> None:
    path = host.directory / "host" / "archive.key"
    path.write_text(f"{path.read_text()}k2027 {'5a' * 32}\n")


def replace_key(host: Host) -> None:
    path = host.directory / "host" / "archive.key"
    path.write_text(f"k2026 {'5a' * 32}\n")


class Move(NamedTuple):
    """A row of the table."""

    text: str
    make: Callable[[Host], None]
    is_about_seals: bool = False  # cannot be made without


MOVES = (
    Move("a bit of a copy flipped", flip_copy),
    Move("a copy cut short", cut_copy),
    Move("bytes appended to a copy", append_to_copy),
    Move("a copy's text changed", replace_copy),
    Move("a copy's text changed, and its line", replace_copy_and_line),
    Move("a copy's text changed, its line, and the chain", replace_copy_and_chain),
    Move("a copy removed", remove_copy),
    Move("two copies exchanged", exchange_copies),
    Move("a copy moved to another day", move_copy),
    Move("a copy planted", plant_copy),
    Move("a copy planted as if a crash had left it (mode 0600)", plant_writable_copy),
    Move("a copy replaced by a symlink to it", link_copy),
    Move("a copy made readable for all", open_copy),
    Move("an outcome report removed", remove_report),
    Move("two outcome reports exchanged", exchange_reports),
    Move("an outcome report changed", change_report),
    Move("an outcome report changed, and the chain", change_report_and_chain),
    Move("an outcome report planted", plant_report),
    Move("a bit of a journal line flipped", flip_line),
    Move("an address in the details changed", change_details),
    Move("an address changed, and the line", change_details_and_digest),
    Move("an address changed, and the chain", change_envelope_and_chain),
    Move("details struck out without an event", strike_out),
    Move("a record removed under a forged event `erased`", forge_erased),
    Move("the same, with a forged request of another", forge_request_and_erased),
    Move(
        "the same, and in the access journal too, both with their chains",
        forge_erasure_in_both_journals,
    ),
    Move("a record removed under a forged event `purged`", forge_purged),
    Move("the same, with a forged event `retention`", forge_retention_and_purged),
    Move("a held record removed under a forged event", purge_held),
    Move("the same, with a forged release and `retention`", release_hold),
    Move(
        "the same, and the release in the access journal too, with its chain",
        release_hold_in_both_journals,
    ),
    Move("a hold taken out, and the chain", remove_hold_and_chain),
    Move("a line removed", remove_line),
    Move("a line removed with its copy", remove_record),
    Move("a record cut out, and the chain computed anew", remove_record_and_chain),
    Move("a record added, and the chain computed anew", add_record_and_chain),
    Move("all antedated, and the chain computed anew", antedate_and_chain),
    Move("two lines exchanged", swap_lines),
    Move("a line repeated", repeat_line),
    Move("the bypass taken out, and the chain", remove_bypass_and_chain),
    Move("a line that is none appended", append_garbage),
    Move("the tail cut with its copies", cut_tail),
    Move("the tail cut, journal.last removed", cut_tail_and_last),
    Move("the tail cut, journal.last rewritten", cut_tail_and_rewrite_last),
    Move("the tail cut, and another one appended", cut_tail_and_continue),
    Move("journal.last removed", remove_last),
    Move("journal.last rewritten", rewrite_last),
    Move("a segment removed", remove_segment),
    Move("the journal removed", remove_journal),
    Move("a segment renamed to another month", rename_segment),
    Move("a segment replaced by a symlink to it", link_segment),
    Move("a segment given a second name", hard_link_segment),
    Move("a segment made readable for all", open_segment),
    Move("a segment planted before the first", plant_segment),
    Move("a file planted in the journal", plant_file),
    Move("a line of the access journal changed", change_access),
    Move("an access taken out, and the chain", remove_access_and_chain),
    Move("the tail of the access journal cut", cut_access),
    Move("the access journal removed", remove_access),
    Move("an archive removed", remove_archive),
    Move("an archive renamed", rename_archive),
    Move("two archives exchanged", exchange_archives),
    Move("an archive copied under another name", copy_archive),
    Move("an archive begun anew", begin_archive_anew),
    Move("the archives rolled back to yesterday", roll_back_archives),
    Move("the store rolled back to yesterday, seals too", roll_back),
    Move("all seals removed", remove_seals, True),
    Move(
        "all seals removed with their events, and the chain",
        remove_seals_and_events,
        True,
    ),
    Move("the last seal removed", remove_last_seal, True),
    Move("a seal removed from the middle", remove_middle_seal, True),
    Move("the last seal edited", edit_seal, True),
    Move("the first seal edited", edit_first_seal, True),
    Move("history and all seals rewritten to fit", forge_history_and_seals, True),
    Move(
        "the same, and junk for stamps under other names",
        forge_history_and_misname_stamps,
        True,
    ),
    Move(
        "the same, with seals that name no authority", forge_history_and_unstamp, True
    ),
    Move(
        "the same, but for the first seal and its lines",
        forge_later_history_and_unstamp,
        True,
    ),
    Move("the time stamps of two seals exchanged", exchange_stamps, True),
    Move("the time stamp of a seal removed", remove_stamp, True),
    Move("a key for forged stamps added to the key file", add_key),
    Move("a key of the key file exchanged", replace_key),
)


def verify(host: Host, *arguments: str) -> str:
    """Return what postfix-archive verify finds: ERROR, NOTE or NOTHING."""
    command = ["-c", str(host.directory / "host"), "verify", *arguments]
    result = CliRunner().invoke(main.main, command)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return _finding(result.exit_code, result.output)


def run_script(host: Host) -> str:
    """Return what contrib/verify_archive.py finds; store/verifier is that file."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exit_code = verifier.main([str(host.store)])
    return _finding(exit_code, output.getvalue())


def _finding(exit_code: int, output: str) -> str:
    if exit_code:
        assert exit_code == 2, output
        return ERROR
    return NOTE if "note: " in output else NOTHING


def find(move: Move, plain: Host, sealed: Host) -> tuple[str, ...]:
    """Make a move, and return what finds it, by COLUMNS."""
    findings = [NO_SEALS, NO_SEALS]
    if not move.is_about_seals:
        plain.restore()
        move.make(plain)
        findings = [verify(plain), run_script(plain)]
    sealed.restore()
    # Who can do all this can also write what is known outside the store.
    (sealed.fallback / "journal-ends").unlink()
    move.make(sealed)
    kept = verify(sealed, "--seal-file", str(sealed.kept))
    return (*findings, verify(sealed, "--seals"), run_script(sealed), kept)


@contextlib.contextmanager
def hosts(directory: Path) -> Iterator[tuple[Host, Host]]:
    """Make the two hosts, one without seals and one with."""
    with tsa.Authority(directory / "authority") as authority:
        pair = Host(directory / "plain", None), Host(directory / "sealed", authority)
        if any(len(journal_lines.segments(each.legal)) > 1 for each in pair):
            directory /= "again"  # the month has changed meanwhile
            pair = Host(directory / "p", None), Host(directory / "s", authority)
        yield pair


def table(findings: Mapping[str, tuple[str, ...]]) -> str:
    """Return the table as it is in docs/security.md."""
    rows = [("what is done", *COLUMNS), ("---",) * (1 + len(COLUMNS))]
    rows += [(text, *cells) for text, cells in findings.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page_table() -> str:
    """Return the table that docs/security.md has."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def write_page(text: str) -> None:
    """Write the table into docs/security.md."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    assert begin, f"{PAGE} has no place for the table"
    PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        with hosts(Path(name)) as pair:
            new_table = table({each.text: find(each, *pair) for each in MOVES})
    write_page(new_table)
    sys.stdout.write(new_table)
