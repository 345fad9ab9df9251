"""Exports on the web page: what is in them, for whom, and what ends them."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from postfix_archive.access import access_journal
from postfix_archive.store import copy_file
from postfix_archive.store.record import Record
from postfix_archive.web import database
from postfix_archive.web import site as web_page
from postfix_archive.web.exports import export_child, export_jobs
from postfix_archive.web.exports.export_jobs import Order

import web_site
from sample_store import LEGAL
from web_site import AUDITOR, BOB, WebSite

BLIND = b"carol@example.net"
HIS = (
    b"From: alice@example.org\r\nTo: bob@example.net\r\nBcc: carol@example.net\r\n"
    b"X-Original-To: carol@example.net\r\nSubject: =?utf-8?q?=3D1+1?=\r\n\r\nthe"
    b" contract\r\n"
)
OTHER = b"From: eve@example.org\r\nSubject: contract\r\n\r\nof others\r\n"
WAIT_TIME = 60.0  # seconds, for the child process


class Site(WebSite):
    """A page over two messages: Bob's, and one that he may not see."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.his = self.store.add(HIS, recipients=(b"bob@example.net", BLIND))
        self.other = self.store.add(OTHER, recipients=(BLIND,))
        self.index()
        self.one_client = functools.cache(self.log_in)  # logging in takes long


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(autouse=True)
def jobs(site: Site) -> Iterator[None]:
    """Begin each test without exports."""
    with database.open_database(site.web.database_path) as db:
        db.execute("DELETE FROM export_job")
    yield


