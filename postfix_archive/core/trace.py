"""Finds the origin of a message on this host in Postfix's own Received: fields.

Used by stamp_filter/plan for the archive id. The id must be the same in every retry,
for every piece of a message that Postfix delivers separately, and after postsuper -r,
which assigns a new queue id and adds another Received: field on top.

Of a Received: field only the text from the line that begins with "by" up to the first
";" is parsed, and in it the first "id". Text above that comes from the client, text
after it may come from the recipient, and a client can append to Postfix's field with a
first body line that begins with white space.

Which fields are of this host? The topmost, if it has the current queue id, under any
host name: the name may have changed since, or be that of one service (-o myhostname).
Below it, those with that host name or the one of archive.cf.
"""

from __future__ import annotations

from postfix_archive.core import calendar, digest, header, queueid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
DAYS = b"Mon Tue Wed Thu Fri Sat Sun".split()
DAY_MINUTES = 24 * 60
FROM_USER = b", from userid "  # written for mail from pickup(8)
UNDATED = "00000000"
END_OF_TIME = 253402300800  # the year 10000, exclusive limit of dates
ID_BYTES = 20  # 160 bits: no collision can be found


class Origin:
    """Where and when this host first received a message: host, queue id, time.

    ``offset`` is the start of the message as first received, below the fields that
    requeueing put on top. ``clauses`` are the parsed clauses of Postfix's Received:
    field. ``arrival`` is Unix time, None where that field is missing (header_checks
    may IGNORE it) or cannot be parsed.
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
    """Return the origin of the message with this head, now in this queue file.

    mail_owner returns the user id in the Received: fields that postsuper -r causes. It
    is called only if there may be such a field.
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
    """Return the id of the queue file that the message came from.

    ident is XFORWARD's IDENT. lmtp(8) sends none for mail from sendmail(1), and after
    postsuper -r that of the first queue file. Postfix's topmost Received: has the id.
    """
    top = header.first(head, b"received")
    by, written = _written(_clauses(top)) if top else (b"", b"")
    own = by == host or not said or queueid.is_same(written, said)
    return written if written and own else said


def archive_id(came: Origin, *, sender: bytes, content: bytes) -> str:
    """Return the archive id of this capture: day (UTC) and 40 hexadecimal digits.

    sha256 (32 bytes) is that of the message from origin.offset on. Recipients have no
    influence, so that all pieces share one id; nor has Message-ID, which many messages
    lack or share. The day is 00000000 if it is unknown.
    """
    known = (came.host, came.queue_id, came.clauses, sender, content)
    framed = b"".join(b"%d:%s," % (len(value), value) for value in known)
    day = UNDATED
    if came.arrival is not None:
        day = "%04d%02d%02d" % calendar.date(came.arrival // calendar.DAY)
    return f"{day}-{digest.hex_of(framed)[: 2 * ID_BYTES]}"


def is_archive_id(text: str) -> bool:
    """Return whether text has the form of an archive id, safe as a file name."""
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
    """Return a Unix time as an RFC 3339 timestamp in UTC.

    A time before 1970 or after 9999 becomes the first or last of that range.
    """
    written = min(max(0, int(seconds)), END_OF_TIME - 1)
    day = calendar.date(written // calendar.DAY)
    return "%04d-%02d-%02dT%02d:%02d:%02dZ" % (*day, *calendar.clock(written))


def read_date(text: bytes) -> int | None:
    """Return the Unix time of a date such as ``Sun, 22 Nov 2026 12:53:00 +0100 (CET)``.

    None if the text is not such a date (RFC 5322 3.3).
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
    """Return a Unix time as an RFC 5322 3.3 date in UTC."""
    days = seconds // calendar.DAY
    year, month, day = calendar.date(days)
    weekday = DAYS[(days + 3) % 7]  # 1 January 1970 was a Thursday
    words = (weekday, day, MONTHS[month - 1], year, *calendar.clock(seconds))
    return b"%s, %02d %s %04d %02d:%02d:%02d +0000" % words


def _own_lines(field: header.Field) -> list[bytes]:
    """Return the lines of a Received: field from the one that begins with "by" on.

    The lines above have names chosen by the client, its certificate or its login.
    """
    lines = field.raw.split(b"\r\n")
    for at, line in enumerate(lines):
        if line.startswith((b"Received: by ", b"\tby ")):
            return [line.removeprefix(b"Received:"), *lines[at + 1 :]]
    return []


def _clauses(field: header.Field) -> bytes:
    return b" ".join(b" ".join(_own_lines(field)).split(b";", 1)[0].split())


def _written(clauses: bytes) -> tuple[bytes, bytes]:
    """Return (host, queue id) of a field that Postfix wrote, else both empty."""
    words = clauses.split(b" ")
    if words[0] != b"by" or b"id" not in words[2:-1] or words[2][:1] != b"(":
        return b"", b""
    return words[1], words[words.index(b"id", 2) + 1]


def _requeued(clauses: bytes, mail_owner: Callable[[], int]) -> bool:
    said = clauses.partition(b" id ")[0]
    return FROM_USER in said and FROM_USER + b"%d)" % mail_owner() in said


def _followed_by_own(top: header.Field, own: set[bytes]) -> bool:
    """Return whether the next Received: field is of this host too.

    Only then the top one may be removed.
    """
    field = header.first(top.head, b"received", top.end)
    return field is not None and _written(_clauses(field))[0] in own


def _arrival(field: header.Field) -> int | None:
    """Return the time in the first line that ends with a date of Postfix's."""
    for line in _own_lines(field):
        found = read_date(line.rpartition(b"; ")[2])
        if found is not None:
            return found
    return None
