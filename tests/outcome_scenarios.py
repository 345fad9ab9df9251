"""What becomes of mail, as data: what is sent, what is done, and what then is true.

Each scenario has a message of its own name. ``truths`` say what became of each
recipient in the words of the journal; play() sends the messages of a group and does
what is to be done, until nothing is left in the queue but what is to wait there. A new
case needs a line in SCENARIOS. Each recipient stands in one scenario only: by it the
journal's outcomes are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from outcome_world import LIST, MEMBERS, World

from mails import mail
from private_postfix import BY_CAPSULE

DELIVERED, RELAYED, EXPANDED, FAILED = "delivered", "relayed", "expanded", "failed"
EXPIRED, DISCARDED, DELETED, WAITING = "expired", "discarded", "deleted", "waiting"
ARRIVES = (DELIVERED, RELAYED)


@dataclass(frozen=True)
class Truth:
    """What became of one recipient.

    ``status`` and ``remote`` are compared where they are given; ``{far}`` in remote is
    the remote side as Postfix's log names it. ``tries`` 0: it cannot be said how many.
    ``arrives`` is how often the message is found there, where that is no matter of
    course. ``or_waiting``: no log says for certain what became of it.
    """

    recipient: str
    kind: str
    status: str = ""
    remote: str = ""
    tries: int = 1
    expanded_to: tuple[str, ...] = ()
    parent: str = ""
    arrives: int | None = None
    or_waiting: bool = False


@dataclass(frozen=True)
class Group:
    """Scenarios that are played at once, under the same settings.

    ``settings`` are of main.cf and ``services`` of master.cf, and are taken back; what
    ``afterwards`` says holds from when all is done that is to be done on. By capsule
    copies go that are not to be in the store at once.
    """

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    afterwards: dict[str, str] = field(default_factory=dict)
    is_by_capsule: bool = False
    filter: str = ""  # which of the world's scanners is the next filter


PLAIN = Group("plain")
EXPIRING = Group("expiring", {"maximal_queue_lifetime": "2s"})
UNCAUGHT = Group(
    "uncaught", {"defer_transports": "archive-stamp"}, {}, {"defer_transports": ""}
)
UNKEPT = Group(
    "unkept", {"defer_transports": "archive"}, {}, {"defer_transports": ""}, True
)
TOLD = Group("told", filter="told")
PASSED = Group("passed", filter="passed")
SILENT = Group("silent", filter="silent")
BY_PIPE = Group(
    "by pipe",
    {"archive_next_filter": "scanpipe:"},
    {"pickup/unix/content_filter": ""},
)
GROUPS = (EXPIRING, PLAIN, UNCAUGHT, UNKEPT, TOLD, PASSED, SILENT, BY_PIPE)


@dataclass(frozen=True)
class Scenario:
    """One message and what becomes of it."""

    name: str
    truths: tuple[Truth, ...]
    to: tuple[str, ...] = ()  # where not those of truths that have no parent
    group: Group = PLAIN
    sender: str = "alice@example.org"
    header: str = ""
    by_sendmail: bool = False
    is_archived: bool = True
    act: Callable[[World], None] = lambda world: None

    @property
    def recipients(self) -> tuple[str, ...]:
        """Whom it is sent to."""
        first = (each.recipient for each in self.truths if not each.parent)
        return self.to or tuple(first)

    @property
    def content(self) -> bytes:
        """The message."""
        return self.header.encode() + mail(self.name)


def relayed(local_part: str, tries: int = 1, **more: object) -> Truth:
    """Accepted by the remote side."""
    address = f"{local_part}@far.example.net"
    return Truth(address, RELAYED, "2.0.0", "{far}", tries, **more)  # type: ignore


def refused(local_part: str, status: str = "5.1.1", **more: object) -> Truth:
    """Refused by the remote side."""
    address = f"{local_part}@far.example.net"
    return Truth(address, FAILED, status, "{far}", **more)  # type: ignore


def boxed(user: str, **more: object) -> Truth:
    """In a mailbox of this host, by local(8)."""
    address = f"{user}@here.example.com"
    return Truth(address, DELIVERED, "2.0.0", "local", **more)  # type: ignore


def expanded(recipient: str, *children: Truth) -> tuple[Truth, ...]:
    """A recipient with several in its place."""
    places = tuple(each.recipient for each in children)
    return (Truth(recipient, EXPANDED, tries=0, expanded_to=places), *children)


def mapped(recipient: str, to: str, kind: str, **more: object) -> Truth:
    """A recipient with one other in its place: it is that one's outcome."""
    return Truth(recipient, kind, expanded_to=(to,), arrives=0, **more)  # type: ignore


