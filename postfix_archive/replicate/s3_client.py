"""The client of an object storage: credentials, connection, errors in one line.

Used by bucket. botocore, the core of boto3, is imported when a client is made: nothing
else of this program needs it. Raises ObjectStoreFailed, ObjectMissing, LibraryMissing.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any

from postfix_archive.config.object_store import ObjectStore
from postfix_archive.errors import LibraryMissing, ObjectMissing, ObjectStoreFailed
from postfix_archive.system import files

CONNECT_SECONDS, READ_SECONDS = 10, 60
ATTEMPTS = 3  # of a request; botocore waits up to 20 s between two
CONNECTIONS = 8
HAS_NO_LOCK = "ObjectLockConfigurationNotFoundError"
MISSING = ("404", "NoSuchKey", "NoSuchVersion", "NotFound")
DENIED = ("AccessDenied", "403", "MethodNotAllowed", "ObjectLocked")
CREDENTIALS = (
    "check archive_object_credentials_file, or the credentials of the AWS environment"
)
# What to do next, by the server's error code.
ADVICE = {
    "NoSuchBucket": "the bucket does not exist; make it, with Object Lock",
    "404": "the bucket does not exist; make it, with Object Lock",
    "403": f"access denied; {CREDENTIALS}",
    "AccessDenied": f"access denied; {CREDENTIALS}, and the bucket's policy",
    "InvalidAccessKeyId": f"unknown access key; {CREDENTIALS}",
    "SignatureDoesNotMatch": f"wrong secret key; {CREDENTIALS}",
    "QuotaExceeded": "the bucket is full; raise its quota",
    "InsufficientCapacity": "the bucket is full",
    "EntityTooLarge": "the bucket is full, or its limit for an object too low",
    "RequestTimeTooSkewed": "this host's clock is wrong",
    "InvalidRequest": "the bucket refuses a lock; make one with Object Lock",
    HAS_NO_LOCK: (
        "the bucket has no Object Lock; make one that has, or set archive_object_lock ="
        " none"
    ),
}
WRONG_REGION = (
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
)


def connect(store: ObjectStore, credentials_file: str) -> Any:
    try:
        import botocore.config
        import botocore.exceptions
        import botocore.session
    except ImportError as error:
        raise LibraryMissing(
            f"{error}; run make install WITH=object-store, or pip install"
            " 'postfix-archive[object-store]'"
        ) from error
    keys: dict[str, str | None] = {}
    if credentials_file:
        key, secret, token = read_credentials(credentials_file)
        keys = {
            "aws_access_key_id": key,
            "aws_secret_access_key": secret,
            "aws_session_token": token,
        }
    config = botocore.config.Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS,
        # Older servers know no checksums but those that we give.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if store.endpoint else "auto",
            "payload_signing_enabled": True,
        },
    )
    try:
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=store.endpoint or None,
            region_name=store.region,
            config=config,
            **keys,
        )
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        text = " ".join(str(error).split())
        raise ObjectStoreFailed(f"{store.url}: {text}") from error


@contextlib.contextmanager
def translated(store: ObjectStore, key: str) -> Iterator[None]:
    """Translate an error of botocore into one line: what, where, what next.

    key is "" for what is about the whole bucket; else a missing one is ObjectMissing.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    name = f"s3://{store.bucket}/{store.prefix}{key}"
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        if key and code in MISSING:
            raise ObjectMissing(f"{name}: no such object") from error
        raise ObjectStoreFailed(f"{name}: {_advice(store, error, code)}") from error
    except BotoCoreError as error:
        text = " ".join(str(error).split())
        raise ObjectStoreFailed(f"{name}: {text}") from error


def error_code(error: Exception) -> str:
    """Return the server's error code, "" for any other error."""
    response: dict[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _advice(store: ObjectStore, error: Exception, code: str) -> str:
    response: dict[str, Any] = getattr(error, "response", {})
    details = response.get("Error", {})
    message = " ".join(str(details.get("Message") or "").split())
    if code in WRONG_REGION:
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        right = details.get("Region") or headers.get("x-amz-bucket-region", "")
        text = f"; it is {right}" if right else f" ({message})" if message else ""
        return f"region {store.region} is not that of the bucket{text}"
    advice = ADVICE.get(code, "the server refuses")
    return f"{advice} ({code}{f': {message}' if message else ''})"


def read_credentials(path: str) -> tuple[str, str, str | None]:
    """Return access key, secret key and session token in a file.

    It has the form of AWS's credentials file, [default]. Raises ObjectStoreFailed.
    """
    try:
        with os.fdopen(files.open_regular(path), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1 << 16).decode()
    except OSError as error:
        raise ObjectStoreFailed(f"{path}: {error.strerror}; {CREDENTIALS}") from error
    except ValueError as error:
        raise ObjectStoreFailed(f"{path}: not text; {CREDENTIALS}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ObjectStoreFailed(
            f"{path}: others can read the secret key; run chmod 600 {path}"
        )
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        section = parser["default"]
        key, secret = section["aws_access_key_id"], section["aws_secret_access_key"]
        return key, secret, section.get("aws_session_token")
    except (configparser.Error, KeyError) as error:
        # Not the parser's own text: it shows lines of the file.
        raise ObjectStoreFailed(
            f"{path}: no section [default] with aws_access_key_id = and"
            " aws_secret_access_key = in it"
        ) from (None if isinstance(error, configparser.Error) else error)
