"""Postfix's configuration as a value: parameters, services, what they expand to.

Used by installation and the checks; back/postconf reads it. Follows postconf(5) and
master(5). Nothing here is changed: a plan says what is to be changed, and by which
postconf(1) command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DAY = 86400  # seconds
LONGEST = 1_000_000  # characters of a value; $names can double each other for ever
Known = dict[str, str | None]  # parameters that are expanded, None: just being so
NUMBER_DIGITS = 18  # of a number or a time; Postfix takes ten
NAME_CHARS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
)


@dataclass(frozen=True)
class Service:
    """One entry of master.cf (master(5))."""

    name: str
    kind: str  # inet, unix, fifo, pass, unix-dgram
    fields: tuple[str, ...]  # private, unpriv, chroot, wakeup, maxproc: as written
    command: str  # the program, with its arguments but without its -o options
    options: Mapping[str, str] = field(default_factory=dict)
    line: str = ""  # the whole entry on one line, as postconf -M has it

    @property
    def key(self) -> str:
        """What postconf -M calls it: name/type."""
        return f"{self.name}/{self.kind}"

    def argument(self, name: str) -> str:
        """Return what follows --name of its command, or name= of pipe(8)'s; else ""."""
        words = iter(self.command.split(" "))
        for word in words:
            if word == f"--{name}":
                return next(words, "")
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
        return ""

    @property
    def program(self) -> str:
        """The daemon: smtpd, pipe, cleanup and so on."""
        return self.command.split(" ", 1)[0]


@dataclass(frozen=True)
class Configuration:
    """main.cf and master.cf of one instance, as postconf(1) tells them."""

    directory: str
    main: Mapping[str, str]  # what main.cf says itself (postconf -n)
    known: Mapping[str, str]  # all parameters, defaults too, not expanded
    services: tuple[Service, ...]

    @property
    def version(self) -> tuple[int, int]:
        """Postfix's version: (3, 7)."""
        words = self.known.get("mail_version", "").replace("-", ".").split(".")
        first, second, *_ = [int(e) if _is_number(e) else 0 for e in [*words, "0"]]
        return first, second

    def service(self, key: str) -> Service | None:
        """Return the service name/type, None if master.cf has none."""
        return next((each for each in self.services if each.key == key), None)

    def raw(self, name: str, service: Service | None = None) -> str:
        """Return a parameter as written; a service's own -o counts first."""
        if service is not None and name in service.options:
            return service.options[name]
        return self.main.get(name, self.known.get(name, ""))

    def value(self, name: str, service: Service | None = None) -> str:
        """Return a parameter as this service sees it, every $name expanded."""
        return self.expanded(self.raw(name, service), service)

    def seconds(
        self, name: str, service: Service | None = None, *, plain: int = 1
    ) -> int | None:
        """Return a time in seconds, or a number; None if it is neither.

        plain is what a number without a unit counts in this parameter.
        """
        text = self.value(name, service)
        unit = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}.get(text[-1:])
        digits = text[:-1] if unit else text
        return int(digits) * (unit or plain) if _is_number(digits) else None

    def expanded(self, text: str, service: Service | None = None) -> str:
        """Expand $name, ${name}, ${name?{a}:{b}} and ${{a} == {b} ? {c} : {d}}.

        Names that refer to each other stay as they stand: Postfix gives up, too.
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
        """Return a parameter, expanded once; raises RecursionError for a ring."""
        if name not in known:
            known[name] = None  # until it is known: who needs it meanwhile is its part
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
    """Return the services of what postconf -M prints, one entry a line."""
    entries = map(words_of_entry, listing.split("\n"))
    return tuple(_service(each) for each in entries if len(each) > 1)


def parameters(listing: str) -> dict[str, str]:
    """Return the parameters of what postconf or postconf -n prints."""
    pairs = (line.partition("=") for line in listing.split("\n") if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS


def words(text: str) -> list[str]:
    """Part a list of postconf(5) at commas and white space; braces hold together."""
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
    """Part an entry of master.cf at white space; { a b } is one word.

    Braces that hold nothing together are left out, as postconf(1) does (master(5)).
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
    """Return what stands behind a dollar and belongs to it, and the rest."""
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
    """Return the inside of the braces with which text begins, and what follows."""
    depth = 0
    for at, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return text[1:at], text[at + 1 :]
    return text[1:], ""


def _alternatives(rest: str) -> tuple[str, str]:
    """Return what ?yes:no stands for; either part may be missing."""
    if rest.startswith(":"):
        return "", _part(rest[1:].strip())[0]
    if not rest.startswith("?"):
        return "", ""
    yes, rest = _part(rest[1:].strip())
    return yes, _part(rest.strip()[1:].strip())[0] if rest.strip()[:1] == ":" else ""


def _part(text: str) -> tuple[str, str]:
    return _braced(text) if text.startswith("{") else (text, "")
