"""Plans an installation: which entries of main.cf and master.cf must change.

Used by install/instance. Takes Postfix's configuration and returns changes, each with
the value before it; changes nothing. An entry that has its value already yields no
change, so the plan of an installed instance is empty. Changes that route mail to the
stamp filter come last; all others only prepare for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from postfix_archive.core import configuration, doors, gates, ways, workers
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import InstallRefused
from postfix_archive.core.ways import STAMP, Change, Way, Ways, Wish


def plan(
    found: Configuration, wish: Wish, given: Mapping[str, str]
) -> tuple[Change, ...]:
    """Return the changes, those that route mail last.

    reference_entries: those of master.cf.d, by name/type. Raises InstallRefused if the
    configuration does not allow a safe installation.
    """
    _refuse_strangers(found, wish)
    behind = Ways(found, wish)
    every = [
        *_entries(found, wish, given, behind),
        *_preparing(found, wish, behind),
        *behind.services(),
        *behind.main(),
    ]
    return tuple(each for each in every if each.after != each.before)


def ports_needed(found: Configuration, wish: Wish) -> range:
    """Return the ports on which our services will listen."""
    further = len(Ways(found, wish).numbered) - 1
    return range(wish.port, wish.port + ways.PORTS + 2 * further)


def first_port(found: Configuration) -> int:
    """Return the first port of the installed services, 0 if there are none."""
    for each in found.services:
        if each.options.get("syslog_name", "").endswith("/archive-capsule"):
            port = each.name.rpartition(":")[2]
            return int(port) - 1 if port.isdigit() else 0
    return 0


def position(found: Configuration) -> str:
    """Return "before" or "after" as installed, "" without an installation."""
    if STAMP in found.raw("content_filter"):
        return "before"
    backs = Ways(found, Wish(archive="", program="")).backs
    gated = any(STAMP in each.options["content_filter"] for each in backs)
    return "after" if gated else ""


def entries(text: str) -> dict[str, str]:
    """Return the entries of a file of master.cf.d by name/type, each on one line."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t":
            lines[-1] += " " + line.strip()
        else:
            lines.append(line.strip())
    return {"/".join(line.split()[:2]): line for line in lines}


def _entries(
    found: Configuration, wish: Wish, given: Mapping[str, str], behind: Ways
) -> Iterator[Change]:
    """Yield the services of master.cf.d, and those of each additional route."""
    sample = given.get(workers.SAMPLE, "")
    lines = [line for line in given.values() if line != sample]
    if sample:
        lines += workers.entries(sample, found, behind, 1)
    for line in lines:
        yield _entry(found, _fitted(line, found, wish))
    for number, way in list(enumerate(behind.numbered, 1))[1:]:
        back = wish.port + ways.PORTS + 2 * (number - 2)
        for line in _stamps(found, given, behind, number, back):
            yield _entry(found, _fitted(line, found, wish))
        yield from _backs(found, wish, given, way, back)


def _stamps(
    found: Configuration,
    given: Mapping[str, str],
    behind: Ways,
    number: int,
    back: int,
) -> Iterator[str]:
    """Yield the stamp filter of an additional route, with workers in lmtp mode."""
    stamp = given[f"{STAMP}/unix"].replace(f"{STAMP} ", f"{STAMP}-{number} ", 1)
    addresses = f"--handback-address 127.0.0.1:{back}"
    addresses += f" --refused-address 127.0.0.1:{back + 1}"
    yield stamp.replace(" -- ", f" {addresses} -- ", 1)
    if sample := given.get(workers.SAMPLE, ""):
        for line in workers.entries(sample, found, behind, number):
            yield f"{line} {addresses}"


