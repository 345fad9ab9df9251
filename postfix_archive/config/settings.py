"""The settings of archive.cf: names, defaults, parsing.

Used by archive_cf, which reads the file, and as ``Settings`` everywhere. The syntax is
that of main.cf: see postfix/main_cf. Raises SettingInvalid.
"""

from __future__ import annotations

from postfix_archive.errors import SettingInvalid
from postfix_archive.message import address
from postfix_archive.postfix import main_cf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from postfix_archive.config.retention_period import Period

REPORT_FORMATS = ("hybrid", "dsn", "journal", "message")
DELIVERIES = ("store", "mail")
TABLE_TYPES = ("hash", "btree", "lmdb", "cdb", "texthash", "cidr", "regexp", "pcre")
OBJECT_LOCKS = ("compliance", "governance", "none")
WEB_DECISIONS = (
    "hold-add",
    "hold-release",
    "erase-request",
    "erase-approve",
    "erase-withdraw",
    "replay",
)
COUNT_LIMIT = 999_999_999
TIME_LIMIT = (1 << 31) - 1  # seconds; limit of alarm(2)

DEFAULTS = {
    "archive_access_socket": "/run/postfix-archive/access",
    "archive_capsule_address": "127.0.0.1:10027",
    "archive_copy_address": "127.0.0.1:10028",
    "archive_delivery": "store, mail",
    "archive_fallback_directory": "/var/spool/postfix-archive",
    "archive_from": "postfix-archive@$myhostname",
    "archive_handback_address": "127.0.0.1:10026",
    "archive_journal_recipients_per_copy": "0",
    "archive_key_file": "$config_directory/archive.key",
    "archive_local_clients": "127.0.0.0/8, ::1",
    "archive_local_days": "0",
    "archive_object_credentials_file": "",
    "archive_object_lock": "governance",
    "archive_object_store": "",
    "archive_outcome_mail": "no",
    "archive_prometheus_file": "",
    "archive_purge_limit": "5%",
    "archive_reader_group": "",
    "archive_refused_address": "127.0.0.1:10030",
    "archive_relay_address": "127.0.0.1:10029",
    "archive_replay_to": "",
    "archive_report_format": "hybrid",
    "archive_require_reason": "no",
    "archive_rescue_after": "1d",
    "archive_retention": "",
    "archive_seal_file": "",
    "archive_seal_to": "",
    "archive_sender": "",
    "archive_spool_directory": "/var/tmp",
    "archive_stamp_lifetime": "5d",
    "archive_store_directory": "/var/lib/postfix-archive",
    # After the setting that it refers to: an error in that should name that.
    "archive_index_directory": "$archive_store_directory/index",
    "archive_tables": "",
    "archive_time_limit": "900s",
    "archive_tsa_certificates": "",
    "archive_tsa_url": "",
    "archive_wait_for_outcome": "0s",
    # Not erase-approve: who breaks into the page could then erase mail alone.
    "archive_web_decisions": (
        "hold-add, hold-release, erase-request, erase-withdraw, replay"
    ),
    "archive_web_user": "",
    "archive_write_through_time_limit": "5s",
    "mail_owner": "postfix",
}


