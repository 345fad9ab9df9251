"""The page of make bench-web: what it says about a bar that is met or missed."""

from __future__ import annotations

import web_figures

RUN = {
    "seconds": 10.0,
    "cpu": 1.0,
    "memory": (300_000, 20_000),
    "times": {"search": [100.0] * 90 + [400.0] * 10, "message": [100.0] * 100},
}
RESULT = {
    "date": "2026-11-30",
    "version": "0.1.0",
    "commit": "x",
    "cores": 2,
    "python": "3.11.2",
    "kernel": "6",
    "load_before": 0.5,
    "load_after": 2.0,
    "indexed": 1_000_000,
    "users": 10,
    "queries": 200,
    "pause": 1.0,
    "paced": RUN,
    "unpaced": RUN,
}


def test_bars() -> None:
    text = web_figures.render(web_figures.shorten(RESULT))
    assert (
        "| search, with pauses | 100 | 100 ms | 400 ms | 400 ms | 300 ms | **no** |"
        in (text)
    )
    assert (
        "| message, without pauses | 100 | 100 ms | 100 ms | 100 ms | 150 ms | yes |"
        in (text)
    )
    assert "300 MB, and 20 MB of its child | **no** |" in text
    assert "not measured" not in text
    assert "not measured" in web_figures.render(
        web_figures.shorten({**RESULT, "indexed": 10})
    )
