"""Runs Postfix's commands: postconf(1), postfix(1), postmap(1) and others.

Used by all commands that read or change the host. Only postconf(1) edits main.cf and
master.cf. Raises PostfixMissing and PostfixCommandFailed.
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
    """Return main.cf and master.cf of a directory, as postconf(1) prints them."""
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
    """Remove a parameter from main.cf, so that its default applies."""
    run(directory, "postconf", "-X", name)


def set_service(directory: str, key: str, line: str) -> None:
    """Add an entry to master.cf, or replace the one of this name and type."""
    run(directory, "postconf", "-M", "-e", f"{key} = {line}")


def remove_service(directory: str, key: str) -> None:
    """Remove an entry from master.cf."""
    run(directory, "postconf", "-M", "-X", key)


def set_option(directory: str, key: str, name: str, value: str) -> None:
    """Set one -o option of a service in master.cf.

    postconf(1) accepts no white space there, so a list is separated by commas.
    """
    if value.split() != [value]:
        value = ",".join(configuration.words(value))
    run(directory, "postconf", "-P", "-e", f"{key}/{name} = {value}")


def remove_option(directory: str, key: str, name: str) -> None:
    """Remove one -o option of a service from master.cf."""
    run(directory, "postconf", "-P", "-X", f"{key}/{name}")


def check(directory: str) -> None:
    """Run postfix check; raises PostfixCommandFailed with its output."""
    run(directory, "postfix", "check")


def reload(directory: str) -> None:
    """Run postfix reload."""
    run(directory, "postfix", "reload")


def is_running(directory: str) -> bool:
    """Tell whether this instance is running."""
    return _done([program("postfix"), "-c", directory, "status"]).returncode == 0


def run(directory: str, command: str, *words: str) -> str:
    """Run one of Postfix's commands with -c directory; return its standard output."""
    return _finished(directory, command, *words).stdout


def index(directory: str, table: str) -> list[str]:
    """Run postmap(1) on type:path; return its warnings, for example duplicate keys."""
    return _finished(directory, "postmap", table).stderr.splitlines()


def lookup(directory: str, table: str, key: str) -> str:
    """Return the value of a key in a lookup table, "" if none or on failure."""
    done = _done([program("postmap"), "-c", directory, "-q", key, table])
    return done.stdout.strip() if done.returncode == 0 else ""


def asked(directory: str, content: bytes, *words: str) -> str:
    """Run postmap(1) with content as standard input; return its standard output."""
    done = subprocess.run(
        [program("postmap"), "-c", directory, *words],
        input=content,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def answers(host: str, port: int) -> bool:
    """Tell whether host:port accepts TCP connections."""
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
            f"{command}: command not found; install your system's postfix package"
            " (Debian: apt-get install postfix) or use make install INSTALL_POSTFIX=yes"
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
                f"{directory}: no main.cf in this directory; name the configuration"
                " directory with -c DIR (make: CONFIG_DIRECTORY=DIR)"
            )
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise PostfixCommandFailed(f"{command} {' '.join(words)[:80]}: {said[:400]}")
    return done


def _done(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Files, not pipes: postfix reload leaves a postsuper(1) running that keeps
    # its output open until it has scanned the queue.
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
