"""Plans the work of the stamp filter for one message: what to archive, what to stamp.

Used by stamp_filter/capture. Pure: values in, values out.

    DeliveryRequest (archive requests, recipients) -> HeaderScan (origin, stamps)
    -> digests -> verdict on each stamp -> Plan (envelope to archive, new stamps)
"""

from __future__ import annotations

from postfix_archive.core import address, header, request, stamp, trace
from postfix_archive.core.envelope import Envelope, Request
from postfix_archive.core.errors import ALARM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from postfix_archive.core.envelope import Client, Recipient
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.settings import Settings
    from postfix_archive.core.wire import Shape

# Protocols with EHLO or LHLO, as Postfix names them.
EXTENDED = (b"ESMTP", b"UTF8SMTP", b"LMTP")


class Task:
    """A delivery request from Postfix, its recipients separated from archive requests.

    ``request_sources`` maps each archive address to the source of its request. Only
    lmtp(8) sends ``ret``, ``smtputf8`` and ``is_local`` (the client is local; None if
    unknown).
    """

    __slots__ = (
        "asked",
        "client",
        "envid",
        "forged",
        "local",
        "nexthop",
        "people",
        "queue_id",
        "ret",
        "sender",
        "smtputf8",
    )

    def __init__(
        self,
        *,
        nexthop: str,
        queue_id: bytes,
        sender: bytes,
        recipients: tuple[Recipient, ...],
        client: Client,
        envid: bytes,
        keys: Keyring,
        ret: bytes = b"",
        smtputf8: bool = False,
        local: bool | None = None,
    ) -> None:
        self.nexthop = nexthop
        self.queue_id = queue_id
        self.sender = sender
        self.client = client
        self.envid = envid
        self.ret = ret
        self.smtputf8 = smtputf8
        self.local = local
        self.people, tables, self.forged = request.sorted_out(recipients, keys)
        self.asked = dict.fromkeys(tables, "recipient")
        self.asked.update(dict.fromkeys(request.from_nexthop(nexthop), "nexthop"))

    @property
    def went_around(self) -> bool:
        """True if a FILTER action routed the other recipients past the stamp filter."""
        return self.nexthop == request.ON_REQUEST and not self.people


class Reading:
    """What the header of a message tells: its origin and its stamps."""

    __slots__ = ("found", "origin")

    def __init__(
        self,
        head: bytes,
        task: Task,
        settings: Settings,
        keys: Keyring,
        *,
        owner: Callable[[Settings], int],
    ) -> None:
        self.origin = trace.origin(
            head,
            queue_id=task.queue_id,
            host=settings.myhostname,
            mail_owner=lambda: owner(settings),
        )
        self.found = stamp.find(head, keys)

    @property
    def offsets(self) -> list[int]:
        """Offsets from which on the SHA-256 of the message is needed."""
        return sorted({0, self.origin.offset, *self.found.offsets})


class Plan:
    """The envelope to archive (None: archive nothing) and the new stamps."""

    __slots__ = ("envelope", "stamps")

    def __init__(self, sealed: Envelope | None, stamps: bytes) -> None:
        self.envelope = sealed
        self.stamps = stamps


def plan(
    task: Task,
    reading: Reading,
    digests: dict[int, bytes],
    size: int,
    settings: Settings,
    keys: Keyring,
    *,
    now: int,
) -> Plan:
    """Return the plan for a message of size bytes; now is Unix time.

    digests has the SHA-256 of the message from each of ``scan.offsets`` on.
    """
    origin = reading.origin
    identity = trace.archive_id(
        origin, sender=task.sender, content=digests[origin.offset]
    )
    wanted = []
    stamps = b""
    for archive, source in sorted(task.asked.items()):
        verdict = stamp.verdict(reading.found, archive, digests, keys)
        spared = _is_spared(verdict, settings, now)
        wanted.append(_request(archive, source, verdict, spared=spared))
        if verdict.word != stamp.VALID:
            tag = stamp.tag(archive, keys.current)
            stamps += stamp.line(identity, tag, digests[0], now, keys.current)
    if not wanted:
        return Plan(None, stamps)
    sealed = Envelope(
        archive_id=identity,
        host=origin.host,
        queue_id=origin.queue_id,
        sender=task.sender,
        recipients=task.people,
        requests=tuple(wanted),
        client=task.client,
        arrival=origin.arrival,
        envid=task.envid,
        ret=task.ret,
        digest=digests[0].hex(),
        size=size,
        incomplete=task.went_around,
    )
    return Plan(sealed, stamps)


