"""Check archive.cf, the bypass, key, store, spool, free space and versions.

Used by doctor.checks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.doctor.finding import ADVICE, Finding, attribute_finding
from postfix_archive.doctor.host import Host, OtherInstance
from postfix_archive.message.dates import DAY_SECONDS
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import archive_services
from postfix_archive.store import known_end
from postfix_archive.store.bypass_period import BypassPeriod

LOW_SPACE, CRITICAL_SPACE = 1 << 30, 100 << 20  # bytes
SEAL_LATE_AGE = 2 * DAY_SECONDS  # of a daily timer
MINIMUM_VERSION = (3, 4)
PURGE_LATE_AGE = 2 * 86400  # seconds: it runs once a day


def check_settings(host: Host) -> Iterator[Finding]:
    """Report an archive.cf that has an error or differs from main.cf."""
    if host.settings is None:
        harm = "the stamp filter and the archive transport defer all mail"
        yield Finding(
            "settings-invalid", CRITICAL, host.settings_error, harm, "correct that line"
        )
        return
    pairs = (
        ("host-name", "myhostname", host.settings.myhostname.decode()),
        ("mail-owner", "mail_owner", host.settings.mail_owner),
    )
    for check, name, our_value in pairs:
        main_cf_value = host.config.value(name)
        if our_value != main_cf_value:
            yield Finding(
                check,
                WARNING,
                f"archive.cf: {name} = {our_value}",
                f"main.cf has {main_cf_value}: a requeued message gets a new archive id"
                " and is archived twice",
                f"in archive.cf set {name} = {main_cf_value}",
            )


def check_bypass(host: Host) -> Iterator[Finding]:
    """Report a bypass that is on."""
    value = host.config.value(archive_services.BYPASS_PARAMETER)
    if host.bypass is None and not value:
        return
    period = host.bypass or BypassPeriod(value, "unknown", "not recorded")
    until = f" to {period.ended}" if period.ended else ""
    yield Finding(
        "bypass-on",
        CRITICAL,
        f"main.cf: {archive_services.BYPASS_PARAMETER}",
        f"bypass on, mail is not archived since {period.started}{until}, by"
        f" {period.started_by}: {period.reason}",
        (
            host.archive_command("bypass", "off")
            if host.bypass
            else _bypass_off_command(host)
        ),
    )


def check_key(host: Host) -> Iterator[Finding]:
    """Report a key file that is missing, unreadable for its user, or not private."""
    if host.settings is None:
        return
    path = host.settings.archive_key_file
    user = host.archive_user()
    file = host.files[path]
    if path in host.blocking_directories:
        harm = (
            f"{user} cannot search {host.blocking_directories[path]}, so all mail is"
            " deferred"
        )
        fix = f"chmod a+x {shlex.quote(host.blocking_directories[path])}"
        yield Finding("key-unreachable", CRITICAL, path, harm, fix)
    if not file.exists:
        harm = "the key file does not exist, so all mail is deferred"
        fix = host.archive_command("key", "create", "--owner", user)
        yield Finding("key-missing", CRITICAL, path, harm, fix)
    elif host.key_error:
        harm = f"all mail is deferred: {host.key_error}"
        fix = "correct it, or restore the file"
        yield Finding("key-invalid", CRITICAL, path, harm, fix)
    elif user and file.owner != user:
        harm = f"{file.owner} owns it and {user} cannot read it: all mail is deferred"
        yield attribute_finding("key-owner", file, harm, "chown", user)
    elif file.mode & 0o077:
        harm = "others can read the key and forge stamps, capsules and requests"
        yield attribute_finding("key-mode", file, harm, "chmod", "600")


def check_capsule_helo(host: Host) -> Iterator[Finding]:
    """Report that the stamp filter cannot give the name that the capsule port wants."""
    table = host.config.value("archive_capsule_helo")
    if host.settings is None or not table:
        return
    path = host.settings.capsule_helo_file
    file, user = host.files[path], host.archive_user()
    harm = (
        "port 10027 refuses every capsule, so all mail that the store does not take at"
        " once is deferred"
    )
    if table != f"texthash:{path}" or not file.exists:
        steps = (
            host.archive_command("key", "helo"),
            host.parameter_command("archive_capsule_helo", f"texthash:{path}"),
            host.postfix_command("postfix", "reload"),
        )
        reason = f"archive_capsule_helo = {table}, and {path} is the table to use"
        fix = " && ".join(steps)
        yield Finding("capsule-helo", CRITICAL, path, f"{harm} ({reason})", fix)
    elif file.owner != user:
        harm = f"{file.owner} owns it and {user} cannot read it: {harm}"
        yield attribute_finding("capsule-helo-owner", file, harm, "chown", user)
    elif file.mode & 0o077:
        harm = "others can read the name and send forged capsules"
        yield attribute_finding("capsule-helo-mode", file, harm, "chmod", "600")


def check_store(host: Host) -> Iterator[Finding]:
    """Report a store that is missing, not writable for its user, or not private."""
    if host.settings is None or not host.settings.has_store:
        return
    path = host.settings.archive_store_directory
    user = host.archive_user()
    for file in host.files.values():
        if file.path != path and not file.path.startswith(f"{path}/"):
            continue
        if not file.is_directory:
            fix = f"install -d -m 700 -o {user} {shlex.quote(file.path)}"
            harm = "no such directory: copies wait in the queue and expire"
            yield Finding("store-missing", CRITICAL, file.path, harm, fix)
        elif user and file.owner != user:
            harm = f"{file.owner} owns it and {user} cannot write: copies are deferred"
            yield attribute_finding("store-owner", file, harm, "chown", user)
        elif file.mode & (0o027 if host.settings.archive_reader_group else 0o077):
            harm = f"users other than {user} can read archived mail"
            yield attribute_finding("store-mode", file, harm, "chmod", "700")


def check_readers(host: Host) -> Iterator[Finding]:
    """Report that archive_reader_group or the web page's user cannot read the store."""
    if host.settings is None or not host.settings.has_store:
        return
    place = f"archive_reader_group = {host.settings.archive_reader_group}"
    if not host.is_store_shared:
        yield Finding(
            "reader-group",
            WARNING,
            place,
            "the store is not readable for this group, or there is no such group",
            host.archive_command("readers"),
            is_safe=True,
        )
    elif not host.has_access_service:
        yield Finding(
            "access-service",
            WARNING,
            place,
            "nothing answers at archive_access_socket: what members read cannot be"
            " recorded, so they are shown nothing",
            f"{host.install_command()} sets up its service; or keep"
            f" {host.archive_command('access-service')} running",
        )
    if host.web_user_problem:
        group = host.settings.archive_reader_group or "GROUP"
        yield Finding(
            "web-user",
            WARNING,
            f"archive_web_user = {host.settings.archive_web_user}",
            host.web_user_problem,
            "give the web page a user of its own: useradd --system --shell"
            f" /usr/sbin/nologin --groups {group} NAME, or usermod -aG {group} NAME",
        )


