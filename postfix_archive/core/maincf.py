"""The syntax of main.cf (postconf(5)), used for archive.cf.

Used by config/settings. A logical line is ``name = value``; a line that starts with
white space continues it; ``#`` starts a comment line. ``$name`` and ``${name}`` are
replaced by other values, ``$$`` by a dollar sign. Raises SettingWrong.
"""

from __future__ import annotations

from postfix_archive.core.errors import SettingWrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_CHARS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
)
DEPTH = 20  # nested $name; more is taken for a loop
LONGEST = 100_000  # characters; nested $names can grow exponentially


def lines(text: str, *, place: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, name and value; path appears in error messages."""
    logical: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t" and logical:
            logical[-1][1].append(line.strip())
        else:
            logical.append((number, [line.strip()]))
    for number, parts in logical:
        name, equals, value = " ".join(parts).partition("=")
        name = name.strip()
        if not equals or not name or not NAME_CHARS.issuperset(name):
            raise SettingWrong(
                f"{place}, line {number}: expected 'name = value', as in main.cf"
            )
        yield number, name, value.strip()


def expanded(value: str, raw: dict[str, str], *, where: str) -> str:
    """Replace $name, ${name}, $(name) and $$ (postconf(5))."""
    known: dict[str, str] = {"$": "$"}
    return _expanded(value, raw, known, where=where, depth=0)


def _expanded(
    value: str, raw: dict[str, str], known: dict[str, str], *, where: str, depth: int
) -> str:
    """Expand value; expanded_values caches the values of names."""
    if depth > DEPTH:
        raise SettingWrong(f"{where}: the $names in the value refer to each other")
    done = []
    size = len(value)
    while "$" in value:
        before, _, value = value.partition("$")
        name, value = _name(value, where=where)
        if name not in known:
            if name not in raw:
                raise SettingWrong(f"{where}: ${name} is not set in this file")
            known[name] = _expanded(raw[name], raw, known, where=where, depth=depth + 1)
        done += [before, known[name]]
        size += len(known[name])
        if size > LONGEST:
            raise SettingWrong(f"{where}: too long after expansion of its $names")
    return "".join([*done, value])


def _name(value: str, *, where: str) -> tuple[str, str]:
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
        raise SettingWrong(f"{where}: '$' without a name; write '$$' for a dollar sign")
    return value[:length], value[length:]
