"""make uninstall: closes the gate, lets the queue run dry, takes everything back.

Used by front/install. The store, the key and the user stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from postfix_archive.back import (
    config,
    gap,
    instance,
    mailq,
    postconf,
    program,
    timers,
    undo,
)
from postfix_archive.core import configuration
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import InstallFailed, InstallRefused
from postfix_archive.core.ways import Change
from postfix_archive.front import returning


def uninstall(directory: str, prefix: str) -> None:
    """Take the archive out of one instance; the last one takes the program along."""
    found = postconf.read(directory)
    name = instance.name_of(found)
    record = undo.Undo(directory, name)
    if not record.exists:
        raise InstallRefused(
            f"{record.folder}: there is no undo record, so nothing to take back in"
            f" {directory}; other instances: -c DIR (make: CONFIG_DIRECTORY=DIR)"
        )
    if gap.read(directory) is not None:
        gap.close(directory)
        print("The gate past the archive was open; the journals say so.")
    theirs = _prefix(record)
    untouched = _take_back(directory, record)
    timers.remove(name)
    _put_away(directory, name)
    if (prefix or theirs) not in _prefixes_in_use():
        program.Program(prefix or theirs).remove()
    done = f"{directory} is as it was before"
    if not untouched:
        done = f"{directory} was changed since: only our lines were taken out"
    print(f"{done}; the store, the key and the user stay, since copies depend on them.")


def _prefix(record: undo.Undo) -> str:
    """Return the PREFIX that an installation gave the services of its instance."""
    lines = [each.after or "" for each in record.changes() if each.where == "service"]
    found = configuration.services("\n".join(filter(None, lines)))
    return instance.prefix_of(found) or program.USUAL_PREFIX


def _prefixes_in_use() -> set[str]:
    """Return the PREFIXes of the instances that still have the archive."""
    names = [each.stem for each in undo.STATE.glob("*.undo")]
    return {_prefix(undo.Undo("", name)) for name in names}


def _take_back(directory: str, record: undo.Undo) -> bool:
    """Close the gate, let the queue run dry, then take the rest back.

    Returns whether the files are as before, byte for byte.
    """
    untouched = record.is_untouched()
    running = postconf.is_running(directory)
    undone = [each.undone for each in reversed(record.changes())]
    _undo(directory, [each for each in undone if each.gate], keep=not untouched)
    if running:
        postconf.reload(directory)
        left = mailq.drain(directory)
        if left:
            raise InstallFailed(
                f"nothing new is archived, but {len(left)} messages still wait for the"
                f" archive's services ({', '.join(left[:3])}): see postqueue -p, cure"
                " what holds them, and run this again"
            )
    elif mailq.waiting(directory):
        raise InstallFailed(
            "messages wait for the archive's services and Postfix is stopped: start it"
            " and run this again"
        )
    _empty_fallback(directory)
    if untouched:
        record.restore()
    else:
        _undo(directory, [each for each in undone if not each.gate], keep=True)
    if running:
        postconf.reload(directory)
    record.forget()
    return untouched


def _empty_fallback(directory: str) -> None:
    """Bring what the store could not take into the store; raises InstallFailed."""
    _, left, why = returning.bring_back(directory)
    if left:
        folder = config.load(directory).archive_fallback_directory
        raise InstallFailed(
            f"nothing new is archived, but {left} copies wait in {folder}: {why}; cure"
            " that and run this again"
        )


def _undo(directory: str, changes: Iterable[Change], *, keep: bool) -> None:
    """Take changes back; with keep, not what somebody has changed since."""
    found = postconf.read(directory)
    for each in changes:
        now = _now(found, each)
        gone = now is None and each.after is None  # or no longer shown: unused by now
        if keep and not gone and now not in (each.before, _plain(each.before)):
            print(f"{each.name}: changed since, left as it is")
        else:
            undo.make(directory, each)


def _plain(line: str | None) -> str | None:
    return " ".join(configuration.words_of_entry(line)) if line else line


def _now(found: Configuration, change: Change) -> str | None:
    """Return what now stands where a change was made."""
    if change.where == "main":
        return found.main.get(change.name)
    if change.where == "service":
        service = found.service(change.name)
        return service.line if service else None
    key, _, option = change.name.rpartition("/")
    service = found.service(key)
    return service.options.get(option) if service else None


def _put_away(directory: str, name: str) -> None:
    """Move archive.cf to the state folder: a later installation finds it again."""
    path = Path(directory, config.NAME)
    if path.exists():
        program.replace(undo.STATE / f"{name}.archive.cf", path.read_text(), 0o644)
        path.unlink()
