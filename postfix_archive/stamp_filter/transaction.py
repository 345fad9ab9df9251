"""One message as pipe(8) or lmtp(8) hands it in: arguments, settings, keys, content.

Used by intake, which makes it, and by the stamp filter. Raises ArgumentsInvalid for
arguments that master.cf.d cannot have made.
"""

from __future__ import annotations

import posix as os
import time

from postfix_archive.config import archive_cf, settings
from postfix_archive.errors import ArgumentsInvalid
from postfix_archive.message.envelope import CLIENT_FIELDS, Client, Recipient
from postfix_archive.postfix import smtp_client
from postfix_archive.system import deadline, spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postfix_archive.archive_transport.recent_captures import RecentCaptures
    from postfix_archive.config.settings import Settings
    from postfix_archive.message.keyring import Keyring
    from postfix_archive.stamp_filter.write_through import WriteThrough
    from postfix_archive.system.spool import Spool
# Postfix's value for a client attribute that it does not know.
UNKNOWN_CLIENT = b"unknown"


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
    is_8bitmime: bool | None = None
    is_local: bool | None = None

    def __init__(self, arguments: list[bytes]) -> None:
        self.macros, self.recipients = parse_arguments(arguments)
        config_directory = (
            archive_cf.decode_path(self.macros[b"config-directory"]) or None
        )
        self.settings: Settings = archive_cf.load(
            archive_cf.find_config_directory(config_directory)
        )
        deadline.set_deadline(self.settings.archive_time_limit)
        self.keys: Keyring = archive_cf.load_keys(self.settings)
        self.now = int(time.time())
        self.connection_cache = smtp_client.ConnectionCache(is_enabled=False)
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
        from postfix_archive.stamp_filter.write_through import WriteThrough

        return WriteThrough(self.settings, self.keys)

    @property
    def recent_captures(self) -> RecentCaptures:
        """The database of what was captured before."""
        # Imported here: only native mode needs it.
        from postfix_archive.archive_transport.recent_captures import RecentCaptures

        return RecentCaptures(self.settings)

    @property
    def client(self) -> Client:
        """The client that sent the message to Postfix, as far as pipe(8) knows it."""
        return Client(
            **{name: self.macros[_client_option(name)] for name, _ in CLIENT_FIELDS}
        )


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
    b"size",
    *(_client_option(name) for name, _ in CLIENT_FIELDS),
)


def is_completed(name: bytes, final: bytes) -> bool:
    """Tell whether Postfix made this address from a name without a domain.

    It adds myorigin (postconf(5)), which pipe(8) has put into the environment.
    """
    domain = os.environ.get(b"MYORIGIN", b"")
    if domain.startswith(b"/"):
        try:
            with open(domain, "rb") as file:
                domain = b"".join(file.readline().split()[:1])
        except OSError:
            return False
    return domain != b"" and final == name + b"@" + domain


def _pair_recipients(addresses: list[bytes]) -> tuple[Recipient, ...]:
    half = len(addresses) // 2
    if len(addresses) != 2 * half:
        raise ArgumentsInvalid(
            "the numbers of recipients and original recipients differ; compare the"
            " argv= of this service with master.cf.d"
        )
    return tuple(map(Recipient, addresses[:half], addresses[half:]))
