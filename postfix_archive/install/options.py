"""Options of install and uninstall, for make and for the command postfix-archive.

Used by install/main and cli/install. A field of Options is an option: make passes it as
a variable in the environment, the command as --name. An unusable value raises
InstallRefused here, before the installer reads or changes anything on the host.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from postfix_archive.config import archive_cf
from postfix_archive.errors import InstallRefused, RequestInvalid
from postfix_archive.install import program
from postfix_archive.message import printable, request
from postfix_archive.postfix import archive_services
from postfix_archive.system import python_version

YES_VALUES = ("yes", "1", "true")
NO_VALUES = ("no", "0", "false")
POSITIONS = ("before", "after")
HIGHEST_FIRST_PORT = (
    65535 - archive_services.PORT_COUNT + 1
)  # of the first port; the last must be valid as well
# What make and the command pass if nothing is given.
DEFAULTS_OF_CALLERS = (
    archive_cf.DEFAULT_CONFIG_DIRECTORY,
    python_version.DEFAULT_INTERPRETER,
)
RESERVED_DOMAINS = ("archive-request.invalid", "archive-probe.invalid")
# A path that needs no quoting in master.cf, in a #! line and in a shell command.
UNQUOTED_PATH = re.compile(r"[A-Za-z0-9/._+-]+")


@dataclass(frozen=True)
class Option:
    """One option: its variable for make, its --name for postfix-archive, its help."""

    variable: str
    metavar: str
    help: str

    @property
    def flag(self) -> str:
        """The option of postfix-archive."""
        name = self.variable.removeprefix("ARCHIVE_")
        return "--" + name.lower().replace("_", "-")

    @property
    def is_boolean(self) -> bool:
        """Tell whether the value is yes or no."""
        return self.metavar == YES_OR_NO


YES_OR_NO = "yes|no"


def _option(default: Any, variable: str, metavar: str, help: str) -> Any:
    """Return a field of Options; its metadata has the Option."""
    option = Option(variable, metavar, help)
    return dataclasses.field(default=default, metadata={"option": option})


@dataclass(frozen=True)
class Options:
    """Options as given; "", 0 or None if not given: the installed value stays."""

    archive: str = _option(
        "", "ARCHIVE", "ADDRESS", "Where copies go; several separated by commas."
    )
    dry_run: bool = _option(
        False, "DRY_RUN", YES_OR_NO, "Show what would change; change nothing."
    )
    on_request: bool | None = _option(
        None, "ON_REQUEST", YES_OR_NO, "Also archive what ARCHIVE tables request."
    )
    position: str = _option(
        "",
        "ARCHIVE_POSITION",
        "before|after",
        "Archive before or after an existing content filter. [default: before]",
    )
    mode: str = _option(
        "",
        "MODE",
        "|".join(archive_services.MODES),
        "A process a message, workers, or no content filter. [default: pipe]",
    )
    store: str = _option(
        "", "STORE", "DIR", "The store. [default: /var/lib/postfix-archive]"
    )
    port: int = _option(
        0, "PORT", "N", "The first of five ports on 127.0.0.1. [default: 10026]"
    )
    config_directory: str = _option(
        "", "CONFIG_DIRECTORY", "DIR", "Postfix's configuration directory, as -c."
    )
    prefix: str = _option(
        "", "PREFIX", "DIR", "Where the program goes. [default: /usr/local]"
    )
    destdir: str = _option(
        "", "DESTDIR", "DIR", "For packages: install only the program, below DIR."
    )
    wheels: str = _option(
        "", "WHEELS", "DIR", "The Python packages, for a host without an index."
    )
    parts: str = _option(
        "",
        "WITH",
        "PARTS",
        f"Add the Python packages of: {', '.join(program.available_parts())}.",
    )
    python: str = _option(
        "", "PYTHON", "PATH", "Runs the program. [default: /usr/bin/python3]"
    )
    install_postfix: bool = _option(
        False, "INSTALL_POSTFIX", YES_OR_NO, "Install Debian's postfix if missing."
    )


INSTALL_OPTIONS: tuple[Option, ...] = tuple(
    each.metadata["option"] for each in dataclasses.fields(Options)
)
UNINSTALL_OPTIONS = tuple(
    each for each in INSTALL_OPTIONS if each.variable in ("CONFIG_DIRECTORY", "PREFIX")
)


def parse(values: Mapping[str, str]) -> Options:
    """Return the options of these variables; raises InstallRefused for a bad value."""
    archive = values.get("ARCHIVE", "")
    if archive:
        check_archive(archive)
    return Options(
        archive=archive,
        on_request=_parse_boolean(values, "ON_REQUEST"),
        position=_parse_position(values.get("ARCHIVE_POSITION", "")),
        mode=_parse_mode(values.get("MODE", "")),
        port=_parse_port(values.get("PORT", "")),
        config_directory=_parse_path(values, "CONFIG_DIRECTORY"),
        store=_parse_path(values, "STORE"),
        prefix=_check_unquoted(_parse_path(values, "PREFIX")),
        destdir=values.get("DESTDIR", ""),
        python=values.get("PYTHON", ""),
        wheels=values.get("WHEELS", ""),
        parts=_parse_parts(values.get("WITH", "")),
        install_postfix=bool(_parse_boolean(values, "INSTALL_POSTFIX")),
        dry_run=bool(_parse_boolean(values, "DRY_RUN")),
    )


def parse_uninstall(values: Mapping[str, str]) -> Options:
    """Return the options of uninstall; it ignores all others."""
    names = [each.variable for each in UNINSTALL_OPTIONS]
    return parse({name: values.get(name, "") for name in names})


def check_words(names: Iterable[str]) -> None:
    """Raise InstallRefused if one of these variables of make is not an option."""
    known = [each.variable for each in INSTALL_OPTIONS]
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            meant = f"did you mean {similar[0]}?" if similar else "see"
            raise InstallRefused(
                f"{printable.safe_text(name)}: there is no such option; {meant}"
                " docs/installing.md lists all"
            )


def install_command(given: Options) -> str:
    """Return the command that installs with the options of a dry run."""
    words = ["make install"]
    for each in dataclasses.fields(given):
        option: Option = each.metadata["option"]
        value = getattr(given, each.name)
        if value == each.default or value in DEFAULTS_OF_CALLERS:
            continue
        if option.variable == "DRY_RUN":
            continue
        if isinstance(value, bool):
            value = "yes" if value else "no"
        words.append(f"{option.variable}={shlex.quote(str(value))}")
    return " ".join(words)


def as_command_options(text: str) -> str:
    """Return a message that names variables of make with --name options instead."""
    for option in INSTALL_OPTIONS:
        text = re.sub(rf"\b{option.variable}=", f"{option.flag}=", text)
    return re.sub(r"\bmake ((un)?install)\b", r"postfix-archive \1", text)


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


def _parse_boolean(values: Mapping[str, str], name: str) -> bool | None:
    """Return the value of a yes/no option, None if it is not set."""
    value = values.get(name, "").strip().lower()
    if value in YES_VALUES:
        return True
    if value in NO_VALUES:
        return False
    if value:
        raise InstallRefused(f"{_assignment(name, values[name])}: must be yes or no")
    return None


def _parse_position(value: str) -> str:
    if value and value not in POSITIONS:
        raise InstallRefused(
            f"{_assignment('ARCHIVE_POSITION', value)}: must be before or after"
            " (archive mail before or after it passes your content filter)"
        )
    return value


def _parse_mode(value: str) -> str:
    *others, last = archive_services.MODES
    if value and value not in (*others, last):
        raise InstallRefused(
            f"{_assignment('MODE', value)}: must be {', '.join(others)} or {last}"
            " (how mail reaches the archive: docs/installing.md)"
        )
    return value


def _parse_parts(value: str) -> str:
    known = program.available_parts()
    for part in value.split(",") if value else ():
        if part not in known:
            raise InstallRefused(
                f"{_assignment('WITH', value)}: must be parts separated by commas;"
                f" there are {', '.join(known)}"
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


def _parse_path(values: Mapping[str, str], name: str) -> str:
    """Return an absolute path without trailing slashes."""
    path = values.get(name, "")
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
