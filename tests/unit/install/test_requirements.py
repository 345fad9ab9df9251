"""The Python packages of make install: exact, hashed, complete, as setup.cfg allows."""

from __future__ import annotations

import configparser
import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from postfix_archive.install import program
from postfix_archive.postfix import reference

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = (reference.PACKAGE / "install" / "requirements.txt").read_text()
PARTS = "search", "object-store", "procedure", "seal"  # that make install installs
PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", REQUIREMENTS, re.M))


def declared() -> list[Requirement]:
    """The requirements in setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = parser["options.extras_require"]
    texts = [extras[each] for each in PARTS]
    lines = "\n".join([parser["options"]["install_requires"], *texts]).splitlines()
    return [Requirement(line) for line in lines if line.strip()]


def required_by(name: str) -> list[Requirement]:
    """The requirements of an installed package, without its extras."""
    requirements = map(Requirement, metadata.requires(name) or [])
    return [e for e in requirements if not e.marker or e.marker.evaluate({"extra": ""})]


def with_dependencies(requirements: list[Requirement]) -> list[Requirement]:
    """These requirements and, recursively, what the packages require."""
    nested = [with_dependencies(required_by(each.name)) for each in requirements]
    return [*requirements, *(each for dependencies in nested for each in dependencies)]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_requirement_has_an_upper_bound(requirement: Requirement) -> None:
    assert any(each.operator in ("<", "==", "~=") for each in requirement.specifier)


@pytest.mark.parametrize("requirement", with_dependencies(declared()), ids=str)
def test_every_requirement_and_its_dependencies_are_pinned_within_the_range(
    requirement: Requirement,
) -> None:
    assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier


def test_nothing_else_is_pinned() -> None:
    names = {canonicalize_name(each.name) for each in with_dependencies(declared())}
    assert set(PINNED) == names
    assert "six" in names


def test_every_pinned_package_has_a_digest() -> None:
    entries = re.split(r"^(?=[a-z])", REQUIREMENTS, flags=re.M)[1:]
    assert len(entries) == len(PINNED)
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_the_tests_run_with_the_pinned_versions() -> None:
    """Else nobody knows whether the versions that make install takes work."""
    assert {name: metadata.version(name) for name in PINNED} == PINNED


def test_pip_takes_only_wheels_with_these_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(program, "_run_or_fail", commands.append)
    program.ProgramFiles(f"{tmp_path}/usr")._create_environment(tmp_path, "/wheels")
    [command] = [each for each in commands if "pip" in each]
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:"):
        assert option in command
    assert command[-1] == f"{tmp_path}/postfix_archive/install/requirements.txt"
    assert "--no-index" in command
