"""The page about the user: who they are, and what they may see."""

from __future__ import annotations

from flask import Blueprint, render_template

from postfix_archive.web import site

blueprint = Blueprint("account", __name__)


@blueprint.get("/account")
@site.needs_login
def show() -> str:
    """Show name, roles and addresses."""
    return render_template("account.html", archives=site.archives().names)
