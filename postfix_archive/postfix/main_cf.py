"""The syntax of main.cf (postconf(5)), used for archive.cf.

Used by config/settings. A logical line is ``name = value``; a line that starts with
white space continues it; ``#`` starts a comment line. ``$name`` and ``${name}`` are
replaced by other values, ``$$`` by a dollar sign. Raises SettingInvalid.
"""

from __future__ import annotations

from postfix_archive.errors import SettingInvalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_CHARS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
)
MAX_DEPTH = 20  # nested $name; more is taken for a loop
MAX_LENGTH = 100_000  # characters; nested $names can grow exponentially


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


def expand(value: str, raw_values: dict[str, str], *, location: str) -> str:
    """Replace $name, ${name}, $(name) and $$ (postconf(5))."""
    expanded_values: dict[str, str] = {"$": "$"}
    return _expand(value, raw_values, expanded_values, location=location, depth=0)


def _expand(
    value: str,
    raw_values: dict[str, str],
    expanded_values: dict[str, str],
    *,
    location: str,
    depth: int,
) -> str:
    """Expand value; expanded_values caches the values of names."""
    if depth > MAX_DEPTH:
        raise SettingInvalid(f"{location}: the $names in the value refer to each other")
    parts = []
    size = len(value)
    while "$" in value:
        literal, _, value = value.partition("$")
        name, value = _split_name(value, location=location)
        if name not in expanded_values:
            if name not in raw_values:
                raise SettingInvalid(f"{location}: ${name} is not set in this file")
            expanded_values[name] = _expand(
                raw_values[name],
                raw_values,
                expanded_values,
                location=location,
                depth=depth + 1,
            )
        parts += [literal, expanded_values[name]]
        size += len(expanded_values[name])
        if size > MAX_LENGTH:
            raise SettingInvalid(f"{location}: too long after expansion of its $names")
    return "".join([*parts, value])


def _split_name(value: str, *, location: str) -> tuple[str, str]:
    closing = {"{": "}", "(": ")"}.get(value[:1])
    if value.startswith("$"):
        return "$", value[1:]
    if closing and closing in value:
        name, _, rest = value[1:].partition(closing)
        return name, rest
    length = 0
    while length < len(value) and value[length] in NAME_CHARS:
        length += 1
    if not length:
        raise SettingInvalid(
            f"{location}: '$' without a name; write '$$' for a dollar sign"
        )
    return value[:length], value[length:]
