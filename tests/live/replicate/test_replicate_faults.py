"""Claims about replicate when server, network or host fail, with a real radosgw."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from postfix_archive.cli import main
from postfix_archive.replicate import bucket, replication_lag, replication_state
from postfix_archive.replicate.bucket import Bucket

import object_store as storage
from cutting_proxy import CuttingProxy
from object_store import ObjectStore
from replicated_store import BOARD, Replicated, content_of, fill
from sample_store import LEGAL, SampleStore

pytestmark = pytest.mark.live
UNAVAILABLE = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
OTHER_REGION = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/xml\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
)
OTHER_REGION_BODY = (
    b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'default' is"
    b" wrong; expecting 'eu-central-1'</Message><Region>eu-central-1</Region></Error>"
)


def error_of(store: SampleStore, *arguments: str) -> str:
    """Return the one line with which a command fails."""
    result = store.run(*(arguments or ("replicate", "--once")), exit_code=1)
    lines = result.output.splitlines()
    assert len(lines) == 1, result.output
    return lines[0]


def test_a_cut_connection_costs_nothing(
    replicated: Replicated, object_store: ObjectStore
) -> None:
    store = replicated.store
    fill(store)
    with CuttingProxy(object_store.port) as proxy:
        replicated.configure(
            archive_object_store=object_store.url(replicated.name, proxy.endpoint)
        )
        for limit in (900, 4000, 9000):
            proxy.cut_after = limit
            assert "ObjectStoreFailed: s3://" in error_of(store)
        proxy.cut_after = None
        store.run("replicate", "--once")
    replicated.configure(archive_object_store=replicated.url)
    assert content_of(replicated.restore()) == content_of(store.path)


def test_a_server_that_is_overloaded_is_asked_again(
    replicated: Replicated, object_store: ObjectStore
) -> None:
    store = replicated.store
    fill(store)
    with CuttingProxy(object_store.port) as proxy:
        replicated.configure(
            archive_object_store=object_store.url(replicated.name, proxy.endpoint)
        )
        proxy.method, proxy.answer = b"PUT", UNAVAILABLE
        assert "503" in error_of(store)
        assert not any("journal" in each for each in replicated.keys())
        proxy.answer = b""
        store.run("replicate", "--once")
    replicated.configure(archive_object_store=replicated.url)
    assert content_of(replicated.restore()) == content_of(store.path)


def test_a_byte_that_changes_on_the_way_is_refused(
    replicated: Replicated, object_store: ObjectStore
) -> None:
    store = replicated.store
    store.add(b"Subject: one\r\n\r\none\r\n")
    with CuttingProxy(object_store.port) as proxy:
        replicated.configure(
            archive_object_store=object_store.url(replicated.name, proxy.endpoint)
        )
        proxy.change = lambda block: block.replace(b'"salt":"', b'"SALT":"')
        assert "XAmzContentSHA256Mismatch" in error_of(store)
        assert not any("journal" in each for each in replicated.keys())


def test_what_is_wrong_with_the_bucket_is_said_in_one_line(
    replicated: Replicated, object_store: ObjectStore
) -> None:
    store = replicated.store
    store.add(b"one\r\n")
    before = content_of(store.path)
    credentials = store.directory / "credentials"
    with CuttingProxy(object_store.port) as proxy:
        body = OTHER_REGION_BODY
        proxy.method, proxy.answer = b"", OTHER_REGION % (len(body), body)
        replicated.configure(
            archive_object_store=object_store.url(replicated.name, proxy.endpoint)
        )
        assert "is not that of the bucket; it is eu-central-1" in error_of(store)
    replicated.configure(archive_object_store=object_store.url("no-such-bucket"))
    assert "the bucket does not exist" in error_of(store)
    replicated.configure(
        archive_object_store=object_store.url(replicated.name, "http://127.0.0.1:1")
    )
    assert "Could not connect" in error_of(store)
    replicated.configure(archive_object_store=replicated.url)
    text = credentials.read_text()
    credentials.write_text(text.replace(storage.SECRET_KEY, "other"))
    assert "wrong secret key" in error_of(store)
    credentials.write_text(text.replace(storage.ACCESS_KEY, "other"))
    assert "unknown access key" in error_of(store)
    credentials.write_text("aws_access_key_id = x\n")
    assert "no section [default]" in error_of(store)
    credentials.write_text(text)
    credentials.chmod(0o644)
    assert "others can read the secret key" in error_of(store)
    credentials.unlink()
    assert "No such file" in error_of(store)
    assert content_of(store.path) == before
    assert replicated.keys() == []


def test_a_full_bucket_takes_nothing_and_nothing_is_lost(
    replicated: Replicated, object_store: ObjectStore
) -> None:
    store = replicated.store
    store.add(b"one\r\n")
    store.run("replicate", "--once")
    before = content_of(store.path)
    quota = ("--bucket", replicated.name, "--quota-scope=bucket")
    object_store.admin("quota", "set", *quota, "--max-objects=1")
    object_store.admin("quota", "enable", *quota)
    store.add(b"two\r\n")
    assert "the bucket is full" in error_of(store)
    object_store.admin("quota", "disable", *quota)
    store.run("replicate", "--once")
    assert content_of(replicated.restore()) == content_of(store.path)
    assert before.keys() < content_of(store.path).keys()


def test_a_journal_that_was_cut_is_not_uploaded(replicated: Replicated) -> None:
    store = replicated.store
    fill(store)
    store.run("replicate", "--once")
    segment = store.path / LEGAL / "journal" / "2026-12"
    content = segment.read_bytes()
    segment.write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])
    assert "was cut, changed or replaced" in error_of(store)
    (store.directory / "fallback" / "replicated").unlink()
    assert "was cut, changed or replaced" in error_of(store)
    output = store.run("verify", "--object-store", exit_code=2).output
    assert "the store and the bucket have other lines" in output
    # What was lost is in the bucket.
    target = replicated.restore()
    assert (target / LEGAL / "journal" / "2026-12").read_bytes() == content


def test_an_archive_that_is_gone_is_in_the_bucket(replicated: Replicated) -> None:
    store = replicated.store
    fill(store)
    store.run("replicate", "--once")
    (store.path / BOARD).rename(store.directory / BOARD)
    output = store.run("verify", "--object-store", exit_code=2).output
    assert f"{BOARD}: in the bucket, but not in the store" in output


def test_objects_of_others_do_not_reach_a_restored_store(
    replicated: Replicated,
) -> None:
    """Who has the credentials can add versions and hide objects, and no more."""
    store = replicated.store
    ids = fill(store)
    store.run("replicate", "--once")
    for key in sorted({*replicated.keys()}):
        replicated.client.put_object(Bucket=replicated.name, Key=key, Body=b"other\n")
        if ids[0] in key:
            replicated.client.delete_object(Bucket=replicated.name, Key=key)
    assert content_of(replicated.restore()) == content_of(store.path)
    output = store.run("verify", "--object-store", exit_code=2).output
    assert "the newest version of the object does not have" in output


def test_a_copy_that_is_missing_in_the_bucket_is_named(replicated: Replicated) -> None:
    store = replicated.store
    archive_id = store.add(b"one\r\n")
    store.run("replicate", "--once")
    listed = replicated.client.list_object_versions(Bucket=replicated.name)
    for entry in listed["Versions"]:
        if archive_id in entry["Key"]:
            replicated.client.delete_object(
                Bucket=replicated.name, Key=entry["Key"], VersionId=entry["VersionId"]
            )
    output = store.run("verify", "--object-store", exit_code=2).output
    assert f"{archive_id}.eml.gz: s3://" in output
    assert "the bucket does not have the details of this line" in output
    target = store.directory / "target"
    output = store.run("restore", target, exit_code=2).output
    assert f"{archive_id}.eml.gz: missing or damaged in the bucket" in output


def test_a_restore_replaces_no_journal(replicated: Replicated) -> None:
    store = replicated.store
    store.add(b"one\r\n")
    store.run("replicate", "--once")
    store.add(b"two\r\n")
    before = content_of(store.path)
    assert "there is a journal already" in error_of(store, "restore", str(store.path))
    assert content_of(store.path) == before


def test_the_service_follows_the_journals_until_it_is_stopped(
    replicated: Replicated, object_store: ObjectStore
) -> None:
    """It takes no second one beside it, and goes on after errors."""
    store = replicated.store
    command = [sys.executable, "-m", "postfix_archive", "-c", str(store.directory)]
    follow = [*command, "replicate", "--follow"]
    with CuttingProxy(object_store.port) as proxy:
        replicated.configure(
            archive_object_store=object_store.url(replicated.name, proxy.endpoint)
        )
        proxy.cut_after = 0
        with subprocess.Popen(follow, stderr=subprocess.PIPE, text=True) as service:
            assert service.stderr is not None
            assert "ObjectStoreFailed: s3://" in service.stderr.readline()
            output = store.run("replicate", "--once").output
            assert "another postfix-archive replicate is already running" in output
            proxy.cut_after = None
            store.add(b"one\r\n")
            while replication_lag.lag(store.settings, LEGAL).size:
                assert service.poll() is None
                time.sleep(0.1)
            service.terminate()
            assert service.wait() == 0
    replicated.configure(archive_object_store=replicated.url)
    assert content_of(replicated.restore()) == content_of(store.path)


def killed_at(step: int, *arguments: str) -> bool:
    """Run a command in a process that is killed at one step; tell whether it was.

    A step is a request that changes the bucket or looks at an object, or a writing of
    the state.
    """
    process_id = os.fork()
    if process_id:
        status = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
        assert status in (0, -signal.SIGKILL)
        return status != 0
    steps = itertools.count(1)

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **keywords)

        return call

    try:
        for name in ("_put_whole", "_head", "_upload_parts", "delete", "_lock"):
            setattr(Bucket, name, killing(getattr(Bucket, name)))
        replication_state.write = killing(replication_state.write)
        bucket.PART_SIZE = 5 << 20
        main.main(arguments)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(1)


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_step_is_continued(
    replicated: Replicated,
) -> None:
    """Once at each step, a new process each time; then one goes on to the end."""
    store = replicated.store
    store.add(b"one\r\n")
    store.add(os.urandom(6 << 20).hex().encode() + b"\r\n")
    command = ["-c", str(store.directory), "replicate", "--once"]
    step = next(each for each in range(1, 100) if not killed_at(each, *command))
    assert step > 10
    assert content_of(replicated.restore()) == content_of(store.path)
    store.run("verify", "--object-store")
