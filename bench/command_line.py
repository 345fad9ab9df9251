"""What a benchmark was asked for: each option is an environment variable as well."""

from __future__ import annotations

import argparse
import os


def make_parser(
    prog: str,
    description: str | None,
    defaults: dict[str, str],
    help_texts: dict[str, str],
) -> argparse.ArgumentParser:
    """Return a parser of these options; the environment says what is usual."""
    argument_parser = argparse.ArgumentParser(prog=prog, description=description)
    for name, default in defaults.items():
        value = os.environ.get(name) or default
        argument_parser.add_argument(
            f"--{name.lower()}", default=value, help=help_texts[name]
        )
    return argument_parser


def parse_counts(options: argparse.Namespace, *names: str) -> None:
    """Read options that are a number, of one at least."""
    for name in names:
        setattr(options, name, max(1, int(getattr(options, name))))


def parse_numbers(text: str) -> list[int]:
    """Return the numbers in a list with commas."""
    return [int(each) for each in text.split(",")]
