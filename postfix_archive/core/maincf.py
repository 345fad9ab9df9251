"""The syntax of main.cf (postconf(5)), which archive.cf has too.

Used by settings. One ``name = value`` a logical line, a line that begins with white
space goes on the one before, ``#`` begins a comment line, ``$name`` and ``${name}``
stand for other values, ``$$`` for a dollar. Raises SettingWrong.
"""

from __future__ import annotations

from postfix_archive.core.errors import SettingWrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_CHARS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
)
DEPTH = 20  # nested $name: deeper is a loop
LONGEST = 100_000  # characters; $names that double each other grow without end


def lines(text: str, *, place: str) -> Iterator[tuple[int, str, str]]:
    """Give number, name and value of each logical line; place is named in errors."""
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
    """Replace $name, ${name}, $(name) and $$ as postconf(5) does."""
    known: dict[str, str] = {"$": "$"}
    return _expanded(value, raw, known, where=where, depth=0)


def _expanded(
    value: str, raw: dict[str, str], known: dict[str, str], *, where: str, depth: int
) -> str:
    """Expand each $name once: known has those that are done."""
    if depth > DEPTH:
        raise SettingWrong(f"{where}: the $names in it refer to each other")
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
            raise SettingWrong(f"{where}: the $names in it make it too long")
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
        raise SettingWrong(f"{where}: '$' without a name; a plain dollar is '$$'")
    return value[:length], value[length:]
