"""Makes HTML of a message safe to show: text and layout stay, all else goes.

By nh3, with a list of what is allowed. Nothing is loaded from other hosts; what would
have been is counted. Each link shows where it leads. Pictures of the message itself
become part of the page (``data:``), since the frame that shows it has no cookie to ask
for them. Run by html_process in a process of its own, since no parser of HTML is quick
for every input. Used by files_page, in a frame without scripts.
"""

from __future__ import annotations

import base64
import html as entities
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import nh3

from postfix_archive.message.printable import safe_text
from postfix_archive.web.message import safe_images
from postfix_archive.web.message.safe_images import ImageRefused

HTML_LIMIT = 1_000_000  # characters that are shown
TAGS = frozenset(
    "a abbr address article aside b bdi big blockquote body br caption center cite"
    " code col colgroup dd del details dfn div dl dt em figcaption figure font footer"
    " h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark ol p pre q rp rt ruby s"
    " samp section small span strike strong sub summary sup table tbody td tfoot th"
    " thead time tr tt u ul var wbr".split()
)
WITHOUT_CONTENT = frozenset(
    "applet audio canvas embed frame frameset head iframe math noembed noframes"
    " noscript object script select style svg template textarea title video xmp".split()
)
SHARED_ATTRIBUTES = frozenset(
    "align bgcolor border cellpadding cellspacing color colspan dir face height lang"
    " nowrap rowspan size start style title type valign width".split()
)
# Remote addresses in these are counted; their values never stay.
LOADING = frozenset({"background", "poster", "srcset", "data", "lowsrc", "dynsrc"})
# Nothing that hides where a link leads.
STYLES = frozenset(
    "background-color border border-bottom border-collapse border-color border-left"
    " border-radius border-right border-spacing border-style border-top border-width"
    " color direction font font-family font-size font-style font-weight height"
    " line-height list-style-type margin margin-bottom margin-left"
    " margin-right margin-top max-width min-width padding padding-bottom padding-left"
    " padding-right padding-top text-align text-decoration text-transform"
    " vertical-align white-space width word-break".split()
)
LINK_SCHEMES = ("http", "https", "mailto", "tel")
# Negative lengths and functions other than colours move text over or off the page.
UNSAFE_STYLE = re.compile(
    r"[\\@<]|url|image|expression|javascript|binding|/\*|(?<!\w)-\s*[\d.]"
    r"|(?<!\brgb)(?<!\brgba)(?<!\bhsl)(?<!\bhsla)\(",
    re.I,
)
REMOTE = re.compile(r"\s*(?:https?:)?[/\\]{2}([^/\\?#\s\"'<>,)]{1,255})", re.I)
# In style sheets and <link>, which are not read otherwise.
STYLE_REMOTE = re.compile(
    r"""(?:\burl\(\s{0,20}["']?|@import\s{1,20}["']"""
    r"""|<link\b[^>]{0,500}?\bhref\s?=\s?["']?)((?:https?:)?//[^\s"'<>)]{1,255})""",
    re.I,
)
# Characters that reorder what follows (UAX 9): a link must not read otherwise.
REORDERING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")
IMAGE_COUNT_LIMIT = 50
IMAGE_BYTES_LIMIT = 10 << 20  # of all pictures in a page, as they came
SHOWN_LIMIT = 2 * IMAGE_BYTES_LIMIT  # characters of them in the page, at each use
DATA_IMAGE = re.compile(r"data:image/[a-z.+-]{1,40};base64,", re.I)
# A tag as nh3 writes it: a ``"`` in a value is an entity.
ANCHOR = re.compile(r'<(/?)a((?: [a-z-]+="[^"]*")*)>')
WEB_SCHEME = re.compile(r"\s*(https?):[/\\\s]*", re.I)
HREF = re.compile(r' href="([^"]*)"')
TAG = re.compile(r'<(?:[^<>"]|"[^"]*")*>')
HOST = re.compile(r"(?:[\w-]+\.)+[^\W\d_][\w-]+")
TEXT_LIMIT = 2000  # characters of a link's text that are compared


class SafeHtml(NamedTuple):
    """HTML that is safe to show, and what of the message it lacks.

    ``remote`` are the hosts whose pictures or styles were not loaded, with the number
    of each; ``refused`` is the number of pictures in the message that are not shown.
    """

    html: str
    remote: dict[str, int]
    refused: int
    is_cut: bool


def clean(
    source: str, image_of: Callable[[str], bytes | None], leads_to: str
) -> SafeHtml:
    """Return the HTML of a message made safe.

    image_of returns the content of the part with a Content-ID, None if there is none.
    leads_to marks links whose text says another host than they lead to.
    """
    cleaning = _Cleaning(image_of)
    is_cut = len(source) > HTML_LIMIT
    source = source[:HTML_LIMIT].translate(REORDERING)
    cleaning.count_styles(source)
    result = nh3.clean(
        source,
        tags=set(TAGS),
        clean_content_tags=set(WITHOUT_CONTENT),
        attributes={
            "*": set(SHARED_ATTRIBUTES | LOADING),
            "a": {"href"},
            "img": {"alt", "src"},
        },
        attribute_filter=cleaning.attribute,
        url_schemes={*LINK_SCHEMES, "cid", "data"},
        url_relative="pass_through",  # attribute() drops and counts them
        filter_style_properties=set(STYLES),
        set_tag_attribute_values={"a": {"target": "_blank"}},
        link_rel="noreferrer noopener",
    )
    return SafeHtml(
        _with_targets(result, leads_to),
        dict(cleaning.remote),
        cleaning.refused,
        is_cut,
    )


