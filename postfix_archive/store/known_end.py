"""Where each journal ended at the last look, kept outside the store.

Used by archive and bypass/switch, which do not write into a journal that has lost its
end: it was cut or replaced, or its file system is not mounted. verify, doctor and
status report it. tally_cache writes the file, journal-ends in
archive_fallback_directory, one line for each archive:

    <start> <end> <line number> <SHA-256> <archive address> <store directory>

start and end are the positions of the journal's last complete line, in bytes, the
SHA-256 is that of its first part. The last seal of the store has a line, too: with
``seals`` for the address, its number and its SHA-256. The file store-seen beside it has
the path of the store that has been used.
"""

from __future__ import annotations

import posix as os

from postfix_archive.errors import JournalFailed, StoreFailed
from postfix_archive.message import digest
from postfix_archive.store import journal_format
from postfix_archive.system import files

FILE_NAME = "journal-ends"
STORE_MARKER = "store-seen"
PATH_LIMIT = 4096  # bytes: PATH_MAX
SEALS = "seals"  # directory of the seals, in the place of an archive address
SIZE_LIMIT = 1 << 20  # bytes of the file: some 5,000 archives


class KnownEnd:
    """The last line that a journal had: positions in bytes, number, hash."""

    __slots__ = ("end", "number", "sha256", "start")

    def __init__(self, start: int, end: int, number: int, sha256: str) -> None:
        self.start = start
        self.end = end
        self.number = number
        self.sha256 = sha256

    def loss(self, directory: str, name: str = journal_format.NAME) -> str:
        """Return what the journal has lost, "" if nothing or if it cannot be read.

        directory is that of the archive, or of the seals; name is the journal's.
        """
        if directory.endswith(f"/{SEALS}"):
            return self._seal_loss(directory)
        try:
            path = f"{directory}/{name}"
            with journal_format.Segments(path) as segments:
                line = segments.read_range(self.start, self.end)
        except FileNotFoundError:
            return f"the journal is missing; it had {self.number} lines"
        except (OSError, JournalFailed):
            return ""
        if self.is_line(line):
            return ""
        return f"line {self.number} is missing or is another one"

    def is_line(self, line: bytes) -> bool:
        """Return whether this is the last line that the journal had."""
        return line.endswith(b"\n") and journal_format.line_sha256(line) == self.sha256

    def _seal_loss(self, directory: str) -> str:
        try:
            for name in os.listdir(directory):
                if name.startswith(f"{self.number:06d}-") and name.endswith(".json"):
                    descriptor = files.open_regular(f"{directory}/{name}")
                    content = os.read(descriptor, self.end + 1)
                    os.close(descriptor)
                    if digest.sha256_hex(content) == self.sha256:
                        return ""
        except FileNotFoundError:
            pass
        except OSError:
            return ""
        return f"seal {self.number} is missing or is another one"


def read(directory: str, store_directory: str) -> dict[str, KnownEnd]:
    """Return what is known of the journals of a store, by archive address.

    directory is archive_fallback_directory. A missing file knows nothing; lines that
    are damaged are left out.
    """
    try:
        descriptor = files.open_regular(f"{directory}/{FILE_NAME}")
    except OSError:
        return {}
    try:
        content = os.read(descriptor, SIZE_LIMIT)
    except OSError:
        return {}
    finally:
        os.close(descriptor)
    ends = {}
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(" ", 5)
        if len(fields) == 6 and fields[5] == store_directory:
            with_numbers = [each for each in fields[:3] if each.isdecimal()]
            if len(with_numbers) == 3:
                start, end, number = map(int, with_numbers)
                ends[fields[4]] = KnownEnd(start, end, number, fields[3])
    return ends


def losses(known: dict[str, KnownEnd], store_directory: str) -> dict[str, str]:
    """Return what is lost of what read() has returned, by archive address."""
    reasons = {
        name: end.loss(f"{store_directory}/{name}") for name, end in known.items()
    }
    return {name: reason for name, reason in reasons.items() if reason}


def require(directory: str, store_directory: str, address: str) -> None:
    """Raise StoreFailed if the journal of an archive has lost its known end."""
    archive_directory = f"{store_directory}/{address}"
    place = _places.get((directory, archive_directory))
    if place and place.has_line():
        return
    state = _state(f"{directory}/{FILE_NAME}")
    end = read(directory, store_directory).get(address)
    reason = end.loss(archive_directory) if end else ""
    if reason:
        raise StoreFailed(f"{archive_directory}: {reason}; {advice(directory)}")
    if end:
        _places[directory, archive_directory] = _Place(
            directory, archive_directory, state, end
        )


class _Place:
    """Where a process has found the line of a known end, to look there again.

    Without reading the file of the known ends anew, unless it has changed, and without
    listing the segments.
    """

    __slots__ = ("_end", "_ends_path", "_ends_state", "_offset", "_segment_path")

    def __init__(
        self,
        directory: str,
        archive_directory: str,
        ends_state: tuple[int, ...],
        end: KnownEnd,
    ) -> None:
        self._ends_path = f"{directory}/{FILE_NAME}"
        self._ends_state = ends_state
        self._end = end
        self._segment_path, self._offset = "", 0
        path = f"{archive_directory}/{journal_format.NAME}"
        try:
            with journal_format.Segments(path) as segments:
                name, self._offset = segments.locate(end.start)
                self._segment_path = f"{path}/{name}"
        except (OSError, JournalFailed):
            pass  # has_line() finds nothing

    def has_line(self) -> bool:
        """Return whether it is still the known end, and the line still there."""
        if _state(self._ends_path) != self._ends_state:
            return False
        try:
            descriptor = files.open_regular(self._segment_path)
        except OSError:
            return False
        try:
            size = self._end.end - self._end.start
            return self._end.is_line(os.pread(descriptor, size, self._offset))
        except OSError:
            return False
        finally:
            os.close(descriptor)


# By archive_fallback_directory and the archive's directory.
_places: dict[tuple[str, str], _Place] = {}


def _state(path: str) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced, () for no file."""
    try:
        stat = os.stat(path, follow_symlinks=False)
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def advice(directory: str) -> str:
    """Return what to do about a loss."""
    return (
        "mount the store, or restore it from a backup; if it is right as it is, remove"
        f" its line from {directory}/{FILE_NAME}"
    )


def to_text(address: str, store_directory: str, end: KnownEnd) -> str:
    """Return the line of an archive."""
    fields = (end.start, end.end, end.number, end.sha256, address, store_directory)
    return " ".join(map(str, fields)) + "\n"


def was_used(directory: str, store_directory: str) -> bool:
    """Return whether this store has been used, and not one at another path."""
    marker = f"{directory}/{STORE_MARKER}"
    try:
        descriptor = files.open_regular(marker)
    except OSError:
        return files.exists(marker)
    try:
        content = os.read(descriptor, PATH_LIMIT)
    finally:
        os.close(descriptor)
    return content in (b"", _as_bytes(store_directory))


def mark_used(directory: str, store_directory: str) -> None:
    """Record the path of the store; errors are ignored."""
    try:
        marker = f"{directory}/{STORE_MARKER}"
        files.replace(marker, _as_bytes(store_directory), is_durable=False)
    except StoreFailed:
        pass


def _as_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
