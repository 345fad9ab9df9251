"""Check the master.cf entries of the stamp filter and the archive transport.

Used by doctor.checks. With most mistakes pipe(8) bounces mail, or delivers it without
archiving it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.core import ways, workers
from postfix_archive.core.configuration import Service
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed, launcher

SOFT = (ways.STAMP, "archive", "archive-relay", "archive-local")
MOST_RECIPIENTS = 3500  # x 2 arguments of 263 bytes: below ARG_MAX (execve(2))
REINSTALL = "make install"


def services_missing(host: Observed) -> Iterator[Finding]:
    """Report services of master.cf.d that are missing in master.cf."""
    for key in host.reference:
        name, _, kind = key.rpartition("/")
        if key == workers.SAMPLE:
            continue
        if kind == "unix" and host.found.service(key) is None:
            yield Finding(
                "service-missing",
                CRITICAL,
                f"master.cf: {key}",
                f"there is no service {name}: mail for it is deferred and bounces after"
                " maximal_queue_lifetime",
                REINSTALL,
            )


def soft_bounce(host: Observed) -> Iterator[Finding]:
    """Report transports of ours without soft_bounce=yes."""
    for each in host.found.services:
        is_ours = each.name in SOFT or each in host.captures()
        if is_ours and each.kind == "unix" and each.options.get("soft_bounce") != "yes":
            yield Finding(
                "soft-bounce",
                CRITICAL,
                f"master.cf: {each.key}",
                "any failure, even a time limit, bounces mail to its sender or loses an"
                " archive copy",
                host.option(each, "soft_bounce", "yes"),
                is_safe=True,
            )


def recipient_limit(host: Observed) -> Iterator[Finding]:
    """Report a recipient limit below smtpd(8)'s or above the kernel's."""
    accepted = [host.number("smtpd_recipient_limit", e) or 0 for e in host.clients()]
    wanted = min(max(accepted, default=0), MOST_RECIPIENTS)
    for each in host.stamps():
        name = f"{each.name}_destination_recipient_limit"
        limit = host.limit(name, "default_destination_recipient_limit")
        cure = host.setting(name, str(MOST_RECIPIENTS))
        if limit == 0 or limit > MOST_RECIPIENTS:
            harm = (
                f"{limit or 'unlimited'} recipients exceed the kernel's limit for"
                " arguments (ARG_MAX): such a message is deferred until it expires"
            )
            yield Finding("recipient-limit", CRITICAL, name, harm, cure, is_safe=True)
        elif limit < wanted:
            harm = (
                f"a message to more than {limit} recipients is captured in pieces, with"
                " a mailed copy for each"
            )
            yield Finding("recipient-limit", WARNING, name, harm, cure, is_safe=True)


def time_limit(host: Observed) -> Iterator[Finding]:
    """Report a time limit of pipe(8) that ends before our own deadline."""
    if host.settings is None:
        return
    ours = host.settings.archive_time_limit
    for each in host.doors():
        name = f"{each.name}_time_limit"
        limit = host.limit(name, "command_time_limit")
        if limit <= ours:
            yield Finding(
                "time-limit",
                WARNING,
                name,
                f"pipe(8) kills the process after {limit} s, before archive_time_limit"
                f" ({ours} s, in archive.cf) can defer the message with a reason",
                host.setting(name, f"{ours + 100}s"),
                is_safe=True,
            )


def null_sender(host: Observed) -> Iterator[Finding]:
    """Report a stamp filter without an empty null_sender=."""
    for each in host.stamps():
        if "null_sender=" not in each.command.split():
            yield _entry_wrong(
                "null-sender",
                each,
                "bounces get the sender MAILER-DAEMON in the filter, so that an"
                " undeliverable bounce causes another one",
            )


def flags(host: Observed) -> Iterator[Finding]:
    """Report pipe(8) flags other than q (stamp filter) or none (archive transport)."""
    for each in host.doors():
        given = set(each.argument("flags"))
        wanted = {"q"} if launcher(each) == ways.STAMP else set()
        if given != wanted:
            yield _entry_wrong(
                "flags",
                each,
                "addresses are not quoted, or pipe(8) adds lines to the message: it"
                " differs from what was received",
            )


def arguments(host: Observed) -> Iterator[Finding]:
    """Report arguments of the reference that are missing."""
    for each in host.doors():
        reference = host.reference.get(f"{launcher(each)}/unix")
        wanted = _arguments(reference) if reference else []
        given = each.command.partition("argv=")[2].split()
        missing = [argument for argument in wanted if argument not in given]
        if missing:
            yield _entry_wrong(
                "arguments",
                each,
                f"the argument {missing[0]} is missing: mail is deferred, or the"
                " envelope in the archive is incomplete",
            )


def pipe_user(host: Observed) -> Iterator[Finding]:
    """Report users that pipe(8) refuses, that do not exist, or that differ."""
    users = [each.argument("user").partition(":")[0] for each in host.launched()]
    for service in host.launched():
        user, _, group = service.argument("user").partition(":")
        groups = {group} if group else set(host.groups.get(user, ()))
        owner = host.found.value("mail_owner")
        postdrop = host.found.value("setgid_group")
        if user in ("root", owner) or postdrop in groups:
            yield _entry_wrong(
                "pipe-user",
                service,
                f"pipe(8) refuses to run as {user}:{group or 'its groups'} (root,"
                " mail_owner and members of setgid_group), so all mail is deferred",
            )
        elif user != users[0]:
            yield _entry_wrong(
                "pipe-user",
                service,
                f"runs as {user}, other services as {users[0]}: both write to the"
                " store, and one cannot use the files of the other",
            )
        elif user not in host.groups:
            yield _entry_wrong(
                "pipe-user", service, f"there is no user {user}: mail is deferred"
            )


def program(host: Observed) -> Iterator[Finding]:
    """Report launchers that do not exist or are not executable."""
    for each in host.launched():
        file = host.files.get(each.argument("argv"))
        if file and not (file.is_there and file.mode & 0o005 == 0o005):
            yield Finding(
                "program-missing",
                CRITICAL,
                each.argument("argv"),
                f"{each.name} cannot execute it: mail is deferred and bounces after"
                " maximal_queue_lifetime",
                REINSTALL,
            )


def program_folder(host: Observed) -> Iterator[Finding]:
    """Report directories that keep a service's user from its program."""
    for each in host.launched():
        directory = host.closed.get(each.argument("argv"))
        if directory:
            yield Finding(
                "program-folder",
                CRITICAL,
                each.argument("argv"),
                f"the user of {each.name} cannot search {directory}, so all mail is"
                " deferred",
                f"chmod a+x {shlex.quote(directory)}",
            )


def second_install(host: Observed) -> Iterator[Finding]:
    """Report stamp filters that make install did not create."""
    for each in host.stamps():
        suffix = each.name.removeprefix(ways.STAMP)
        if suffix and not (suffix[:1] == "-" and suffix[1:].isdigit()):
            yield Finding(
                "second-install",
                CRITICAL,
                f"master.cf: {each.key}",
                "second stamp filter: mail that passes both is stamped and archived"
                " twice",
                host.command("postconf", "-M", "-X", each.key),
            )


def _arguments(reference: Service) -> list[str]:
    return reference.command.partition("argv=")[2].split()[1:]


def _entry_wrong(check: str, service: Service, harm: str) -> Finding:
    return Finding(check, CRITICAL, f"master.cf: {service.key}", harm, REINSTALL)


CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    services_missing,
    soft_bounce,
    recipient_limit,
    time_limit,
    null_sender,
    flags,
    arguments,
    pipe_user,
    program,
    program_folder,
    second_install,
)
