"""Export jobs: each runs in a child process of its own, and leaves files to download.

Used by exports_page, and by export_child, which is the child. A job is a row in the
database of the page and a directory in web_directory/exports, which belong to the user
who made it. The child holds a lock as long as it runs: a job that is not complete and
has no lock was interrupted, and goes on where it was. Raises ExportFailed,
RecordNotFound and WebDatabaseFailed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from postfix_archive.errors import ExportFailed, RecordNotFound
from postfix_archive.export.writers import MANIFEST_CSV, MboxWriter, ZipWriter
from postfix_archive.system import privileges
from postfix_archive.web import database, sessions
from postfix_archive.web.site import Site
from postfix_archive.web.user import User

# The files of each format that can be downloaded; others have one for each message.
FILES = {
    "zip": (ZipWriter.NAME,),
    "mbox": (MboxWriter.NAME, MANIFEST_CSV),
    "csv": (MANIFEST_CSV,),
}
RUNNING, COMPLETE, FAILED, CANCELLED, INTERRUPTED = (
    *("running", "complete", "failed", "cancelled"),
    "interrupted",  # never in the database
)
RUNNING_LIMIT = 3  # children at once: each has 40 MB and uses a processor
KEPT_LIMIT = 20  # exports of one user
IDS_LIMIT = 10_000
PROBLEMS_LIMIT = 100  # lines that are kept and shown
DAY = 86400
JOB_ID = re.compile(r"[0-9a-f]{32}")
PROGRAM = (
    "import os, sys; sys.path[:] = sys.argv[3:];"
    " from postfix_archive.web.exports.export_child import main; main(*sys.argv[1:3]);"
    " os._exit(0)"  # at once: the lock goes
)


@dataclass(frozen=True)
class Order:
    """What is exported: ``ids`` (``archive/archive id``), or the hits of a query.

    ``archives`` are those that are searched, ``redacts`` leaves blind recipients out.
    """

    query: str
    ids: tuple[str, ...]
    archives: tuple[str, ...]
    format: str
    redacts: bool
    reason: str

    @property
    def all_archives(self) -> tuple[str, ...]:
        """The archives of which something is exported."""
        of_ids = dict.fromkeys(each.rpartition("/")[0] for each in self.ids)
        return tuple(of_ids) or self.archives


@dataclass(frozen=True)
class Job:
    """One job, as it is now; ``done`` of about ``total`` messages are exported."""

    job_id: str
    user: User
    created: float  # Unix time
    state: str
    total: int
    done: int
    order: Order
    problems: tuple[str, ...]

    @property
    def can_resume(self) -> bool:
        """True if it is not complete and does not run."""
        return self.state in (FAILED, CANCELLED, INTERRUPTED)


def start(site: Site, user: User, order: Order) -> str:
    """Start a job of a user; return its id."""
    job_id = secrets.token_hex(16)
    with database.open_database(site.web.database_path) as db:
        if len(_of_user(db, site, user)) >= KEPT_LIMIT:
            raise ExportFailed(
                f"you have {KEPT_LIMIT} exports: remove one before you start another"
            )
        data = _to_json(user, order, ())
        db.execute(
            "INSERT INTO export_job VALUES (?, ?, ?, ?, 0, 0, ?)",
            (job_id, user.name, time.time(), CANCELLED, data),
        )
    try:
        resume(site, user, job_id)
    except ExportFailed:
        remove(site, user, job_id)
        raise
    return job_id


def resume(site: Site, user: User, job_id: str) -> None:
    """Let a job go on that is not complete, with the rights that its user has now."""
    lock = _try_lock(site, job_id)
    if lock < 0:
        return
    try:
        with database.open_database(site.web.database_path) as db:
            _require_free(db, site)
            job = _find(db, site, user, job_id)
            if job.state == COMPLETE:
                return
            db.execute(
                "UPDATE export_job SET state = ?, data = ? WHERE job_id = ?",
                (RUNNING, _to_json(user, job.order, ()), job_id),
            )
        _run(site, job_id, lock)
    finally:
        os.close(lock)


def _require_free(db: sqlite3.Connection, site: Site) -> None:
    rows = db.execute("SELECT job_id FROM export_job WHERE state = ?", (RUNNING,))
    if sum(_is_running(site, each[0]) for each in rows) >= RUNNING_LIMIT:
        raise ExportFailed(
            f"{RUNNING_LIMIT} exports are running, which is as many as can: try again"
            " when one of them is complete"
        )


def _run(site: Site, job_id: str, lock: int) -> None:
    """Start the child, which has the lock as long as it lives."""
    arguments = [site.settings.config_directory, job_id]
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", PROGRAM, *arguments]
        + [each for each in sys.path if each],
        stdin=subprocess.DEVNULL,
        cwd="/",
        pass_fds=(lock,),
    )
    threading.Thread(target=process.wait, daemon=True).start()


def cancel(site: Site, user: User, job_id: str) -> None:
    """Stop a job; the child sees it before the next message."""
    with database.open_database(site.web.database_path) as db:
        job = _find(db, site, user, job_id)
        db.execute(
            "UPDATE export_job SET state = ? WHERE job_id = ? AND state = ?",
            (CANCELLED, job.job_id, RUNNING),
        )


def remove(site: Site, user: User, job_id: str) -> None:
    """Remove a job that does not run, and its files."""
    with database.open_database(site.web.database_path) as db:
        job = _find(db, site, user, job_id)
    _remove(site, job.job_id)


def remove_expired(site: Site) -> None:
    """Remove all jobs older than web_export_days, and their files."""
    oldest = time.time() - site.web.web_export_days * DAY
    with database.open_database(site.web.database_path) as db:
        rows = db.execute("SELECT job_id FROM export_job WHERE created < ?", (oldest,))
        job_ids = [str(each[0]) for each in rows]
    for each in job_ids:
        if not _is_running(site, each):
            _remove(site, each)


def _remove(site: Site, job_id: str) -> None:
    lock = _try_lock(site, job_id)
    if lock < 0:
        raise ExportFailed("the export is running: cancel it first, and try again")
    try:
        shutil.rmtree(directory(site, job_id), ignore_errors=True)
        with database.open_database(site.web.database_path) as db:
            db.execute("DELETE FROM export_job WHERE job_id = ?", (job_id,))
        os.unlink(_lock_path(site, job_id))
    finally:
        os.close(lock)


def find(site: Site, user: User, job_id: str) -> Job:
    """Return a job of a user. Raises RecordNotFound for none, or one of others."""
    with database.open_database(site.web.database_path) as db:
        return _find(db, site, user, job_id)


def of_user(site: Site, user: User) -> list[Job]:
    """Return the jobs of a user, newest first."""
    with database.open_database(site.web.database_path) as db:
        return _of_user(db, site, user)


def load(site: Site, job_id: str) -> Job:
    """Return a job, for its child."""
    with database.open_database(site.web.database_path) as db:
        row = db.execute(
            "SELECT * FROM export_job WHERE job_id = ?", (job_id,)
        ).fetchone()
    if row is None:
        raise RecordNotFound(f"there is no export {job_id}")
    return _from_row(row, is_running=True)


def save(site: Site, job: Job, state: str, problems: tuple[str, ...] = ()) -> bool:
    """Save how far a job is; return False if it was cancelled meanwhile."""
    with database.open_database(site.web.database_path) as db:
        cursor = db.execute(
            "UPDATE export_job SET state = ?, total = ?, done = ?, data = ?"
            " WHERE job_id = ? AND state = ?",
            (
                *(state, job.total, job.done),
                _to_json(job.user, job.order, problems),
                *(job.job_id, RUNNING),
            ),
        )
    return cursor.rowcount > 0


def directory(site: Site, job_id: str) -> str:
    """Return the directory of a job's files."""
    return f"{site.web.export_directory}/{job_id}"


