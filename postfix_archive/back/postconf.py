"""Postfix's own commands: reads and changes its configuration, reloads it.

Used by the commands that look at or change the host. main.cf and master.cf are changed
by postconf(1) alone. Foreign errors leave as PostfixCommandFailed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile

from postfix_archive.core import configuration
from postfix_archive.core.configuration import Configuration
from postfix_archive.core.errors import PostfixCommandFailed, PostfixMissing

PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
SECONDS = 120  # no command here takes more than a few


def read(directory: str) -> Configuration:
    """Return what Postfix makes of main.cf and master.cf in this directory."""
    return Configuration(
        directory=directory,
        main=configuration.parameters(run(directory, "postconf", "-n")),
        known=configuration.parameters(run(directory, "postconf")),
        services=configuration.services(run(directory, "postconf", "-M")),
    )


def set_main(directory: str, name: str, value: str) -> None:
    """Set a parameter of main.cf."""
    run(directory, "postconf", "-e", f"{name} = {value}")


def remove_main(directory: str, name: str) -> None:
    """Take a parameter out of main.cf, so that its default counts again."""
    run(directory, "postconf", "-X", name)


def set_service(directory: str, key: str, line: str) -> None:
    """Put an entry into master.cf, or replace the one of this name and type."""
    run(directory, "postconf", "-M", "-e", f"{key} = {line}")


def remove_service(directory: str, key: str) -> None:
    """Take an entry out of master.cf."""
    run(directory, "postconf", "-M", "-X", key)


def set_option(directory: str, key: str, name: str, value: str) -> None:
    """Set one -o option of a service in master.cf.

    postconf(1) takes no white space there: a list gets commas instead.
    """
    if value.split() != [value]:
        value = ",".join(configuration.words(value))
    run(directory, "postconf", "-P", "-e", f"{key}/{name} = {value}")


def remove_option(directory: str, key: str, name: str) -> None:
    """Take one -o option of a service out of master.cf."""
    run(directory, "postconf", "-P", "-X", f"{key}/{name}")


def check(directory: str) -> None:
    """Run postfix check; raises PostfixCommandFailed with what it says."""
    run(directory, "postfix", "check")


def reload(directory: str) -> None:
    """Make the running Postfix read its configuration again."""
    run(directory, "postfix", "reload")


def is_running(directory: str) -> bool:
    """Tell whether this instance runs."""
    return _done([program("postfix"), "-c", directory, "status"]).returncode == 0


def run(directory: str, command: str, *words: str) -> str:
    """Run one of Postfix's commands with -c directory; return what it prints."""
    return _finished(directory, command, *words).stdout


def index(directory: str, table: str) -> list[str]:
    """Run postmap on type:path; return its warnings, of keys that stand twice."""
    return _finished(directory, "postmap", table).stderr.splitlines()


def lookup(directory: str, table: str, key: str) -> str:
    """Return what a table says for a key, "" if nothing or if it cannot be asked."""
    done = _done([program("postmap"), "-c", directory, "-q", key, table])
    return done.stdout.strip() if done.returncode == 0 else ""


def asked(directory: str, content: bytes, *words: str) -> str:
    """Run postmap(1) with content on its stdin; return what it prints."""
    done = subprocess.run(
        [program("postmap"), "-c", directory, *words],
        input=content,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def answers(host: str, port: int) -> bool:
    """Tell whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), 5):
            return True
    except OSError:
        return False


def program(command: str) -> str:
    """Return the path of one of Postfix's commands; raises PostfixMissing."""
    found = shutil.which(command, path=f"{os.environ.get('PATH', '')}:{PLACES}")
    if found is None:
        raise PostfixMissing(
            f"there is no {command} here: install your system's postfix package"
            " (Debian: apt-get install postfix), or say INSTALL_POSTFIX=yes"
        )
    return found


def _finished(
    directory: str, command: str, *words: str
) -> subprocess.CompletedProcess[str]:
    done = _done([program(command), "-c", directory, *words])
    if done.returncode:
        main = os.path.join(directory, "main.cf")
        if main in done.stderr and not os.path.exists(main):
            raise PostfixCommandFailed(
                f"{directory}: there is no main.cf here: give the folder that has it,"
                " -c DIR (make: CONFIG_DIRECTORY=DIR)"
            )
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise PostfixCommandFailed(f"{command} {' '.join(words)[:80]}: {said[:400]}")
    return done


def _done(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Files, no pipes: postfix reload leaves a postsuper(1) behind that keeps them open
    # for as long as it looks through the queue.
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=complained,
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise PostfixCommandFailed(f"{command[0]}: {problem}") from problem
        texts = []
        for each in (said, complained):
            each.seek(0)
            texts.append(each.read().decode("utf-8", "surrogateescape"))
        return subprocess.CompletedProcess(command, done.returncode, *texts)
