"""Entry point of make install and make uninstall, also for cli/install.

Imports only the standard library: it runs before the virtual environment exists. Checks
everything first and raises InstallRefused; then installs the program files, then adds
the services to Postfix, and routes mail to them last. Rolls back on failure.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import FrameType

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import (
    ArchiveError,
    InstallFailed,
    InstallRefused,
    PostfixMissing,
)
from postfix_archive.install import (
    dry_run,
    host_setup,
    install_plan,
    instance,
    options,
    program,
    report,
    uninstall,
    web_part,
)
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.install.instance import Instance
from postfix_archive.install.options import Options
from postfix_archive.message import request
from postfix_archive.postfix import archive_services, capture_maps, postfix_command
from postfix_archive.postfix.configuration import Configuration
from postfix_archive.system import python_version

INSTALL_POSTFIX_COMMAND = (
    "apt-get update -qq &&"
    " DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postfix"
)

PART_OF_SETTING = {"archive_object_store": "object-store", "archive_tsa_url": "seal"}


def main(arguments: list[str] | None = None) -> int:
    """Run install or uninstall for make(1), which passes options in the environment."""
    [verb] = sys.argv[1:] if arguments is None else arguments
    try:
        options.check_words(os.environ.get("MAKE_WORDS", "").split())
        run(verb, os.environ)
    except ArchiveError as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return 1
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"{verb}: done, but standard output: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def run(
    verb: str, values: Mapping[str, str], name_options: Callable[[str], str] = str
) -> None:
    """Install or uninstall, with the values of make's variables.

    name_options: makes a text that names these variables one that names the caller's.
    Raises ArchiveError.
    """
    os.umask(0o022)  # the archive's user must read files that root creates
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # prints bytes of main.cf unchanged
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    raise_on_signals()
    try:
        if verb == "uninstall":
            _uninstall(options.parse_uninstall(values))
        else:
            _install(options.parse(values), name_options)
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        raise InstallFailed(f"{path}{error.strerror}") from error


def _uninstall(uninstall_options: Options) -> None:
    _check_root("uninstall")
    directory = _config_directory(uninstall_options)
    host_setup.lock_directory(directory)
    uninstall.uninstall(directory, uninstall_options.prefix)


def _install(install_options: Options, name_options: Callable[[str], str]) -> None:
    if install_options.destdir:
        _stage_package(install_options)
        return
    _check_root("install")
    python = python_version.find_interpreter(install_options.python)
    _check_wheels(install_options.wheels)
    _ensure_postfix(
        install=install_options.install_postfix and not install_options.dry_run
    )
    directory = _config_directory(install_options)
    host_setup.lock_directory(directory)
    postfix_instance = Instance(directory, install_options.store)
    previous_prefix = instance.prefix_of(postfix_instance.config.services)
    prefix = install_options.prefix or previous_prefix or program.DEFAULT_PREFIX
    program_files = program.ProgramFiles(
        prefix, "", python, install_options.parts.split(",")
    )
    setup = _make_setup(install_options, postfix_instance, program_files)
    for option, path in (
        (f"PREFIX={prefix}", program_files.directory),
        (f"PYTHON={python}", python),
    ):
        host_setup.check_search_permission(option, path, setup.user)
    host_setup.check_directory(f"PREFIX={prefix}", prefix)
    host_setup.check_executable(f"PREFIX={prefix}", program_files.directory)
    if not program_files.is_current:
        host_setup.check_space(f"PREFIX={prefix}", program_files.directory)
    postfix_instance.check(setup)
    _check_parts(postfix_instance.current_settings(), program_files.parts)
    changes = postfix_instance.plan(setup)
    if install_options.dry_run:
        command = name_options(options.install_command(install_options))
        dry_run.show(postfix_instance, setup, changes, program_files, command)
        return
    _apply(install_options, postfix_instance, setup, changes, program_files)
    report.show(postfix_instance, changes, program_files)


def _apply(
    install_options: Options,
    postfix_instance: Instance,
    setup: Setup,
    changes: tuple[Change, ...],
    program_files: program.ProgramFiles,
) -> None:
    """Install the program files, then change Postfix's configuration."""
    is_first, is_new = not program_files.is_installed, not program_files.is_current
    program_files.install(install_options.wheels)
    if is_new:
        print(f"Program:    {program_files.directory}")
    try:
        postfix_instance.apply(setup, changes)
    except BaseException:
        if is_first:
            program_files.remove()
        raise
    if web_part.NAME in program_files.parts:
        web_part.apply(postfix_instance, str(program_files.command_path))


