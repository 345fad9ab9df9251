"""A running instance in which tests plant faults, for the doctor to name."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from private_postfix import GROUP, USER, PrivatePostfix

COMMAND = Path(sys.executable).parent / "postfix-archive"
REQUEST_RESTRICTION = "check_recipient_access,inline:{archive-request.invalid=reject}"
CORRECT_RESTRICTIONS = {
    "smtpd_recipient_restrictions": f"{REQUEST_RESTRICTION},permit_mynetworks,reject"
}


@dataclass(frozen=True)
class Host:
    """A running instance, and the words with which faults are planted in it."""

    postfix: PrivatePostfix

    @property
    def etc(self) -> Path:
        return self.postfix.etc

    @contextlib.contextmanager
    def restored_configuration(self) -> Iterator[None]:
        """Put the configuration directory back afterwards.

        If a daemon can have read another one meanwhile, because there was mail or a
        reload, Postfix is reloaded.
        """
        saved_config = self.etc.with_name("kept")
        subprocess.run(["cp", "-a", str(self.etc), str(saved_config)], check=True)
        log_before = self.postfix.log()
        yield
        shutil.rmtree(self.etc)
        saved_config.rename(self.etc)
        if self.postfix.log() != log_before:
            self.postfix.reload()

    def port(self, role: str) -> str:
        """The key of an internal port in master.cf."""
        roles = ("handback", "capsule", "copy", "relay", "refused")
        return f"127.0.0.1:{self.postfix.ports[1 + roles.index(role)]}/inet"

    def postconf(self, *arguments: str) -> Host:
        subprocess.run(["postconf", "-c", str(self.etc), *arguments], check=True)
        return self

    def set_main(self, **values: str) -> Host:
        self.postfix.postconf(**values)
        return self

    def unset_main(self, name: str) -> Host:
        return self.postconf("-X", name)

    def set_option(self, key: str, name: str, value: str) -> Host:
        return self.postconf("-P", "-e", f"{key}/{name}={value}")

    def remove_option(self, key: str, name: str) -> Host:
        return self.postconf("-P", "-X", f"{key}/{name}")

    def remove_service(self, key: str) -> Host:
        return self.postconf("-M", "-X", key)

    def add_service(self, line: str) -> Host:
        return self.edit_master(lambda text: f"{text}\n{line}\n")

    def edit_master(self, change: Callable[[str], str]) -> Host:
        path = self.etc / "master.cf"
        text = change(path.read_text())
        assert text != path.read_text()
        path.write_text(text)
        return self

    def edit_entry(self, key: str, before: str, after: str) -> Host:
        """Change words of one entry of master.cf."""
        command = ["postconf", "-c", str(self.etc), "-M", key]
        line = " ".join(subprocess.check_output(command, text=True).split())
        assert before in line
        return self.postconf("-M", "-e", f"{key}={line.replace(before, after)}")

    def make_table(self, text: str, kind: str = "texthash") -> str:
        """Make a table; return its name for main.cf."""
        path = self.etc / "table"
        path.write_text(text)
        if kind in ("hash", "lmdb"):
            command = ["postmap", "-c", str(self.etc), f"{kind}:{path}"]
            subprocess.run(command, check=True)
        return f"{kind}:{path}"

    def make_directory_beside_store(self, name: str) -> str:
        """Make a directory of the archive's user beside the store; return its path."""
        path = self.postfix.store.with_name(name)
        path.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(path, USER, GROUP)
        return str(path)

    def make_capsule_helo(self) -> Path:
        """Have the capsule port ask for a HELO name; return the file with it."""
        assert self.postfix.run_command("key", "helo").returncode == 0
        path = self.etc / "archive.key.helo"
        self.set_main(archive_capsule_helo=f"texthash:{path}")
        self.postfix.reload()
        return path

    def make_unreadable_key(self) -> str:
        """Copy the key to a directory that only root can pass; return its path."""
        directory = self.etc / "locked"
        directory.mkdir(mode=0o700)
        subprocess.run(
            ["cp", "-p", str(self.etc / "archive.key"), directory], check=True
        )
        return str(directory / "archive.key")

    def make_source_table(self, text: str) -> str:
        """Make a source table; return its name for archive_tables."""
        (self.etc / "source.in").write_text(text)
        return f"texthash:{self.etc}/source.in"

    def set_archive_cf(self, **values: str) -> Host:
        self.postfix.set_archive_cf(**values)
        return self

    def findings(
        self, *arguments: str, exit_code: int | None = None
    ) -> list[dict[str, str]]:
        """What the doctor says."""
        process = subprocess.run(
            [str(COMMAND), "-c", str(self.etc), "doctor", "--json", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in process.stderr
        report = json.loads(process.stdout)
        severities = {each["severity"] for each in report["findings"]}
        expected_code = 2 if "CRITICAL" in severities else int("WARNING" in severities)
        assert process.returncode == (expected_code if exit_code is None else exit_code)
        all_findings: list[dict[str, str]] = report["findings"]
        return all_findings

    def finding_names(self) -> set[str]:
        """The names of what the doctor finds."""
        return {each["check"] for each in self.findings()}


@contextlib.contextmanager
def running(mode: str) -> Iterator[Host]:
    """Run an instance in a mode, with all that the doctor expects to have run."""
    with PrivatePostfix(main=CORRECT_RESTRICTIONS, mode=mode) as postfix:
        assert postfix.run_command("queue", "rescue").returncode == 0
        assert postfix.run_command("outcomes").returncode == 0
        assert postfix.run_command("index", "--once").returncode == 0
        yield Host(postfix)


def findings_of(host: Host, *arguments: str) -> list[dict[str, str]]:
    """What the doctor finds, but for the advice that every private instance gets."""
    return [e for e in host.findings(*arguments) if e["severity"] != "ADVICE"]
