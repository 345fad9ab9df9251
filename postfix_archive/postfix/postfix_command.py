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
import threading
from collections.abc import Mapping

from postfix_archive.errors import (
    ArchiveError,
    PostfixCommandFailed,
    PostfixMissing,
)
from postfix_archive.message import log_fields
from postfix_archive.postfix import configuration
from postfix_archive.postfix.configuration import Configuration

SEARCH_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
COMMAND_TIMEOUT = 120  # no command here takes more than a few


def read_configuration(directory: str) -> Configuration:
    """Return main.cf and master.cf of a directory, as postconf(1) prints them."""
    return Configuration(
        directory=directory,
        main=configuration.parse_parameters(run(directory, "postconf", "-n")),
        parameters=configuration.parse_parameters(run(directory, "postconf")),
        services=configuration.parse_services(run(directory, "postconf", "-M")),
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
        value = ",".join(configuration.split_list(value))
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
    return (
        _run_process([find_command("postfix"), "-c", directory, "status"]).returncode
        == 0
    )


def run(directory: str, command: str, *arguments: str, content: bytes = b"") -> str:
    """Run one of Postfix's commands with -c directory; return its standard output.

    content is its standard input.
    """
    return _run_checked(directory, command, *arguments, content=content).stdout


def submit(directory: str, recipient: str, message: bytes) -> None:
    """Submit a message with the null sender by sendmail(1).

    Raises PostfixCommandFailed with its reason.
    """
    command = [find_command("sendmail"), "-C", directory, "-i", "-f", "<>", recipient]
    process = _run_process(command, message)
    if process.returncode:
        reason = " ".join(process.stderr.split()) or f"exit code {process.returncode}"
        raise PostfixCommandFailed(f"sendmail: {reason[:400]}")


def read_envelopes(directory: str, queue_ids: list[str]) -> tuple[str, bool]:
    """Return the envelope records of queued messages, and whether of all of them.

    postcat(1) prints them in this order, and ends at a message that is gone. It sleeps
    for a second then, as every command of Postfix after a fatal error (msg(3)): this
    does not wait for that.
    """
    command = [find_command("postcat"), "-c", directory, "-e", "-q", *queue_ids]
    with tempfile.TemporaryFile() as stdout:
        try:
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
            ) as process:
                timer = threading.Timer(COMMAND_TIMEOUT, process.kill)
                timer.start()
                assert process.stderr is not None
                is_complete = not any(b" fatal: " in each for each in process.stderr)
                if not is_complete:
                    process.kill()
                timer.cancel()
        except OSError as error:
            raise PostfixCommandFailed(f"{command[0]}: {error}") from error
        stdout.seek(0)
        output = stdout.read().decode("utf-8", "surrogateescape")
    return output, is_complete and process.returncode == 0


def build_table(directory: str, table: str) -> list[str]:
    """Run postmap(1) on type:path; return its warnings, for example duplicate keys."""
    return _run_checked(directory, "postmap", table).stderr.splitlines()


def look_up(directory: str, table: str, key: str) -> str:
    """Return the value of a key in a lookup table, "" if none or on failure."""
    process = _run_process([find_command("postmap"), "-c", directory, "-q", key, table])
    return process.stdout.strip() if process.returncode == 0 else ""


def run_postmap(directory: str, content: bytes, *arguments: str) -> str:
    """Run postmap(1) with content as standard input; return its standard output."""
    command = [find_command("postmap"), "-c", directory, *arguments]
    return _run_process(command, content).stdout


def is_listening(host: str, port: int) -> bool:
    """Tell whether host:port accepts TCP connections."""
    try:
        with socket.create_connection((host, port), 5):
            return True
    except OSError:
        return False


def find_command(command: str) -> str:
    """Return the path of one of Postfix's commands; raises PostfixMissing."""
    path = shutil.which(command, path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")
    if path is None:
        raise PostfixMissing(
            f"{command}: command not found; install your system's postfix package"
            " (Debian: apt-get install postfix) or use make install INSTALL_POSTFIX=yes"
        )
    return path


def _run_checked(
    directory: str, command: str, *arguments: str, content: bytes = b""
) -> subprocess.CompletedProcess[str]:
    command_line = [find_command(command), "-c", directory, *arguments]
    process = _run_process(command_line, content)
    if process.returncode:
        main_cf_path = os.path.join(directory, "main.cf")
        if main_cf_path in process.stderr and not os.path.exists(main_cf_path):
            raise PostfixCommandFailed(
                f"{directory}: no main.cf in this directory; name the configuration"
                " directory with -c DIR (make install: CONFIG_DIRECTORY=DIR)"
            )
        output = " ".join(process.stderr.split()) or f"exit code {process.returncode}"
        raise PostfixCommandFailed(
            f"{command} {' '.join(arguments)[:80]}: {output[:400]}"
        )
    return process


def _run_process(
    command: list[str], content: bytes = b""
) -> subprocess.CompletedProcess[str]:
    # Files, not pipes: postfix reload leaves a postsuper(1) running that keeps
    # its output open until it has scanned the queue.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.run(
                command,
                input=content,
                stdout=stdout,
                stderr=stderr,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostfixCommandFailed(f"{command[0]}: {error}") from error
        outputs = []
        for file in (stdout, stderr):
            file.seek(0)
            outputs.append(file.read().decode("utf-8", "surrogateescape"))
        return subprocess.CompletedProcess(command, process.returncode, *outputs)


def log_alarm(directory: str, tag: str, fields: Mapping[str, str]) -> bool:
    """Write an alarm to Postfix's log with postlog(1); tell whether that took it."""
    arguments = ("-t", tag, "-p", "warn", log_fields.build(fields))
    try:
        run(directory, "postlog", *arguments)
    except ArchiveError:
        return False
    return True
