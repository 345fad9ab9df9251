"""Options of make install and make uninstall, parsed from the environment.

Used by install/main. An unusable value raises InstallRefused here, before the installer
reads or changes anything on the host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from postfix_archive.core import gates, request, ways
from postfix_archive.core.errors import InstallRefused, RequestUnusable

YES = ("yes", "1", "true")
NO = ("no", "0", "false")
POSITIONS = ("before", "after")
HIGHEST = 65535 - ways.PORTS + 1  # of the first port; the last must be valid as well
RESERVED = ("archive-request.invalid", "archive-probe.invalid")
# A path that needs no quoting in master.cf, in a #! line and in a shell command.
BARE = re.compile(r"[A-Za-z0-9/._+-]+")


@dataclass(frozen=True)
class Asked:
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


def read(words: Mapping[str, str]) -> Asked:
    """Return the options in an environment; raises InstallRefused for a bad value."""
    archive = words.get("ARCHIVE", "")
    if archive:
        refuse_address(archive)
    return Asked(
        archive=archive,
        on_request=_is_yes(words, "ON_REQUEST"),
        position=_position(words.get("ARCHIVE_POSITION", "")),
        mode=_mode(words.get("MODE", "")),
        port=_port(words.get("PORT", "")),
        config_directory=_folder(words, "CONFIG_DIRECTORY"),
        store=_folder(words, "STORE"),
        prefix=_bare(_folder(words, "PREFIX")),
        destdir=words.get("DESTDIR", ""),
        python=words.get("PYTHON", ""),
        wheels=words.get("WHEELS", ""),
        install_postfix=bool(_is_yes(words, "INSTALL_POSTFIX")),
        dry_run=bool(_is_yes(words, "DRY_RUN")),
    )


def places(words: Mapping[str, str]) -> Asked:
    """Return the options of make uninstall; it ignores all others."""
    named = ("CONFIG_DIRECTORY", "PREFIX")
    return read({name: words.get(name, "") for name in named})


def refuse_address(archive: str) -> None:
    """Raise InstallRefused unless this is a comma-separated list of addresses."""
    try:
        named = request.archives(archive)
    except RequestUnusable:
        raise InstallRefused(
            f"{_said('ARCHIVE', archive)}: not an email address; separate several"
            " addresses by commas without spaces"
        ) from None
    if "$" in archive:
        raise InstallRefused(
            f"{_said('ARCHIVE', archive)}: $ begins a parameter name in main.cf; use"
            " an address without $"
        )
    for each in named:
        if each.rpartition("@")[2] in RESERVED:
            raise InstallRefused(
                f"{_said('ARCHIVE', archive)}: this domain is internal to"
                " postfix-archive and has no mailboxes; use the address that receives"
                " the archive copies"
            )


def _is_yes(words: Mapping[str, str], name: str) -> bool | None:
    """Return the value of a yes/no option, None if it is not set."""
    word = words.get(name, "").strip().lower()
    if word in YES:
        return True
    if word in NO:
        return False
    if word:
        raise InstallRefused(f"{_said(name, words[name])}: must be yes or no")
    return None


def _position(word: str) -> str:
    if word and word not in POSITIONS:
        raise InstallRefused(
            f"{_said('ARCHIVE_POSITION', word)}: must be before or after (archive mail"
            " before or after it passes your content filter)"
        )
    return word


def _mode(word: str) -> str:
    if word and word not in gates.MODES:
        raise InstallRefused(
            f"{_said('MODE', word)}: must be pipe or lmtp (how Postfix delivers mail to"
            " the stamp filter)"
        )
    return word


def _port(word: str) -> int:
    if not word:
        return 0
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 6 else 0
    if not 1 <= number <= HIGHEST:
        raise InstallRefused(
            f"{_said('PORT', word)}: must be the first of {ways.PORTS} consecutive"
            f" ports, 1 to {HIGHEST}, for example PORT={ways.USUAL_PORT}"
        )
    return number


def _folder(words: Mapping[str, str], name: str) -> str:
    """Return an absolute path without trailing slashes."""
    path = words.get(name, "")
    if path and (not path.startswith("/") or not path.isprintable()):
        raise InstallRefused(
            f"{_said(name, path)}: not an absolute path; use one that begins with /"
        )
    return path.rstrip("/") or path[:1]


def _bare(path: str) -> str:
    if path and not BARE.fullmatch(path):
        raise InstallRefused(
            f"{_said('PREFIX', path)}: master.cf and the shell would misread this path;"
            " use letters, digits and / . _ + - only"
        )
    return path


def _said(name: str, word: str) -> str:
    return f"{name}={word if word.isprintable() else ascii(word)}"
