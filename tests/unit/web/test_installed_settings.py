"""archive-web.cf as make install writes it, and the page about its settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postfix_archive.install import web_part
from postfix_archive.postfix import reference
from postfix_archive.web import web_settings

TEMPLATE = reference.PACKAGE / "install" / web_part.SETTINGS_FILE
PAGE = Path(__file__).resolve().parents[3] / "docs" / "web-page.md"


def test_new_settings_are_the_defaults() -> None:
    """Each is shown once, commented out."""
    assert web_part.SETTINGS_FILE == web_settings.FILE_NAME
    text = TEMPLATE.read_text()
    shown = dict(re.findall(r"^#(web_\w+) = ?(.*)$", text, re.M))
    assert shown == web_settings.DEFAULTS
    assert len(re.findall(r"^#web_", text, re.M)) == len(shown)
    assert web_settings.DEFAULTS["web_directory"] == web_part.WEB_DIRECTORY
    assert web_settings.parse(text, path="x") == web_settings.parse("", path="x")


@pytest.mark.parametrize("name", web_settings.DEFAULTS)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    [row] = [e for e in PAGE.read_text().splitlines() if e.startswith(f"| `{name}` |")]
    default = web_settings.DEFAULTS[name]
    assert f"`{default}`" in row or not default
