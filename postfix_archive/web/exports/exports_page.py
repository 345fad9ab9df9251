"""The pages about exports: start one, watch it, download its files.

export_jobs does the work. Everybody sees the exports of their own alone.
"""

from __future__ import annotations

import time

from flask import (
    Blueprint,
    Response,
    flash,
    redirect,
    render_template,
    request,
    send_file,
    url_for,
)
from werkzeug.wrappers import Response as BaseResponse

from postfix_archive.errors import (
    AccessRefused,
    ExportFailed,
    QueryInvalid,
    ReasonMissing,
    RecordNotFound,
)
from postfix_archive.web import site
from postfix_archive.web.exports import export_jobs
from postfix_archive.web.exports.export_jobs import COMPLETE, FILES, Job, Order
from postfix_archive.web.language import gettext as _
from postfix_archive.web.visible.archives import VisibleArchives

blueprint = Blueprint("exports", __name__)
for_readers = site.needs(lambda user: user.is_reader, site.FOR_READERS)
Page = str | BaseResponse | tuple[str, int]
CLEANING_INTERVAL = 3600.0  # seconds
_cleaned = 0.0  # when expired exports were removed last; seconds, monotonic


@blueprint.before_app_request
def remove_expired() -> None:
    """Remove expired exports, whatever page is shown, at most once an hour."""
    global _cleaned
    if _cleaned and time.monotonic() - _cleaned < CLEANING_INTERVAL:
        return
    _cleaned = time.monotonic()
    export_jobs.remove_expired(site.current())


@blueprint.get("/exports")
@for_readers
def list_() -> Page:
    """List the user's exports, with a form for a new one, of a query or of ids."""
    return _list(query=request.args.get("q", ""), ids=request.args.getlist("ids"))


def _list(error: str = "", **fields: object) -> Page:
    jobs = export_jobs.of_user(site.current(), site.user())
    status = 400 if error else 200
    page = render_template(
        "exports.html", jobs=jobs, formats=FILES, error=error, **_shared(), **fields
    )
    return page, status


def _shared() -> dict[str, object]:
    found = site.current()
    return {
        "days": found.web.web_export_days,
        "needs_reason": found.settings.archive_require_reason,
        "archives": site.archives().names,
    }


@blueprint.post("/exports")
@for_readers
def start() -> Page:
    """Start an export of a query, or of ids (``archive/archive id``)."""
    form = request.form
    query, ids = form.get("query", "").strip(), tuple(form.getlist("ids"))
    kind = form.get("format", "zip")
    chosen = tuple(form.getlist("archive"))
    reason = form.get("reason", "").strip() or site.said_reason()
    fields = {"query": query, "ids": ids, "format": kind, "chosen": chosen}
    try:
        order = make_order(
            query,
            ids=ids,
            kind=kind,
            archives=chosen,
            redacts="redact" in form,
            reason=reason,
        )
        job_id = export_jobs.start(site.current(), site.user(), order)
    except (ExportFailed, QueryInvalid, ReasonMissing, RecordNotFound) as error:
        return _list(str(error), reason=reason, redact="redact" in form, **fields)
    return redirect(url_for("exports.show", job_id=job_id))


def make_order(
    query: str,
    *,
    kind: str,
    redacts: bool,
    reason: str,
    ids: tuple[str, ...] = (),
    archives: tuple[str, ...] = (),
) -> Order:
    """Return a valid order. Raises ExportFailed and the errors of check()."""
    if not ids and request.form.get("only") == "selected":
        raise ExportFailed(
            _("Select at least one message, or export all of the query.")
        )
    if not query and not ids:
        raise ExportFailed(_("Type a query, or * for all messages."))
    if kind not in FILES:
        raise ExportFailed(_("There is no such format."))
    if len(ids) > export_jobs.IDS_LIMIT or not all("/" in each for each in ids):
        raise ExportFailed(_("These are no archive ids."))
    view = site.archives(reason)
    selected = tuple(view.select(archives))
    if not selected:
        raise RecordNotFound(_("There is no archive that you may read."))
    view.check("export", "" if ids else query, selected)
    return Order("" if ids else query, ids, selected, kind, redacts, reason)


@blueprint.get("/exports/<job_id>")
@for_readers
def show(job_id: str) -> Page:
    """Show how far an export is, or what it has."""
    job = _job(job_id)
    return render_template("export.html", job=job, files=files_of(job), **_shared())


def _job(job_id: str) -> Job:
    return export_jobs.find(site.current(), site.user(), job_id)


def files_of(job: Job) -> tuple[str, ...]:
    """Return the names of the files that can be downloaded."""
    return FILES[job.order.format] if job.state == COMPLETE else ()


@blueprint.get("/exports/<job_id>/files/<name>")
@for_readers
def download(job_id: str, name: str) -> Response:
    """Send a file of an export, or the part of it that a Range: field asks for."""
    job = _job(job_id)
    if name not in files_of(job):
        raise RecordNotFound(f"the export {job_id} has no file {name}")
    _require_rights(job)
    path = f"{export_jobs.directory(site.current(), job_id)}/{name}"
    day = time.strftime("%Y-%m-%d", time.gmtime(job.created))
    try:
        response = send_file(
            path,
            mimetype="application/octet-stream",
            as_attachment=True,
            download_name=f"export-{day}-{job_id[:8]}-{name}",
            conditional=True,
        )
    except OSError:
        raise ExportFailed(
            f"the file {name} of the export is not there any more: export again"
        ) from None
    response.headers["Cache-Control"] = "no-store"
    return response


def _require_rights(job: Job) -> None:
    """Raise an error if the user may not see any more what they have exported."""
    archives = job.order.all_archives
    view = site.archives()
    view.select(archives)
    before = VisibleArchives(site.current().settings, job.user)
    others = {*job.user.addresses} - {*site.user().addresses}
    if not view.is_whole(archives) and (before.is_whole(archives) or others):
        view.record_refusal(f"export {job.job_id}")
        raise AccessRefused("you may not see all of the mail in this export any more")


@blueprint.post("/exports/<job_id>/<any(resume, cancel, remove):action>")
@for_readers
def change(job_id: str, action: str) -> BaseResponse:
    """Let an export go on, cancel or remove it."""
    if action == "resume":
        _require_rights(_job(job_id))
    getattr(export_jobs, action)(site.current(), site.user(), job_id)
    if action == "remove":
        flash(_("The export is removed."))
        return redirect(url_for("exports.list_"))
    return redirect(url_for("exports.show", job_id=job_id))