class Settings:
    """All settings of one Postfix instance, with valid values."""

    # myhostname first: others refer to it, and an error in it should name it.
    __slots__ = ("myhostname", "config_directory") + tuple(DEFAULTS)

    archive_access_socket: str
    archive_capsule_address: tuple[str, int]
    archive_copy_address: tuple[str, int]
    archive_delivery: tuple[str, ...]
    archive_fallback_directory: str
    archive_from: bytes
    archive_handback_address: tuple[str, int]
    archive_index_directory: str
    archive_journal_recipients_per_copy: int
    archive_key_file: str
    archive_local_clients: tuple[str, ...]
    archive_local_days: int  # 0 for all days
    archive_object_credentials_file: str  # "" for those of the AWS environment
    archive_object_lock: str
    archive_object_store: str  # URL, parsed by config.object_store; "" for none
    archive_outcome_mail: bool
    archive_prometheus_file: str  # "" for none
    archive_purge_limit: int  # per cent
    archive_reader_group: str  # "" for none
    archive_refused_address: tuple[str, int]
    archive_relay_address: tuple[str, int]
    archive_replay_to: tuple[str, ...]
    archive_report_format: str
    archive_require_reason: bool
    archive_rescue_after: int  # seconds
    archive_retention: dict[str, Period]  # by archive address
    archive_seal_file: str  # "" for none
    archive_seal_to: bytes  # b"" for nobody
    archive_sender: bytes
    archive_spool_directory: str
    archive_stamp_lifetime: int  # seconds
    archive_store_directory: str
    archive_tables: tuple[tuple[str, str], ...]  # type and path of each source
    archive_time_limit: int  # seconds
    archive_tsa_certificates: str  # "" for the system's
    archive_tsa_url: tuple[str, ...]
    archive_wait_for_outcome: int  # seconds
    archive_web_decisions: tuple[str, ...]  # of WEB_DECISIONS
    archive_web_user: str  # "" for none
    archive_write_through_time_limit: int  # seconds
    config_directory: str
    mail_owner: str
    myhostname: bytes

    def __init__(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    @property
    def needs_follower(self) -> bool:
        """True if the follower must run: a store records outcomes, or copies wait."""
        return self.has_store or self.archive_wait_for_outcome > 0

    @property
    def copy_port(self) -> tuple[str, int]:
        """The port for mailed copies: archive_relay_address if there is no store."""
        return (
            self.archive_copy_address if self.has_store else self.archive_relay_address
        )

    @property
    def capsule_helo_file(self) -> str:
        """The access(5) table with the HELO name that the capsule port asks for."""
        return f"{self.archive_key_file}.helo"

    @property
    def retention_rules_file(self) -> str:
        """The file with the retention rules, which may be missing."""
        return f"{self.config_directory}/archive.retention"

    @property
    def own_paths(self) -> tuple[str, ...]:
        """Paths that belong to the archive's user, as far as they exist."""
        return self.archive_fallback_directory, self.archive_key_file

    @property
    def has_store(self) -> bool:
        """True if the store keeps copies."""
        return "store" in self.archive_delivery

    @property
    def has_write_through(self) -> bool:
        """True if the stamp filter may write copies to the store itself."""
        is_waiting = self.archive_wait_for_outcome > 0
        return (
            self.has_store
            and not is_waiting
            and self.archive_write_through_time_limit > 0
        )

    @property
    def has_mail_delivery(self) -> bool:
        """True if copies are mailed to the archive address."""
        return "mail" in self.archive_delivery


def parse(text: str, *, path: str, config_directory: str, myhostname: str) -> Settings:
    """Parse the text of archive.cf.

    path appears in error messages; myhostname is the default for that setting. Raises
    SettingInvalid with path, line number and the allowed values.
    """
    raw_values = dict(
        DEFAULTS, config_directory=config_directory, myhostname=myhostname
    )
    line_numbers: dict[str, int] = {}
    for number, name, value in main_cf.logical_lines(text, path=path):
        if name not in raw_values and name.startswith("archive"):
            raise SettingInvalid(
                f"{path}, line {number}: {name}: unknown setting; archive.cf(5)"
                f" has {', '.join(DEFAULTS)}"
            )
        raw_values[name] = value
        line_numbers[name] = number
    values: dict[str, Any] = {}
    for name in Settings.__slots__:
        location = (
            f"{path}, line {line_numbers[name]}" if name in line_numbers else path
        )
        value = main_cf.expand(
            raw_values[name],
            raw_values.get,
            location=f"{location}: {name}",
            must_be_set=True,
        )
        if "\0" in value:
            raise SettingInvalid(f"{location}: {name} contains a NUL byte")
        values[name] = _parser_for(name)(value, f"{location}: {name} = {value}")
    return Settings(values)


def _parser_for(name: str) -> Callable[[str, str], Any]:
    return PARSERS.get(name, _parse_text)


def _parse_text(value: str, location: str) -> str:
    if not value:
        raise SettingInvalid(f"{location}: must not be empty")
    return value


def _parse_path(value: str, location: str) -> str:
    if not value.startswith("/"):
        raise SettingInvalid(f"{location}: must be an absolute path")
    return value


def _parse_path_or_none(value: str, location: str) -> str:
    return _parse_path(value, location) if value else ""


def _parse_object_store(value: str, location: str) -> str:
    """What capture does not need is parsed by who does: urllib takes milliseconds."""
    if value and not value.startswith("s3://"):
        raise SettingInvalid(f"{location}: must be empty, or s3://bucket/prefix?...")
    return value


def _parse_urls(value: str, location: str) -> tuple[str, ...]:
    """The URLs stand in every seal: no user name and password."""
    urls = _split_words(value, location)
    for url in urls:
        scheme, _, rest = url.partition("://")
        host = rest.partition("/")[0]
        is_valid = scheme in ("http", "https") and host and "@" not in host
        if not is_valid or not (url.isascii() and url.isprintable()):
            raise SettingInvalid(
                f"{location}: {url} must be an http:// or https:// URL without user"
                " name, such as http://tsa.example.com/tsr"
            )
    if len({*urls}) < len(urls):
        raise SettingInvalid(f"{location}: each URL once")
    return urls


def _parse_prometheus_file(value: str, location: str) -> str:
    """node_exporter's textfile collector reads only names that end in .prom."""
    if value and (value[:1] != "/" or value[-5:] != ".prom"):
        raise SettingInvalid(
            f"{location}: must be empty, or an absolute path that ends in .prom"
        )
    return value


def _choice_parser(allowed: tuple[str, ...]) -> Callable[[str, str], str]:
    def parse_choice(value: str, location: str) -> str:
        if value not in allowed:
            raise SettingInvalid(f"{location}: must be one of {', '.join(allowed)}")
        return value

    return parse_choice


def _split_words(value: str, location: str) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split())