def _lock_path(site: Site, job_id: str) -> str:
    if not JOB_ID.fullmatch(job_id):
        raise _not_found(job_id)
    return f"{site.web.export_directory}/{job_id}.lock"


def _try_lock(site: Site, job_id: str) -> int:
    path = _lock_path(site, job_id)
    try:
        os.makedirs(site.web.export_directory, 0o700, exist_ok=True)
    except OSError as error:
        raise ExportFailed(
            f"{site.web.export_directory}: {error.strerror}; archive_web_user must be"
            " able to write web_directory"
        ) from error
    return privileges.try_lock(path)


def _is_running(site: Site, job_id: str) -> bool:
    lock = _try_lock(site, job_id)
    if lock >= 0:
        os.close(lock)
    return lock < 0


def _find(db: sqlite3.Connection, site: Site, user: User, job_id: str) -> Job:
    jobs = _of_user(db, site, user, job_id) if JOB_ID.fullmatch(job_id) else []
    if not jobs:
        raise _not_found(job_id)
    return jobs[0]


def _not_found(job_id: str) -> RecordNotFound:
    return RecordNotFound(f"there is no export {job_id} of yours")


def _of_user(
    db: sqlite3.Connection, site: Site, user: User, job_id: str = ""
) -> list[Job]:
    query = "SELECT * FROM export_job WHERE user = ? AND job_id LIKE ?"
    values = (user.name, job_id or "%")
    # The locks first: a job that has just been completed was not interrupted.
    rows = db.execute(query, values).fetchall()
    running = {e["job_id"]: _is_running(site, e["job_id"]) for e in rows}
    rows = db.execute(f"{query} ORDER BY created DESC", values).fetchall()
    return [_from_row(e, is_running=running.get(e["job_id"], True)) for e in rows]


def _from_row(row: sqlite3.Row, *, is_running: bool) -> Job:
    data: Mapping[str, Any] = json.loads(row["data"])
    order = data["order"]
    is_interrupted = row["state"] == RUNNING and not is_running
    return Job(
        row["job_id"],
        sessions.user_of(data["user"]),
        row["created"],
        INTERRUPTED if is_interrupted else row["state"],
        row["total"],
        row["done"],
        Order(**order | {key: tuple(order[key]) for key in ("ids", "archives")}),
        tuple(data["problems"]),
    )


def _to_json(user: User, order: Order, problems: tuple[str, ...]) -> str:
    fields = {"user": sessions.to_fields(user), "order": asdict(order)}
    return json.dumps({**fields, "problems": problems[:PROBLEMS_LIMIT]})
