"""What each role may see, at the one place that gives mail to the pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from postfix_archive.errors import AccessRefused, QueryInvalid, RecordNotFound
from postfix_archive.web.visible.archives import VisibleArchives

from sample_store import LEGAL
from web_site import ADMIN, AUDITOR, BOB, WebSite

BLIND = b"carol@example.net"
MESSAGE = (
    b"From: alice@example.org\r\nTo: bob@example.net\r\nBcc: carol@example.net\r\n"
    b"X-Original-To: carol@example.net\r\nSubject: contract\r\n\r\nthe contract\r\n"
)


@pytest.fixture
def site(tmp_path: Path) -> WebSite:
    return WebSite(tmp_path)


def add(site: WebSite) -> tuple[str, str]:
    """Archive one message for Bob with Carol in Bcc, and one that is not his."""
    his = site.store.add(MESSAGE, recipients=(b"bob@example.net", BLIND))
    other = site.store.add(b"Subject: contract\r\n\r\nx\r\n", recipients=(BLIND,))
    site.index()
    return his, other


def test_own_mail(site: WebSite) -> None:
    his, other = add(site)
    view = VisibleArchives(site.store.settings, BOB)
    page = view.search("contract")
    assert [each.archive_id for each in page.hits] == [his]
    assert page.hits[0].recipient_count == 0
    assert view.count("contract") == 1
    message = view.message(LEGAL, his)
    assert b"carol" not in message.original
    with pytest.raises(AccessRefused):
        _ = message.record
    with pytest.raises(RecordNotFound) as error:
        view.message(LEGAL, other)
    missing = other[:-1] + ("0" if other[-1] != "0" else "1")
    with pytest.raises(RecordNotFound) as other_error:
        view.message(LEGAL, missing)
    assert str(error.value).replace(other, missing) == str(other_error.value)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("bcc:carol@example.net", 0),
        ("rcpt:carol@example.net", 0),
        ("rcpt:carol*", 0),
        ("contract AND NOT rcpt:carol@example.net", 1),
        ("rcpt:bob@example.net", 1),
        ("to:bob@example.net OR bcc:carol@example.net", 1),
        ("bcc:bob@example.net", 0),
        ("sender:carol@example.net", 0),
        ("sender:alice@example.org", 1),
        ("NOT sender:carol@example.net", 1),
        ("sender:<>", 0),
        ("*", 1),
    ],
)
def test_no_condition_tells_of_blind_recipients(
    site: WebSite, query: str, count: int
) -> None:
    add(site)
    assert VisibleArchives(site.store.settings, BOB).count(query) == count


@pytest.mark.parametrize(
    "query",
    [
        "sha256:00000000",
        "size:>1",
        "larger:1M",
        "outcome:failed",
        "login:carol",
        "client:192.0.2.7",
        "x OR has:problem",
    ],
)
def test_conditions_for_auditors(site: WebSite, query: str) -> None:
    add(site)
    with pytest.raises(QueryInvalid, match="for auditors"):
        VisibleArchives(site.store.settings, BOB).count(query)
    VisibleArchives(site.store.settings, AUDITOR).count(query)


def test_auditor_and_admin(site: WebSite) -> None:
    his, other = add(site)
    auditor = VisibleArchives(site.store.settings, AUDITOR)
    assert auditor.count("bcc:carol@example.net") == 2
    assert auditor.message(LEGAL, his).original == MESSAGE
    site.store.add(MESSAGE, archive="board@example.com")
    with pytest.raises(RecordNotFound):
        auditor.search("contract", archives=["board@example.com"])
    admin = VisibleArchives(site.store.settings, ADMIN)
    assert admin.names == []
    with pytest.raises(RecordNotFound):
        admin.message(LEGAL, other)


def test_accesses_and_refusals_are_recorded(site: WebSite) -> None:
    his, other = add(site)
    view = VisibleArchives(site.store.settings, BOB)
    view.search("contract")
    view.message(LEGAL, his)
    with pytest.raises(RecordNotFound):
        view.message(LEGAL, other)
    lines = site.store.run("history", "--json").output.splitlines()
    entries = [json.loads(each) for each in lines]
    assert {each["web_user"] for each in entries} == {"bob"}
    assert [(e["action"], e["query"], e.get("ids", [])) for e in entries] == [
        ("search", "contract", [his]),
        ("show", his, [his]),
        ("refused", f"message {other} of {LEGAL}", []),
    ]


def test_own_hits_tell_nothing_of_the_whole_message(site: WebSite) -> None:
    """Sender of a list with the recipient in it, exact size, SHA-256."""
    site.store.add(MESSAGE, sender=b"list-bounces+carol=example.net@example.org")
    site.index()
    [hit] = VisibleArchives(site.store.settings, BOB).search("*").hits
    assert (hit.sender, hit.sha256, hit.offsets) == ("", "", ())
    assert hit.size == 1024 > len(MESSAGE)
    [whole] = VisibleArchives(site.store.settings, AUDITOR).search("*").hits
    assert (whole.size, whole.sender[:4]) == (len(MESSAGE), "list")


def test_nobody_sees_all_of_no_archive(site: WebSite) -> None:
    """A store that is away has no archives now, and others when it is back."""
    for user in (BOB, AUDITOR):
        assert not VisibleArchives(site.store.settings, user).is_whole([])


def test_probing_and_counting_are_recorded(site: WebSite) -> None:
    _, other = add(site)
    view = VisibleArchives(site.store.settings, BOB)
    with pytest.raises(RecordNotFound):
        view.search("*", archives=["board@example.com"])
    with pytest.raises(RecordNotFound):
        view.search("*", after=f"{LEGAL}/{other}")
    assert view.recorded_count("contract") == 1
    lines = site.store.run("history", "--json").output.splitlines()
    entries = [(e["action"], e["query"]) for e in map(json.loads, lines)]
    assert entries == [
        ("refused", "archive board@example.com"),
        ("refused", f"message {other} of {LEGAL}"),
        ("count", "contract"),
    ]