def _parse_clients(value: str, location: str) -> tuple[str, ...]:
    """Accept only what stamp_filter/capture_plan.is_local_client supports."""
    clients = _split_words(value, location)
    for client in clients:
        if client != "permit_sasl_authenticated" and not address.is_network(client):
            raise SettingInvalid(
                f"{location}: {client} must be an IP address, an IPv4 network such as"
                " 192.0.2.0/24, or permit_sasl_authenticated"
            )
    return clients


def _parse_delivery(value: str, location: str) -> tuple[str, ...]:
    deliveries = _split_words(value, location)
    if not deliveries or set(deliveries) - set(DELIVERIES):
        raise SettingInvalid(f"{location}: must be 'store, mail', 'store' or 'mail'")
    return deliveries


def _parse_web_decisions(value: str, location: str) -> tuple[str, ...]:
    decisions = _split_words(value, location)
    if set(decisions) - set(WEB_DECISIONS):
        raise SettingInvalid(
            f"{location}: must be empty, or some of {', '.join(WEB_DECISIONS)}"
        )
    return decisions


def _parse_tables(value: str, location: str) -> tuple[tuple[str, str], ...]:
    """The compiled table has the same path without ``.in``."""
    types_by_path: dict[str, str] = {}
    for source in _split_words(value, location):
        table_type, _, path = source.partition(":")
        if (
            table_type not in TABLE_TYPES
            or path[:1] != "/"
            or path[-3:] != ".in"
            or path in types_by_path
        ):
            raise SettingInvalid(
                f"{location}: {source} must be type:/path.in, each path once; the types"
                f" are {', '.join(TABLE_TYPES)}"
            )
        types_by_path[path] = table_type
    return tuple((table_type, path) for path, table_type in types_by_path.items())


def _parse_percentage(value: str, location: str) -> int:
    percentage = main_cf.parse_number(value.removesuffix("%").rstrip())
    if percentage is None or percentage > 100 or not value.endswith("%"):
        raise SettingInvalid(f"{location}: must be a percentage from 0% to 100%")
    return percentage


def _parse_retention(value: str, location: str) -> dict[str, Period]:
    if not value:
        return {}
    # Here, so that the transports import it only where there is a period to parse.
    from postfix_archive.config import retention_period

    periods = {}
    for entry in _split_words(value, location):
        archive, _, period = entry.rpartition("=")
        archive = archive.lower()
        if not address.is_plain(archive.encode()) or archive in periods:
            raise SettingInvalid(
                f"{location}: {entry} must be address=period, such as"
                " legal@example.com=10y, each address once"
            )
        try:
            periods[archive] = retention_period.parse(period)
        except ValueError as error:
            raise SettingInvalid(f"{location}: {entry}: {error}") from None
    return periods


def _parse_count(value: str, location: str) -> int:
    number = main_cf.parse_number(value)
    if number is None or number > COUNT_LIMIT:
        raise SettingInvalid(
            f"{location}: must be a whole number from 0 to {COUNT_LIMIT}"
        )
    return number


