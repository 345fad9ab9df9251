"""The options of postfix-archive replay that exclude each other."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from postfix_archive.cli import main

NEITHER = "Error: give --to or --original-recipients\n"
BOTH = "Error: give --to or --original-recipients, not both\n"
WHOLE_ENVELOPE = "--copies with --original-recipients: a copy shows the whole envelope"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), NEITHER),
        (("--to", "a@b.example", "--original-recipients"), BOTH),
        (("--to", "a@b.example", "--original-recipients", "--copies"), BOTH),
        (("--original-recipients", "--copies"), WHOLE_ENVELOPE),
    ],
)
def test_each_wrong_choice_of_recipients_is_explained(
    options: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main.main, ["replay", "20261122-5dbd", *options])
    assert result.exit_code == 2
    assert message in result.output
