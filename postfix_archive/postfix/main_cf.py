"""The syntax of main.cf (postconf(5)): lines, numbers, times, expansion of $name.

Used by config/settings for archive.cf, and by configuration for Postfix's own values. A
logical line is ``name = value``; a line that starts with white space continues it;
``#`` starts a comment line. Raises SettingInvalid.
"""

from __future__ import annotations

from postfix_archive.errors import SettingInvalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME_CHARS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
)
SPACE = " \t\r\n"
MAX_DEPTH = 100  # nested $names and operands: mac_expand.c
MAX_LENGTH = 500_000  # characters; nested $names can grow exponentially
NUMBER_DIGITS = 18  # Postfix accepts ten; int() raises above 4,300
TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}  # seconds
# The units of Postfix's time parameters, where it is not the second: a number without
# one has that of the default value (postconf -d; mail_conf_time.c).
DEFAULT_UNITS = {
    "address_verify_cache_cleanup_interval": "h",
    "address_verify_negative_expire_time": "d",
    "address_verify_negative_refresh_time": "h",
    "address_verify_positive_expire_time": "d",
    "address_verify_positive_refresh_time": "d",
    "bounce_queue_lifetime": "d",
    "delay_warning_time": "h",
    "fast_flush_purge_time": "d",
    "fast_flush_refresh_time": "h",
    "lmtp_sasl_auth_cache_time": "d",
    "maximal_queue_lifetime": "d",
    "postscreen_bare_newline_ttl": "d",
    "postscreen_cache_cleanup_interval": "h",
    "postscreen_cache_retention_time": "d",
    "postscreen_dnsbl_max_ttl": "h",
    "postscreen_greet_ttl": "d",
    "postscreen_non_smtp_command_ttl": "d",
    "postscreen_pipelining_ttl": "d",
    "smtp_sasl_auth_cache_time": "d",
}
OPERATORS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">=": ">=", ">": ">"}