def _stage_package(install_options: Options) -> None:
    """Install the program files below DESTDIR; neither reads nor changes Postfix."""
    python = python_version.find_interpreter(install_options.python)
    _check_wheels(install_options.wheels)
    destdir = os.path.abspath(install_options.destdir).rstrip("/")
    program_files = program.ProgramFiles(
        install_options.prefix or program.DEFAULT_PREFIX,
        destdir,
        python,
        install_options.parts.split(","),
    )
    if install_options.dry_run:
        print(f"Program:    {destdir}{program_files.directory} would be created")
        return
    program_files.install(install_options.wheels)
    print(f"Program:    {destdir}{program_files.directory} (Postfix is unchanged)")


def _config_directory(install_options: Options) -> str:
    option = install_options.config_directory or None
    return os.path.abspath(archive_cf.find_config_directory(option))


def _check_root(verb: str) -> None:
    if os.geteuid():
        raise InstallRefused(f"must run as root: sudo make {verb}")


def _check_wheels(directory: str) -> None:
    if directory and not os.path.isdir(directory):
        raise InstallRefused(
            f"WHEELS={directory}: no such directory; name the directory that contains"
            " the Python packages"
        )


def _check_parts(settings: Settings, parts: tuple[str, ...]) -> None:
    """Raise InstallRefused if a setting needs the packages of another part."""
    for name, part in PART_OF_SETTING.items():
        if getattr(settings, name) and part not in parts:
            raise InstallRefused(
                f"archive.cf: {name} needs Python packages that are not installed: run"
                f" make install WITH={part}"
            )


def _ensure_postfix(*, install: bool) -> None:
    try:
        postfix_command.find_command("postconf")
    except PostfixMissing:
        if not install or shutil.which("apt-get") is None:
            raise
        print("Installing Debian's postfix package.")
        process = subprocess.run(["sh", "-c", INSTALL_POSTFIX_COMMAND], check=False)
        if process.returncode:
            raise InstallFailed(
                f"apt-get install postfix: exit code {process.returncode}; see its"
                " output"
            ) from None


def _make_setup(
    install_options: Options,
    postfix_instance: Instance,
    program_files: program.ProgramFiles,
) -> Setup:
    """Return the setup: options as given, others as installed, else defaults."""
    is_installed = archive_services.is_installed(postfix_instance.config)
    archive = install_options.archive or (
        postfix_instance.config.raw("archive") if is_installed else ""
    )
    on_request = install_options.on_request
    if on_request is None:
        on_request = is_installed and _is_on_request(postfix_instance.config)
    if not archive and not on_request:
        raise InstallRefused(
            "no archive address: run make install ARCHIVE=legal@example.com (or"
            " ON_REQUEST=yes to archive only what ARCHIVE actions in tables request)"
        )
    if archive:
        options.check_archive(archive)
    return Setup(
        archive=archive,
        launcher_directory=program_files.directory,
        port=install_options.port
        or postfix_instance.first_port
        or archive_services.DEFAULT_FIRST_PORT,
        position=install_options.position
        or install_plan.installed_position(postfix_instance.config)
        or "before",
        on_request=on_request,
        mode=install_options.mode
        or archive_services.installed_mode(postfix_instance.config)
        or archive_services.PIPE,
        capsule_helo=(
            f"texthash:{postfix_instance.current_settings().capsule_helo_file}"
        ),
    )


def _is_on_request(config: Configuration) -> bool:
    if archive_services.installed_mode(config) in archive_services.NATIVE_MODES:
        return capture_maps.is_on_request(config)
    return request.ON_REQUEST in config.raw("content_filter")


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_on_signals() -> None:
    """Install handlers: the first signal that is not ignored raises InstallFailed."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _raise_once)


def _raise_once(number: int, _: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, _ignore)  # not SIG_IGN: child processes would inherit it
    raise InstallFailed(f"stopped by {signal.Signals(number).name}; run it again")


def _ignore(*_: object) -> None:
    """Ignore further signals during the rollback."""


if __name__ == "__main__":
    sys.exit(main())
