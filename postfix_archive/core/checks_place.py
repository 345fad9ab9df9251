"""Checks of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postfix_archive.core.finding import Finding
from postfix_archive.core.observed import Observed

CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = ()
