"""Makes import bundles: the compiled modules of a pipe mode program, in one file.

Run by install/program for a new release, with the Python that will run the program;
read by intake/launcher. An import searches, opens and reads a file; thirty imports take
as long as the rest of the program's work. In a bundle the modules are in the order of
their imports, without docstrings and annotations.

A bundle belongs to one release, which does not change once it is in use. As in a .pyc
file, size and mtime of each source are recorded, so that an edit in an installed
release takes effect: then, or with another version of Python, the launcher imports the
modules as usual.

    <release>/bundles/<program>   magic number of that Python's .pyc files, then
                                  marshalled tuples: module, source file, its size and
                                  mtime in seconds (the resolution of packages), code
"""

from __future__ import annotations

import ast
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER

PACKAGE = "postfix_archive"
FOLDER = "bundles"
# What each program needs for every message. Imports within functions are not followed;
# where they are usual, name them here.
DOORS = {
    "archive-stamp": ("front.pipe", "front.stamp_filter", "front.through"),
    "archive": ("front.pipe", "front.archive_transport"),
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    Module = tuple[str, str, int, int, CodeType]


class Plain(ast.NodeTransformer):
    """Removes annotations, and imports from __future__, from a syntax tree."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Return the function without annotations of parameters and result."""
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Return the parameter without its annotation."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Return a plain assignment, or ``pass`` if nothing is assigned."""
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Return the import, None for ``from __future__ import annotations``."""
        return None if node.module == "__future__" else node


def make(release: str, final: str = "") -> None:
    """Write the bundles of a release, durably.

    final is the path at which it will be installed, if another (packages).
    """
    os.makedirs(f"{release}/{FOLDER}", exist_ok=True)
    for door, rooms in DOORS.items():
        modules = [
            _module(each, release, final or release) for each in needed(rooms, release)
        ]
        with open(f"{release}/{FOLDER}/{door}", "wb") as opened:
            opened.write(MAGIC_NUMBER + marshal.dumps(modules))
            opened.flush()
            os.fsync(opened.fileno())


def needed(rooms: tuple[str, ...], release: str) -> list[str]:
    """Return these modules and all that they import at module level, in import order.

    names are relative to the package.
    """
    found: dict[str, None] = {}
    for room in rooms:
        _follow(f"{PACKAGE}.{room}", release, found)
    return list(found)


def _follow(name: str, release: str, found: dict[str, None]) -> None:
    place = f"{release}/{_place(name, release)}"
    # A name that is no module is an attribute of one.
    if name in found or not os.path.exists(place):
        return
    above = name.rpartition(".")[0]
    if above:
        _follow(above, release, found)
    for each in _imports(_tree(place)):
        _follow(each, release, found)
    found[name] = None


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the package that a module imports at module level."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] == PACKAGE:
                yield node.module
                yield from (f"{node.module}.{each.name}" for each in node.names)


def _module(name: str, release: str, final: str) -> Module:
    place = _place(name, release)
    told = os.stat(f"{release}/{place}")
    tree = ast.fix_missing_locations(Plain().visit(_tree(f"{release}/{place}")))
    code = compile(tree, f"{final}/{place}", "exec", dont_inherit=True, optimize=2)
    return name, place, told.st_size, int(told.st_mtime), code


def _place(name: str, release: str) -> str:
    """Return the source file of a module, relative to the release."""
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if os.path.isdir(f"{release}/{path}") else f"{path}.py"


def _tree(path: str) -> ast.Module:
    with open(path, "rb") as opened:
        return ast.parse(opened.read(), path)


if __name__ == "__main__":
    make(*sys.argv[1:])
