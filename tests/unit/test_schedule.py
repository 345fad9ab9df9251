"""What one process runs as a group, and that the table names files that exist."""

from __future__ import annotations

import pytest

import schedule
from private_postfix import ROOT

BYTES = "tests/live/stamp_filter/test_bytes.py::test_each"
INSTALL = "tests/live/install/test_install.py::test_each"


@pytest.mark.parametrize(
    ("one", "other", "is_one_group"),
    [
        (f"{BYTES}[pipe-a]", f"{BYTES}_other[pipe-b]", True),
        (f"{BYTES}[pipe-a]", f"{BYTES}[lmtp-a]", False),
        (f"{BYTES}[a]", f"{BYTES}_other", True),
        (f"{INSTALL}[a]", f"{INSTALL}[b]", False),
        ("tests/unit/test_a.py::test_x", "tests/unit/test_b.py::test_x", False),
    ],
)
def test_a_group_shares_a_file_and_a_transport_mode(
    one: str, other: str, is_one_group: bool
) -> None:
    assert (schedule.group(one) == schedule.group(other)) == is_one_group


def test_every_file_of_the_tables_exists() -> None:
    for name in {*schedule.SECONDS, *schedule.ALONE}:
        assert (ROOT / schedule.LIVE / name).exists(), name


def test_a_live_file_that_is_not_in_the_table_starts_first() -> None:
    new = schedule.seconds("tests/live/test_new.py::test_each")
    assert new > max(schedule.SECONDS.values())
    assert schedule.seconds("tests/unit/test_new.py::test_each") == 0
