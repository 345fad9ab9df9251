"""Claims about the errors: whatever goes wrong with mail in flight, it waits."""

from __future__ import annotations

import re

import pytest

from postfix_archive import errors
from postfix_archive.errors import ArchiveError


def all_subclasses(root: type[ArchiveError]) -> list[type[ArchiveError]]:
    return [root] + [
        each for subclass in root.__subclasses__() for each in all_subclasses(subclass)
    ]


TREE = sorted(all_subclasses(ArchiveError), key=lambda each: each.__name__)


@pytest.mark.parametrize("error", TREE)
def test_no_error_has_a_status_that_makes_postfix_bounce(
    error: type[ArchiveError],
) -> None:
    assert re.fullmatch(r"4\.[0-9]{1,3}\.[0-9]{1,3}", error.dsn)


@pytest.mark.parametrize("error", TREE)
def test_every_error_is_in_the_tree_and_has_a_docstring(
    error: type[ArchiveError],
) -> None:
    assert error.__module__ == errors.__name__
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")
    assert error.__doc__


def test_the_tree_names_no_error_that_does_not_exist() -> None:
    names = re.findall(r"\b([A-Z][a-z]+(?:[A-Z][a-z]+)+)\b", errors.__doc__ or "")
    assert set(names) == {error.__name__ for error in TREE}


def test_an_error_keeps_its_text() -> None:
    assert str(errors.StoreFailed("/srv: no space left")) == "/srv: no space left"
