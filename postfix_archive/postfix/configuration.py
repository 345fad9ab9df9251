"""Postfix's configuration as a value: parameters, services, expansion of $name.

Used by install, doctor, tables and reconcile; postfix/postfix_command reads it. Follows
postconf(5) and master(5). It never changes: install/install_plan lists the postconf(1)
commands that change the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from postfix_archive.errors import SettingInvalid
from postfix_archive.postfix import main_cf

DEFAULT_QUEUE_LIFETIME = 5 * 86400  # seconds (postconf(5))


@dataclass(frozen=True)
class Service:
    """One entry of master.cf (master(5))."""

    name: str
    kind: str  # inet, unix, fifo, pass, unix-dgram
    fields: tuple[str, ...]  # private, unpriv, chroot, wakeup, maxproc, as written
    command: str  # daemon program with its arguments, without -o options
    options: Mapping[str, str] = field(default_factory=dict)
    line: str = ""  # the entry as postconf -M prints it

    @property
    def key(self) -> str:
        """The entry's name in postconf -M: name/type."""
        return f"{self.name}/{self.kind}"

    def argument(self, name: str) -> str:
        """Return the value of ``--name value`` or pipe(8)'s ``name=value``, else ""."""
        arguments = iter(self.command.split(" "))
        for word in arguments:
            if word == f"--{name}":
                return next(arguments, "")
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
        return ""

    @property
    def program(self) -> str:
        """The daemon program: smtpd, pipe, cleanup."""
        return self.command.split(" ", 1)[0]


@dataclass(frozen=True)
class Configuration:
    """main.cf and master.cf of one instance, as postconf(1) prints them."""

    directory: str
    main: Mapping[str, str]  # parameters set in main.cf (postconf -n)
    parameters: Mapping[str, str]  # all parameters with defaults, not expanded
    services: tuple[Service, ...]

    @property
    def version(self) -> tuple[int, int]:
        """Postfix's version, such as (3, 7)."""
        parts = self.parameters.get("mail_version", "").replace("-", ".").split(".")
        major, minor, *_ = [main_cf.parse_number(each) or 0 for each in [*parts, "0"]]
        return major, minor

    def service(self, key: str) -> Service | None:
        """Return the service with this name/type, None if there is none."""
        return next((each for each in self.services if each.key == key), None)

    def raw(self, name: str, service: Service | None = None) -> str:
        """Return a parameter as written; a -o option of the service has precedence."""
        if service is not None and name in service.options:
            return service.options[name]
        return self.main.get(name, self.parameters.get(name, ""))

    def value(self, name: str, service: Service | None = None) -> str:
        """Return a parameter as this service sees it, with every $name expanded."""
        return self.expand(self.raw(name, service), service)

    def seconds(self, name: str, service: Service | None = None) -> int | None:
        """Return a time in seconds, None if the value is not a time or number.

        A number without unit has the parameter's own.
        """
        unit = main_cf.DEFAULT_UNITS.get(name, "s")
        return main_cf.parse_time(self.value(name, service), unit)

    def queue_lifetime(self, name: str) -> int:
        """Return the seconds that mail may be queued; 0 is one delivery attempt.

        name: maximal_queue_lifetime or bounce_queue_lifetime.
        """
        seconds = self.seconds(name)
        return DEFAULT_QUEUE_LIFETIME if seconds is None else seconds

    def expand(self, text: str, service: Service | None = None) -> str:
        """Expand the $names in text as this service does.

        A value that Postfix rejects, such as one with circular references, stays as
        written.
        """
        try:
            text = main_cf.expand(text, lambda name: self.raw(name, service))
        except SettingInvalid:
            pass
        return " ".join(text.split())


def parse_services(listing: str) -> tuple[Service, ...]:
    """Parse the output of postconf -M, one entry per line."""
    entries = map(split_entry, listing.split("\n"))
    return tuple(_parse_service(each) for each in entries if len(each) > 1)


def parse_parameters(listing: str) -> dict[str, str]:
    """Parse the output of postconf or postconf -n."""
    pairs = (line.partition("=") for line in listing.split("\n") if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def split_list(text: str) -> list[str]:
    """Split a list at commas and white space, not inside braces (postconf(5))."""
    elements, element, depth = [], "", 0
    for char in text:
        if depth == 0 and char in ", \t\n":
            elements.append(element)
            element = ""
            continue
        depth += {"{": 1, "}": -1}.get(char, 0)
        element += char
    return [each for each in [*elements, element] if each]


def _parse_service(parts: list[str]) -> Service:
    name, kind, *rest = parts
    fields, rest = tuple(rest[:5]), rest[5:]
    options: dict[str, str] = {}
    command = rest[:1]
    arguments = iter(rest[1:])
    for argument in arguments:
        if argument == "-o":
            option, _, value = next(arguments, "").partition("=")
            options[option.strip()] = value.strip()
        else:
            command.append(argument)
    return Service(name, kind, fields, " ".join(command), options, " ".join(parts))


def split_entry(line: str) -> list[str]:
    """Split an entry of master.cf at white space; ``{ a b }`` is one word (master(5)).

    Braces around a single word are removed, as postconf(1) does.
    """
    split_words: list[str] = []
    rest = line.strip()
    while rest:
        if rest.startswith("{"):
            word, rest = main_cf.split_brackets(rest) or (rest[1:], "")
            needs_braces = len(word.split()) > 1 and split_words[-1:] != ["-o"]
            word = f"{{{word}}}" if needs_braces else word.strip()
        else:
            word, _, rest = rest.partition(" ")
        split_words.append(word)
        rest = rest.lstrip()
    return split_words


def name_of(postfix_config: Configuration) -> str:
    """Return multi_instance_name, else the name of the configuration directory."""
    return (
        postfix_config.raw("multi_instance_name")
        or Path(postfix_config.directory).resolve().name
    )