def check_journals(host: Host) -> Iterator[Finding]:
    """Report journals that have lost lines, or are missing with their archives."""
    if host.settings is None:
        return
    advice = known_end.advice(host.settings.archive_fallback_directory)
    for archive, loss in host.journal_losses.items():
        path = f"{host.settings.archive_store_directory}/{archive}"
        if archive == known_end.SEALS:
            harm = f"{loss}: nobody can check any more what it proves"
            yield Finding("seals-lost", CRITICAL, path, harm, advice)
            continue
        yield Finding(
            "journal-lost",
            CRITICAL,
            path,
            f"{loss}: it was cut, replaced, or its file system is not mounted; copies"
            " go into the fallback directory",
            advice,
        )


def check_seals(host: Host) -> Iterator[Finding]:
    """Report journal lines that no seal covers, where seals are configured."""
    if host.unsealed_age > SEAL_LATE_AGE:
        days = host.unsealed_age / DAY_SECONDS
        yield Finding(
            "seal-late",
            WARNING,
            "postfix-archive seal",
            f"the journals have lines of {days:.0f} days ago that nobody has witnessed:"
            " who changes them is not found out",
            f"{host.archive_command('seal')} says why; {host.install_command()} sets up"
            " its timer",
        )


def check_retention(host: Host) -> Iterator[Finding]:
    """Report retention rules that are wrong, and a purge that does not end."""
    if host.settings is None or not (host.settings.has_store and host.has_retention):
        return
    if host.retention_error:
        yield Finding(
            "retention-rule-invalid",
            WARNING,
            host.settings.retention_rules_file,
            f"nothing is removed: {host.retention_error}",
            "correct that line",
        )
    if host.unknown_retention_archives:
        yield Finding(
            "retention-archive-unknown",
            ADVICE,
            f"{host.settings.config_directory}/archive.cf: archive_retention",
            f"no archive has the address {', '.join(host.unknown_retention_archives)}",
            "correct it; `postfix-archive status` lists the archives",
        )
    if host.purge_age is None or host.purge_age > PURGE_LATE_AGE:
        yield Finding(
            "purge-late",
            WARNING,
            "postfix-archive purge",
            "it has not come to its end for two days: mail stays longer than the rules"
            " say",
            f"{host.archive_command('purge')} says why; its timer runs it every day",
        )


