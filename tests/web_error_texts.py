"""The texts that come to the web page from the packages below it, for its catalogue.

An error knows no language: its text is English. error_texts() reads the modules that
the page imports, and what the access service and an export run for it, and returns each
text for people in them as the catalogue has it, with %(name)s for each value:
f"there is no hold {name}" is "there is no hold %(name)s". A text for people is one with
a space between two words of lower case, or a word after a value and a colon; what is
none although it looks like one is in NO_TEXTS.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import postfix_archive

# Imported by the page, and texts of theirs can come to it.
PACKAGES = (
    *("access", "config.archive_cf", "export", "postfix.postfix_command", "retention"),
    *("cli.web_decisions", "search", "seal.heads", "status", "store", "system", "web"),
)
WITHOUT_TEXTS = {
    "access.reader_group": "read at the start of the page",
    "retention.rules": "no page reads the rules",
    "search.archive_index": "the service that writes the index",
    "search.extraction_child": "the child process itself",
    "search.extraction_html": "names of elements",
    "search.index_database": "the service that writes the index",
    "search.index_groups": "SQL",
    "search.index_query": "SQL",
    "search.index_schema": "SQL",
    "search.index_service": "the service that writes the index",
    "search.folding": "names of characters",
    "search.indexer": "the service that writes the index",
    "store.bypass_period": "a damaged tally is counted again",
    "store.journal_event": "a damaged line, whose reader says which it is",
    "store.tally": "a damaged tally is counted again",
    "store.tally_cache": "a damaged tally is counted again",
    "store.verifier": "findings, in the words of postfix-archive verify",
    "system.import_bundle": "imports",
    "system.path_access": "make install and doctor",
    "system.privileges": "commands of root",
    "web.api": "the API is in English",
    "web.group_roles": "read at the start of the page",
    "web.login": "its errors are translated there",
    "web.server": "the start of the page",
    "web.visible.status": "/health, for programs",
    "web.web_settings": "read at the start of the page",
}
NO_TEXTS = re.compile(
    r"<|[A-Z]{4} |import |sys\.path|This is an? |no-?referrer"
    r"|\(none given\)|\(no field\)"
    r"|archive seq|a abbr|applet audio|align bgcolor|background-color"
    r"|address article"
    r"|at position \(|original status|img-src"
    r"|^(?:hold (?:add|release)|erase (?:request|approve)|access log of|decision about"
    r"|release of the hold)(?: %\(\w+\)s)?$"
)
TEXT = re.compile(r"[a-z]{2,} [a-z(]|[a-z] is |^%\(\w+\)s: [a-z]|^[~^*] is ")
VALUE = re.compile(r"%\(\w+\)s")
TRANSLATED = ("_", "ngettext", "language.gettext", "language.ngettext")
NOT_SHOWN = ("execute", "executescript", "compile", "warning", "info", "exception")


def error_texts() -> dict[str, tuple[str, int]]:
    """Return each text, with the module and the line where it first is."""
    found: dict[str, tuple[str, int]] = {}
    for module in _modules():
        for text, line in _texts(module):
            found.setdefault(text, (module.__name__, line))
    return found


def _modules() -> list[ModuleType]:
    """Return the modules of PACKAGES that the page imports, at whatever distance."""
    root = Path(postfix_archive.__path__[0])
    todo = [root / "cli" / "web_decisions.py", *root.glob("web/**/*.py")]
    names: set[str] = set()
    while todo:
        path = todo.pop()
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if name in names:
            continue
        names.add(name)
        todo += _imports(path, root)
    shown = (e for e in sorted(names) if _is_in(e, PACKAGES))
    return [
        importlib.import_module(f"postfix_archive.{each}".removesuffix(".__init__"))
        for each in shown
        if not _is_in(each, [*WITHOUT_TEXTS])
    ]


def _imports(path: Path, root: Path) -> Iterator[Path]:
    """Yield the modules of ours that a module imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            package = root.parent / node.module.replace(".", "/")
            named = (package / f"{each.name}.py" for each in node.names)
            own = (each for each in (package.with_suffix(".py"), *named))
            yield from (e for e in own if e.is_relative_to(root) and e.exists())


def _is_in(module: str, names: Sequence[str]) -> bool:
    return any(f"{module}.".startswith(f"{each}.") for each in names)


def _texts(module: ModuleType) -> Iterator[tuple[str, int]]:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    skipped = {id(inner) for each in ast.walk(tree) for inner in _skipped(each)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        for text in _written(node, module):
            is_text = TEXT.search(text) or TEXT.search(VALUE.sub("", text))
            if is_text and not NO_TEXTS.search(text):
                yield text, node.lineno  # type: ignore[attr-defined]


def _skipped(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is no text of its own: docstrings, pieces, translated texts."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield from node.values
        yield from (e for v in node.values for e in ast.walk(v) if _is_constant(e))
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in TRANSLATED or name.rpartition(".")[2] in NOT_SHOWN:
            yield from ast.walk(node)


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant)


def _written(node: ast.AST, module: ModuleType) -> Iterator[str]:
    """Yield a string as the catalogue has it; a value of two kinds gives two texts."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value.replace("%", "%%")
    elif isinstance(node, ast.JoinedStr):
        choices = [[*_pieces(each, module)] for each in node.values]
        for pieces in itertools.product(*choices):
            yield _numbered(pieces)


def _pieces(node: ast.expr, module: ModuleType) -> Iterator[str]:
    """Yield what can stand for a part of an f-string."""
    if isinstance(node, ast.Constant):
        yield str(node.value).replace("%", "%%")
        return
    assert isinstance(node, ast.FormattedValue)
    known = _constant(node.value, module)
    if known is not None:
        yield known.replace("%", "%%")
        return
    yield f"%({_name(node.value)})s"
    alternatives: list[ast.expr] = []
    if isinstance(node.value, ast.BoolOp):
        alternatives = node.value.values
    elif isinstance(node.value, ast.IfExp):
        alternatives = [node.value.body, node.value.orelse]
    for each in alternatives:
        if isinstance(each, ast.Constant):
            yield str(each.value).replace("%", "%%")


def _constant(node: ast.expr, module: ModuleType) -> str | None:
    """Return the text of a constant that is named there: NAME or module.NAME."""
    *where, name = ast.unparse(node).split(".")
    if not name.isupper() or len(where) > 1:
        return None
    value = getattr(getattr(module, where[0], None) if where else module, name, None)
    return value if isinstance(value, str) else None


def _name(node: ast.expr) -> str:
    """Return a name for a value in a text."""
    match node:
        case ast.Name():
            return node.id.strip("_").lower()
        case ast.Attribute():
            return node.attr.strip("_").lower()
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return key
        case ast.Subscript():
            return _name(node.value)
        case ast.Call(args=[first, *_]):
            return _name(first)
        case ast.BoolOp():
            return _name(node.values[0])
        case ast.IfExp():
            return _name(node.test)
        case ast.BinOp():
            return _name(node.left)
    return "value"


def _numbered(pieces: Sequence[str]) -> str:
    """Return a text in which each value has another name."""
    seen: dict[str, int] = {}
    text = ""
    for piece in pieces:
        if VALUE.fullmatch(piece):
            count = seen[piece] = seen.get(piece, 0) + 1
            piece = piece.replace(")s", f"_{count})s") if count > 1 else piece
        text += piece
    return text
