"""The words of make install: what the postmaster says, in the form we work with.

Used by front/install, which takes them from the environment. A word that cannot be used
is refused here, before anything is looked at or changed.
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
HIGHEST = 65535 - ways.PORTS + 1  # of the first port: the last one must be a port too
RESERVED = ("archive-request.invalid", "archive-probe.invalid")
# What stands in master.cf, in a #! line and in a shell command needs no quoting.
BARE = re.compile(r"[A-Za-z0-9/._+-]+")


@dataclass(frozen=True)
class Asked:
    """What was said; "" or None for what was not, so that it stays as it is."""

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
    """Return what these words ask for; raises InstallRefused for one we cannot use."""
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
    """Return what these words say about where: all that make uninstall asks."""
    named = ("CONFIG_DIRECTORY", "PREFIX")
    return read({name: words.get(name, "") for name in named})


def refuse_address(archive: str) -> None:
    """Raise InstallRefused if this is no archive address, nor several by comma."""
    try:
        named = request.archives(archive)
    except RequestUnusable:
        raise InstallRefused(
            f"{_said('ARCHIVE', archive)}: that is no address; several are separated by"
            " commas without spaces"
        ) from None
    if "$" in archive:
        raise InstallRefused(
            f"{_said('ARCHIVE', archive)}: main.cf takes $ for the name of a parameter:"
            " give an address without it"
        )
    for each in named:
        if each.rpartition("@")[2] in RESERVED:
            raise InstallRefused(
                f"{_said('ARCHIVE', archive)}: that domain is our own and has no"
                " mailboxes: give the address where copies are to go"
            )


def _is_yes(words: Mapping[str, str], name: str) -> bool | None:
    """Return whether a word says yes; None if it says nothing."""
    word = words.get(name, "").strip().lower()
    if word in YES:
        return True
    if word in NO:
        return False
    if word:
        raise InstallRefused(f"{_said(name, words[name])}: say yes or no")
    return None


def _position(word: str) -> str:
    if word and word not in POSITIONS:
        raise InstallRefused(
            f"{_said('ARCHIVE_POSITION', word)}: say before or after: whether the"
            " archive stands before or after your content filter"
        )
    return word


def _mode(word: str) -> str:
    if word and word not in gates.MODES:
        raise InstallRefused(
            f"{_said('MODE', word)}: say pipe or lmtp: how Postfix reaches the stamp"
            " filter"
        )
    return word


def _port(word: str) -> int:
    if not word:
        return 0
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 6 else 0
    if not 1 <= number <= HIGHEST:
        raise InstallRefused(
            f"{_said('PORT', word)}: give the number of the first of {ways.PORTS}"
            f" ports, 1 to {HIGHEST}, such as PORT={ways.USUAL_PORT}"
        )
    return number


def _folder(words: Mapping[str, str], name: str) -> str:
    """Return an absolute path without a slash at its end."""
    path = words.get(name, "")
    if path and (not path.startswith("/") or not path.isprintable()):
        raise InstallRefused(
            f"{_said(name, path)}: that is no absolute path: give one that begins"
            " with /"
        )
    return path.rstrip("/") or path[:1]


def _bare(path: str) -> str:
    if path and not BARE.fullmatch(path):
        raise InstallRefused(
            f"{_said('PREFIX', path)}: master.cf and the shell would misread this path:"
            " give one of letters, digits and . _ + - only"
        )
    return path


def _said(name: str, word: str) -> str:
    return f"{name}={word if word.isprintable() else ascii(word)}"
