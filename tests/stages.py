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

from mails import mail, records, words
from private_postfix import BY_CAPSULE, PrivatePostfix, free_ports

DOORS = ("archive-stamp", "archive")
BY_CAPSULE_LINE = "".join(f"{name} = {it}\n" for name, it in BY_CAPSULE.items())
LATER = {  # after a failure Postfix waits for go_on()
    "minimal_backoff_time": "1d",
    "maximal_backoff_time": "1d",
    "queue_run_delay": "1d",
}
# A port for hand-back that takes the envelope and refuses the message.
REFUSING = """
127.0.0.1:{port} inet n - n - - smtpd
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o smtpd_end_of_data_restrictions=defer
"""
FAILING = "#!/bin/sh\nexit 75\n"
# The first run for somebody waits until the gate is opened; others go on at once.
GATED = """#!/bin/sh
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

    def __init__(self, *, main: dict[str, str] | None = None, **more: Any) -> None:
        [self.refusing] = free_ports(1)
        super().__init__(
            main={**LATER, **(main or {})},
            master=REFUSING.format(port=self.refusing),
            **more,
        )

    def __enter__(self) -> StagedPostfix:
        self.start()
        return self

    def command_of(self, transport: str) -> Path:
        """Return the program that a transport runs: archive-stamp, archive or sink."""
        own = self.program / transport
        return own if transport in DOORS else self.folder / f"{transport}.py"

    @contextmanager
    def held_up(self, transport: str) -> Iterator[None]:
        """Let a transport's program fail meanwhile, so that mail waits for it."""
        with self._needing(transport):
            yield from self._held_up(transport)

    def _held_up(self, transport: str) -> Iterator[None]:
        program = self.command_of(transport)
        aside = program.rename(program.with_suffix(".aside"))
        program.write_text(FAILING)
        program.chmod(0o755)
        try:
            yield
        finally:
            aside.rename(program)

    @contextmanager
    def in_hand(self, transport: str, name: str, to: str = "") -> Iterator[None]:
        """Send a message; a transport's program has it in hand meanwhile.

        Of that program's runs, for one recipient if it is named, only the first waits;
        it goes on at the end.
        """
        with self._needing(transport):
            yield from self._in_hand(transport, name, to)

    def _in_hand(self, transport: str, name: str, to: str) -> Iterator[None]:
        program = self.command_of(transport)
        gate = self.folder / "gate"
        gate.mkdir()
        gate.chmod(0o777)
        os.mkfifo(gate / "fifo")
        (gate / "fifo").chmod(0o644)
        real = gate / program.name  # a door is known by its name and finds the package
        (gate / "postfix_archive").symlink_to(self.program / "postfix_archive")
        program.rename(real)
        program.write_text(GATED.format(gate=gate, program=real, to=to))
        program.chmod(0o755)
        self.send(mail(name))
        self.wait((gate / "inside").exists, f"{transport} has it in hand")
        yield
        (gate / "fifo").write_text("")
        self.wait((gate / "outside").exists, f"{transport} has done it")
        real.rename(program)
        shutil.rmtree(gate)

    @contextmanager
    def _needing(self, transport: str) -> Iterator[None]:
        """Let copies go as capsules meanwhile, if it is the archive's transport."""
        if transport != "archive":
            yield
            return
        path = self.etc / "archive.cf"
        path.write_text(path.read_text() + BY_CAPSULE_LINE)
        yield
        edit(path, BY_CAPSULE_LINE, "")

    def tried(self, transport: str) -> None:
        """Return when what waits for a transport has been tried and put back."""

        def has_failed() -> bool:
            failed = rf"relay={transport}, .*status=(deferred|SOFTBOUNCE)"
            waiting = [str(each["queue_id"]) for each in self.mailq()]
            log = self.log()
            return any(re.search(f" {each}: .*{failed}", log) for each in waiting)

        self.wait(lambda: self._rests() and has_failed(), f"{transport} has failed")

    def queue_id_of(self, recipient: str) -> str:
        """Return the queue id of the one message to a recipient that waits."""
        [found] = [
            str(each["queue_id"])
            for each in self.mailq()
            if recipient in str(each["recipients"])
        ]
        return found

    @contextmanager
    def captured(self, name: str) -> Iterator[str]:
        """Send a message; it is archived, and it cannot be handed back meanwhile."""
        ports = f":{self.ports[1]}\n", f":{self.refusing}\n"
        edit(self.etc / "archive.cf", *ports)
        queue_id = self.send(mail(name))
        self.wait_for_failure(
            f"={queue_id} error=PostfixRefused .*End-of-data rejected"
        )
        self.wait(lambda: self._is_archived(name), "it is archived")
        self.wait(self._rests, "it has been put back")
        yield queue_id
        edit(self.etc / "archive.cf", *reversed(ports))

    def postsuper(self, option: str, queue_id: str = "ALL") -> None:
        """Hold (-h), release (-H) or requeue (-r) what waits."""
        command = ["postsuper", "-c", str(self.etc), option, queue_id]
        subprocess.run(command, check=True, capture_output=True)

    def go_on(self) -> None:
        """Try all that waits again; return when nothing waits any more."""

        def is_done() -> bool:
            waiting = self.queue_files()
            if any("/deferred/" in each for each in waiting):
                self.flush()
            return not waiting and not self.mailq() and not self.queue_files()

        self.flush()
        self.wait(is_done, "nothing waits any more")

    def _is_archived(self, name: str) -> bool:
        done = {"archived", "mailed"} if self.mails else {"archived"}
        return any(done <= set(words(each)) for each in records(self, name))

    @property
    def mails(self) -> bool:
        """True if copies are mailed besides being stored."""
        return "archive_delivery = store\n" not in (self.etc / "archive.cf").read_text()

    def _rests(self) -> bool:
        busy = ("/incoming/", "/active/", "/maildrop/")
        return not any(part in path for path in self.queue_files() for part in busy)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that stands once in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} in {text}"
    path.write_text(text.replace(old, new))