@pytest.fixture(autouse=True)
def inline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what the child runs in this process: a process takes seconds."""

    def run(site: web_page.Site, job_id: str, lock: int) -> None:
        export_child.main(site.settings.config_directory, job_id)

    # The child sets it.
    monkeypatch.setattr(copy_file, "fetch_moved", copy_file.fetch_moved)
    if "child" not in request.node.name:
        monkeypatch.setattr(export_jobs, "_run", run)


def here(site: Site) -> web_page.Site:
    return web_page.Site(site.store.settings, site.web)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_TIME
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def export(client: FlaskClient, **fields: object) -> str:
    """Export on the page; return the URL of the export, which has ended."""
    answer = web_site.post(client, "/exports", **fields)
    assert answer.status_code == 302, answer.text
    url = answer.headers["Location"]
    wait(lambda: 'data-state="running"' not in client.get(url).text)
    return url


def zip_of(client: FlaskClient, url: str) -> zipfile.ZipFile:
    content = client.get(f"{url}/files/messages.zip", buffered=True).data
    return zipfile.ZipFile(io.BytesIO(content))


def test_child_exports_the_hits_of_a_query(site: Site) -> None:
    client = site.one_client("anna")
    url = export(client, query="contract", format="zip", reason="case 7")
    page = client.get(url).text
    assert "2 of about 2 messages" in page
    files = zip_of(client, url)
    assert files.testzip() is None
    name = f"messages/{LEGAL}/2026/11/22/{site.his}.eml"
    assert files.read(name) == HIS
    assert set(files.namelist()) == {
        *("manifest.csv", "manifest.jsonl", name),
        name.replace(site.his, site.other),
    }
    assert "carol@example.net" in files.read("manifest.csv").decode()
    *_, before, entry = access_journal.entries(str(site.store.path), LEGAL)
    assert before.action != "count"  # of the progress: the export says it already
    assert (entry.action, entry.query, entry.reason) == ("export", "contract", "case 7")
    assert entry.user.web_user == "anna"
    assert set(entry.ids) == {site.his, site.other}


def test_download_goes_on_after_an_interruption(site: Site) -> None:
    client = site.one_client("anna")
    url = export(client, query="contract", format="mbox") + "/files/messages.mbox"
    whole = client.get(url, buffered=True)
    assert whole.headers["Content-Disposition"].startswith("attachment; filename=")
    assert whole.headers["Cache-Control"] == "no-store"
    fields = {"Range": "bytes=100-", "If-Range": whole.headers["ETag"]}
    rest = client.get(url, headers=fields, buffered=True)
    assert rest.status_code == 206
    assert whole.data[:100] + rest.data == whole.data


def test_export_of_own_mail_tells_nothing_of_others(site: Site) -> None:
    client = site.one_client("bob")
    url = export(client, query="*", format="zip")
    files = zip_of(client, url)
    [name] = [each for each in files.namelist() if each.endswith(".eml")]
    assert b"the contract" in files.read(name)
    everything = b"".join(map(files.read, files.namelist())) + client.get(url).data
    sha256 = hashlib.sha256(HIS).hexdigest()
    for each in (
        "carol",
        "of others",
        site.other,
        sha256,
        "eve@",
        '"seq"',
        '"outcome"',
    ):
        assert each.encode() not in everything.lower(), each
    assert b"'=1+1" in files.read("manifest.csv")


@pytest.mark.parametrize("format_", ["mbox", "csv"])
def test_forms_of_own_mail(site: Site, format_: str) -> None:
    client = site.one_client("bob")
    url = export(client, query="contract OR NOT contract", format=format_)
    for name in export_jobs.FILES[format_]:
        content = client.get(f"{url}/files/{name}", buffered=True).data
        assert site.his.encode() in content or b"the contract" in content
        assert b"carol" not in content and b"of others" not in content


def test_ids_of_others_are_not_found(site: Site) -> None:
    client = site.one_client("bob")
    missing = site.other[:-1] + ("0" if site.other[-1] != "0" else "1")
    texts = []
    for each in (site.other, missing):
        page = client.get(export(client, ids=[f"{LEGAL}/{each}"])).text
        assert "there is no message" in page
        texts.append(page[page.index("there is no") :].split("<")[0].replace(each, ""))
    assert texts[0] == texts[1]


def test_ids_are_exported(site: Site) -> None:
    client = site.one_client("anna")
    url = export(client, ids=[f"{LEGAL}/{site.his}"], redact="on")
    files = zip_of(client, url)
    [name] = [each for each in files.namelist() if each.endswith(".eml")]
    assert b"carol" not in files.read(name)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "Type a query"),
        ({"query": "from:("}, "from:("),
        ({"query": "x", "only": "selected"}, "Select at least one message"),
        ({"query": "x", "format": "../../etc"}, "no such format"),
        ({"query": "x", "archive": "board@example.com"}, "there is no archive board"),
        ({"ids": ["../../etc/passwd"] * 2}, "there is no"),
        ({"ids": ["x"]}, "no archive ids"),
    ],
)
def test_bad_orders(site: Site, fields: dict[str, object], text: str) -> None:
    client = site.one_client("anna")
    answer = web_site.post(client, "/exports", **fields)
    if answer.status_code == 302:
        url = answer.headers["Location"]
        wait(lambda: 'data-state="running"' not in client.get(url).text)
        answer = client.get(url)
    assert text in answer.text
    assert "Traceback" not in answer.text


def test_reason_that_is_demanded(tmp_path: Path) -> None:
    """It is asked for before the child runs, which has it too."""
    site = Site(tmp_path)
    with (site.store.directory / "archive.cf").open("a") as file:
        file.write("archive_require_reason = yes\n")
    client = site.log_in("anna")
    answer = web_site.post(client, "/exports", query="contract")
    assert "archive_require_reason" in answer.text
    url = export(client, query="contract", reason="case 7")
    assert "2 of about 2 messages" in client.get(url).text


def test_exports_of_others_are_not_there(site: Site) -> None:
    url = export(site.one_client("anna"), query="contract")
    for name in ("otto", "bob"):
        client = site.one_client(name)
        assert client.get(url).status_code == 404
        assert client.get(f"{url}/files/messages.zip", buffered=True).status_code == 404
        for action in ("resume", "cancel", "remove"):
            assert web_site.post(client, f"{url}/{action}").status_code == 404
        assert "You have no exports" in client.get("/exports").text
    assert site.one_client("adam").get("/exports").status_code == 403


@pytest.mark.parametrize(
    "path", ["x", "0" * 32, "..%2f..%2fetc", "%25", "_" * 32, "0" * 31 + "%"]
)
def test_job_ids_are_no_paths(site: Site, path: str) -> None:
    add_job(site, export_jobs.COMPLETE)
    client = site.one_client("anna")
    for suffix in ("", "/files/messages.zip", "/files/..%2f..%2fweb.db"):
        assert client.get(f"/exports/{path}{suffix}").status_code == 404


def test_files_that_are_not_for_download(site: Site) -> None:
    client = site.one_client("anna")
    url = export(client, query="contract")
    for name in ("export.json", "manifest.csv", "..%2f..%2fweb.db", "%2e%2e"):
        assert client.get(f"{url}/files/{name}", buffered=True).status_code == 404


def order(query: str = "contract") -> Order:
    return Order(query, (), (LEGAL,), "zip", redacts=False, reason="")


def add_job(site: Site, state: str) -> str:
    """Put a job into the database as a child has left it."""
    job_id = os.urandom(16).hex()
    data = export_jobs._to_json(AUDITOR, order(), ())
    with database.open_database(site.web.database_path) as db:
        db.execute(
            "INSERT INTO export_job VALUES (?, 'anna', ?, ?, 0, 0, ?)",
            (job_id, time.time(), state, data),
        )
    return job_id


def test_interrupted_export_goes_on(site: Site) -> None:
    """After the first message the page was stopped, and its child with it."""
    job_id = add_job(site, export_jobs.RUNNING)
    child = export_child._Child(here(site), export_jobs.load(here(site), job_id))
    with pytest.raises(KeyboardInterrupt):
        child._progress = stop_after_one  # type: ignore
        child._export()
    client = site.one_client("anna")
    url = f"/exports/{job_id}"
    assert "Interrupted" in client.get(url).text
    web_site.post(client, f"{url}/resume")
    wait(lambda: 'data-state="complete"' in client.get(url).text)
    files = zip_of(client, url)
    assert len([e for e in files.namelist() if e.endswith(".eml")]) == 2


def stop_after_one(records: Iterator[Record]) -> Iterator[Record]:
    yield next(records)
    raise KeyboardInterrupt


def test_running_export_is_cancelled_then_removed(site: Site) -> None:
    job_id = add_job(site, export_jobs.RUNNING)
    path = Path(export_jobs._lock_path(here(site), job_id))
    client, url = site.one_client("anna"), f"/exports/{job_id}"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "Running" in client.get(url).text
        answer = web_site.post(client, f"{url}/remove")
        assert "cancel it first" in answer.text
        web_site.post(client, f"{url}/cancel")
        child = export_child._Child(here(site), export_jobs.load(here(site), job_id))
        child.run()  # it sees that at the first message
        assert "Stopped" in client.get(url).text
    web_site.post(client, f"{url}/remove")
    assert client.get(url).status_code == 404
    assert not list(Path(site.web.export_directory).glob(f"{job_id}*"))


def test_limits(site: Site) -> None:
    job_id = add_job(site, export_jobs.RUNNING)
    small = web_page.Site(
        site.store.settings,
        type(site.web)(**{**vars(site.web), "web_export_limit": 99}),
    )
    export_child._Child(small, export_jobs.load(small, job_id)).run()
    job = export_jobs.find(small, AUDITOR, job_id)
    assert job.state == export_jobs.FAILED
    assert "web_export_limit, 99 bytes" in job.problems[0]
    for _ in range(export_jobs.KEPT_LIMIT):
        add_job(site, export_jobs.COMPLETE)
    answer = web_site.post(site.one_client("anna"), "/exports", query="contract")
    assert "you have 20 exports" in answer.text


def test_mail_in_the_object_storage_alone(tmp_path: Path) -> None:
    own = Site(tmp_path)
    whole = own.store.copy_path(own.his).read_bytes()
    own.store.move(own.his)
    with web_site.access_service(own, fetch=lambda *_: iter([whole])):
        client = own.log_in("anna")
        assert (
            'data-state="complete"' in client.get(export(client, query="contract")).text
        )
    url = export(client, query="contract")
    page = client.get(url).text
    assert "object storage, which cannot be read now: go on with this export" in page
    assert 'data-state="failed"' in page


def test_only_some_run_at_once(site: Site) -> None:
    locks = []
    for _ in range(export_jobs.RUNNING_LIMIT):
        job_id = add_job(site, export_jobs.RUNNING)
        locks.append(export_jobs._try_lock(here(site), job_id))
    answer = web_site.post(site.one_client("bob"), "/exports", query="contract")
    assert "exports are running" in answer.text
    assert export_jobs.of_user(here(site), BOB) == []
    for each in locks:
        os.close(each)


def test_rights_that_were_taken_away(site: Site) -> None:
    """An auditor who is not one any more cannot download what they have exported."""
    client = site.log_in("anna")
    url = export(client, query="contract")
    with database.open_database(site.web.database_path) as db:
        db.execute(
            "UPDATE session SET data = replace(data, 'auditor:', 'own:'),"
            " data = replace(replace(data, 'auditor:', 'own:'),"
            ' \'"addresses": []\', \'"addresses": ["bob@example.net"]\')'
        )
    assert client.get(url).status_code == 200
    assert client.get(f"{url}/files/messages.zip", buffered=True).status_code == 403


def test_expired_exports_are_removed(site: Site) -> None:
    url = export(site.one_client("anna"), query="contract")
    job_id = url.rpartition("/")[2]
    with database.open_database(site.web.database_path) as db:
        db.execute("UPDATE export_job SET created = created - 8 * 86400")
    export_jobs.remove_expired(here(site))
    assert not list(Path(site.web.export_directory).glob(f"{job_id}*"))
    assert site.one_client("anna").get(url).status_code == 404
