"""Checks of what the archive stands on: settings, key, store, space, version.

Used by core/checkup.
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
    """archive.cf can be read and says what main.cf says."""
    if host.settings is None:
        harm = "every run defers, so all mail waits"
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
                f"main.cf says {theirs}: a message that is requeued is taken for a new"
                " one and archived twice",
                f"in archive.cf write {name} = {theirs}",
            )


def gap(host: Observed) -> Iterator[Finding]:
    """The gate past the archive is closed."""
    marked = host.found.value(gates.BYPASS)
    if host.gap is None and not marked:
        return
    told = host.gap or {"opened": marked, "by": "nobody known", "why": "not recorded"}
    until = f" to {told['closed']}" if "closed" in told else ""
    yield Finding(
        "gap-open",
        CRITICAL,
        f"main.cf: {gates.BYPASS}",
        f"mail goes unarchived since {told['opened']}{until}, by {told['by']}:"
        f" {told['why']}",
        "postfix-archive bypass off" if host.gap else _closing(host),
    )


def key(host: Observed) -> Iterator[Finding]:
    """The key is there, and its user's alone."""
    if host.settings is None:
        return
    path = host.settings.archive_key_file
    user = host.user()
    there = host.files[path]
    if path in host.closed:
        harm = f"{user} cannot pass {host.closed[path]} to the key, so all mail waits"
        cure = f"chmod a+x {shlex.quote(host.closed[path])}"
        yield Finding("key-folder", CRITICAL, path, harm, cure)
    if not there.is_there:
        cure = f"postfix-archive key create --owner {user}"
        yield _broken("key-missing", path, "there is no key, so all mail waits", cure)
    elif user and there.owner != user:
        harm = (
            f"it belongs to {there.owner}, so {user} cannot read it and all mail waits"
        )
        yield _broken("key-owner", path, harm, _chown(path, user))
    elif there.mode & 0o077:
        harm = "others can read the key and forge stamps, capsules and requests"
        yield _broken("key-mode", path, harm, f"chmod 600 {shlex.quote(path)}")


def store(host: Observed) -> Iterator[Finding]:
    """The store is there, and its user's alone."""
    if host.settings is None or not host.settings.stores:
        return
    path = host.settings.archive_store_directory
    user = host.user()
    for each in host.files.values():
        if each.path != path and not each.path.startswith(f"{path}/"):
            continue
        where = shlex.quote(each.path)
        if not each.is_folder:
            made = f"install -d -m 700 -o {user} {where}"
            harm = "there is no store, so copies wait in the queue and expire"
            yield _broken("store-missing", each.path, harm, made)
        elif user and each.owner != user:
            harm = f"it belongs to {each.owner}: {user} cannot write, so copies wait"
            yield _broken("store-owner", each.path, harm, _chown(each.path, user))
        elif each.mode & 0o077:
            harm = "others than the archive's user can read archived mail"
            yield _broken("store-mode", each.path, harm, f"chmod 700 {where}")


def spool(host: Observed) -> Iterator[Finding]:
    """Large messages can be set aside."""
    if host.settings is None:
        return
    there = host.files[host.settings.archive_spool_directory]
    writable = there.mode & 0o002 or there.owner == host.user()
    if not there.is_folder or not writable:
        yield Finding(
            "spool",
            CRITICAL,
            there.path,
            f"{host.user()} cannot write there, so messages over 4 MB wait for ever",
            "in archive.cf set archive_spool_directory to a folder of its own",
        )


def space(host: Observed) -> Iterator[Finding]:
    """Room for copies, for the queue, for what is set aside."""
    for path, free in host.free.items():
        if free < LITTLE:
            yield Finding(
                "free-space",
                CRITICAL if free < TOO_LITTLE else WARNING,
                path,
                f"{free >> 20} MiB are left: when it is full, copies wait and new mail"
                " is refused",
                f"make room on the file system of {path}",
            )


def version(host: Observed) -> Iterator[Finding]:
    """A Postfix that has all we need."""
    if host.found.version < OLDEST:
        yield Finding(
            "version",
            CRITICAL,
            f"Postfix {host.found.raw('mail_version')}",
            "it is older than 3.4: what master.cf.d says is not understood",
            "upgrade Postfix",
        )


def python(host: Observed) -> Iterator[Finding]:
    """The program is run by the version of Python that it was laid down for."""
    for place, other in host.pythons.items():
        yield Finding(
            "python",
            WARNING,
            place,
            f"{other} is another version than this was installed for: a message costs"
            " twice the CPU, and the commands may not start",
            "make install, in the sources of the release that is in use",
        )


def two_keys(host: Observed) -> Iterator[Finding]:
    """Instances that archive to one address share a key."""
    ours = set(gates.archives(host.found))
    for each in host.neighbours:
        shared = ours.intersection(each.archives)
        if shared and host.keys and not host.keys & each.keys:
            yield Finding(
                "two-keys",
                WARNING,
                f"{each.directory}: archive = {min(shared)}",
                "that instance has another key: mail that passes both is stamped and"
                " archived twice",
                f"give both one key file: copy a line of {each.directory}'s key to the"
                " end of the other's, and the other way round",
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