# --- what the postmaster does ---------------------------------------------------------


def gate_opened(local_part: str) -> Callable[[World], None]:
    """The remote side accepts it once it has put it off."""

    def act(world: World) -> None:
        world.waits(f"{local_part}@far.example.net")
        world.remote.open(local_part)

    return act


def done_with(
    option: str, recipient: str, *, opened: bool = False, queue: str = "deferred"
) -> Callable[[World], None]:
    """postsuper(1) with that option; then the remote side accepts it, if opened."""

    def act(world: World) -> None:
        world.postsuper(option, world.waits(recipient, queue))
        if option == "-h":
            world.waits(recipient, "hold")
        if opened:
            world.remote.open(recipient.partition("@")[0])

    return act


def held_and_released(
    recipient: str, *, opened: bool = False
) -> Callable[[World], None]:
    """postsuper -h, and -H once it is on hold."""

    def act(world: World) -> None:
        done_with("-h", recipient, opened=opened)(world)
        done_with("-H", recipient, queue="hold")(world)

    return act


def capsule_done_with(option: str) -> Callable[[World], None]:
    """postsuper(1) with that option on every capsule that waits."""

    def act(world: World) -> None:
        capsule = "capsule@archive-request.invalid"
        done_with(option, capsule)(world)
        if option == "-h":
            done_with("-H", capsule, queue="hold")(world)

    return act


def both(
    first: Callable[[World], None], second: Callable[[World], None]
) -> Callable[[World], None]:
    """One after the other."""

    def act(world: World) -> None:
        first(world)
        second(world)

    return act


FAR = "far.example.net"
HERE = "here.example.com"

