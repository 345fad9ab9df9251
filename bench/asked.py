"""What a benchmark was asked for: each option is an environment variable as well."""

from __future__ import annotations

import argparse
import os


def parser(
    prog: str, about: str | None, defaults: dict[str, str], meanings: dict[str, str]
) -> argparse.ArgumentParser:
    """Return a parser of these options; the environment says what is usual."""
    made = argparse.ArgumentParser(prog=prog, description=about)
    for name, usual in defaults.items():
        asked = os.environ.get(name) or usual
        made.add_argument(f"--{name.lower()}", default=asked, help=meanings[name])
    return made


def count(found: argparse.Namespace, *names: str) -> None:
    """Read options that are a number, of one at least."""
    for name in names:
        setattr(found, name, max(1, int(getattr(found, name))))


def numbers(text: str) -> list[int]:
    """Return the numbers in a list with commas."""
    return [int(each) for each in text.split(",")]
