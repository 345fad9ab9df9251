"""Postfix's configuration as a value: parameters, services, expansion of $name.

Used by install, doctor, tables and reconcile; postfix/commands reads it. Follows
postconf(5) and master(5). It never changes: install/plan lists the postconf(1) commands
that change the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DAY = 86400  # seconds
LONGEST = 1_000_000  # characters; nested $names can grow exponentially
Known = dict[str, str | None]  # expanded parameters; None: in progress
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
        words = iter(self.command.split(" "))
        for word in words:
            if word == f"--{name}":
                return next(words, "")
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
    known: Mapping[str, str]  # all parameters with defaults, not expanded
    services: tuple[Service, ...]

    @property
    def version(self) -> tuple[int, int]:
        """Postfix's version, such as (3, 7)."""
        words = self.known.get("mail_version", "").replace("-", ".").split(".")
        first, second, *_ = [int(e) if _is_number(e) else 0 for e in [*words, "0"]]
        return first, second

    def service(self, key: str) -> Service | None:
        """Return the service with this name/type, None if there is none."""
        return next((each for each in self.services if each.key == key), None)

    def raw(self, name: str, service: Service | None = None) -> str:
        """Return a parameter as written; a -o option of the service has precedence."""
        if service is not None and name in service.options:
            return service.options[name]
        return self.main.get(name, self.known.get(name, ""))

    def value(self, name: str, service: Service | None = None) -> str:
        """Return a parameter as this service sees it, with every $name expanded."""
        return self.expanded(self.raw(name, service), service)

    def seconds(
        self, name: str, service: Service | None = None, *, plain: int = 1
    ) -> int | None:
        """Return a time in seconds, None if the value is not a time or number.

        default_unit is the parameter's unit, in seconds, for a number without unit.
        """
        text = self.value(name, service)
        unit = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}.get(text[-1:])
        digits = text[:-1] if unit else text
        return int(digits) * (unit or plain) if _is_number(digits) else None

    def expanded(self, text: str, service: Service | None = None) -> str:
        """Expand $name, ${name}, ${name?{a}:{b}} and ${{a} == {b} ? {c} : {d}}.

        A value with circular references stays as written; Postfix rejects it.
        """
        try:
            return " ".join(self._expand(text, service, {}).split())
        except RecursionError:
            return " ".join(text.split())

    def _expand(self, text: str, service: Service | None, known: Known) -> str:
        done = ""
        while "$" in text:
            before, _, text = text.partition("$")
            done += before
            if text.startswith("$"):
                done, text = done + "$", text[1:]
                continue
            inner, text = _macro(text)
            done += self._macro_value(inner, service, known)
        return done + text

    def _named(self, name: str, service: Service | None, known: Known) -> str:
        """Return an expanded parameter. Raises RecursionError for a circular one."""
        if name not in known:
            known[name] = None  # a reference to it now is circular
            known[name] = self._expand(self.raw(name, service), service, known)
        found = known[name]
        if found is None or len(found) > LONGEST:
            raise RecursionError
        return found

    def _macro_value(self, inner: str, service: Service | None, known: Known) -> str:
        if inner.startswith("{"):
            held, rest = self._compared(inner, service, known)
        else:
            length = _name_length(inner)
            name, rest = inner[:length], inner[length:].strip()
            found = self._named(name, service, known)
            if not rest:
                return found
            held = bool(found)
        yes, no = _alternatives(rest)
        return self._expand(yes if held else no, service, known)

    def _compared(
        self, inner: str, service: Service | None, known: Known
    ) -> tuple[bool, str]:
        left, rest = _braced(inner)
        rest = rest.strip()
        sign = rest[: len(rest) - len(rest.lstrip("=!<>"))]
        right, rest = _braced(rest[len(sign) :].strip())
        one = self._expand(left, service, known).strip()
        other = self._expand(right, service, known).strip()
        equal = one == other
        return (equal if sign == "==" else not equal), rest.strip()


def services(listing: str) -> tuple[Service, ...]:
    """Parse the output of postconf -M, one entry per line."""
    entries = map(words_of_entry, listing.split("\n"))
    return tuple(_service(each) for each in entries if len(each) > 1)


def parameters(listing: str) -> dict[str, str]:
    """Parse the output of postconf or postconf -n."""
    pairs = (line.partition("=") for line in listing.split("\n") if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS


def words(text: str) -> list[str]:
    """Split a list at commas and white space, not inside braces (postconf(5))."""
    found, word, depth = [], "", 0
    for char in text:
        if depth == 0 and char in ", \t\n":
            found.append(word)
            word = ""
            continue
        depth += {"{": 1, "}": -1}.get(char, 0)
        word += char
    return [each for each in [*found, word] if each]


def _service(parts: list[str]) -> Service:
    name, kind, *rest = parts
    fields, rest = tuple(rest[:5]), rest[5:]
    options: dict[str, str] = {}
    command = rest[:1]
    left = iter(rest[1:])
    for word in left:
        if word == "-o":
            option, _, value = next(left, "").partition("=")
            options[option.strip()] = value.strip()
        else:
            command.append(word)
    return Service(name, kind, fields, " ".join(command), options, " ".join(parts))


def words_of_entry(line: str) -> list[str]:
    """Split an entry of master.cf at white space; ``{ a b }`` is one word (master(5)).

    Braces around a single word are removed, as postconf(1) does.
    """
    found: list[str] = []
    rest = line.strip()
    while rest:
        if rest.startswith("{"):
            word, rest = _braced(rest)
            held = len(word.split()) > 1 and found[-1:] != ["-o"]
            word = f"{{{word}}}" if held else word.strip()
        else:
            word, _, rest = rest.partition(" ")
        found.append(word)
        rest = rest.lstrip()
    return found


def _macro(text: str) -> tuple[str, str]:
    """Split the text after ``$`` into the macro's content and the rest."""
    if text.startswith("{"):
        return _braced(text)
    if text.startswith("("):
        inner, _, rest = text[1:].partition(")")
        return inner, rest
    length = _name_length(text)
    return text[:length], text[length:]


def _name_length(text: str) -> int:
    for length, char in enumerate(text):
        if char not in NAME_CHARS:
            return length
    return len(text)


def _braced(text: str) -> tuple[str, str]:
    """Split text that starts with ``{``: content of the braces, rest."""
    depth = 0
    for at, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return text[1:at], text[at + 1 :]
    return text[1:], ""


def _alternatives(rest: str) -> tuple[str, str]:
    """Split ``?yes:no``; either part can be missing."""
    if rest.startswith(":"):
        return "", _part(rest[1:].strip())[0]
    if not rest.startswith("?"):
        return "", ""
    yes, rest = _part(rest[1:].strip())
    return yes, _part(rest.strip()[1:].strip())[0] if rest.strip()[:1] == ":" else ""


def _part(text: str) -> tuple[str, str]:
    return _braced(text) if text.startswith("{") else (text, "")