def is_own_copy(
    task: Task, reading: Reading, digests: dict[int, bytes], keys: Keyring
) -> bool:
    """Tell whether the message is an outgoing archive copy, requeued by postsuper -r.

    It must be sent as it is: no bcc map and no content filter may see its content.
    """
    requeued = reading.origin.offset > 0
    if not requeued or len(task.people) != 1:
        return False
    for each in (task.people[0].final, task.people[0].original):
        archive = each.decode("utf-8", "replace").lower()
        verdict = stamp.verdict(reading.found, archive, digests, keys)
        if verdict.word == stamp.VALID:
            return verdict.generation > 0
    return False


def needs_smtputf8(task: Task, reading: Reading, head: bytes) -> bool:
    """Tell whether reinjection needs SMTPUTF8 (RFC 6531 3.4).

    pipe(8) has no macro for it. For mail from SMTP, Postfix's Received: line shows it.
    For mail from sendmail(1), it is needed if an address or the header is not ASCII, as
    with smtputf8_autodetect_classes (postconf(5)).
    """
    if task.smtputf8 or reading.origin.smtputf8:
        return True
    addresses = [task.sender, *(each.final for each in task.people)]
    if not all(each.isascii() for each in addresses):
        return all(map(address.is_utf8, addresses))
    return not task.client.protocol and not head[: header.end(head)].isascii()


def came_as_eightbit(task: Task, shape: Shape) -> bool:
    """Tell whether to declare BODY=8BITMIME (RFC 6152); pipe(8) has no macro for it.

    SMTP clients declare it for content that is not ASCII. sendmail(1) declares nothing;
    then cleanup(8) reads Content-Transfer-Encoding, as it has done for the first queue
    file.
    """
    return not shape.ascii and task.client.protocol.startswith(EXTENDED)


def is_local(client: Client, networks: tuple[str, ...]) -> bool:
    """Tell whether Postfix rewrites the headers of this client's mail.

    True for sendmail(1) and for clients in networks: archive_local_clients, the
    equivalent of local_header_rewrite_clients (postconf(5)), with IP addresses, IPv4
    networks and permit_sasl_authenticated.
    """
    if not client.address:
        return True
    if client.sasl_username and "permit_sasl_authenticated" in networks:
        return True
    return any(address.is_in(client.address, each) for each in networks)


def remarks(task: Task) -> str:
    """Return the alarms about this message for Postfix's log, "" if there are none."""
    said = []
    if task.went_around:
        said.append(f"{ALARM} ENVELOPE INCOMPLETE, a FILTER took it around the archive")
    if task.forged:
        said.append(f"{ALARM} FORGED requests ignored: {task.forged}")
    return "; ".join(said)


def _is_spared(verdict: stamp.Verdict, settings: Settings, now: int) -> bool:
    """Tell whether to send no second copy: no store, and a valid, recent stamp."""
    if settings.stores or verdict.word != stamp.VALID or verdict.stamp is None:
        return False
    return abs(now - verdict.stamp.time) <= settings.archive_stamp_lifetime


def _request(
    archive: str, source: str, verdict: stamp.Verdict, *, spared: bool
) -> Request:
    wanted = Request(archive, source, verdict.word)
    wanted.copy = verdict.generation
    wanted.spared = spared
    if verdict.stamp is not None:
        wanted.stamp_id = verdict.stamp.archive_id
        if verdict.word == stamp.VALID:
            wanted.above = verdict.stamp.start
    return wanted
