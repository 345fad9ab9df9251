"""The first page: where a user's work begins."""

from __future__ import annotations

from flask import Blueprint, redirect, url_for
from werkzeug.wrappers import Response

from postfix_archive.web import site
from postfix_archive.web.navigation import navigation

blueprint = Blueprint("home", __name__)


@blueprint.get("/")
@site.needs_login
def show() -> Response:
    """Go to the first of the pages that this user has."""
    endpoint, _ = next(navigation(site.user()))
    return redirect(url_for(endpoint))