def _parse_time(value: str, location: str) -> int:
    return _parse_time_or_zero(value, location, minimum=1)


def _parse_time_or_zero(value: str, location: str, *, minimum: int = 0) -> int:
    seconds = main_cf.parse_time(value.lower())
    if seconds is None or not minimum <= seconds <= TIME_LIMIT:
        raise SettingInvalid(
            f"{location}: must be a time such as 900s, 5m, 2h, 5d or 1w"
        )
    return seconds


def _parse_boolean(value: str, location: str) -> bool:
    if value not in ("yes", "no"):
        raise SettingInvalid(f"{location}: must be yes or no")
    return value == "yes"


def parse_port(value: str, location: str) -> tuple[str, int]:
    """Parse address:port; location begins the error message."""
    host, _, number = value.rpartition(":")
    port = main_cf.parse_number(number)
    is_valid_host = bool(host) and host.isascii() and host.isprintable()
    if not is_valid_host or port is None or not 0 < port < 65536:
        raise SettingInvalid(
            f"{location}: must be address:port, such as 127.0.0.1:10026"
        )
    return host.strip("[]"), port


def _parse_address(value: str, location: str) -> bytes:
    if not address.is_plain(value.encode()):
        raise SettingInvalid(
            f"{location}: must be an address, such as archive@example.com"
        )
    return value.encode()


def _parse_address_or_null(value: str, location: str) -> bytes:
    return b"" if value in ("", "<>") else _parse_address(value, location)


def _parse_addresses(value: str, location: str) -> tuple[str, ...]:
    addresses = _split_words(value, location)
    for each in addresses:
        if not address.is_plain(each.encode()):
            raise SettingInvalid(
                f"{location}: {each} must be an address, such as auditor@example.com"
            )
    return addresses


def _parse_host(value: str, location: str) -> bytes:
    if not value or not value.isascii() or value.split() != [value]:
        raise SettingInvalid(f"{location}: must be this host's name, as in main.cf")
    return value.encode()


def _account_parser(kind: str) -> Callable[[str, str], str]:
    def parse_name(value: str, location: str) -> str:
        """passwd(5), group(5): no colon, no line end; a number would be an id."""
        if value.isdecimal() or set(value) & set(":, \t"):
            raise SettingInvalid(f"{location}: must be the name of a {kind}, or empty")
        return value

    return parse_name


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "archive_access_socket": _parse_path,
    "archive_capsule_address": parse_port,
    "archive_copy_address": parse_port,
    "archive_delivery": _parse_delivery,
    "archive_fallback_directory": _parse_path,
    "archive_from": _parse_address,
    "archive_handback_address": parse_port,
    "archive_index_directory": _parse_path,
    "archive_journal_recipients_per_copy": _parse_count,
    "archive_key_file": _parse_path,
    "archive_local_clients": _parse_clients,
    "archive_local_days": _parse_count,
    "archive_object_credentials_file": _parse_path_or_none,
    "archive_object_lock": _choice_parser(OBJECT_LOCKS),
    "archive_object_store": _parse_object_store,
    "archive_outcome_mail": _parse_boolean,
    "archive_prometheus_file": _parse_prometheus_file,
    "archive_purge_limit": _parse_percentage,
    "archive_reader_group": _account_parser("group"),
    "archive_refused_address": parse_port,
    "archive_relay_address": parse_port,
    "archive_replay_to": _parse_addresses,
    "archive_report_format": _choice_parser(REPORT_FORMATS),
    "archive_require_reason": _parse_boolean,
    "archive_rescue_after": _parse_time,
    "archive_retention": _parse_retention,
    "archive_seal_file": _parse_path_or_none,
    "archive_seal_to": _parse_address_or_null,
    "archive_sender": _parse_address_or_null,
    "archive_spool_directory": _parse_path,
    "archive_stamp_lifetime": _parse_time,
    "archive_store_directory": _parse_path,
    "archive_tables": _parse_tables,
    "archive_time_limit": _parse_time,
    "archive_tsa_certificates": _parse_path_or_none,
    "archive_tsa_url": _parse_urls,
    "archive_wait_for_outcome": _parse_time_or_zero,
    "archive_web_decisions": _parse_web_decisions,
    "archive_web_user": _account_parser("user"),
    "archive_write_through_time_limit": _parse_time_or_zero,
    "myhostname": _parse_host,
}
