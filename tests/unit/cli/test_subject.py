"""Claims about subjects on the screen: whatever a sender wrote, it can be shown."""

from __future__ import annotations

import chardet
import pytest

from postfix_archive.cli import record_view


def shown(subject: bytes) -> str:
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
    assert shown(subject) == text


@pytest.mark.parametrize("charset", ["EUC-TW", "X-ISO-10646-UCS-4-3412", None])
def test_a_charset_that_chardet_knows_and_python_does_not_is_no_harm(
    monkeypatch: pytest.MonkeyPatch, charset: str | None
) -> None:
    monkeypatch.setattr(chardet, "detect", lambda raw: {"encoding": charset})
    assert shown(b"deal \xc4\xe3") == "deal \ufffd\ufffd"


def test_a_long_subject_is_cut_before_it_takes_long() -> None:
    assert len(shown(b"=?a?q?" * 10_000)) < 1000
