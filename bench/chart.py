"""A bar chart as SVG, by hand: no package is worth an installation for one picture."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

COLOURS = ("#777777", "#c28e2c", "#9db8d6", "#2f6fb0", "#a8cfa0", "#2e8540")
LEFT, TOP, WIDTH, THICK, GAP = 170, 56, 520, 11, 14  # pixels


def bars(title: str, groups: dict[str, dict[str, float]]) -> str:
    """Return a picture: a group of bars a load, a bar a variant."""
    names = list(next(iter(groups.values()), {}))
    height = TOP + len(groups) * (len(names) * THICK + GAP) + GAP
    parts = [_text(10, 20, title), *_legend(names), *_groups(groups)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}"'
        f' height="{height}" font-family="sans-serif" font-size="11">\n'
        + '<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _legend(names: list[str]) -> Iterator[str]:
    for index, name in enumerate(names):
        yield _bar(10 + index * 110, 30, 10, index)
        yield _text(24 + index * 110, 39, name)


def _groups(groups: dict[str, dict[str, float]]) -> Iterator[str]:
    longest = max((max(each.values()) for each in groups.values()), default=1.0)
    y = TOP
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
