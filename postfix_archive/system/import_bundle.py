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
DIRECTORY = "bundles"
# What each program needs for every message. Imports within functions are not followed;
# where they are usual, name them here.
PROGRAMS = {
    "archive-stamp": (
        "intake.pipe",
        "intake.end_of_file",
        "stamp_filter.capture",
        "stamp_filter.write_through",
    ),
    "archive-capture": (
        "archive_transport.recent_captures",
        "intake.pipe",
        "intake.end_of_file",
        "stamp_filter.native_capture",
    ),
    "archive": ("intake.pipe",),
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    Module = tuple[str, str, int, int, CodeType]


class AnnotationRemover(ast.NodeTransformer):
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
    os.makedirs(f"{release}/{DIRECTORY}", exist_ok=True)
    for program, names in PROGRAMS.items():
        modules = [
            _compile_module(each, release, final or release)
            for each in required_modules(names, release)
        ]
        with open(f"{release}/{DIRECTORY}/{program}", "wb") as file:
            file.write(MAGIC_NUMBER + marshal.dumps(modules))
            file.flush()
            os.fsync(file.fileno())


def required_modules(names: tuple[str, ...], release: str) -> list[str]:
    """Return these modules and all that they import at module level, in import order.

    names are relative to the package.
    """
    modules: dict[str, None] = {}
    for name in names:
        _add_with_imports(f"{PACKAGE}.{name}", release, modules)
    return list(modules)


def _add_with_imports(name: str, release: str, modules: dict[str, None]) -> None:
    path = f"{release}/{_source_path(name, release)}"
    # A name that is no module is an attribute of one.
    if name in modules or not os.path.exists(path):
        return
    parent = name.rpartition(".")[0]
    if parent:
        _add_with_imports(parent, release, modules)
    for each in _imports(_parse(path)):
        _add_with_imports(each, release, modules)
    modules[name] = None


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the package that a module imports at module level."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] == PACKAGE:
                yield node.module
                yield from (f"{node.module}.{each.name}" for each in node.names)


def _compile_module(name: str, release: str, final: str) -> Module:
    path = _source_path(name, release)
    stat = os.stat(f"{release}/{path}")
    tree = ast.fix_missing_locations(
        AnnotationRemover().visit(_parse(f"{release}/{path}"))
    )
    code = compile(tree, f"{final}/{path}", "exec", dont_inherit=True, optimize=2)
    return name, path, stat.st_size, int(stat.st_mtime), code


def _source_path(name: str, release: str) -> str:
    """Return the source file of a module, relative to the release."""
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if os.path.isdir(f"{release}/{path}") else f"{path}.py"


def _parse(path: str) -> ast.Module:
    with open(path, "rb") as file:
        return ast.parse(file.read(), path)


if __name__ == "__main__":
    make(*sys.argv[1:])
