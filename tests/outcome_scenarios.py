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

from mail_network import LIST_ADDRESS, LIST_MEMBERS, MailNetwork

from mails import mail
from private_postfix import WITHOUT_WRITE_THROUGH

DELIVERED, RELAYED, EXPANDED, FAILED = "delivered", "relayed", "expanded", "failed"
EXPIRED, DISCARDED, DELETED, WAITING = "expired", "discarded", "deleted", "waiting"
NEXT_FILTER = "archive_next_filter"  # native mode: content_filter
ARRIVES = (DELIVERED, RELAYED)


@dataclass(frozen=True)
class ExpectedOutcome:
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
    arrivals: int | None = None
    can_be_waiting: bool = False


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
    settings_after: dict[str, str] = field(default_factory=dict)
    has_capsules: bool = False
    scanner: str = ""  # which of the world's scanners is the next filter


PLAIN = Group("plain")
EXPIRING = Group("expiring", {"maximal_queue_lifetime": "2s"})
BEFORE_CAPTURE = Group(
    "uncaught",
    {"defer_transports": "archive-stamp archive-capture"},
    {},
    {"defer_transports": ""},
)
BEFORE_STORE = Group(
    "unkept", {"defer_transports": "archive"}, {}, {"defer_transports": ""}, True
)
XFORWARD_FILTER = Group("told", scanner="told")
QUEUE_ID_FILTER = Group("passed", scanner="passed")
SILENT_FILTER = Group("silent", scanner="silent")
PIPE_FILTER = Group(
    "by pipe",
    {NEXT_FILTER: "scanpipe:"},
    {"pickup/unix/content_filter": ""},
)
GROUPS = (
    EXPIRING,
    PLAIN,
    BEFORE_CAPTURE,
    BEFORE_STORE,
    XFORWARD_FILTER,
    QUEUE_ID_FILTER,
    SILENT_FILTER,
    PIPE_FILTER,
)


@dataclass(frozen=True)
class Scenario:
    """One message and what becomes of it."""

    name: str
    expected_outcomes: tuple[ExpectedOutcome, ...]
    to: tuple[str, ...] = ()  # where not those of truths that have no parent
    group: Group = PLAIN
    sender: str = "alice@example.org"
    header: str = ""
    is_by_sendmail: bool = False
    is_archived: bool = True
    is_split: bool = False  # by a content filter: in native mode two records
    is_kept: bool = False  # by a content filter: in native mode the archive is behind
    act: Callable[[MailNetwork], None] = lambda world: None

    @property
    def recipients(self) -> tuple[str, ...]:
        """Whom it is sent to."""
        top_level = (
            each.recipient for each in self.expected_outcomes if not each.parent
        )
        return self.to or tuple(top_level)

    @property
    def content(self) -> bytes:
        """The message."""
        return self.header.encode() + mail(self.name)


def relayed(local_part: str, tries: int = 1, **fields: object) -> ExpectedOutcome:
    """Accepted by the remote side."""
    address = f"{local_part}@far.example.net"
    return ExpectedOutcome(
        address, RELAYED, "2.0.0", "{far}", tries, **fields  # type: ignore
    )


def refused(
    local_part: str, status: str = "5.1.1", **fields: object
) -> ExpectedOutcome:
    """Refused by the remote side."""
    address = f"{local_part}@far.example.net"
    return ExpectedOutcome(address, FAILED, status, "{far}", **fields)  # type: ignore


def in_mailbox(user: str, **fields: object) -> ExpectedOutcome:
    """In a mailbox of this host, by local(8)."""
    address = f"{user}@here.example.com"
    return ExpectedOutcome(
        address, DELIVERED, "2.0.0", "local", **fields  # type: ignore
    )


def expanded(recipient: str, *children: ExpectedOutcome) -> tuple[ExpectedOutcome, ...]:
    """A recipient with several in its place."""
    addresses = tuple(each.recipient for each in children)
    return (
        ExpectedOutcome(recipient, EXPANDED, tries=0, expanded_to=addresses),
        *children,
    )


def mapped(recipient: str, to: str, kind: str, **fields: object) -> ExpectedOutcome:
    """A recipient with one other in its place: it is that one's outcome."""
    return ExpectedOutcome(
        recipient, kind, expanded_to=(to,), arrivals=0, **fields  # type: ignore
    )


# --- what the postmaster does ---------------------------------------------------------


