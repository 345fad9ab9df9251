"""Postfix's configuration as a value: entries, options, what $names expand to."""

from __future__ import annotations

import re
import subprocess

import pytest

from postfix_archive.postfix import configuration, lookup_tables, main_cf
from postfix_archive.postfix.configuration import Configuration

LISTING = """\
smtp       inet  n       -       y       -       -       smtpd
submission inet n - n - - smtpd -o syslog_name=postfix/submission -o { a = b c }
archive-stamp unix - n n - 10 pipe flags=q argv=/x/y --sender {${sender}} -- { a b }
"""


def make_config(main: dict[str, str], listing: str = LISTING) -> Configuration:
    defaults = {"mail_version": "3.7.11", "relayhost": ""}
    return Configuration(
        "/etc/postfix", main, defaults, configuration.parse_services(listing)
    )


def test_an_entry_has_its_fields_its_options_and_its_command() -> None:
    smtp, submission, stamp = make_config({}).services
    assert smtp.key == "smtp/inet" and smtp.program == "smtpd"
    assert submission.options == {"syslog_name": "postfix/submission", "a": "b c"}
    assert stamp.fields == ("-", "n", "n", "-", "10")
    assert stamp.command == "pipe flags=q argv=/x/y --sender ${sender} -- { a b }"


def test_the_version_is_two_numbers() -> None:
    assert make_config({}).version == (3, 7)


def test_a_service_sees_its_own_option_first() -> None:
    config = make_config({"a": "main", "b": "$a"})
    submission = config.service("submission/inet")
    assert config.value("b") == "main"
    assert config.value("b", submission) == "b c"


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
    config = make_config(
        {"archive": archive, "other": "next:[127.0.0.1]:10024", "loop": "$loop"}
    )
    assert config.expand(text) == expanded


def test_a_list_is_parted_outside_of_braces() -> None:
    text = "inline:{a=b, c=d}, hash:/x  pcre:/y"
    assert configuration.split_list(text) == ["inline:{a=b, c=d}", "hash:/x", "pcre:/y"]


def test_names_that_refer_to_each_other_stay_and_take_no_time() -> None:
    cyclic = {"archive": "${archive?{a:$archive}}", "x": "$y$y", "y": "$x$x$archive"}
    for name, text in cyclic.items():
        assert make_config(cyclic).value(name) == text


def test_names_that_double_each_other_stay_and_take_no_time() -> None:
    main = {f"a{n}": f"$a{n + 1}$a{n + 1}" for n in range(60)}
    assert make_config({**main, "a60": ""}).value("a0") == ""
    assert make_config({**main, "a60": "x"}).value("a0") == "$a1$a1"


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000, "", "-", "x", "\u0665d"])
def test_what_is_no_number_is_none(number: str) -> None:
    config = Configuration("/etc/postfix", {"a": number}, {"mail_version": number}, ())
    assert config.seconds("a") is None
    assert config.version == (0, 0)


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("maximal_queue_lifetime", "5", 5 * 86400),
        ("maximal_queue_lifetime", "5s", 5),
        ("maximal_queue_lifetime", "$bounce_queue_lifetime", 86400),
        ("bounce_queue_lifetime", "2w", 2 * 7 * 86400),
        ("delay_warning_time", "4", 4 * 3600),
        ("queue_run_delay", "300", 300),
        ("archive-stamp_time_limit", "1000", 1000),
        ("default_process_limit", "100", 100),
    ],
)
def test_a_number_has_the_unit_of_its_parameter(
    name: str, value: str, seconds: int
) -> None:
    main = {"bounce_queue_lifetime": "1", name: value}
    assert make_config(main).seconds(name) == seconds


@pytest.mark.parametrize("name", ["maximal_queue_lifetime", "bounce_queue_lifetime"])
@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("0d", 0), ("1h", 3600), ("x", 5 * 86400)]
)
def test_a_queue_lifetime_of_zero_is_one(name: str, value: str, seconds: int) -> None:
    assert make_config({name: value}).queue_lifetime(name) == seconds


def test_the_units_are_those_of_postfix() -> None:
    """postconf(5): the default time unit is that of the default value."""
    listing = subprocess.run(
        ["postconf", "-d"], capture_output=True, text=True, check=True
    ).stdout
    defaults = configuration.parse_parameters(listing)
    pattern = re.compile(r"(?:\$\{stress\?\{[^}]*\}:\{)?\d+([smhdw])\}*")
    units = {
        name: match.group(1)
        for name, value in defaults.items()
        if (match := pattern.fullmatch(value))
    }
    assert {*units.values()} >= {"s", "h", "d"}
    for name, unit in units.items():
        assert main_cf.DEFAULT_UNITS.get(name, "s") == unit, name
    known = {*main_cf.DEFAULT_UNITS} & {*defaults}
    assert known <= {*units, "postscreen_dnsbl_max_ttl"}


def test_an_entry_of_one_field_is_no_service() -> None:
    assert configuration.parse_services("smtp\n{ a\n\n") == ()


def test_proxies_of_proxies_are_looked_through() -> None:
    config = make_config({"x": "proxy:" * 5000 + "hash:/y"})
    assert [each.table for each in lookup_tables.in_parameter(config, "x")] == [
        "hash:/y"
    ]
