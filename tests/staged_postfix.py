"""A Postfix whose mail can be held up at every stage of its way through the archive.

    with StagedPostfix() as postfix:
        with postfix.held_up("archive-stamp"):      # the stamp filter cannot run
            postfix.send(mail("waits"))
            ...                                     # it has been tried once, and waits
        postfix.go_on()

Nothing is tried a second time before go_on() says so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mails import event_kinds, mail, records
from private_postfix import WITHOUT_WRITE_THROUGH, PrivatePostfix, free_ports

PROGRAMS = ("archive-stamp", "archive-capture", "archive")
WITHOUT_WRITE_THROUGH_LINES = "".join(
    f"{name} = {it}\n" for name, it in WITHOUT_WRITE_THROUGH.items()
)
LONG_BACKOFF = {  # after a failure Postfix waits for go_on()
    "minimal_backoff_time": "1d",
    "maximal_backoff_time": "1d",
    "queue_run_delay": "1d",
}
# A port for hand-back that takes the envelope and refuses the message.
REFUSING_ENTRY = """
127.0.0.1:{port} inet n - n - - smtpd
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o smtpd_end_of_data_restrictions=defer
"""
FAILING_SCRIPT = "#!/bin/sh\nexit 75\n"
# The first run for somebody waits until the gate is opened; others go on at once.
BLOCKING_SCRIPT = """#!/bin/sh
case "$*" in *{to}*) ;; *) exec {program} "$@" ;; esac
mkdir {gate}/inside 2>/dev/null || exec {program} "$@"
cat {gate}/fifo >/dev/null
{program} "$@"
code=$?
touch {gate}/outside
exit $code
"""


class StagedPostfix(PrivatePostfix):
    """An instance that tries nothing again by itself."""

    def __init__(self, *, main: dict[str, str] | None = None, **options: Any) -> None:
        [self.refusing_port] = free_ports(1)
        super().__init__(
            main={**LONG_BACKOFF, **(main or {})},
            master=REFUSING_ENTRY.format(port=self.refusing_port),
            **options,
        )

    def __enter__(self) -> StagedPostfix:
        self.start()
        return self

    def program_path(self, transport: str) -> Path:
        """Return the program that a transport runs: one of PROGRAMS, or sink."""
        path = self.program_directory / transport
        return path if transport in PROGRAMS else self.directory / f"{transport}.py"

    @contextmanager
    def failing_transport(self, transport: str) -> Iterator[None]:
        """Let a transport's program fail meanwhile, so that mail waits for it."""
        with self._with_capsules(transport):
            yield from self._failing_transport(transport)

    def _failing_transport(self, transport: str) -> Iterator[None]:
        program = self.program_path(transport)
        original_program = program.rename(program.with_suffix(".aside"))
        program.write_text(FAILING_SCRIPT)
        program.chmod(0o755)
        try:
            yield
        finally:
            original_program.rename(program)

    @contextmanager
    def blocked_delivery(
        self, transport: str, name: str, to: str = ""
    ) -> Iterator[None]:
        """Send a message; a transport's program has it in hand meanwhile.

        Of that program's runs, for one recipient if it is named, only the first waits;
        it goes on at the end.
        """
        with self._with_capsules(transport):
            yield from self._blocked_delivery(transport, name, to)

    def _blocked_delivery(self, transport: str, name: str, to: str) -> Iterator[None]:
        program = self.program_path(transport)
        block_directory = self.directory / "gate"
        block_directory.mkdir()
        block_directory.chmod(0o777)
        os.mkfifo(block_directory / "fifo")
        (block_directory / "fifo").chmod(0o644)
        real_program = (
            block_directory / program.name
        )  # a transport is known by its name and finds the package
        (block_directory / "postfix_archive").symlink_to(
            self.program_directory / "postfix_archive"
        )
        program.rename(real_program)
        program.write_text(
            BLOCKING_SCRIPT.format(gate=block_directory, program=real_program, to=to)
        )
        program.chmod(0o755)
        self.send(mail(name))
        self.wait((block_directory / "inside").exists, f"{transport} has it in hand")
        yield
        (block_directory / "fifo").write_text("")
        self.wait((block_directory / "outside").exists, f"{transport} has done it")
        real_program.rename(program)
        shutil.rmtree(block_directory)

    @contextmanager
    def _with_capsules(self, transport: str) -> Iterator[None]:
        """Let copies go as capsules meanwhile, if it is the archive's transport."""
        if transport != "archive":
            yield
            return
        path = self.etc / "archive.cf"
        path.write_text(path.read_text() + WITHOUT_WRITE_THROUGH_LINES)
        yield
        replace_once(path, WITHOUT_WRITE_THROUGH_LINES, "")

    def wait_until_deferred(self, transport: str) -> None:
        """Return when what waits for a transport has been tried and put back."""

        def has_failed() -> bool:
            pattern = rf"relay={transport}, .*status=(deferred|SOFTBOUNCE)"
            queue_ids = [str(each["queue_id"]) for each in self.mailq()]
            log = self.log()
            return any(re.search(f" {each}: .*{pattern}", log) for each in queue_ids)

        self.wait(lambda: self._is_idle() and has_failed(), f"{transport} has failed")

    def queue_id_of(self, recipient: str) -> str:
        """Return the queue id of the one message to a recipient that waits."""
        [queue_id] = [
            str(each["queue_id"])
            for each in self.mailq()
            if recipient in str(each["recipients"])
        ]
        return queue_id

    @contextmanager
    def captured_not_reinjected(self, name: str) -> Iterator[str]:
        """Send a message; it is archived, and it cannot be handed back meanwhile."""
        ports = f":{self.ports[1]}\n", f":{self.refusing_port}\n"
        replace_once(self.etc / "archive.cf", *ports)
        queue_id = self.send(mail(name))
        self.wait_for_failure(
            f"={queue_id} error=PostfixRefused .*End-of-data rejected"
        )
        self.wait(lambda: self._is_archived(name), "it is archived")
        self.wait(self._is_idle, "it has been put back")
        yield queue_id
        replace_once(self.etc / "archive.cf", *reversed(ports))

    def postsuper(self, option: str, queue_id: str = "ALL") -> None:
        """Hold (-h), release (-H) or requeue (-r) what waits."""
        command = ["postsuper", "-c", str(self.etc), option, queue_id]
        subprocess.run(command, check=True, capture_output=True)

    def retry_all(self) -> None:
        """Try all that waits again; return when nothing waits any more."""

        def is_done() -> bool:
            paths = self.queue_files()
            if any("/deferred/" in each for each in paths):
                self.flush()
            return not paths and not self.mailq() and not self.queue_files()

        self.flush()
        self.wait(is_done, "nothing waits any more")

    def _is_archived(self, name: str) -> bool:
        expected_kinds = {"archived", "mailed"} if self.is_mailing else {"archived"}
        return any(
            expected_kinds <= set(event_kinds(each)) for each in records(self, name)
        )

    @property
    def is_mailing(self) -> bool:
        """True if copies are mailed besides being stored."""
        return "archive_delivery = store\n" not in (self.etc / "archive.cf").read_text()

    def _is_idle(self) -> bool:
        busy = ("/incoming/", "/active/", "/maildrop/")
        return not any(part in path for path in self.queue_files() for part in busy)


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace a text that stands once in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} in {text}"
    path.write_text(text.replace(old, new))
