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
from postfix_archive.core.errors import ArchiveError, ArgumentsInvalid, DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from postfix_archive.back.spool import Spool
    from postfix_archive.core.keyring import Keyring
    from postfix_archive.core.settings import Settings
    from postfix_archive.front.through import WriteThrough

DEFER = 75  # EX_TEMPFAIL, sysexits(3)
UNKNOWN_CLIENT = (
    b"unknown"  # Postfix's value for a client attribute that it does not know
)
OUTPUT_LIMIT = 900  # bytes: syslog(3) then keeps the log line whole


class Transaction:
    """One message from Postfix: pipe(8)'s macros, the content, settings, keys, time."""

    __slots__ = (
        "keys",
        "connection_cache",
        "macros",
        "message",
        "now",
        "recipients",
        "settings",
    )

    # Attributes that lmtp(8) sends and pipe(8) has no macro for.
    ret = b""
    smtputf8 = False
    is_local: bool | None = None

    def __init__(self, arguments: list[bytes]) -> None:
        self.macros, self.recipients = parse_arguments(arguments)
        config_directory = config.decode_path(self.macros[b"config-directory"]) or None
        self.settings: Settings = config.load(
            config.find_config_directory(config_directory)
        )
        set_deadline(self.settings.archive_time_limit)
        self.keys: Keyring = config.load_keys(self.settings)
        self.now = int(time.time())
        self.connection_cache = keeping.ConnectionCache(is_enabled=False)
        self.message: Spool = spool.read(0, self.settings.archive_spool_directory)

    def service_address(self, name: bytes) -> tuple[str, int]:
        """Host and port of an internal service: from master.cf, else archive.cf."""
        value = self.macros[name].decode("ascii", "replace")
        if value:
            return settings.parse_port(value, f"--{name.decode()} {value} in master.cf")
        setting = f"archive_{name.decode().replace('-', '_')}"
        address: tuple[str, int] = getattr(self.settings, setting)
        return address

    @property
    def write_through(self) -> WriteThrough:
        """Write-through to the store."""
        # Imported here: not every message is written through.
        from postfix_archive.front.through import WriteThrough

        return WriteThrough(self.settings, self.keys)

    @property
    def client(self) -> Client:
        """The client that sent the message to Postfix, as far as pipe(8) knows it."""
        return Client(
            **{name: self.macros[_client_option(name)] for name, _ in CLIENT_FIELDS}
        )


def main(handler: Callable[[Transaction], str], arguments: list[bytes]) -> int:
    """Handle one message, print one line for Postfix's log, return 0 or 75."""
    try:
        output, exit_code = handler(Transaction(arguments)), 0
    except ArchiveError as error:
        output, exit_code = (
            f"{error.dsn} {_log_prefix(arguments)}{describe_error(error)}",
            DEFER,
        )
    except MemoryError:
        output, exit_code = f"4.3.1 {_log_prefix(arguments)}out of memory", DEFER
    os.write(1, output.encode("utf-8", "replace")[:OUTPUT_LIMIT] + b"\n")
    return exit_code


def parse_arguments(
    arguments: list[bytes],
) -> tuple[dict[bytes, bytes], tuple[Recipient, ...]]:
    """Return pipe(8)'s macros and the recipients.

    After ``--`` come all recipients, then the same number of original recipients.
    Raises ArgumentsInvalid for arguments that master.cf.d does not produce.
    """
    macros = dict.fromkeys(OPTIONS, b"")
    remaining = iter(arguments)
    for argument in remaining:
        if argument == b"--":
            return macros, _pair_recipients(list(remaining))
        name = argument[2:]
        value = next(remaining, None)
        if not argument.startswith(b"--") or name not in macros or value is None:
            printable = argument[:40].decode("utf-8", "replace")
            raise ArgumentsInvalid(
                f"unknown option, or option without a value: {printable!r}; compare the"
                " argv= of this service with master.cf.d"
            )
        macros[name] = macro_value(name, value)
    return macros, ()


def macro_value(name: bytes, value: bytes) -> bytes:
    """Return a macro's value; empty for a client attribute that is ``unknown``."""
    return b"" if name.startswith(b"client-") and value == UNKNOWN_CLIENT else value


def _client_option(field: str) -> bytes:
    """Return the option for a field of Client, named after pipe(8)'s macro."""
    macro = field if field.startswith("sasl_") else f"client_{field}"
    return macro.replace("_", "-").encode()


OPTIONS = (
    b"config-directory",
    b"envid",
    b"handback-address",
    b"nexthop",
    b"queue-id",
    b"refused-address",
    b"sender",
    *(_client_option(name) for name, _ in CLIENT_FIELDS),
)


def _pair_recipients(addresses: list[bytes]) -> tuple[Recipient, ...]:
    half = len(addresses) // 2
    if len(addresses) != 2 * half:
        raise ArgumentsInvalid(
            "the numbers of recipients and original recipients differ; compare the"
            " argv= of this service with master.cf.d"
        )
    return tuple(map(Recipient, addresses[:half], addresses[half:]))


def set_deadline(seconds: int) -> None:
    """Raise DeadlineExceeded after seconds.

    That must come before pipe(8)'s own command_time_limit, after which it bounces.
    """

    def give_up(*_: object) -> None:
        raise DeadlineExceeded(
            f"archive_time_limit = {seconds}s exceeded; check the disks and the"
            " internal ports"
        )

    signal(SIGALRM, give_up)
    alarm(seconds)


def _log_prefix(arguments: list[bytes]) -> str:
    """Return the queue id as the beginning of a log line, "" without one."""
    for option, value in zip(arguments, arguments[1:]):
        if option == b"--queue-id":
            return f"queue id {value.decode('utf-8', 'replace')}: "
    return ""


def describe_error(error: Exception) -> str:
    """Return an exception as one line: class, then text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
