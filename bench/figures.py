"""What the measurements come to: ratios between variants, with their spread."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import variants

RATIOS = (
    (variants.ALWAYS_BCC, variants.PLAIN),
    (variants.NULL_PIPE, variants.PLAIN),
    (variants.PIPE, variants.PLAIN),
    (variants.NULL_LMTP, variants.PLAIN),
    (variants.LMTP, variants.PLAIN),
    (variants.PIPE, variants.ALWAYS_BCC),
    (variants.LMTP, variants.ALWAYS_BCC),
    (variants.LMTP, variants.NULL_LMTP),
    (variants.PIPE, variants.NULL_PIPE),
    (variants.NATIVE_PIPE, variants.ALWAYS_BCC),
    (variants.NATIVE_LMTP, variants.ALWAYS_BCC),
    (variants.NATIVE_LMTP, variants.PLAIN),
    (variants.BCC_SMTP, variants.ALWAYS_BCC),
    (variants.NATIVE_LMTP, variants.BCC_SMTP),
)


@dataclass(frozen=True)
class Spread:
    """The middle of several rounds, the lowest and the highest."""

    middle: float
    lowest: float
    highest: float

    @property
    def is_wide(self) -> bool:
        """False if there was one value only, or always the same."""
        return self.lowest < self.highest

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


def spread(values: list[float]) -> Spread:
    """Return median, least and greatest."""
    return Spread(median(values), min(values), max(values))


def ratio(above: list[float], below: list[float]) -> Spread:
    """Return the ratio of two variants, round by round: each round is a pair."""
    return spread([one / other for one, other in zip(above, below, strict=True)])


def percentile(values: list[float], percent: int) -> float:
    """Return the value that so many percent do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
