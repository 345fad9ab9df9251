"""CPU of one process of ours by itself, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from postfix_archive.postfix import queue_file_size

import load
from private_postfix import GROUP, USER, PrivatePostfix

BARE = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]
ENVELOPE = ["--sender", "alice@example.org", "--", "bob@example.net", "bob@example.net"]


def cpu_ms(postfix: PrivatePostfix, size: int, times: int) -> dict[str, list[float]]:
    """Return CPU ms of single runs: bare, archive-stamp, archive; in turns."""
    letter = postfix.folder / "letter"
    content = load.letter(size)
    letter.write_bytes(content)
    canonical = content.replace(b"\n", b"\r\n")
    queue_size = queue_file_size.content_size([canonical])[0]
    found: dict[str, list[float]] = {"bare": [], "archive-stamp": [], "archive": []}
    capsules = _capsules(postfix, size, times)
    load.wait(postfix)
    for capsule in capsules:
        found["bare"].append(_spent(postfix, BARE, letter))
        stamp = [
            "--nexthop",
            "legal@example.com",
            "--queue-id",
            capsule.name,
            "--size",
            str(queue_size),
            *ENVELOPE,
        ]
        found["archive-stamp"].append(
            _spent(postfix, ["archive-stamp", *stamp], letter)
        )
        archive = ["archive", "--queue-id", capsule.name]
        found["archive"].append(_spent(postfix, archive, capsule))
    load.wait(postfix)
    return found


def _capsules(postfix: PrivatePostfix, size: int, times: int) -> list[Path]:
    """Return capsules as the archive transport gets them, taken out of the queue."""
    postfix.set_archive_cf(archive_write_through_time_limit="0")
    postfix.postconf(defer_transports="archive")
    postfix.reload()
    load.send(postfix, load.Load(size, 1, 1), times)
    postfix.wait(lambda: len(_waiting(postfix)) == times, "the capsules wait")
    names = _waiting(postfix)
    command = ["postcat", "-c", str(postfix.etc), "-bhq"]
    capsules = []
    for name in names:
        taken = subprocess.run([*command, name], capture_output=True, check=True)
        capsules.append(postfix.folder / name)
        capsules[-1].write_bytes(taken.stdout)
    postfix.forget(names)
    postfix.set_archive_cf()
    postfix.postconf(defer_transports="")
    postfix.reload()
    return capsules


def _waiting(postfix: PrivatePostfix) -> list[str]:
    deferred = [each for each in postfix.mailq() if each["queue_name"] == "deferred"]
    return [str(each["queue_id"]) for each in deferred]


def _spent(postfix: PrivatePostfix, words: list[str], stdin: Path) -> float:
    """Run one process as pipe(8) does; return its CPU milliseconds."""
    program = words if words == BARE else [f"{postfix.program}/{words[0]}", *words[1:]]
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
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return 1000 * (used.ru_utime + used.ru_stime)
