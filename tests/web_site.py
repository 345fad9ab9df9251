"""A web page over a sample store, for tests: its application, users and clients.

    site = web_site.WebSite(directory)
    site.store.add(b"Subject: hello\\r\\n\\r\\nhello\\r\\n")
    site.index()
    page = site.log_in("anna").get("/search?q=hello")

USERS are there from the start, each with the password of PASSWORD.
"""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from postfix_archive.access import access_journal
from postfix_archive.access.access_entry import Entry
from postfix_archive.access.access_service import AccessService, Fetch
from postfix_archive.access.decision import Decision
from postfix_archive.cli import web_decisions
from postfix_archive.config.settings import Settings
from postfix_archive.store import copy_file
from postfix_archive.web import app, database, web_settings
from postfix_archive.web.login import local_users
from postfix_archive.web.user import Grant, Role, User

import sample_store
from sample_store import LEGAL

PASSWORD = "correct horse battery staple"
AUDITOR = User("anna", "local", frozenset({Grant(Role.AUDITOR, LEGAL)}))
OFFICER = User("otto", "local", frozenset({Grant(Role.OFFICER)}))
OTHER_OFFICER = User("olga", "local", frozenset({Grant(Role.OFFICER)}))
ADMIN = User("adam", "local", frozenset({Grant(Role.ADMIN)}))
BOB = User("bob", "local", frozenset({Grant(Role.OWN)}), ("bob@example.net",))
USERS = (AUDITOR, OFFICER, OTHER_OFFICER, ADMIN, BOB)
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


class WebSite:
    """A sample store, and the page over it."""

    def __init__(self, directory: Path) -> None:
        self.store = sample_store.SampleStore(directory)
        (directory / "web").mkdir()
        (directory / web_settings.FILE_NAME).write_text(
            f"web_directory = {directory}/web\n"
        )
        self.web = web_settings.load(str(directory))
        Path(self.web.database_path).write_bytes(users_database())

    @property
    def app(self) -> Flask:
        """A new application with the settings as they are now."""
        made = app.create_app(
            self.store.settings, web_settings.load(str(self.store.directory))
        )
        made.testing = True
        return made

    def index(self) -> None:
        """Index what is in the store."""
        self.store.run("index", "--once")

    def log_in(self, name: str, password: str = PASSWORD) -> FlaskClient:
        """Return a client in which a user has logged in."""
        client = self.app.test_client()
        page = client.get("/login").text
        answer = client.post(
            "/login",
            data={
                "name": name,
                "password": password,
                "csrf_token": csrf_token(page),
            },
        )
        assert answer.status_code == 302, answer.text
        return client


@contextlib.contextmanager
def access_service(
    site: WebSite, *settings: str, fetch: Fetch = copy_file.fetch_moved
) -> Iterator[None]:
    """Run an access service for the page, with further lines of archive.cf.

    Root is the store's user and the page's user here. fetch reads what is in the object
    storage alone.
    """
    path = site.store.directory / "archive.cf"
    lines = [
        "archive_reader_group = root",
        "archive_web_user = root",
        f"archive_access_socket = {site.store.directory}/access",
        *settings,
    ]
    with path.open("a") as file:
        file.writelines(f"{each}\n" for each in lines)
    found = site.store.settings

    def append(ids: Mapping[str, Sequence[str]], entry: Entry) -> None:
        access_journal.append(found.archive_store_directory, ids, entry)

    def decide(settings: Settings, one: Decision) -> str:
        return web_decisions.carry_out(settings, one, warn=print)

    with AccessService(lambda: site.store.settings, append, decide, fetch) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            service.shutdown()
            thread.join()


def post(client: FlaskClient, url: str, **fields: object) -> TestResponse:
    """Post a form, as a user who has it on a page."""
    token = csrf_token(client.get("/account").text)
    return client.post(url, data={**fields, "csrf_token": token})


@functools.cache
def users_database() -> bytes:
    """Return a database with USERS; made once, since hashes of passwords take long."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "web.db")
        with database.open_database(str(path)) as db:
            for each in USERS:
                local_users.add(db, each, PASSWORD)
        return path.read_bytes()


def csrf_token(page: str) -> str:
    """Return the token of the forms on a page."""
    found = CSRF.search(page)
    assert found, page
    return found[1]