def accept_when_deferred(local_part: str) -> Callable[[MailNetwork], None]:
    """The remote side accepts it once it has put it off."""

    def act(network: MailNetwork) -> None:
        network.wait_for_queued(f"{local_part}@far.example.net")
        network.remote.accept(local_part)

    return act


def postsuper_when_queued(
    option: str,
    recipient: str,
    *,
    is_accepted_then: bool = False,
    queue: str = "deferred",
) -> Callable[[MailNetwork], None]:
    """postsuper(1) with that option; then the remote side accepts it, if opened."""

    def act(network: MailNetwork) -> None:
        network.postsuper(option, network.wait_for_queued(recipient, queue))
        if option == "-h":
            network.wait_for_queued(recipient, "hold")
        if is_accepted_then:
            network.remote.accept(recipient.partition("@")[0])

    return act


def hold_and_release(
    recipient: str, *, is_accepted_then: bool = False
) -> Callable[[MailNetwork], None]:
    """postsuper -h, and -H once it is on hold."""

    def act(network: MailNetwork) -> None:
        postsuper_when_queued("-h", recipient, is_accepted_then=is_accepted_then)(
            network
        )
        postsuper_when_queued("-H", recipient, queue="hold")(network)

    return act


def postsuper_capsules(option: str) -> Callable[[MailNetwork], None]:
    """postsuper(1) with that option on every capsule that waits."""

    def act(network: MailNetwork) -> None:
        capsule = "capsule@archive-request.invalid"
        postsuper_when_queued(option, capsule)(network)
        if option == "-h":
            postsuper_when_queued("-H", capsule, queue="hold")(network)

    return act


def in_sequence(
    first: Callable[[MailNetwork], None], second: Callable[[MailNetwork], None]
) -> Callable[[MailNetwork], None]:
    """One after the other."""

    def act(network: MailNetwork) -> None:
        first(network)
        second(network)

    return act


REMOTE_DOMAIN = "far.example.net"
LOCAL_DOMAIN = "here.example.com"

