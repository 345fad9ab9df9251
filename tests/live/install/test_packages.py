"""sdist and wheel: each works outside the checkout, and can install the archive."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_host import CORRECT_RESTRICTIONS, Host

from postfix_archive import __version__
from postfix_archive.install.program import ProgramFiles

from container import EXCLUDED_FILES
from private_postfix import ROOT, PrivatePostfix
from whole_host import HOST, WholeHost, install

pytestmark = pytest.mark.live
GENERATED = (*EXCLUDED_FILES, "__pycache__", "*.egg-info")
KINDS = ("wheel", "sdist")
LIB = "/usr/local/lib/postfix-archive"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    directory = tmp_path_factory.mktemp("packages")
    ignore_generated = shutil.ignore_patterns(*GENERATED)
    shutil.copytree(ROOT, directory / "copy", symlinks=True, ignore=ignore_generated)
    command = [sys.executable, "-m", "build", "--no-isolation", "-o", str(directory)]
    subprocess.run(
        [*command, str(directory / "copy")], check=True, stdout=subprocess.DEVNULL
    )
    [sdist], [wheel] = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module")
def unpacked(packages: dict[str, Path]) -> Path:
    """The directory of the unpacked sdist."""
    destination = packages["sdist"].parent / "unpacked"
    destination.mkdir()
    command = ["tar", "-x", "-z", "-f", str(packages["sdist"]), "-C", str(destination)]
    subprocess.run(command, check=True)
    [directory] = destination.iterdir()
    return directory


@pytest.fixture(scope="module")
def environments(packages: dict[str, Path], wheels: Path) -> dict[str, Path]:
    """A bare virtual environment for each package, with that package alone."""
    paths = {}
    for kind in KINDS:
        paths[kind] = packages[kind].parent / kind
        venv = ["/usr/bin/python3", "-m", "venv", "--without-pip", str(paths[kind])]
        subprocess.run(venv, check=True)
        python = str(paths[kind] / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
        # The sdist fetches setuptools, to be built as on anybody's machine.
        index = ["--no-index"] if kind == "wheel" else []
        command = [*pip, *index, "--find-links", str(wheels), str(packages[kind])]
        subprocess.run(command, check=True, cwd="/")
    return paths


@pytest.fixture(scope="module")
def running() -> Iterator[Host]:
    with PrivatePostfix(main=CORRECT_RESTRICTIONS) as postfix:
        yield Host(postfix)


@pytest.fixture(scope="module")
def host(stock_host: Path) -> Iterator[WholeHost]:
    """A host that every test leaves as it was, but for the archived mail."""
    with WholeHost(stock_host) as whole_host:
        whole_host.run("postfix start")
        yield whole_host


def output(environment: Path, program: str, *arguments: str) -> str:
    """What a program of an environment prints, run far from the checkout."""
    return subprocess.run(
        [environment / "bin" / program, *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()


def is_archived(host: WholeHost, subject: str) -> bool:
    """Send a message; tell whether it is archived then."""
    host.send(subject)
    host.wait_for_empty_queue()
    return subject in host.output("postfix-archive list --last 1")


def test_the_sdist_has_every_file_of_the_repository(unpacked: Path) -> None:
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    names = set(filter(None, listing.stdout.split("\0"))) - {"master.cf.d"}
    assert {name for name in names if not (unpacked / name).is_file()} == set()
    for name in (".ci/run", "tests/prepare"):
        assert (unpacked / name).stat().st_mode & 0o111


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_every_file_of_a_release(
    kind: str, environments: dict[str, Path]
) -> None:
    """The id of a release is a digest of its files."""
    code = (
        "from postfix_archive.install.program import ProgramFiles;"
        " print(ProgramFiles('/usr').release_id)"
    )
    release_id = output(environments[kind], "python", "-I", "-c", code)
    assert release_id == ProgramFiles("/usr").release_id


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_states_licence_and_types(
    kind: str, environments: dict[str, Path]
) -> None:
    [site] = environments[kind].glob("lib/python*/site-packages")
    assert (site / "postfix_archive" / "py.typed").exists()
    [information] = site.glob("postfix_archive-*.dist-info")
    metadata = (information / "METADATA").read_text()
    assert "Author: The postfix_archive authors\n" in metadata
    assert "Apache-2.0\n" in metadata
    [licence] = information.rglob("LICENSE")
    assert licence.read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_prints_its_version(
    kind: str, environments: dict[str, Path]
) -> None:
    version_text = output(environments[kind], "postfix-archive", "--version")
    assert version_text == f"postfix-archive, version {__version__}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_compares_with_the_reference_services(
    kind: str, environments: dict[str, Path], running: Host
) -> None:
    arguments = ("-c", str(running.etc), "doctor", "--json")

    def findings() -> dict[str, dict[str, str]]:
        text = output(environments[kind], "postfix-archive", *arguments)
        return {finding["check"]: finding for finding in json.loads(text)["findings"]}

    own = json.loads(running.postfix.run_command("doctor", "--json").stdout)
    assert set(findings()) == {each["check"] for each in own["findings"]}
    assert "port-option" not in findings()
    running.set_option(running.port("handback"), "smtpd_recipient_limit", "1000")
    wrong = findings()["port-option"]
    assert "smtpd_recipient_limit" in wrong["place"]
    assert wrong["severity"] == "CRITICAL"
    subprocess.run(wrong["fix"], shell=True, check=True)
    assert "port-option" not in findings()


def test_make_install_from_the_unpacked_sdist(
    host: WholeHost, unpacked: Path, wheels: Path
) -> None:
    before = host.configuration()
    diff = host.output(f"cd {unpacked} && {install(wheels, 'DRY_RUN=yes')}")
    assert f"+archive = legal@{HOST}" in diff
    assert "+archive-stamp unix" in diff
    assert host.configuration() == before

    report = host.output(f"cd {unpacked} && {install(wheels)}")
    assert "Doctor:     OK: " in report
    assert "Probe:      a message went through" in report
    assert is_archived(host, "from the sdist")
    host.output(f"cd {unpacked} && make uninstall")
    assert host.configuration() == before


def test_the_command_of_a_wheel_installs_and_the_installed_one_removes(
    host: WholeHost, environments: dict[str, Path], wheels: Path
) -> None:
    before = host.configuration()
    command = f"cd / && {environments['wheel']}/bin/postfix-archive"
    options = f"--archive legal@{HOST} --mode lmtp --wheels {wheels}"
    diff = host.output(f"{command} install {options} --dry-run")
    assert f"+archive = legal@{HOST}" in diff
    assert f"Program:    {LIB}/releases/" in diff
    assert host.configuration() == before

    report = host.output(f"{command} install {options}")
    assert "Doctor:     OK: " in report
    assert "Probe:      a message went through" in report
    assert host.output(f"head -n 1 {LIB}/archive-lmtp") == "#!/usr/bin/python3 -IS"
    host.run("test -e /usr/local/share/man/man1/postfix-archive.1")
    assert is_archived(host, "from the wheel")

    process = host.run(
        "cd / && postfix-archive install --mode=pipe", is_failure_expected=True
    )
    assert "--mode=pipe: the archive is installed with --mode=lmtp" in process.stderr
    assert "run postfix-archive uninstall, then" in process.stderr
    assert "nothing to change" in host.output("cd / && postfix-archive install")
    assert "nothing to change" in host.output(install(wheels)), "the same release"

    assert "restored to its state" in host.output("cd / && postfix-archive uninstall")
    assert host.configuration() == before
    host.run(f"test ! -e {LIB} && test ! -e /usr/local/sbin/postfix-archive")


def test_an_installed_release_installs_itself_for_another_python(
    host: WholeHost, wheels: Path
) -> None:
    """After an upgrade of Python, no checkout is needed."""
    before = host.configuration()
    host.run(install(wheels, "WITH=seal"))
    release = host.output(f"readlink -f {LIB}/current")
    bundle = f"{release}/bundles/archive-stamp"
    host.run(f"printf 'old!' | dd of={bundle} conv=notrunc bs=4 count=1 status=none")
    host.run(f"mv {release} {LIB}/releases/old && ln -sfn releases/old {LIB}/current")
    assert "WARNING python" in host.output("postfix-archive doctor || test $? = 1")
    report = host.output(f"cd / && postfix-archive install --wheels {wheels}")
    assert f"Program:    {LIB}" in report
    assert host.output(f"readlink -f {LIB}/current") == release
    host.run(f"{release}/commands/bin/python -c 'import rfc3161_client'")
    assert "OK: " in host.output("postfix-archive doctor")
    host.run("cd / && postfix-archive uninstall")
    assert host.configuration() == before


def test_a_python_package_with_another_digest_is_refused(
    host: WholeHost, wheels: Path, tmp_path: Path
) -> None:
    """pip runs as root; nothing is left of the installation."""
    before = host.configuration()
    directory = tmp_path / "wheels"
    directory.mkdir()
    for path in wheels.glob("*.whl"):
        shutil.copy(path, directory)
    [click] = directory.glob("click-*.whl")
    with open(click, "ab") as file:
        file.write(b"changed")
    error_text = host.run(install(directory), is_failure_expected=True).stderr
    assert "DO NOT MATCH THE HASHES" in error_text
    assert "docs/installing.md" in error_text
    assert host.configuration() == before
    host.run(f"test ! -e {LIB}")
