"""One bucket of an object storage, by the S3 protocol: put, get, list, delete, lock.

Used by the other modules of this package. Every upload is checked twice: by the server,
against the SHA-256 in the signed request, and by asking it for what it has. Raises
ObjectStoreFailed, ObjectMissing and LibraryMissing.

Servers differ. Ceph's radosgw 16 ignores x-amz-checksum-sha256, so the signature covers
the content (x-amz-content-sha256), which it checks; and it forgets the lock of a
multipart upload, so a lock that is not there afterwards is set then.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from postfix_archive.config import object_store
from postfix_archive.config.object_store import ObjectStore
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ObjectMissing, ObjectStoreFailed, SettingInvalid
from postfix_archive.message import dates
from postfix_archive.replicate import s3_client
from postfix_archive.store import journal_format
from postfix_archive.system import files

# S3 takes 5 GB at once, and 10,000 parts of at least 5 MB each.
PART_SIZE = 8 << 20  # bytes; larger objects are uploaded in parts
BLOCK_SIZE = 1 << 18  # bytes
NO_LOCK = "none"  # archive_object_lock
SHA256, OFFSET = "sha256", "journal-offset"  # user metadata of an object
DENIED = ("AccessDenied", "403", "MethodNotAllowed", "ObjectLocked")


@dataclass(frozen=True)
class Lock:
    """Until when the server must keep an object, and whether a hold is on it.

    ``until`` is None, or in the past, for no retention.
    """

    until: datetime.datetime | None = None
    is_held: bool = False

    @property
    def sort_key(self) -> float:
        """Shorter locks come first."""
        return self.until.timestamp() if self.until else 0.0

    @property
    def is_effective(self) -> bool:
        """Return whether it keeps an object now."""
        return self.is_held or _is_future(self.until)


class Version(NamedTuple):
    """One version of an object. ``is_marker`` is true for a delete marker.

    ``modified`` is the server's time of the upload.
    """

    key: str
    version_id: str
    modified: datetime.datetime
    is_marker: bool


class Stored(NamedTuple):
    """What the server says of an object.

    ``sha256`` and ``offset``, of the line in the journal from which on the object is
    there, were uploaded with it.
    """

    version_id: str
    size: int
    sha256: str
    offset: int
    lock: Lock


def of_settings(settings: Settings) -> Bucket:
    """Return the bucket of the configuration. Raises SettingInvalid."""
    if not settings.archive_object_store:
        raise SettingInvalid(
            "archive_object_store is not set: there is no bucket; see"
            " docs/object-storage.md"
        )
    return Bucket(
        object_store.parse(settings.archive_object_store),
        settings.archive_object_credentials_file,
        settings.archive_object_lock,
    )


class Bucket:
    """A bucket, or what begins with a prefix in it: keys are without the prefix.

    ``mode`` is the setting archive_object_lock.
    """

    def __init__(
        self, store: ObjectStore, credentials_file: str, mode: str = NO_LOCK
    ) -> None:
        self._store = store
        self._mode = "" if mode == NO_LOCK else mode.upper()
        self._client = s3_client.connect(store, credentials_file)

    def check(self) -> None:
        """Check that the bucket can be listed and has Object Lock if that is needed."""
        with self._translated(""):
            self._client.list_objects_v2(**self._at_prefix(""), MaxKeys=1)
            if self._mode:
                self._client.get_object_lock_configuration(Bucket=self._store.bucket)

    def put(self, key: str, content: bytes, lock: Lock, *, offset: int) -> None:
        """Upload content, locked; it is there, and locked, on return.

        For offset see Stored.
        """
        metadata = _metadata(hashlib.sha256(content).hexdigest(), offset)
        self._put(key, io.BytesIO(content), len(content), metadata, lock)

    def put_file(
        self, key: str, path: str, lock: Lock, *, sha256: str, offset: int
    ) -> None:
        """Upload a file with this SHA-256, as put() does content.

        Raises OSError, and ValueError if it has another SHA-256.
        """
        with os.fdopen(files.open_regular(path), "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError("does not have the SHA-256 in the journal")
            size = file.tell()
            file.seek(0)
            self._put(key, file, size, _metadata(sha256, offset), lock)

    def _put(
        self,
        key: str,
        file: BinaryIO,
        size: int,
        metadata: dict[str, str],
        lock: Lock,
    ) -> None:
        arguments = {"Metadata": metadata, **self._lock_arguments(lock)}
        with self._translated(key):
            put = self._put_whole if size <= PART_SIZE else self._put_parts
            version_id = put(key, file, metadata[SHA256], arguments)
            stored = self._head(key, version_id)
            if (stored.size, stored.sha256) != (size, metadata[SHA256]):
                raise ObjectStoreFailed(
                    f"{self._name(key)}: the server has stored something else"
                )
            self._lock(key, stored, lock)

    def _put_whole(
        self, key: str, file: BinaryIO, sha256: str, arguments: dict[str, Any]
    ) -> str:
        response = self._client.put_object(
            **self._at(key),
            Body=file,
            ChecksumSHA256=_base64(bytes.fromhex(sha256)),
            **arguments,
        )
        return str(response.get("VersionId", ""))

    def _put_parts(
        self, key: str, file: BinaryIO, sha256: str, arguments: dict[str, Any]
    ) -> str:
        upload_id = self._client.create_multipart_upload(
            **self._at(key),
            ChecksumAlgorithm="SHA256",
            **arguments,
        )["UploadId"]
        upload = {**self._at(key), "UploadId": upload_id}
        try:
            parts = list(self._upload_parts(upload, file, sha256))
            response = self._client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.abort_multipart_upload(**upload)
            raise
        return str(response.get("VersionId", ""))

    def _upload_parts(
        self, upload: dict[str, Any], file: BinaryIO, sha256: str
    ) -> Iterator[dict[str, Any]]:
        whole = hashlib.sha256()
        number = 0
        while content := file.read(PART_SIZE):
            number += 1
            whole.update(content)
            checksum = _base64(hashlib.sha256(content).digest())
            response = self._client.upload_part(
                **upload, PartNumber=number, Body=content, ChecksumSHA256=checksum
            )
            yield {
                "PartNumber": number,
                "ETag": response["ETag"],
                "ChecksumSHA256": checksum,
            }
        if whole.hexdigest() != sha256:
            raise ObjectStoreFailed(f"{self._name(upload['Key'])}: changed meanwhile")

    def abort_uploads(self) -> None:
        """Remove the parts of uploads that a crash has left."""
        with self._translated(""):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(**self._at_prefix("")):
                for each in page.get("Uploads", ()):
                    self._client.abort_multipart_upload(
                        Bucket=self._store.bucket,
                        Key=each["Key"],
                        UploadId=each["UploadId"],
                    )

    def stored(self, key: str, version_id: str = "") -> Stored | None:
        """Return what the server has under a key, None if there is nothing."""
        try:
            with self._translated(key):
                return self._head(key, version_id)
        except ObjectMissing:
            return None

    def has(self, key: str, sha256: str, lock: Lock) -> bool:
        """Return whether an object is there; it is locked on return if so.

        A legal hold that is on it stays: relocking releases it.
        """
        found = self.stored(key)
        if found is None or found.sha256 != sha256:
            return False
        lock = Lock(lock.until, lock.is_held or found.lock.is_held)
        with self._translated(key):
            self._lock(key, found, lock)
        return True

    def get(self, key: str, version_id: str = "") -> bytes:
        """Return the content of an object. Raises ObjectMissing."""
        return b"".join(self.chunks(key, version_id))

    def chunks(self, key: str, version_id: str = "") -> Iterator[bytes]:
        """Yield the content of an object. Raises ObjectMissing."""
        with self._translated(key):
            version = {"VersionId": version_id} if version_id else {}
            response = self._client.get_object(**self._at(key), **version)
            with contextlib.closing(response["Body"]) as body:
                yield from body.iter_chunks(BLOCK_SIZE)

    def versions(self, prefix: str) -> Iterator[Version]:
        """Yield all versions of the objects whose keys begin with prefix."""
        with self._translated(prefix):
            pages = self._client.get_paginator("list_object_versions")
            for page in pages.paginate(**self._at_prefix(prefix)):
                for each in page.get("Versions", ()):
                    yield self._version(each, is_marker=False)
                for each in page.get("DeleteMarkers", ()):
                    yield self._version(each, is_marker=True)

    def directories(self, substring: str) -> list[str]:
        """Return the names of the directories at the top that contain substring.

        Also where delete markers hide all that is in them.
        """
        names = set()
        with self._translated(""):
            pages = self._client.get_paginator("list_object_versions")
            for page in pages.paginate(**self._at_prefix(""), Delimiter="/"):
                for each in page.get("CommonPrefixes", ()):
                    names.add(each["Prefix"].removeprefix(self._store.prefix)[:-1])
        return sorted(each for each in names if substring in each)

    def _version(self, entry: dict[str, Any], *, is_marker: bool) -> Version:
        key = entry["Key"].removeprefix(self._store.prefix)
        version_id = entry.get("VersionId") or "null"
        return Version(key, version_id, entry["LastModified"], is_marker)

    def delete(self, version: Version) -> bool:
        """Delete a version for ever; False if its lock does not allow it yet."""
        arguments = {**self._at(version.key), "VersionId": version.version_id}
        with self._translated(version.key):
            try:
                self._client.delete_object(**arguments)
            except Exception as error:
                if s3_client.error_code(error) not in DENIED:
                    raise
                lock = self._head(version.key, version.version_id).lock
                if not lock.is_effective:
                    raise  # not for the lock: by the credentials or the policy
                return False
        return True

    def extend(self, key: str, version_id: str, lock: Lock) -> None:
        """Lock a version longer, and set or release its hold; never for less long."""
        with self._translated(key):
            self._lock(key, self._head(key, version_id), lock)

    def _lock(self, key: str, stored: Stored, lock: Lock) -> None:
        """Set what a lock demands and the server does not have yet."""
        if not self._mode:
            return
        version = {**self._at(key), "VersionId": stored.version_id}
        if _is_future(lock.until) and not _is_later(stored.lock.until, lock.until):
            self._client.put_object_retention(
                **version,
                Retention={"Mode": self._mode, "RetainUntilDate": lock.until},
            )
        if stored.lock.is_held != lock.is_held:
            self._client.put_object_legal_hold(
                **version, LegalHold={"Status": "ON" if lock.is_held else "OFF"}
            )

    def _head(self, key: str, version_id: str = "") -> Stored:
        version = {"VersionId": version_id} if version_id else {}
        response = self._client.head_object(**self._at(key), **version)
        metadata = response.get("Metadata", {})
        offset = metadata.get(OFFSET, "")
        return Stored(
            response.get("VersionId") or version_id,
            response["ContentLength"],
            metadata.get(SHA256, ""),
            int(offset) if journal_format.is_number(offset.encode()) else 0,
            Lock(
                response.get("ObjectLockRetainUntilDate"),
                response.get("ObjectLockLegalHoldStatus") == "ON",
            ),
        )

    def _lock_arguments(self, lock: Lock) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self._mode and _is_future(lock.until):
            arguments["ObjectLockMode"] = self._mode
            arguments["ObjectLockRetainUntilDate"] = lock.until
        if self._mode and lock.is_held:
            arguments["ObjectLockLegalHoldStatus"] = "ON"
        return arguments

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._store.bucket, "Key": self._store.prefix + key}

    def _at_prefix(self, prefix: str) -> dict[str, Any]:
        return {"Bucket": self._store.bucket, "Prefix": self._store.prefix + prefix}

    def _name(self, key: str) -> str:
        return f"s3://{self._store.bucket}/{self._store.prefix}{key}"

    def _translated(self, key: str) -> contextlib.AbstractContextManager[None]:
        return s3_client.translated(self._store, key)


def _metadata(sha256: str, offset: int) -> dict[str, str]:
    return {SHA256: sha256, OFFSET: str(offset)}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _is_future(time: datetime.datetime | None) -> bool:
    return time is not None and time > datetime.datetime.now(datetime.UTC)


def _is_later(
    stored: datetime.datetime | None, wanted: datetime.datetime | None
) -> bool:
    """Return whether a stored time is not before another; servers drop fractions."""
    if stored is None or wanted is None:
        return wanted is None
    return stored >= wanted.replace(microsecond=0)


def format_day(time: datetime.datetime | None) -> str:
    """Return the day of a time, "" for None."""
    return dates.format_rfc3339(time.timestamp())[:10] if time else ""
