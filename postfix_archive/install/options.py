"""Options of make install and make uninstall, parsed from the environment.

Used by install/main. An unusable value raises InstallRefused here, before the installer
reads or changes anything on the host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from postfix_archive.errors import InstallRefused, RequestInvalid
from postfix_archive.message import printable, request
from postfix_archive.postfix import archive_services

YES_VALUES = ("yes", "1", "true")
NO_VALUES = ("no", "0", "false")
POSITIONS = ("before", "after")
HIGHEST_FIRST_PORT = (
    65535 - archive_services.PORT_COUNT + 1
)  # of the first port; the last must be valid as well
RESERVED_DOMAINS = ("archive-request.invalid", "archive-probe.invalid")
# A path that needs no quoting in master.cf, in a #! line and in a shell command.
UNQUOTED_PATH = re.compile(r"[A-Za-z0-9/._+-]+")


@dataclass(frozen=True)
class Options:
    """Options as given; "", 0 or None if not given: the installed value stays."""

    archive: str = ""
    on_request: bool | None = None
    position: str = ""
    mode: str = ""
    port: int = 0
    config_directory: str = ""
    store: str = ""
    prefix: str = ""
    destdir: str = ""
    python: str = ""
    wheels: str = ""
    install_postfix: bool = False
    dry_run: bool = False


def parse(environment: Mapping[str, str]) -> Options:
    """Return the options in an environment; raises InstallRefused for a bad value."""
    archive = environment.get("ARCHIVE", "")
    if archive:
        check_archive(archive)
    return Options(
        archive=archive,
        on_request=_parse_boolean(environment, "ON_REQUEST"),
        position=_parse_position(environment.get("ARCHIVE_POSITION", "")),
        mode=_parse_mode(environment.get("MODE", "")),
        port=_parse_port(environment.get("PORT", "")),
        config_directory=_parse_path(environment, "CONFIG_DIRECTORY"),
        store=_parse_path(environment, "STORE"),
        prefix=_check_unquoted(_parse_path(environment, "PREFIX")),
        destdir=environment.get("DESTDIR", ""),
        python=environment.get("PYTHON", ""),
        wheels=environment.get("WHEELS", ""),
        install_postfix=bool(_parse_boolean(environment, "INSTALL_POSTFIX")),
        dry_run=bool(_parse_boolean(environment, "DRY_RUN")),
    )


def parse_uninstall(environment: Mapping[str, str]) -> Options:
    """Return the options of make uninstall; it ignores all others."""
    names = ("CONFIG_DIRECTORY", "PREFIX")
    return parse({name: environment.get(name, "") for name in names})


def check_archive(archive: str) -> None:
    """Raise InstallRefused unless this is a comma-separated list of addresses."""
    try:
        addresses = request.parse_archives(archive)
    except RequestInvalid:
        raise InstallRefused(
            f"{_assignment('ARCHIVE', archive)}: not an email address; separate several"
            " addresses by commas without spaces"
        ) from None
    if "$" in archive:
        raise InstallRefused(
            f"{_assignment('ARCHIVE', archive)}: $ begins a parameter name in main.cf;"
            " use an address without $"
        )
    for address in addresses:
        if address.rpartition("@")[2] in RESERVED_DOMAINS:
            raise InstallRefused(
                f"{_assignment('ARCHIVE', archive)}: this domain is internal to"
                " postfix-archive and has no mailboxes; use the address that receives"
                " the archive copies"
            )


def _parse_boolean(environment: Mapping[str, str], name: str) -> bool | None:
    """Return the value of a yes/no option, None if it is not set."""
    value = environment.get(name, "").strip().lower()
    if value in YES_VALUES:
        return True
    if value in NO_VALUES:
        return False
    if value:
        raise InstallRefused(
            f"{_assignment(name, environment[name])}: must be yes or no"
        )
    return None


def _parse_position(value: str) -> str:
    if value and value not in POSITIONS:
        raise InstallRefused(
            f"{_assignment('ARCHIVE_POSITION', value)}: must be before or after"
            " (archive mail before or after it passes your content filter)"
        )
    return value


def _parse_mode(value: str) -> str:
    if value and value not in archive_services.MODES:
        raise InstallRefused(
            f"{_assignment('MODE', value)}: must be pipe or lmtp (how Postfix delivers"
            " mail to the stamp filter)"
        )
    return value


def _parse_port(value: str) -> int:
    if not value:
        return 0
    port = int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0
    if not 1 <= port <= HIGHEST_FIRST_PORT:
        raise InstallRefused(
            f"{_assignment('PORT', value)}: must be the first of"
            f" {archive_services.PORT_COUNT} consecutive ports, 1 to"
            f" {HIGHEST_FIRST_PORT}, for example"
            f" PORT={archive_services.DEFAULT_FIRST_PORT}"
        )
    return port


def _parse_path(environment: Mapping[str, str], name: str) -> str:
    """Return an absolute path without trailing slashes."""
    path = environment.get(name, "")
    if path and (not path.startswith("/") or not path.isprintable()):
        raise InstallRefused(
            f"{_assignment(name, path)}: not an absolute path; use one that begins"
            " with /"
        )
    return path.rstrip("/") or path[:1]


def _check_unquoted(path: str) -> str:
    if path and not UNQUOTED_PATH.fullmatch(path):
        raise InstallRefused(
            f"{_assignment('PREFIX', path)}: master.cf and the shell would misread this"
            " path; use letters, digits and / . _ + - only"
        )
    return path


def _assignment(name: str, value: str) -> str:
    return f"{name}={printable.safe_text(value)}"
