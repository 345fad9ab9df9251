"""What reverting an installation leaves: without our changes, with those of others.

Used by install/uninstall, and by install/mode_switch for the configuration that another
mode starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from postfix_archive.install import config_files, undo
from postfix_archive.install.config_files import Contents
from postfix_archive.install.filter_routes import Change
from postfix_archive.postfix import archive_services, configuration
from postfix_archive.postfix.configuration import Configuration


def original_contents(
    undo_record: undo.UndoRecord, postfix_config: Configuration
) -> Contents:
    """Return main.cf and master.cf as uninstall would leave them."""
    if undo_record.is_untouched:
        return config_files.read(undo_record.record_directory)
    changes = [each.inverse for each in reversed(undo_record.changes)]
    selected = select(postfix_config, changes, is_edited=True, report=lambda text: None)
    return config_files.apply_changes(
        config_files.read(postfix_config.directory), selected
    )


def select(
    postfix_config: Configuration,
    changes: Iterable[Change],
    *,
    is_edited: bool,
    report: Callable[[str], object],
) -> list[Change]:
    """Return the changes to make, among those that revert an installation.

    Not those of entries that somebody has changed since (is_edited): report gets a line
    for each.
    """
    selected: list[Change] = []
    for change in changes:
        current = _current_value(postfix_config, change)
        if current is None and change.after is None and change.kind == "main":
            selected.append(change)  # postconf -n omits unused parameters
        elif current in (change.after, _normalise(change.after)):
            continue
        elif not is_edited or current in (change.before, _normalise(change.before)):
            selected.append(change)
        elif current and archive_services.remove_own_elements(current) != current:
            own_removed = archive_services.remove_own_elements(current) or None
            selected.append(replace(change, after=own_removed))
            report(f"{change.name}: changed since the installation; removed only ours")
        else:
            report(f"{change.name}: changed since the installation; left unchanged")
    return selected


def _normalise(line: str | None) -> str | None:
    return " ".join(configuration.split_entry(line)) if line else line


def _current_value(postfix_config: Configuration, change: Change) -> str | None:
    """Return the current value of what a change has set, None if there is none."""
    if change.kind == "main":
        return postfix_config.main.get(change.name)
    if change.kind == "service":
        entry = postfix_config.service(change.name)
        return entry.line if entry else None
    key, _, option = change.name.rpartition("/")
    entry = postfix_config.service(key)
    return entry.options.get(option) if entry else None
