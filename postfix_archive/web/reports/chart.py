"""Bar charts as SVG paths: one path for all bars, so that a year is a few kilobytes.

Used by dashboard_page. Pure. No style in it: the page's own style sheet colours it.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

HEIGHT = 100
BAR = 2  # width, in units of the view box


def bars(values: Sequence[int], title: str) -> Markup:
    """Return a chart of values, the largest of which has all of the height."""
    largest = max(values, default=0)
    path = "".join(
        f"M{number * BAR} {HEIGHT}v-{_height(value, largest)}h{BAR}V{HEIGHT}z"
        for number, value in enumerate(values)
        if value
    )
    return Markup(
        '<svg class="chart" role="img" aria-label="{title}"'
        ' viewBox="0 0 {width} {height}" preserveAspectRatio="none">'
        '<path d="{path}"/></svg>'
    ).format(title=title, width=BAR * len(values), height=HEIGHT, path=path)


def _height(value: int, largest: int) -> int:
    """Return the height of a bar, at least 1: what is there can be seen."""
    return max(1, round(HEIGHT * value / largest))
