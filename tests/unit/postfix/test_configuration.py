"""Postfix's configuration as a value: entries, options, what $names expand to."""

from __future__ import annotations

import pytest

from postfix_archive.postfix import configuration, lookup_tables
from postfix_archive.postfix.configuration import Configuration

LISTING = """\
smtp       inet  n       -       y       -       -       smtpd
submission inet n - n - - smtpd -o syslog_name=postfix/submission -o { a = b c }
archive-stamp unix - n n - 10 pipe flags=q argv=/x/y --sender {${sender}} -- { a b }
"""


def of(main: dict[str, str], listing: str = LISTING) -> Configuration:
    known = {"mail_version": "3.7.11", "relayhost": ""}
    return Configuration(
        "/etc/postfix", main, known, configuration.parse_services(listing)
    )


def test_an_entry_has_its_fields_its_options_and_its_command() -> None:
    smtp, submission, stamp = of({}).services
    assert smtp.key == "smtp/inet" and smtp.program == "smtpd"
    assert submission.options == {"syslog_name": "postfix/submission", "a": "b c"}
    assert stamp.fields == ("-", "n", "n", "-", "10")
    assert stamp.command == "pipe flags=q argv=/x/y --sender ${sender} -- { a b }"


def test_the_version_is_two_numbers() -> None:
    assert of({}).version == (3, 7)


def test_a_service_sees_its_own_option_first() -> None:
    found = of({"a": "main", "b": "$a"})
    submission = found.service("submission/inet")
    assert found.value("b") == "main"
    assert found.value("b", submission) == "b c"


@pytest.mark.parametrize(
    ("text", "archive", "expanded"),
    [
        ("${archive?{stamp:$archive}}", "a@x", "stamp:a@x"),
        ("${archive?{stamp:$archive}}", "", ""),
        ("${archive?{stamp:$archive}:{$other}}", "", "next:[127.0.0.1]:10024"),
        ("${archive:none}", "", "none"),
        ("${archive?stamp}", "a@x", "stamp"),
        ("$(archive) and $$archive", "a@x", "a@x and $archive"),
        ("${{$archive} == {a@x} ? {yes} : {no}}", "a@x", "yes"),
        ("${{$archive} != {a@x} ? {yes} : {no}}", "a@x", "no"),
        ("${archive?{${other?{both}}}}", "a@x", "both"),
        ("$loop", "a@x", "$loop"),
    ],
)
def test_names_expand_as_postconf_says(text: str, archive: str, expanded: str) -> None:
    found = of({"archive": archive, "other": "next:[127.0.0.1]:10024", "loop": "$loop"})
    assert found.expand(text) == expanded


def test_a_list_is_parted_outside_of_braces() -> None:
    text = "inline:{a=b, c=d}, hash:/x  pcre:/y"
    assert configuration.split_list(text) == ["inline:{a=b, c=d}", "hash:/x", "pcre:/y"]


def test_names_that_refer_to_each_other_stay_and_take_no_time() -> None:
    ring = {"archive": "${archive?{a:$archive}}", "x": "$y$y", "y": "$x$x$archive"}
    for name, text in ring.items():
        assert of(ring).value(name) == text


def test_names_that_double_each_other_stay_and_take_no_time() -> None:
    main = {f"a{n}": f"$a{n + 1}$a{n + 1}" for n in range(60)}
    assert of({**main, "a60": ""}).value("a0") == ""
    assert of({**main, "a60": "x"}).value("a0") == "$a1$a1"


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000, "", "-", "x", "\u0665d"])
def test_what_is_no_number_is_none(number: str) -> None:
    found = Configuration("/etc/postfix", {"a": number}, {"mail_version": number}, ())
    assert found.seconds("a") is None
    assert found.version == (0, 0)


def test_an_entry_of_one_word_is_no_service() -> None:
    assert configuration.parse_services("smtp\n{ a\n\n") == ()


def test_proxies_of_proxies_are_looked_through() -> None:
    found = of({"x": "proxy:" * 5000 + "hash:/y"})
    assert [each.table for each in lookup_tables.in_parameter(found, "x")] == [
        "hash:/y"
    ]
