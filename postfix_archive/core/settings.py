"""The settings of archive.cf: names, defaults, parsing.

Used by archive_cf, which reads the file, and as ``Settings`` everywhere. The syntax is
that of main.cf: see postfix/main_cf. Raises SettingWrong.
"""

from __future__ import annotations

from postfix_archive.core import address, maincf
from postfix_archive.core.errors import SettingWrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FORMATS = ("hybrid", "dsn", "journal", "message")
DELIVERIES = ("store", "mail")
TABLES = ("hash", "btree", "lmdb", "cdb", "texthash", "cidr", "regexp", "pcre")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}  # postconf(5), time units
NUMBER_DIGITS = 9
TIME_LIMIT = (1 << 31) - 1  # seconds; limit of alarm(2)

DEFAULTS = {
    "archive_capsule_address": "127.0.0.1:10027",
    "archive_copy_address": "127.0.0.1:10028",
    "archive_delivery": "store, mail",
    "archive_fallback_directory": "/var/spool/postfix-archive",
    "archive_from": "postfix-archive@$myhostname",
    "archive_handback_address": "127.0.0.1:10026",
    "archive_journal_recipients_per_copy": "0",
    "archive_key_file": "$config_directory/archive.key",
    "archive_local_clients": "127.0.0.0/8, ::1",
    "archive_outcome_mail": "no",
    "archive_prometheus_file": "",
    "archive_refused_address": "127.0.0.1:10030",
    "archive_relay_address": "127.0.0.1:10029",
    "archive_report_format": "hybrid",
    "archive_rescue_after": "1d",
    "archive_sender": "",
    "archive_spool_directory": "/var/tmp",
    "archive_stamp_lifetime": "5d",
    "archive_store_directory": "/var/lib/postfix-archive",
    "archive_tables": "",
    "archive_time_limit": "900s",
    "archive_wait_for_outcome": "0s",
    "archive_write_through_time_limit": "5s",
    "mail_owner": "postfix",
}


