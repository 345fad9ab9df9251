"""Finds the origin of a message on this host in Postfix's own Received: fields.

Used by stamp_filter/capture_plan for the archive id. The id must be the same in every
retry, for every piece of a message that Postfix delivers separately, and after
postsuper -r, which assigns a new queue id and adds another Received: field on top.

Of a Received: field only the text from the line that begins with "by" up to the first
";" is parsed, and in it the first "id". Text above that comes from the client, text
after it may come from the recipient, and a client can append to Postfix's field with a
first body line that begins with white space.

Which fields are of this host? The topmost, if it has the current queue id, under any
host name: the name may have changed since, or be that of one service (-o myhostname).
Below it, those with that host name or the one of archive.cf.
"""

from __future__ import annotations

from postfix_archive.message import dates, digest, header, queue_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
FROM_USER = b", from userid "  # written for mail from pickup(8)
# Fields that each host and each local delivery puts on top of a message.
TRACE_NAMES = (b"received", b"delivered-to", b"x-original-to", b"return-path")
# Received: fields that are examined; a message with more is looping (RFC 5321 6.3 asks
# for at least 100, Postfix's hopcount_limit is 50), and few pass over 10.
RECEIVED_LIMIT = 30
ID_BYTES = 20  # 160 bits: no collision can be found


class Origin:
    """Where and when this host first received a message: host, queue id, time.

    ``offset`` is the start of the message as first received, below the fields that
    requeueing put on top. ``is_new`` is True if Postfix's field proves that a client or
    sendmail(1) sent it, and not postsuper -r. ``clauses`` are the parsed clauses of
    Postfix's Received: field. ``arrival`` is Unix time. Where that field is missing
    (header_checks may IGNORE or REPLACE it) or cannot be parsed, it is the time in a
    long queue id, None for a short one.
    """

    __slots__ = (
        "arrival",
        "clauses",
        "host",
        "is_new",
        "is_smtputf8",
        "offset",
        "queue_id",
    )

    def __init__(self, host: bytes, queue_id: bytes, offset: int) -> None:
        self.host = host
        self.queue_id = queue_id
        self.offset = offset
        self.arrival: int | None = None
        self.clauses = b""
        self.is_smtputf8 = self.is_new = False


def find_origin(
    head: bytes, *, current_queue_id: bytes, host: bytes, mail_owner: Callable[[], int]
) -> Origin:
    """Return the origin of the message with this head, now in this queue file.

    mail_owner returns the user id in the Received: fields that postsuper -r causes. It
    is called only if there may be such a field.
    """
    message_origin = Origin(host, current_queue_id, 0)
    own_hosts = {host}
    expected_queue_id = current_queue_id
    for field in header.fields(head):
        if field.name != b"received":
            continue
        clauses = _clauses(field)
        field_host, field_queue_id = _host_and_queue_id(clauses)
        if not (
            queue_ids.is_same(field_queue_id, expected_queue_id)
            if expected_queue_id
            else field_host in own_hosts
        ):
            break
        own_hosts.add(field_host)
        message_origin.host, message_origin.queue_id = field_host, field_queue_id
        message_origin.arrival = _parse_arrival(field)
        message_origin.clauses = clauses
        message_origin.is_smtputf8 = b" with UTF8SMTP" in clauses.partition(b" id ")[0]
        is_requeued = _is_requeued(clauses, mail_owner)
        message_origin.is_new = not is_requeued and not message_origin.offset
        if field.start != message_origin.offset or not is_requeued:
            break
        if not _is_followed_by_own(field, own_hosts):
            break
        message_origin.offset = field.end
        expected_queue_id = b""
    if message_origin.arrival is None:
        message_origin.arrival = queue_ids.arrival(message_origin.queue_id)
    return message_origin


