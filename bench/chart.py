"""A bar chart as SVG, by hand: no package is worth an installation for one picture."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

COLOURS = (
    *("#777777", "#c28e2c", "#9db8d6", "#2f6fb0", "#a8cfa0", "#2e8540"),
    *("#d98f8f", "#b03030", "#8c6bb1"),
)
LEFT, TOP, WIDTH, THICK, GAP = 170, 56, 520, 11, 14  # pixels
LEGEND_COLUMNS, LEGEND_WIDTH, LEGEND_HEIGHT = 6, 110, 18


def bars(title: str, groups: dict[str, dict[str, float]]) -> str:
    """Return a picture: a group of bars a load, a bar a variant."""
    names = list(next(iter(groups.values()), {}))
    top = TOP + (len(names) - 1) // LEGEND_COLUMNS * LEGEND_HEIGHT
    height = top + len(groups) * (len(names) * THICK + GAP) + GAP
    parts = [_text(10, 20, title), *_legend(names), *_groups(groups, top)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}"'
        f' height="{height}" font-family="sans-serif" font-size="11">\n'
        + '<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _legend(names: list[str]) -> Iterator[str]:
    for index, name in enumerate(names):
        row, column = divmod(index, LEGEND_COLUMNS)
        x, y = 10 + column * LEGEND_WIDTH, 30 + row * LEGEND_HEIGHT
        yield _bar(x, y, 10, index)
        yield _text(x + 14, y + 9, name)


def _groups(groups: dict[str, dict[str, float]], y: int) -> Iterator[str]:
    longest = max((max(each.values()) for each in groups.values()), default=1.0)
    for load, values in groups.items():
        yield _text(10, y + len(values) * THICK // 2 + 4, load)
        for index, share in enumerate(values.values()):
            width = round(WIDTH * share / max(longest, 1.0))
            yield _bar(LEFT, y, width, index)
            yield _text(LEFT + width + 4, y + THICK - 2, f"{share:.2f}")
            y += THICK
        y += GAP


def _bar(x: int, y: int, width: int, index: int) -> str:
    colour = COLOURS[index % len(COLOURS)]
    size = f'width="{width}" height="{THICK - 1}"'
    return f'<rect x="{x}" y="{y}" {size} fill="{colour}"/>'


def _text(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'