SCENARIOS = (
    # --- each transport ---------------------------------------------------------------
    Scenario("accepted", (relayed("yes-accepted"),)),
    Scenario("by sendmail", (relayed("yes-sendmail"),), by_sendmail=True),
    Scenario("refused", (refused("no-refused"),)),
    Scenario("refused after DATA", (refused("nodata-one", "5.7.1"),)),
    Scenario(
        "refused after DATA with another's",
        (refused("nodata-two", "5.7.1"), refused("yes-innocent", "5.7.1")),
    ),
    Scenario("put off twice", (relayed("later-twice", tries=3),)),
    Scenario(
        "some of each",
        (
            relayed("yes-mixed"),
            refused("no-mixed"),
            relayed("later-mixed", tries=3),
            boxed("daemon+mixed"),
        ),
    ),
    Scenario(
        "hung up", (Truth("yes@hangup.example.net", WAITING, "4.4.2", "{hangup}", 0),)
    ),
    Scenario(
        "softly refused", (Truth("no-soft@soft.example.net", WAITING, "", "{far}", 0),)
    ),
    Scenario("in a mailbox", (boxed("daemon+one"), boxed("www-data"))),
    Scenario("no such user", (Truth(f"nobody-here@{HERE}", FAILED, "5.1.1", "local"),)),
    Scenario(
        "virtual mailbox",
        (
            Truth("known@box.example.com", DELIVERED, "2.0.0", "virtual"),
            Truth("unknown@box.example.com", FAILED, "5.1.1", "virtual"),
        ),
    ),
    Scenario(
        "by LMTP",
        (
            Truth("box@lmtp.example.net", DELIVERED, "2.1.5", "{lmtp}"),
            Truth("gone-box@lmtp.example.net", FAILED, "5.1.1", "{lmtp}"),
            Truth("full-box@lmtp.example.net", WAITING, "4.2.2", "{lmtp}", 0),
        ),
    ),
    Scenario(
        "thrown away by a transport",
        (Truth("any@discard.example.com", DISCARDED, "2.0.0", "none"),),
    ),
    Scenario(
        "error transport", (Truth("any@error.example.com", FAILED, "5.1.2", "none"),)
    ),
    Scenario(
        "retry transport",
        (Truth("any@retry.example.com", WAITING, "4.3.2", "none", 0),),
    ),
    # --- expansion --------------------------------------------------------------------
    Scenario(
        "alias to three",
        expanded(
            f"three@{HERE}",
            boxed("daemon+three", parent=f"three@{HERE}"),
            relayed("yes-three", parent=f"three@{HERE}"),
            refused("no-three", parent=f"three@{HERE}"),
        ),
    ),
    Scenario(
        "alias of an alias",
        expanded(
            f"nested@{HERE}",
            boxed("daemon+nested", parent=f"nested@{HERE}"),
            boxed("backup+nested", parent=f"nested@{HERE}"),
            relayed("yes-nested", parent=f"nested@{HERE}"),
        ),
    ),
    Scenario("to a command", (boxed("run"),)),
    Scenario(
        "to a command that fails",
        (Truth(f"broken@{HERE}", FAILED, "5.1.1", "local"),),
    ),
    Scenario(
        "virtual alias to three",
        expanded(
            "trio@alias.example.com",
            relayed("yes-trio", parent="trio@alias.example.com"),
            refused("no-trio", parent="trio@alias.example.com"),
            Truth(
                "known@box.example.com",
                DELIVERED,
                "2.0.0",
                "virtual",
                parent="trio@alias.example.com",
            ),
        ),
    ),
    Scenario(
        "virtual alias to one",
        (
            mapped(
                "solo@alias.example.com",
                f"yes-solo@{FAR}",
                RELAYED,
                status="2.0.0",
                remote="{far}",
            ),
        ),
    ),
    Scenario(
        "forward to another user",
        (
            mapped(
                f"games@{HERE}",
                f"backup+games@{HERE}",
                DELIVERED,
                status="2.0.0",
                remote="local",
            ),
        ),
    ),
    Scenario(
        "forward to elsewhere",
        (
            mapped(
                f"news@{HERE}",
                f"yes-news@{FAR}",
                RELAYED,
                status="2.0.0",
                remote="{far}",
            ),
        ),
    ),
    Scenario(
        "forward that is refused",
        (mapped(f"lp@{HERE}", f"no-lp@{FAR}", FAILED, status="5.1.1", remote="{far}"),),
    ),
    Scenario(
        "forward that keeps a copy",
        (
            Truth(
                f"irc@{HERE}",
                EXPANDED,
                tries=0,
                expanded_to=(f"irc@{HERE}", f"yes-irc@{FAR}"),
                arrives=1,
            ),
            boxed("irc", parent=f"irc@{HERE}"),
            relayed("yes-irc", parent=f"irc@{HERE}"),
        ),
        to=(f"irc@{HERE}",),
    ),
    Scenario(
        "mailing list",
        (
            Truth(LIST, DELIVERED, "2.0.0", "lists", arrives=0),
            Truth(MEMBERS[0], RELAYED, "2.0.0", "{far}"),
            Truth(MEMBERS[1], DELIVERED, "2.0.0", "local"),
        ),
        to=(LIST,),
    ),
    # --- the postmaster ---------------------------------------------------------------
    Scenario(
        "put off, then accepted",
        (relayed("gate-open", tries=0),),
        act=gate_opened("gate-open"),
    ),
    Scenario(
        "deleted",
        (Truth(f"gate-deleted@{FAR}", DELETED, "", "{far}", 0), relayed("yes-kept")),
        act=done_with("-d", f"gate-deleted@{FAR}"),
    ),
    Scenario(
        "expired by hand",
        (Truth(f"gate-force@{FAR}", EXPIRED, "", "{far}", 0),),
        act=done_with("-e", f"gate-force@{FAR}"),
    ),
    Scenario(
        "requeued",
        (relayed("gate-requeued", tries=0), relayed("yes-requeued")),
        act=done_with("-r", f"gate-requeued@{FAR}", opened=True),
    ),
    Scenario(
        "held and released",
        (relayed("gate-held", tries=0),),
        act=held_and_released(f"gate-held@{FAR}", opened=True),
    ),
    Scenario(
        "still on hold",
        (Truth(f"gate-holding@{FAR}", WAITING, "", "", 0), relayed("yes-holding")),
        act=done_with("-h", f"gate-holding@{FAR}"),
    ),
    Scenario(
        "on hold at the door",
        (relayed("yes-door"),),
        sender="hold@example.org",
        act=done_with("-H", f"yes-door@{FAR}", queue="hold"),
    ),
    Scenario(
        "thrown away at the door",
        (),
        to=(f"yes-thrown@{FAR}",),
        sender="throw@example.org",
        is_archived=False,
    ),
    Scenario(
        "expired",
        (Truth(f"gate-expired@{FAR}", EXPIRED, "", "{far}", 0), relayed("yes-lively")),
        group=EXPIRING,
    ),
    # --- before the capture, and before the copy is kept ------------------------------
    Scenario(
        "held before capture",
        (relayed("yes-early-held"),),
        group=UNCAUGHT,
        act=held_and_released(f"yes-early-held@{FAR}"),
    ),
    Scenario(
        "requeued before capture",
        (relayed("yes-early-requeued"), refused("no-early-requeued")),
        group=UNCAUGHT,
        act=done_with("-r", f"yes-early-requeued@{FAR}"),
    ),
    Scenario(
        "deleted before capture",
        (),
        to=(f"yes-early-deleted@{FAR}",),
        group=UNCAUGHT,
        is_archived=False,
        act=done_with("-d", f"yes-early-deleted@{FAR}"),
    ),
    Scenario(
        "capsule held, then requeued",
        (relayed("yes-capsule"), refused("no-capsule")),
        group=UNKEPT,
        act=both(capsule_done_with("-h"), capsule_done_with("-r")),
    ),
    # --- content filters --------------------------------------------------------------
    Scenario(
        "filtered",
        (relayed("yes-told"), refused("no-told"), boxed("daemon+told")),
        group=TOLD,
    ),
    Scenario(
        "filtered in two",
        (relayed("yes-split"), refused("no-split")),
        header="X-Split: yes\n",
        group=TOLD,
    ),
    Scenario(
        "filtered and put off",
        (relayed("later-told", tries=0), relayed("yes-told-too")),
        group=TOLD,
    ),
    Scenario(
        "kept by the filter",
        (Truth(f"yes-spam@{FAR}", DISCARDED, "", "", 0, or_waiting=True),),
        header="X-Spam: yes\n",
        group=TOLD,
    ),
    Scenario(
        "thrown away behind the filter",
        (Truth(f"yes-away@{FAR}", DISCARDED, "", "", 0, or_waiting=True),),
        header="X-Throw: away\n",
        group=TOLD,
    ),
    Scenario(
        "filtered, passed on",
        (relayed("yes-passed"), refused("no-passed"), boxed("daemon+passed")),
        group=PASSED,
    ),
    Scenario(
        "filtered, passed on and expanded",
        (
            mapped(
                "solo+passed@alias.example.com",
                f"yes-solo+passed@{FAR}",
                RELAYED,
                status="2.0.0",
                remote="{far}",
            ),
        ),
        group=PASSED,
    ),
    Scenario(
        "filtered in silence",
        (relayed("yes-silent"), refused("no-silent"), boxed("daemon+silent")),
        group=SILENT,
    ),
    Scenario(
        "filtered by a pipe",
        (relayed("yes-pipe"), refused("no-pipe"), boxed("daemon+pipe")),
        group=BY_PIPE,
    ),
)