SCENARIOS = (
    # --- each transport ---------------------------------------------------------------
    Scenario("accepted", (relayed("yes-accepted"),)),
    Scenario("by sendmail", (relayed("yes-sendmail"),), is_by_sendmail=True),
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
            in_mailbox("daemon+mixed"),
        ),
    ),
    Scenario(
        "hung up",
        (ExpectedOutcome("yes@hangup.example.net", WAITING, "4.4.2", "{hangup}", 0),),
    ),
    Scenario(
        "softly refused",
        (ExpectedOutcome("no-soft@soft.example.net", WAITING, "", "{far}", 0),),
    ),
    Scenario("in a mailbox", (in_mailbox("daemon+one"), in_mailbox("www-data"))),
    Scenario(
        "no such user",
        (ExpectedOutcome(f"nobody-here@{LOCAL_DOMAIN}", FAILED, "5.1.1", "local"),),
    ),
    Scenario(
        "virtual mailbox",
        (
            ExpectedOutcome("known@box.example.com", DELIVERED, "2.0.0", "virtual"),
            ExpectedOutcome("unknown@box.example.com", FAILED, "5.1.1", "virtual"),
        ),
    ),
    Scenario(
        "by LMTP",
        (
            ExpectedOutcome("box@lmtp.example.net", DELIVERED, "2.1.5", "{lmtp}"),
            ExpectedOutcome("gone-box@lmtp.example.net", FAILED, "5.1.1", "{lmtp}"),
            ExpectedOutcome("full-box@lmtp.example.net", WAITING, "4.2.2", "{lmtp}", 0),
        ),
    ),
    Scenario(
        "thrown away by a transport",
        (ExpectedOutcome("any@discard.example.com", DISCARDED, "2.0.0", "none"),),
    ),
    Scenario(
        "error transport",
        (ExpectedOutcome("any@error.example.com", FAILED, "5.1.2", "none"),),
    ),
    Scenario(
        "retry transport",
        (ExpectedOutcome("any@retry.example.com", WAITING, "4.3.2", "none", 0),),
    ),
    # --- expansion --------------------------------------------------------------------
    Scenario(
        "alias to three",
        expanded(
            f"three@{LOCAL_DOMAIN}",
            in_mailbox("daemon+three", parent=f"three@{LOCAL_DOMAIN}"),
            relayed("yes-three", parent=f"three@{LOCAL_DOMAIN}"),
            refused("no-three", parent=f"three@{LOCAL_DOMAIN}"),
        ),
    ),
    Scenario(
        "alias of an alias",
        expanded(
            f"nested@{LOCAL_DOMAIN}",
            in_mailbox("daemon+nested", parent=f"nested@{LOCAL_DOMAIN}"),
            in_mailbox("backup+nested", parent=f"nested@{LOCAL_DOMAIN}"),
            relayed("yes-nested", parent=f"nested@{LOCAL_DOMAIN}"),
        ),
    ),
    Scenario("to a command", (in_mailbox("run"),)),
    Scenario(
        "to a command that fails",
        (ExpectedOutcome(f"broken@{LOCAL_DOMAIN}", FAILED, "5.1.1", "local"),),
    ),
    Scenario(
        "virtual alias to three",
        expanded(
            "trio@alias.example.com",
            relayed("yes-trio", parent="trio@alias.example.com"),
            refused("no-trio", parent="trio@alias.example.com"),
            ExpectedOutcome(
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
                f"yes-solo@{REMOTE_DOMAIN}",
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
                f"games@{LOCAL_DOMAIN}",
                f"backup+games@{LOCAL_DOMAIN}",
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
                f"news@{LOCAL_DOMAIN}",
                f"yes-news@{REMOTE_DOMAIN}",
                RELAYED,
                status="2.0.0",
                remote="{far}",
            ),
        ),
    ),
    Scenario(
        "forward that is refused",
        (
            mapped(
                f"lp@{LOCAL_DOMAIN}",
                f"no-lp@{REMOTE_DOMAIN}",
                FAILED,
                status="5.1.1",
                remote="{far}",
            ),
        ),
    ),
    Scenario(
        "forward that keeps a copy",
        (
            ExpectedOutcome(
                f"irc@{LOCAL_DOMAIN}",
                EXPANDED,
                tries=0,
                expanded_to=(f"irc@{LOCAL_DOMAIN}", f"yes-irc@{REMOTE_DOMAIN}"),
                arrivals=1,
            ),
            in_mailbox("irc", parent=f"irc@{LOCAL_DOMAIN}"),
            relayed("yes-irc", parent=f"irc@{LOCAL_DOMAIN}"),
        ),
        to=(f"irc@{LOCAL_DOMAIN}",),
    ),
    Scenario(
        "mailing list",
        (
            ExpectedOutcome(LIST_ADDRESS, DELIVERED, "2.0.0", "lists", arrivals=0),
            ExpectedOutcome(LIST_MEMBERS[0], RELAYED, "2.0.0", "{far}"),
            ExpectedOutcome(LIST_MEMBERS[1], DELIVERED, "2.0.0", "local"),
        ),
        to=(LIST_ADDRESS,),
    ),
    # --- the postmaster ---------------------------------------------------------------
    Scenario(
        "put off, then accepted",
        (relayed("gate-open", tries=0),),
        act=accept_when_deferred("gate-open"),
    ),
    Scenario(
        "deleted",
        (
            ExpectedOutcome(f"gate-deleted@{REMOTE_DOMAIN}", DELETED, "", "{far}", 0),
            relayed("yes-kept"),
        ),
        act=postsuper_when_queued("-d", f"gate-deleted@{REMOTE_DOMAIN}"),
    ),
    Scenario(
        "expired by hand",
        (ExpectedOutcome(f"gate-force@{REMOTE_DOMAIN}", EXPIRED, "", "{far}", 0),),
        act=postsuper_when_queued("-e", f"gate-force@{REMOTE_DOMAIN}"),
    ),
    Scenario(
        "requeued",
        (relayed("gate-requeued", tries=0), relayed("yes-requeued")),
        act=postsuper_when_queued(
            "-r", f"gate-requeued@{REMOTE_DOMAIN}", is_accepted_then=True
        ),
    ),
    Scenario(
        "held and released",
        (relayed("gate-held", tries=0),),
        act=hold_and_release(f"gate-held@{REMOTE_DOMAIN}", is_accepted_then=True),
    ),
    Scenario(
        "still on hold",
        (
            ExpectedOutcome(f"gate-holding@{REMOTE_DOMAIN}", WAITING, "", "", 0),
            relayed("yes-holding"),
        ),
        act=postsuper_when_queued("-h", f"gate-holding@{REMOTE_DOMAIN}"),
    ),
    Scenario(
        "on hold at the door",
        (relayed("yes-door"),),
        sender="hold@example.org",
        act=postsuper_when_queued("-H", f"yes-door@{REMOTE_DOMAIN}", queue="hold"),
    ),
    Scenario(
        "thrown away at the door",
        (),
        to=(f"yes-thrown@{REMOTE_DOMAIN}",),
        sender="throw@example.org",
        is_archived=False,
    ),
    Scenario(
        "expired",
        (
            ExpectedOutcome(f"gate-expired@{REMOTE_DOMAIN}", EXPIRED, "", "{far}", 0),
            relayed("yes-lively"),
        ),
        group=EXPIRING,
    ),
    # --- before the capture, and before the copy is kept ------------------------------
    Scenario(
        "held before capture",
        (relayed("yes-early-held"),),
        group=BEFORE_CAPTURE,
        act=hold_and_release(f"yes-early-held@{REMOTE_DOMAIN}"),
    ),
    Scenario(
        "requeued before capture",
        (relayed("yes-early-requeued"), refused("no-early-requeued")),
        group=BEFORE_CAPTURE,
        act=postsuper_when_queued("-r", f"yes-early-requeued@{REMOTE_DOMAIN}"),
    ),
    Scenario(
        "deleted before capture",
        (),
        to=(f"yes-early-deleted@{REMOTE_DOMAIN}",),
        group=BEFORE_CAPTURE,
        is_archived=False,
        act=postsuper_when_queued("-d", f"yes-early-deleted@{REMOTE_DOMAIN}"),
    ),
    Scenario(
        "capsule held, then requeued",
        (relayed("yes-capsule"), refused("no-capsule")),
        group=BEFORE_STORE,
        act=in_sequence(postsuper_capsules("-h"), postsuper_capsules("-r")),
    ),
    # --- content filters --------------------------------------------------------------
    Scenario(
        "filtered",
        (relayed("yes-told"), refused("no-told"), in_mailbox("daemon+told")),
        group=XFORWARD_FILTER,
    ),
    Scenario(
        "filtered in two",
        (relayed("yes-split"), refused("no-split")),
        header="X-Split: yes\n",
        is_split=True,
        group=XFORWARD_FILTER,
    ),
    Scenario(
        "filtered and put off",
        (relayed("later-told", tries=0), relayed("yes-told-too")),
        group=XFORWARD_FILTER,
    ),
    Scenario(
        "kept by the filter",
        (
            ExpectedOutcome(
                f"yes-spam@{REMOTE_DOMAIN}", DISCARDED, "", "", 0, can_be_waiting=True
            ),
        ),
        header="X-Spam: yes\n",
        is_kept=True,
        group=XFORWARD_FILTER,
    ),
    Scenario(
        "thrown away behind the filter",
        (
            ExpectedOutcome(
                f"yes-away@{REMOTE_DOMAIN}", DISCARDED, "", "", 0, can_be_waiting=True
            ),
        ),
        header="X-Throw: away\n",
        is_kept=True,
        group=XFORWARD_FILTER,
    ),
    Scenario(
        "filtered, passed on",
        (relayed("yes-passed"), refused("no-passed"), in_mailbox("daemon+passed")),
        group=QUEUE_ID_FILTER,
    ),
    Scenario(
        "filtered, passed on and expanded",
        (
            mapped(
                "solo+passed@alias.example.com",
                f"yes-solo+passed@{REMOTE_DOMAIN}",
                RELAYED,
                status="2.0.0",
                remote="{far}",
            ),
        ),
        group=QUEUE_ID_FILTER,
    ),
    Scenario(
        "filtered in silence",
        (relayed("yes-silent"), refused("no-silent"), in_mailbox("daemon+silent")),
        group=SILENT_FILTER,
    ),
    Scenario(
        "filtered by a pipe",
        (relayed("yes-pipe"), refused("no-pipe"), in_mailbox("daemon+pipe")),
        group=PIPE_FILTER,
    ),
)