class Settings:
    """All settings of one Postfix instance, with valid values."""

    # myhostname first: others refer to it, and an error in it should name it.
    __slots__ = ("myhostname", "config_directory") + tuple(DEFAULTS)

    archive_capsule_address: tuple[str, int]
    archive_copy_address: tuple[str, int]
    archive_delivery: tuple[str, ...]
    archive_fallback_directory: str
    archive_from: bytes
    archive_handback_address: tuple[str, int]
    archive_journal_recipients_per_copy: int
    archive_key_file: str
    archive_local_clients: tuple[str, ...]
    archive_outcome_mail: bool
    archive_prometheus_file: str  # "" for none
    archive_refused_address: tuple[str, int]
    archive_relay_address: tuple[str, int]
    archive_report_format: str
    archive_rescue_after: int  # seconds
    archive_sender: bytes
    archive_spool_directory: str
    archive_stamp_lifetime: int  # seconds
    archive_store_directory: str
    archive_tables: tuple[tuple[str, str], ...]  # type and path of each source
    archive_time_limit: int  # seconds
    archive_wait_for_outcome: int  # seconds
    archive_write_through_time_limit: int  # seconds
    config_directory: str
    mail_owner: str
    myhostname: bytes

    def __init__(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    @property
    def follows(self) -> bool:
        """True if the follower must run: a store records outcomes, or copies wait."""
        return self.stores or self.archive_wait_for_outcome > 0

    @property
    def copy_port(self) -> tuple[str, int]:
        """The port for mailed copies: archive_relay_address if there is no store."""
        return self.archive_copy_address if self.stores else self.archive_relay_address

    @property
    def stores(self) -> bool:
        """True if the store keeps copies."""
        return "store" in self.archive_delivery

    @property
    def writes_through(self) -> bool:
        """True if the stamp filter may write copies to the store itself."""
        waits = self.archive_wait_for_outcome > 0
        return self.stores and not waits and self.archive_write_through_time_limit > 0

    @property
    def mails(self) -> bool:
        """True if copies are mailed to the archive address."""
        return "mail" in self.archive_delivery


def parse(text: str, *, place: str, config_directory: str, myhostname: str) -> Settings:
    """Parse the text of archive.cf.

    path appears in error messages; myhostname is the default for that setting. Raises
    SettingWrong with path, line number and the allowed values.
    """
    raw = dict(DEFAULTS, config_directory=config_directory, myhostname=myhostname)
    lines: dict[str, int] = {}
    for number, name, value in maincf.lines(text, place=place):
        if name not in raw and name.startswith("archive"):
            raise SettingWrong(
                f"{place}, line {number}: {name}: unknown setting; archive.cf(5)"
                f" has {', '.join(DEFAULTS)}"
            )
        raw[name] = value
        lines[name] = number
    values: dict[str, Any] = {}
    for name in Settings.__slots__:
        where = f"{place}, line {lines[name]}" if name in lines else place
        value = maincf.expanded(raw[name], raw, where=f"{where}: {name}")
        if "\0" in value:
            raise SettingWrong(f"{where}: {name} contains a NUL byte")
        values[name] = _reader(name)(value, f"{where}: {name} = {value}")
    return Settings(values)


def _reader(name: str) -> Callable[[str, str], Any]:
    return READERS.get(name, _text)


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= NUMBER_DIGITS


def _text(value: str, where: str) -> str:
    if not value:
        raise SettingWrong(f"{where}: must not be empty")
    return value


def _path(value: str, where: str) -> str:
    if not value.startswith("/"):
        raise SettingWrong(f"{where}: must be an absolute path")
    return value


def _prom_file(value: str, where: str) -> str:
    """node_exporter's textfile collector reads only names that end in .prom."""
    if value and (value[:1] != "/" or value[-5:] != ".prom"):
        raise SettingWrong(
            f"{where}: must be empty, or an absolute path that ends in .prom"
        )
    return value


def _one_of(allowed: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(value: str, where: str) -> str:
        if value not in allowed:
            raise SettingWrong(f"{where}: must be one of {', '.join(allowed)}")
        return value

    return read


def _words(value: str, where: str) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split())


def _clients(value: str, where: str) -> tuple[str, ...]:
    """Accept only what stamp_filter/plan.is_local_client supports."""
    found = _words(value, where)
    for word in found:
        if word != "permit_sasl_authenticated" and not address.is_network(word):
            raise SettingWrong(
                f"{where}: {word} must be an IP address, an IPv4 network such as"
                " 192.0.2.0/24, or permit_sasl_authenticated"
            )
    return found


def _delivery(value: str, where: str) -> tuple[str, ...]:
    found = _words(value, where)
    if not found or set(found) - set(DELIVERIES):
        raise SettingWrong(f"{where}: must be 'store, mail', 'store' or 'mail'")
    return found


def _tables(value: str, where: str) -> tuple[tuple[str, str], ...]:
    """The compiled table has the same path without ``.in``."""
    found: dict[str, str] = {}
    for word in _words(value, where):
        kind, _, path = word.partition(":")
        if kind not in TABLES or path[:1] != "/" or path[-3:] != ".in" or path in found:
            raise SettingWrong(
                f"{where}: {word} must be type:/path.in, each path once; the types are"
                f" {', '.join(TABLES)}"
            )
        found[path] = kind
    return tuple((kind, path) for path, kind in found.items())


def _count(value: str, where: str) -> int:
    if not _is_number(value):
        raise SettingWrong(f"{where}: must be a whole number from 0 to 999999999")
    return int(value)


def _time(value: str, where: str) -> int:
    return _time_or_none(value, where, least=1)


def _time_or_none(value: str, where: str, *, least: int = 0) -> int:
    unit = UNITS.get(value[-1:].lower())
    number = value[:-1] if unit else value
    seconds = int(number) * (unit or 1) if _is_number(number) else -1
    if not least <= seconds <= TIME_LIMIT:
        raise SettingWrong(f"{where}: must be a time such as 900s, 5m, 2h, 5d or 1w")
    return seconds


def _yes_or_no(value: str, where: str) -> bool:
    if value not in ("yes", "no"):
        raise SettingWrong(f"{where}: must be yes or no")
    return value == "yes"


def port(value: str, where: str) -> tuple[str, int]:
    """Parse address:port; location begins the error message."""
    host, colon, number = value.rpartition(":")
    numeric = _is_number(number) and 0 < int(number) < 65536
    plain = host.isascii() and host.isprintable()
    if not host or not plain or not colon or not numeric:
        raise SettingWrong(f"{where}: must be address:port, such as 127.0.0.1:10026")
    return host.strip("[]"), int(number)


def _mailbox(value: str, where: str) -> bytes:
    if not address.is_plain(value.encode()):
        raise SettingWrong(f"{where}: must be an address, such as archive@example.com")
    return value.encode()


def _mailbox_or_null(value: str, where: str) -> bytes:
    return b"" if value in ("", "<>") else _mailbox(value, where)


def _host(value: str, where: str) -> bytes:
    if not value or not value.isascii() or value.split() != [value]:
        raise SettingWrong(f"{where}: must be this host's name, as in main.cf")
    return value.encode()


READERS: dict[str, Callable[[str, str], Any]] = {
    "archive_capsule_address": port,
    "archive_copy_address": port,
    "archive_delivery": _delivery,
    "archive_fallback_directory": _path,
    "archive_from": _mailbox,
    "archive_handback_address": port,
    "archive_journal_recipients_per_copy": _count,
    "archive_key_file": _path,
    "archive_local_clients": _clients,
    "archive_outcome_mail": _yes_or_no,
    "archive_prometheus_file": _prom_file,
    "archive_refused_address": port,
    "archive_relay_address": port,
    "archive_report_format": _one_of(FORMATS),
    "archive_rescue_after": _time,
    "archive_sender": _mailbox_or_null,
    "archive_spool_directory": _path,
    "archive_stamp_lifetime": _time,
    "archive_store_directory": _path,
    "archive_tables": _tables,
    "archive_time_limit": _time,
    "archive_wait_for_outcome": _time_or_none,
    "archive_write_through_time_limit": _time_or_none,
    "myhostname": _host,
}
