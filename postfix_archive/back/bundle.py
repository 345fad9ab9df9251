"""Makes the bundles: what a door of pipe(8) imports, compiled, in one file a door.

Run by back/program when a release is laid down, with the Python that is to run the
doors; read by front/launcher. An import finds, opens and reads a file and makes a
record of it; for thirty of them that takes as long as the doors' own work. In a bundle
they stand in the order in which they need each other, without what only people and
type checkers read: docstrings and annotations.

A bundle cannot be stale. It is made with its release, before that is in use, and a
release never changes; size and time of each source stand in it all the same, as in a
.pyc, so that one who edits a release in place at night is heeded: then, as where
another version of Python runs the doors, the launcher imports as usual.

    <release>/bundles/<door>    the magic number of that Python's .pyc files, then
                                marshalled: name, source, its size and st_mtime_ns, code
"""

from __future__ import annotations

import ast
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER

PACKAGE = "postfix_archive"
FOLDER = "bundles"
# What each door needs for every message. What it imports later, in a function, is not
# taken along; where that is usual, name it here.
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
    """Takes the annotations out of a module, and with them their __future__."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Return the function without those of its parameters and result."""
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Return the parameter alone."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Return the assignment, or nothing to do where there is none."""
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Return the import, but for that of annotations as strings."""
        return None if node.module == "__future__" else node


def make(release: str, final: str = "") -> None:
    """Write the bundles of a release; final is the path it will have, for packages."""
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
    """Return the modules that these import at once, themselves too, each after its own.

    rooms are named within the package.
    """
    found: dict[str, None] = {}
    for room in rooms:
        _follow(f"{PACKAGE}.{room}", release, found)
    return list(found)


def _follow(name: str, release: str, found: dict[str, None]) -> None:
    place = f"{release}/{_place(name, release)}"
    if name in found or not os.path.exists(place):  # no module, but a name in one
        return
    above = name.rpartition(".")[0]
    if above:
        _follow(above, release, found)
    for each in _imports(_tree(place)):
        _follow(each, release, found)
    found[name] = None


def _imports(tree: ast.Module) -> Iterator[str]:
    """Give what a module imports of the package as soon as it is imported itself."""
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
    return name, place, told.st_size, told.st_mtime_ns, code


def _place(name: str, release: str) -> str:
    """Return the file of a module, relative to the release."""
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if os.path.isdir(f"{release}/{path}") else f"{path}.py"


def _tree(path: str) -> ast.Module:
    with open(path, "rb") as opened:
        return ast.parse(opened.read(), path)


if __name__ == "__main__":
    make(*sys.argv[1:])
