"""Finds the messages that Postfix accepted, and their captures, in the mail log.

Used by cli/reconcile. Reads the log line by line and believes only this host's own
daemons, not what remote hosts say. reconcile/totals checks whether the archive really
has a message; reconcile/causes says why it has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from postfix_archive.core import accepted, delivery, logline, queueid, relays
from postfix_archive.core.accepted import Message
from postfix_archive.core.capsules import Capsules
from postfix_archive.core.delivery import Attempt
from postfix_archive.core.logline import Line
from postfix_archive.core.underway import Underway

HANDBACK = ("/archive-handback", "/archive-refused")
OWN = ("/archive-capsule", "/archive-copy", "/archive-relay")
CLIENT = "client="
ORIGIN = ", orig_queue_id="
MESSAGE_ID = "message-id="
ACTIONS = ("filter: ", "redirect: ")
DISCARDS = ("discard: ", "milter-discard: ")
REJECTS = ("reject: ", "milter-reject: ")
BY_POSTSUPER = ("placed on hold", "released from hold", "requeued", "removed")
PICKED_UP = re.compile(r"uid=\d+ from=<.*>(?: orig_id=([0-9A-Za-z]+))?", re.DOTALL)
QUEUED = re.compile(r"from=<(.*)>, size=\d+, nrcpt=(\d+) \(queue active\)", re.DOTALL)
GONE = re.compile(r"from=<.*>, status=(?:force-)?expired, returned to sender", re.S)
# Status of an address probe, which is not mail.
PROBED = ("deliverable", "undeliverable")
QUEUED_AS = "queued as "
NONE = "none"  # as relay: the transport is deferred, or the host unreachable
RENAMED = ": Renamed to match inode number: "  # postsuper(1), when Postfix starts
SAID = " service ("
SAID_LIMIT = 99  # bytes; pipe(8) logs at most 100 of a command's output
ARCHIVED_AS = re.compile(r"\barchived as (\d{8}-[0-9a-f]{40})\b")
HANDED_BACK = re.compile(r"\bqueued as ([0-9A-Za-z]{6,})$")


class Reconciling:
    """Reads the log and yields the messages that were accepted.

    ``line_count`` counts lines about a queue file of this instance, ``queued_before``
    the messages that were queued before the log begins, ``unreadable_count`` the stamp
    filter's lines that are ambiguous. ``archiving_processes`` has, by service, daemon
    and pid, when mail from that process last reached a stamp filter.
    """

    def __init__(
        self, names: Collection[str], filters: tuple[str, ...], *, stores: bool
    ) -> None:
        """Initialise.

        syslog_names are those of this instance and its services, filters its content
        filters as transport:nexthop.
        """
        self.capsules = Capsules(stores=stores)
        self.lines = self.before = self.not_understood = 0
        self.led: dict[tuple[str, str, str], float] = {}
        self._names = frozenset(names)
        self._begins = tuple(f"{each}/" for each in names)
        self._filters = filters
        self._underway = Underway()
        self._before: set[str] = set()
        self._renames = False  # postsuper(1) has renamed queue files
        self._said: dict[str, str] = {}  # by pid, without queue id

    def take(self, text: str, at: float) -> None:
        """Read one line, logged at a time in seconds since 1970."""
        self._underway.now = max(self._underway.now, at)
        line = logline.read(text)
        if line is None:
            self._renames |= RENAMED in text
        if line is None or not self._is_ours(line.service):
            return
        self.lines += 1
        if line.text.startswith(delivery.BEGINNING):
            self._attempted(line)
            return
        reader = READERS.get(line.daemon)
        if reader is not None:
            reader(self, line, at)

    def finished(self) -> Iterator[Message]:
        """Yield and drop the messages that no later log line can concern."""
        return self._underway.finished()

    def rest(self) -> Iterator[Message]:
        """Yield the messages that are left at the end of the log."""
        return self._underway.rest()

    def held(self, queue_ids: Collection[str]) -> None:
        """Mark messages in Postfix's queue as accepted: qmgr(8) logs none on hold."""
        for each in queue_ids:
            if self._underway.taken(each) is not None:
                self._underway.accept(each)

    # --- smtpd(8), qmqpd(8), pickup(8) ------------------------------------------------

    def _smtpd(self, line: Line, at: float) -> None:
        text = line.text
        if text.startswith(CLIENT):
            if line.queue_id != logline.NO_QUEUE_ID:  # else: smtpd_proxy_filter
                self._came(line, at)
        elif text.startswith(ACTIONS) or text.startswith(DISCARDS):
            message = self._underway.taken(line.queue_id)
            if message is None:
                self._said[line.pid] = text
            else:
                self._told(message, text)

    def _came(self, line: Line, at: float) -> None:
        """Read ``client=localhost[127.0.0.1], orig_queue_id=…``: a new queue file."""
        self._forget(line.queue_id)
        if line.service.endswith(OWN):
            self.capsules.begin(line.queue_id)
        else:
            self._by_smtp(line, at)

    def _by_smtp(self, line: Line, at: float) -> None:
        message = self._begin(line, at)
        message.of_port = line.service.endswith(HANDBACK)
        client, _, rest = line.text.partition(ORIGIN)
        message.origin = rest.partition(",")[0]
        message.local = not message.of_port and relays.is_here(client)
        said = self._said.pop(line.pid, "")
        message.unsure = said.startswith(DISCARDS)
        self._told(message, said)
        if message.of_port:
            self._underway.handed_in(message)
        else:
            self._underway.link(message.origin, message.queue_id)

    def _begin(self, line: Line, at: float) -> Message:
        message = Message(line.queue_id, at, line.service, line.daemon, line.pid)
        self._underway.begin(message)
        return message

    def _forget(self, queue_id: str) -> None:
        """Forget an earlier queue file with this id: short ids are reused."""
        self._before.discard(queue_id)
        self.capsules.removed(queue_id)

    def _pickup(self, line: Line, at: float) -> None:
        found = PICKED_UP.fullmatch(line.text)
        if found is None:
            return
        old = found.group(1)
        if old is None:
            self._forget(line.queue_id)
            self._begin(line, at).local = True
        elif not self._rename(old, line.queue_id):
            self._unknown(line.queue_id)

    # --- cleanup(8), qmgr(8), postsuper(1) --------------------------------------------

    def _cleanup(self, line: Line, at: float) -> None:
        text, queue_id = line.text, line.queue_id
        message = self._underway.at_cleanup(queue_id)
        if message is None:
            if text.startswith(MESSAGE_ID):
                if not self.capsules.identify(queue_id, text):
                    self.capsules.begin(queue_id)
        elif text.startswith(MESSAGE_ID):
            self._underway.identify(message, text)
        elif text.startswith(REJECTS):
            self._underway.refuse(queue_id)
        else:
            self._told(message, text)

    def _told(self, message: Message, text: str) -> None:
        """Note which action matched a message."""
        if text.startswith(ACTIONS):
            message.action = text
        elif text.startswith(DISCARDS):
            message.discarded = text
            self._underway.discard(message)

    def _qmgr(self, line: Line, at: float) -> None:
        queue_id, text = line.queue_id, line.text
        if text == "removed":
            self._forget(queue_id)
            self._underway.close(queue_id)
        elif self._underway.taken(queue_id) is not None:
            found = QUEUED.fullmatch(text)
            if found is not None:
                message = self._underway.accept(queue_id)
                message.sender = found.group(1)
                message.recipients = int(found.group(2))
        elif GONE.fullmatch(text):
            self.capsules.expired(queue_id)
            self._end(queue_id, accepted.EXPIRED)
        elif self._underway.open(queue_id) is None and not self.capsules.has(queue_id):
            self._unknown(queue_id)

    def _unknown(self, queue_id: str) -> None:
        """Count a message that was queued before the log begins, unless renamed."""
        if queue_id in self._before:
            return
        if not self._renames or not self._rename(self._former(queue_id), queue_id):
            self._before.add(queue_id)
            self.before += 1

    def _former(self, queue_id: str) -> str:
        """Return the known queue id that a file had before, "" if there is none."""
        new = queue_id.encode()
        known = (*self._underway.names, *self.capsules.names)
        return next((e for e in known if queueid.is_same(e.encode(), new)), "")

    def _rename(self, old: str, new: str) -> bool:
        return self.capsules.rename(old, new) or self._underway.rename(old, new)

    def _postsuper(self, line: Line, at: float) -> None:
        if line.text not in BY_POSTSUPER:
            return
        self.held([line.queue_id])
        if line.text == "removed":
            self.capsules.deleted(line.queue_id)
            self._end(line.queue_id, accepted.DELETED)
            self._forget(line.queue_id)
            self._underway.close(line.queue_id)

    def _end(self, queue_id: str, how: str) -> None:
        message = self._underway.open(queue_id)
        if message is not None and not message.root.stamped:
            message.root.ended = how

    # --- delivery agents --------------------------------------------------------------

    def _attempted(self, line: Line) -> None:
        if self.capsules.has(line.queue_id):
            self.capsules.attempted(line.queue_id, line.text)
            return
        message = self._underway.known(line.queue_id)  # may be deleted already
        if message is None or not self._tells(message.root, line):
            return
        attempt = delivery.read(line.text)
        if attempt is None:
            self.not_understood += relays.names_stamp(line.text)
        elif relays.is_stamp(attempt.relay):
            self._stamped(message, attempt)
        else:
            self._went(message, line, attempt)

    def _tells(self, message: Message, line: Line) -> bool:
        """Return whether an attempt can tell anything new: parsing is expensive."""
        if not message.stamped and not message.went or relays.names_stamp(line.text):
            return True
        return bool(self._filters) and (not message.filtered or QUEUED_AS in line.text)

    def _stamped(self, message: Message, attempt: Attempt) -> None:
        """Read the stamp filter's output: ``archived as ID; queued as QUEUE_ID``."""
        self._underway.part(message)
        first = message.root
        if message.into is None:
            key = (message.service, message.daemon, message.pid)
            self.led[key] = self._underway.now
        if attempt.status != "sent":
            first.tried = True
            return
        _, by_pipe, said = attempt.reply.partition(SAID)
        said = said.removesuffix(")") if by_pipe else attempt.reply
        first.stamped = True
        first.ended = ""
        for archive_id in ARCHIVED_AS.findall(said):
            first.archived_as(archive_id)
        given = HANDED_BACK.search(said)
        if given is not None:
            self._underway.link(message.queue_id, given.group(1))
        if by_pipe and len(said.encode("utf-8", "surrogateescape")) >= SAID_LIMIT:
            first.cut = True
            self._underway.claim_handed_in(message.queue_id)

    def _went(self, message: Message, line: Line, attempt: Attempt) -> None:
        first = message.root
        is_told = attempt.relay != NONE or attempt.status == "bounced"
        if is_told and not first.stamped:
            first.went = first.went or attempt.relay
        if attempt.status in PROBED:
            message.accepted = False
        if attempt.status != "sent":
            return
        filtered = any(relays.is_same(each, attempt.relay) for each in self._filters)
        if filtered:
            self._underway.filtered(message)
        if attempt.queued_as and (filtered or relays.is_here(attempt.relay)):
            self._underway.link(message.queue_id, attempt.queued_as)

    def _is_ours(self, service: str) -> bool:
        return service in self._names or service.startswith(self._begins)


READERS: dict[str, Callable[[Reconciling, Line, float], None]] = {
    "smtpd": Reconciling._smtpd,
    "qmqpd": Reconciling._smtpd,
    "pickup": Reconciling._pickup,
    "cleanup": Reconciling._cleanup,
    "qmgr": Reconciling._qmgr,
    "postsuper": Reconciling._postsuper,
}
