"""Pipe mode: pipe(8) starts one process a message, for both transports.

Used by intake/launcher. Parses the arguments that pipe(8) makes of our master.cf
entries, reads stdin to its end, prints one line and returns an exit code: 0 when the
message is done durably, else 75 (EX_TEMPFAIL). There is no third, since pipe(8) bounces
on nearly every other code; master.cf.d sets soft_bounce=yes as well.
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
UNKNOWN = b"unknown"  # Postfix's value for a client attribute that it does not know
TEXT_LIMIT = 900  # bytes: syslog(3) then keeps the log line whole


class Run:
    """One message from Postfix: pipe(8)'s macros, the content, settings, keys, time."""

    __slots__ = ("keys", "line", "macros", "message", "now", "recipients", "settings")

    # Attributes that lmtp(8) sends and pipe(8) has no macro for.
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
        """Host and port of an internal service: from master.cf, else archive.cf."""
        given = self.macros[name].decode("ascii", "replace")
        if given:
            return settings.port(given, f"--{name.decode()} {given} in master.cf")
        setting = f"archive_{name.decode().replace('-', '_')}"
        found: tuple[str, int] = getattr(self.settings, setting)
        return found

    @property
    def through(self) -> Through:
        """Write-through to the store."""
        # Imported here: not every message is written through.
        from postfix_archive.front.through import Through

        return Through(self.settings, self.keys)

    @property
    def client(self) -> Client:
        """The client that sent the message to Postfix, as far as pipe(8) knows it."""
        return Client(**{name: self.macros[_option(name)] for name, _ in CLIENT_FIELDS})


def main(door: Callable[[Run], str], arguments: list[bytes]) -> int:
    """Handle one message, print one line for Postfix's log, return 0 or 75."""
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

    After ``--`` come all recipients, then the same number of original recipients.
    Raises ArgumentsInvalid for arguments that master.cf.d does not produce.
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
                f"unknown option, or option without a value: {shown!r}; compare the"
                " argv= of this service with master.cf.d"
            )
        macros[name] = known(name, value)
    return macros, ()


def known(name: bytes, value: bytes) -> bytes:
    """Return a macro's value; empty for a client attribute that is ``unknown``."""
    return b"" if name.startswith(b"client-") and value == UNKNOWN else value


def _option(name: str) -> bytes:
    """Return the option for a field of Client, named after pipe(8)'s macro."""
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
            "the numbers of recipients and original recipients differ; compare the"
            " argv= of this service with master.cf.d"
        )
    return tuple(map(Recipient, addresses[:half], addresses[half:]))


def set_deadline(seconds: int) -> None:
    """Raise DeadlineExceeded after seconds.

    That must come before pipe(8)'s own command_time_limit, after which it bounces.
    """

    def give_up(*_: object) -> None:
        raise DeadlineOver(
            f"archive_time_limit = {seconds}s exceeded; check the disks and the"
            " internal ports"
        )

    signal(SIGALRM, give_up)
    alarm(seconds)


def _place(arguments: list[bytes]) -> str:
    """Return the queue id as the beginning of a log line, "" without one."""
    for option, value in zip(arguments, arguments[1:]):
        if option == b"--queue-id":
            return f"queue id {value.decode('utf-8', 'replace')}: "
    return ""


def named(error: Exception) -> str:
    """Return an exception as one line: class, then text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
