"""Finds what could run, load or send something in the HTML of a page, for tests.

Reads it as browsers do, by Lexbor, and knows no tag to be harmless that is not named.
"""

from __future__ import annotations

from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

TEXT_TAGS = frozenset(
    "a abbr address article aside b bdi big blockquote body br caption center cite code"
    " col colgroup dd del details dfn div dl dt em figcaption figure font footer h1 h2"
    " h3 h4 h5 h6 head header hr html i img ins kbd li main mark meta nav ol p pre q rp"
    " rt ruby s samp section small span strike strong sub summary sup table tbody td"
    " tfoot th thead time title tr tt u ul var wbr".split()
)
# Of our own pages only; each may have these attributes and no others.
PAGE_TAGS = {
    "button": {"class"},
    "dialog": {"id", "aria-labelledby"},
    "form": {"action", "class", "method"},
    "iframe": {"class", "loading", "sandbox", "src", "title"},
    "input": {"name", "type", "value"},
    "link": {"href", "media", "rel"},
    "script": {"defer", "src"},
    "style": set[str](),
}
URLS = ("action", "href", "src")
SAFE_URLS = ("/", "#", "http:", "https:", "mailto:", "tel:", "data:,")


def problems(html: str, *, is_page: bool) -> list[str]:
    """Return what is active in HTML: of a message, or in a page of ours."""
    root = LexborHTMLParser(html).root
    assert root is not None
    return [
        f"{problem}: {(node.html or '')[:200]}"
        for node in root.traverse()
        for problem in _problems(node, is_page=is_page)
    ]


def _problems(node: LexborNode, *, is_page: bool) -> Iterator[str]:
    tag = node.tag or ""
    allowed = PAGE_TAGS.get(tag) if is_page else None
    if tag not in TEXT_TAGS and allowed is None:
        yield f"tag {tag}"
    for name, text in node.attributes.items():
        value = (text or "").strip()
        if name.startswith("on") or name in ("srcdoc", "formaction", "http-equiv"):
            yield f"attribute {name}"
        if allowed is not None and name not in allowed:
            yield f"attribute {name} of {tag}"
        if name == "style" and (is_page or not _is_safe_style(value)):
            yield f"style {value}"
        is_picture = tag == "img" and value.startswith("data:image/png;base64,")
        if name in URLS and not (value.startswith(SAFE_URLS) or is_picture):
            yield f"URL {value}"
        if (tag, name) == ("img", "src") and not is_picture:
            yield f"loads {value}"
        if tag in ("script", "link", "iframe") and name in URLS:
            if not value.startswith(("/static/", "/message/", "data:,")):
                yield f"loads {value}"


def _is_safe_style(value: str) -> bool:
    lower = value.lower()
    unsafe = ("url", "expression", "position", "behavior", "binding", "\\", "@")
    return not any(each in lower for each in unsafe)
