"""The pipe(8) doors: one process a message, for both transports.

Started by front/launcher. Reads argv as pipe(8) makes it from our master.cf entries
and stdin to its end, prints one line and returns the exit code. There are only two:
0 (done, durably) and 75 (try again later), since pipe(8) bounces on nearly all others;
master.cf.d has soft_bounce=yes besides.
"""

from __future__ import annotations

import posix as os
import time
from _signal import SIGALRM, alarm, signal

from postfix_archive.back import config, keeping, spool
from postfix_archive.core import settings
from postfix_archive.core.envelope import CLIENT_FIELDS, Client, Recipient
from postfix_archive.core.errors import ArchiveError, ArgumentsWrong, DeadlineOver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from postfix_archive.back.spool import Spool
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.settings import Settings
    from postfix_archive.front.through import Through

DEFER = 75  # EX_TEMPFAIL, sysexits(3)
UNKNOWN = b"unknown"  # what Postfix says of a client that it does not know
TEXT_LIMIT = 900  # bytes: the log line stays one line, also behind syslog(3)


class Run:
    """What a door needs for one message: pipe(8)'s words, settings, keys, the time."""

    __slots__ = ("keys", "line", "macros", "message", "now", "recipients", "settings")

    # What pipe(8) does not say, and lmtp(8) does.
    ret = b""
    smtputf8 = False
    local: bool | None = None

    def __init__(self, arguments: list[bytes]) -> None:
        self.macros, self.recipients = parse(arguments)
        given = config.path(self.macros[b"config-directory"]) or None
        self.settings: Settings = config.load(config.directory(given))
        set_deadline(self.settings.archive_time_limit)
        self.keys: Keyring = config.keys(self.settings)
        self.now = int(time.time())
        self.line = keeping.Line(keeps=False)
        self.message: Spool = spool.read(0, self.settings.archive_spool_directory)

    def port(self, name: bytes) -> tuple[str, int]:
        """The internal port of that name: this service's own, else archive.cf's."""
        given = self.macros[name].decode("ascii", "replace")
        if given:
            return settings.port(given, f"--{name.decode()} {given} in master.cf")
        setting = f"archive_{name.decode().replace('-', '_')}"
        found: tuple[str, int] = getattr(self.settings, setting)
        return found

    @property
    def through(self) -> Through:
        """The way straight into the store."""
        from postfix_archive.front.through import Through  # not for all runs

        return Through(self.settings, self.keys)

    @property
    def client(self) -> Client:
        """Who gave the message to Postfix, as far as pipe(8) knows."""
        return Client(**{name: self.macros[_option(name)] for name, _ in CLIENT_FIELDS})


def main(door: Callable[[Run], str], arguments: list[bytes]) -> int:
    """Run one door for one message, print one line, return 0 or 75."""
    try:
        line, code = door(Run(arguments)), 0
    except ArchiveError as error:
        line, code = f"{error.dsn} {_place(arguments)}{named(error)}", DEFER
    except MemoryError:
        line, code = f"4.3.1 {_place(arguments)}out of memory", DEFER
    os.write(1, line.encode("utf-8", "replace")[:TEXT_LIMIT] + b"\n")
    return code


def parse(arguments: list[bytes]) -> tuple[dict[bytes, bytes], tuple[Recipient, ...]]:
    """Return pipe(8)'s macros and the recipients.

    Behind ``--`` stand all recipients, then as many original recipients. Raises
    ArgumentsWrong for what master.cf.d could not have made.
    """
    macros = dict.fromkeys(OPTIONS, b"")
    words = iter(arguments)
    for word in words:
        if word == b"--":
            return macros, _paired(list(words))
        name = word[2:]
        value = next(words, None)
        if not word.startswith(b"--") or name not in macros or value is None:
            shown = word[:40].decode("utf-8", "replace")
            raise ArgumentsWrong(
                f"{shown!r} is no option of this command, or lacks its value: compare"
                " the argv= of this service with the one in master.cf.d"
            )
        macros[name] = known(name, value)
    return macros, ()


def known(name: bytes, value: bytes) -> bytes:
    """Return a macro's value; nothing where Postfix says of a client: unknown."""
    return b"" if name.startswith(b"client-") and value == UNKNOWN else value


def _option(name: str) -> bytes:
    """The option for one fact about the client, named after pipe(8)'s macro."""
    macro = name if name.startswith("sasl_") else f"client_{name}"
    return macro.replace("_", "-").encode()


OPTIONS = (
    b"config-directory",
    b"envid",
    b"handback-address",
    b"nexthop",
    b"queue-id",
    b"refused-address",
    b"sender",
    *(_option(name) for name, _ in CLIENT_FIELDS),
)


def _paired(addresses: list[bytes]) -> tuple[Recipient, ...]:
    half = len(addresses) // 2
    if len(addresses) != 2 * half:
        raise ArgumentsWrong(
            "the recipients and the original recipients are not of one number: compare"
            " the argv= of this service with the one in master.cf.d"
        )
    return tuple(map(Recipient, addresses[:half], addresses[half:]))


def set_deadline(seconds: int) -> None:
    """Give up in time: pipe(8) bounces what overruns its own command_time_limit."""

    def give_up(*_: object) -> None:
        raise DeadlineOver(
            f"not done within archive_time_limit = {seconds}s; what holds it up, the"
            " disk or one of the internal ports?"
        )

    signal(SIGALRM, give_up)
    alarm(seconds)


def _place(arguments: list[bytes]) -> str:
    """Name the message in a line for the log."""
    for option, value in zip(arguments, arguments[1:]):
        if option == b"--queue-id":
            return f"queue id {value.decode('utf-8', 'replace')}: "
    return ""


def named(error: Exception) -> str:
    """Return what went wrong as one line, the class first."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
