"""Checks of the transports that run us: the stamp filter and the archive transport.

Used by core/checkup. What pipe(8) does with a wrong entry is in its manual: most of it
ends in a bounce, or in a message delivered without having been archived.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from postfix_archive.core import ways, workers
from postfix_archive.core.configuration import Service
from postfix_archive.core.finding import CRITICAL, WARNING, Finding
from postfix_archive.core.observed import Observed, launcher

SOFT = (ways.STAMP, "archive", "archive-relay", "archive-local")
MOST_RECIPIENTS = 3500  # 2 x 263 bytes each stay below the kernel's argument limit
REINSTALL = "make install"


def services_missing(host: Observed) -> Iterator[Finding]:
    """A service of master.cf.d that is not in master.cf."""
    for key in host.reference:
        name, _, kind = key.rpartition("/")
        if key == workers.SAMPLE:
            continue
        if kind == "unix" and host.found.service(key) is None:
            yield Finding(
                "service-missing",
                CRITICAL,
                f"master.cf: {key}",
                f"there is no service {name}: mail that needs it waits and is bounced"
                " after maximal_queue_lifetime",
                REINSTALL,
            )


def soft_bounce(host: Observed) -> Iterator[Finding]:
    """soft_bounce=yes on everything that captures mail or carries copies."""
    for each in host.found.services:
        ours = each.name in SOFT or each in host.captures()
        if ours and each.kind == "unix" and each.options.get("soft_bounce") != "yes":
            yield Finding(
                "soft-bounce",
                CRITICAL,
                f"master.cf: {each.key}",
                "any failure of it, even a time limit, bounces mail to its sender or"
                " loses an archive copy",
                host.option(each, "soft_bounce", "yes"),
                is_safe=True,
            )


def recipient_limit(host: Observed) -> Iterator[Finding]:
    """One run of the stamp filter for the whole envelope."""
    accepted = [host.number("smtpd_recipient_limit", e) or 0 for e in host.clients()]
    wanted = min(max(accepted, default=0), MOST_RECIPIENTS)
    for each in host.stamps():
        name = f"{each.name}_destination_recipient_limit"
        limit = host.limit(name, "default_destination_recipient_limit")
        cure = host.setting(name, str(MOST_RECIPIENTS))
        if limit == 0 or limit > MOST_RECIPIENTS:
            harm = (
                f"{limit or 'no limit of'} recipients in one run go over the kernel's"
                " argument limit: such a message waits for ever"
            )
            yield Finding("recipient-limit", CRITICAL, name, harm, cure, is_safe=True)
        elif limit < wanted:
            harm = (
                f"a message to more than {limit} recipients is captured in pieces, and"
                " mailed copies come one a piece"
            )
            yield Finding("recipient-limit", WARNING, name, harm, cure, is_safe=True)


def time_limit(host: Observed) -> Iterator[Finding]:
    """pipe(8)'s time limit above our own."""
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
                f"pipe(8) kills a run after {limit} s, before our own deadline"
                f" (archive_time_limit in archive.cf, {ours} s) can defer and say why",
                host.setting(name, f"{ours + 100}s"),
                is_safe=True,
            )


def null_sender(host: Observed) -> Iterator[Finding]:
    """null_sender= (empty), or bounces come through with a sender."""
    for each in host.stamps():
        if "null_sender=" not in each.command.split():
            yield _entry_wrong(
                "null-sender",
                each,
                "notifications have the sender MAILER-DAEMON after the filter, so a"
                " failing one is answered by another",
            )


def flags(host: Observed) -> Iterator[Finding]:
    """flags=q and no other on the stamp filter, none on the archive transport."""
    for each in host.doors():
        given = set(each.argument("flags"))
        wanted = {"q"} if launcher(each) == ways.STAMP else set()
        if given != wanted:
            yield _entry_wrong(
                "flags",
                each,
                "addresses come unquoted, or pipe(8) puts lines into the message: what"
                " goes on is not what was received",
            )


def arguments(host: Observed) -> Iterator[Finding]:
    """Every argument of the reference, or a part of the envelope is not recorded."""
    for each in host.doors():
        key = f"{launcher(each)}/unix"
        reference = host.reference.get(key)
        wanted = _arguments(reference) if reference else []
        given = each.command.partition("argv=")[2].split()
        missing = [word for word in wanted if word not in given]
        if missing:
            yield _entry_wrong(
                "arguments",
                each,
                f"{missing[0]} is not passed, so runs defer or the envelope in the"
                " archive is incomplete",
            )


def pipe_user(host: Observed) -> Iterator[Finding]:
    """A user that pipe(8) accepts, and the same for both transports."""
    for each in host.launched():
        user, _, group = each.argument("user").partition(":")
        groups = {group} if group else set(host.groups.get(user, ()))
        owner = host.found.value("mail_owner")
        postdrop = host.found.value("setgid_group")
        if user in ("root", owner) or postdrop in groups:
            yield _entry_wrong(
                "pipe-user",
                each,
                f"pipe(8) refuses to run as {user}:{group or 'its groups'}, so all mail"
                " waits (not root, not the mail owner, not in group postdrop)",
            )
        elif user not in host.groups:
            yield _entry_wrong(
                "pipe-user", each, f"there is no user {user}: mail waits"
            )


def program(host: Observed) -> Iterator[Finding]:
    """The launcher that argv names is there and can be run."""
    for each in host.launched():
        there = host.files.get(each.argument("argv"))
        if there and not (there.is_there and there.mode & 0o005 == 0o005):
            yield Finding(
                "program-missing",
                CRITICAL,
                each.argument("argv"),
                f"{each.name} cannot run it, so mail waits and is bounced after"
                " maximal_queue_lifetime",
                REINSTALL,
            )


def program_folder(host: Observed) -> Iterator[Finding]:
    """The users of the doors can get at the program."""
    for each in host.launched():
        folder = host.closed.get(each.argument("argv"))
        if folder:
            yield Finding(
                "program-folder",
                CRITICAL,
                each.argument("argv"),
                f"the user of {each.name} cannot pass {folder}, so all mail waits",
                f"chmod a+x {shlex.quote(folder)}",
            )


def second_install(host: Observed) -> Iterator[Finding]:
    """Stamp filters that no installation of this directory made."""
    for each in host.stamps():
        number = each.name.removeprefix(ways.STAMP)
        if number and not (number[:1] == "-" and number[1:].isdigit()):
            yield Finding(
                "second-install",
                CRITICAL,
                f"master.cf: {each.key}",
                "a second stamp filter: mail that passes both is stamped and archived"
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
