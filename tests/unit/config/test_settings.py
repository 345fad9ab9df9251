"""Claims about archive.cf: its syntax, every setting, and what its errors say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.config import settings
from postfix_archive.errors import SettingInvalid

from unit.examples import make_settings

ARCHIVE_CF = "/etc/postfix/archive.cf"
PORT_SETTINGS = [name for name in settings.DEFAULTS if name.endswith("_address")]
PATH_SETTINGS = [
    "archive_key_file",
    "archive_spool_directory",
    "archive_store_directory",
]
BOTH_ADDRESSES = ("a@example.com", "b@example.com")
TIME_SETTINGS = ["archive_stamp_lifetime", "archive_time_limit"]
WAIT_SETTINGS = [
    "archive_wait_for_outcome",
    "archive_write_through_time_limit",
]  # or nothing


def refusal(text: str) -> str:
    with pytest.raises(SettingInvalid) as excinfo:
        make_settings(text)
    return str(excinfo.value)


def test_an_empty_file_means_all_defaults() -> None:
    parsed = make_settings()
    assert parsed.archive_handback_address == ("127.0.0.1", 10026)
    assert parsed.archive_capsule_address == ("127.0.0.1", 10027)
    assert parsed.archive_copy_address == ("127.0.0.1", 10028)
    assert parsed.archive_relay_address == ("127.0.0.1", 10029)
    assert parsed.archive_refused_address == ("127.0.0.1", 10030)
    assert parsed.archive_delivery == ("store", "mail")
    assert parsed.archive_from == b"postfix-archive@mail.example.com"
    assert parsed.archive_journal_recipients_per_copy == 0
    assert parsed.archive_key_file == "/etc/postfix/archive.key"
    assert parsed.archive_local_clients == ("127.0.0.0/8", "::1")
    assert parsed.archive_outcome_mail is False
    assert parsed.archive_report_format == "hybrid"
    assert parsed.archive_sender == b""
    assert parsed.archive_spool_directory == "/var/tmp"
    assert parsed.archive_stamp_lifetime == 5 * 86400
    assert parsed.archive_store_directory == "/var/lib/postfix-archive"
    assert parsed.archive_time_limit == 900
    assert parsed.archive_wait_for_outcome == 0
    assert parsed.archive_write_through_time_limit == 5
    assert parsed.has_write_through
    assert parsed.mail_owner == "postfix"
    assert parsed.myhostname == b"mail.example.com"
    assert parsed.config_directory == "/etc/postfix"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *((name, "127.0.0.2:25", ("127.0.0.2", 25)) for name in PORT_SETTINGS),
        *((name, "[::1]:65535", ("::1", 65535)) for name in PORT_SETTINGS),
        *((name, "/srv/mail archive", "/srv/mail archive") for name in PATH_SETTINGS),
        ("archive_delivery", "store", ("store",)),
        ("archive_delivery", "mail", ("mail",)),
        ("archive_delivery", "store,mail", ("store", "mail")),
        ("archive_delivery", "mail store", ("mail", "store")),
        ("archive_from", "archive@example.net", b"archive@example.net"),
        ("archive_journal_recipients_per_copy", "100", 100),
        ("archive_local_clients", "", ()),
        ("archive_local_clients", "192.0.2.1, 10.0.0.0/8", ("192.0.2.1", "10.0.0.0/8")),
        *(("archive_report_format", each, each) for each in settings.REPORT_FORMATS),
        ("archive_replay_to", "", ()),
        ("archive_replay_to", "a@example.com b@example.com", BOTH_ADDRESSES),
        ("archive_web_decisions", "", ()),
        ("archive_web_decisions", "hold-add,replay", ("hold-add", "replay")),
        ("archive_web_user", "archive-web", "archive-web"),
        ("archive_sender", "<>", b""),
        ("archive_sender", "", b""),
        ("archive_sender", "owner@example.com", b"owner@example.com"),
        ("archive_outcome_mail", "yes", True),
        ("archive_outcome_mail", "no", False),
        *((name, "7", 7) for name in TIME_SETTINGS),
        *((name, text, 0) for name in WAIT_SETTINGS for text in ("0", "0s", "0d")),
        *((name, "7m", 420) for name in WAIT_SETTINGS),
        *((name, "7s", 7) for name in TIME_SETTINGS),
        *((name, "7m", 420) for name in TIME_SETTINGS),
        *((name, "2h", 7200) for name in TIME_SETTINGS),
        *((name, "2D", 172800) for name in TIME_SETTINGS),
        *((name, "1w", 604800) for name in TIME_SETTINGS),
        ("mail_owner", "postmail", "postmail"),
        ("myhostname", "mx.example.net", b"mx.example.net"),
        ("config_directory", "/etc/postfix-out", "/etc/postfix-out"),
    ],
)
def test_an_allowed_value_is_taken(name: str, text: str, value: Any) -> None:
    assert getattr(make_settings(f"{name} = {text}\n"), name) == value


@pytest.mark.parametrize(
    "text",
    [
        "archive_write_through_time_limit = 0",
        "archive_delivery = mail",
        "archive_wait_for_outcome = 1h",
    ],
)
def test_copies_go_straight_into_the_store_unless_one_of_three_settings_forbids(
    text: str,
) -> None:
    assert make_settings("archive_delivery = store\n").has_write_through
    assert not make_settings(text + "\n").has_write_through


HUGE_NUMBER = "9" * 5000
WRONG_VALUES = [
    ("archive_replay_to", "a@example.com, everybody", "everybody must be an address"),
    ("archive_replay_to", "@example.com", "must be an address"),
    ("archive_web_decisions", "yes", "some of hold-add, hold-release, erase-request"),
    ("archive_web_decisions", "hold-add; replay", "must be empty, or some of"),
    ("archive_web_user", "1001", "must be the name of a user, or empty"),
    ("archive_web_user", "a:b", "must be the name of a user, or empty"),
    ("archive_reader_group", "1001", "must be the name of a group, or empty"),
    *(
        (name, text, "address:port")
        for name in PORT_SETTINGS
        for text in ("", "10026", ":1")
    ),
    *(
        (name, f"127.0.0.1:{n}", "address:port")
        for name in PORT_SETTINGS
        for n in ("0", "x")
    ),
    *((name, "127.0.0.1:65536", "address:port") for name in PORT_SETTINGS),
    *((name, "127.0.0.1:-1", "address:port") for name in PORT_SETTINGS),
    ("archive_handback_address", f"127.0.0.1:{HUGE_NUMBER}", "address:port"),
    *(
        (name, text, "absolute path")
        for name in PATH_SETTINGS
        for text in ("", "tmp", "~/x")
    ),
    *(("archive_delivery", t, "'store, mail'") for t in ("", "both", "store, post")),
    *(("archive_from", t, "archive@example.com") for t in ("", "a", "a@b@", "a b@c")),
    *(("archive_sender", t, "archive@example.com") for t in ("x", "a@b..c", "<a@b>")),
    *(
        ("archive_journal_recipients_per_copy", text, "whole number")
        for text in ("", "-1", "1.5", "many", "²", HUGE_NUMBER)
    ),
    *(
        ("archive_report_format", text, "hybrid, dsn, journal, message")
        for text in ("", "Hybrid", "eml")
    ),
    *(("archive_outcome_mail", text, "yes or no") for text in ("", "true", "Yes", "1")),
    *(
        (n, text, "900s")
        for n in WAIT_SETTINGS
        for text in ("", "5x", "-5s", "s", "1.5h", HUGE_NUMBER)
    ),
    *(
        (n, text, "900s")
        for n in TIME_SETTINGS
        for text in ("", "0", "5x", "-5s", "s", "1.5h")
    ),
    ("archive_time_limit", HUGE_NUMBER, "900s"),
    ("mail_owner", "", "empty"),
    *(("myhostname", text, "host's name") for text in ("", "two words", "bücher.de")),
]


@pytest.mark.parametrize(("name", "text", "allowed"), WRONG_VALUES)
def test_a_wrong_value_names_file_line_and_what_is_allowed(
    name: str, text: str, allowed: str
) -> None:
    error_text = refusal(f"# a comment\n\n{name} = {text}\n")
    assert error_text.startswith(f"{ARCHIVE_CF}, line 3: {name} = {text}: ")
    assert allowed in error_text
    assert "\n" not in error_text


@pytest.mark.parametrize(
    "network",
    ["permit_mynetworks", "[::1]/128", "fe80::/10", "localnet", "10.0.0.0/33"],
)
def test_a_network_that_would_never_match_is_refused(network: str) -> None:
    assert "archive_local_clients" in refusal(f"archive_local_clients = {network}\n")


def test_what_delivery_means() -> None:
    both, store, mail = (
        make_settings(f"archive_delivery = {text}")
        for text in ("store, mail", "store", "mail")
    )
    assert (both.has_store, both.has_mail_delivery) == (True, True)
    assert (store.has_store, store.has_mail_delivery) == (True, False)
    assert (mail.has_store, mail.has_mail_delivery) == (False, True)


def test_an_unknown_setting_of_ours_is_refused_and_the_known_ones_are_named() -> None:
    error_text = refusal("mail_owner = postfix\narchive_stroe_directory = /x\n")
    assert error_text.startswith(f"{ARCHIVE_CF}, line 2: archive_stroe_directory: ")
    assert "archive_store_directory" in error_text


def test_a_setting_of_main_cf_does_not_belong_here() -> None:
    assert "archive: unknown setting" in refusal("archive = a@example.com\n")


def test_names_of_the_admins_own_serve_other_values() -> None:
    parsed = make_settings("root = /srv\narchive_store_directory = $root/mail\n")
    assert parsed.archive_store_directory == "/srv/mail"


@pytest.mark.parametrize("form", ["$root", "${root}", "$(root)"])
def test_all_forms_of_a_name_are_replaced(form: str) -> None:
    parsed = make_settings(f"root = /srv\narchive_key_file = {form}/key-{form}\n")
    assert parsed.archive_key_file == "/srv/key-/srv"


def test_a_name_may_be_set_below_its_use() -> None:
    parsed = make_settings("archive_key_file = $root/key\nroot = /srv\n")
    assert parsed.archive_key_file == "/srv/key"


def test_names_may_stand_in_names() -> None:
    parsed = make_settings("a = /1$b\nb = /2$c\nc = /3\narchive_key_file = $a/$c$b\n")
    assert parsed.archive_key_file == "/1/2/3//3/2/3"


def test_two_dollars_are_one() -> None:
    parsed = make_settings("archive_key_file = /srv/$$root/$$\n")
    assert parsed.archive_key_file == "/srv/$root/$"


@pytest.mark.parametrize(
    "text",
    [
        "archive_key_file = $archive_key_file\n",
        "a = $b\nb = ${a}\narchive_key_file = /$a\n",
    ],
)
def test_names_that_refer_to_each_other_are_refused(text: str) -> None:
    error_text = refusal(text)
    assert "archive_key_file: " in error_text
    assert "refer to each other" in error_text


@pytest.mark.parametrize("value", ["$nothing", "${nothing}", "$(nothing)"])
def test_a_name_that_is_not_set_is_refused(value: str) -> None:
    error_text = refusal(f"\narchive_key_file = /{value}\n")
    assert error_text.startswith(f"{ARCHIVE_CF}, line 2: archive_key_file: ")
    assert "is not set" in error_text


@pytest.mark.parametrize("value", ["/$", "/$/x", "/${open", "/$(open", "/${}"])
def test_a_dollar_without_a_name_is_refused(value: str) -> None:
    assert "'$$'" in refusal(f"archive_key_file = {value}\n")


def test_a_line_that_begins_with_white_space_continues_the_one_before() -> None:
    parsed = make_settings(
        "archive_delivery = store,\n\tmail\nmail_owner =\n  postfix2\n"
    )
    assert parsed.archive_delivery == ("store", "mail")
    assert parsed.mail_owner == "postfix2"


def test_comments_and_empty_lines_do_not_end_a_logical_line() -> None:
    text = "archive_delivery = store\n# why\n\n   # and why not\n  mail\n"
    assert make_settings(text).archive_delivery == ("store", "mail")


def test_an_error_in_a_continuation_names_the_line_where_it_begins() -> None:
    error_text = refusal("mail_owner = postfix\narchive_delivery = store\n\n mole\n")
    assert error_text.startswith(f"{ARCHIVE_CF}, line 2: ")


def test_a_hash_within_a_value_is_no_comment() -> None:
    assert make_settings("archive_key_file = /srv/#1\n").archive_key_file == "/srv/#1"


def test_the_last_line_for_a_name_counts() -> None:
    assert make_settings("mail_owner = a\nmail_owner = b\n").mail_owner == "b"


def test_white_space_around_name_and_value_does_not_count() -> None:
    assert make_settings("mail_owner=  b\t\n").mail_owner == "b"


def test_an_equals_sign_may_stand_in_a_value() -> None:
    assert make_settings("archive_key_file = /a=b\n").archive_key_file == "/a=b"


@pytest.mark.parametrize("line", ["archive_delivery", "= store", "a b = c", "ä = x"])
def test_a_line_of_another_form_is_refused(line: str) -> None:
    error_text = refusal(f"\n{line}\n")
    assert error_text.startswith(f"{ARCHIVE_CF}, line 2: ")
    assert "name = value" in error_text


def test_the_files_own_myhostname_counts() -> None:
    parsed = make_settings("myhostname = mx.example.net\n")
    assert parsed.archive_from == b"postfix-archive@mx.example.net"


@given(st.text(alphabet="archive_from =\n\t#$({})ab@/1,:sx", max_size=60))
def test_any_text_gives_settings_or_a_refusal_that_names_the_file(text: str) -> None:
    try:
        make_settings(text)
    except SettingInvalid as wrong:
        assert str(wrong).startswith(ARCHIVE_CF)


@pytest.mark.parametrize("name", [*PATH_SETTINGS, "mail_owner"])
def test_a_value_that_no_system_call_takes_is_refused(name: str) -> None:
    assert f"{name} contains a NUL byte" in refusal(f"{name} = /a\0b\n")


@pytest.mark.parametrize("host", ["m\u00fcnchen", "a\x1bb"])
def test_a_port_on_a_host_that_no_socket_takes_is_refused(host: str) -> None:
    assert "address:port" in refusal(f"archive_handback_address = {host}:10026\n")


@pytest.mark.parametrize("end", ["x", ""])
def test_names_that_double_each_other_end(end: str) -> None:
    text = "".join(f"a{n} = $a{n + 1}$a{n + 1}\n" for n in range(19))
    text += f"a19 = {end}\nmail_owner = {'$a0' if end else 'x$a0'}\n"
    if end:
        assert "too long" in refusal(text)
    else:
        assert make_settings(text).mail_owner == "x"
