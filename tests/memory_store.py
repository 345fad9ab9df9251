"""An object storage in memory: the server of object_store, without its processes.

    store = MemoryStore()
    monkeypatch.setattr(s3_client, "connect", lambda *_: store.client())

It has versions, delete markers and Object Lock, and no errors but those of objects that
are missing or locked. What a server really does, tests/live/replicate shows.
"""

from __future__ import annotations

import datetime
import io
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

FIRST_UPLOAD = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)


@dataclass
class Object:
    """One version of an object."""

    key: str
    version_id: str
    content: bytes
    metadata: dict[str, str]
    modified: datetime.datetime
    until: datetime.datetime | None = None
    hold: str = "OFF"
    is_marker: bool = False


class MemoryStore:
    """Takes the place of ObjectStore; each bucket is a client of its own."""

    def make_bucket(self, name: str, *, has_lock: bool = True) -> str:
        """Return the URL of a bucket; all names are one bucket."""
        return f"s3://{name}?endpoint=http://127.0.0.1:1&region=default"

    def __init__(self) -> None:
        self._client = MemoryClient()

    def client(self) -> MemoryClient:
        """Return the client."""
        return self._client


class MemoryClient:
    """What the program uses of a client of botocore."""

    def __init__(self) -> None:
        self.objects: list[Object] = []  # oldest first
        self._count = 0

    def put_object(
        self,
        *,
        Key: str,
        Body: Any,
        Metadata: dict[str, str] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        content = Body if isinstance(Body, bytes) else Body.read()
        new = self._add(Key, content, Metadata or {})
        new.until = more.get("ObjectLockRetainUntilDate")
        new.hold = more.get("ObjectLockLegalHoldStatus", "OFF")
        return {"VersionId": new.version_id}

    def _add(self, key: str, content: bytes, metadata: dict[str, str]) -> Object:
        self._count += 1
        time = FIRST_UPLOAD + datetime.timedelta(seconds=self._count)
        new = Object(key, f"v{self._count}", content, metadata, time)
        self.objects.append(new)
        return new

    def head_object(
        self, *, Key: str, VersionId: str = "", **_: object
    ) -> dict[str, Any]:
        found = self._find(Key, VersionId)
        return {
            "VersionId": found.version_id,
            "ContentLength": len(found.content),
            "Metadata": found.metadata,
            "ObjectLockRetainUntilDate": found.until,
            "ObjectLockLegalHoldStatus": found.hold,
        }

    def get_object(
        self, *, Key: str, VersionId: str = "", **_: object
    ) -> dict[str, Any]:
        return {"Body": Body(self._find(Key, VersionId).content)}

    def delete_object(self, *, Key: str, VersionId: str = "", **_: object) -> None:
        if not VersionId:
            self._add(Key, b"", {}).is_marker = True
            return
        found = self._find(Key, VersionId)
        now = datetime.datetime.now(datetime.UTC)
        if found.hold == "ON" or (found.until and found.until > now):
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "delete")
        self.objects.remove(found)

    def put_object_retention(
        self, *, Key: str, VersionId: str, Retention: dict[str, Any], **_: object
    ) -> None:
        self._find(Key, VersionId).until = Retention["RetainUntilDate"]

    def put_object_legal_hold(
        self, *, Key: str, VersionId: str, LegalHold: dict[str, str], **_: object
    ) -> None:
        self._find(Key, VersionId).hold = LegalHold["Status"]

    def list_objects_v2(self, **_: object) -> None:
        """Show that the bucket can be listed."""

    def get_object_lock_configuration(self, **_: object) -> None:
        """Show that it has Object Lock."""

    def get_paginator(self, name: str) -> MemoryClient:
        self._is_versions = name == "list_object_versions"
        return self

    def paginate(
        self, *, Prefix: str, Delimiter: str = "", **_: object
    ) -> list[dict[str, Any]]:
        """Return one page: versions by key, the newest first."""
        found = [each for each in self.objects if each.key.startswith(Prefix)]
        if Delimiter:
            names = {each.key[len(Prefix) :].partition("/")[0] for each in found}
            return [{"CommonPrefixes": [{"Prefix": f"{Prefix}{e}/"} for e in names]}]
        entries = [
            {
                "Key": each.key,
                "VersionId": each.version_id,
                "Size": len(each.content),
                "LastModified": each.modified,
                "is_marker": each.is_marker,
            }
            for each in sorted(reversed(found), key=lambda each: each.key)
        ]
        if not self._is_versions:
            return []
        return [
            {
                "Versions": [each for each in entries if not each["is_marker"]],
                "DeleteMarkers": [each for each in entries if each["is_marker"]],
            }
        ]

    def list_object_versions(self, *, Prefix: str = "", **_: object) -> dict[str, Any]:
        self._is_versions = True
        return self.paginate(Prefix=Prefix)[0]

    def _find(self, key: str, version_id: str) -> Object:
        for each in reversed(self.objects):
            if each.key == key and each.version_id == (version_id or each.version_id):
                if not each.is_marker:
                    return each
                break
        raise ClientError({"Error": {"Code": "NoSuchKey"}}, "find")


class Body(io.BytesIO):
    """The content of an object that is read."""

    def iter_chunks(self, size: int) -> Any:
        """Yield it in pieces."""
        return iter(lambda: self.read(size), b"")
