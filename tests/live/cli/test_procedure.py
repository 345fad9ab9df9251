"""The written procedure of a running instance, in both languages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from selectolax.lexbor import LexborHTMLParser

from postfix_archive.procedure.document import EVENT, LANGUAGES

from mails import LEGAL, mail
from private_postfix import MODES, NATIVE_MODES, PrivatePostfix

pytestmark = pytest.mark.live
FILTER = "smtp:[127.0.0.1]:10024"
REASON = "<script>alert(1)</script> & more"


@pytest.fixture(scope="module")
def host() -> Iterator[PrivatePostfix]:
    with PrivatePostfix() as postfix:
        postfix.send(mail("one"))
        postfix.wait_for_empty_queue()
        postfix.set_archive_cf(
            archive_retention=f"{LEGAL}=10y",
            archive_seal_file="/nowhere/seals",
            archive_web_user="nobody",
            archive_replay_to="auditor@example.net",
        )
        postfix.etc.joinpath("archive.retention").write_text("from:x@example.org 6y\n")
        for command in (
            ("bypass", "on", "--reason", REASON),
            ("bypass", "off"),
            ("index", "--once"),
            ("hold", "add", "smith", "--query", "*", "--reason", "a suit"),
            ("verify",),
        ):
            assert postfix.run_command(*command).returncode == 0
        yield postfix


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_what_is_set_up_and_its_hash_is_in_the_journal(
    host: PrivatePostfix, language: str
) -> None:
    process = host.run_command("procedure", "--language", language)
    assert process.returncode == 0, process.stderr
    page = LexborHTMLParser(process.stdout)
    assert page.css(f'html[lang="{language}"]')
    assert len(page.css("h2")) == 8
    cells = [cell.text(strip=True) for cell in page.css("td")]
    assert LEGAL in cells
    assert f"127.0.0.1:{host.ports[0]}/inet" in cells
    assert {"from:x@example.org", "6y", "10y", "smith", "a suit"} <= {*cells}
    decisions = "hold-add, hold-release, erase-request, erase-withdraw, replay; "
    [web_page] = [each for each in cells if decisions in each]
    assert "auditor@example.net" in web_page
    assert REASON in cells and not page.css("script")
    text = page.body.text() if page.body else ""
    assert str(host.store) in text and "/nowhere/seals" in text and "{" not in text
    status = json.loads(host.run_command("status", "--json").stdout)
    assert status["last_verify"]["errors"] == 0
    assert status["last_verify"]["time"] in text
    events = [e for e in host.events(LEGAL) if e["event"] == EVENT]
    assert events[-1]["sha256"] == hashlib.sha256(process.stdout.encode()).hexdigest()
    assert events[-1]["sha256"] in process.stderr
    assert events[-1]["language"] == language
    assert host.run_command("verify").returncode == 0


def test_both_languages_say_the_same(host: PrivatePostfix) -> None:
    shapes = []
    for language in LANGUAGES:
        page = LexborHTMLParser(
            host.run_command("procedure", "--language", language).stdout
        )
        shapes.append([node.tag for node in page.css("h1, h2, p, tr, th, td, code")])
    assert shapes[0] == shapes[1]


def test_without_a_journal_that_can_be_written_nothing_is_printed(
    host: PrivatePostfix,
) -> None:
    journal = host.store / LEGAL / "journal"
    away = journal.rename(journal.with_name("away"))
    try:
        process = host.run_command("procedure")
        assert process.returncode == 1 and process.stdout == ""
        assert (
            len(process.stderr.splitlines()) == 1 and str(host.store) in process.stderr
        )
    finally:
        away.rename(journal)


@pytest.mark.parametrize("mode", [*MODES, *NATIVE_MODES])
def test_the_sasl_login_is_named_where_it_is_recorded(mode: str) -> None:
    logins = {"en": "client, login)", "de": "SMTP-Client, SMTP-Anmeldung)"}
    with PrivatePostfix(mode=mode) as host:
        for language, login in logins.items():
            process = host.run_command("procedure", "--language", language)
            assert process.returncode == 0, process.stderr
            text = " ".join(process.stdout.split())
            assert login.partition(",")[0] in text
            assert (login in text) == (mode in ("pipe", "native-pipe"))


@pytest.mark.parametrize("mode", NATIVE_MODES)
def test_a_native_host_has_no_stamp_filter_in_its_procedure(mode: str) -> None:
    shapes = []
    with PrivatePostfix(mode=mode, main={"content_filter": FILTER}) as host:
        for language in LANGUAGES:
            process = host.run_command("procedure", "--language", language)
            assert process.returncode == 0, process.stderr
            page = LexborHTMLParser(process.stdout)
            text = page.body.text() if page.body else ""
            assert f"{mode} mode" in text or f"Betriebsart {mode})" in text
            assert "stamp\nfilter" not in text and "Stempelfilter" not in text
            assert "cleanup(8)" in text and f"({FILTER})" in text
            nodes = page.css("h1, h2, p, tr, th, td, code")
            shapes.append([node.tag for node in nodes])
    assert shapes[0] == shapes[1]
