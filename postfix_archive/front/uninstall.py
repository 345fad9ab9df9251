"""make uninstall: stops archiving, drains the queue, restores the configuration.

Used by install/main. The store, the key and the user remain.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from postfix_archive.back import (
    config,
    drafts,
    gap,
    instance,
    mailq,
    postconf,
    program,
    service,
    timers,
    undo,
)
from postfix_archive.core import configuration, ways
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import InstallFailed, InstallRefused
from postfix_archive.core.ways import Change
from postfix_archive.front import returning


def uninstall(directory: str, prefix: str) -> None:
    """Remove the archive from an instance, and the program if no other needs it."""
    found = postconf.read(directory)
    name = instance.name_of(found)
    record = undo.Undo(directory, name)
    if not record.exists:
        raise InstallRefused(
            f"{record.folder}: no undo record, so nothing to uninstall in {directory};"
            " for another instance run make uninstall CONFIG_DIRECTORY=DIR"
        )
    if gap.read(directory) is not None:
        gap.close(directory)
        print("Bypass was on and is now off; the journals record the period.")
    theirs = _prefix(record)
    _take_back(directory, record)
    timers.remove(name)
    _end_following(directory, name, prefix or theirs)
    _put_away(directory, name)
    restored = record.is_restored
    _forget(record)
    if (prefix or theirs) not in _prefixes_in_use():
        program.Program(prefix or theirs).remove()
    done = f"{directory}: restored to its state before the installation"
    if not restored:
        done = f"{directory}: changed since the installation; removed only our entries"
    print(f"{done}. Store, key and user remain: the archive copies need them.")


def _prefix(record: undo.Undo) -> str:
    """Return the PREFIX of the recorded installation."""
    lines = [each.after or "" for each in record.changes if each.where == "service"]
    found = configuration.services("\n".join(filter(None, lines)))
    return instance.prefix_of(found) or program.USUAL_PREFIX


def _prefixes_in_use() -> set[str]:
    """Return the PREFIX of each instance that has an undo record."""
    names = [each.stem for each in undo.STATE.glob("*.undo")]
    return {_prefix(undo.Undo("", name)) for name in names}


def _take_back(directory: str, record: undo.Undo) -> None:
    """Stop routing mail to the archive, drain the queue, then revert the rest."""
    running = postconf.is_running(directory)
    undone = [each.undone for each in reversed(record.changes)]
    _undo(directory, record, [each for each in undone if each.gate])
    if running:
        postconf.reload(directory)
        left = mailq.drain(directory)
        if left:
            raise InstallFailed(
                f"{len(left)} messages still wait for the archive's services"
                f" ({', '.join(left[:3])}); new mail is no longer archived; see"
                " postqueue -p, fix the cause and run make uninstall again"
            )
    elif mailq.waiting(directory):
        raise InstallFailed(
            "messages wait for the archive's services and Postfix is not running; run"
            " postfix start, then make uninstall again"
        )
    _empty_fallback(directory)
    if record.is_untouched:
        record.restore()
    else:
        _undo(directory, record, [each for each in undone if not each.gate])
    drafts.sweep(directory)
    if running:
        postconf.reload(directory)


def _forget(record: undo.Undo) -> None:
    """Remove the record, but keep original files that were not restored."""
    if record.is_restored:
        record.forget()
    else:
        print(f"Original main.cf and master.cf: {record.put_aside()}")


def _end_following(directory: str, name: str, prefix: str) -> None:
    """Remove the follower, then record the outcomes that are still in the log."""
    is_there = service.there(name)
    service.remove(name)
    if is_there:
        command = str(program.Program(prefix).command)
        words = [command, "-c", directory, "outcomes", "--once"]
        with contextlib.suppress(OSError):
            subprocess.run(words, capture_output=True, check=False)


def _empty_fallback(directory: str) -> None:
    """Import the fallback directory into the store; raises InstallFailed."""
    _, left, why = returning.bring_back(directory)
    if left:
        folder = config.load(directory).archive_fallback_directory
        raise InstallFailed(
            f"{left} archive copies wait in {folder}: {why}; new mail is no longer"
            " archived; fix the cause and run make uninstall again"
        )


def _undo(directory: str, record: undo.Undo, changes: Iterable[Change]) -> None:
    """Revert changes, except entries that somebody has changed since."""
    keep = not record.is_untouched
    found = postconf.read(directory)
    wanted: list[Change] = []
    for each in changes:
        now = _now(found, each)
        if now is None and each.after is None and each.where == "main":
            wanted.append(each)  # postconf -n omits unused parameters
        elif now in (each.after, _plain(each.after)):
            continue
        elif not keep or now in (each.before, _plain(each.before)):
            wanted.append(each)
        elif now and ways.unguarded(now) != now:
            wanted.append(replace(each, after=ways.unguarded(now) or None))
            print(f"{each.name}: changed since the installation; removed only ours")
        else:
            print(f"{each.name}: changed since the installation; left unchanged")
    before = drafts.read(directory)
    after = drafts.changed(before, wanted)
    record.expect(after)
    drafts.put(directory, after, before)


def _plain(line: str | None) -> str | None:
    return " ".join(configuration.words_of_entry(line)) if line else line


def _now(found: Configuration, change: Change) -> str | None:
    """Return the current value of what a change has set, None if there is none."""
    if change.where == "main":
        return found.main.get(change.name)
    if change.where == "service":
        service = found.service(change.name)
        return service.line if service else None
    key, _, option = change.name.rpartition("/")
    service = found.service(key)
    return service.options.get(option) if service else None


def _put_away(directory: str, name: str) -> None:
    """Move archive.cf to the state directory, where a later installation reads it."""
    path = Path(directory, config.NAME)
    if path.exists():
        text = path.read_text("utf-8")
        program.replace(undo.STATE / f"{name}.archive.cf", text, 0o644)
        path.unlink()
