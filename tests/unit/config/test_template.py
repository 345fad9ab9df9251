"""What is corrected in archive.cf, and that all else stays as the postmaster has it."""

from __future__ import annotations

import pytest

from postfix_archive.config import settings, template

PORT = {"archive_copy_address": "127.0.0.1:10128"}
CASES = {
    "commented": (
        "# text\n#archive_copy_address = 127.0.0.1:10028\nmail_owner = p\n",
        "# text\narchive_copy_address = 127.0.0.1:10128\nmail_owner = p\n",
    ),
    "set": (
        "a = 1\narchive_copy_address=127.0.0.1:1\n# mine\nb = 2\n",
        "a = 1\narchive_copy_address = 127.0.0.1:10128\n# mine\nb = 2\n",
    ),
    "set twice, on more lines": (
        "archive_copy_address =\n# why\n  127.0.0.1:1\narchive_copy_address = x:2\nb=2",
        "archive_copy_address = 127.0.0.1:10128\n# why\nb=2",
    ),
    "missing": ("b = 2", "b = 2\narchive_copy_address = 127.0.0.1:10128\n"),
    "empty": ("", "archive_copy_address = 127.0.0.1:10128\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_only_the_named_settings_change(case: str) -> None:
    before, after = CASES[case]
    assert template.update(before, PORT) == after
    assert template.update(after, {}) == after


def test_a_new_archive_cf_takes_every_port() -> None:
    text = template.render({"myhostname": "host.example.com"})
    expected = {
        n: f"127.0.0.1:{p}" for p, n in enumerate(template.PORT_SETTINGS, 10126)
    }
    loaded = settings.parse(
        template.update(text, expected),
        path="archive.cf",
        config_directory="/etc/postfix",
        myhostname="x",
    )
    ports = [getattr(loaded, name)[1] for name in template.PORT_SETTINGS]
    assert ports == [10126, 10127, 10128, 10129, 10130]
