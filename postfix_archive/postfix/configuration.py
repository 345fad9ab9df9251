"""Postfix's configuration as a value: parameters, services, expansion of $name.

Used by install, doctor, tables and reconcile; postfix/postfix_command reads it. Follows
postconf(5) and master(5). It never changes: install/install_plan lists the postconf(1)
commands that change the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DAY = 86400  # seconds
MAX_LENGTH = 1_000_000  # characters; nested $names can grow exponentially
ExpandedParameters = dict[str, str | None]  # expanded parameters; None: in progress
NUMBER_DIGITS = 18  # of a number or time; Postfix accepts ten
NAME_CHARS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
)


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
        major, minor, *_ = [int(e) if _is_number(e) else 0 for e in [*parts, "0"]]
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

    def seconds(
        self, name: str, service: Service | None = None, *, default_unit: int = 1
    ) -> int | None:
        """Return a time in seconds, None if the value is not a time or number.

        default_unit is the parameter's unit, in seconds, for a number without unit.
        """
        text = self.value(name, service)
        unit = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}.get(text[-1:])
        digits = text[:-1] if unit else text
        return int(digits) * (unit or default_unit) if _is_number(digits) else None

    def expand(self, text: str, service: Service | None = None) -> str:
        """Expand $name, ${name}, ${name?{a}:{b}} and ${{a} == {b} ? {c} : {d}}.

        A value with circular references stays as written; Postfix rejects it.
        """
        try:
            return " ".join(self._expand(text, service, {}).split())
        except RecursionError:
            return " ".join(text.split())

    def _expand(
        self,
        text: str,
        service: Service | None,
        expanded_parameters: ExpandedParameters,
    ) -> str:
        result = ""
        while "$" in text:
            literal, _, text = text.partition("$")
            result += literal
            if text.startswith("$"):
                result, text = result + "$", text[1:]
                continue
            macro, text = _split_macro(text)
            result += self._expand_macro(macro, service, expanded_parameters)
        return result + text

    def _expanded_parameter(
        self,
        name: str,
        service: Service | None,
        expanded_parameters: ExpandedParameters,
    ) -> str:
        """Return an expanded parameter. Raises RecursionError for a circular one."""
        if name not in expanded_parameters:
            expanded_parameters[name] = None  # a reference to it now is circular
            expanded_parameters[name] = self._expand(
                self.raw(name, service), service, expanded_parameters
            )
        expanded_value = expanded_parameters[name]
        if expanded_value is None or len(expanded_value) > MAX_LENGTH:
            raise RecursionError
        return expanded_value

    def _expand_macro(
        self,
        macro: str,
        service: Service | None,
        expanded_parameters: ExpandedParameters,
    ) -> str:
        if macro.startswith("{"):
            is_true, rest = self._compare(macro, service, expanded_parameters)
        else:
            length = _name_length(macro)
            name, rest = macro[:length], macro[length:].strip()
            expanded_value = self._expanded_parameter(
                name, service, expanded_parameters
            )
            if not rest:
                return expanded_value
            is_true = bool(expanded_value)
        if_true, if_false = _split_alternatives(rest)
        return self._expand(
            if_true if is_true else if_false, service, expanded_parameters
        )

    def _compare(
        self,
        macro: str,
        service: Service | None,
        expanded_parameters: ExpandedParameters,
    ) -> tuple[bool, str]:
        left, rest = _split_braces(macro)
        rest = rest.strip()
        operator = rest[: len(rest) - len(rest.lstrip("=!<>"))]
        right, rest = _split_braces(rest[len(operator) :].strip())
        left_value = self._expand(left, service, expanded_parameters).strip()
        right_value = self._expand(right, service, expanded_parameters).strip()
        is_equal = left_value == right_value
        return (is_equal if operator == "==" else not is_equal), rest.strip()


def parse_services(listing: str) -> tuple[Service, ...]:
    """Parse the output of postconf -M, one entry per line."""
    entries = map(split_entry, listing.split("\n"))
    return tuple(_parse_service(each) for each in entries if len(each) > 1)


def parse_parameters(listing: str) -> dict[str, str]:
    """Parse the output of postconf or postconf -n."""
    pairs = (line.partition("=") for line in listing.split("\n") if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS


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
            word, rest = _split_braces(rest)
            needs_braces = len(word.split()) > 1 and split_words[-1:] != ["-o"]
            word = f"{{{word}}}" if needs_braces else word.strip()
        else:
            word, _, rest = rest.partition(" ")
        split_words.append(word)
        rest = rest.lstrip()
    return split_words


def _split_macro(text: str) -> tuple[str, str]:
    """Split the text after ``$`` into the macro's content and the rest."""
    if text.startswith("{"):
        return _split_braces(text)
    if text.startswith("("):
        macro, _, rest = text[1:].partition(")")
        return macro, rest
    length = _name_length(text)
    return text[:length], text[length:]


def _name_length(text: str) -> int:
    for length, char in enumerate(text):
        if char not in NAME_CHARS:
            return length
    return len(text)


def _split_braces(text: str) -> tuple[str, str]:
    """Split text that starts with ``{``: content of the braces, rest."""
    depth = 0
    for position, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return text[1:position], text[position + 1 :]
    return text[1:], ""


def _split_alternatives(rest: str) -> tuple[str, str]:
    """Split ``?yes:no``; either part can be missing."""
    if rest.startswith(":"):
        return "", _split_alternative(rest[1:].strip())[0]
    if not rest.startswith("?"):
        return "", ""
    if_true, rest = _split_alternative(rest[1:].strip())
    return if_true, (
        _split_alternative(rest.strip()[1:].strip())[0]
        if rest.strip()[:1] == ":"
        else ""
    )


def _split_alternative(text: str) -> tuple[str, str]:
    return _split_braces(text) if text.startswith("{") else (text, "")


def name_of(postfix_config: Configuration) -> str:
    """Return multi_instance_name, else the name of the configuration directory."""
    return (
        postfix_config.raw("multi_instance_name")
        or Path(postfix_config.directory).resolve().name
    )