class _Cleaning:
    """What is counted and embedded while one document is cleaned."""

    def __init__(self, image_of: Callable[[str], bytes | None]) -> None:
        self.remote: Counter[str] = Counter()
        self.refused = 0
        self._image_of = image_of
        self._images: dict[str, str | None] = {}
        self._remaining = IMAGE_BYTES_LIMIT
        self._shown = 0

    def count_styles(self, source: str) -> None:
        """Count what style sheets would load, style attributes included."""
        for match in STYLE_REMOTE.finditer(source):
            self._count(match[1])

    def attribute(self, tag: str, name: str, value: str) -> str | None:
        """Return what an attribute becomes, None to leave it out."""
        if name == "src" and tag == "img":
            return self._source(value)
        if name in LOADING:
            for each in value.split(",")[:IMAGE_COUNT_LIMIT]:
                self._count(each)
            return None
        if name == "href":
            return with_slashes(value) if _scheme(value) in LINK_SCHEMES else None
        if name == "style" and UNSAFE_STYLE.search(value):
            safe = (e for e in value.split(";") if not UNSAFE_STYLE.search(e))
            return ";".join(safe) or None
        return value

    def _count(self, url: str) -> None:
        match = REMOTE.match(url)
        if match:
            host = match[1].rpartition("@")[2].lower()
            self.remote[safe_text(host)] += 1

    def _source(self, value: str) -> str | None:
        """Return a picture as data:, None if it is remote or not shown."""
        self._count(value)
        if value not in self._images:
            is_full = len(self._images) >= IMAGE_COUNT_LIMIT
            self._images[value] = None if is_full else self._embedded(value)
        found = self._images[value]
        self._shown += len(found or "")
        if self._shown > SHOWN_LIMIT:
            self.refused += bool(found)
            return None
        return found

    def _embedded(self, value: str) -> str | None:
        content = self._content(value.strip())
        if content is None:
            return None
        try:
            self._remaining -= len(content)
            if self._remaining < 0:
                raise ImageRefused("too many large pictures")
            image = safe_images.encode(content)
        except ImageRefused:
            self.refused += 1
            return None
        encoded = base64.b64encode(image).decode("ascii")
        return f"data:{safe_images.MEDIA_TYPE};base64,{encoded}"

    def _content(self, value: str) -> bytes | None:
        """Return the bytes of a picture in the message, None for all else."""
        if _scheme(value) == "cid":
            return self._image_of(unquote(value.partition(":")[2]))
        match = DATA_IMAGE.match(value)
        if match is None or len(value) > 2 * safe_images.CONTENT_LIMIT:
            return None
        try:
            return base64.b64decode(unquote(value[match.end() :]), validate=False)
        except ValueError:
            return None


def _scheme(url: str) -> str:
    return url.strip().partition(":")[0].lower()


def _with_targets(html: str, leads_to: str) -> str:
    """Write behind each link where it leads, marked if its text says another host."""
    pieces: list[str] = []
    open_links: list[tuple[str, int]] = []  # target, and where its text begins
    position = 0
    for tag in TAG.finditer(html):
        match = ANCHOR.fullmatch(html, *tag.span())
        if not match:
            continue
        pieces.append(html[position : match.end()])
        position = match.end()
        if not match[1]:
            target = HREF.search(match[2])
            url = entities.unescape(target[1]) if target else ""
            open_links.append((url, position))
        elif open_links:
            url, start = open_links.pop()
            text = html[start : min(match.start(), start + TEXT_LIMIT)]
            pieces.append(_target(url, entities.unescape(TAG.sub("", text)), leads_to))
    pieces.append(html[position:])
    return "".join(pieces)


def _target(url: str, text: str, leads_to: str) -> str:
    """Return what is written behind a link, "" for one that leads nowhere."""
    host = target_of(url)
    if not host:
        return ""
    named = {each.lower().removeprefix("www.") for each in HOST.findall(text)}
    own = host.rpartition("@")[2].removeprefix("www.")
    shown = entities.escape(safe_text(host))
    if named - {own}:
        label = entities.escape(leads_to)
        return f' <strong class="target">[⚠ {label} <bdi>{shown}</bdi>]</strong>'
    return f' <span class="target">[<bdi>{shown}</bdi>]</span>'


def with_slashes(url: str) -> str:
    """Return a link with two slashes before its host, as browsers read it.

    They take ``http:host``, ``http:/host`` and ``http:///host`` (WHATWG URL 4.4).
    """
    match = WEB_SCHEME.match(url)
    return f"{match[1]}://{url[match.end() :]}" if match else url


def target_of(url: str) -> str:
    """Return the host of a link, or the address or number; "" if there is none."""
    scheme = _scheme(url)
    if scheme in ("mailto", "tel"):
        return unquote(url.partition(":")[2].partition("?")[0])[:255].lower()
    try:
        parts = urlsplit(with_slashes(url).strip().replace("\\", "/"))
        return (parts.hostname or "")[:255]
    except ValueError:
        return url[:255]
