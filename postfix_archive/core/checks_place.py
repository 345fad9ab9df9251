"""Check archive.cf, the bypass, key, store, spool, free space and versions.

Used by doctor.checks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.core import gates
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed

LITTLE, TOO_LITTLE = 1 << 30, 100 << 20  # bytes
OLDEST = (3, 4)


def settings(host: Observed) -> Iterator[Finding]:
    """Report an archive.cf that has an error or differs from main.cf."""
    if host.settings is None:
        harm = "the stamp filter and the archive transport defer all mail"
        yield Finding(
            "settings-wrong", CRITICAL, host.trouble, harm, "correct that line"
        )
        return
    pairs = (
        ("host-name", "myhostname", host.settings.myhostname.decode()),
        ("mail-owner", "mail_owner", host.settings.mail_owner),
    )
    for check, name, ours in pairs:
        theirs = host.found.value(name)
        if ours != theirs:
            yield Finding(
                check,
                WARNING,
                f"archive.cf: {name} = {ours}",
                f"main.cf has {theirs}: a requeued message gets a new archive id and is"
                " archived twice",
                f"in archive.cf set {name} = {theirs}",
            )


def gap(host: Observed) -> Iterator[Finding]:
    """Report a bypass that is on."""
    value = host.found.value(gates.BYPASS)
    if host.gap is None and not value:
        return
    record = host.gap or {"opened": value, "by": "unknown", "why": "not recorded"}
    until = f" to {record['closed']}" if "closed" in record else ""
    yield Finding(
        "gap-open",
        CRITICAL,
        f"main.cf: {gates.BYPASS}",
        f"bypass on, mail is not archived since {record['opened']}{until}, by"
        f" {record['by']}: {record['why']}",
        "postfix-archive bypass off" if host.gap else _closing(host),
    )


def key(host: Observed) -> Iterator[Finding]:
    """Report a key file that is missing, unreadable for its user, or not private."""
    if host.settings is None:
        return
    path = host.settings.archive_key_file
    user = host.user()
    file = host.files[path]
    if path in host.closed:
        harm = f"{user} cannot search {host.closed[path]}, so all mail is deferred"
        cure = f"chmod a+x {shlex.quote(host.closed[path])}"
        yield Finding("key-folder", CRITICAL, path, harm, cure)
    if not file.is_there:
        harm = "the key file does not exist, so all mail is deferred"
        cure = f"postfix-archive key create --owner {user}"
        yield _broken("key-missing", path, harm, cure)
    elif user and file.owner != user:
        harm = f"{file.owner} owns it and {user} cannot read it: all mail is deferred"
        yield _broken("key-owner", path, harm, _chown(path, user))
    elif file.mode & 0o077:
        harm = "others can read the key and forge stamps, capsules and requests"
        yield _broken("key-mode", path, harm, f"chmod 600 {shlex.quote(path)}")


def store(host: Observed) -> Iterator[Finding]:
    """Report a store that is missing, not writable for its user, or not private."""
    if host.settings is None or not host.settings.stores:
        return
    path = host.settings.archive_store_directory
    user = host.user()
    for file in host.files.values():
        if file.path != path and not file.path.startswith(f"{path}/"):
            continue
        quoted = shlex.quote(file.path)
        if not file.is_folder:
            cure = f"install -d -m 700 -o {user} {quoted}"
            harm = "no such directory: copies wait in the queue and expire"
            yield _broken("store-missing", file.path, harm, cure)
        elif user and file.owner != user:
            harm = f"{file.owner} owns it and {user} cannot write: copies are deferred"
            yield _broken("store-owner", file.path, harm, _chown(file.path, user))
        elif file.mode & 0o077:
            harm = f"users other than {user} can read archived mail"
            yield _broken("store-mode", file.path, harm, f"chmod 700 {quoted}")


def spool(host: Observed) -> Iterator[Finding]:
    """Report a spool directory in which the archive's user cannot write."""
    if host.settings is None:
        return
    file = host.files[host.settings.archive_spool_directory]
    is_writable = file.mode & 0o002 or file.owner == host.user()
    if not file.is_folder or not is_writable:
        yield Finding(
            "spool",
            CRITICAL,
            file.path,
            f"{host.user()} cannot write there: messages over 4 MB are deferred until"
            " they expire",
            "in archive.cf set archive_spool_directory to a directory of its own",
        )


def space(host: Observed) -> Iterator[Finding]:
    """Report file systems of store, queue and spool that are nearly full."""
    for path, free in host.free.items():
        if free < LITTLE:
            yield Finding(
                "free-space",
                CRITICAL if free < TOO_LITTLE else WARNING,
                path,
                f"{free >> 20} MiB free: on a full disk copies are deferred and new"
                " mail is refused",
                f"free space on the file system of {path}",
            )


def version(host: Observed) -> Iterator[Finding]:
    """Report a Postfix that is too old."""
    if host.found.version < OLDEST:
        yield Finding(
            "version",
            CRITICAL,
            f"Postfix {host.found.raw('mail_version')}",
            "older than 3.4: it does not support what master.cf.d uses",
            "upgrade Postfix",
        )


def python(host: Observed) -> Iterator[Finding]:
    """Report a Python other than the one that the program was installed for."""
    for directory, python_path in host.pythons.items():
        yield Finding(
            "python",
            WARNING,
            directory,
            f"{python_path} is not the version that this was installed for: a message"
            " costs twice the CPU time, and the commands may not start",
            "make install, in the sources of the release that is in use",
        )


def two_keys(host: Observed) -> Iterator[Finding]:
    """Report instances that archive to one address with different keys."""
    ours = set(gates.archives(host.found))
    for each in host.neighbours:
        shared = ours.intersection(each.archives)
        if shared and host.keys and not host.keys & each.keys:
            yield Finding(
                "two-keys",
                WARNING,
                f"{each.directory}: archive = {min(shared)}",
                "that instance has another key: mail that passes both instances is"
                " stamped and archived twice",
                f"append a line of {each.directory}'s key file to this instance's key"
                " file, and the other way round",
            )


def _chown(path: str, user: str) -> str:
    return f"chown {user} {shlex.quote(path)}"


def _closing(host: Observed) -> str:
    return host.setting(gates.BYPASS, "")


def _broken(check: str, path: str, harm: str, cure: str) -> Finding:
    is_safe = cure.startswith(("chown", "chmod"))
    return Finding(check, CRITICAL, path, harm, cure, is_safe=is_safe)


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    gap,
    settings,
    key,
    store,
    spool,
    space,
    version,
    python,
    two_keys,
)