def check_store_format(host: Host) -> Iterator[Finding]:
    """Report archives that have a journal of store format 1."""
    for path in host.old_journals:
        yield Finding(
            "store-format",
            CRITICAL,
            path,
            "a journal of store format 1, which this version neither reads nor writes:"
            " copies go into the fallback directory",
            "in archive.cf set archive_store_directory to another directory, and keep"
            " this one with the version that wrote it",
        )


def check_spool(host: Host) -> Iterator[Finding]:
    """Report a spool directory in which the archive's user cannot write."""
    if host.settings is None:
        return
    file = host.files[host.settings.archive_spool_directory]
    is_writable = file.mode & 0o002 or file.owner == host.archive_user()
    if not file.is_directory or not is_writable:
        yield Finding(
            "spool-unwritable",
            CRITICAL,
            file.path,
            f"{host.archive_user()} cannot write there: messages over 4 MB are deferred"
            " until they expire",
            "in archive.cf set archive_spool_directory to a directory of its own",
        )


def check_free_space(host: Host) -> Iterator[Finding]:
    """Report file systems of store, queue and spool that are nearly full."""
    for path, free in host.free_bytes.items():
        if free < LOW_SPACE:
            yield Finding(
                "free-space",
                CRITICAL if free < CRITICAL_SPACE else WARNING,
                path,
                f"{free >> 20} MiB free: on a full disk copies are deferred and new"
                " mail is refused",
                f"free space on the file system of {path}",
            )


def check_version(host: Host) -> Iterator[Finding]:
    """Report a Postfix that is too old."""
    if host.config.version < MINIMUM_VERSION:
        yield Finding(
            "postfix-too-old",
            CRITICAL,
            f"Postfix {host.config.raw('mail_version')}",
            "older than 3.4: it does not support what master.cf.d uses",
            "upgrade Postfix",
        )


def check_python(host: Host) -> Iterator[Finding]:
    """Report a Python other than the one that the program was installed for."""
    for directory, python_path in host.python_mismatches.items():
        yield Finding(
            "python-changed",
            WARNING,
            directory,
            f"{python_path} is not the version that this was installed for: a message"
            " costs twice the CPU time, and the commands may not start",
            host.install_command(),
        )


def check_shared_keys(host: Host) -> Iterator[Finding]:
    """Report instances that archive to one address with different keys."""
    if host.settings is None:
        return
    our_archives = set(archive_services.configured_archives(host.config))
    for other in host.other_instances:
        shared_archives = our_archives.intersection(other.archives)
        if (
            shared_archives
            and host.key_digests
            and not host.key_digests & other.key_digests
        ):
            yield Finding(
                "different-keys",
                WARNING,
                f"{other.directory}: archive = {min(shared_archives)}",
                "that instance has another key: mail that passes both instances is"
                " stamped and archived twice",
                _share_keys_command(host, other),
            )


def _share_keys_command(host: Host, other: OtherInstance) -> str:
    """Return the command that appends the keys of each instance to the other's file.

    Each keeps its own first key. The empty line ends an unfinished last line.
    """
    assert host.settings is not None
    pair = [host.settings.archive_key_file, other.key_file]
    ours, theirs = map(shlex.quote, pair)
    commands = [f"(echo; cat {theirs}) >> {ours}", f"(echo; cat {ours}) >> {theirs}"]
    return " && ".join(commands)


def _bypass_off_command(host: Host) -> str:
    return host.parameter_command(archive_services.BYPASS_PARAMETER, "")


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_bypass,
    check_settings,
    check_key,
    check_capsule_helo,
    check_store,
    check_readers,
    check_journals,
    check_retention,
    check_seals,
    check_store_format,
    check_spool,
    check_free_space,
    check_version,
    check_python,
    check_shared_keys,
)
