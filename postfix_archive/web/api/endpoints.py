"""The REST API: what the pages show, as JSON, for programs of users who have a token.

A request names its user by ``Authorization: Bearer TOKEN`` (RFC 6750) and by nothing
else: a browser's cookie does not count, so no form can be forged. Errors are problem
details (RFC 9457). openapi.json, beside this module, describes all of it.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException

from postfix_archive.errors import ArchiveError, LoginFailed, QueryInvalid
from postfix_archive.search.index_engine import ORDERS
from postfix_archive.web import site
from postfix_archive.web.api import api_tokens
from postfix_archive.web.exports import export_jobs, exports_page
from postfix_archive.web.exports.export_jobs import Job
from postfix_archive.web.message import envelope, reader
from postfix_archive.web.visible.archives import VisibleArchives
from postfix_archive.web.visible.message import VisibleMessage

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
MAX_LIMIT, LIMIT = 500, 50  # hits of a page
PROBLEM = "application/problem+json"
MESSAGE = "message/rfc822"
DOCUMENT = "api.document"  # the one endpoint for everybody
DOCUMENT_PATH = Path(__file__).with_name("openapi.json")


@blueprint.before_request
def require_token() -> None:
    """Let in who has a token. Raises LoginFailed."""
    g.user, g.language = None, "en"  # for programs, whatever a client prefers
    if request.endpoint == DOCUMENT:
        return
    token = api_tokens.token_in(request.headers.get("Authorization", ""))
    with site.database_() as db:
        g.user = api_tokens.user_of_token(db, token)
    if g.user is None:
        raise LoginFailed(
            "a request needs the header Authorization: Bearer TOKEN, with a token that"
            " is valid: this one is unknown, revoked or expired"
            if token
            else "a request needs the header Authorization: Bearer TOKEN"
        )


@blueprint.get("/openapi.json")
def document() -> Response:
    """Return the OpenAPI document of this API."""
    return Response(DOCUMENT_PATH.read_bytes(), content_type="application/json")


@blueprint.get("/search")
def search() -> Response:
    """Return a page of the hits of a query."""
    page = _archives().search(
        request.args.get("q", ""),
        sort=_one_of("sort", ORDERS, "newest"),
        archives=request.args.getlist("archive"),
        after=request.args.get("after", ""),
        limit=_number("limit", LIMIT, MAX_LIMIT),
    )
    return jsonify(
        {
            "hits": [each.to_json() for each in page.hits],
            "next": page.next,
            "notices": page.notices,
        }
    )


@blueprint.get("/count")
def count() -> Response:
    """Return the number of hits of a query."""
    number = _archives().recorded_count(
        request.args.get("q", ""), archives=request.args.getlist("archive")
    )
    return jsonify({"count": number})


@blueprint.get("/messages/<archive>/<archive_id>/original")
def original(archive: str, archive_id: str) -> Response:
    """Return the original message, as this user may see it."""
    message = _archives().message(archive, archive_id, action="show")
    return Response(
        message.original,
        content_type=MESSAGE,
        headers={"Content-Disposition": f'attachment; filename="{archive_id}.eml"'},
    )


@blueprint.get("/messages/<archive>/<archive_id>")
def message(archive: str, archive_id: str) -> Response:
    """Return a message: header, text, parts, and the envelope to who may see it."""
    found = _archives().message(archive, archive_id)
    with reader.reading(found) as reading:
        important, others = reading.fields()
        result = {
            "id": found.archive_id,
            "archive": found.archive,
            "size": found.size if found.is_whole else len(found.original),
            "header": [[each.name, each.value] for each in (*important, *others)],
            "text": reading.text(),
            "parts": [
                {
                    "number": each.part.number,
                    "name": each.name,
                    "type": each.part.media_type,
                    "size": each.size,
                    "sha256": each.sha256,
                }
                for each in reading.listed_parts()
            ],
            "problems": reading.problems,
            "passes": _passes_to_json(found) if found.is_whole else None,
        }
    return jsonify(result)


def _passes_to_json(message: VisibleMessage) -> list[dict[str, Any]]:
    return [
        {
            "time": each.time,
            "facts": [list(one) for one in each.facts],
            "recipients": [
                {
                    "address": one.address,
                    "original": one.original,
                    "is_blind": one.is_blind,
                    "outcome": one.kind,
                }
                for one in each.recipients
            ],
        }
        for each in envelope.passes(message.record, message.named_recipients())
    ]


@blueprint.get("/exports")
def exports() -> Response:
    """Return the exports of this user, newest first."""
    jobs = export_jobs.of_user(site.current(), site.user())
    return jsonify({"exports": [*map(_job_to_json, jobs)]})


@blueprint.post("/exports")
def add_export() -> tuple[Response, int]:
    """Begin an export."""
    fields = request.get_json()
    known = {"query": str, "format": str, "redact_bcc": bool}
    is_valid = isinstance(fields, dict) and all(
        isinstance(value, known.get(name, type(None))) for name, value in fields.items()
    )
    if not is_valid or "query" not in fields:
        raise BadRequest(
            "the body must be a JSON object with query, and may have"
            " format and redact_bcc"
        )
    order = exports_page.make_order(
        fields["query"],
        kind=fields.get("format", "zip"),
        redacts=fields.get("redact_bcc", False),
        reason=request.args.get("reason", ""),
    )
    job_id = export_jobs.start(site.current(), site.user(), order)
    job = export_jobs.find(site.current(), site.user(), job_id)
    return jsonify(_job_to_json(job)), HTTPStatus.ACCEPTED


@blueprint.get("/exports/<job_id>")
def export(job_id: str) -> Response:
    """Return one export."""
    return jsonify(_job_to_json(export_jobs.find(site.current(), site.user(), job_id)))


@blueprint.get("/exports/<job_id>/files/<name>")
def export_file(job_id: str, name: str) -> Response:
    """Return a file of an export."""
    return exports_page.download(job_id, name)


def _job_to_json(job: Job) -> dict[str, Any]:
    return {
        "id": job.job_id,
        "query": job.order.query,
        "format": job.order.format,
        "state": job.state,
        "total": job.total,
        "done": job.done,
        "problems": list(job.problems),
        "files": list(exports_page.files_of(job)),
    }


def _archives() -> VisibleArchives:
    return site.archives(request.args.get("reason", ""))


def _one_of(name: str, choices: Any, default: str) -> str:
    value = request.args.get(name, default)
    if value not in choices:
        raise BadRequest(f"{name} must be one of {', '.join(choices)}")
    return value


def _number(name: str, default: int, limit: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= limit):
        raise BadRequest(f"{name} must be a number from 1 to {limit}")
    return int(text)


@blueprint.errorhandler(ValueError)
def show_bad_value(error: ValueError) -> tuple[Response, int]:
    """Answer a request with a value that is none, such as a place of no page."""
    return _problem(HTTPStatus.BAD_REQUEST, str(error))


@blueprint.errorhandler(ArchiveError)
def show_archive_error(error: ArchiveError) -> tuple[Response, int]:
    """Answer with what went wrong in the archive."""
    is_unknown = isinstance(error, LoginFailed)
    status = HTTPStatus.UNAUTHORIZED if is_unknown else site.status_of(error)
    more = {"position": error.position} if isinstance(error, QueryInvalid) else {}
    response, code = _problem(status, str(error), **more)
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response, code


@blueprint.errorhandler(HTTPException)
def show_http_error(error: HTTPException) -> tuple[Response, int]:
    """Answer a request that is none of ours."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    return _problem(status, error.description or status.phrase)


def _problem(status: HTTPStatus, detail: str, **more: Any) -> tuple[Response, int]:
    response = jsonify(
        {"title": status.phrase, "status": int(status), "detail": detail, **more}
    )
    response.content_type = PROBLEM
    return response, int(status)