def _backs(
    found: Configuration, wish: Wish, given: Mapping[str, str], way: Way, back: int
) -> Iterator[Change]:
    """Yield the two reinjection ports (SMTP and QMQP) of an additional route."""
    for usual, port in ((ways.USUAL_PORT, back), (ways.USUAL_PORT + 4, back + 1)):
        line = given[f"127.0.0.1:{usual}/inet"]
        line = line.replace(f":{usual} ", f":{port} ", 1)
        options = way.handback_options or ways.HANDBACK
        said = "receive_override_options="
        start, _, rest = line.partition(said)
        line = f"{start}{said}{options} " + rest.partition(" ")[2]
        line = line.replace("$archive_next_filter", way.next_filter)
        yield _entry(found, _fitted(line, found, wish))


def _fitted(line: str, found: Configuration, wish: Wish) -> str:
    """Return an entry of master.cf.d with this host's ports, user and directory."""
    for offset in range(ways.PORTS):
        usual = f"127.0.0.1:{ways.USUAL_PORT + offset} "
        line = line.replace(usual, f"127.0.0.1:{wish.port + offset} ", 1)
    line = line.replace("user=postfix-archive", f"user={wish.user}")
    line = line.replace("/usr/local/lib/postfix-archive", wish.program)
    if found.version >= (3, 9):
        line = line.replace(" -- ", " --envid {${envid}} -- ", 1)
    return line


def _entry(found: Configuration, line: str) -> Change:
    """Return the change to one entry; a tuned maxproc value stays."""
    wanted = configuration.services(line)[0]
    there = found.service(wanted.key)
    if there is None:
        return Change("service", wanted.key, line)
    words = line.split()
    words[6] = there.fields[4]
    line = " ".join(words)
    same = configuration.services(line)[0].line == there.line
    return Change("service", wanted.key, there.line if same else line, there.line)


def _preparing(found: Configuration, wish: Wish, behind: Ways) -> Iterator[Change]:
    """Yield the changes to main.cf that must precede the routing changes."""
    yield ways.changed(found, "archive_next_filter", behind.usual.next_filter)
    yield ways.changed(found, "archive_handback_options", behind.usual.handback_options)
    yield ways.changed(found, "archive_relay", found.raw("archive_relay"))
    yield _kept(found, gates.BYPASS, "")
    for number in range(1, len(behind.numbered) + 1):
        for limit, value in ways.LIMITS[wish.mode]:
            yield _kept(found, f"{gates.transport(number)}_{limit}", value)
    yield _kept(found, "archive_time_limit", "1000s")
    routes = configuration.words(found.raw("transport_maps"))
    others = [each for each in routes if not each.startswith(ways.OUR_ROUTES)]
    yield ways.changed(
        found, "transport_maps", ", ".join([ways.routes(wish.mode), *others])
    )
    guarded = ways.guarded(found.raw("smtpd_recipient_restrictions"))
    yield ways.changed(found, "smtpd_recipient_restrictions", guarded)


def _kept(found: Configuration, name: str, value: str) -> Change:
    """Set a parameter unless main.cf sets it: the admin may have tuned it."""
    return ways.changed(found, name, found.main.get(name, value))


def _refuse_strangers(found: Configuration, wish: Wish) -> None:
    """Raise InstallRefused if a foreign service has one of our names or ports."""
    installed = ways.is_installed(found)
    for each in found.services:
        door = each.name in (STAMP, "archive") and each.kind == "unix"
        named = each.name in ways.OURS or gates.is_socket(each.name)
        ours = doors.is_launched(each) or doors.is_client(each)
        known = installed and each.name in ways.OURS and not door
        if named and not (ours or known):
            raise InstallRefused(
                f"{found.directory}/master.cf: service {each.key} exists and does not"
                " belong to postfix-archive; rename it there, in main.cf and in lookup"
                " tables"
            )
    taken = {str(port) for port in range(wish.port, wish.port + ways.PORTS)}
    for each in found.services:
        port = each.name.rpartition(":")[2]
        if each.kind == "inet" and port in taken and not ways.is_ours(each):
            raise InstallRefused(
                f"{found.directory}/master.cf: service {each.key} uses a port that"
                f" postfix-archive needs; choose another first port,"
                f" PORT={wish.port + 100}"
            )