def of_group(group: Group) -> list[Scenario]:
    """Return the scenarios of a group."""
    return [each for each in SCENARIOS if each.group.name == group.name]


# --- playing them ---------------------------------------------------------------------

DEFAULTS = {"maximal_queue_lifetime": "5d"}


def play(
    world: World, group: Group, at_end: Callable[[Group], None] = lambda group: None
) -> None:
    """Send the messages of a group, do what is to be done, and wait for the end.

    ``at_end`` is called then, while the group's settings still hold.
    """
    scenarios = of_group(group)
    wanted = world.in_queue() | set(waiting(scenarios))
    settings = _settings(world, group)
    world.set_archive_cf(**(BY_CAPSULE if group.is_by_capsule else {}))
    _set(world, settings, group.services)
    for each in scenarios:
        send = world.sendmail if each.by_sendmail else world.send
        send(each.content, sender=each.sender, to=each.recipients)
    for each in scenarios:
        each.act(world)
    _set(world, group.afterwards, {})
    world.flush()
    world.wait(lambda: world.in_queue() == wanted, f"{group.name}: {wanted} are left")
    at_end(group)
    back = {name: DEFAULTS.get(name, "") for name in settings}
    _set(world, back, dict.fromkeys(group.services))


def waiting(scenarios: Iterable[Scenario]) -> list[str]:
    """Return the recipients that are to wait in the queue."""
    truths = (truth for each in scenarios for truth in each.truths)
    return [each.recipient for each in truths if each.kind == WAITING]


