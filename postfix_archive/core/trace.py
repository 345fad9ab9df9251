"""Where a message began its way on this host: what Postfix's own Received: says.

Used by filtering. Makes the archive id, which must come out the same in every retry,
for every piece of a message that Postfix delivers in several runs, and after
postsuper -r, which gives a new queue id and puts a Received: of its own on top.

What is read: of a Received: field only what stands between the line that begins with
"by" and the first ';', and in it the first "id". What stands above names the client in
its own words, what stands behind may be the recipient's, and a client can append to
Postfix's line by a first body line that begins with white space.

Which line is this Postfix's own? The topmost if it names the queue file of this run,
under whatever host name: the host's may have changed since, or be that of one service
(-o myhostname). Below that one, those that bear its name or archive.cf's.
"""

from __future__ import annotations

from postfix_archive.core import calendar, digest, header, queueid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
DAYS = b"Mon Tue Wed Thu Fri Sat Sun".split()
DAY_MINUTES = 24 * 60
FROM_USER = b", from userid "  # in the lines of pickup(8)
UNDATED = "00000000"
END_OF_TIME = 253402300800  # the year 10000: no date is written beyond
ID_BYTES = 20  # 160 bits: nobody finds two messages of one id


class Origin:
    """The start of a message's way: host, queue id, time and the bytes that count.

    ``offset`` is where the message begins that was first received, below the lines
    that requeueing has put on top. ``arrival`` is in seconds since 1970, None where
    Postfix's line is missing (header_checks may IGNORE it) or unreadable.
    """

    __slots__ = ("arrival", "clauses", "host", "offset", "queue_id", "smtputf8")

    def __init__(self, host: bytes, queue_id: bytes, offset: int) -> None:
        self.host = host
        self.queue_id = queue_id
        self.offset = offset
        self.arrival: int | None = None
        self.clauses = b""
        self.smtputf8 = False


def origin(
    head: bytes, *, queue_id: bytes, host: bytes, mail_owner: Callable[[], int]
) -> Origin:
    """Return where the message with this head and this queue id began its way.

    mail_owner tells the user id in the Received: lines that postsuper -r causes; it is
    asked only where there is one that may be such.
    """
    found = Origin(host, queue_id, 0)
    own = {host}
    expected = queue_id
    for field in header.fields(head):
        if field.name != b"received":
            continue
        clauses = _clauses(field)
        by, written = _written(clauses)
        if not (queueid.is_same(written, expected) if expected else by in own):
            break
        own.add(by)
        found.host, found.queue_id = by, written
        found.arrival = _arrival(field)
        found.clauses = clauses
        found.smtputf8 = b" with UTF8SMTP" in clauses.partition(b" id ")[0]
        if field.start != found.offset or not _requeued(clauses, mail_owner):
            break
        if not _followed_by_own(field, own):
            break
        found.offset = field.end
        expected = b""
    return found


def queue_id(head: bytes, *, said: bytes, host: bytes) -> bytes:
    """Return the id of the queue file that a message with this head came from.

    said is XFORWARD's IDENT: lmtp(8) sends none for mail from sendmail(1), and after
    postsuper -r the one of the first queue file. Postfix's own line on top has it.
    """
    top = header.first(head, b"received")
    by, written = _written(_clauses(top)) if top else (b"", b"")
    own = by == host or not said or queueid.is_same(written, said)
    return written if written and own else said


