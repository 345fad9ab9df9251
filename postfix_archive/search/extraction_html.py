"""The text and the links of an HTML part, by selectolax.

Used by extraction. Raises what selectolax raises, and ImportError where it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postfix_archive.search import charset
from postfix_archive.search.extraction_limits import HTML_LIMIT

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

MEDIA_TYPES = ("text/html", "application/xhtml+xml")
# These end a word; all other elements are inside lines.
BLOCKS = frozenset(
    "address article aside blockquote body br center dd div dl dt fieldset figcaption"
    " figure footer form h1 h2 h3 h4 h5 h6 head header hr html iframe img input li main"
    " nav ol option p pre section select table tbody td textarea tfoot th thead title"
    " tr ul".split()
)
WITHOUT_TEXT = ["script", "style", "template"]
TEXT_NODE = "-text"
META_SIZE = 1 << 12  # bytes at the start that can declare the charset
META_CHARSET = re.compile(rb"""<meta\b[^>]*\bcharset\s*=\s*["']?([\w.:-]+)""", re.I)
# Query and fragment (RFC 3986 3) name a reader or a mailing, with other words in each
# message; host and path are what people remember.
LINK_END = re.compile("[?#]")
LINK_LIMIT = 200  # characters
SOURCE_LIMIT = 4 * HTML_LIMIT  # bytes that have as many characters
WITHIN_MESSAGE = ("#", "cid:", "data:", "javascript:", "mid:")
TAG = re.compile(r"<[^<>]*>")


def source(content: bytes, declared: str) -> str:
    """Return the HTML itself as text, at most HTML_LIMIT characters of it."""
    if not declared and (match := META_CHARSET.search(content[:META_SIZE])):
        declared = match[1].decode("ascii", "replace")
    if declared.lower().startswith("utf-16") and content[:1] == b"<":
        declared = ""  # it was in UTF-16 once
    return charset.decode(content[:SOURCE_LIMIT], declared)[:HTML_LIMIT]


def text_and_links(html: str) -> tuple[str, str]:
    """Return the text, and the targets of links that are no word of it.

    The text has that of title and alt attributes, and no scripts.
    """
    # Not needed for most messages, and not there in every installation.
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    tree.strip_tags(WITHOUT_TEXT)
    texts = []
    if tree.root is None:
        return "", ""
    for node in tree.root.traverse(include_text=True):
        tag = node.tag
        if tag in BLOCKS or _follows_block(node):
            texts.append("\n")
        if tag == TEXT_NODE:
            texts.append(node.text_content or "")
    for node in tree.css("[alt],[title]"):
        attributes = node.attributes
        texts += ["\n", attributes.get("alt") or "", " ", attributes.get("title") or ""]
    lines = map(str.strip, "".join(texts).split("\n"))
    text = "\n".join(filter(None, lines))
    nodes = tree.css("[href]")
    targets = [(each.attributes.get("href") or "").strip() for each in nodes]
    return text, "\n".join(_links(targets, {*text.split()})) if targets else ""


def _follows_block(node: LexborNode) -> bool:
    previous = node.prev
    return previous is not None and previous.tag in BLOCKS


def _links(targets: list[str], words: set[str]) -> Iterator[str]:
    """Yield each target once, without those within the message (RFC 2392)."""
    for target in targets:
        link = LINK_END.split(target, 1)[0][:LINK_LIMIT]
        if words.isdisjoint((target, link)) and not target.startswith(WITHIN_MESSAGE):
            words.add(link)
            yield link


def text_between_tags(html: str) -> str:
    """Return what is between tags, scripts included: in linear time, by no parser."""
    from html import unescape  # takes 2 ms, and is seldom needed

    return unescape(TAG.sub(" ", html))