# Without those in which a message waits for the stamp filter, or for the store; and a
# filter that gives back by sendmail(1) is one that native mode cannot have: pickup(8)
# would capture again (the installer refuses it).
NATIVE_GROUPS = tuple(
    each for each in GROUPS if each not in (BEFORE_CAPTURE, BEFORE_STORE, PIPE_FILTER)
)


def scenarios_of(group: Group) -> list[Scenario]:
    """Return the scenarios of a group."""
    return [each for each in SCENARIOS if each.group.name == group.name]


# --- playing them ---------------------------------------------------------------------

DEFAULTS = {"maximal_queue_lifetime": "5d"}


def play(
    network: MailNetwork,
    group: Group,
    at_end: Callable[[Group], None] = lambda group: None,
) -> None:
    """Send the messages of a group, do what is to be done, and wait for the end.

    ``at_end`` is called then, while the group's settings still hold.
    """
    scenarios = scenarios_of(group)
    expected = network.queued_recipients() | set(waiting_recipients(scenarios))
    settings = _settings(network, group)
    network.set_archive_cf(**(WITHOUT_WRITE_THROUGH if group.has_capsules else {}))
    _configure(network, settings, group.services)
    for scenario in scenarios:
        send = network.sendmail if scenario.is_by_sendmail else network.send
        send(scenario.content, sender=scenario.sender, to=scenario.recipients)
    for scenario in scenarios:
        scenario.act(network)
    _configure(network, group.settings_after, {})
    network.flush()
    network.wait(
        lambda: network.queued_recipients() == expected,
        f"{group.name}: {expected} are left",
    )
    at_end(group)
    defaults = {name: DEFAULTS.get(name, "") for name in settings}
    _configure(network, defaults, dict.fromkeys(group.services))


