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
# The extras of each file of make install; "" is what it always takes.
EXTRAS = {
    "": ["search", "procedure", "speed"],
    **{part: [part] for part in program.available_parts()},
}
DEVELOPMENT = {"test", "check", "release"}
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def file_of(part: str) -> Path:
    name = f"requirements-{part}.txt" if part else "requirements.txt"
    return reference.PACKAGE / "install" / name


def pinned(part: str) -> dict[str, str]:
    """The packages in a file, and their versions."""
    text = file_of(part).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; .*)? \\$", text, re.M))


def declared(part: str) -> list[Requirement]:
    """The requirements in setup.cfg of a part."""
    texts = [SETUP["options.extras_require"][each] for each in EXTRAS[part]]
    lines = "\n".join([SETUP["options"]["install_requires"], *texts]).splitlines()
    return [Requirement(line) for line in lines if line.strip()]


ALL_DECLARED = [(part, each) for part in EXTRAS for each in declared(part)]


def required_by(name: str) -> list[Requirement]:
    """The requirements of an installed package, without its extras."""
    requirements = map(Requirement, metadata.requires(name) or [])
    return [e for e in requirements if not e.marker or e.marker.evaluate({"extra": ""})]


def with_dependencies(requirements: list[Requirement]) -> list[Requirement]:
    """These requirements and, recursively, what the packages require."""
    nested = [with_dependencies(required_by(each.name)) for each in requirements]
    return [*requirements, *(each for dependencies in nested for each in dependencies)]


def test_every_extra_for_hosts_has_a_file() -> None:
    extras = sum(EXTRAS.values(), [])
    assert {*extras} == {*SETUP["options.extras_require"]} - DEVELOPMENT
    [parts] = re.findall(r"^PARTS = (.*)", (ROOT / "Makefile").read_text(), re.M)
    assert sorted(parts.split()) == [*program.available_parts()]


@pytest.mark.parametrize(("part", "requirement"), ALL_DECLARED, ids=str)
def test_every_requirement_has_an_upper_bound(
    part: str, requirement: Requirement
) -> None:
    assert any(each.operator in ("<", "==", "~=") for each in requirement.specifier)


@pytest.mark.parametrize("part", EXTRAS)
def test_every_requirement_and_its_dependencies_are_pinned_within_the_range(
    part: str,
) -> None:
    versions = pinned(part)
    for each in with_dependencies(declared(part)):
        assert versions[canonicalize_name(each.name)] in each.specifier, each


@pytest.mark.parametrize("part", EXTRAS)
def test_nothing_else_is_pinned(part: str) -> None:
    requirements = with_dependencies(declared(part))
    names = {canonicalize_name(each.name) for each in requirements}
    assert set(pinned(part)) == names
    assert "six" in names


@pytest.mark.parametrize("part", EXTRAS)
def test_every_pinned_package_has_a_digest(part: str) -> None:
    entries = re.split(r"^(?=[a-z])", file_of(part).read_text(), flags=re.M)[1:]
    assert len(entries) == len(pinned(part))
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


@pytest.mark.parametrize("part", EXTRAS)
def test_the_tests_run_with_the_pinned_versions(part: str) -> None:
    """Else nobody knows whether the versions that make install takes work."""
    versions = pinned(part)
    assert {name: metadata.version(name) for name in versions} == versions


def test_pip_takes_only_wheels_with_these_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(program, "_run_or_fail", commands.append)
    files = program.ProgramFiles(f"{tmp_path}/usr", parts=["seal"])
    files._create_environment(tmp_path, "/wheels")
    [command] = [each for each in commands if "pip" in each]
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:"):
        assert option in command
    option = f"--requirement={tmp_path}/postfix_archive/install/requirements"
    assert command[-2:] == [f"{option}.txt", f"{option}-seal.txt"]
    assert "--no-index" in command
