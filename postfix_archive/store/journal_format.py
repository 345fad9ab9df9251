"""The format of a journal: its lines, its monthly segments read as one, journal.last.

Used by journal, which writes, and by whatever reads a journal. The segments, in the
order of their names, are one sequence of bytes: a position in it is one number, and
stays the same, since only the newest segment grows. journal.last has the number and
hash of the last line: it shows that a journal was truncated. After a crash it may name
an earlier line than the last, never a later one. docs/store-format.md specifies all.
"""

from __future__ import annotations

import posix as os
from _stat import S_ISREG

from postfix_archive.errors import JournalFailed, StoreFailed
from postfix_archive.message import digest
from postfix_archive.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "journal"  # of the directory of the segments
TAB = b"\t"  # between the two parts of a line
LINE_START = b'{"seq":'
SIZE_KEY = b',"details_size":'
# The fields of the first part of a line, which stays when the details are struck out.
CHAINED_FIELDS = ("format", "id", "capsule", "file", "file_sha256")
SALT_SIZE = 16  # bytes
SALT_LENGTH = len('{"salt":"') + 2 * SALT_SIZE + len('"')  # in the details
LAST_SUFFIX, LOCK_SUFFIX = ".last", ".lock"
NUMBER_DIGITS = 18  # enough for any journal; int() raises above 4,300
SHA256_DIGITS = 64  # hexadecimal digits
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
# O_NONBLOCK: a FIFO blocks neither open nor write.
SEGMENT_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def format_line(
    number: int, time: str, event: str, fields: dict[str, str | int], *, prev: str
) -> bytes:
    """Return a line: its chained part, a TAB, the salted details, a line end."""
    text = f'{{"seq":{number},"time":{json_string(time)},"event":{json_string(event)}'
    details_text = f'{{"salt":"{os.urandom(SALT_SIZE).hex()}"'
    for name, value in fields.items():
        json_value = str(value) if isinstance(value, int) else json_string(value)
        if name in CHAINED_FIELDS:
            text += f",{json_string(name)}:{json_value}"
        else:
            details_text += f",{json_string(name)}:{json_value}"
    details = f"{details_text}}}".encode("ascii")
    text += f',"details_size":{len(details)}'
    text += f',"details_sha256":"{digest.sha256_hex(details)}","prev":"{prev}"}}'
    return text.encode("ascii") + TAB + details + b"\n"


def line_sha256(line: bytes) -> str:
    """Return the hash by which the next line names this one: that of its first part."""
    return digest.sha256_hex(line.partition(TAB)[0].removesuffix(b"\n"))


def last_number(tail: bytes, *, is_whole_file: bool) -> int | None:
    """Return the number of the last complete line, None if tail has none.

    The first line of tail counts only if tail is the whole file.
    """
    tail_lines = tail.rstrip(b"\n").split(b"\n")
    for line in reversed(tail_lines if is_whole_file else tail_lines[1:]):
        first_key, _, rest = line.partition(b":")
        number = rest.partition(b",")[0]
        if first_key == b'{"seq"' and is_number(number) and is_complete(line):
            return int(number)
    return None


def is_complete(line: bytes) -> bool:
    """Return whether a line, without its line end, was written completely.

    Its details may have been struck out since.
    """
    end = line.find(TAB)
    start = line.rfind(SIZE_KEY, 0, max(0, end)) + len(SIZE_KEY)
    size = line[start : line.find(b",", start)]
    return (
        line.startswith(LINE_START)
        and line[end - SHA256_DIGITS - 11 : end - SHA256_DIGITS - 2] == b',"prev":"'
        and line[end - 2 : end] == b'"}'
        and is_number(size)
        and int(size) == len(line) - end - len(TAB)
    )


def is_struck_out(line: bytes) -> bool:
    """Return whether the details of a complete line are overwritten with spaces.

    The first one says so: a crash may have left the rest, see strike_out.
    """
    return TAB + b" " in line


def has_intact_details(line: bytes) -> bool:
    """Return whether the details of a line are those that its first part names."""
    chained, _, details = line.removesuffix(b"\n").partition(TAB)
    return string_field(chained, "details_sha256") == digest.sha256_hex(details)