def find_queue_id(head: bytes, *, ident: bytes, host: bytes) -> bytes:
    """Return the id of the queue file that the message came from.

    ident is XFORWARD's IDENT. lmtp(8) sends none for mail from sendmail(1), and after
    postsuper -r that of the first queue file. Postfix's topmost Received: has the id.
    """
    top = header.first(head, b"received")
    field_host, field_queue_id = (
        _host_and_queue_id(_clauses(top)) if top else (b"", b"")
    )
    is_own = field_host == host or not ident or queue_ids.is_same(field_queue_id, ident)
    return field_queue_id if field_queue_id and is_own else ident


def archive_id(origin: Origin, *, sender: bytes, sha256: bytes, now: int) -> str:
    """Return the archive id of this capture: day (UTC) and 40 hexadecimal digits.

    sha256 (32 bytes) is that of the message from origin.offset on. Recipients have no
    influence, so that all pieces share one id; nor has Message-ID, which many messages
    lack or share. The day is that of now (Unix time) if the arrival is unknown: then a
    retry after midnight has another id.
    """
    values = (origin.host, origin.queue_id, origin.clauses, sender, sha256)
    framed = b"".join(b"%d:%s," % (len(value), value) for value in values)
    arrival = now if origin.arrival is None else origin.arrival
    day = "%04d%02d%02d" % dates.calendar_date(arrival // dates.DAY_SECONDS)
    return f"{day}-{digest.sha256_hex(framed)[: 2 * ID_BYTES]}"


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


def content_offsets(head: bytes) -> list[int]:
    """Return the offsets at which the message may begin as it was before it came back.

    When this host delivered it, it began with this host's Received: field, or with a
    line that an access table had put above that (PREPEND), or with any field if
    header_checks removed that one. On its way the message got trace fields on top, and
    others between these. So: each Received: field but one at the very beginning, and
    whatever follows a trace field, below at most RECEIVED_LIMIT Received: fields.
    """
    offsets = []
    received_count = 0
    is_below_trace = False
    for field in header.fields(head):
        is_received = field.name == b"received"
        if field.start and (is_received or is_below_trace):
            offsets.append(field.start)
        received_count += is_received
        if received_count > RECEIVED_LIMIT:
            break
        is_below_trace = field.name in TRACE_NAMES
    return offsets


def _postfix_lines(field: header.Field) -> list[bytes]:
    """Return the lines of a Received: field from the one that begins with "by" on.

    The lines above have names chosen by the client, its certificate or its login.
    """
    lines = field.raw.split(b"\r\n")
    for index, line in enumerate(lines):
        if line.startswith((b"Received: by ", b"\tby ")):
            return [line.removeprefix(b"Received:"), *lines[index + 1 :]]
    return []


def _clauses(field: header.Field) -> bytes:
    return b" ".join(b" ".join(_postfix_lines(field)).split(b";", 1)[0].split())


def _host_and_queue_id(clauses: bytes) -> tuple[bytes, bytes]:
    """Return (host, queue id) of a field that Postfix wrote, else both empty."""
    tokens = clauses.split(b" ")
    if tokens[0] != b"by" or b"id" not in tokens[2:-1] or tokens[2][:1] != b"(":
        return b"", b""
    return tokens[1], tokens[tokens.index(b"id", 2) + 1]


def _is_requeued(clauses: bytes, mail_owner: Callable[[], int]) -> bool:
    before_id = clauses.partition(b" id ")[0]
    return FROM_USER in before_id and FROM_USER + b"%d)" % mail_owner() in before_id


def _is_followed_by_own(top: header.Field, own_hosts: set[bytes]) -> bool:
    """Return whether the next Received: field is of this host too.

    Only then the top one may be removed.
    """
    field = header.first(top.head, b"received", top.end)
    return field is not None and _host_and_queue_id(_clauses(field))[0] in own_hosts


def _parse_arrival(field: header.Field) -> int | None:
    """Return the time in the first line that ends with a date of Postfix's."""
    for line in _postfix_lines(field):
        seconds = dates.parse_rfc5322(line.rpartition(b"; ")[2])
        if seconds is not None:
            return seconds
    return None