def logical_lines(text: str, *, path: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, name and value; path appears in error messages."""
    entries: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t" and entries:
            entries[-1][1].append(line.strip())
        else:
            entries.append((number, [line.strip()]))
    for number, parts in entries:
        name, equals, value = " ".join(parts).partition("=")
        name = name.strip()
        if not equals or not name or not NAME_CHARS.issuperset(name):
            raise SettingInvalid(
                f"{path}, line {number}: expected 'name = value', as in main.cf"
            )
        yield number, name, value.strip()


def parse_number(text: str) -> int | None:
    """Return a whole number in decimal digits, None if it is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS
    return int(text) if is_number else None


def parse_time(text: str, default_unit: str = "s") -> int | None:
    """Return a time in seconds, None if it is none.

    default_unit is the unit of a number without one: a key of TIME_UNITS.
    """
    unit = TIME_UNITS.get(text[-1:])
    number = parse_number(text[:-1] if unit else text)
    return None if number is None else number * (unit or TIME_UNITS[default_unit])


def split_brackets(text: str) -> tuple[str, str] | None:
    """Split text that begins with a bracket: content, and text after its closing one.

    None if it is not closed.
    """
    opening, closing = text[0], {"{": "}", "(": ")"}[text[0]]
    depth = 0
    for position, char in enumerate(text):
        depth += (char == opening) - (char == closing)
        if depth == 0:
            return text[1:position], text[position + 1 :]
    return None


def expand(
    value: str,
    lookup: Callable[[str], str | None],
    *,
    location: str = "",
    must_be_set: bool = False,
) -> str:
    """Expand a value as postconf(5) and mac_expand.c say.

    Replaces $name, $(name), ${name}, ${name?{if set}:{if empty}}, ${name?if set},
    ${name:if empty}, ${{left} == {right} ? {if true} : {if false}} and $$. lookup
    returns a parameter as written, None if it is not set: that counts as empty, or as
    an error if must_be_set. ``?`` and ``:`` test the parameter as written: $name is not
    empty even if its own value expands to nothing.
    """
    return _Expansion(lookup, location, must_be_set).expand(value, 0)


class _Expansion:
    """The expansion of one value; values has the expanded parameters.

    The value None means that the parameter is being expanded: a reference is a loop.
    """

    __slots__ = ("location", "lookup", "must_be_set", "values")

    def __init__(
        self, lookup: Callable[[str], str | None], location: str, must_be_set: bool
    ) -> None:
        self.lookup = lookup
        self.location = location
        self.must_be_set = must_be_set
        self.values: dict[str, str | None] = {}

    def expand(self, text: str, depth: int) -> str:
        if text and depth > MAX_DEPTH:
            raise self._error("the $names in the value refer to each other")
        parts = []
        size = 0
        while "$" in text:
            literal, _, text = text.partition("$")
            if text.startswith("$"):
                value, text = "$", text[1:]
            else:
                macro, text = self._split_macro(text)
                value = self._macro_value(macro, depth + 1)
            parts += [literal, value]
            size += len(literal) + len(value)
            if size > MAX_LENGTH:
                raise self._error("too long after expansion of its $names")
        return "".join([*parts, text])

    def _split_macro(self, text: str) -> tuple[str, str]:
        """Split the text after ``$`` into the macro and the rest."""
        if text[:1] not in ("{", "("):
            length = _name_length(text)
            parts: tuple[str, str] | None = (text[:length], text[length:])
        else:
            parts = split_brackets(text)
        if parts is None or not parts[0]:
            raise self._error("'$' without a name; write '$$' for a dollar sign")
        return parts

    def _macro_value(self, macro: str, depth: int) -> str:
        macro = macro.lstrip(SPACE)
        if macro.startswith("{"):
            is_true, rest = self._compare(macro, depth)
            if not rest:
                return "true" if is_true else ""
        else:
            length = _name_length(macro)
            name, rest = macro[:length], macro[length:].lstrip(SPACE)
            if not rest:
                return self._parameter(name, depth)
            is_true = bool(self.lookup(name))
        if_true, if_false = self._split_alternatives(rest)
        return self.expand(if_true if is_true else if_false, depth)

    def _parameter(self, name: str, depth: int) -> str:
        if name not in self.values:
            raw = self.lookup(name)
            if raw is None and self.must_be_set:
                raise self._error(f"${name} is not set in this file")
            self.values[name] = None
            self.values[name] = self.expand(raw or "", depth)
        value = self.values[name]
        if value is None:
            raise self._error("the $names in the value refer to each other")
        return value

    def _compare(self, macro: str, depth: int) -> tuple[bool, str]:
        """Return the result of ``{left} operator {right}``, and the rest."""
        left, rest = split_brackets(macro) or ("", "")
        rest = rest.lstrip(SPACE)
        operator = rest[: len(rest) - len(rest.lstrip("=!<>"))]
        rest = rest[len(operator) :].lstrip(SPACE)
        right_parts = split_brackets(rest) if rest.startswith("{") else None
        if operator not in OPERATORS or right_parts is None:
            raise self._error(f"no comparison such as {{left}} == {{right}}: {macro}")
        left, right = self.expand(left, depth), self.expand(right_parts[0], depth)
        if _is_digits(left) and _is_digits(right):
            width = max(len(left), len(right))
            left, right = left.zfill(width), right.zfill(width)
        order = "<" if left < right else ">" if left > right else "="
        return order in OPERATORS[operator], right_parts[1].lstrip(SPACE)

    def _split_alternatives(self, text: str) -> tuple[str, str]:
        """Split ``?{if true}:{if false}``; either part can be missing."""
        if_true, rest = "", text
        if text.startswith("?"):
            if_true, rest = _split_operand(text[1:])
            if not rest:
                return if_true, ""
        if_false, left_over = _split_operand(rest[1:])
        if not rest.startswith(":") or left_over:
            raise self._error(f"no alternatives such as ?{{yes}}:{{no}}: {text}")
        return if_true, if_false

    def _error(self, reason: str) -> SettingInvalid:
        return SettingInvalid(f"{self.location}: {reason}")


def _name_length(text: str) -> int:
    for length, char in enumerate(text):
        if char not in NAME_CHARS:
            return length
    return len(text)


def _split_operand(text: str) -> tuple[str, str]:
    """Split an operand, in braces or up to the end of text, and the rest."""
    stripped = text.lstrip(SPACE)
    parts = split_brackets(stripped) if stripped.startswith("{") else None
    return (parts[0], parts[1].lstrip(SPACE)) if parts else (text, "")


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
