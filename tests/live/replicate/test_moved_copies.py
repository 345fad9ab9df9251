"""What commands do with a copy that is in the bucket alone, with a real radosgw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_archive.access import access_service, person
from postfix_archive.access.person import Person
from postfix_archive.config import archive_cf
from postfix_archive.retention import erasure
from postfix_archive.store import copy_file

from object_store import ObjectStore
from private_postfix import GROUP, USER, PrivatePostfix
from replicated_store import Replicated, content_of, write_credentials
from sample_store import LEGAL
from unprivileged import as_member

pytestmark = pytest.mark.live
BODY = (
    b"zebra\r\n"
    + b"\r\n".join(os.urandom(30).hex().encode() for _ in range(300))
    + b"\r\n"
)
ORIGINAL = b"Subject: the contract\r\n\r\n" + BODY
READERS, WEB_USER, OTHER = "games", "news", "man"  # of Debian
LOCKED = {"archive_object_lock": "governance", "archive_retention": f"{LEGAL}=10y"}
REPLICATE_NEW_COPIES = """
import types
from postfix_archive.cli import main
from postfix_archive.message import dates
from postfix_archive.replicate import moved_copies
moved_copies.dates = types.SimpleNamespace(
    DAY_SECONDS=0, format_rfc3339=dates.format_rfc3339
)
main.main()
"""


@pytest.fixture
def moved(replicated: Replicated) -> str:
    """The archive id of a message of which the bucket alone has the whole copy."""
    store = replicated.store
    archive_id = store.add(ORIGINAL)
    store.add(b"Subject: lunch\r\n\r\nat noon\r\n")
    replicated.configure(**LOCKED, archive_local_days="1")
    store.run("index", "--once")
    for _ in range(2):  # what is moved is in the bucket before
        store.run("replicate", "--once")
    assert copy_file.is_moved(str(store.copy_path(archive_id)))
    return archive_id


def as_person(monkeypatch: pytest.MonkeyPatch, name: str, uid: int) -> None:
    monkeypatch.setattr(person, "current", lambda _: Person(name, uid))


def test_two_people_erase_it(
    replicated: Replicated, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = replicated.store
    as_person(monkeypatch, "anna", 1001)
    store.run("erase", "request", moved, "--reason", "ticket 4711")
    as_person(monkeypatch, "bert", 1002)
    output = store.run("erase", "approve", moved, "--yes").output
    assert "verify --object-store" in output
    assert not list(store.path.rglob(f"{moved}*"))
    assert store.run("search", "--ids", "zebra").output == ""
    store.run("verify")
    store.run("replicate", "--once")
    output = store.run("verify", "--object-store").output
    assert f"note: {moved}: removed, and the bucket still has" in output
    assert "locked until 2036-11-23" in output
    restored = content_of(replicated.restore())
    assert restored == content_of(store.path)
    [one] = erasure.read(store.settings, has_all=True)
    assert (one.requester.name, one.approver) == ("anna", "bert")


def test_a_hold_keeps_it_here_and_in_the_bucket(
    replicated: Replicated, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = replicated.store
    as_person(monkeypatch, "anna", 1001)
    store.run("hold", "add", "jones", "--query", "zebra", "--reason", "a test")
    store.run("replicate", "--once")
    assert replicated.held_ids() == {moved}
    replicated.configure(archive_retention=f"{LEGAL}=1d")
    store.run("retention", "apply", "--reason", "a test", "--yes")
    purge = ("purge", "--really", "--clock-is-right")
    assert f"{moved}  stays: held by jones" in store.run(*purge).output
    arguments = ("erase", "request", moved, "--reason", "ticket 4711")
    assert "is held by jones" in store.run(*arguments, exit_code=1).output
    assert store.run("show", "--original", moved).stdout_bytes == ORIGINAL
    store.run("hold", "release", "jones", "--reason", "a test")
    assert f"{LEGAL}: 1 removed" in store.run(*purge).output
    assert not list(store.path.rglob(f"{moved}*"))
    store.run("replicate", "--once")
    assert replicated.held_ids() == set()
    assert "locked until 2036-11-23" in store.run("verify", "--object-store").output
    store.run("verify")


@pytest.fixture(scope="module")
def host(object_store: ObjectStore) -> Iterator[tuple[PrivatePostfix, Path]]:
    """A host with one message, and the path of its copy, which was moved."""
    url = object_store.make_bucket("moved-copies")
    with PrivatePostfix() as postfix:
        credentials, index = postfix.directory / "credentials", postfix.directory / "ix"
        write_credentials(credentials)
        index.mkdir()
        for path in (credentials, index):
            shutil.chown(path, USER, GROUP)
        postfix.set_archive_cf(
            **LOCKED,
            archive_object_store=url,
            archive_object_credentials_file=str(credentials),
            archive_index_directory=str(index),
            archive_local_days="1",
            archive_access_socket=f"{postfix.directory}/run/access",
            archive_reader_group=READERS,
            archive_web_user=WEB_USER,
        )
        postfix.send(ORIGINAL.replace(b"\r\n", b"\n"), to=["bob@example.net"])
        postfix.wait_for_empty_queue()
        code = ["-c", REPLICATE_NEW_COPIES, "-c", str(postfix.etc)]
        for _ in range(2):
            command = [sys.executable, *code, "replicate", "--once"]
            subprocess.run(command, check=True)
        [path] = (postfix.store / LEGAL).glob("????/??/??/*.eml.gz")
        assert copy_file.is_moved(str(path))
        yield postfix, path


def test_it_is_reconciled_and_replayed(host: tuple[PrivatePostfix, Path]) -> None:
    postfix, path = host
    archive_id = path.name.partition(".")[0]
    reconciled = json.loads(postfix.run_command("reconcile", "--json").stdout)
    assert (reconciled["accepted"], reconciled["archived"]) == (1, 1)
    to = ("--to", "dave@example.net", "--yes")
    output = postfix.run_command("replay", archive_id, *to)
    assert f"{archive_id}  queued as " in output.stdout, output.stderr
    postfix.wait_for_empty_queue()
    [delivery] = postfix.delivered_to("dave@example.net")
    assert delivery.content.replace(b"\n", b"\r\n").endswith(BODY)
    assert postfix.run_command("verify").returncode == 0


def test_only_the_web_page_has_the_service_read_it(
    host: tuple[PrivatePostfix, Path],
) -> None:
    postfix, path = host
    assert postfix.run_command("readers").returncode == 0
    settings = archive_cf.load(str(postfix.etc))
    process = postfix.start_command("access-service")
    while not access_service.is_running(settings.archive_access_socket):
        assert process.poll() is None

    def read() -> None:
        access_service.fetch_copies(settings)
        content = b"".join(copy_file.decompress(str(path), 1 << 20))
        assert BODY in content

    try:
        assert as_member(WEB_USER, READERS, read) == ""
        error = as_member(OTHER, READERS, read)
        assert "only archive_web_user may read a copy here" in error
    finally:
        process.terminate()
        process.wait()
