"""CPU of one process of ours by itself, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from postfix_archive.postfix import queue_file_size

import load
from private_postfix import GROUP, USER, PrivatePostfix

BARE_PYTHON = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]
ENVELOPE = ["--sender", "alice@example.org", "--", "bob@example.net", "bob@example.net"]


def cpu_ms(postfix: PrivatePostfix, size: int, times: int) -> dict[str, list[float]]:
    """Return CPU ms of single runs: bare, archive-stamp, archive; in turns."""
    message_path = postfix.directory / "letter"
    content = load.make_message(size)
    message_path.write_bytes(content)
    canonical = content.replace(b"\n", b"\r\n")
    queue_size = queue_file_size.content_size([canonical])[0]
    milliseconds: dict[str, list[float]] = {
        "bare": [],
        "archive-stamp": [],
        "archive": [],
    }
    capsules = _capsules(postfix, size, times)
    load.wait_for_empty_queue(postfix)
    for capsule in capsules:
        milliseconds["bare"].append(_run_cpu_ms(postfix, BARE_PYTHON, message_path))
        stamp_arguments = [
            "--nexthop",
            "legal@example.com",
            "--queue-id",
            capsule.name,
            "--size",
            str(queue_size),
            *ENVELOPE,
        ]
        milliseconds["archive-stamp"].append(
            _run_cpu_ms(postfix, ["archive-stamp", *stamp_arguments], message_path)
        )
        archive_arguments = ["archive", "--queue-id", capsule.name]
        milliseconds["archive"].append(_run_cpu_ms(postfix, archive_arguments, capsule))
    load.wait_for_empty_queue(postfix)
    return milliseconds


def _capsules(postfix: PrivatePostfix, size: int, times: int) -> list[Path]:
    """Return capsules as the archive transport gets them, taken out of the queue."""
    postfix.set_archive_cf(archive_write_through_time_limit="0")
    postfix.postconf(defer_transports="archive")
    postfix.reload()
    load.send(postfix, load.Load(size, 1, 1), times)
    postfix.wait(lambda: len(_deferred_ids(postfix)) == times, "the capsules wait")
    names = _deferred_ids(postfix)
    command = ["postcat", "-c", str(postfix.etc), "-bhq"]
    capsules = []
    for name in names:
        process = subprocess.run([*command, name], capture_output=True, check=True)
        capsules.append(postfix.directory / name)
        capsules[-1].write_bytes(process.stdout)
    postfix.delete_messages(names)
    postfix.set_archive_cf()
    postfix.postconf(defer_transports="")
    postfix.reload()
    return capsules


def _deferred_ids(postfix: PrivatePostfix) -> list[str]:
    deferred = [each for each in postfix.mailq() if each["queue_name"] == "deferred"]
    return [str(each["queue_id"]) for each in deferred]


def _run_cpu_ms(postfix: PrivatePostfix, command: list[str], stdin: Path) -> float:
    """Run one process as pipe(8) does; return its CPU milliseconds."""
    program = (
        command
        if command == BARE_PYTHON
        else [f"{postfix.program_directory}/{command[0]}", *command[1:]]
    )
    with stdin.open("rb") as content:
        process = subprocess.Popen(
            program,
            stdin=content,
            stdout=subprocess.DEVNULL,
            env={"MAIL_CONFIG": str(postfix.etc), "PATH": "/usr/bin:/bin"},
            user=USER,
            group=GROUP,
            extra_groups=[],
            cwd="/",
        )
        _, status, resource_usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return 1000 * (resource_usage.ru_utime + resource_usage.ru_stime)