def archive_id(came: Origin, *, sender: bytes, content: bytes) -> str:
    """Return the name of this capture: its day (UTC) and 40 hexadecimal digits.

    content is the SHA-256 of the message from came.offset on. Recipients do not
    count, so that all pieces share one id; nor does Message-ID, which many messages
    lack or share. The day is 00000000 when Postfix's line does not tell it.
    """
    known = (came.host, came.queue_id, came.clauses, sender, content)
    framed = b"".join(b"%d:%s," % (len(value), value) for value in known)
    day = UNDATED
    if came.arrival is not None:
        day = "%04d%02d%02d" % calendar.date(came.arrival // calendar.DAY)
    return f"{day}-{digest.hex_of(framed)[: 2 * ID_BYTES]}"


def is_archive_id(text: str) -> bool:
    """Tell whether text has the form of an archive id, safe to be a file name."""
    day, dash, name = text.partition("-")
    return (
        len(day) == 8
        and day.isdigit()
        and day.isascii()
        and dash == "-"
        and len(name) == 2 * ID_BYTES
        and not name.strip("0123456789abcdef")
    )


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as RFC 3339 writes a time, in UTC.

    A time before or beyond those that can be written is the first or the last of them.
    """
    written = min(max(0, int(seconds)), END_OF_TIME - 1)
    day = calendar.date(written // calendar.DAY)
    return "%04d-%02d-%02dT%02d:%02d:%02dZ" % (*day, *calendar.clock(written))


def read_date(text: bytes) -> int | None:
    """Read e.g. ``Sun, 22 Nov 2026 12:53:00 +0100 (CET)``: seconds since 1970.

    None if the text is anything else.
    """
    words = text.split()
    if words and words[0].endswith(b","):
        words = words[1:]  # the day of the week is optional
    try:
        day, month, year, clock, zone, *comment = words
        if comment and not (len(comment) == 1 and comment[0][:1] == b"("):
            return None
        if len(zone) != 5 or zone[:1] not in (b"+", b"-") or not zone[1:].isdigit():
            return None
        hour, minute, second = clock.split(b":")
        shift = int(zone[:3]) * 60 + int(zone[:1] + zone[3:5])  # minutes
        days = calendar.days(int(year), MONTHS.index(month) + 1, int(day))
        at = int(hour), int(minute), min(int(second), 59)
    except ValueError:
        return None
    if days is None or abs(shift) >= DAY_MINUTES or not _is_clock(*at):
        return None
    seconds = calendar.DAY * days + 3600 * at[0] + 60 * (at[1] - shift) + at[2]
    return seconds if 0 <= seconds < END_OF_TIME else None


def _is_clock(hour: int, minute: int, second: int) -> bool:
    return 0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60


def written_date(seconds: int) -> bytes:
    """Return seconds since 1970 as RFC 5322 3.3 writes a time, in UTC."""
    days = seconds // calendar.DAY
    year, month, day = calendar.date(days)
    weekday = DAYS[(days + 3) % 7]  # 1 January 1970 was a Thursday
    words = (weekday, day, MONTHS[month - 1], year, *calendar.clock(seconds))
    return b"%s, %02d %s %04d %02d:%02d:%02d +0000" % words


def _own_lines(field: header.Field) -> list[bytes]:
    """Return the lines of a Received: from "by" on, which begins a line of Postfix's.

    Above it stand names that a client, its certificate or its login chose.
    """
    lines = field.raw.split(b"\r\n")
    for at, line in enumerate(lines):
        if line.startswith((b"Received: by ", b"\tby ")):
            return [line.removeprefix(b"Received:"), *lines[at + 1 :]]
    return []


def _clauses(field: header.Field) -> bytes:
    return b" ".join(b" ".join(_own_lines(field)).split(b";", 1)[0].split())


def _written(clauses: bytes) -> tuple[bytes, bytes]:
    """Return the host and the queue id in a line of Postfix's, nothing in another."""
    words = clauses.split(b" ")
    if words[0] != b"by" or b"id" not in words[2:-1] or words[2][:1] != b"(":
        return b"", b""
    return words[1], words[words.index(b"id", 2) + 1]


def _requeued(clauses: bytes, mail_owner: Callable[[], int]) -> bool:
    said = clauses.partition(b" id ")[0]
    return FROM_USER in said and FROM_USER + b"%d)" % mail_owner() in said


def _followed_by_own(top: header.Field, own: set[bytes]) -> bool:
    """Tell whether the next Received: is this host's too, so the top one may go."""
    field = header.first(top.head, b"received", top.end)
    return field is not None and _written(_clauses(field))[0] in own


def _arrival(field: header.Field) -> int | None:
    """Read the first line that ends as Postfix's mail_date() writes a time."""
    for line in _own_lines(field):
        found = read_date(line.rpartition(b"; ")[2])
        if found is not None:
            return found
    return None
