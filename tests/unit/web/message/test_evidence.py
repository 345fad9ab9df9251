"""What the page of a message says of proof, of DKIM, and of how long it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from postfix_archive.errors import AccessRefused
from postfix_archive.seal import sealing
from postfix_archive.web.message import evidence
from postfix_archive.web.message.evidence import Signature
from postfix_archive.web.message.reader import Field
from postfix_archive.web.visible.archives import VisibleArchives
from postfix_archive.web.visible.message import VisibleMessage

from sample_store import LEGAL
from web_site import AUDITOR, BOB, WebSite

ORIGINAL = b"To: bob@example.net\r\nSubject: x\r\n\r\nx\r\n"
SIGNED = Field("DKIM-Signature", "v=1; a=rsa-sha256; d=Example.org; s=s1; b=d=x")


class Case:
    """A site with one message, which is read anew each time."""

    def __init__(self, directory: Path) -> None:
        self.site = WebSite(directory)
        self.id = self.site.store.add(ORIGINAL)
        self.site.index()

    @property
    def message(self) -> VisibleMessage:
        view = VisibleArchives(self.site.store.settings, AUDITOR)
        return view.message(LEGAL, self.id)

    @property
    def journal(self) -> Path:
        return self.site.store.path / LEGAL / "journal" / "2026-11"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_first_seal_that_covers_the_line(case: Case) -> None:
    assert evidence.evidence(case.message).seal is None
    for _ in range(3):
        sealing.run(case.site.store.settings, print)
        case.site.store.add(ORIGINAL)
    found = evidence.evidence(case.message)
    assert found.seal and (found.seal.number, found.matches_seal) == (1, True)
    assert found.place and found.place.segment == "2026-11"
    assert found.problems == []


def test_journal_without_the_sealed_line(case: Case) -> None:
    sealing.run(case.site.store.settings, print)
    content = case.journal.read_bytes()
    case.journal.write_bytes(
        content.replace(b'"event":"archived"', b'"event":"Archived"')
    )
    message = VisibleMessage(
        case.site.store.settings, AUDITOR, case.message.record, (0,)
    )
    assert not evidence.evidence(message).matches_seal


def test_damaged_seals_are_passed_over(case: Case) -> None:
    for _ in range(3):
        sealing.run(case.site.store.settings, print)
        case.site.store.add(ORIGINAL)
    first = min((case.site.store.path / "seals").glob("*.json"))
    first.chmod(0o600)
    first.write_bytes(b"no seal")
    seal = evidence.evidence(case.message).seal
    assert seal and seal.number == 2


def test_proof_is_for_auditors(case: Case) -> None:
    message = VisibleArchives(case.site.store.settings, BOB).message(LEGAL, case.id)
    with pytest.raises(AccessRefused):
        evidence.evidence(message)
    with pytest.raises(AccessRefused):
        evidence.keeping(message)


def test_last_verify(case: Case) -> None:
    assert evidence.evidence(case.message).last_verify is None
    case.site.store.run("verify")
    found = evidence.evidence(case.message).last_verify
    assert found and found.errors == 0


def test_holds_and_retention(case: Case) -> None:
    store = case.site.store
    before = evidence.keeping(case.message)
    assert (before.hold_names, before.is_noted) == ((), False)
    store.note_retention(case.id)
    store.run("hold", "add", "smith", "--query", "subject:x", "--reason", "case")
    store.run("index", "--once")
    found = evidence.keeping(case.message)
    assert found.hold_names == ("smith",)
    assert found.is_noted and found.decision and found.decision.period == "1d"
    page = case.site.log_in("anna").get(f"/message/{LEGAL}/{case.id}").text
    assert "smith" in page and "archive_retention" in page
    own = case.site.log_in("bob").get(f"/message/{LEGAL}/{case.id}").text
    assert "smith" not in own and "archive_retention" not in own


@pytest.mark.parametrize(
    ("results", "result"),
    [
        ("mail.example.com; dkim=pass header.d=example.org header.s=s1", "pass"),
        ("mail.example.com 1; spf=fail; DKIM=fail header.i=@example.org", "fail"),
        ("Mail.Example.com; dkim=pass reason=x header.d=EXAMPLE.ORG", "pass"),
        ("mx.evil.example; dkim=pass header.d=example.org", ""),
        ("mail.example.com.evil.example; dkim=pass header.d=example.org", ""),
        ("mail.example.com; dkim=pass header.d=other.example", ""),
        ("", ""),
    ],
)
def test_result_of_dkim_is_that_of_this_host(results: str, result: str) -> None:
    fields = [Field("Authentication-Results", results), SIGNED]
    found = evidence.signatures(fields, "mail.example.com")
    assert found == [Signature("example.org", "s1", result)]
