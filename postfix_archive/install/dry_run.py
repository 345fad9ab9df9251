"""make install DRY_RUN=yes: prints the planned changes and changes nothing.

Used by install/main. Prints a unified diff of main.cf and master.cf, then what would be
created besides.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator

from postfix_archive.install import config_files, web_part
from postfix_archive.install.filter_routes import Change, Setup
from postfix_archive.install.instance import Instance
from postfix_archive.install.program import ProgramFiles
from postfix_archive.maillog import location
from postfix_archive.system import scheduler


def show(
    postfix_instance: Instance,
    setup: Setup,
    changes: tuple[Change, ...],
    program_files: ProgramFiles,
    command: str,
) -> None:
    """Print what an installation would change and create, and the command for it."""
    sys.stdout.writelines(_diff(postfix_instance, changes))
    missing = list(_missing(postfix_instance, setup, program_files))
    for label, name in missing:
        print(f"{label + ':':<12}{name} would be created")
    if not changes and not missing:
        print("Nothing to change.")
    else:
        print(f"Nothing was changed. To install: {command}")


def _diff(postfix_instance: Instance, changes: tuple[Change, ...]) -> Iterator[str]:
    """Yield the lines of the diff; bytes that are not UTF-8 become surrogates."""
    before = config_files.read(postfix_instance.directory)
    after = postfix_instance.contents_after(changes)
    for name in reversed(config_files.FILES):
        path = f"{postfix_instance.directory}/{name}"
        yield from difflib.unified_diff(
            _lines(before[name]), _lines(after[name]), path, f"{path} with the archive"
        )


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "surrogateescape").splitlines(True)


def _missing(
    postfix_instance: Instance, setup: Setup, program_files: ProgramFiles
) -> Iterator[tuple[str, str]]:
    """Yield what would be created: label and name."""
    if not program_files.is_current:
        yield (
            "Program",
            f"{program_files.directory}/releases/{program_files.release_id}",
        )
    if not program_files.command_path.exists():
        yield "Command", str(program_files.command_path)
    yield from postfix_instance.missing(setup)
    timer = scheduler.TIMER.missing_file(postfix_instance.name)
    if timer:
        yield "Timer", timer
    follower = scheduler.FOLLOWER.missing_file(postfix_instance.name)
    is_wanted = postfix_instance.current_settings().needs_follower
    if follower and not location.follow_obstacle(
        postfix_instance.config, is_wanted=is_wanted
    ):
        yield "Follower", follower
    for label, job in (
        ("Index", scheduler.INDEXER),
        ("Purge", scheduler.PURGER),
        ("Seals", scheduler.SEALER),
    ):
        file = job.missing_file(postfix_instance.name)
        if file and postfix_instance.current_settings().has_store:
            yield label, file
    replicator = scheduler.REPLICATOR.missing_file(postfix_instance.name)
    if replicator and postfix_instance.current_settings().archive_object_store:
        yield "Bucket", replicator
    access_service = scheduler.ACCESS_SERVICE.missing_file(postfix_instance.name)
    if access_service and postfix_instance.current_settings().archive_reader_group:
        yield "Readers", access_service
    if web_part.NAME in program_files.parts:
        yield from web_part.missing(postfix_instance)