def string_field(line: bytes, name: str) -> str:
    """Return the first value of this name in a complete line, "" if it has none.

    Finds it without parsing the line: quotes within a JSON string are escaped. The
    value may have escapes; ids, times and the names of events have none.
    """
    key = f'"{name}":"'.encode()
    start = line.find(key)
    if start < 0:
        return ""
    start += len(key)
    return line[start : line.find(b'"', start)].decode("ascii", "replace")


def matching_lines(content: bytes, substring: bytes) -> Iterator[bytes]:
    """Yield the lines that contain substring and have a line end, without it."""
    position = content.find(substring)
    while position >= 0:
        end = content.find(b"\n", position)
        if end < 0:
            return
        yield content[content.rfind(b"\n", 0, position) + 1 : end]
        position = content.find(substring, end)


def event_fields(line: bytes) -> bytes:
    """Return the event and its fields, without number, time, chain and salt."""
    chained, _, details = line.partition(TAB)
    event = chained[chained.find(b',"event":') : chained.rfind(b',"details_size":')]
    return event + details[SALT_LENGTH:]


def open_directory(path: str) -> int:
    """Open the directory of a journal; return the descriptor.

    Raises OSError, and JournalFailed for a journal of store format 1.
    """
    try:
        return os.open(path, DIRECTORY_FLAGS)
    except NotADirectoryError as error:
        if not S_ISREG(os.lstat(path).st_mode):
            raise OSError(0, "not a directory") from error
        raise JournalFailed(
            f"{path}: a journal of store format 1, which this version does not read;"
            " read it with the version that wrote it, and give this one another"
            " archive_store_directory"
        ) from error


def open_lock(path: str) -> int:
    """Open the file that a writer of a journal locks (flock(2)); make it if missing.

    Nobody but the archive's user can open it: no reader holds up mail. Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | SEGMENT_FLAGS
    return os.open(path + LOCK_SUFFIX, flags, files.DRAFT_MODE)


def segment_names(directory: int) -> list[str]:
    """Return the names of the segments, oldest first; directory is a descriptor."""
    return sorted(filter(is_segment_name, os.listdir(directory)))


def is_segment_name(name: str) -> bool:
    """Return whether a name is YYYY-MM."""
    digits = name[:4] + name[5:]
    return len(name) == 7 and name[4] == "-" and digits.isascii() and digits.isdigit()


def open_segment(directory: int, name: str, flags: int = os.O_RDONLY) -> int:
    """Open a segment; return the descriptor. Raises OSError."""
    descriptor = os.open(
        name, flags | SEGMENT_FLAGS, files.DRAFT_MODE, dir_fd=directory
    )
    if not S_ISREG(os.fstat(descriptor).st_mode):
        close(descriptor)
        raise OSError(0, "not a regular file", name)
    return descriptor


def close(descriptor: int) -> None:
    """Close a segment or its directory, and ignore the error that NFS may report.

    Each line was fsynced, and the descriptor is closed all the same.
    """
    try:
        os.close(descriptor)
    except OSError:
        pass


def error_path(path: str, error: OSError) -> str:
    """Return the path of the segment that an error names, else that of the journal."""
    name = str(error.filename or "")
    return f"{path}/{name}" if is_segment_name(name) else path


class Segments:
    """The segments that a journal has now, as one file to read. A context manager.

    ``size`` is their size in bytes, ``directory`` the descriptor of their directory.
    The last one may grow meanwhile.
    """

    __slots__ = ("_descriptor", "_index", "_names", "_starts", "directory", "size")

    def __init__(self, path: str) -> None:
        """Open the directory; raises OSError, and JournalFailed for format 1."""
        self._descriptor = self._index = -1
        self._names: list[str] = []
        self._starts: list[int] = []
        self.size = 0
        self.directory = open_directory(path)
        try:
            for name in segment_names(self.directory):
                self._names.append(name)
                self._starts.append(self.size)
                self.size += os.stat(
                    name, dir_fd=self.directory, follow_symlinks=False
                ).st_size
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Segments:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        self._close_segment()
        close(self.directory)

    def spans(self) -> list[tuple[str, int, int]]:
        """Return the name of each segment, and from where to where it goes."""
        ends = [*self._starts[1:], self.size]
        return list(zip(self._names, self._starts, ends))

    def read(self, position: int, size: int) -> bytes:
        """Return up to size bytes from one segment, b"" at the end. Raises OSError."""
        index = self._index_at(position)
        if index < 0:
            return b""
        if index + 1 < len(self._starts):
            size = min(size, self._starts[index + 1] - position)
        return os.pread(self._segment(index), size, position - self._starts[index])

    def locate(self, position: int) -> tuple[str, int]:
        """Return the segment that has the byte at a position, and its offset in it.

        Raises OSError after the end.
        """
        if position >= self.size:
            raise OSError(0, "ends before a line that it had")
        index = self._index_at(position)
        return self._names[index], position - self._starts[index]

    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes from start to stop, fewer at the end. Raises OSError."""
        content = b""
        while chunk := self.read(start, stop - start):
            content += chunk
            start += len(chunk)
        return content

    def sync(self) -> None:
        """Make the last segment durable; its predecessors are. Raises OSError."""
        if self._names:
            os.fsync(self._segment(len(self._names) - 1))

    def _index_at(self, position: int) -> int:
        """Return the index of the segment that has this position, -1 if none is."""
        index = len(self._starts) - 1
        while index > 0 and self._starts[index] > position:
            index -= 1
        return index

    def _segment(self, index: int) -> int:
        """Return the descriptor of a segment; that of one is kept open."""
        if index != self._index:
            self._close_segment()
            self._descriptor = open_segment(self.directory, self._names[index])
            self._index = index
        return self._descriptor

    def _close_segment(self) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)
        self._descriptor = self._index = -1


