"""What make install WITH=web adds: users, settings, the service of the web page.

Used by install/main and install/report. Only additions: what is there stays, and
uninstall leaves users and web_directory, as it leaves the archive. Raises
InstallFailed.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from postfix_archive.access import reader_group
from postfix_archive.config import template
from postfix_archive.errors import InstallFailed
from postfix_archive.install import config_files, host_setup
from postfix_archive.install.instance import Instance
from postfix_archive.postfix import reference
from postfix_archive.system import files, scheduler

NAME = "web"  # of the part
WEB_USER = "postfix-archive-web"
READER_GROUP = "archive-readers"
WEB_DIRECTORY = "/var/lib/postfix-archive-web"
SETTINGS_FILE = "archive-web.cf"
SETTINGS_MODE = 0o640  # it can have passwords, of a directory for example


def missing(postfix_instance: Instance) -> Iterator[tuple[str, str]]:
    """Yield what apply() and install_service() would create: label and name."""
    settings = postfix_instance.current_settings()
    user = settings.archive_web_user or WEB_USER
    group = settings.archive_reader_group or READER_GROUP
    if not _has_group(group):
        yield "Group", group
    if not host_setup.has_user(user):
        yield "User", user
    for path in (_settings_path(postfix_instance), _directory(postfix_instance)):
        if not path.exists():
            yield "Web page", str(path)
    if unit := scheduler.WEB_PAGE.missing_file(postfix_instance.name):
        yield "Web page", unit


def apply(postfix_instance: Instance, command: str) -> None:
    """Create users and settings of the page; command is postfix-archive's path.

    A store that the reader group cannot read, or not all of it, is given to it.
    """
    settings = postfix_instance.current_settings()
    user = settings.archive_web_user or WEB_USER
    group = settings.archive_reader_group or READER_GROUP
    if not _has_group(group):
        _run("groupadd", "--system", group)
    host_setup.create_user(user, str(_directory(postfix_instance)))
    account = pwd.getpwnam(user)
    if grp.getgrnam(group).gr_gid not in os.getgrouplist(user, account.pw_gid):
        _run("usermod", "--append", "--groups", group, user)
    host_setup.create_private_directory(str(_directory(postfix_instance)), user)
    _create_settings(postfix_instance, account.pw_gid)
    values = {"archive_web_user": user, "archive_reader_group": group}
    if any(getattr(settings, name) != value for name, value in values.items()):
        text = postfix_instance.archive_cf.read_text("utf-8")
        content = template.update(text, values).encode()
        config_files.replace_content(postfix_instance.archive_cf, content)
        postfix_instance.read_settings()
    store = settings.archive_store_directory
    if os.path.isdir(store) and not reader_group.is_shared(store, group):
        _run(command, "-c", postfix_instance.directory, "readers")


def install_service(postfix_instance: Instance, command: str) -> str:
    """Install and start the service; return its scheduler and file, "" without."""
    return scheduler.WEB_PAGE.install(
        postfix_instance.name,
        postfix_instance.directory,
        command,
        postfix_instance.current_settings().archive_web_user,
    )


def _create_settings(postfix_instance: Instance, group_id: int) -> None:
    """Create archive-web.cf, or take the one that uninstall has kept."""
    path = _settings_path(postfix_instance)
    if path.exists():
        return
    kept = postfix_instance.kept_web_settings
    default = reference.PACKAGE / "install" / SETTINGS_FILE
    text = (kept if kept.exists() else default).read_text("utf-8")
    directory = _directory(postfix_instance)
    if not kept.exists() and str(directory) != WEB_DIRECTORY:
        text = template.update(text, {"web_directory": str(directory)})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, files.DRAFT_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchown(file.fileno(), 0, group_id)
        os.fchmod(file.fileno(), SETTINGS_MODE)


def _settings_path(postfix_instance: Instance) -> Path:
    return Path(postfix_instance.directory, SETTINGS_FILE)


def _directory(postfix_instance: Instance) -> Path:
    """Return web_directory of a new archive-web.cf; below that of the unit."""
    name = postfix_instance.name
    return Path(WEB_DIRECTORY, "" if name == "postfix" else name)


def _has_group(name: str) -> bool:
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False


def _run(*command: str) -> None:
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InstallFailed(f"{command[0]}: command not found") from None
    if process.returncode:
        output = " ".join(process.stderr.split())
        raise InstallFailed(f"{' '.join(command)}: {output}")
