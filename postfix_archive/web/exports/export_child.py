"""The child process of an export job: exports what its user may see, as that user.

Started by export_jobs with the configuration directory and the id of the job. It goes
on where an earlier child has stopped. How far it is stands in the database of the page,
and why it has failed.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator

from postfix_archive.access import access_service
from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.errors import ArchiveError, CopyUnreachable, ExportFailed
from postfix_archive.export import run
from postfix_archive.export.selection import Selection
from postfix_archive.store.record import Record
from postfix_archive.web import web_settings
from postfix_archive.web.exports import export_jobs
from postfix_archive.web.exports.export_jobs import COMPLETE, FAILED, RUNNING, Job
from postfix_archive.web.site import Site
from postfix_archive.web.visible.archives import VisibleArchives

SAVE_INTERVAL = 1.0  # seconds
SPACE_RESERVE = 256 << 20  # bytes that stay free for the database of the page
UNREACHABLE = (
    "a message is kept in the object storage, which cannot be read now: go on with this"
    " export in some minutes, or ask the postmaster to run postfix-archive doctor"
)


class _Cancelled(Exception):
    """The user has cancelled the job."""


class _Child:
    def __init__(self, site: Site, job: Job) -> None:
        self._site = site
        self._job = job
        self._view = VisibleArchives(site.settings, job.user, job.order.reason)
        self._problems: list[str] = []
        self._saved = 0.0

    def run(self) -> None:
        """Export, and save the end of it."""
        try:
            self._export()
        except _Cancelled:
            return
        except CopyUnreachable:
            self._problems.insert(0, UNREACHABLE)
            self._save(FAILED)
        except ArchiveError as error:
            self._problems.insert(0, str(error))
            self._save(FAILED)
        except BaseException:
            self._problems.insert(0, "the program has failed; the log has the reason")
            self._save(FAILED)
            raise
        else:
            self._save(COMPLETE)

    def _export(self) -> None:
        order = self._job.order
        is_whole = self._view.is_whole(order.all_archives)
        options = run.Options(
            Selection(ids=order.ids, query=order.query),
            order.format,
            redacts_bcc=order.redacts or not is_whole,
            own_addresses=() if is_whole else self._job.user.addresses,
        )
        path = export_jobs.directory(self._site, self._job.job_id)
        is_begun = os.path.lexists(path)
        if is_begun and run.is_complete(path):
            return  # killed before it could say so
        run.export(
            self._site.settings,
            options,
            path,
            resume=is_begun,
            report=self._problems.append,
            progress=self._progress,
            select=self._select,
        )

    def _select(
        self, _: Settings, selection: Selection, notice: Callable[[str], None]
    ) -> Iterator[Record]:
        archives = self._job.order.archives
        return self._view.records(selection.query, selection.ids, archives, notice)

    def _progress(self, records: Iterator[Record]) -> Iterator[Record]:
        size = 0
        for record in records:
            if not self._job.total:  # counted only now, when the export is recorded
                self._job = dataclasses.replace(self._job, total=self._total())
            size += sum(each.get("size", 0) for each in record.events)
            self._require_space(size)
            yield record
            self._job = dataclasses.replace(self._job, done=self._job.done + 1)
            if time.monotonic() - self._saved > SAVE_INTERVAL:
                self._save(RUNNING)

    def _total(self) -> int:
        order = self._job.order
        return len(order.ids) or self._view.count(order.query, archives=order.archives)

    def _require_space(self, size: int) -> None:
        limit = self._site.web.web_export_limit
        if size > limit:
            raise ExportFailed(
                f"there is more mail than web_export_limit, {limit} bytes, allows in"
                " one export: export less at once, such as one year"
            )
        status = os.statvfs(self._site.web.web_directory)
        if status.f_bavail * status.f_frsize < SPACE_RESERVE:
            raise ExportFailed(
                "the disk of web_directory is full: remove other exports or tell the"
                " postmaster, then go on"
            )

    def _save(self, state: str) -> None:
        self._saved = time.monotonic()
        if not export_jobs.save(self._site, self._job, state, tuple(self._problems)):
            raise _Cancelled


def main(config_directory: str, job_id: str) -> None:
    """Run one job."""
    settings = archive_cf.load(config_directory)
    access_service.fetch_copies(settings)
    site = Site(settings, web_settings.load(config_directory))
    job = export_jobs.load(site, job_id)
    _Child(site, dataclasses.replace(job, done=0)).run()