def write_last(path: str, number: int, sha256: str) -> None:
    """Write the number and hash of the last line beside a journal; ignore errors.

    The line itself is durable already, so an error here loses nothing. A file of the
    same length is overwritten in place, unless it names a later line: it lies within
    one disk sector, so no crash leaves half of it. Otherwise a new file replaces it.
    """
    path, content = path + LAST_SUFFIX, _format_last(number, sha256)
    descriptor = _open_same_length(path, len(content))
    try:
        if descriptor < 0:
            directory = files.parent_directory(path)
            mode = files.shared_mode(directory, files.DRAFT_MODE)
            files.replace(path, content, mode, is_durable=False)
        else:
            known = os.pread(descriptor, len(content), 0)
            os.pwrite(descriptor, known if _number(known) > number else content, 0)
    except (OSError, StoreFailed):
        pass
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def read_last_number(path: str) -> int:
    """Return the number in journal.last, 0 if the file is missing or damaged."""
    try:
        descriptor = files.open_regular(path + LAST_SUFFIX)
    except OSError:
        return 0
    try:
        content = os.read(descriptor, 4 * SHA256_DIGITS)
    finally:
        os.close(descriptor)
    return _number(content)


def _number(content: bytes) -> int:
    """Return the number in the content of journal.last, 0 if that is damaged."""
    number_text, _, rest = content.partition(b" ")
    sha256 = rest[:SHA256_DIGITS]
    if not is_number(number_text) or content != _with_checksum(
        number_text + b" " + sha256
    ):
        return 0
    return int(number_text)


def is_number(text: bytes) -> bool:
    """Return whether text is a valid line number or size."""
    return text.isdigit() and len(text) <= NUMBER_DIGITS


def _open_same_length(path: str, length: int) -> int:
    """Open a regular file of this length and one link; else return -1."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return -1
    stat = os.fstat(descriptor)
    if S_ISREG(stat.st_mode) and stat.st_nlink == 1 and stat.st_size == length:
        return descriptor
    os.close(descriptor)
    return -1


def _format_last(number: int, sha256: str) -> bytes:
    """Return the content of journal.last; its length is always the same."""
    return _with_checksum(f"{number:0{NUMBER_DIGITS}d} {sha256}".encode())


def _with_checksum(text: bytes) -> bytes:
    """Append the SHA-256 of text to it."""
    return text + f" {digest.sha256_hex(text)}\n".encode()


JSON_ESCAPES = (
    ("\\", "\\\\"),
    ('"', '\\"'),
    ("\r", "\\r"),
    ("\n", "\\n"),
    ("\t", "\\t"),
)


def json_string(text: str) -> str:
    """Return text as a JSON string in ASCII.

    Imports the C module _json only for text that is not printable ASCII: the import
    costs a transport process 0.5 ms.
    """
    if text.isascii():
        if text.isprintable() and '"' not in text and "\\" not in text:
            return f'"{text}"'
        escaped = text
        for char, escape in JSON_ESCAPES:
            escaped = escaped.replace(char, escape)
        if escaped.isprintable():
            return f'"{escaped}"'
    from _json import encode_basestring_ascii

    return encode_basestring_ascii(text)
