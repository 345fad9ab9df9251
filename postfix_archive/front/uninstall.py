"""make uninstall: closes the gate, lets the queue run dry, takes everything back.

Used by front/install. The store, the key and the user stay.
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
    _take_back(directory, record)
    timers.remove(name)
    _end_following(directory, name, prefix or theirs)
    _put_away(directory, name)
    restored = record.is_restored
    _forget(record)
    if (prefix or theirs) not in _prefixes_in_use():
        program.Program(prefix or theirs).remove()
    done = f"{directory} is as it was before"
    if not restored:
        done = f"{directory} was changed since: only our lines were taken out"
    print(f"{done}; the store, the key and the user stay, since copies depend on them.")


def _prefix(record: undo.Undo) -> str:
    """Return the PREFIX that an installation gave the services of its instance."""
    lines = [each.after or "" for each in record.changes if each.where == "service"]
    found = configuration.services("\n".join(filter(None, lines)))
    return instance.prefix_of(found) or program.USUAL_PREFIX


def _prefixes_in_use() -> set[str]:
    """Return the PREFIXes of the instances that still have the archive."""
    names = [each.stem for each in undo.STATE.glob("*.undo")]
    return {_prefix(undo.Undo("", name)) for name in names}


def _take_back(directory: str, record: undo.Undo) -> None:
    """Close the gate, let the queue run dry, then take the rest back."""
    running = postconf.is_running(directory)
    undone = [each.undone for each in reversed(record.changes)]
    _undo(directory, record, [each for each in undone if each.gate])
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
    if record.is_untouched:
        record.restore()
    else:
        _undo(directory, record, [each for each in undone if not each.gate])
    drafts.sweep(directory)
    if running:
        postconf.reload(directory)


def _forget(record: undo.Undo) -> None:
    """Take the record away; originals that were not put back are kept."""
    if record.is_restored:
        record.forget()
    else:
        print(f"main.cf and master.cf from before: {record.put_aside()}")


def _end_following(directory: str, name: str, prefix: str) -> None:
    """Stop the follower; what the log has by now, it still tells the journals."""
    is_there = service.there(name)
    service.remove(name)
    if is_there:
        command = str(program.Program(prefix).command)
        words = [command, "-c", directory, "outcomes", "--once"]
        with contextlib.suppress(OSError):
            subprocess.run(words, capture_output=True, check=False)


def _empty_fallback(directory: str) -> None:
    """Bring what the store could not take into the store; raises InstallFailed."""
    _, left, why = returning.bring_back(directory)
    if left:
        folder = config.load(directory).archive_fallback_directory
        raise InstallFailed(
            f"nothing new is archived, but {left} copies wait in {folder}: {why}; cure"
            " that and run this again"
        )


def _undo(directory: str, record: undo.Undo, changes: Iterable[Change]) -> None:
    """Take changes back, but not what somebody has changed since."""
    keep = not record.is_untouched
    found = postconf.read(directory)
    wanted: list[Change] = []
    for each in changes:
        now = _now(found, each)
        if now is None and each.after is None and each.where == "main":
            wanted.append(each)  # perhaps only not shown: unused by now
        elif now in (each.after, _plain(each.after)):
            continue
        elif not keep or now in (each.before, _plain(each.before)):
            wanted.append(each)
        elif now and ways.unguarded(now) != now:
            wanted.append(replace(each, after=ways.unguarded(now) or None))
            print(f"{each.name}: changed since, only what is ours was taken out")
        else:
            print(f"{each.name}: changed since, left as it is")
    before = drafts.read(directory)
    after = drafts.changed(before, wanted)
    record.expect(after)
    drafts.put(directory, after, before)


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
        text = path.read_text("utf-8")
        program.replace(undo.STATE / f"{name}.archive.cf", text, 0o644)
        path.unlink()
