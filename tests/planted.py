"""A running instance in which tests plant faults, for the doctor to name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from private_postfix import GROUP, USER, PrivatePostfix

COMMAND = Path(sys.executable).parent / "postfix-archive"
GUARD = "check_recipient_access,inline:{archive-request.invalid=reject}"
SOUND = {"smtpd_recipient_restrictions": f"{GUARD},permit_mynetworks,reject"}


@dataclass(frozen=True)
class Host:
    """A running instance, and the words with which faults are planted in it."""

    postfix: PrivatePostfix

    @property
    def etc(self) -> Path:
        return self.postfix.etc

    def port(self, role: str) -> str:
        """The key of an internal port in master.cf."""
        roles = ("handback", "capsule", "copy", "relay", "refused")
        return f"127.0.0.1:{self.postfix.ports[1 + roles.index(role)]}/inet"

    def postconf(self, *words: str) -> Host:
        subprocess.run(["postconf", "-c", str(self.etc), *words], check=True)
        return self

    def main(self, **values: str) -> Host:
        self.postfix.postconf(**values)
        return self

    def unset(self, name: str) -> Host:
        return self.postconf("-X", name)

    def option(self, key: str, name: str, value: str) -> Host:
        return self.postconf("-P", "-e", f"{key}/{name}={value}")

    def no_option(self, key: str, name: str) -> Host:
        return self.postconf("-P", "-X", f"{key}/{name}")

    def no_service(self, key: str) -> Host:
        return self.postconf("-M", "-X", key)

    def service(self, line: str) -> Host:
        return self.master(lambda text: f"{text}\n{line}\n")

    def master(self, change: Callable[[str], str]) -> Host:
        path = self.etc / "master.cf"
        text = change(path.read_text())
        assert text != path.read_text()
        path.write_text(text)
        return self

    def entry(self, key: str, before: str, after: str) -> Host:
        """Change words of one entry of master.cf."""
        command = ["postconf", "-c", str(self.etc), "-M", key]
        line = " ".join(subprocess.check_output(command, text=True).split())
        assert before in line
        return self.postconf("-M", "-e", f"{key}={line.replace(before, after)}")

    def table(self, text: str, kind: str = "texthash") -> str:
        """Make a table; return its name for main.cf."""
        path = self.etc / "table"
        path.write_text(text)
        if kind in ("hash", "lmdb"):
            command = ["postmap", "-c", str(self.etc), f"{kind}:{path}"]
            subprocess.run(command, check=True)
        return f"{kind}:{path}"

    def beside(self, name: str) -> str:
        """Make a folder of the archive's user beside the store; return its path."""
        path = self.postfix.store.with_name(name)
        path.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(path, USER, GROUP)
        return str(path)

    def locked(self) -> str:
        """Copy the key to a folder that only root can pass; return its path."""
        folder = self.etc / "locked"
        folder.mkdir(mode=0o700)
        subprocess.run(["cp", "-p", str(self.etc / "archive.key"), folder], check=True)
        return str(folder / "archive.key")

    def source(self, text: str) -> str:
        """Make a source table; return its name for archive_tables."""
        (self.etc / "source.in").write_text(text)
        return f"texthash:{self.etc}/source.in"

    def archive_cf(self, **values: str) -> Host:
        self.postfix.set_archive_cf(**values)
        return self

    def findings(self, *words: str, code: int | None = None) -> list[dict[str, str]]:
        """What the doctor says."""
        done = subprocess.run(
            [str(COMMAND), "-c", str(self.etc), "doctor", "--json", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        told = json.loads(done.stdout)
        severities = {each["severity"] for each in told["findings"]}
        worst = 2 if "CRITICAL" in severities else int("WARNING" in severities)
        assert done.returncode == (worst if code is None else code)
        found: list[dict[str, str]] = told["findings"]
        return found

    def named(self) -> set[str]:
        """The names of what the doctor finds."""
        return {each["check"] for each in self.findings()}
