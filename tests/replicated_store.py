"""A store with a bucket of its own, for the tests of replicate."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from postfix_archive.store.outcome import Outcome

import journal_lines
import object_store as storage
from memory_store import MemoryStore
from object_store import ObjectStore
from sample_store import ARRIVAL, LEGAL, SampleStore

BUCKET_NUMBERS = itertools.count(1)
MONTH = 31 * 86400
BOARD = "board@example.com"


class Replicated:
    """A store with a bucket of its own."""

    def __init__(
        self,
        directory: Path,
        object_store: ObjectStore | MemoryStore,
        *,
        has_lock: bool = True,
    ) -> None:
        self.store = SampleStore(directory)
        self.name = f"bucket-{next(BUCKET_NUMBERS)}"
        self.url = object_store.make_bucket(self.name, has_lock=has_lock)
        self.client: Any = object_store.client()
        credentials = directory / "credentials"
        write_credentials(credentials)
        self.configure(
            archive_object_lock="none",
            archive_object_store=self.url,
            archive_object_credentials_file=str(credentials),
        )

    def configure(self, **settings: str) -> None:
        path = self.store.directory / "archive.cf"
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        path.write_text(path.read_text() + "".join(lines))

    def restore(self, exit_code: int = 0) -> Path:
        target = self.store.directory / f"restored-{next(BUCKET_NUMBERS)}"
        result = self.store.run("restore", target, exit_code=exit_code)
        print(result.output)
        return target

    def held_ids(self) -> set[str]:
        """Return the ids of records all of whose objects have a legal hold."""
        flags: dict[str, set[str]] = {}
        bucket = {"Bucket": self.name}
        for each in self.client.list_object_versions(**bucket)["Versions"]:
            version = {"Key": each["Key"], "VersionId": each["VersionId"]}
            head = self.client.head_object(**bucket, **version)
            if match := re.search(r"\d{8}-[0-9a-f]{40}", each["Key"]):
                flag = head.get("ObjectLockLegalHoldStatus", "OFF")
                flags.setdefault(match[0], set()).add(flag)
        assert all(len(each) == 1 for each in flags.values())
        return {archive_id for archive_id, each in flags.items() if each == {"ON"}}

    def days(self, name: str) -> set[str]:
        """Return the days until which the objects are locked whose keys have name."""
        days = set()
        bucket = {"Bucket": self.name}
        for each in self.client.list_object_versions(**bucket)["Versions"]:
            if name in each["Key"]:
                version = {"Key": each["Key"], "VersionId": each["VersionId"]}
                head = self.client.head_object(**bucket, **version)
                days.add(head["ObjectLockRetainUntilDate"].isoformat()[:10])
        return days

    def keys(self) -> list[str]:
        listed = self.client.list_object_versions(Bucket=self.name)
        return [each["Key"] for each in listed.get("Versions", ())]


def write_credentials(path: Path) -> None:
    """Write the file for archive_object_credentials_file."""
    path.write_text(
        f"[default]\naws_access_key_id = {storage.ACCESS_KEY}\n"
        f"aws_secret_access_key = {storage.SECRET_KEY}\n"
    )
    path.chmod(0o600)


def content_of(store: Path) -> dict[str, bytes]:
    """Return all that is in a store, but for locks and drafts."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and "drafts" not in path.parts
    }


def fill(store: SampleStore) -> list[str]:
    """Archive what a store can have: archives, months, outcomes, a torn line."""
    ids = [store.add(b"Subject: one\r\n\r\none\r\n"), store.add(b"two\r\n")]
    ids.append(store.add(b"three\r\n", archive=BOARD))
    segment = journal_lines.segment(store.path / LEGAL)
    with segment.open("ab") as file:
        file.write(segment.read_bytes().splitlines()[-1][:-20])
    ids.append(store.add(b"four\r\n", arrival=ARRIVAL + MONTH))
    outcome = Outcome(
        "bob@example.net", "delivered", "4Z0000000001", "4Z0000000001", "2026-11-22"
    )
    store.add_outcome(ids[0], outcome)
    store.run("list")  # which the access journal records
    return ids
