"""The house rules of the design, held by a test."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent.parent / "postfix_archive"
FLOORS = ("front", "core", "back")
MODULES = sorted(
    str(path.relative_to(PACKAGE))
    for floor in FLOORS
    for path in (PACKAGE / floor).glob("*.py")
)
# core sees no clock, no disk, no network, no chance.
NOT_IN_CORE = {
    "os",
    "posix",
    "io",
    "socket",
    "_socket",
    "sqlite3",
    "time",
    "random",
    "secrets",
}
MAY_IMPORT = {
    "front": {"front", "core", "back"},
    "back": {"core", "back"},
    "core": {"core"},
}
LONGEST_ROOM = 400  # lines
# Must be one file: an auditor carries it away and runs it alone.
ONE_FILE = {"back/verifying.py": 430}
HOT_DOORS = (
    "postfix_archive.front.stamp_filter",
    "postfix_archive.front.archive_transport",
    "postfix_archive.front.lmtp",
)
# Each costs a door more than its own work (measured in the shared facts: 4 to 50 ms).
TOO_DEAR = {
    "email",
    "smtplib",
    "click",
    "logging",
    "tempfile",
    "dataclasses",
    "typing",
    "json",
    "pathlib",
    "re",
    "socket",
    "base64",
    "hashlib",
    "hmac",
    "enum",
    "collections",
    "subprocess",
    "signal",
}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports at run time."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", MODULES)
def test_each_floor_imports_only_what_it_may(name: str) -> None:
    floor = name.partition("/")[0]
    for module in imports(PACKAGE / name):
        words = module.split(".")
        if words[0] == "postfix_archive" and len(words) > 1 and words[1] in FLOORS:
            assert words[1] in MAY_IMPORT[floor], f"{name} imports {module}"


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("core/")])
def test_core_sees_no_clock_no_disk_no_network(name: str) -> None:
    seen = {module.partition(".")[0] for module in imports(PACKAGE / name)}
    assert not seen & NOT_IN_CORE


@pytest.mark.parametrize("name", MODULES)
def test_no_room_is_too_large(name: str) -> None:
    assert len((PACKAGE / name).read_text().splitlines()) <= ONE_FILE.get(
        name, LONGEST_ROOM
    )


@pytest.mark.parametrize("door", HOT_DOORS)
def test_the_hot_doors_import_little(door: str) -> None:
    program = f"import sys, {door}; sys.stdout.write(' '.join(sys.modules))"
    run = subprocess.run(
        [
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {program}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {each.partition(".")[0] for each in run.stdout.split()} & TOO_DEAR


@pytest.mark.parametrize("name", MODULES)
def test_every_public_thing_has_a_docstring(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text())
    assert ast.get_docstring(tree)
    bodies = [tree.body] + [n.body for n in tree.body if isinstance(n, ast.ClassDef)]
    for node in (each for body in bodies for each in body):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name}: {node.name}"