def waiting_recipients(scenarios: Iterable[Scenario]) -> list[str]:
    """Return the recipients that are to wait in the queue."""
    outcomes = (outcome for each in scenarios for outcome in each.expected_outcomes)
    return [each.recipient for each in outcomes if each.kind == WAITING]


def _settings(network: MailNetwork, group: Group) -> dict[str, str]:
    settings = dict(group.settings)
    if group.scanner:
        port = network.scanners[group.scanner].port
        settings[NEXT_FILTER] = f"scan:[127.0.0.1]:{port}"
    if network.is_native and NEXT_FILTER in settings:
        settings["content_filter"] = settings.pop(NEXT_FILTER)
    return settings


def _configure(
    network: MailNetwork, settings: dict[str, str], services: Mapping[str, str | None]
) -> None:
    if not settings and not services:
        return
    network.postconf(**settings)
    for name, value in services.items():
        network.set_service(name, value)
    network.reload()


# --- comparing ------------------------------------------------------------------------


def has_arrived(
    network: MailNetwork, scenario: Scenario, expected: ExpectedOutcome
) -> bool:
    """Tell whether the message is found where the truth says, and as often."""
    default = int(expected.kind in ARRIVES)
    arrivals = default if expected.arrivals is None else expected.arrivals
    return network.count_arrivals(scenario.name, expected.recipient) == arrivals


def differences(
    network: MailNetwork,
    expected: ExpectedOutcome,
    events: Iterable[Mapping[str, object]],
) -> list[str]:
    """Say in what the journal's outcomes of a recipient are not the truth."""
    outcomes = [
        event
        for event in events
        if event["recipient"] == expected.recipient
        and event.get("parent", "") == expected.parent
    ]
    settled = [event for event in outcomes if event["outcome"] != WAITING]
    if expected.can_be_waiting and not settled:
        return []
    if expected.kind == WAITING:
        if settled or not outcomes:
            return [f"{expected.recipient} waits, and the journal has {outcomes}"]
        return []
    # What came back to the archive, as by postsuper -r, is captured twice.
    if not settled or len({event["of"] for event in settled}) < len(settled):
        return [
            f"{expected.recipient} is {expected.kind}, and the journal has {outcomes}"
        ]
    return [
        wrong for event in settled for wrong in _mismatches(network, expected, event)
    ]


def _mismatches(
    network: MailNetwork, expected: ExpectedOutcome, outcome: Mapping[str, object]
) -> list[str]:
    """Say in what one outcome is not the truth."""
    expected_fields = {
        "outcome": expected.kind,
        "status": expected.status,
        "remote": expected.remote.format(**network.remote_names),
        "tries": expected.tries,
    }
    mismatches = [
        f"{expected.recipient}: {name} is {value},"
        f" and the journal has {outcome.get(name)}"
        for name, value in expected_fields.items()
        if value and outcome.get(name) != value
    ]
    if set(str(outcome.get("expanded_to", "")).split()) != set(expected.expanded_to):
        mismatches.append(
            f"{expected.recipient} became {expected.expanded_to}, not as {outcome}"
        )
    return mismatches