def _settings(world: World, group: Group) -> dict[str, str]:
    if not group.filter:
        return group.settings
    port = world.scans[group.filter].port
    return {"archive_next_filter": f"scan:[127.0.0.1]:{port}", **group.settings}


def _set(
    world: World, settings: dict[str, str], services: Mapping[str, str | None]
) -> None:
    if not settings and not services:
        return
    world.postconf(**settings)
    for name, value in services.items():
        world.set_service(name, value)
    world.reload()


# --- comparing ------------------------------------------------------------------------


def is_there(world: World, scenario: Scenario, truth: Truth) -> bool:
    """Tell whether the message is found where the truth says, and as often."""
    usual = int(truth.kind in ARRIVES)
    wanted = usual if truth.arrives is None else truth.arrives
    return world.arrived(scenario.name, truth.recipient) == wanted


def differences(
    world: World, truth: Truth, events: Iterable[Mapping[str, object]]
) -> list[str]:
    """Say in what the journal's outcomes of a recipient are not the truth."""
    mine = [
        each
        for each in events
        if each["recipient"] == truth.recipient
        and each.get("parent", "") == truth.parent
    ]
    settled = [each for each in mine if each["outcome"] != WAITING]
    if truth.or_waiting and not settled:
        return []
    if truth.kind == WAITING:
        if settled or not mine:
            return [f"{truth.recipient} waits, and the journal has {mine}"]
        return []
    # What came back to the archive, as by postsuper -r, is captured twice.
    if not settled or len({each["of"] for each in settled}) < len(settled):
        return [f"{truth.recipient} is {truth.kind}, and the journal has {mine}"]
    return [wrong for each in settled for wrong in _wrong(world, truth, each)]


def _wrong(world: World, truth: Truth, said: Mapping[str, object]) -> list[str]:
    """Say in what one outcome is not the truth."""
    wanted = {
        "outcome": truth.kind,
        "status": truth.status,
        "remote": truth.remote.format(**world.places),
        "tries": truth.tries,
    }
    wrong = [
        f"{truth.recipient}: {name} is {value}, and the journal has {said.get(name)}"
        for name, value in wanted.items()
        if value and said.get(name) != value
    ]
    if set(str(said.get("expanded_to", "")).split()) != set(truth.expanded_to):
        wrong.append(f"{truth.recipient} became {truth.expanded_to}, not as {said}")
    return wrong
