"""Claims about subjects on the screen: whatever a sender wrote, it can be shown."""

from __future__ import annotations

import base64

import chardet
import pytest

from postfix_archive.cli import record_view


def displayed(subject: bytes) -> str:
    return record_view.subject(b"Subject: " + subject + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (b"=?utf-8?B?R3LDvMOfZQ==?=", "Grüße"),
        ("Grüße".encode(), "Grüße"),
        (b"", "(no subject)"),
        # One character of base64 stands for nothing: email raises an error of its own.
        (b"=?utf-8?B?a?=", "=?utf-8?B?a?="),
        (b"=?hex?Q?zz?=", "=?hex?Q?zz?="),
        (b"=?x-no-such?Q?zz?=", "=?x-no-such?Q?zz?="),
        (b"=?utf-16?B?AA==?=", "=?utf-16?B?AA==?="),
    ],
)
def test_a_subject_is_shown_decoded_or_else_as_it_stands(
    subject: bytes, text: str
) -> None:
    assert displayed(subject) == text


@pytest.mark.parametrize(
    "text",
    [
        "Семья \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "日本\u3000語",
        "می\u200cخواهم",
    ],
)
def test_joiners_and_wide_spaces_are_shown(text: str) -> None:
    word = b"=?utf-8?B?%s?=" % base64.b64encode(text.encode())
    assert displayed(word) == displayed(text.encode()) == text


@pytest.mark.parametrize("charset", ["koi8-r", "iso-2022-jp", "gbk", "euc-kr"])
def test_a_subject_without_a_charset_is_read_by_its_bytes(charset: str) -> None:
    texts = {
        "koi8-r": "Привет из Москвы, это письмо для архива",
        "iso-2022-jp": "日本語の件名",
        "gbk": "朱镕基与陶喆的合同，请尽快签字并寄回给我们的办公室，谢谢您的合作",
        "euc-kr": "안녕하세요 계약서를 보내드립니다 확인 부탁드립니다",
    }
    assert displayed(texts[charset].encode(charset)) == texts[charset]


def test_no_encoded_word_moves_the_cursor() -> None:
    assert (
        displayed(b"=?utf-8?Q?a=1B[2Jb=0D=0Ac=E2=80=AEd?=") == "a\\x1B[2Jb\\x0D\\x0Ac?d"
    )


def test_a_list_cuts_a_subject_to_its_columns() -> None:
    head = b"Subject: " + "合同".encode() * 100 + b"\r\n\r\n"
    assert record_view.subject(head, 21) == "合同" * 5 + "\u2026"


@pytest.mark.parametrize("charset", ["EUC-TW", "X-ISO-10646-UCS-4-3412", None])
def test_a_charset_that_chardet_knows_and_python_does_not_is_no_harm(
    monkeypatch: pytest.MonkeyPatch, charset: str | None
) -> None:
    monkeypatch.setattr(chardet, "detect", lambda raw: {"encoding": charset})
    assert displayed(b"deal \xc4\xe3") == "deal \ufffd\ufffd"


def test_a_long_subject_is_cut_before_it_takes_long() -> None:
    assert len(displayed(b"=?a?q?" * 10_000)) < 1000
